"""`format`, `info`, `verify`, `export` and `journal dump` as people run them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import siltstone
from siltstone import HashInfo

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = 3000
CLUSTER = 4096


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of four shards with RECORDS records, closed."""
    path = tmp_path / "store.silt"
    with siltstone.open(path, shards=4) as opened:
        hashes = np.frombuffer(b"".join(map(digest, range(RECORDS))), np.uint8).reshape(-1, 32)
        numbers = np.arange(RECORDS, dtype=np.uint64)
        opened.put_many(hashes, numbers * 8, numbers)
        opened.delete(digest(0))
    return path


def plain_entry(number: int) -> bytes:
    return struct.pack(">BB32sQQ", 50, 2, digest(number), number * 8, number)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A plain journal of 83 entries written by hand: 81 fill a cluster, an END closes it, then comes 0xFF."""
    first = b"".join(map(plain_entry, range(81)))
    left = CLUSTER - len(first)
    first += bytes((left, 1)) + b"\xff" * (left - 2)
    second = b"".join(map(plain_entry, (81, 82)))
    path = tmp_path / "plain.img"
    path.write_bytes((first + second).ljust(2 * CLUSTER, b"\xff"))
    return path


def one_line_error(outcome: Any) -> str:
    assert outcome.status == 2
    assert outcome.err.startswith("siltstone: error: ")
    assert outcome.err.count("\n") == 1
    return str(outcome.err)


# ---- format and info


def test_format_makes_an_empty_store(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "new.silt"
    made = run("format", target, "--shards", "3", "--erase-block", "64k")
    assert (made.status, made.err) == (0, "")
    assert str(target) in made.out
    facts = run("info", target, "--json").json
    assert (facts["shards"], facts["records"]) == (3, 0)


def test_format_leaves_what_is_there_unless_told(run: Any, store: Path) -> None:
    before = store.read_bytes()
    one_line_error(run("format", store))
    assert store.read_bytes() == before
    assert run("format", store, "--overwrite").status == 0
    assert run("info", store, "--json").json["records"] == 0


@pytest.mark.parametrize("options", [["--erase-block", "100000"], ["--erase-block", "4k"], ["--shards", "0"]])
def test_format_refuses_what_cannot_be(run: Any, tmp_path: Path, options: list[str]) -> None:
    outcome = run("format", tmp_path / "new.silt", *options)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "new.silt").exists()


def test_info_shows_what_is_in_a_store_and_writes_nothing(run: Any, store: Path) -> None:
    before = store.read_bytes()
    facts = run("info", store, "--json").json
    assert (facts["shards"], facts["records"], facts["clean"]) == (4, RECORDS - 1, True)
    table = run("info", store.name, cwd=store.parent)
    assert table.status == 0
    assert max(map(len, table.out.splitlines())) <= 80
    assert f"{RECORDS - 1:,}" in table.out
    assert store.read_bytes() == before


@pytest.mark.parametrize("command", ["info", "verify"])
@pytest.mark.parametrize("content", [None, b"", b"\0" * (2 << 20), b"\xff" * (2 << 20), b"foreign" * 500_000])
def test_what_is_no_store_is_an_error_and_stays_as_it_is(
    run: Any, tmp_path: Path, command: str, content: bytes | None
) -> None:
    target = tmp_path / "target"
    if content is not None:
        target.write_bytes(content)
    one_line_error(run(command, target))
    assert (target.read_bytes() if target.exists() else None) == content


def test_a_held_store_is_an_error_that_names_the_holder(run: Any, store: Path) -> None:
    with siltstone.open(store):
        assert str(os.getpid()) in one_line_error(run("dedup", store.parent, "--store", store))


def test_an_output_that_is_full_is_an_error(store: Path) -> None:
    command = [sys.executable, "-m", "siltstone.cli", "info", str(store)]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


# ---- verify


def test_verify_finds_a_whole_store_whole(run: Any, store: Path) -> None:
    before = store.read_bytes()
    outcome = run("verify", store)
    assert (outcome.status, outcome.err) == (0, "")
    assert "whole" in outcome.out
    report = run("verify", store, "--json").json
    assert report["ok"] is True
    assert report["problems"] == []
    # The records, and the DELETE of one.
    assert report["entries"] == RECORDS + 1
    assert store.read_bytes() == before


def test_verify_names_damage(run: Any, store: Path) -> None:
    image = bytearray(store.read_bytes())
    place = image.index(digest(7))
    image[place] ^= 1
    store.write_bytes(image)
    report = run("verify", store, "--json")
    assert report.status == 1
    assert report.json["ok"] is False
    assert report.json["problems"]
    outcome = run("verify", store)
    assert outcome.status == 1
    assert "damaged" in outcome.out
    assert store.read_bytes() == image


# ---- export and journal dump


def test_what_is_exported_is_what_is_in_the_store(run: Any, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    outcome = run("export", store, folder)
    assert (outcome.status, outcome.err) == (0, "")
    images = sorted(folder.iterdir())
    assert len(images) == len(outcome.out.splitlines()) == 4
    found, deleted = {}, []
    for image in images:
        for line in run("journal", "dump", image, "--json").out.splitlines():
            entry = json.loads(line)
            if entry["name"] == "hash_info":
                fields = entry["fields"]
                found[fields["hash"]] = (fields["physical_sect"], fields["first_logical_sect"])
            elif entry["name"] == "DELETE":
                deleted.append((entry["fields"]["deletes"], entry["fields"]["key"]))
    assert found == {digest(number).hex(): (number * 8, number) for number in range(RECORDS)}
    assert deleted == [("hash_info", digest(0).hex())]


def test_one_journal_is_exported_alone(run: Any, store: Path, tmp_path: Path) -> None:
    extents = run("info", store, "--json").json["extents"]
    journal = next(extent["id"] for extent in extents if extent["kind"] == "journal")
    assert run("export", store, tmp_path / "one", "--journal", str(journal)).status == 0
    assert len(list((tmp_path / "one").iterdir())) == 1
    one_line_error(run("export", store, tmp_path / "none", "--journal", "999999"))


def test_dump_prints_a_line_for_each_entry(run: Any, plain: Path) -> None:
    outcome = run("journal", "dump", plain)
    assert (outcome.status, outcome.err) == (0, "")
    lines = [line for line in outcome.out.splitlines() if "hash_info" in line]
    assert len(lines) == 83
    offset, size, number, name, *fields = lines[82].split()
    assert (offset, size, number, name) == (str(CLUSTER + 50), "50", "0x02", "hash_info")
    assert fields == [f"hash={digest(82).hex()}", "physical_sect=656", "first_logical_sect=82"]


def test_dump_as_json_has_an_object_a_line(run: Any, plain: Path) -> None:
    outcome = run("journal", "dump", plain, "--json")
    entries = [json.loads(line) for line in outcome.out.splitlines()]
    records = [entry for entry in entries if entry["type"] == 2]
    assert [entry["fields"]["first_logical_sect"] for entry in records] == list(range(83))
    assert records[0] == {
        "offset": 0,
        "size": 50,
        "type": 2,
        "name": "hash_info",
        "fields": {"hash": digest(0).hex(), "physical_sect": 0, "first_logical_sect": 0},
    }


def test_dump_begins_and_ends_where_it_is_told(run: Any, plain: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(b"\0" * 8192 + plain.read_bytes() + b"\0" * 8192)
    whole = run("journal", "dump", inside, "--offset", "8k", "--size", "8k")
    assert whole.status == 0
    assert whole.out.count("hash_info") == 83
    first = run("journal", "dump", inside, "--offset", "8k", "--size", "4k")
    assert first.out.count("hash_info") == 81


def test_dump_shows_what_lies_before_damage_and_says_where_it_is(run: Any, plain: Path) -> None:
    image = bytearray(plain.read_bytes())
    image[50 * 10] = 0
    plain.write_bytes(image)
    outcome = run("journal", "dump", plain)
    assert outcome.status == 1
    assert outcome.out.count("hash_info") == 10
    assert outcome.err.startswith("siltstone: error: ")
    assert "500" in outcome.err


def test_dump_shows_the_payload_of_a_type_that_nobody_provides(run: Any, tmp_path: Path) -> None:
    image = tmp_path / "unknown.img"
    image.write_bytes((bytes((5, 0x7F)) + b"abc").ljust(CLUSTER, b"\xff"))
    line = run("journal", "dump", image).out.splitlines()[0]
    assert line.split() == ["0", "5", "0x7f", "unknown", "payload=616263"]


def test_dump_of_a_sealed_journal_inside_its_volume(run: Any, store: Path) -> None:
    seen: dict[str, int] = {}
    for extent in run("info", store, "--json").json["extents"]:
        if extent["kind"] == "journal":
            place = ["--offset", str(extent["offset"]), "--size", str(extent["length"])]
            outcome = run("journal", "dump", store, *place, "--format", "sealed", "--json")
            assert (outcome.status, outcome.err) == (0, "")
            entries = [json.loads(line) for line in outcome.out.splitlines()]
            # Closed clusters have 81 records each; what the last tail slot holds comes behind them.
            assert 0 <= len(entries) - 81 * (extent["used"] // CLUSTER - 2) <= 81
            fields = [entry["fields"] for entry in entries if entry["name"] == "hash_info"]
            seen |= {entry["hash"]: entry["first_logical_sect"] for entry in fields}
    assert seen == {digest(number).hex(): number for number in range(RECORDS)}


def test_dump_into_a_pipe_that_closes_is_quiet(plain: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "siltstone.cli", "journal", "dump", str(plain)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_dump_of_a_missing_file_is_an_error(run: Any, tmp_path: Path) -> None:
    outcome = run("journal", "dump", tmp_path / "missing")
    assert outcome.status == 2
    assert "missing" in outcome.err
    assert "Traceback" not in outcome.err


# ---- the command itself


def test_version(run: Any) -> None:
    outcome = run("--version")
    assert (outcome.status, outcome.out) == (0, f"siltstone {siltstone.__version__}\n")


def test_records_of_the_library_and_the_command_are_the_same(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "store.silt"
    assert run("format", target).status == 0
    with siltstone.open(target) as opened:
        opened.put(HashInfo(digest(1), 8, 64))
    assert run("info", target, "--json").json["records"] == 1
