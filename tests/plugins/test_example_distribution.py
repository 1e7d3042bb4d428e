"""The example distribution, installed by pip as a user would, and exercised in interpreters of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import siltstone.errors
import siltstone_plugins

EXAMPLE = Path(__file__).parents[2] / "examples" / "siltstone-example"

#: a distribution `siltstone` for the child, should the one under test not be installed
BUILT_IN = "\n".join(
    [
        *(
            f"{name} = siltstone_plugins.{name}"
            for name in ("block_device", "file", "hash_info", "in_process", "memory")
        ),
        "worker_processes = siltstone_workers.plugin",
    ]
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, copied, so that building leaves nothing in the tree."""
    copy = tmp_path_factory.mktemp("sources") / "siltstone-example"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*"))
    return copy


@pytest.fixture(scope="module")
def installed(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that pip installed the example into."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed, so nothing can be built here")
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--quiet", "--target", str(target), str(example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def path_of_child(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """PYTHONPATH of a child that finds the engine where this process does, and the installed example."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "siltstone-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: siltstone\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text(f"[siltstone]\n{BUILT_IN}\n")
    engine = Path(siltstone.errors.__file__).parents[1]
    plugins = Path(siltstone_plugins.__path__[0]).parent
    return os.pathsep.join(map(str, (site, installed, engine, plugins)))


def run(path: str, *arguments: str, cwd: Path) -> str:
    """Run Python with this PYTHONPATH and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


HOST = """
from siltstone.plugin import PluginHost
import siltstone_example

host = PluginHost.load()
assert host.failures == (), host.failures
[info] = [each for each in host.distributions if each.name == "siltstone-example"]
print(info.version, *info.entry_points)
print(*(each.name for each in info.entry_types))
print(*(each.scheme for each in info.backends))
print(*(each.name for each in info.consumers))
backend, rest = host.resolve("segments:volume")
print(host.provider_of(host.entry_type_of(siltstone_example.SnapshotNote(1, "x"))), backend.scheme, rest)
[consumer] = host.consumers_of(host.entry_type_named("snapshot_note"))
print(consumer.name)
"""


def test_the_host_finds_what_the_installed_distribution_provides(path_of_child: str, tmp_path: Path) -> None:
    assert run(path_of_child, "-c", HOST, cwd=tmp_path).splitlines() == [
        "0.1.0 example",
        "chunk_location snapshot_note",
        "segments",
        "note_collector",
        "siltstone-example 0.1.0 segments volume",
        "note_collector",
    ]


REFUSED = """
import sys
from siltstone.plugin import PluginHost

host = PluginHost.load(allow=[])
print(sorted(host.entry_types), *host.refused, "siltstone_example" in sys.modules)
"""


def test_a_list_that_does_not_name_it_keeps_it_out(path_of_child: str, tmp_path: Path) -> None:
    assert run(path_of_child, "-c", REFUSED, cwd=tmp_path) == "[2] siltstone-example 0.1.0 False\n"


def test_it_passes_its_own_tests(path_of_child: str, example: Path) -> None:
    # They are the conformance suites of `siltstone.testing`, as a third party would run them.
    printed = run(path_of_child, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=example)
    assert " passed" in printed
    assert "failed" not in printed


FILL = """
import sys, siltstone
from siltstone_example import ChunkLocation, NOTES, SnapshotNote

with siltstone.open(sys.argv[1], workers=0, shards=4) as store:
    for n in range(500):
        store.put(ChunkLocation(bytes([n % 256]) * 31 + bytes([n // 256]), f"pack-{n}", n, n + 1))
        store.put(siltstone.HashInfo(bytes([n % 256]) * 31 + bytes([n // 256]), n, n + 2))
        if n % 100 == 0:
            store.put(SnapshotNote(n, f"note {n}"))
    assert store.delete(bytes(32), entry_type="chunk_location")
    store.flush()
    print(store.info().url)
"""

ASK = """
import sys, siltstone
from siltstone_example import ChunkLocation, NOTES, SnapshotNote

with siltstone.open(sys.argv[1], workers=0) as store:
    assert not store.read_only, store.read_only_reason
    for n in range(500):
        key = bytes([n % 256]) * 31 + bytes([n // 256])
        wanted = ChunkLocation(key, f"pack-{n}", n, n + 1) if n else None
        assert store.get(key, entry_type="chunk_location") == wanted, n
        assert store.get(key) == siltstone.HashInfo(key, n, n + 2), n
    print(*(note.text for note in NOTES.take()), sep=", ")
    print(len(store))
"""

WITHOUT = """
import sys, siltstone
from siltstone.plugin import PluginHost

assert 0x60 not in PluginHost.load().entry_types
try:
    siltstone.open(sys.argv[1], workers=0, missing_types="refuse").close()
except siltstone.UnknownEntryTypeError as error:
    print(error)
with siltstone.open(sys.argv[1], workers=0) as store:
    assert store.read_only
    print(store.read_only_reason)
    key = bytes([7]) * 31 + bytes(1)
    assert store.get(key) == siltstone.HashInfo(key, 7, 9)
    try:
        store.put(siltstone.HashInfo(key, 8, 8))
    except siltstone.ReadOnlyError as error:
        print(error)
"""


@pytest.mark.parametrize("target", ["segments:store", "store.silt"])
def test_a_store_keeps_its_records_over_a_restart(path_of_child: str, tmp_path: Path, target: str) -> None:
    run(path_of_child, "-c", FILL, target, cwd=tmp_path)
    printed = run(path_of_child, "-c", ASK, target, cwd=tmp_path)
    assert printed == "note 0, note 100, note 200, note 300, note 400\n999\n"


def test_a_store_without_its_plugin_is_for_reading_only_and_loses_nothing(
    path_of_child: str, tmp_path: Path
) -> None:
    run(path_of_child, "-c", FILL, "store.silt", cwd=tmp_path)
    before = (tmp_path / "store.silt").read_bytes()
    site, _, *engine = path_of_child.split(os.pathsep)
    printed = run(os.pathsep.join((site, *engine)), "-c", WITHOUT, "store.silt", cwd=tmp_path)
    refused, reason, refused_put = printed.splitlines()
    for line in (refused, reason, refused_put):
        assert "0x60 'chunk_location' version 1 of 'siltstone-example'" in line
        assert "not installed" in line
    assert (tmp_path / "store.silt").read_bytes() == before
    assert run(path_of_child, "-c", ASK, "store.silt", cwd=tmp_path).endswith("999\n")
