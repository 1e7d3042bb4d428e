"""What every backend must do, as tests that a backend inherits::

    from siltstone.testing.backend import BackendConformance

    class TestMine(BackendConformance):
        @pytest.fixture(autouse=True)
        def target(self, tmp_path):
            self.path = tmp_path / "volume"

        def open(self, *, read_only=False, create=False):
            return open_mine(str(self.path), BackendOptions(read_only=read_only, create=create))

Each test opens the medium anew. Where `creates` is true it must be absent then; else a test may find on it
what an earlier one left.
"""

from __future__ import annotations

import threading

import pytest

from siltstone.errors import ClosedError, LockedError, MediumError, NotFoundError, ReadOnlyError
from siltstone.testing._backend_lasting import Lasting
from siltstone.testing._backend_medium import KIB, PAGE, changes, pattern, together
from siltstone.testing._backend_transfers import Transfers

__all__ = ["BackendConformance"]


class BackendConformance(Transfers, Lasting):
    """Tests of one backend. A subclass defines `open`, and the class attributes whose defaults are wrong.

    ``span`` [bytes]: what the medium has or can grow to. ``too_large`` [bytes]: what it never can.
    ``reopens``: it can be opened again, after it was closed and while it is open. ``creates``: it is absent
    until it is created and published.
    """

    # ---- what it says of itself

    def test_attributes(self) -> None:
        with self.opened() as backend:
            assert backend.alignment in {1 << shift for shift in range(13)}
            assert backend.erase_block >= 0
            assert backend.size >= self.span
            assert backend.size % backend.alignment == 0
            assert not backend.read_only
            assert backend.url

    def test_an_absent_medium_is_not_found(self) -> None:
        if not self.creates:
            pytest.skip("the medium is always there")
        with pytest.raises(NotFoundError):
            self.open()
        with pytest.raises(NotFoundError):
            self.open(read_only=True)

    def test_a_creation_that_is_given_up_leaves_nothing(self) -> None:
        if not self.creates:
            pytest.skip("the medium is always there")
        with self.open(create=True) as backend:
            backend.lock()
            backend.grow(self.span)
        with pytest.raises(NotFoundError):
            self.open()

    def test_publish_twice(self) -> None:
        with self.opened() as backend:
            backend.publish()

    # ---- mapping

    def test_a_map_shows_writes(self) -> None:
        with self.opened() as backend:
            backend.write(0, pattern(13, 64 * KIB))
            view = backend.map(0, 64 * KIB)
            other = backend.map(PAGE, 4 * PAGE)
            if view is None or other is None:
                assert view is None
                assert other is None
                return
            assert view.readonly
            assert len(view) == 64 * KIB
            assert view == pattern(13, 64 * KIB)
            step = max(backend.alignment, 512)
            for number in range(50):
                data = pattern(number, step)
                backend.write(PAGE + step, data)
                assert view[PAGE + step : PAGE + 2 * step] == data
                assert other[step : 2 * step] == data
            backend.write(0, pattern(14, 64 * KIB))
            assert view == pattern(14, 64 * KIB)

    def test_a_map_outlives_the_backend_but_not_its_lock(self) -> None:
        with self.opened() as backend:
            backend.write(0, pattern(15, PAGE))
            view = backend.map(0, PAGE)
        if view is None:
            pytest.skip("no maps")
        assert view == pattern(15, PAGE)
        if self.reopens:
            with self.opened_again() as backend:
                backend.write(0, bytes(PAGE))
        view.release()

    def test_a_map_of_what_is_not_there(self) -> None:
        with self.opened() as backend:
            size = backend.size
            for offset, length in ((size, PAGE), (0, size + PAGE), (-PAGE, PAGE), (0, -1), (1, 100)):
                if backend.map(0, PAGE) is None:
                    pytest.skip("no maps")
                with pytest.raises(MediumError):
                    backend.map(offset, length)

    # ---- who may

    def test_read_only_refuses_every_change(self) -> None:
        if not self.reopens:
            pytest.skip("nothing to read in a medium that is new each time")
        with self.opened() as backend:
            backend.write(0, pattern(16, PAGE))
            backend.flush()
        with self.opened_again(read_only=True) as backend:
            assert backend.read_only
            for change in changes(backend):
                with pytest.raises(ReadOnlyError):
                    change()
            errors = backend.write_each([(0, bytes(PAGE)), (PAGE, bytes(PAGE))])
            assert [type(errors[place]) for place in range(2)] == [ReadOnlyError, ReadOnlyError]
            assert backend.read(0, PAGE) == pattern(16, PAGE)

    def test_one_writer(self) -> None:
        if not self.reopens:
            pytest.skip("nobody else can open it")
        with self.opened() as backend:
            for read_only in (False, True):
                with pytest.raises(LockedError) as caught, self.opened_again(read_only=read_only):
                    pass
                assert caught.value.holder
                assert str(caught.value.holder) in str(caught.value)
            backend.lock()
        with self.opened_again():
            pass

    def test_several_readers_and_no_writer(self) -> None:
        if not self.reopens:
            pytest.skip("nobody else can open it")
        with self.opened() as backend:
            backend.flush()
        with self.opened_again(read_only=True), self.opened_again(read_only=True):
            writer = self.opened_again()
            with pytest.raises(LockedError):
                writer.__enter__()
        with self.opened_again():
            pass

    # ---- the end

    def test_closed_is_closed(self) -> None:
        with self.opened() as backend:
            backend.close()
            backend.close()
            for use in (
                *changes(backend),
                lambda: backend.write_each([(0, bytes(PAGE)), (PAGE, bytes(PAGE))]),
                lambda: backend.read(0, PAGE),
                lambda: backend.read(0, PAGE, fresh=True),
                lambda: backend.map(0, PAGE),
                backend.lock,
            ):
                with pytest.raises(ClosedError):
                    use()

    def test_closing_while_others_write(self) -> None:
        with self.opened() as backend:
            begun = threading.Barrier(3)

            def work(offset: int) -> None:
                backend.write(offset, bytes(PAGE))
                begun.wait()
                with pytest.raises(ClosedError):
                    while True:
                        backend.write(offset, bytes(PAGE))

            def end() -> None:
                begun.wait()
                backend.close()

            together([lambda: work(0), lambda: work(64 * KIB), end])
