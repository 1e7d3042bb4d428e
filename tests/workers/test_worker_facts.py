"""What a worker is told, how entries are taken apart for consumers, and how the end of a process reads."""

from __future__ import annotations

import signal
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import ConfigError, PluginError, ProtocolError
from siltstone_workers.config import WorkerConfig
from siltstone_workers.consuming import Consuming, split
from siltstone_workers.frames import DEPTH_MAX, pack_value
from siltstone_workers.starting import describe_exit

CONFIG = WorkerConfig(
    number=1,
    shards=[1, 3],
    sizes=[[4, 65536, 1000], [4, 65536, 1000]],
    memory=7,
    mirrors=8,
    scheme="file",
    rest="/tmp/a store.silt",
    force=["mounted"],
    extra={"depth": 4, "names": ["a", "b"], "raw": b"\x00\xff", "share": 0.5, "flag": True, "none": None},
    descriptors=[9],
    facts={"offset": 0},
    plugins_allow=None,
    needed=[[2, "hash_info", 1, "siltstone"]],
    keys={2: [0, 32]},
    known=[1, 2],
    key_entry_bytes=50,
    index_memory=1 << 28,
    unreadable_is_torn=False,
    drops_oldest=False,
    hash_stores_max=16,
    threads=2,
    niceness=0,
    affinity=None,
    path=["/home/\udcff", "/usr/lib/python3"],
)


# ---- the configuration


def test_a_configuration_crosses_unchanged() -> None:
    assert WorkerConfig.from_bulk(memoryview(CONFIG.to_bulk())) == CONFIG


@pytest.mark.parametrize("name", ["/tmp/\udcff\udc80.silt", "/tmp/Zoë 🪨.silt", "", "x" * 4096])
def test_a_target_of_any_name_crosses_unchanged(name: str) -> None:
    config = replace(CONFIG, rest=name)
    assert WorkerConfig.from_bulk(memoryview(config.to_bulk())) == config


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, 1 << 70, nested(DEPTH_MAX), nested(5000 // 10), bytes(5 << 20)]
)
def test_an_option_that_cannot_cross_is_the_callers_error(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(CONFIG, extra={"odd": value}).to_bulk()
    assert caught.value.key == "backend_options"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [["number", 1]],
        {},
        {"number": 1},
        {**{field.name: 1 for field in fields(WorkerConfig)}, "more": 1},
        {**{field.name: 1 for field in fields(WorkerConfig)}, 5: 1},
        {**{field.name: 1 for field in fields(WorkerConfig)}, b"more": 1},
    ],
)
def test_what_is_no_configuration_breaks_a_rule(value: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        WorkerConfig.from_bulk(memoryview(pack_value(value)))
    assert caught.value.rule == "configuration"


def test_a_greeting_without_a_configuration_breaks_a_rule() -> None:
    with pytest.raises(ProtocolError) as caught:
        WorkerConfig.from_bulk(None)
    assert caught.value.rule == "value"


# ---- entries for consumers

ENTRIES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=253)), max_size=12)


def packed(entries: list[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes((len(payload) + 2, kind)) + payload for kind, payload in entries)


@given(ENTRIES)
def test_entries_come_apart_as_they_were_put_together(entries: list[tuple[int, bytes]]) -> None:
    assert split(memoryview(packed(entries))) == entries


@given(ENTRIES.filter(bool), st.data())
def test_entries_that_do_not_end_with_the_bytes_are_refused(
    entries: list[tuple[int, bytes]], data: Any
) -> None:
    whole = packed(entries)
    starts = [len(packed(entries[:count])) for count in range(len(entries))]
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda at: at not in starts))
    with pytest.raises(ProtocolError) as caught:
        split(memoryview(whole[:cut]))
    assert caught.value.rule == "whole entries"
    assert caught.value.value == max(start for start in starts if start < cut)


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x01", b"\x02", b"\x03\x09", b"\x03\x09x\x00\x00", b"\xff" * 254]
)
def test_bytes_that_are_no_entries_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        split(memoryview(data))


def test_a_consumer_gets_the_entries_of_its_shard_and_its_failure_is_told() -> None:
    got: list[Any] = []

    def others(shard: int) -> Any:
        if shard == 9:
            return None
        return got.append if shard == 1 else fail

    def fail(_entries: Any) -> None:
        raise PluginError("it fails")

    consuming = Consuming(others, deadline=1000.0)
    consuming.take(1, memoryview(packed([(5, b"five")])))
    consuming.take(9, memoryview(b"\xff"))  # nobody wants them: nobody looks at them
    with pytest.raises(PluginError):
        consuming.take(2, memoryview(packed([(5, b"five")])))
    with pytest.raises(ProtocolError):
        consuming.take(1, memoryview(b"\x00"))
    assert got == [[(5, b"five")]]
    # None of them is still under way.
    consuming.check()


def test_a_consumer_that_takes_too_long_is_noticed_while_it_runs() -> None:
    def check(_entries: Any) -> None:
        with pytest.raises(PluginError, match="did not return"):
            consuming.check()

    consuming = Consuming(lambda _shard: check, deadline=-1.0)
    consuming.take(1, memoryview(packed([(5, b"")])))
    consuming.check()


# ---- ends of processes


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0, "it ended with exit code 0"),
        (3, "it ended with exit code 3"),
        (-signal.SIGKILL, "it was ended by SIGKILL"),
        (-signal.SIGSEGV, "it was ended by SIGSEGV"),
        (-77, "it was ended by signal 77"),
    ],
)
def test_the_end_of_a_process_reads_well(code: int, says: str) -> None:
    assert describe_exit(code) == says
