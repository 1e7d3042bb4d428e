"""T9: the images that the RFC's own C code wrote, reproduced from their scripts and read back."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siltstone import HashInfo, Journal
from siltstone.errors import DamageError, EndOfJournalError, EntryError, JournalFullError
from siltstone.format.constants import TYPE_HASH
from siltstone.journal.dump import dump_entries
from siltstone.journal.space import BareSpace
from siltstone.plugin.types import BackendOptions
from siltstone_plugins.hash_info import hash_info_from_journal_entry, journal_entry_from_hash_info
from siltstone_plugins.memory import siltstone_backends

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))
HAZARD = "hazard_254"
EFBIG = -27


def script(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    return loaded


def image(name: str) -> bytes:
    return gzip.decompress((DATA / f"{name}.img.gz").read_bytes())


def entry_of(step: dict[str, Any]) -> tuple[int, bytes]:
    if step["op"] == "append":
        return step["type"], bytes.fromhex(step["payload"])
    info = HashInfo(bytes.fromhex(step["hash"]), step["physical_sect"], step["first_logical_sect"])
    entry = journal_entry_from_hash_info(info)
    assert hash_info_from_journal_entry(entry) == info
    return entry[1], entry[2:]


class Player:
    """A plain journal at the script's sector of a fresh medium, and what its calls return in the RFC's numbers."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        backend = next(iter(siltstone_backends())).open("", BackendOptions(create=True))
        backend.lock()
        backend.grow(wanted["sector"] * 512 + wanted["size"])
        self.backend = backend
        self.journal = Journal(BareSpace(backend, start=wanted["sector"] * 512), format="plain")
        self.journal.allocate(wanted["size"])
        self.appended: list[tuple[int, bytes]] = []

    def play(self, step: dict[str, Any]) -> object:
        return getattr(self, step["op"])(step)

    def append(self, step: dict[str, Any]) -> int:
        kind, payload = entry_of(step)
        try:
            offset = self.journal.append(kind, payload)
        except JournalFullError:
            return -1
        self.appended.append((kind, payload))
        return offset

    append_hash_info = append

    def flush(self, _step: dict[str, Any]) -> int:
        self.journal.flush()
        return 0

    def stop(self, _step: dict[str, Any]) -> int:
        self.journal.stop()
        return 0

    def recycle(self, _step: dict[str, Any]) -> int:
        self.journal.recycle()
        self.appended.clear()
        return 0

    def resume(self, step: dict[str, Any]) -> int:
        self.journal.resume(step["offset"])
        return 4096

    def read(self, step: dict[str, Any]) -> tuple[int, int] | int:
        try:
            entry = self.journal.read(step["offset"])
        except EndOfJournalError:
            return EFBIG
        assert entry.type == step["type"]
        return entry.size

    def walk(self, step: dict[str, Any]) -> None:
        found = list(self.journal.walk())
        assert [(entry.type, entry.payload) for _offset, entry in found] == self.appended
        assert len(found) == step["entries"]
        last_offset, last = found[-1]
        assert step["end"] in (last_offset + last.size, -(-(last_offset + last.size) // 4096) * 4096)


@pytest.mark.parametrize("name", [name for name in NAMES if name != HAZARD])
def test_every_call_returns_what_the_rfc_returned_and_the_image_is_the_same(name: str) -> None:
    wanted = script(name)
    player = Player(wanted)
    for number, step in enumerate(wanted["steps"]):
        if step["op"] == "walk":
            player.walk(step)
        else:
            assert player.play(step) == step["returns"], f"step {number}: {step}"
    assert player.journal.dump().hex() == wanted["dump"]
    written = bytes(player.backend.read(wanted["sector"] * 512, wanted["size"]))
    assert written == image(name)
    assert hashlib.sha256(written).hexdigest() == wanted["sha256"]
    player.backend.close()


def appended_since_recycle(name: str) -> list[tuple[int, bytes]]:
    entries: list[tuple[int, bytes]] = []
    for step in script(name)["steps"]:
        if step["op"] == "recycle":
            entries.clear()
        elif step["op"].startswith("append") and step["returns"] >= 0:
            entries.append(entry_of(step))
    return entries


@pytest.mark.parametrize("name", [name for name in NAMES if name != HAZARD])
def test_the_rfc_image_is_read_entry_for_entry(name: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.img"
    path.write_bytes(image(name))
    assert [(entry.type, entry.payload) for entry in dump_entries(path)] == appended_since_recycle(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name != HAZARD])
def test_a_journal_parsed_from_its_dump_is_walked(name: str) -> None:
    wanted = script(name)
    backend = next(iter(siltstone_backends())).open("", BackendOptions(create=True))
    backend.lock()
    backend.grow(wanted["sector"] * 512 + wanted["size"])
    backend.write(wanted["sector"] * 512, image(name))
    journal = Journal(BareSpace(backend), format="plain")
    journal.parse(bytes.fromhex(wanted["dump"]))
    assert [(entry.type, entry.payload) for _offset, entry in journal.walk()] == appended_since_recycle(name)
    backend.close()


def test_the_hazard_is_refused_when_it_is_written() -> None:
    wanted = script(HAZARD)
    player = Player(wanted)
    refused = [
        step for step in wanted["steps"] if step["op"] == "append" and len(step["payload"]) // 2 == 252
    ]
    assert refused
    with pytest.raises(EntryError, match="254"):
        player.append(refused[0])
    assert player.journal.position == 0
    player.backend.close()


def test_the_hazard_is_not_read_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "journal.img"
    path.write_bytes(image(HAZARD))
    wanted = script(HAZARD)
    walk = next(step for step in wanted["steps"] if step["op"] == "walk")
    seen = []
    with pytest.raises(DamageError, match="3840") as caught:
        seen.extend(dump_entries(path))
    entries = iter(dump_entries(path))
    seen = [next(entries) for _ in range(walk["entries"])]
    assert [(entry.type, entry.payload) for entry in seen] == appended_since_recycle(HAZARD)[
        : walk["entries"]
    ]
    assert caught.value.offset == walk["end"] == 3840
    with pytest.raises(DamageError):
        next(entries)


def test_a_plain_journal_takes_packed_entries_like_single_ones() -> None:
    wanted = script("hash_200")
    steps = [step for step in wanted["steps"] if step["op"] == "append_hash_info"]
    player = Player(wanted)
    packed = b"".join(bytes((52 - 2, TYPE_HASH)) + entry_of(step)[1] for step in steps)
    offsets = player.journal.append_many(np.frombuffer(packed, np.uint8))
    assert offsets == [step["returns"] for step in steps]
    player.journal.flush()
    assert bytes(player.backend.read(0, wanted["size"])) == image("hash_200")
    player.backend.close()
