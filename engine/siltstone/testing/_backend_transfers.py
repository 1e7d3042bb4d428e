"""Conformance of reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from siltstone.errors import MediumError
from siltstone.testing._backend_medium import KIB, PAGE, Medium, pattern, together

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from siltstone.volume.backend import Backend


class Transfers(Medium):
    """What is written is read, and nothing else is touched."""

    def test_reads_what_was_written(self) -> None:
        with self.opened() as backend:
            step = max(backend.alignment, 512)
            for number, (offset, length) in enumerate(
                [(0, step), (step, 3 * step), (self.span - step, step), (16 * KIB, 1100 * KIB)]
            ):
                data = pattern(number, length)
                backend.write(offset, data)
                assert backend.read(offset, length) == data
            assert backend.read(0, step) == pattern(0, step)

    def test_writes_stay_inside_their_range(self) -> None:
        with self.opened() as backend:
            step = max(backend.alignment, 512)
            before = pattern(1, 64 * step)
            backend.write(0, before)
            backend.write(7 * step, pattern(2, 5 * step))
            after = before[: 7 * step] + pattern(2, 5 * step) + before[12 * step :]
            assert backend.read(0, 64 * step) == after

    def test_any_buffer_anywhere_in_memory(self) -> None:
        with self.opened() as backend:
            large = bytearray(pattern(3, 300 * KIB))
            for length in (PAGE, 256 * KIB):
                for shift in (0, 1, 7, 511, 4095):
                    part = memoryview(large)[shift : shift + length]
                    backend.write(0, part)
                    assert backend.read(0, length) == part
            numbers: Any = np.arange(1024, dtype=">u8")
            backend.write(0, numbers)
            assert backend.read(0, numbers.nbytes) == numbers.tobytes()
            backend.write(0, numbers.reshape(32, 32)[:, ::2])
            assert backend.read(0, numbers.nbytes // 2) == numbers.reshape(32, 32)[:, ::2].tobytes()
            records: Any = np.zeros(512, dtype=[("hash", "V32"), ("number", ">u8")])
            records["number"] = np.arange(512)
            backend.write(0, records)
            assert backend.read(0, records.nbytes) == records.tobytes()

    def test_the_caller_keeps_its_buffer_and_owns_the_result(self) -> None:
        with self.opened() as backend:
            data = bytearray(pattern(4, PAGE))
            backend.write(0, data)
            first = backend.read(0, PAGE)
            data[:] = bytes(PAGE)
            backend.write(0, data)
            assert first == pattern(4, PAGE)
            assert backend.read(0, PAGE) == bytes(PAGE)

    def test_nothing_is_a_length_too(self) -> None:
        with self.opened() as backend:
            backend.write(0, b"")
            assert len(backend.read(0, 0)) == 0
            assert len(backend.read(backend.size, 0)) == 0
            backend.discard(0, 0)

    def test_each_of_several_is_written(self) -> None:
        with self.opened() as backend:
            step = max(backend.alignment, 512)
            large = bytearray(pattern(6, 64 * step + 7))
            backend.write(0, bytes(512 * step))
            expected = bytearray(512 * step)
            pieces: list[tuple[int, Buffer]] = []
            for number in range(50):
                # From anywhere in memory, of all lengths, in no order.
                offset, length, shift = (number * 37 % 50) * 8 * step, number % 8 * step, number % 7
                pieces.append((offset, memoryview(large)[shift : shift + length]))
                expected[offset : offset + length] = large[shift : shift + length]
            assert backend.write_each(pieces) == {}
            assert backend.read(0, 512 * step) == expected
            assert backend.write_each([]) == {}

    def test_one_of_several_that_cannot_be_written_keeps_none_of_the_others_back(self) -> None:
        with self.opened() as backend:
            size = backend.size
            data = [pattern(number, PAGE) for number in range(4)]
            places = [0, size, 2 * PAGE, 3 * PAGE]
            errors = backend.write_each(list(zip(places, data, strict=True)))
            assert {place: type(error) for place, error in errors.items()} == {1: MediumError}
            assert errors[1].fields["offset"] == size
            for place in (0, 2, 3):
                assert backend.read(places[place], PAGE) == data[place]

    def test_ranges_are_checked(self) -> None:
        with self.opened() as backend:
            size, step = backend.size, max(backend.alignment, 512)
            data = pattern(5, PAGE)
            backend.write(size - PAGE, data)
            for offset, length in (
                (-step, step),
                (0, -step),
                (size, step),
                (size - step, 2 * step),
                (1 << 62, step),
                (1 << 64, step),
                (0, 1 << 64),
            ):
                for fresh in (False, True):
                    with pytest.raises(MediumError):
                        backend.read(offset, length, fresh=fresh)
                with pytest.raises(MediumError):
                    backend.discard(offset, length)
                if 0 <= length <= PAGE:
                    with pytest.raises(MediumError):
                        backend.write(offset, bytes(length))
            assert backend.size == size
            assert backend.read(size - PAGE, PAGE) == data

    def test_alignment_is_checked(self) -> None:
        with self.opened() as backend:
            if backend.alignment == 1:
                pytest.skip("any range is aligned")
            part, whole = backend.alignment // 2, backend.alignment
            for offset, length in ((part, whole), (0, part), (0, whole + 1), (1, whole)):
                with pytest.raises(MediumError):
                    backend.read(offset, length)
                with pytest.raises(MediumError):
                    backend.write(offset, bytes(length))

    def test_four_threads_write_ranges_of_their_own(self) -> None:
        count, length = 4, 64 * KIB
        share = self.span // count // length * length

        def work(backend: Backend, number: int) -> None:
            for at in range(0, share, length):
                offset = number * share + at
                backend.write(offset, pattern(offset, length))
                backend.flush()
                assert backend.read(offset, length) == pattern(offset, length)

        with self.opened() as backend:
            together([lambda number=number: work(backend, number) for number in range(count)])  # type: ignore[misc]
            for offset in range(0, count * share, length):
                assert backend.read(offset, length, fresh=True) == pattern(offset, length)
