"""Torn or damaged: every combination of what a crash or rot can leave in a journal, as one table of labelled rows.

A row names the rule of docs/format.md that decides it, and says with patterns which combinations it takes; each
combination is taken by exactly one row.
"""

from __future__ import annotations

import errno
import itertools
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sealed_images import CLUSTER, EXTENT, UUID, Medium, content_up_to, entries

from siltstone.errors import DamageError, MediumError
from siltstone.format.kernels import seal_cluster
from siltstone.format.seal import End, Position, journal_key
from siltstone.journal.recovery import JournalRecovery, recover

KEY = journal_key(UUID, EXTENT.id, EXTENT.generation)
NO_BOUNDARY = 0xFFFF
FULL = 81 * 50  # bytes of entries in a log cluster here

# ---- the dimensions. K is the log cluster whose copy slot 0 holds, with three entries in it.

K, U = 3, 3 * 50

#: slot 1, beside the copy in slot 0
SLOTS = {
    "none": "neither slot is valid",
    "invalid": "junk",
    "older": "a copy of the cluster before",
    "newer": "the same cluster with one entry more",
    "beyond": "a copy of a cluster behind the log's end",
    "equal": "the same entries",
}
LOG = {
    "complete": "every cluster before K",
    "short": "the last one before K is missing",
    "hole": "one in the middle is missing, with valid ones behind it",
}
#: the greatest durable position that a valid seal tells, beside where the contents end
DURABLE = ("below", "at", "above")
CLEAN = ("clean", "unclean")
#: what the superblock holds as the end of the last clean close
END = {"absent": None, "below": End(0, 50, None, 1), "reference": End(K, U, 0, K + 1)}

COMBINATIONS = list(itertools.product(SLOTS, LOG, DURABLE, CLEAN, END))


def contents_end(slots: str, log: str) -> Position:
    """E of the format: behind the clusters in the log, and the tail where a slot has it."""
    if log == "complete":
        return Position(K, U + 50 if slots == "newer" else 0 if slots == "none" else U)
    if log == "short":
        return Position(K - 1, 100 if slots == "older" else 0)
    return Position(1, 0)


# ---- the table


@dataclass(frozen=True)
class Row:
    """Which combinations, by patterns; which rule decides; what comes of it.

    :param end: where recovery says that the contents end; None: damage is reported
    :param torn: whether the report says that something was torn off
    """

    rule: str
    why: str
    slots: str
    log: str
    durable: str
    clean: str
    superblock_end: str
    end: End | None
    torn: bool = False

    def takes(self, combination: tuple[str, ...]) -> bool:
        patterns = (self.slots, self.log, self.durable, self.clean, self.superblock_end)
        return all(
            pattern == "*" or value in pattern.split("|")
            for pattern, value in zip(patterns, combination, strict=True)
        )


VALID = "invalid|older|newer|beyond|equal"  # in one slot at least
BOTH = "older|newer|beyond|equal"
LOW = "below|at"

# fmt: off
TABLE = [
    Row("R1", "no slot tells where the log ended",
        "none", "*", "*", "*", "*", None),
    Row("R2a", "a slot says that more was durable than there is",
        VALID, "complete|short", "above", "*", "*", None),
    Row("R3", "a cluster behind the hole says that more was durable than there is",
        VALID, "hole", "above", "*", "*", None),

    # -- the log is complete
    Row("R4", "the newest copy is the tail; a lower end in the superblock or none changes nothing",
        "invalid|older|equal", "complete", LOW, "unclean", "*", End(K, U, 0, K + 1)),
    Row("R4", "of two copies of the tail the one with more in it counts",
        "newer", "complete", LOW, "unclean", "*", End(K, U + 50, 1, K + 2)),
    Row("R4", "a copy of a cluster that the log does not reach is torn, the other one is the tail",
        "beyond", "complete", LOW, "unclean", "*", End(K, U, 0, K + 1), torn=True),
    Row("RC", "closed cleanly, and it ends where it was closed",
        "invalid|older|equal", "complete", LOW, "clean", "reference", End(K, U, 0, K + 1)),
    Row("RC", "the same; a copy that belongs to nothing is left",
        "beyond", "complete", LOW, "clean", "reference", End(K, U, 0, K + 1), torn=True),
    Row("RC", "closed cleanly, but nobody wrote down where",
        VALID, "complete", LOW, "clean", "absent", None),
    Row("RC", "closed cleanly, but there is more than was there then",
        VALID, "complete", LOW, "clean", "below", None),
    Row("RC", "closed cleanly, but there is more than was there then",
        "newer", "complete", LOW, "clean", "reference", None),

    # -- clusters are missing
    Row("R2c", "one slot is torn, so the other had been flushed, and so had the clusters before it",
        "invalid", "short|hole", LOW, "*", "*", None),
    Row("R2b", "the last clean close covered more than there is",
        BOTH, "short|hole", LOW, "*", "reference", None),
    Row("R4", "the newer copy came before its log clusters; the older one is the tail",
        "older", "short", LOW, "unclean", "absent|below", End(K - 1, 100, 1, K), torn=True),
    Row("R6", "no slot fits the log that is left; it is cut where a batch ends in it",
        "newer|beyond|equal", "short", LOW, "unclean", "absent|below", End(K - 2, FULL, None, K - 1), torn=True),
    Row("R3", "what is behind the hole says nothing of a flush; the log ends at the hole",
        BOTH, "hole", LOW, "unclean", "absent|below", End(0, FULL, None, 1), torn=True),
    Row("RC", "closed cleanly, and clusters are missing, or nobody wrote down where",
        BOTH, "short|hole", LOW, "clean", "absent|below", None),
]
# fmt: on


# ---- the images


def sealed(
    index: int,
    count: int,
    *,
    durable: tuple[int, int] = (0, 0),
    committed: int | None = None,
    sequence: int = 0,
) -> bytes:
    """A tail copy of `count` entries of log cluster `index`."""
    body = entries(1000 * index, count)
    used = len(body)
    fields = struct.pack(
        ">IIHHIH", EXTENT.generation, index, used, used if committed is None else committed, *durable
    )
    cluster = bytearray(
        body.ljust(4064, b"\xff") + fields + (sequence or index + 1).to_bytes(6, "big") + bytes(8)
    )
    seal_cluster(KEY, cluster)
    return bytes(cluster)


def slot_offset(number: int) -> int:
    return EXTENT.offset + number * CLUSTER


def log_offset(index: int) -> int:
    return EXTENT.offset + (2 + index) * CLUSTER


def medium_for(slots: str, log: str, durable: str) -> Medium:
    """The journal of a combination."""
    medium = Medium()
    medium.data[:] = b"\xff" * len(medium.data)
    found = contents_end(slots, log)
    mark = {"below": (0, 50), "at": found, "above": (found.cluster, found.byte + 50)}[durable]
    second = {
        "older": sealed(K - 1, 2),
        "newer": sealed(K, 4, sequence=K + 2),
        "beyond": sealed(K + 1, 1),
        "equal": sealed(K, 3),
    }
    if slots != "none":
        # What a hole hides is told by the seals behind it.
        medium.write(slot_offset(0), sealed(K, 3, durable=(0, 0) if log == "hole" else mark))
        medium.write(slot_offset(1), second.get(slots, b"\x5a" * CLUSTER))
    missing = {"complete": K, "short": K - 1, "hole": 1}[log]
    for index in range(K):
        if index != missing:
            medium.write(log_offset(index), sealed(index, 81, durable=mark if index > missing else (0, 0)))
    return medium


def recovered(medium: Medium, clean: str, end: End | None, **options: bool) -> JournalRecovery:
    extent = replace(EXTENT, end=end)
    found = recover(medium, UUID, extent, clean=clean == "clean", **options)
    # What was closed cleanly is checked as it is read, not before.
    content_up_to(medium, extent, found.end)
    return found


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.rule}: {row.why}"[:70])
def test_row(row):
    combinations = [combination for combination in COMBINATIONS if row.takes(combination)]
    for slots, log, durable, clean, end in combinations:
        medium = medium_for(slots, log, durable)
        before = bytes(medium.data)
        where = f"{slots}, {log}, {durable}, {clean}, {end}"
        if row.end is None:
            with pytest.raises(DamageError) as caught:
                recovered(medium, clean, END[end])
            assert caught.value.journal == EXTENT.id, where
            assert EXTENT.offset <= caught.value.offset < EXTENT.stop, where
        else:
            found = recovered(medium, clean, END[end])
            assert found.end == row.end, where
            assert ("torn" in found.reason) is row.torn, where
            assert (found.cut_bytes, found.cut_entries, found.cut_clusters) == (0, 0, 0), where
        assert bytes(medium.data) == before, "recovery wrote"


def test_no_combination_is_missing_and_none_is_there_twice():
    taken = {
        combination: [row.why for row in TABLE if row.takes(combination)] for combination in COMBINATIONS
    }
    assert not {combination: rows for combination, rows in taken.items() if len(rows) != 1}
    assert len(taken) == 6 * 3 * 3 * 2 * 3


def test_every_row_is_reached():
    assert not [row for row in TABLE if not any(map(row.takes, COMBINATIONS))]
    # And each value of each dimension is named somewhere, not only swept up by a pattern for all.
    named = " ".join(
        f"{row.slots}|{row.log}|{row.durable}|{row.clean}|{row.superblock_end}".replace("|", " ")
        for row in TABLE
    )
    assert {*SLOTS, *LOG, *DURABLE, *CLEAN, *END} <= set(named.split())


def test_every_rule_is_one_of_the_format():
    page = Path(__file__).parents[2] / "docs" / "format.md"
    documented = set(re.findall(r"^\| (R\w+) \|", page.read_text(), re.MULTILINE))
    rows = {row.rule for row in TABLE} | {row.rule for row in (*CUTS, *UNREADABLE)}
    assert rows <= documented
    # R0 and R7 are the opening's: a lock and a barrier before, a fresh journal after.
    assert documented - rows <= {"R0", "R7"}


# ---- where a log that ends in the middle of a batch is cut


@dataclass(frozen=True)
class Cut:
    """Boundaries in the seals of log clusters 0, 1, 2 and of the tail; the end in the superblock; where it is cut."""

    why: str
    log: tuple[int, int, int]
    tail: int
    superblock_end: End | None
    end: End
    cut: tuple[int, int, int]  # clusters, bytes, entries behind the end
    rule: str = "R6"


NONE = NO_BOUNDARY
CLOSE = End(1, 100, 1, 9)
CUTS = [
    Cut("the tail ends with a batch", (FULL, FULL, FULL), 150, None, End(3, 150, 0, 4), (0, 0, 0)),
    Cut("a batch ends within the tail", (FULL, FULL, FULL), 100, None, End(3, 100, 0, 4), (1, 50, 1)),
    Cut("a batch ends where the tail begins", (FULL, FULL, FULL), 0, None, End(3, 0, 0, 4), (1, 150, 3)),
    Cut("none ends in the tail", (FULL, FULL, 100), NONE, None, End(2, 100, None, 3), (2, FULL + 50, 82)),
    Cut("nor in the last cluster", (FULL, 50, NONE), NONE, None, End(1, 50, None, 2), (3, 2 * FULL + 100, 164)),
    Cut("one ends where a cluster begins", (NONE, 0, NONE), NONE, None, End(1, 0, None, 2), (3, 2 * FULL + 150, 165)),
    Cut("the first batch is not whole", (0, NONE, NONE), NONE, None, End(0, 0, None, 1), (4, 3 * FULL + 150, 246)),
    Cut("no boundary at all", (NONE, NONE, NONE), NONE, None, End(0, 0, None, 0), (4, 3 * FULL + 150, 246)),
    Cut("a clean close ended it", (50, NONE, NONE), NONE, CLOSE, CLOSE, (3, 2 * FULL + 50, 163)),
    Cut("a batch ended behind the clean close", (50, NONE, 100), NONE, CLOSE, End(2, 100, None, 3), (2, FULL + 50, 82)),
]  # fmt: skip


@pytest.mark.parametrize("case", CUTS, ids=lambda case: case.why)
def test_where_it_is_cut(case):
    medium = Medium()
    for index, committed in enumerate(case.log):
        medium.write(log_offset(index), sealed(index, 81, committed=committed))
    medium.write(slot_offset(0), sealed(K, 3, committed=case.tail))
    medium.write(slot_offset(1), sealed(0, 0))
    found = recovered(medium, "unclean", case.superblock_end)
    assert found.end == case.end
    assert (found.cut_clusters, found.cut_bytes, found.cut_entries) == case.cut
    assert bool(found.reason) is (case.cut != (0, 0, 0))


# ---- clusters that cannot be read


class FailingMedium(Medium):
    """Reads that touch one of these clusters of the extent fail."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad = [EXTENT.offset + cluster * CLUSTER for cluster in bad]

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes:
        for at in self.bad:
            if offset <= at < offset + length:
                raise MediumError(
                    f"read of {length} bytes at {offset}",
                    url=self.url,
                    operation="read",
                    offset=at,
                    errno=errno.EIO,
                )
        return super().read(offset, length, fresh=fresh)


@dataclass(frozen=True)
class Unreadable:
    """Clusters of the extent (0 and 1 are the slots) that fail; what comes of it where that may count as torn.

    :param older: what slot 1 holds: (log cluster, entries)
    :param outcome: the end, or the error
    """

    why: str
    bad: tuple[int, ...]
    older: tuple[int, int]
    durable: tuple[int, int]
    outcome: End | type[Exception]
    rule: str = "R5"


UNREADABLE = [
    Unreadable("the slot that does not hold the tail", (1,), (K, 2), (2, 50), End(K, U, 0, K + 1)),
    Unreadable("the tail's slot, the other one is at the durable end", (0,), (K, 2), (2, 50), End(K, 100, 1, K + 1)),
    Unreadable("the tail's slot, the other is a cluster behind", (0,), (K - 1, 2), (0, 0), End(K - 1, FULL, None, K)),
    Unreadable("both slots", (0, 1), (K, 2), (0, 0), DamageError, "R1"),
    Unreadable("a cluster that a flush covered", (2 + 1,), (K, 2), (2, 50), MediumError),
    Unreadable("a cluster just before the durable position", (2 + 1,), (K, 2), (2, 0), MediumError),
    Unreadable("a cluster at the durable position", (2 + 1,), (K, 2), (1, 0), End(0, FULL, None, 1)),
    Unreadable("a cluster that no flush covered", (2 + 1,), (K, 2), (0, 50), End(0, FULL, None, 1)),
    Unreadable("a cluster behind the end", (2 + K + 2,), (K, 2), (2, 50), End(K, U, 0, K + 1), "R3"),
    Unreadable("a cluster beside one that says it was durable", (2 + 1, 2 + 5), (K, 2), (0, 0), MediumError, "R3"),
]  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case.why)
def test_unreadable(case):
    medium = FailingMedium(*case.bad)
    for index in range(K):
        medium.write(log_offset(index), sealed(index, 81))
    if len(case.bad) == 2 and case.bad != (0, 1):
        medium.write(log_offset(4), sealed(4, 81, durable=(2, 0)))
    medium.write(slot_offset(0), sealed(K, 3, durable=case.durable))
    medium.write(slot_offset(1), sealed(*case.older))
    # A read that failed may pass the next time: nobody takes it for the end unasked.
    with pytest.raises(MediumError) as caught:
        recovered(medium, "unclean", None)
    assert caught.value.offset in medium.bad
    assert caught.value.errno == errno.EIO
    if isinstance(case.outcome, End):
        assert recovered(medium, "unclean", None, unreadable_is_torn=True).end == case.outcome
    else:
        with pytest.raises(case.outcome):
            recovered(medium, "unclean", None, unreadable_is_torn=True)


def test_seals_far_behind_the_end_are_heard_no_further_than_the_bound():
    # 4096 clusters may be unflushed at most, so a hole can be no larger; what lies behind is another matter.
    extent = replace(EXTENT, length=4200 * CLUSTER)
    for behind, heard in ((4095, True), (4096, False)):
        medium = Medium(extent.stop)
        medium.write(slot_offset(0), sealed(0, 3))
        medium.write(slot_offset(1), sealed(0, 2))
        medium.write(log_offset(behind), sealed(behind, 81, durable=(0, 200)))
        if heard:
            with pytest.raises(DamageError):
                recover(medium, UUID, extent, clean=False)
        else:
            assert recover(medium, UUID, extent, clean=False).end == (0, 150, 0, 1)
