"""Loading: which plugins are found and may load, what becomes of those that fail, and who is in conflict."""

from __future__ import annotations

import logging
import pickle
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_distributions import Site, entry_type_source

from siltstone.errors import ConfigError, PluginConflictError, PluginError, PluginLoadError
from siltstone.plugin import PluginHost

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

BACKEND_SOURCE = """
from siltstone.plugin import BackendType, hookimpl

@hookimpl
def siltstone_backends():
    yield BackendType(scheme={scheme!r}, open=lambda rest, options: None)
"""

CONSUMER_SOURCE = """
from siltstone.plugin import Consumer, hookimpl

@hookimpl
def siltstone_consumers():
    yield Consumer(name={name!r}, entry_types=frozenset({{{entry_type!r}}}), consume=print)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    # Stands in front of whatever siltstone is installed, so that only what a test writes is built in.
    site.add_entry_points("siltstone", "0.0.7", ["hash_info = siltstone_plugins.hash_info"])
    yield site
    site.remove()


def failure_of(host: PluginHost, distribution: str) -> str:
    """Return the cause of the one failure of a distribution."""
    [failure] = [each for each in host.failures if each.distribution == distribution]
    return failure.cause


# ---- what is found


def test_an_installed_distribution_is_loaded_through_its_entry_point(site: Site) -> None:
    site.add("acme-notes", "1.2.3", {"notes": entry_type_source(0x20, "note")})
    host = PluginHost.load()
    note = host.entry_type(0x20)
    assert note is host.entry_type_named("note")
    assert str(host.provider_of(note)) == "acme-notes 1.2.3"
    assert host.failures == ()


def test_every_built_in_comes_through_an_entry_point_of_siltstone(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["siltstone"]
    site = Site(tmp_path / "site")
    try:
        lines = [f"{name} = {module}" for name, module in points.items()]
        site.add_entry_points("siltstone", project["version"], lines)
        host = PluginHost.load(allow=[])
    finally:
        site.remove()
    assert host.failures == ()
    [info] = host.distributions
    assert (info.name, info.version) == ("siltstone", project["version"])
    assert sorted(info.entry_points) == sorted(points)
    assert [entry_type.id for entry_type in info.entry_types] == [0x02]
    assert len(info.backends) == 3


def test_of_two_copies_of_a_distribution_the_first_on_the_path_counts(site: Site, tmp_path: Path) -> None:
    site.add("acme", "1.0", {"old": entry_type_source(0x20, "old")})
    newer = Site(tmp_path / "newer")
    try:
        newer.add("acme", "2.0", {"new": entry_type_source(0x21, "new")})
        host = PluginHost.load()
    finally:
        newer.remove()
    assert 0x20 not in host.entry_types
    assert str(host.provider_of(host.entry_type(0x21))) == "acme 2.0"


def test_two_distributions_may_call_an_entry_point_by_one_name(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "acme_note")})
    site.add("zeta", "1.0", {"plugin": entry_type_source(0x21, "zeta_note")})
    host = PluginHost.load()
    assert host.failures == ()
    assert {0x20, 0x21} <= set(host.entry_types)


def test_distributions_are_listed_with_what_they_provide(site: Site) -> None:
    consumer = CONSUMER_SOURCE.format(name="reader", entry_type="note")
    plugins = {
        "a": entry_type_source(0x20, "note"),
        "b": BACKEND_SOURCE.format(scheme="acme"),
        "c": consumer,
    }
    site.add("acme", "1.0", plugins)
    builtin, acme = PluginHost.load().distributions[:2]
    assert (builtin.name, builtin.version, builtin.entry_points) == ("siltstone", "0.0.7", ("hash_info",))
    assert (acme.name, acme.version, acme.entry_points) == ("acme", "1.0", ("a", "b", "c"))
    assert [each.name for each in acme.entry_types] == ["note"]
    assert [each.scheme for each in acme.backends] == ["acme"]
    assert [each.name for each in acme.consumers] == ["reader"]


# ---- what may load


def test_a_distribution_that_the_list_does_not_name_runs_no_code(site: Site) -> None:
    site.add("evil", "6.6", {"plugin": "raise AssertionError('this must not run')"})
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    host = PluginHost.load(allow=["acme"])
    assert 0x20 in host.entry_types
    assert "evil_plugin_plugin" not in sys.modules
    assert [str(each) for each in host.refused] == ["evil 6.6"]
    assert host.failures == ()


def test_an_empty_list_leaves_the_built_ins(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    assert set(PluginHost.load(allow=[]).entry_types) == {0x02}


@pytest.mark.parametrize("name", ["Acme_Notes", "acme.notes", "ACME--NOTES"])
def test_names_are_compared_as_package_tools_do(site: Site, name: str) -> None:
    site.add("Acme-Notes", "1.0", {"plugin": entry_type_source(0x20, "note")})
    host = PluginHost.load(allow=[name])
    assert 0x20 in host.entry_types
    assert host.failures == ()


def test_a_listed_name_that_brings_no_plugin_is_reported(site: Site) -> None:
    assert "plugins.allow names it" in failure_of(PluginHost.load(allow=["acne"]), "acne")


@pytest.mark.parametrize("allow", ["acme", [""], ["a b"], [7], [None], ["-acme"]])
def test_a_list_that_names_no_distributions_is_refused(site: Site, allow: object) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.allow"):
        PluginHost.load(allow=allow)  # type: ignore[arg-type]


# ---- what fails

HOOK = "from siltstone.plugin import *\n@hookimpl\ndef siltstone_entry_types():\n"
LAX = "from siltstone.plugin import EntryType\nclass Lax(EntryType):\n def __post_init__(self): pass\n"
RECORD = "EntryType(id=0x30, name='half', version=1, record=int, encode=bytes, decode=len)"

FAILING = {
    "import raises": ("raise RuntimeError('no such library')", "RuntimeError: no such library"),
    "syntax error": ("def (", "SyntaxError"),
    "exit at import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "panic at import": ("class Panic(BaseException): pass\nraise Panic('core')", "Panic: core"),
    "error that cannot be shown": (
        "class Nasty(Exception):\n def __str__(self): raise ValueError\nraise Nasty",
        "Nasty",
    ),
    "hook raises at once": (f"{HOOK}    raise KeyError('spam')", "KeyError: 'spam'"),
    "hook raises halfway": (f"{HOOK}    yield {RECORD}\n    raise OSError('half')", "OSError: half"),
    "exit in a hook": (f"{HOOK}    yield {RECORD}\n    raise SystemExit(1)", "SystemExit"),
    "invalid record": (f"{HOOK}    yield {RECORD.replace('0x30', '0x05')}", "id 5 is not in 0x10-0xef"),
    "private id": (f"{HOOK}    yield {RECORD.replace('0x30', '0xF0')}", "id 240 is not in 0x10-0xef"),
    "id of hash_info": (
        f"{HOOK}    yield {RECORD.replace('0x30', '0x02')}",
        "0x02 is reserved for siltstone",
    ),
    "twice the same": (
        f"{HOOK}    yield {RECORD}\n    yield {RECORD}",
        "entry type id 0x30 is provided twice",
    ),
    "no record": (f"{HOOK}    yield {RECORD}\n    yield 'half'", "yields a str, must be a EntryType"),
    "wrong record": (f"{HOOK}    yield BackendType('half', print)", "yields a BackendType"),
    "subclass": (
        LAX + HOOK + f"    yield {RECORD.replace('EntryType', 'Lax').replace('0x30', '0x05')}",
        "yields a Lax",
    ),
    "returns one record": (f"{HOOK}    return {RECORD}", "must yield records, it returned a EntryType"),
    "no end of records": (f"{HOOK}    while True: yield {RECORD}", "yields more than 1024 records"),
    "misspelt hook": (
        "from siltstone.plugin import *\n@hookimpl\ndef siltstone_entry_typos(): pass",
        "siltstone_entry_typos",
    ),
    "unknown argument": (
        "from siltstone.plugin import *\n@hookimpl\ndef siltstone_entry_types(store): pass",
        "store",
    ),
}


@pytest.mark.parametrize(("source", "cause"), FAILING.values(), ids=FAILING.keys())
def test_a_failing_plugin_is_reported_and_left_out_whole(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, cause: str
) -> None:
    # Were anything of the failed plugin kept, the backend that it yields as well would be there.
    site.add("broken", "0.3", {"plugin": source + "\n" + BACKEND_SOURCE.format(scheme="broken")})
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    with caplog.at_level(logging.WARNING, "siltstone.plugin"):
        host = PluginHost.load()
    [failure] = host.failures
    assert (failure.distribution, failure.entry_point) == ("broken", "plugin")
    assert cause in failure.cause
    assert 0x30 not in host.entry_types
    assert "broken" not in host.backends
    assert "broken" not in {each.name for each in host.distributions}
    assert {0x02, 0x20} <= set(host.entry_types)
    assert [record.getMessage() for record in caplog.records] == [f"plugin left out: {failure}"]
    assert failure.version in caplog.text


def test_a_plugin_without_a_hook_is_reported(site: Site) -> None:
    site.add("broken", "0.3", {"plugin": "def siltstone_entry_types(): yield 'nobody marked this'"})
    assert "implements no hook" in failure_of(PluginHost.load(), "broken")


@pytest.mark.parametrize("source", ["raise KeyboardInterrupt", f"{HOOK}    raise KeyboardInterrupt"])
def test_an_interrupt_by_the_user_passes(site: Site, source: str) -> None:
    site.add("slow", "1.0", {"plugin": source})
    with pytest.raises(KeyboardInterrupt):
        PluginHost.load()


@pytest.mark.parametrize("point", ["p = no.such.module", "p = siltstone.errors:Nothing", "p = 1:2:3", "p = "])
def test_an_entry_point_that_leads_nowhere_is_reported(site: Site, point: str) -> None:
    site.add_entry_points("broken", "0.3", [point])
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    host = PluginHost.load()
    assert failure_of(host, "broken")
    assert 0x20 in host.entry_types


@pytest.mark.parametrize(
    ("metadata", "entry_points"),
    [
        (b"", b"[siltstone]\np = no.such.module\n"),
        (b"\xff\xfe\x00", b"[siltstone]\np = no.such.module\n"),
        (b"Name: broken\nVersion: 1\n", b"[siltstone]\nthis is no entry point\n"),
        (b"Name: broken\nVersion: 1\n", b"\xff\xff\xff"),
    ],
)
def test_broken_metadata_hides_nobody_else(site: Site, metadata: bytes, entry_points: bytes) -> None:
    site.add_raw("broken", "1", metadata, entry_points)
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    host = PluginHost.load()
    assert len(host.failures) == 1
    assert 0x20 in host.entry_types


def test_a_consumer_of_a_type_with_a_key_is_left_out(site: Site) -> None:
    source = CONSUMER_SOURCE.format(name="waiter", entry_type="hash_info")
    site.add("acme", "1.0", {"plugin": source})
    host = PluginHost.load()
    assert "'hash_info' has a key" in failure_of(host, "acme")
    assert host.consumers == ()


def test_a_plugin_can_neither_see_nor_drop_what_others_yield(site: Site) -> None:
    wrapper = (
        "import pluggy\n@pluggy.HookimplMarker('siltstone')(wrapper=True)\ndef siltstone_entry_types():\n"
    )
    site.add("acme", "1.0", {"plugin": f"{wrapper}    yield\n    return []\n"})
    assert set(PluginHost.load().entry_types) == {0x02}


# ---- who is in conflict


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        (entry_type_source(0x20, "a"), entry_type_source(0x20, "b"), "entry type id 0x20"),
        (entry_type_source(0x20, "a"), entry_type_source(0x21, "a"), "entry type name 'a'"),
        (BACKEND_SOURCE.format(scheme="s3"), BACKEND_SOURCE.format(scheme="s3"), "backend scheme 's3'"),
        (
            CONSUMER_SOURCE.format(name="reader", entry_type="a"),
            CONSUMER_SOURCE.format(name="reader", entry_type="b"),
            "consumer name 'reader'",
        ),
    ],
)
def test_two_providers_of_one_thing_are_both_named(site: Site, one: str, other: str, what: str) -> None:
    site.add("acme", "1.0", {"left": one})
    site.add("zeta", "2.5", {"right": other})
    with pytest.raises(PluginConflictError) as caught:
        PluginHost.load()
    assert caught.value.what == what
    assert caught.value.providers == ("acme 1.0", "zeta 2.5")
    for part in (what, "acme 1.0", "'left'", "zeta 2.5", "'right'"):
        assert part in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).providers == ("acme 1.0", "zeta 2.5")


def test_a_conflict_ends_when_the_list_names_one_of_the_two(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    site.add("zeta", "2.5", {"plugin": entry_type_source(0x20, "note")})
    host = PluginHost.load(allow=["zeta"])
    assert host.provider_of(host.entry_type(0x20)).distribution == "zeta"


def test_what_failed_is_in_nobodys_way(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    site.add("zeta", "2.5", {"plugin": entry_type_source(0x20, "note") + "    raise OSError\n"})
    host = PluginHost.load()
    assert host.provider_of(host.entry_type(0x20)).distribution == "acme"


def test_two_distributions_that_name_one_module_are_in_conflict(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    site.add_entry_points("fork", "1.1", ["plugin = acme_plugin_plugin"])
    with pytest.raises(PluginConflictError, match=r"acme 1\.0 .* and fork 1\.1"):
        PluginHost.load()


# ---- what a caller hands in


class NotePlugin:
    """A plugin that is an object, not a module."""

    def __init__(self, source: str) -> None:
        exec(source, self.__dict__)


def test_a_caller_may_hand_in_a_plugin() -> None:
    plugin = NotePlugin(entry_type_source(0x20, "note"))
    host = PluginHost.load(extra=[plugin], discover=False)
    assert set(host.entry_types) == {0x20}
    assert host.provider_of(host.entry_type(0x20)).distribution == "NotePlugin"


def test_a_plugin_handed_in_may_stand_for_a_distribution() -> None:
    from siltstone_plugins import hash_info

    assert set(PluginHost.load(extra=[("siltstone", hash_info)], discover=False).entry_types) == {0x02}
    with pytest.raises(PluginLoadError, match="0x02 is reserved"):
        PluginHost.load(extra=[("acme", hash_info)], discover=False)


def test_a_plugin_handed_in_that_fails_raises() -> None:
    with pytest.raises(PluginLoadError, match="OSError: gone") as caught:
        PluginHost.load(extra=[NotePlugin(f"{HOOK}    raise OSError('gone')")], discover=False)
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), PluginError)
