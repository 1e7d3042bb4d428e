"""`siltstone format`, `info`, `export` and `verify`: whole volumes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

import siltstone
from siltstone.cli.exits import EXIT_DAMAGE, EXIT_FINE
from siltstone.cli.progress import replay_progress
from siltstone.cli.sizes import ByteCount, format_bytes, format_count, printable
from siltstone.cli.tables import new_table, show_table
from siltstone.format.constants import ERASE_BLOCK_DEFAULT, ERASE_BLOCK_MIN

__all__ = ["export", "format_volume", "info", "verify"]


@click.command("format")
@click.argument("target")
@click.option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=8,
    show_default=True,
    help="Parts of the key space; fixed for good.",
)
@click.option(
    "--erase-block",
    metavar="BYTES",
    type=ByteCount(ERASE_BLOCK_MIN),
    default=ERASE_BLOCK_DEFAULT,
    help="Unit of allocation, a power of two; 512k unless told.",
)
@click.option(
    "--force", metavar="REASON", multiple=True, help="Override a refusal of this name; may be given again."
)
@click.option("--overwrite", is_flag=True, help="Format over a volume that is there. All in it is lost.")
def format_volume(target: str, shards: int, erase_block: int, force: tuple[str, ...], overwrite: bool) -> int:
    """Make TARGET, a file or a block device, an empty store."""
    if erase_block & (erase_block - 1):
        raise click.BadParameter(f"{erase_block} is not a power of two", param_hint="--erase-block")
    siltstone.create(target, shards=shards, erase_block=erase_block, force=force, overwrite=overwrite)
    click.echo(f"{printable(target)}: formatted, {shards} shards, erase block {format_bytes(erase_block)}")
    return EXIT_FINE


@click.command()
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(target: str, as_json: bool) -> int:
    """Show what is in the store TARGET. Nothing is written."""
    with (
        replay_progress("reading") as progress,
        siltstone.open(target, read_only=True, create=False, workers=0, progress=progress) as store,
    ):
        facts = dataclasses.asdict(store.info())
    if as_json:
        click.echo(json.dumps(facts, default=_jsonable))
        return EXIT_FINE
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, list | tuple | dict):
            _show_group(label, value)
        else:
            click.echo(f"{label:<17} {_shown(name, value)}")
    return EXIT_FINE


def _show_group(label: str, group: Any) -> None:
    """Print what there may be many of as a table, below how many there are."""
    click.echo(f"{label:<17} {len(group)}")
    members = list(group.values()) if isinstance(group, dict) else list(group)
    if not members:
        return
    rows = [member if isinstance(member, dict) else {label: member} for member in members]
    table = new_table()
    for name, value in rows[0].items():
        numeric = isinstance(value, int) and not isinstance(value, bool)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown("", value) for value in row.values()))
    show_table(table)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return ", ".join(_shown("", member) for member in value)
    if isinstance(value, int) and name.endswith("_bytes"):
        return f"{format_count(value)} ({format_bytes(value)})"
    if isinstance(value, int) and name == "records":
        return format_count(value)
    return printable(str(value))


def _jsonable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


@click.command()
@click.argument("target")
@click.argument("directory", type=click.Path(file_okay=False))
@click.option(
    "--journal",
    "journal_id",
    metavar="ID",
    type=click.IntRange(0),
    help="Only this journal or hash store; all of them otherwise.",
)
def export(target: str, directory: str, journal_id: int | None) -> int:
    """Write the journals and hash stores of TARGET to DIRECTORY as plain images, one each, as the RFC has them."""
    for image in siltstone.export(target, directory, journal=journal_id):
        click.echo(f"{printable(str(image.path))}: {format_count(image.entries)} entries")
    return EXIT_FINE


@click.command()
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(target: str, as_json: bool) -> int:
    """Read and check all of TARGET. Nothing is written.

    Exit status: 0 it is whole, 1 damage was found, 2 it cannot be read at all.
    """
    with replay_progress("checking") as progress:
        report = siltstone.verify(target, progress=progress)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), default=_jsonable))
    else:
        for problem in report.problems:
            places = (("journal", problem.journal), ("cluster", problem.cluster), ("offset", problem.offset))
            place = " ".join(f"{name} {value}" for name, value in places if value is not None)
            click.echo(f"{place + ': ' if place else ''}{printable(problem.message)}")
        for note in report.notes:
            click.echo(f"note: {printable(note)}")
        count = len(report.problems)
        verdict = "whole" if report.ok else f"damaged, {count} problem{'s' if count != 1 else ''}"
        click.echo(
            f"{printable(target)}: {verdict}; {format_count(report.journals)} journals, "
            f"{format_count(report.hash_stores)} hash stores, "
            f"{format_count(report.clusters)} clusters, {format_count(report.entries)} entries, "
            f"{format_bytes(report.bytes)} read"
        )
    return EXIT_FINE if report.ok else EXIT_DAMAGE
