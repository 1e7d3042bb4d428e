"""Options of a store that are wrong: one error that names the key and the value, and the file if it came from one."""

from __future__ import annotations

from pathlib import Path

import pytest

import siltstone
from siltstone.core.options import StoreOptions
from siltstone.errors import ConfigError, EntryError, UnknownEntryTypeError
from siltstone.plugin.host import PluginHost

WRONG = [
    ("shards", "8"),
    ("shards", 2.5),
    ("shards", float("nan")),
    ("shards", True),
    ("shards", 0),
    ("shards", 1025),
    ("erase_block", "64KiB"),
    ("erase_block", 65536.0),
    ("index_memory", "1GiB"),
    ("index_memory", float("inf")),
    ("index_memory", 1 << 50),
    ("index_memory", 1 << 200),
    ("index_memory", 1),
    ("force", 5),
    ("force", "mounted"),
    ("force", [5]),
    ("plugins_allow", 5),
    ("plugins_allow", "siltstone"),
    ("plugins_allow", [None]),
    ("read_only", "no"),
    ("read_only", 1),
    ("create", "yes"),
    ("unreadable_is_torn", "yes"),
    ("plugins", 5),
    ("progress", 5),
    ("backend_options", 5),
    ("backend_options", "x"),
    ("backend_options", {1: 2}),
    ("missing_types", []),
    ("workers", "2"),
    ("workers", 2000),
    ("workers", False),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_option_is_named_with_its_value(key, value):
    with pytest.raises(ConfigError) as caught:
        siltstone.open("memory:", **{key: value})
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key} {value!r:.80}: ")


@pytest.mark.parametrize("target", [5, b"bytes", 2.5, ["store"]])
def test_a_target_that_is_no_text_is_named(target):
    with pytest.raises(ConfigError) as caught:
        siltstone.open(target)
    assert caught.value.key == "target"
    assert repr(target) in str(caught.value)


def test_formatting_checks_its_options_too(tmp_path):
    for key, value in (("shards", "8"), ("erase_block", "64KiB"), ("force", 5), ("plugins_allow", 5)):
        with pytest.raises(ConfigError) as caught:
            siltstone.create(tmp_path / "store.silt", **{key: value})
        assert caught.value.key == key
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("store", "index_memory", 4096), ("store", "index_memory", 1 << 50)],
)
def test_a_wrong_value_of_a_file_names_the_file(tmp_path, section, key, value):
    path = tmp_path / "store.toml"
    path.write_text(f'[volume]\ntarget = "memory:"\n[{section}]\n{key} = {value}\n')
    with pytest.raises(ConfigError) as caught:
        siltstone.open(path)
    assert caught.value.source == str(path)
    assert caught.value.key == f"{section}.{key}"
    assert str(caught.value).startswith(f"{path}: {key} {value}: ")


def test_a_wrong_argument_is_not_put_down_to_the_file(tmp_path):
    path = tmp_path / "store.toml"
    path.write_text('[volume]\ntarget = "memory:"\nshards = 2\n')
    with pytest.raises(ConfigError) as caught:
        siltstone.open(path, shards="8")
    assert caught.value.source == "shards"
    assert str(path) not in str(caught.value)


def test_good_options_are_taken():
    host = PluginHost.load(None)
    options = StoreOptions.of(
        Path("store.silt"),
        shards=1024,
        index_memory=1 << 44,
        erase_block=65536,
        force=["mounted"],
        plugins_allow=("siltstone",),
        backend_options={"direct": True},
        workers=0,
        plugins=host,
        progress=print,
    )
    assert options.force == {"mounted"}
    assert options.target == str(Path("store.silt").absolute())
    with siltstone.open("memory:", index_memory=1 << 44, shards=1) as store:
        assert len(store) == 0


@pytest.mark.parametrize("name", [[], {}, 5, b"hash_info", "unknown"])
def test_an_entry_type_that_is_no_name_is_refused(name):
    key = bytes(32)
    with siltstone.open("memory:", shards=1) as store:
        for call in (
            lambda: store.get(key, entry_type=name),
            lambda: store.get_many([key], entry_type=name),
            lambda: store.delete(key, entry_type=name),
            lambda: store.put_many([key], [1], [1], entry_type=name),
            lambda: store.batch().put_many([key], [1], [1], entry_type=name),
        ):
            with pytest.raises(UnknownEntryTypeError) as caught:
                call()
            assert repr(name) in str(caught.value)


@pytest.mark.parametrize("key", [memoryview(bytes(64))[::2], "x" * 32, None, 5])
def test_a_key_that_is_no_string_of_bytes_is_refused(key):
    with siltstone.open("memory:", shards=1) as store:
        for call in (store.get, store.delete):
            with pytest.raises(EntryError):
                call(key)
