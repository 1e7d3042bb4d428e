"""A program that breaks an index as it is told, looks into it, and says that it lives; one line for each attempt."""

from __future__ import annotations

import json
import sys
from contextlib import suppress

from indexed_log import HASH, SECRET, TYPES
from shared_log import EXTENT, EXTENTS, SIZE, SharedLog, all_keys, entries_for

from siltstone.index.types import KeyTypes
from siltstone.index.view import IndexView
from siltstone.log_store.memory import shared_memory
from siltstone.lookup.reader import Reader
from siltstone.volume.mapping import Mapping


class Stopped(Exception):
    """Raised out of a lookup that does not get on."""


def stop(_shard: int) -> None:
    raise Stopped


def main() -> None:
    index, volume = SIZE.share(), shared_memory("volume", EXTENTS * EXTENT)
    log, keys = SharedLog(index, volume), all_keys()[:3000]
    for start in range(0, 3000, 500):
        log.apply(entries_for(keys[start : start + 500], 1))
    raw = memoryview(SIZE.map_shared(index, writable=True))
    whole = bytes(raw)

    def map_extent(_number: int, offset: int, length: int) -> Mapping:
        if offset + length > EXTENTS * EXTENT or offset % 4096:
            raise ValueError("outside the volume")
        return Mapping(volume, offset, length)

    def view() -> IndexView:
        memory = SIZE.map_shared(index, writable=False)
        return IndexView(memory, KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes, map_extent)

    before = view()
    print("ready", flush=True)
    for line in sys.stdin:
        places = json.loads(line)
        for at, value in places:
            raw[at] = value
        for one in (view, lambda: before):
            with suppress(Stopped, ValueError):
                reader = Reader([one()], stuck=stop)
                reader.get_many(HASH, keys, 48)
            for key in keys[:50]:
                with suppress(Stopped, ValueError):
                    Reader([one()], stuck=stop).get(HASH, key)
        for at, _value in places:
            raw[at] = whole[at]
        found, payloads = Reader([before], stuck=stop).get_many(HASH, keys, 48)
        assert found.all()
        assert (payloads[:, :32] == keys).all()
        print("alive", flush=True)


if __name__ == "__main__":
    main()
