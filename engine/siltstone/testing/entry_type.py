"""The conformance suite for entry types: subclass it in your own tests.

Example::

    from siltstone.testing.entry_type import EntryTypeConformance

    class TestChunkLocation(EntryTypeConformance):
        entry_type = CHUNK_LOCATION
        examples = (ChunkLocation(...), ChunkLocation(...))

Needs pytest and hypothesis: ``pip install siltstone[test]``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.format.constants import TYPE_HASH, TYPE_PLUGIN_FIRST, TYPE_PLUGIN_LAST
from siltstone.plugin.hookspecs import hookimpl
from siltstone.plugin.host import PluginHost
from siltstone.plugin.types import PAYLOAD_SIZE_MAX, EntryType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["EntryTypeConformance"]


class EntryTypeConformance:
    """What the engine relies on in an entry type. Your test class inherits it and sets two attributes."""

    #: the type under test
    entry_type: ClassVar[EntryType]
    #: records of it, at least one: the smallest, the largest and the ordinary
    examples: ClassVar[Sequence[Any]]
    #: the distribution that provides it; only `siltstone` itself may use 0x02
    distribution: ClassVar[str] = "example"
    #: how many hostile payloads are tried
    hostile_payloads: ClassVar[int] = 300
    #: the longest that the decoding of one payload may take [s]; far beyond what a busy machine adds
    decode_seconds_max: ClassVar[float] = 20.0

    def test_examples_are_records(self) -> None:
        """There are examples, and all are of the class that the type declares."""
        assert self.examples, "set `examples` to at least one record"
        for record in self.examples:
            assert isinstance(record, self.entry_type.record), record

    def test_id_may_be_used(self) -> None:
        """The id is one that plugins may take, and not one of the engine's or of those for private use."""
        first, last = TYPE_PLUGIN_FIRST, TYPE_PLUGIN_LAST
        reserved = self.entry_type.id == TYPE_HASH and self.distribution == "siltstone"
        assert first <= self.entry_type.id <= last or reserved, f"{self.entry_type.id:#04x} is reserved"

    def test_host_accepts_it(self) -> None:
        """A host that loads the type finds it by id, by name and by its records."""
        host = PluginHost.load(extra=[(self.distribution, _Plugin(self.entry_type))], discover=False)
        assert host.entry_type(self.entry_type.id) is self.entry_type
        assert host.entry_type_named(self.entry_type.name) is self.entry_type
        for record in self.examples:
            assert host.entry_type_of(record) is self.entry_type

    def test_round_trip(self) -> None:
        """What was encoded decodes to an equal record, and encodes to the same bytes every time."""
        for record in self.examples:
            payload = self.entry_type.to_payload(record)
            assert self.entry_type.to_payload(record) == payload, f"two encodings of {record!r} differ"
            decoded = self.entry_type.from_payload(payload)
            assert decoded == record, f"{record!r} came back as {decoded!r}"
            assert self.entry_type.to_payload(decoded) == payload, (
                f"{record!r} came back and encodes differently"
            )

    def test_payload_is_within_its_size(self) -> None:
        """Every payload has the size that the type declares, and fits an entry."""
        low, high = self.entry_type.payload_size_range
        assert 0 <= low <= high <= PAYLOAD_SIZE_MAX
        for record in self.examples:
            size = len(self.entry_type.to_payload(record))
            assert low <= size <= high, f"{record!r} takes {size} bytes, not {low}-{high}"

    def test_codec_takes_only_its_own_records(self) -> None:
        """Encoding something else is an EntryError."""
        for stranger in (None, object(), 7, "text", b"bytes"):
            if not isinstance(stranger, self.entry_type.record):
                with pytest.raises(EntryError):
                    self.entry_type.to_payload(stranger)

    def test_key_is_part_of_the_payload(self) -> None:
        """The key is whole in each payload, and the same after a round trip."""
        if self.entry_type.key is None:
            assert all(
                self.entry_type.key_of(self.entry_type.to_payload(each)) is None for each in self.examples
            )
            return
        for record in self.examples:
            payload = self.entry_type.to_payload(record)
            key = self.entry_type.key_of(payload)
            assert key is not None
            assert len(key) == self.entry_type.key[1], f"{record!r} has a key of {len(key)} bytes"
            decoded = self.entry_type.from_payload(payload)
            again = self.entry_type.key_of(self.entry_type.to_payload(decoded))
            assert again == key, f"the key of {record!r} is {key.hex()}, and {again!r} after a round trip"

    def test_fields_are_what_is_encoded(self) -> None:
        """The declared fields lie in the payload as the codec writes them, for batches that go past it."""
        dtype = self.entry_type.dtype
        if dtype is None:
            return
        for record in self.examples:
            payload = self.entry_type.to_payload(record)
            assert len(payload) == dtype.itemsize
            [row] = np.frombuffer(payload, dtype)
            for name in dtype.names or ():
                if hasattr(record, name):
                    stored = row[name].tobytes() if dtype[name].kind == "V" else row[name].item()
                    wanted = getattr(record, name)
                    assert stored == wanted, f"{record!r}: field {name} is {stored!r} in the payload"

    def test_hostile_payloads(self) -> None:
        """Any bytes at all end, in bounded time, in a record or an EntryError; a record keeps its key."""

        @settings(
            max_examples=self.hostile_payloads,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(self._payloads())
        def check(payload: bytes) -> None:
            self._check_hostile(payload)

        check()

    def test_sizes_that_no_payload_has(self) -> None:
        """Each payload of an example, cut short or made longer, ends in a record or an EntryError."""
        for record in self.examples:
            payload = self.entry_type.to_payload(record)
            for size in range(len(payload)):
                self._check_hostile(payload[:size])
            for more in (1, 2, PAYLOAD_SIZE_MAX - len(payload)):
                self._check_hostile(payload + b"\xff" * more)
                self._check_hostile(payload + bytes(more))

    def _payloads(self) -> st.SearchStrategy[bytes]:
        low, high = self.entry_type.payload_size_range
        fitting = st.binary(min_size=low, max_size=high)
        real = st.sampled_from([self.entry_type.to_payload(record) for record in self.examples])
        return st.one_of(fitting, st.binary(max_size=PAYLOAD_SIZE_MAX), _one_byte_changed(real))

    def _check_hostile(self, payload: bytes) -> None:
        record = self._decode(payload)
        if record is None:
            return
        # What passes for a record will be put into another journal when its own is packed.
        again = self.entry_type.to_payload(record)
        assert self.entry_type.key_of(again) == self.entry_type.key_of(payload), (
            f"{payload.hex()} decodes to {record!r}, which has another key"
        )
        once_more = self.entry_type.to_payload(self.entry_type.from_payload(again))
        assert once_more == again, (
            f"{payload.hex()} decodes to {record!r}, which does not survive a round trip"
        )

    def _decode(self, payload: bytes) -> Any | None:
        """Return the record in `payload` or None for an EntryError; all else fails the test."""
        outcome: list[Any] = []

        def decode() -> None:
            try:
                outcome.append(self.entry_type.from_payload(payload))
            except EntryError:
                outcome.append(None)
            except BaseException as error:  # noqa: BLE001 - the thread that waits looks at it
                outcome.append(error)

        # In a thread, so that a codec without end fails one test and does not hang the run.
        thread = threading.Thread(target=decode, daemon=True)
        thread.start()
        thread.join(self.decode_seconds_max)
        assert outcome, f"decoding {payload.hex()} took more than {self.decode_seconds_max} s"
        assert not isinstance(outcome[0], BaseException), f"decoding {payload.hex()} raised {outcome[0]!r}"
        return outcome[0]


def _one_byte_changed(payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def change(payload: bytes, at: int, value: int) -> bytes:
        at %= max(len(payload), 1)
        return payload[:at] + bytes((value,)) + payload[at + 1 :]

    return st.builds(change, payloads, st.integers(0, PAYLOAD_SIZE_MAX - 1), st.integers(0, 255))


class _Plugin:
    """A plugin with one entry type."""

    def __init__(self, entry_type: EntryType) -> None:
        self.entry_type = entry_type

    @hookimpl
    def siltstone_entry_types(self) -> Iterator[EntryType]:
        yield self.entry_type
