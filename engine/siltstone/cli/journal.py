"""`siltstone journal`: a single journal, without a volume around it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from siltstone.cli.exits import EXIT_DAMAGE, EXIT_FINE
from siltstone.cli.sizes import ByteCount, printable
from siltstone.errors import DamageError, EntryError
from siltstone.format.constants import TYPE_DELETE, TYPE_END, TYPE_INVALID, TYPE_NONE, TYPE_SKIP
from siltstone.journal.dump import dump_entries
from siltstone.plugin.host import PluginHost

if TYPE_CHECKING:
    from siltstone.journal.dump import DumpedEntry

__all__ = ["journal"]

_ENGINE_TYPES: Final = {
    TYPE_INVALID: "INVALID",
    TYPE_END: "END",
    TYPE_SKIP: "SKIP",
    TYPE_DELETE: "DELETE",
    TYPE_NONE: "NONE",
}


@click.group()
def journal() -> None:
    """Look into a single journal."""


@journal.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=False))
@click.option(
    "--offset",
    metavar="BYTES",
    type=ByteCount(),
    default=0,
    help="Where in FILE the journal begins; 0 unless told.",
)
@click.option(
    "--size",
    metavar="BYTES",
    type=ByteCount(),
    help="How long the journal is; up to the end of FILE unless told.",
)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["plain", "sealed"]),
    default="plain",
    show_default=True,
    help="plain: an image as the RFC has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def dump(file: str, offset: int, size: int | None, layout: Literal["plain", "sealed"], as_json: bool) -> int:
    """Print the entries of the journal in FILE, one a line: offset, size, type, fields.

    Exit status: 0 read to its end, 1 damage was found (what lies before it is printed), 2 it cannot be read.
    """
    describe = _Describer(PluginHost.load())
    try:
        for entry in dump_entries(file, offset=offset, size=size, format=layout):
            name, fields = describe(entry)
            click.echo(_json_line(entry, name, fields) if as_json else _text_line(entry, name, fields))
    except DamageError as error:
        click.echo(f"siltstone: error: {printable(str(error))}", err=True)
        return EXIT_DAMAGE
    return EXIT_FINE


class _Describer:
    """Says what entries are, with what the plugins know of their payloads."""

    def __init__(self, host: PluginHost) -> None:
        self._types = host.entry_types

    def __call__(self, entry: DumpedEntry) -> tuple[str, dict[str, Any]]:
        """Return the name of an entry's type and its decoded fields; where nobody knows it, its payload."""
        if entry.type == TYPE_DELETE and entry.payload:
            deleted, key = entry.payload[0], entry.payload[1:]
            return "DELETE", {"deletes": self._name(deleted), "key": key}
        entry_type = self._types.get(entry.type)
        if entry_type is None:
            # What fills a cluster up says nothing.
            fills = entry.type in (TYPE_END, TYPE_SKIP, TYPE_NONE)
            return self._name(entry.type), {} if fills else {"payload": entry.payload}
        try:
            return entry_type.name, _fields(entry_type.from_payload(entry.payload))
        except EntryError as error:
            return entry_type.name, {"payload": entry.payload, "error": str(error)}

    def _name(self, number: int) -> str:
        found = self._types.get(number)
        return found.name if found is not None else _ENGINE_TYPES.get(number, "unknown")


def _fields(record: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return dataclasses.asdict(record)
    return {"record": repr(record)}


def _text_line(entry: DumpedEntry, name: str, fields: dict[str, Any]) -> str:
    shown = " ".join(f"{key}={_text(value)}" for key, value in fields.items())
    return f"{entry.offset:>10} {entry.size:>3} {entry.type:#04x} {name} {shown}".rstrip()


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else printable(str(value))


def _json_line(entry: DumpedEntry, name: str, fields: dict[str, Any]) -> str:
    line = {"offset": entry.offset, "size": entry.size, "type": entry.type, "name": name, "fields": fields}
    return json.dumps(line, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))
