"""The walk: each file once, no link followed, nothing that is no file opened."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from siltstone.cli.walking import Source, Tally, Unreadable, Walker, identify

if TYPE_CHECKING:
    from pathlib import Path


def walk(*paths: Path | str, spared: tuple[Path, ...] = ()) -> tuple[list[str], list[str], Tally]:
    """Names of what is read, names of what cannot be, and the counts."""
    tally = Tally()
    walker = Walker([str(path) for path in paths], tally, frozenset(identify(path.stat()) for path in spared))
    read, unreadable = [], []
    for found in walker.walk():
        if isinstance(found, Source):
            os.close(found.descriptor)
            read.append(found.name)
        elif isinstance(found, Unreadable):
            unreadable.append(found.name)
    assert (tally.files, tally.unreadable) == (len(read), len(unreadable))
    return sorted(read), unreadable, tally


def make_tree(root: Path, *names: str) -> list[str]:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return sorted(str(root / name) for name in names)


def test_all_files_of_a_tree_are_found(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "a", "b/c", "b/d/e", "empty")
    (tmp_path / "empty").write_bytes(b"")
    assert walk(tmp_path)[0] == expected


def test_links_are_counted_and_not_followed(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "tree/file", "tree/folder/file")
    make_tree(tmp_path, "outside/file")
    (tmp_path / "tree/loop").symlink_to(".")
    (tmp_path / "tree/folder/up").symlink_to("..")
    (tmp_path / "tree/out").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/file-out").symlink_to(tmp_path / "outside/file")
    (tmp_path / "tree/dangling").symlink_to("nowhere")
    read, unreadable, tally = walk(tmp_path / "tree")
    assert (read, unreadable, tally.symlinks) == (expected, [], 5)


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    make_tree(tmp_path, "folder/file")
    (tmp_path / "link").symlink_to("folder")
    assert walk(tmp_path / "link")[0] == [str(tmp_path / "link/file")]


def test_special_files_are_counted_and_not_opened(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        read, unreadable, tally = walk(tmp_path)
    assert (read, unreadable, tally.special) == (expected, [], 2)


@pytest.mark.parametrize("name", ["pipe", "missing"])
def test_what_is_named_and_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    expected = make_tree(tmp_path, "file")
    os.mkfifo(tmp_path / "pipe")
    read, unreadable, _ = walk(tmp_path / name, tmp_path / "file")
    assert (read, unreadable) == (expected, [str(tmp_path / name)])


def test_a_path_with_a_zero_byte_is_said_to_be_unreadable() -> None:
    assert walk("a\0b")[1] == ["a\\x00b"]


def test_what_is_named_twice_is_read_once(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "a", "b/c", "b/d/e")
    assert walk(tmp_path, tmp_path, f"{tmp_path}/.")[0] == expected
    assert walk(tmp_path / "a", tmp_path / "a")[0] == expected[:1]


def test_paths_that_overlap_are_read_once_in_either_order(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "a", "b/c", "b/d/e")
    inner, file = tmp_path / "b", tmp_path / "b/d/e"
    for order in ((tmp_path, inner, file), (file, inner, tmp_path), (inner, tmp_path, file)):
        assert walk(*order)[0] == expected


def test_a_file_with_several_names_is_read_once(tmp_path: Path) -> None:
    make_tree(tmp_path, "a/one", "other")
    os.link(tmp_path / "a/one", tmp_path / "two")
    os.link(tmp_path / "a/one", tmp_path / "a/three")
    read, _, tally = walk(tmp_path)
    assert (len(read), tally.hard_links) == (2, 2)
    assert str(tmp_path / "other") in read


def test_a_file_with_a_name_outside_the_tree_is_read(tmp_path: Path) -> None:
    make_tree(tmp_path, "tree/one")
    os.link(tmp_path / "tree/one", tmp_path / "outside")
    assert walk(tmp_path / "tree")[0] == [str(tmp_path / "tree/one")]


def test_what_is_spared_is_not_read(tmp_path: Path) -> None:
    make_tree(tmp_path, "file", "store.silt")
    read, unreadable, _ = walk(tmp_path, spared=(tmp_path / "store.silt",))
    assert (read, unreadable) == ([str(tmp_path / "file")], [])


def test_names_need_not_be_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\xe9")
    path.parent.mkdir()
    path.write_bytes(b"content")
    assert walk(tmp_path)[0] == [str(path)]


def test_a_tree_deeper_than_a_path_may_be_long_is_read(tmp_path: Path) -> None:
    # 60 folders of 200 characters: no path reaches the file, only descriptors do.
    name = "d" * 200
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    read, unreadable, _ = walk(tmp_path)
    assert (len(read), unreadable) == (1, [])


@pytest.mark.root
def test_a_file_system_of_the_kernel_is_left_out_with_a_word(tmp_path: Path) -> None:
    expected = make_tree(tmp_path, "file", "inner/hidden")[:1]
    inner = tmp_path / "inner"
    mounted = subprocess.run(
        ["mount", "-t", "proc", "proc", inner], capture_output=True, check=False, text=True
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        tally = Tally()
        read, notes = [], []
        for found in Walker([str(tmp_path)], tally).walk():
            assert not isinstance(found, Unreadable)
            if isinstance(found, Source):
                os.close(found.descriptor)
                read.append(found.name)
            else:
                notes.append(found.text)
    finally:
        subprocess.run(["umount", inner], check=True)
    assert read == expected
    assert [note.partition(":")[0] for note in notes] == [str(inner)]
