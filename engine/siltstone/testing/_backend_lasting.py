"""Conformance of flush, discard and size."""

from __future__ import annotations

import pytest

from siltstone.errors import DiskFullError
from siltstone.testing._backend_medium import KIB, PAGE, Medium, pattern


class Lasting(Medium):
    """What was flushed stays, and space is there before it is used."""

    def test_fresh_reads_what_was_flushed(self) -> None:
        with self.opened() as backend:
            data = pattern(6, 200 * KIB)
            backend.write(PAGE, data)
            backend.flush()
            assert backend.read(PAGE, len(data), fresh=True) == data
            step = max(backend.alignment, 512)
            assert backend.read(PAGE + step, 5 * step, fresh=True) == data[step : 6 * step]
            assert backend.read(PAGE, len(data)) == data
            end = backend.size - step
            backend.write(end, pattern(7, step))
            backend.flush()
            assert backend.read(end, step, fresh=True) == pattern(7, step)

    def test_flush_with_nothing_to_flush(self) -> None:
        with self.opened() as backend:
            backend.flush()
            backend.flush()

    def test_a_medium_keeps_what_was_flushed(self) -> None:
        if not self.reopens:
            pytest.skip("the medium is gone when it is closed")
        with self.opened() as backend:
            size = backend.size
            backend.write(0, pattern(8, 3 * PAGE))
            backend.flush()
        for read_only in (False, True):
            with self.opened_again(read_only=read_only) as backend:
                assert backend.size == size
                assert backend.read(0, 3 * PAGE, fresh=True) == pattern(8, 3 * PAGE)

    def test_discard_leaves_the_rest_alone(self) -> None:
        with self.opened() as backend:
            data = pattern(9, 1024 * KIB)
            backend.write(0, data)
            backend.flush()
            step = max(backend.alignment, 512)
            for offset, length in ((256 * KIB, 512 * KIB), (step, step), (64 * KIB - step, 4 * step)):
                backend.discard(offset, length)
            backend.flush()
            for offset, end in (
                (0, step),
                (2 * step, 64 * KIB - step),
                (64 * KIB + 3 * step, 256 * KIB),
                (768 * KIB, 1024 * KIB),
            ):
                assert backend.read(offset, end - offset) == data[offset:end]
            backend.write(256 * KIB, pattern(10, 512 * KIB))
            assert backend.read(256 * KIB, 512 * KIB) == pattern(10, 512 * KIB)

    # ---- size

    def test_grow_keeps_what_is_there(self) -> None:
        with self.open(create=True) as backend:
            backend.lock()
            backend.grow(self.span // 2)
            backend.write(0, pattern(11, 64 * KIB))
            backend.grow(self.span)
            backend.publish()
            assert backend.size >= self.span
            assert backend.read(0, 64 * KIB) == pattern(11, 64 * KIB)
            backend.write(self.span - PAGE, bytes(PAGE))

    def test_grow_never_shrinks(self) -> None:
        with self.opened() as backend:
            size = backend.size
            for smaller in (0, PAGE, size):
                backend.grow(smaller)
                assert backend.size == size

    def test_grow_without_space_changes_nothing(self) -> None:
        with self.opened() as backend:
            size = backend.size
            backend.write(0, pattern(12, PAGE))
            for larger in (self.too_large, 1 << 70):
                with pytest.raises(DiskFullError):
                    backend.grow(larger)
                assert backend.size == size
            assert backend.read(0, PAGE) == pattern(12, PAGE)
            backend.write(0, bytes(PAGE))
            backend.flush()
