"""The configuration file: what it accepts, what it says of the rest, and that conf/ documents all of it."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.core.config import (
    CONFIGURATION_SIZE_MAX,
    Configuration,
    load_configuration,
    parse_size,
)
from siltstone.core.options import StoreOptions
from siltstone.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
DOCUMENTED = CONF / "siltstone.toml"
COMMENTED_KEY = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)


def keys_of_model() -> set[str]:
    return {
        f"{section}.{key}"
        for section, field in Configuration.model_fields.items()
        for key in field.annotation.model_fields
    }


@pytest.fixture
def load(tmp_path):
    def load_text(text: str | bytes) -> Configuration:
        path = tmp_path / "store.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_configuration(path)

    return load_text


# ---- conf/


def test_every_key_is_documented_and_every_documented_key_exists():
    table = tomllib.loads(COMMENTED_KEY.sub("", DOCUMENTED.read_text()))
    documented = {f"{section}.{key}" for section, keys in table.items() for key in keys}
    assert documented == keys_of_model()


def test_each_key_has_a_comment_of_its_own():
    lines = DOCUMENTED.read_text().splitlines()
    for at, line in enumerate(lines):
        if re.match(r"(# )?[a-z_]+ = ", line):
            before = lines[at - 1]
            assert before.startswith("# ") and not COMMENTED_KEY.match(before), f"line {at + 1}: {line}"


def test_commented_values_are_the_defaults(load):
    every_key = load(COMMENTED_KEY.sub("", DOCUMENTED.read_text()))
    defaults = load('[volume]\ntarget = "store.silt"')
    # Those whose default is to ask the machine.
    assert every_key.store.workers == 2
    assert defaults.store.workers is None
    assert every_key.store.model_copy(update={"workers": None}) == defaults.store
    assert every_key.workers.affinity == [[0], [1]]
    assert every_key.workers.model_copy(update={"affinity": None}) == defaults.workers
    assert every_key.backend == defaults.backend
    # The two whose default is to ask: the medium for its unit, the installation for its plugins.
    assert every_key.volume.erase_block == 512 * 1024
    assert defaults.volume.erase_block is None
    assert every_key.volume.model_copy(update={"erase_block": None}) == defaults.volume
    assert every_key.plugins.allow == ["siltstone"]
    assert defaults.plugins.allow is None


def test_a_file_that_says_nothing_opens_a_store_as_no_file_does(load, tmp_path):
    load('[volume]\ntarget = "store.silt"')
    from_file = StoreOptions.of(tmp_path / "store.toml")
    assert dataclasses.replace(from_file, workers=None) == StoreOptions(
        target="store.silt", ports=from_file.ports
    )


def test_arguments_override_the_file(load, tmp_path):
    load('[volume]\ntarget = "store.silt"\nshards = 4\n[store]\nread_only = true')
    options = StoreOptions.of(tmp_path / "store.toml", shards=2)
    assert (options.target, options.shards, options.read_only) == ("store.silt", 2, True)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.toml")), ids=lambda path: path.name)
def test_every_file_in_conf_loads(path):
    assert load_configuration(path).volume.target


# ---- what is accepted


def test_sizes_are_numbers_or_text_with_a_unit(load):
    for text, size in (("65536", 65536), ('"64KiB"', 65536), ('"64 KiB"', 65536), ('"1MiB"', 1 << 20)):
        assert load(f'[volume]\ntarget = "x"\nerase_block = {text}').volume.erase_block == size
    assert load('[volume]\ntarget = "x"\n[store]\nindex_memory = "2TiB"').store.index_memory == 2 << 40


@given(st.integers(0, 10**18 - 1), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_parse_size_multiplies(number, unit):
    power = ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert parse_size(f"{number}{unit}") == number * 1024**power


ARABIC_ONE = "\N{ARABIC-INDIC DIGIT ONE}"


@pytest.mark.parametrize(
    "text", ["", "1", "MiB", "-1MiB", "1.5MiB", "1MB", "1 mib", "1  MiB", "1MiB ", f"{ARABIC_ONE}MiB"]
)
def test_parse_size_refuses_what_could_mean_two_things(text):
    with pytest.raises(ValueError, match="256MiB"):
        parse_size(text)


def test_backend_options_are_passed_on_as_they_are(load):
    loaded = load('[volume]\ntarget = "x"\n[backend]\nforce = ["mounted"]\n[backend.options]\ndirect = true')
    assert loaded.backend.options == {"direct": True}
    assert loaded.backend.force == ["mounted"]


# ---- what is refused


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("[volume]\ntarget = 3", "volume.target", "3"),
        ('[volume]\ntarget = ""', "volume.target", "''"),
        ('[volume]\ntarget = "x"\nshards = 0', "volume.shards", "0"),
        ('[volume]\ntarget = "x"\nshards = true', "volume.shards", "True"),
        ('[volume]\ntarget = "x"\nerase_block = "100KiB"', "volume.erase_block", "'100KiB'"),
        ('[volume]\ntarget = "x"\nerase_block = 32768', "volume.erase_block", "32768"),
        ('[volume]\ntarget = "x"\ncreate = 1', "volume.create", "1"),
        ('[volume]\ntarget = "x"\n[store]\nworkers = -1', "store.workers", "-1"),
        ('[volume]\ntarget = "x"\n[store]\nworkers = "2"', "store.workers", "'2'"),
        ('[volume]\ntarget = "x"\n[store]\nindex_memory = "1MB"', "store.index_memory", "'1MB'"),
        ('[volume]\ntarget = "x"\n[store]\nindex_memory = 0', "store.index_memory", "0"),
        ('[volume]\ntarget = "x"\n[store]\nmissing_types = "skip"', "store.missing_types", "'skip'"),
        ('[volume]\ntarget = "x"\n[plugins]\nallow = "siltstone"', "plugins.allow", "'siltstone'"),
        ('[volume]\ntarget = "x"\n[plugins]\nallow = ["a", 3]', "plugins.allow.1", "3"),
        ('[volume]\ntarget = "x"\n[backend]\nforce = true', "backend.force", "True"),
        ('volume = "x"', "volume", "'x'"),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_value(load, line, key, value):
    with pytest.raises(ConfigError) as caught:
        load(line)
    assert caught.value.key == key
    assert caught.value.source.endswith("store.toml")
    assert caught.value.message.startswith(f"{caught.value.source}: {key} = {value}: ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[volume]\ntarget = "x"\nshard = 4', "volume.shard"),
        ('[volume]\ntarget = "x"\n[stores]\nworkers = 0', "stores"),
        ('[volume]\ntarget = "x"\n[backend]\ndirect = true', "backend.direct"),
    ],
)
def test_an_unknown_key_is_refused(load, text, key):
    with pytest.raises(ConfigError, match=f"there is no key {re.escape(key)}$") as caught:
        load(text)
    assert caught.value.key == key


@pytest.mark.parametrize(("text", "key"), [("", "volume"), ("[volume]", "volume.target")])
def test_a_missing_key_is_named(load, text, key):
    with pytest.raises(ConfigError, match=f"{re.escape(key)} is missing$"):
        load(text)


def test_all_that_is_wrong_is_said_at_once(load):
    with pytest.raises(ConfigError) as caught:
        load('[volume]\ntarget = "x"\nshards = 0\n[store]\nworkers = -1\nsize = 3')
    assert len(caught.value.message.splitlines()) == 3


def test_a_long_value_is_shortened(load):
    with pytest.raises(ConfigError) as caught:
        load(f'[volume]\ntarget = "x"\n[store]\nmissing_types = "{"x" * 10_000}"')
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[volume", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (CONFIGURATION_SIZE_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_configuration(load, content, said):
    with pytest.raises(ConfigError, match=said):
        load(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load_configuration(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_configuration(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_configuration(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="null byte"):
        load_configuration("a\0b")


@given(
    content=st.binary(max_size=200)
    | st.text(alphabet='[]{}="\n#ab1.-volumetarget', max_size=80).map(str.encode)
)
def test_any_bytes_end_in_a_configuration_or_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        assert isinstance(load_configuration(path), Configuration)
    except ConfigError as error:
        assert error.message.startswith(str(path))
