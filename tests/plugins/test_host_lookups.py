"""Lookups: types by id, name, record and a store's word for them; backends by scheme and by target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_distributions import Site, entry_type_source

from siltstone.errors import PluginError, PluginLoadError, UnknownEntryTypeError, VersionError
from siltstone.plugin import BackendType, Consumer, EntryType, PluginHost, hookimpl

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator


class Note:
    """A record."""


class LongNote(Note):
    """A record of a class below another's."""


def note_type(id: int, name: str, version: int = 1, record: type = Note) -> EntryType:  # noqa: A002
    return EntryType(id, name, version, record, encode=lambda note: b"", decode=lambda payload: record())


class Plugin:
    """A plugin that yields what it is given."""

    def __init__(self, *records: EntryType | BackendType | Consumer) -> None:
        self.records = records

    def of(self, kind: type) -> Iterator[Any]:
        return iter([each for each in self.records if isinstance(each, kind)])

    @hookimpl
    def siltstone_entry_types(self) -> Iterator[EntryType]:
        return self.of(EntryType)

    @hookimpl
    def siltstone_backends(self) -> Iterator[BackendType]:
        return self.of(BackendType)

    @hookimpl
    def siltstone_consumers(self) -> Iterator[Consumer]:
        return self.of(Consumer)


def host_of(*records: EntryType | BackendType | Consumer) -> PluginHost:
    return PluginHost.load(extra=[("acme", Plugin(*records))], discover=False)


# ---- entry types


def test_what_nobody_provides_is_named_in_the_error() -> None:
    host = host_of(note_type(0x20, "note"))
    with pytest.raises(UnknownEntryTypeError, match="0x21") as caught:
        host.entry_type(0x21)
    assert caught.value.type == 0x21
    with pytest.raises(UnknownEntryTypeError, match="'memo'"):
        host.entry_type_named("memo")
    with pytest.raises(UnknownEntryTypeError, match="class str"):
        host.entry_type_of("text")


def test_a_record_finds_its_type_by_class_then_by_base_class() -> None:
    note, long_note = note_type(0x20, "note"), note_type(0x21, "long_note", record=LongNote)
    assert host_of(note, long_note).entry_type_of(Note()) is note
    assert host_of(note, long_note).entry_type_of(LongNote()) is long_note
    assert host_of(note).entry_type_of(LongNote()) is note


def test_a_class_of_two_types_names_both() -> None:
    host = host_of(note_type(0x20, "note"), note_type(0x21, "memo"))
    with pytest.raises(PluginError, match=r"note \(acme\), memo \(acme\)"):
        host.entry_type_of(Note())


def test_the_tables_of_a_host_do_not_change() -> None:
    host = host_of(note_type(0x20, "note"))
    with pytest.raises(TypeError):
        host.entry_types[0x21] = note_type(0x21, "memo")  # type: ignore[index]


def test_consumers_get_the_types_that_they_name() -> None:
    note, memo = note_type(0x20, "note"), note_type(0x21, "memo")
    first = Consumer("first", frozenset({"note"}), print)
    both = Consumer("both", frozenset({"note", "memo", "provided_by_nobody"}), print)
    host = host_of(note, memo, first, both)
    assert host.consumers_of(note) == (first, both)
    assert host.consumers_of(memo) == (both,)


# ---- what a store needs


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    site.add_entry_points("siltstone", "0.0.7", ["hash_info = siltstone_plugins.hash_info"])
    yield site
    site.remove()


def test_the_type_that_a_store_names_is_given(site: Site) -> None:
    site.add("Acme-Notes", "1.0", {"plugin": entry_type_source(0x20, "note", version=3)})
    host = PluginHost.load()
    assert host.require_entry_type(0x20, "note", 3, "acme_notes") is host.entry_type(0x20)
    assert host.require_entry_type(0x02, "hash_info", 1, "siltstone") is host.entry_type(0x02)


def test_another_version_names_both(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note", version=3)})
    with pytest.raises(VersionError, match=r"'note' version 2 .* acme 1\.0 provides version 3") as caught:
        PluginHost.load().require_entry_type(0x20, "note", 2, "acme")
    assert (caught.value.version, caught.value.known) == (2, 3)


def test_a_needed_plugin_that_failed_gives_its_cause(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": "raise OSError('the library is gone')"})
    host = PluginHost.load()
    with pytest.raises(PluginLoadError, match=r"acme 1\.0.*OSError: the library is gone") as caught:
        host.require_entry_type(0x20, "note", 1, "acme")
    assert (caught.value.distribution, caught.value.plugin) == ("acme", "plugin")
    assert "the library is gone" in caught.value.cause


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        ((0x21, "memo", 1, "nobody"), "which is not installed"),
        ((0x21, "memo", 1, "zeta"), "plugins.allow does not name it"),
        ((0x21, "memo", 1, "acme"), "no longer provides it"),
        ((0x20, "memo", 1, "acme"), "here 0x20 is 'note' of acme 1.0"),
        # Another project's type of the same id and name: its payloads are somebody else's.
        ((0x20, "note", 1, "nobody"), "here 0x20 is 'note' of acme 1.0"),
    ],
)
def test_a_needed_type_that_is_missing_says_why(
    site: Site, needed: tuple[int, str, int, str], reason: str
) -> None:
    site.add("acme", "1.0", {"plugin": entry_type_source(0x20, "note")})
    site.add("zeta", "1.0", {"plugin": entry_type_source(0x21, "memo")})
    with pytest.raises(UnknownEntryTypeError) as caught:
        PluginHost.load(allow=["acme"]).require_entry_type(*needed)
    for part in (f"{needed[0]:#04x}", repr(needed[1]), repr(needed[3]), reason):
        assert part in str(caught.value)


def test_a_missing_type_or_backend_names_the_plugins_left_out(site: Site) -> None:
    site.add("acme", "1.0", {"plugin": "raise OSError('the library is gone')"})
    host = PluginHost.load()
    for lookup in (
        lambda: host.entry_type(0x20),
        lambda: host.entry_type_named("note"),
        lambda: host.entry_type_of("note"),
        lambda: host.backend("acme"),
        lambda: host.resolve("acme:x"),
    ):
        with pytest.raises(PluginError, match="the library is gone"):
            lookup()


# ---- backends


def backend(scheme: str, claims: Callable[[str], bool] | None = None, priority: int = 0) -> BackendType:
    def no_open(rest: str, options: object) -> Any:
        raise AssertionError("resolving opens nothing")

    return BackendType(scheme, no_open, claims, priority)


FILE = backend("file", lambda path: True, priority=-10)
DEVICE = backend("device", lambda path: path.startswith("/dev/"))
S3 = backend("s3")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "found", "rest"),
    [
        ("s3:bucket/store", S3, "bucket/store"),
        ("S3:bucket/store", S3, "bucket/store"),
        ("s3:", S3, ""),
        ("file:a:b", FILE, "a:b"),
        ("file:/dev/sda", FILE, "/dev/sda"),
        ("device:store.silt", DEVICE, "store.silt"),
        ("store.silt", FILE, "store.silt"),
        ("/dev/sda", DEVICE, "/dev/sda"),
        ("./s3:store", FILE, "./s3:store"),
        ("/tmp/10:30.silt", FILE, "/tmp/10:30.silt"),
        ("10:30.silt", FILE, "10:30.silt"),
        (Path("s3:store"), FILE, "s3:store"),
        ("line\nbreak", FILE, "line\nbreak"),
    ],
)
def test_targets(here: Path, target: str | os.PathLike[str], found: BackendType, rest: str) -> None:
    assert host_of(FILE, DEVICE, S3).resolve(target) == (found, rest)


def test_a_name_with_a_colon_that_exists_is_a_path(here: Path) -> None:
    (here / "backup:monday").touch()
    assert host_of(FILE, S3).resolve("backup:monday") == (FILE, "backup:monday")
    (here / "dangling:link").symlink_to("nowhere")
    assert host_of(FILE, S3).resolve("dangling:link") == (FILE, "dangling:link")


def test_a_known_scheme_means_the_same_whatever_file_is_there(here: Path) -> None:
    (here / "s3:bucket").touch()
    assert host_of(FILE, S3).resolve("s3:bucket") == (S3, "bucket")


def test_an_unknown_scheme_lists_those_there_are(here: Path) -> None:
    with pytest.raises(PluginError, match=r"'ftp'; known: device, file, s3; write \./ftp:x for a file"):
        host_of(FILE, DEVICE, S3).resolve("ftp:x")
    with pytest.raises(PluginError, match="'ftp'; known: none"):
        host_of().backend("ftp")


@pytest.mark.parametrize("target", ["", "a\0b", b"store.silt"])
def test_what_is_no_target_is_refused(target: Any) -> None:
    with pytest.raises((PluginError, TypeError)):
        host_of(FILE).resolve(target)


def test_a_path_that_nobody_claims_is_an_error() -> None:
    with pytest.raises(PluginError, match="no backend claims this path"):
        host_of(DEVICE, S3).resolve("store.silt")


def test_the_greatest_priority_claims_first_then_the_first_scheme() -> None:
    def anything(path: str) -> bool:
        return True

    low, high = backend("a", anything, 1), backend("z", anything, 2)
    tied = backend("y", anything, 2)
    assert host_of(low, high).resolve("x")[0] is high
    assert host_of(high, low, tied).resolve("x")[0] is tied


def test_a_claim_that_fails_lets_no_other_backend_take_the_path() -> None:
    def fail(path: str) -> bool:
        raise PermissionError("who knows")

    host = host_of(FILE, backend("device", fail))
    with pytest.raises(PluginError, match=r"'device' failed .*who knows.* as in device:/dev/sda"):
        host.resolve("/dev/sda")
    assert host.resolve("file:/dev/sda")[0] is FILE


def test_backends_are_found_by_scheme() -> None:
    assert host_of(FILE, S3).backend("s3") is S3
    assert host_of(FILE, S3).backend("S3") is S3
