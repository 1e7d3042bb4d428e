"""`siltstone dedup` as people run it: a process, its output, its exit status."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cli_process import Outcome, count_blocks, finish, start

import siltstone
from siltstone.cli.cutting import ContentCutter


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with blocks that come again: in a file, across files, and at their ends."""
    source = random.Random(7)
    shared = source.randbytes(5 * 4096)
    contents = {
        "empty": b"",
        "short": b"short",
        "short again": b"short",
        "folder/shared": shared,
        "folder/deeper/shared and more": shared + source.randbytes(3 * 4096 + 17),
        "zeros": bytes(100 * 4096),
        "noise": source.randbytes(300 * 4096 + 1),
    }
    root = tmp_path / "tree"
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def contents_of(tree: Path) -> list[bytes]:
    return [path.read_bytes() for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]


def numbers(outcome: Outcome, *names: str) -> list[Any]:
    return [outcome.json[name] for name in names]


@pytest.mark.parametrize(("hash_name", "function"), [("sha256", hashlib.sha256), ("blake3", blake3)])
@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_counts_are_those_of_a_plain_count(
    run: Any, tree: Path, hash_name: str, function: Any, size: int
) -> None:
    outcome = run("dedup", tree, "--json", "--hash", hash_name, "--block-size", str(size))
    assert (outcome.status, outcome.err) == (0, "")
    blocks, unique, unique_bytes = count_blocks(*contents_of(tree), size=size, function=function)
    total = sum(map(len, contents_of(tree)))
    assert numbers(outcome, "files", "bytes", "blocks", "unique", "duplicate", "known", "unique_bytes") == [
        7, total, blocks, unique, blocks - unique, 0, unique_bytes,
    ]  # fmt: skip
    assert outcome.json["ratio"] == pytest.approx(total / unique_bytes)
    assert numbers(outcome, "records", "block_size", "hash", "chunking") == [unique, size, hash_name, "fixed"]
    assert outcome.json["ram_bytes_per_record"] > 0
    assert outcome.json["disk_bytes_per_record"] >= 50


def test_content_defined_counts_are_those_of_a_plain_computation(run: Any, tree: Path) -> None:
    outcome = run("dedup", tree, "--json", "--chunking", "fastcdc")
    blocks: list[bytes] = []
    for content in contents_of(tree):
        offset = 0
        for length in ContentCutter().cut(memoryview(content), end=True):
            blocks.append(content[offset : offset + length])
            offset += length
    assert numbers(outcome, "blocks", "unique", "block_size", "chunking") == [
        len(blocks), len(set(blocks)), None, "fastcdc",
    ]  # fmt: skip


def test_a_second_run_finds_everything_known(run: Any, tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.silt"
    first = run("dedup", tree, "--store", store, "--json")
    assert first.status == 0
    second = run("dedup", tree, "--store", store, "--json")
    assert numbers(second, "blocks", "unique", "known", "duplicate", "ratio", "records") == [
        first.json["blocks"], 0, first.json["blocks"], first.json["blocks"], None, first.json["unique"],
    ]  # fmt: skip
    (tree / "added").write_bytes(b"added")
    third = run("dedup", tree, "--store", store, "--json")
    assert numbers(third, "unique", "known") == [1, first.json["blocks"]]


def test_the_store_says_where_each_block_was_seen_first_and_would_lie(run: Any, tmp_path: Path) -> None:
    file, store = tmp_path / "file", tmp_path / "store.silt"
    parts = [bytes([number]) * 4096 for number in (1, 2, 1, 3)]
    file.write_bytes(b"".join(parts) + b"tail")
    assert run("dedup", file, "--store", store).status == 0
    file.write_bytes(b"new" * 1000)
    assert run("dedup", file, "--store", store).status == 0
    with siltstone.open(store, read_only=True) as opened:
        found = [opened.get(hashlib.sha256(part).digest()) for part in (*parts, b"tail", b"new" * 1000)]
    assert [(info.physical_sect, info.first_logical_sect) for info in found if info] == [
        (0, 0), (8, 8), (0, 0), (16, 24), (24, 32), (25, 0),
    ]  # fmt: skip


def test_without_a_store_nothing_is_left_and_the_output_says_so(run: Any, tree: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outcome = run("dedup", tree, cwd=tmp_path, env={**os.environ, "TMPDIR": str(scratch)})
    assert outcome.status == 0
    assert "temporary, thrown away" in outcome.out
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "tree"]


def test_the_table_fits_80_columns(run: Any, tree: Path, tmp_path: Path) -> None:
    outcome = run("dedup", tree, "--store", "store.silt", cwd=tmp_path)
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("read", "unique", "duplicate", "ratio", "rate", "RAM", "disk", "store"):
        assert any(line.startswith(f"{name} ") for line in lines), f"no line for {name}"


def test_unreadable_files_are_named_and_counted_and_the_rest_is_read(tree: Path, tmp_path: Path) -> None:
    (tree / "secret").write_bytes(b"secret")
    (tree / "secret").chmod(0)
    (tree / "closed").mkdir()
    (tree / "closed/inside").write_bytes(b"inside")
    (tree / "closed").chmod(0)
    store = tmp_path / "store.silt"
    outcome = finish(start_without_privileges("dedup", tree, "--json", "--store", store))
    assert outcome.status == 1
    assert numbers(outcome, "files", "unreadable") == [7, 2]
    assert sorted(outcome.err.splitlines()) == [
        f"siltstone: {tree}/closed: Permission denied",
        f"siltstone: {tree}/secret: Permission denied",
    ]


def start_without_privileges(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start the command line such that the modes of files bind it, even where root runs the tests."""
    if os.geteuid() != 0:
        return start(*arguments)
    if shutil.which("setpriv") is None:
        pytest.skip("root reads every file, and setpriv, which would take that away, is not here")
    return start(*arguments, prefix=["setpriv", "--bounding-set", "-dac_override,-dac_read_search"])


def test_a_missing_path_is_named_and_counted(run: Any, tree: Path) -> None:
    outcome = run("dedup", tree / "missing", tree / "short", "--json")
    assert outcome.status == 1
    assert outcome.err == f"siltstone: {tree}/missing: No such file or directory\n"
    assert numbers(outcome, "files", "blocks", "unreadable") == [1, 1, 1]


def test_links_pipes_and_strange_names_do_not_disturb(run: Any, tree: Path) -> None:
    (tree / "loop").symlink_to(".")
    (tree / "folder/up").symlink_to("..")
    os.mkfifo(tree / "pipe")
    strange = os.fsencode(tree) + b"/\xff\x1b[31m\n"
    Path(os.fsdecode(strange)).write_bytes(b"strange")
    os.link(tree / "short", tree / "short, linked")
    outcome = run("dedup", tree, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    assert numbers(outcome, "files", "symlinks", "special", "hard_links") == [8, 2, 1, 1]


def test_a_strange_name_is_shown_without_its_control_characters(run: Any, tree: Path) -> None:
    outcome = run("dedup", os.fsencode(tree) + b"/\xff\x1b[31m\n")
    assert outcome.status == 1
    assert outcome.err == f"siltstone: {tree}/\\xff\\x1b[31m\\x0a: No such file or directory\n"


def test_overlapping_paths_count_once(run: Any, tree: Path) -> None:
    once = run("dedup", tree, "--json").json
    paths = [tree / "folder", tree, tree, f"{tree}/./folder/deeper", tree / "noise"]
    again = run("dedup", *paths, "--json").json
    for name in ("files", "blocks", "unique"):
        assert again[name] == once[name]


def test_the_store_in_the_tree_is_not_read(run: Any, tree: Path) -> None:
    before = run("dedup", tree, "--json").json
    for _ in range(2):
        inside = run("dedup", tree, "--store", tree / "folder/store.silt", "--json")
        assert inside.status == 0
        assert numbers(inside, "files", "blocks") == [before["files"], before["blocks"]]
    itself = run("dedup", tree / "folder/store.silt", "--store", tree / "folder/store.silt")
    assert itself.status == 2
    assert "is the store itself" in itself.err


def test_an_empty_tree_is_fine(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = run("dedup", tmp_path / "empty", "--json")
    assert outcome.status == 0
    assert numbers(outcome, "files", "blocks", "ratio", "ram_bytes_per_record") == [0, 0, None, None]
    assert "nothing was read" in run("dedup", tmp_path / "empty").out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--block-size", "1000"],
        ["--block-size", "0"],
        ["--block-size", "1G"],
        ["--block-size", "4k", "--chunking", "fastcdc"],
        ["--hash", "md5"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage_ends_with_2_and_no_traceback(run: Any, tree: Path, arguments: list[str]) -> None:
    outcome = run("dedup", *([tree, *arguments] if arguments else []))
    assert (outcome.status, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    assert outcome.err.startswith("Usage: siltstone dedup")


def test_a_store_that_is_none_is_an_error_in_one_line(run: Any, tree: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"no store" * 100_000)
    outcome = run("dedup", tree, "--store", foreign)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("siltstone: error: ")
    assert outcome.err.count("\n") == 1
    assert foreign.read_bytes() == b"no store" * 100_000
    assert "Traceback" in run("--debug", "dedup", tree, "--store", foreign).err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_read(run: Any, tmp_path: Path, number: signal.Signals) -> None:
    # It cannot be done before it is interrupted: the file is a hole of 4 TiB behind its first 20 MiB.
    big, store = tmp_path / "big", tmp_path / "store.silt"
    with big.open("wb") as file:
        for _ in range(20):
            file.write(os.urandom(1 << 20))
        file.truncate(1 << 42)
    process = start("dedup", big, "--store", store, "--json")
    wait_until_read(process)
    process.send_signal(number)
    outcome = finish(process)
    assert outcome.status == 128 + number
    assert outcome.json["interrupted"] is True
    assert f"records are kept in {store}" in outcome.err
    blocks, unique = numbers(outcome, "blocks", "unique")
    assert 0 < unique <= blocks
    # What was taken is there: the same blocks again are all known.
    with big.open("r+b") as file:
        file.truncate(20 << 20)
    assert run("dedup", big, "--store", store, "--json").json["known"] == 20 * 256


def wait_until_read(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has read some 512 MiB; the kernel counts that."""
    io = Path(f"/proc/{process.pid}/io")
    while process.poll() is None:
        read = int(io.read_text().split("rchar: ")[1].split()[0])
        if read > 512 << 20:
            return
    pytest.fail(f"ended early: {finish(process)}")


def test_a_reader_that_goes_away_is_no_error(tree: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "siltstone.cli", "dedup", str(tree)]
    process = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, b"")


def test_progress_is_shown_on_a_terminal_and_only_there(tree: Path) -> None:
    terminal, child_end = os.openpty()
    command = [sys.executable, "-m", "siltstone.cli", "dedup", str(tree), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child_end) as process:
        os.close(child_end)
        shown = read_terminal(terminal)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"files 7" in shown
    assert json.loads(out)["files"] == 7


def read_terminal(terminal: int) -> bytes:
    """All that is written to a terminal until nobody has it open any more."""
    shown = b""
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 65536):
            shown += more
    os.close(terminal)
    return shown


@pytest.mark.root
def test_a_block_device_that_is_named_is_read(run: Any, tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = random.Random(3).randbytes(700 * 512)
    image.write_bytes(content)
    attached = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", image], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"no loop device here: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        outcome = run("dedup", device, "--json")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert numbers(outcome, "files", "bytes", "blocks") == [1, len(content), -(-len(content) // 4096)]
