"""What a run of `dedup` found, as a table for people or as one JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from siltstone.cli.sizes import format_bytes, format_count, printable
from siltstone.cli.tables import new_table, show_table
from siltstone.cli.walking import Tally

if TYPE_CHECKING:
    from rich.table import Table

    from siltstone.cli.feeding import Feeder
    from siltstone.core.info import StoreInfo

__all__ = ["Report"]


@dataclass
class Report:
    """The result of one run; sizes in bytes, times in seconds.

    A block is *unique* when its content was met for the first time: neither in the store nor earlier in the
    run. All others are *duplicates*; *known* are those duplicates that the store had before the run.
    """

    chunking: str
    block_size: int | None
    hash: str
    store: str | None
    tally: Tally = field(default_factory=Tally)
    blocks: int = 0
    bytes: int = 0
    unique: int = 0
    unique_bytes: int = 0
    known: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    records: int = 0
    index_bytes: int = 0
    journal_bytes: int = 0

    def take_run(self, feeder: Feeder, seconds: float, interrupted: bool) -> None:
        """Take over what a run counted."""
        self.blocks = feeder.blocks
        self.bytes = feeder.bytes
        self.unique = feeder.unique
        self.unique_bytes = feeder.unique_bytes
        self.known = feeder.known
        self.seconds = seconds
        self.interrupted = interrupted

    def take_store(self, info: StoreInfo, records: int) -> None:
        """Take over what the store takes up after the run, and how many blocks it has records of."""
        self.records = records
        self.index_bytes = info.index_bytes
        self.journal_bytes = info.journal_bytes

    @property
    def duplicate(self) -> int:
        """Blocks that were not new."""
        return self.blocks - self.unique

    @property
    def ratio(self) -> float | None:
        """How many bytes were read for each that is new; None where none is."""
        return self.bytes / self.unique_bytes if self.unique_bytes else None

    def _rate(self, count: int) -> float:
        return count / self.seconds if self.seconds > 0 else 0.0

    def _a_record(self, size: int) -> float | None:
        return size / self.records if self.records else None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON: counts, bytes, seconds."""
        return {
            "files": self.tally.files,
            "bytes": self.bytes,
            "blocks": self.blocks,
            "unique": self.unique,
            "duplicate": self.duplicate,
            "known": self.known,
            "unique_bytes": self.unique_bytes,
            "duplicate_bytes": self.bytes - self.unique_bytes,
            "ratio": self.ratio,
            "seconds": self.seconds,
            "bytes_per_second": self._rate(self.bytes),
            "blocks_per_second": self._rate(self.blocks),
            "unreadable": self.tally.unreadable,
            "changed": self.tally.changed,
            "hard_links": self.tally.hard_links,
            "symlinks": self.tally.symlinks,
            "special": self.tally.special,
            "records": self.records,
            "ram_bytes_per_record": self._a_record(self.index_bytes),
            "disk_bytes_per_record": self._a_record(self.journal_bytes),
            "store": None if self.store is None else printable(self.store),
            "chunking": self.chunking,
            "block_size": self.block_size,
            "hash": self.hash,
            "interrupted": self.interrupted,
        }

    def show(self, as_json: bool) -> None:
        """Print it to standard output."""
        if as_json:
            click.echo(json.dumps(self.as_dict()))
            return
        show_table(self._table())
        for line in self._lines():
            click.echo(line)

    def _table(self) -> Table:
        table = new_table()
        table.add_column("")
        for heading in ("files", "blocks", "bytes", "size", "share"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, files, blocks, size in (
            ("read", format_count(self.tally.files), self.blocks, self.bytes),
            ("unique", "", self.unique, self.unique_bytes),
            ("duplicate", "", self.duplicate, self.bytes - self.unique_bytes),
        ):
            share = f"{100 * size / self.bytes:.1f} %" if self.bytes else "-"
            table.add_row(name, files, format_count(blocks), format_count(size), format_bytes(size), share)
        return table

    def _lines(self) -> list[str]:
        rows = [("ratio", self._ratio_text()), ("rate", self._rate_text()), ("cut", self._cut_text())]
        if self.records:
            rows.append(("RAM", f"{self.index_bytes / self.records:.1f} bytes a record"))
            rows.append(("disk", f"{self.journal_bytes / self.records:.1f} bytes a record"))
        rows.append(("store", self._store_text()))
        rows += self._left_out()
        return [f"{name:<11}{text}" for name, text in rows]

    def _ratio_text(self) -> str:
        if self.ratio is not None:
            return f"{self.ratio:.2f} : 1"
        return "nothing new: the store had every block" if self.blocks else "nothing was read"

    def _rate_text(self) -> str:
        rate = format_bytes(self._rate(self.bytes))
        return f"{rate}/s, {self._rate(self.blocks):,.0f} blocks/s, {self.seconds:.2f} s"

    def _cut_text(self) -> str:
        size = (
            "content-defined (fastcdc)"
            if self.block_size is None
            else f"blocks of {format_bytes(self.block_size)}"
        )
        return f"{size}, {self.hash}"

    def _store_text(self) -> str:
        if self.store is None:
            return "temporary, thrown away (keep one with --store FILE)"
        records, known = format_count(self.records), format_count(self.known)
        return f"{printable(self.store)}, {records} records, {known} blocks known before"

    def _left_out(self) -> list[tuple[str, str]]:
        tally = self.tally
        counts = (
            ("unreadable", tally.unreadable, "named above; all else was read"),
            ("changed", tally.changed, "files became shorter while they were read"),
            ("hard links", tally.hard_links, "further names of files that were read"),
            ("skipped", tally.symlinks + tally.special, "symbolic links and special files"),
        )
        return [(name, f"{format_count(count)} ({why})") for name, count, why in counts if count]
