"""Rot in a sealed journal of three log clusters: every bit, every sector by zeros, ones, junk, old or misplaced bytes.

What the medium loses is reported where it lies, or another copy of it serves; it is never served wrong and
never cut off in silence. Only what the very last flush covered, with no idle note behind it, may count as torn.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from sealed_images import CLUSTER, EXTENT, SECTOR, UUID, Image, content_up_to

from siltstone.errors import DamageError
from siltstone.format.seal import End
from siltstone.format.superblock import CLOSED
from siltstone.journal.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone.format.superblock import Extent

WHOLE = "whole"  # everything acknowledged is there, nothing is reported
DAMAGED = "damaged"  # reported, with the place
TORN = "torn"  # cut at a batch boundary, not before what the flush before the last one covered

FIRST_CLUSTER = EXTENT.offset // CLUSTER
SLOT_0, SLOT_1, LOG_0, LOG_1, LOG_2, LOG_3, LOG_4 = range(7)  # clusters of the extent


@dataclass(frozen=True)
class Case:
    """A journal, how it is read, and what damage to each of its clusters must come to.

    :param image: the medium and what was written
    :param extent: as the superblock has it
    :param clean: what the superblock says of the last close
    :param count: entries that must be there when nothing is damaged
    :param least: entries that must be there even where the end counts as torn
    :param outcomes: by cluster of the extent; what is not named is not used by this life: WHOLE
    """

    image: Image
    extent: Extent
    clean: bool
    count: int
    least: int
    outcomes: dict[int, str]

    def read(self) -> tuple[int, str]:
        """(entries, "") or (-1, where damage was reported); AssertionError for wrong contents."""
        try:
            if self.extent.state == CLOSED:
                end = self.extent.end
            else:
                end = recover(self.image.medium, UUID, self.extent, clean=self.clean).end
            content = content_up_to(self.image.medium, self.extent, end)
        except DamageError as error:
            assert error.journal == self.extent.id
            assert str(error.offset) in str(error)
            return -1, (error.offset - self.extent.offset) // CLUSTER
        count = len(content) // 50
        assert content == self.image.content(0, count)
        return count, ""

    def check(self, cluster: int, *, changed: bool = True) -> str:
        """Read, and hold the result against what damage to this cluster may come to."""
        outcome = self.outcomes.get(cluster, WHOLE) if changed else WHOLE
        count, place = self.read()
        if outcome == DAMAGED:
            assert (count, place) == (-1, cluster), f"{count} entries, damage at {place}"
        elif outcome == WHOLE:
            assert count == self.count, f"{count} entries, damage at {place}"
        else:
            assert count >= self.least
            assert count in self.image.boundaries
        return outcome


def written() -> Image:
    """Four flushes in a second life: three log clusters, and a tail that they leave in slot 0."""
    old = Image(replace(EXTENT, generation=4))
    old.append(900)
    old.flush()
    old.append(20)
    old.flush()
    image = old.recycled()
    for batches in ([30], [20, 40], [100]):
        for batch in batches:
            image.append(batch)
        image.flush()
    assert image.end.position == (2, 28 * 50)
    image.append(50)
    image.append(70)
    image.flush()
    assert image.end == (3, 67 * 50, 0, 6)
    assert image.acknowledged == [0, 30, 90, 190, 310]
    return image


LOG_DAMAGED = dict.fromkeys((LOG_0, LOG_1, LOG_2), DAMAGED)


def noted() -> Case:
    """The idle note is on the medium: a second copy of the tail, which says that the first is durable."""
    image = written()
    image.flush(note=True)
    return Case(image, image.extent, False, 310, 310, {**LOG_DAMAGED, SLOT_0: WHOLE, SLOT_1: WHOLE})


def acknowledged() -> Case:
    """The last flush returned, and then the power went: nothing on the medium says that it did."""
    image = written()
    outcomes = {LOG_0: DAMAGED, LOG_1: DAMAGED, LOG_2: TORN, SLOT_0: TORN, SLOT_1: WHOLE}
    return Case(image, image.extent, False, 310, 190, outcomes)


def unfinished() -> Case:
    """Behind the idle note a batch was written in part; no flush covered it."""
    image = written()
    image.flush(note=True)
    image.journal.append_stream(_packed(image.content(310, 200)))
    assert image.journal.position.cluster == 6
    outcomes = {**LOG_DAMAGED, **dict.fromkeys((SLOT_0, SLOT_1, LOG_3, LOG_4), WHOLE)}
    return Case(image, image.extent, False, 310, 310, outcomes)


def closed_cleanly() -> Case:
    """The superblock holds the end: the copy in slot 0 is the only one."""
    image = written()
    return Case(image, replace(image.extent, end=image.end), True, 310, 310, {**LOG_DAMAGED, SLOT_0: DAMAGED})


def closed_cleanly_in_slot_1() -> Case:
    """The same, one flush later."""
    image = written()
    image.append(5)
    image.flush()
    assert image.end.slot == 1
    return Case(image, replace(image.extent, end=image.end), True, 315, 315, {**LOG_DAMAGED, SLOT_1: DAMAGED})


def rolled() -> Case:
    """A closed journal: its last cluster is in slot 0 alone."""
    image = written()
    extent = replace(image.extent, state=CLOSED, end=image.end)
    return Case(image, extent, False, 310, 310, {**LOG_DAMAGED, SLOT_0: DAMAGED})


def rolled_after_the_note() -> Case:
    """A closed journal whose last cluster is in both slots."""
    image = written()
    image.flush(note=True)
    extent = replace(image.extent, state=CLOSED, end=image.end)
    return Case(image, extent, False, 310, 310, LOG_DAMAGED)


def closed_by_recovery() -> Case:
    """A closed journal that was cut at a batch boundary in its log: slots do not matter any more."""
    image = written()
    end = End(2, 78 * 50, None, 5)
    return Case(image, replace(image.extent, state=CLOSED, end=end), False, 240, 240, LOG_DAMAGED)


def _packed(stream: bytes):
    import numpy as np

    return np.frombuffer(stream, np.uint8)


CASES = [
    noted,
    acknowledged,
    unfinished,
    closed_cleanly,
    closed_cleanly_in_slot_1,
    rolled,
    rolled_after_the_note,
    closed_by_recovery,
]
#: where each bit of every used cluster is flipped at full size; elsewhere one bit a byte, in turn
EVERY_BIT = {noted, acknowledged, rolled}


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request):
    return request.param()


def used_clusters(case: Case) -> list[int]:
    """Slots and log clusters that this life wrote."""
    return [SLOT_0, SLOT_1, *range(LOG_0, LOG_0 + case.image.journal.position.cluster)]


def test_nothing_is_damaged_yet(case):
    assert case.read() == (case.count, "")
    assert len(case.image.boundaries) > 4


@pytest.mark.parametrize("make", CASES, ids=lambda case: case.__name__)
def test_every_flipped_bit_of_every_used_cluster(make, full_battery):
    case = make()
    # At a smoke size one bit of every third byte, in turn.
    chosen = range(0, CLUSTER, 1 if full_battery else 3)
    bits_a_byte = 8 if full_battery and make in EVERY_BIT else 1
    data = case.image.medium.data
    seen: Counter[str] = Counter()
    for cluster in used_clusters(case):
        start = case.extent.offset + cluster * CLUSTER
        for at in (start + each for each in chosen):
            for bit in range(8) if bits_a_byte == 8 else (at * 5 % 8,):
                data[at] ^= 1 << bit
                try:
                    seen[case.check(cluster)] += 1
                except AssertionError as error:
                    raise AssertionError(
                        f"bit {bit} of byte {at - start} of cluster {cluster}: {error}"
                    ) from error
                data[at] ^= 1 << bit
    bits = len(chosen) * bits_a_byte
    assert seen.total() == len(used_clusters(case)) * bits
    assert seen[DAMAGED] == bits * list(case.outcomes.values()).count(DAMAGED) > 0


def test_flipped_bits_of_clusters_that_are_not_used_change_nothing(case):
    data = case.image.medium.data
    for cluster in sorted(set(range(16)) - set(used_clusters(case))):
        start = case.extent.offset + cluster * CLUSTER
        for at in range(start, start + CLUSTER, 41):
            data[at] ^= 1 << at % 8
            assert case.read() == (case.count, "")
            data[at] ^= 1 << at % 8


def replacements(case: Case, start: int, size: int, earlier: set[bytes]) -> Iterator[tuple[str, bytes]]:
    """What may stand in a sector or cluster instead of its own bytes."""
    data = case.image.medium.data
    yield "zeros", bytes(size)
    yield "ones", b"\xff" * size
    for number in range(3):
        yield f"junk {number}", random.Random(start + number).randbytes(size)
    for number, content in enumerate(sorted(earlier)):
        yield f"what it held before {number}", content
    for distance in (-size, size, -CLUSTER, CLUSTER, -2 * CLUSTER, 2 * CLUSTER, 3 * CLUSTER):
        yield f"its neighbour's at {distance:+}", bytes(data[start + distance : start + distance + size])


def check_replaced(case: Case, start: int, size: int, earlier: set[bytes]) -> Counter[str]:
    data = case.image.medium.data
    own = bytes(data[start : start + size])
    cluster = (start - case.extent.offset) // CLUSTER
    seen: Counter[str] = Counter()
    for what, content in replacements(case, start, size, earlier):
        data[start : start + size] = content
        try:
            seen[case.check(cluster, changed=content != own)] += 1
        except AssertionError as error:
            raise AssertionError(f"byte {start % CLUSTER} of cluster {cluster}: {what}: {error}") from error
        data[start : start + size] = own
    return seen


def test_every_sector_replaced(case):
    seen: Counter[str] = Counter()
    for start in range(case.extent.offset, case.extent.stop, SECTOR):
        seen += check_replaced(case, start, SECTOR, case.image.medium.earlier[start // SECTOR])
    assert seen.total() > 16 * 8 * 12
    assert set(seen) == {WHOLE, DAMAGED, *case.outcomes.values()}


def test_every_cluster_replaced(case):
    # A lost write leaves what was there before, whole and valid in its time; a misdirected one what is elsewhere.
    seen: Counter[str] = Counter()
    for start in range(case.extent.offset, case.extent.stop, CLUSTER):
        seen += check_replaced(case, start, CLUSTER, case.image.medium.earlier_clusters[start // CLUSTER])
    assert seen.total() > 16 * 12
    assert set(seen) == {WHOLE, DAMAGED, *case.outcomes.values()}


def test_the_medium_held_an_earlier_life(case):
    # Else "what it held before" would say nothing: an old life's clusters are as valid, under their own key.
    log = range(FIRST_CLUSTER + LOG_0, FIRST_CLUSTER + LOG_2 + 1)
    before = [case.image.medium.earlier_clusters[cluster] for cluster in log]
    assert all(any(content.strip(b"\0") for content in contents) for contents in before)


@pytest.mark.parametrize("clusters", [(SLOT_0, SLOT_1), (SLOT_0, SLOT_1, LOG_0)])
@pytest.mark.parametrize("make", [noted, acknowledged, unfinished, closed_cleanly])
def test_both_slots_damaged_is_reported(make, clusters):
    case = make()
    for cluster in clusters:
        case.image.medium.data[case.extent.offset + cluster * CLUSTER + 9] ^= 0x10
    assert case.read() == (-1, SLOT_0)


def test_what_is_cut_is_said():
    case = acknowledged()
    case.image.medium.data[case.extent.offset + SLOT_0 * CLUSTER] ^= 1
    found = recover(case.image.medium, UUID, case.extent, clean=False)
    # The tail went with its copy; of what was left of the last flush, the second batch is not whole.
    assert found.end == (2, 78 * 50, None, 5)
    assert (found.cut_clusters, found.cut_bytes, found.cut_entries) == (1, 150, 3)
    assert found.reason


@pytest.mark.parametrize("clean", [True, False])
def test_a_copy_that_is_whole_is_named_as_the_end(clean):
    # Appending goes on beside the copy that is named: were it the damaged one, the whole one would be overwritten.
    image = written()
    image.flush(note=True)
    damaged = image.end.slot
    extent = replace(image.extent, end=image.end)
    image.medium.data[extent.offset + damaged * CLUSTER] ^= 1
    found = recover(image.medium, UUID, extent, clean=clean)
    assert found.end == image.end._replace(slot=1 - damaged)
