"""Entries of all kinds, packed and incarnated: with keys of several sizes, of varying size, and without a key."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from store_media import freeze
from store_records import digest, info

import siltstone
from siltstone.format.superblock import CLOSED, KIND_HASH_STORE
from siltstone.plugin import Consumer, EntryType, hookimpl
from siltstone.plugin.host import PluginHost
from siltstone.shard.choosing import Run
from siltstone.shard.packing import Cleaning

SMALL = 64 * 1024


@dataclass(frozen=True)
class Note:
    """Has no key."""

    text: str


@dataclass(frozen=True)
class Label:
    """Varies in size; its key looks like one of `hash_info`."""

    key: bytes
    text: str


@dataclass(frozen=True)
class Tag:
    """Its key is short and stands behind what is put under it."""

    key: bytes
    value: bytes


class Types:
    """A plugin with all of them, and a consumer that keeps what it gets."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def siltstone_entry_types(self):
        """Yield them."""
        yield EntryType(
            id=0x80,
            name="note",
            version=1,
            record=Note,
            encode=lambda note: note.text.encode(),
            decode=lambda payload: Note(bytes(payload).decode()),
        )
        yield EntryType(
            id=0x81,
            name="label",
            version=1,
            record=Label,
            encode=lambda label: label.key + label.text.encode(),
            decode=lambda payload: Label(bytes(payload[:32]), bytes(payload[32:]).decode()),
            key=(0, 32),
        )
        yield EntryType(
            id=0x82,
            name="tag",
            version=1,
            record=Tag,
            encode=lambda tag: tag.value + tag.key,
            decode=lambda payload: Tag(bytes(payload[200:203]), bytes(payload[:200])),
            key=(200, 3),
        )

    @hookimpl
    def siltstone_consumers(self):
        """Yield the one consumer."""
        yield Consumer(name="notes", entry_types=frozenset({"note"}), consume=self.take)

    def take(self, batch):
        """Keep the texts of some notes."""
        self.seen += [payload.decode() for payload in batch.payloads]


@pytest.fixture
def types():
    return Types()


def opened(path, types, **options):
    types.seen.clear()
    return siltstone.open(path, plugins=PluginHost.load(None, extra=[types]), workers=0, **options)


def test_entries_without_a_key_stay_in_order_however_often_journals_are_incarnated(path, types):
    texts: list[str] = []
    with opened(path, types, shards=1, erase_block=SMALL) as store:
        for round_ in range(40):
            for _ in range(30):
                texts.append(f"{len(texts)} {'x' * (len(texts) % 100)}")
                store.put(Note(texts[-1]))
            store.put(info(round_))
            store.incarnate()
            if round_ % 7 == 0:
                store.pack()
        # As the logarithm of what they hold, not one for each time.
        assert store.info().journals <= 8
        for number in range(40):
            assert store.get(digest(number)) == info(number)
    store = opened(path, types)
    assert types.seen == texts
    store._core.abandon()
    with opened(path, types) as store:
        assert types.seen == texts
        store.incarnate()
    with opened(path, types) as store:
        assert types.seen == texts
        assert len(store) == 40


def test_entries_without_a_key_are_there_once_when_a_journal_before_them_is_cleaned(path, types):
    """What is left of the space of its copy takes of the next journal only what can be there twice."""
    with opened(path, types, shards=1, erase_block=SMALL) as store:
        group = store._core.shards.group
        (shard,) = group.shards.values()
        for number in range(100):
            store.put(info(number))
        store.put(Note("first"))
        freeze(store)
        for number in range(100, 200):
            store.put(info(number))
        store.put(Note("second"))
        freeze(store)
        before, behind = (each for each in store._core.volume.superblock.journals(0) if each.state == CLOSED)
        store.put(info(5, 1))
        Cleaning(shard, Run((before,), oldest=True), lambda: group.flush(only=[shard]), behind).carry_out()
    with opened(path, types) as store:
        assert types.seen == ["first", "second"]
        assert len(store) == 200
        assert store.get(digest(5)) == info(5, 1)
        assert store.get(digest(150)) == info(150)


def test_where_nothing_has_a_key_nothing_is_incarnated(path, types):
    with opened(path, types, shards=1, erase_block=SMALL) as store:
        store.put(Note("alone"))
        store.incarnate()
        store.incarnate()
        assert not [extent for extent in store.info().extents if extent.kind == KIND_HASH_STORE]
    with opened(path, types):
        assert types.seen == ["alone"]


def test_any_changes_of_several_types_are_kept(path, types):
    """Random puts and deletions under equal keys, packed and incarnated now and then, against dicts."""
    chance = random.Random(11)
    held: dict[str, dict[bytes, object]] = {"hash_info": {}, "label": {}, "tag": {}}
    notes: list[str] = []
    store = opened(path, types, shards=2, erase_block=SMALL)
    for step in range(40):
        for _ in range(100):
            number = chance.randrange(60)
            kind = chance.choice(["hash_info", "label", "tag", "note"])
            key = bytes([0, 0, number]) if kind == "tag" else digest(number)
            if kind == "note":
                notes.append(f"note {len(notes)}")
                store.put(Note(notes[-1]))
            elif chance.random() < 0.4:
                assert store.delete(key, entry_type=kind) is (held[kind].pop(key, None) is not None)
            else:
                record = {
                    "hash_info": info(number, step),
                    "label": Label(key, "l" * chance.randrange(220)),
                    "tag": Tag(key, chance.randbytes(200)),
                }[kind]
                store.put(record)
                held[kind][key] = record
        if chance.random() < 0.5:
            store.incarnate()
        elif chance.random() < 0.3:
            store.pack()
        if chance.random() < 0.2:
            store.close()
            store = opened(path, types)
            assert types.seen == notes
        for kind, records in held.items():
            for number in range(60):
                key = bytes([0, 0, number]) if kind == "tag" else digest(number)
                assert store.get(key, entry_type=kind) == records.get(key)
        assert len(store) >= sum(map(len, held.values()))
    store.incarnate()
    assert len(store) == sum(map(len, held.values()))
    store.close()
