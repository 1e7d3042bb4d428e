"""The backend of this distribution keeps the contract, and what is its own: the files under it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from siltstone_example.segments import SegmentsBackend, open_segments

from siltstone.errors import (
    AlreadyExistsError,
    ConfigError,
    DiskFullError,
    ForeignVolumeError,
    MediumError,
    NotFoundError,
)
from siltstone.plugin import BackendOptions
from siltstone.testing.backend import BackendConformance

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
SMALL = {"segment_size": 64 * KIB}


class TestSegments(BackendConformance):
    @pytest.fixture(autouse=True)
    def target(self, tmp_path: Path) -> None:
        self.path = tmp_path / "volume"

    def open(self, *, read_only: bool = False, create: bool = False) -> SegmentsBackend:
        return open_segments(
            str(self.path),
            BackendOptions(read_only=read_only, create=create, extra={"segment_size": 256 * KIB}),
        )


def create(path: Path, size: int) -> SegmentsBackend:
    backend = open_segments(str(path), BackendOptions(create=True, extra=SMALL))
    backend.lock()
    backend.grow(size)
    backend.publish()
    return backend


def contents(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def test_the_volume_lies_in_files_of_equal_size(tmp_path: Path) -> None:
    with create(tmp_path / "volume", 130 * KIB) as backend:
        assert backend.size == 192 * KIB
        backend.write(60 * KIB, b"\xaa" * 70 * KIB)
        assert backend.read(60 * KIB, 70 * KIB) == b"\xaa" * 70 * KIB
    files = contents(tmp_path / "volume")
    assert sorted(files) == ["segment-00000000", "segment-00000001", "segment-00000002"]
    assert b"".join(files[name] for name in sorted(files)) == bytes(60 * KIB) + b"\xaa" * 70 * KIB + bytes(
        62 * KIB
    )


def test_the_size_of_segments_is_that_of_the_first(tmp_path: Path) -> None:
    create(tmp_path / "volume", 64 * KIB).close()
    with open_segments(
        str(tmp_path / "volume"), BackendOptions(extra={"segment_size": 1024 * KIB})
    ) as backend:
        backend.lock()
        backend.grow(65 * KIB)
        assert backend.size == 128 * KIB


def test_nothing_has_the_name_before_it_is_published(tmp_path: Path) -> None:
    with open_segments(str(tmp_path / "volume"), BackendOptions(create=True, extra=SMALL)) as backend:
        backend.lock()
        backend.grow(64 * KIB)
        assert not (tmp_path / "volume").exists()
    assert list(tmp_path.iterdir()) == []


def test_of_two_creations_the_first_to_be_published_stays(tmp_path: Path) -> None:
    options = BackendOptions(create=True, extra=SMALL)
    with open_segments(str(tmp_path / "volume"), options) as late:
        late.grow(64 * KIB)
        create(tmp_path / "volume", 128 * KIB).close()
        with pytest.raises(AlreadyExistsError):
            late.publish()
    assert len(contents(tmp_path / "volume")) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["volume"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_creating_what_exists(tmp_path: Path, exclusive: bool) -> None:
    create(tmp_path / "volume", 64 * KIB).close()
    options = BackendOptions(create=True, exclusive=exclusive)
    if exclusive:
        with pytest.raises(AlreadyExistsError):
            open_segments(str(tmp_path / "volume"), options)
    else:
        with open_segments(str(tmp_path / "volume"), options) as backend:
            assert backend.size == 64 * KIB


def test_a_directory_of_other_things_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpeg").write_bytes(b"meow")
    with pytest.raises(ForeignVolumeError, match=r"cat\.jpeg"):
        open_segments(str(folder), BackendOptions(create=True))
    assert contents(folder) == {"cat.jpeg": b"meow"}


@pytest.mark.parametrize("harm", ["gap", "short", "empty", "fifo", "symlink", "file"])
def test_segments_that_do_not_fit_together_are_refused(tmp_path: Path, harm: str) -> None:
    volume = tmp_path / "volume"
    create(volume, 192 * KIB).close()
    middle = volume / "segment-00000001"
    if harm == "short":
        os.truncate(middle, 100)
    elif harm == "empty":
        os.truncate(middle, 0)
    else:
        middle.unlink()
    if harm == "fifo":
        os.mkfifo(middle)
    elif harm == "symlink":
        middle.symlink_to("segment-00000000")
    elif harm == "file":
        volume = volume / "segment-00000000"
    with pytest.raises(Exception, match=str(volume)) as caught:
        open_segments(str(volume), BackendOptions())
    assert type(caught.value).__module__ == "siltstone.errors"


def test_a_creation_beside_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_segments(str(tmp_path / "no" / "such" / "place"), BackendOptions(create=True))


def test_what_a_grow_that_died_left_is_made_anew(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    create(volume, 64 * KIB).close()
    (volume / "segment-00000001.unfinished").write_bytes(b"\xff" * 10)
    with open_segments(str(volume), BackendOptions()) as backend:
        backend.lock()
        backend.grow(128 * KIB)
        assert backend.read(64 * KIB, 64 * KIB) == bytes(64 * KIB)
    assert sorted(contents(volume)) == ["segment-00000000", "segment-00000001"]


def test_a_disk_too_small_leaves_the_size_as_it_was(tmp_path: Path) -> None:
    with create(tmp_path / "volume", 64 * KIB) as backend:
        for size in (1 << 62, 1 << 46):
            with pytest.raises(DiskFullError):
                backend.grow(size)
        assert backend.size == 64 * KIB
    assert len(contents(tmp_path / "volume")) == 1


@pytest.mark.parametrize(
    "extra", [{"segment_size": 1}, {"segment_size": 65537}, {"segment_size": "1M"}, {"size": 65536}]
)
def test_wrong_options_are_named(tmp_path: Path, extra: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(extra)))):
        open_segments(str(tmp_path / "volume"), BackendOptions(create=True, extra=extra))
    assert list(tmp_path.iterdir()) == []


def test_a_flush_that_failed_once_fails_ever_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path / "volume", 64 * KIB) as backend:
        backend.write(0, b"x" * 4096)
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", fail_with(errno.EIO))
            with pytest.raises(MediumError) as caught:
                backend.flush()
        assert (caught.value.operation, caught.value.errno) == ("flush", errno.EIO)
        # The system reports a lost write once; a success now would promise what is not there.
        with pytest.raises(MediumError, match="not tried again"):
            backend.flush()


def test_a_flush_without_space_is_no_harmless_kind_of_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path / "volume", 64 * KIB) as backend:
        backend.write(0, b"x" * 4096)
        monkeypatch.setattr(os, "fdatasync", fail_with(errno.ENOSPC))
        with pytest.raises(MediumError):
            backend.flush()


@pytest.mark.parametrize("call", ["fsync", "rename", "pwrite"])
def test_a_grow_that_fails_midway_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with create(tmp_path / "volume", 64 * KIB) as backend:
        with monkeypatch.context() as failing:
            failing.setattr(os, call, fail_with(errno.ENOSPC, after=2, then=getattr(os, call)))
            with pytest.raises(DiskFullError):
                backend.grow(64 * KIB * 6)
        assert backend.size == 64 * KIB
        assert sorted(contents(tmp_path / "volume")) == ["segment-00000000"]
        backend.grow(64 * KIB * 2)
        assert backend.size == 128 * KIB


def test_a_flush_reaches_every_segment_written_to_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create(tmp_path / "volume", 64 * KIB * 4) as backend:
        flushed: list[str] = []
        monkeypatch.setattr(
            os, "fdatasync", lambda fd: flushed.append(Path(f"/proc/self/fd/{fd}").readlink().name[-1])
        )
        backend.write(126 * KIB, b"x" * 4096)
        backend.flush()
        backend.flush()
        assert sorted(flushed) == ["1", "2"]


def test_the_first_flush_covers_what_a_dead_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "volume", 64 * KIB * 3).close()
    with open_segments(str(tmp_path / "volume"), BackendOptions()) as backend:
        backend.lock()
        flushed: list[int] = []
        monkeypatch.setattr(os, "fdatasync", flushed.append)
        backend.flush()
        assert len(flushed) == 3


def fail_with(code: int, after: int = 0, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a system call that fails with `code` once it has been called `after` times."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= after and then is not None:
            return then(*arguments, **options)
        raise OSError(code, os.strerror(code))

    return call
