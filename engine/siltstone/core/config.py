"""Configuration: what a TOML file says about one store, checked before anything is opened.

Import this where a configuration is really read: pydantic is slow to import.
"""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from siltstone.errors import ConfigError
from siltstone.format.constants import ERASE_BLOCK_MIN
from siltstone.format.superblock import SHARDS_MAX
from siltstone.shard.merging import HASH_STORES_KEPT_MAX, HASH_STORES_MAX_DEFAULT

if TYPE_CHECKING:
    from os import PathLike

    from pydantic_core import ErrorDetails

__all__ = ["Configuration", "load_configuration", "parse_size"]

#: a configuration larger than this is none [bytes]
CONFIGURATION_SIZE_MAX: Final = 1024 * 1024
#: offsets on a medium are signed 64-bit numbers to the kernel [bytes]
SIZE_MAX: Final = (1 << 63) - 1

_SIZE = re.compile(r"([0-9]{1,18}) ?(B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SHOWN_MAX: Final = 60


def parse_size(text: str) -> int:
    """Return the bytes that a size like ``"256MiB"`` or ``"4096 B"`` means; ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'a size is a number and one of {", ".join(_UNITS)}, such as "256MiB"')
    return int(match[1]) * _UNITS[match[2]]


def _read_size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _check_size(size: int) -> int:
    if not 0 < size <= SIZE_MAX:
        raise ValueError(f"a size is 1-{SIZE_MAX} bytes")
    return size


def _check_erase_block(size: int) -> int:
    if size < ERASE_BLOCK_MIN or size & (size - 1):
        raise ValueError(f"must be a power of two of at least {ERASE_BLOCK_MIN} bytes")
    return size


Size = Annotated[int, BeforeValidator(_read_size), AfterValidator(_check_size)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class VolumeSection(_Section):
    """Which volume holds the store, and how it is made where there is none."""

    target: Annotated[str, Field(min_length=1)]
    create: bool = True
    shards: Annotated[int, Field(ge=1, le=SHARDS_MAX)] = 8
    erase_block: Annotated[Size, AfterValidator(_check_erase_block)] | None = None


class StoreSection(_Section):
    """How the store is opened."""

    workers: Annotated[int, Field(ge=0, le=SHARDS_MAX)] | None = None
    read_only: bool = False
    index_memory: Size = 256 << 20
    on_full: Literal["merge", "drop_oldest"] = "merge"
    hash_stores_max: Annotated[int, Field(ge=1, le=HASH_STORES_KEPT_MAX)] = HASH_STORES_MAX_DEFAULT
    missing_types: Literal["read_only", "refuse"] = "read_only"


class WorkersSection(_Section):
    """How worker processes are run."""

    deadline: Annotated[float, Field(ge=0.1, le=86_400)] = 30.0
    niceness: Annotated[int, Field(ge=0, le=19)] = 0
    affinity: (
        Annotated[
            list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]], Field(min_length=1)
        ]
        | None
    ) = None
    wait: bool = True


class PluginsSection(_Section):
    """Which distributions may load code: all that are installed, or only those listed."""

    allow: list[str] | None = None


class BackendSection(_Section):
    """What the backend of the target is told."""

    options: dict[str, Any] = {}
    force: list[str] = []


class Configuration(_Section):
    """A whole configuration file. Immutable; a section tells by `model_fields_set` what the file said."""

    volume: VolumeSection
    store: StoreSection = StoreSection()
    workers: WorkersSection = WorkersSection()
    plugins: PluginsSection = PluginsSection()
    backend: BackendSection = BackendSection()


def load_configuration(path: str | PathLike[str]) -> Configuration:
    """Read and check the configuration file at `path`; nothing that it names is touched.

    Raises ConfigError, with the file, every key that is wrong and its value in the message; `source` is the
    file and `key` the first of those keys ("" where the file as a whole is wrong).
    """
    source = str(path)
    try:
        table = tomllib.loads(_read_file(Path(path)).decode())
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}", source=source, key="") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply", source=source, key="") from error
    except ValueError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}", source=source, key="") from error
    try:
        return Configuration.model_validate(table)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        lines = [f"{source}: {_describe(one)}" for one in wrong]
        raise ConfigError("\n".join(lines), source=source, key=_key(wrong[0])) from error


def _read_file(path: Path) -> bytes:
    # A pipe or a device could keep the reader waiting for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ConfigError(f"{path}: not a regular file", source=str(path), key="")
    with path.open("rb") as file:
        content = file.read(CONFIGURATION_SIZE_MAX + 1)
    if len(content) > CONFIGURATION_SIZE_MAX:
        raise ConfigError(f"{path}: larger than {CONFIGURATION_SIZE_MAX} bytes", source=str(path), key="")
    return content


def _key(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"]))


def _describe(error: ErrorDetails) -> str:
    key = _key(error)
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}"
    if error["type"] == "missing":
        return f"{key} is missing"
    shown = repr(error["input"])
    if len(shown) > _SHOWN_MAX:
        shown = shown[: _SHOWN_MAX - 1] + "…"
    rule = error["msg"].removeprefix("Value error, ")
    return f"{key} = {shown}: {rule[0].lower()}{rule[1:]}"
