"""Who may import whom. TYPE_CHECKING imports and imports inside functions count like any other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]

#: package -> its folder, and the packages of the house that it may import
PACKAGES = {
    "siltstone": ("engine", {"siltstone"}),
    "siltstone_plugins": ("plugins", {"siltstone_plugins", "siltstone"}),
    "siltstone_workers": ("workers", {"siltstone_workers", "siltstone"}),
}

#: The engine from the bottom up: a module imports its own layer and those below. The longest name that fits a
#: module decides; so the contracts, which anybody may import, lie below the packages that they are in.
LAYERS = (
    ("errors", "records", "format.constants"),
    ("locks", "threads"),
    ("volume.backend",),
    ("plugin.types",),
    ("format",),
    ("volume",),
    ("journal",),
    ("index",),
    ("hash_store",),
    ("lookup",),
    ("log_store",),
    ("shard",),
    ("plugin",),
    ("core",),
    ("store", "aio"),
    ("api",),
    ("",),  # the package itself: it re-exports the front door
    ("cli", "__main__"),
)

#: nobody in the house imports this; it is for other people's tests, and imports what it likes
FOR_OTHERS = "siltstone.testing"

#: suffix of a source -> what stands behind the module's name where it has several
SOURCES = {".py": "", ".pyx": "", ".pxd": ":shared", ".pyi": ":stub"}

CIMPORT = re.compile(r"^[ \t]*(?:from|c?import)[ \t]+(siltstone[\w.]*)", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    place: str
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def modules_in(root: Path) -> dict[str, Path]:
    """Every source of every module of the house under `root`, by the module's dotted name and its kind."""
    found = {}
    for package, (folder, _) in PACKAGES.items():
        for path in sorted((root / folder / package).rglob("*.p*")):
            if path.suffix in SOURCES:
                parts = path.relative_to(root / folder).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                # A .pyi or .pxd beside its .pyx is another source of one module.
                found[name + SOURCES[path.suffix]] = path
    return found


def imports_in(root: Path, *, everything: bool = False) -> list[Import]:
    """Every import of one module of the house by another, or with `everything` of any module at all."""
    modules = modules_in(root)
    found = []
    for name, path in modules.items():
        module = name.partition(":")[0]
        for_types = type_checking_lines(path)
        for target, line in imported_names(path, module, modules):
            if everything or target.partition(".")[0] in PACKAGES:
                place = f"{path.relative_to(root)}:{line}"
                found.append(Import(module, target, place, line in for_types))
    return found


def type_checking_lines(path: Path) -> set[int]:
    """The lines that only a type checker reads."""
    if path.suffix != ".py":
        return set(range(path.read_text().count("\n") + 2)) if path.suffix == ".pyi" else set()
    return {
        line
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for line in range(node.body[0].lineno, node.body[-1].end_lineno + 1)
    }


def imported_names(path: Path, module: str, modules: dict[str, Path]) -> list[tuple[str, int]]:
    text = path.read_text()
    if path.suffix in {".pyx", ".pxd"}:
        return [(match[1], text.count("\n", 0, match.start(1)) + 1) for match in CIMPORT.finditer(text)]
    found = []
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                found.append((whole if whole in modules else source, node.lineno))
    return found


def layer_of(module: str) -> int | None:
    """The place of an engine module in LAYERS, or None where the table does not know it."""
    name = module.removeprefix("siltstone").removeprefix(".")
    while True:
        for place, names in enumerate(LAYERS):
            if name in names:
                # A top-level module that nobody listed must not fall through to the package itself.
                return place if name or module == "siltstone" else None
        if not name:
            return None
        name = name.rpartition(".")[0]


def wrong_imports(root: Path) -> list[str]:
    wrong = []
    for one in imports_in(root):
        importer, imported = one.importer.partition(".")[0], one.imported.partition(".")[0]
        if imported not in PACKAGES[importer][1]:
            wrong.append(f"{one}: {importer} may import only {sorted(PACKAGES[importer][1])}")
        elif within(one.importer, FOR_OTHERS):
            continue
        elif within(one.imported, FOR_OTHERS):
            wrong.append(f"{one}: it is for other people's tests")
        elif importer == imported == "siltstone":
            above, below = layer_of(one.importer), layer_of(one.imported)
            if above is None or below is None:
                wrong.append(f"{one}: not in the table of layers")
            elif below > above:
                wrong.append(f"{one}: upwards only, and {LAYERS[below]} lies above {LAYERS[above]}")
    return wrong


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def cycle_in(root: Path) -> list[str] | None:
    """One cycle of imports, or None. That a package is imported before what is in it does not count."""
    graph = defaultdict(set)
    for one in imports_in(root):
        if one.importer != one.imported and not within(one.importer, FOR_OTHERS):
            graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def third_parties(root: Path) -> dict[str, str]:
    """Top-level modules from elsewhere that run with the house, each with one place that imports it."""
    known = {*PACKAGES, *sys.stdlib_module_names}
    found = {}
    for one in imports_in(root, everything=True):
        top = one.imported.partition(".")[0]
        if top not in known and not one.for_types_only and not within(one.importer, FOR_OTHERS):
            found.setdefault(top, str(one))
    return found


# ---- the house as it stands


def test_imports_point_upwards_only():
    assert not wrong_imports(HOUSE), "\n".join(wrong_imports(HOUSE))


def test_imports_make_no_cycle():
    assert cycle_in(HOUSE) is None


def test_the_table_names_every_engine_module():
    unknown = [
        name
        for name in modules_in(HOUSE)
        if within(name, "siltstone")
        and layer_of(name.partition(":")[0]) is None
        and not within(name, FOR_OTHERS)
    ]
    assert not unknown


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_").lower() for line in project["dependencies"]}
    imported = third_parties(HOUSE)
    undeclared = [place for top, place in imported.items() if top not in declared]
    assert not undeclared
    assert declared <= imported.keys()


def test_the_front_door_loads_nothing_slow():
    # Each takes longer to import than a small store to open.
    code = "import siltstone, sys; print(sorted({'click', 'pydantic', 'rich'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


# ---- the checker itself


@pytest.fixture
def planted(tmp_path):
    """A house of empty packages; call with the text of modules to plant them in it."""
    for package, (folder, _) in PACKAGES.items():
        (tmp_path / folder / package).mkdir(parents=True)
        (tmp_path / folder / package / "__init__.py").touch()

    def plant(**texts: str) -> Path:
        for name, text in texts.items():
            package, *parts = name.split("__")
            path = tmp_path / PACKAGES[package][0] / package / Path(*parts[:-1], parts[-1] + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(text)
        return tmp_path

    return plant


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("siltstone__format__entry", "import siltstone.volume.layout"),
        ("siltstone__format__entry", "from siltstone.journal import writer"),
        ("siltstone__format__entry", "from ..journal.writer import Writer"),
        ("siltstone__format__entry", "def late():\n    from siltstone import core"),
        (
            "siltstone__format__entry",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import siltstone.cli",
        ),
        ("siltstone__volume__layout", "import siltstone"),
        ("siltstone__hash_store__view", "import siltstone.log_store"),
        ("siltstone__shard", "import siltstone.plugin.host"),
        ("siltstone__core__opening", "import siltstone.testing.backend"),
        ("siltstone__core__opening", "import siltstone_plugins.file"),
        ("siltstone__core__opening", "from siltstone_workers import pipes"),
        ("siltstone__surprise", "import siltstone.errors"),
        ("siltstone_plugins__file", "import siltstone_workers.pipes"),
        ("siltstone_workers__pipes", "from siltstone_plugins.file import FileBackend"),
        ("siltstone_plugins__file", "import siltstone.testing"),
    ],
)
def test_a_wrong_import_is_found(planted, module, text):
    (found,) = wrong_imports(planted(**{module: text}))
    assert Path(module.replace("__", "/")).name in found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("siltstone__volume__layout", "from siltstone.format import entry"),
        ("siltstone__plugin__types", "from siltstone.volume.backend import Backend"),
        ("siltstone__format__entry", "from siltstone.plugin.types import EntryType"),
        ("siltstone__store", "from . import errors"),
        ("siltstone__cli__dedup", "import siltstone"),
        ("siltstone__testing__backend", "import siltstone.core"),
        ("siltstone_plugins__file", "from siltstone.volume.backend import Backend"),
        ("siltstone_workers__pipes", "from siltstone import errors, shard"),
    ],
)
def test_a_right_import_is_let_through(planted, module, text):
    assert not wrong_imports(planted(**{module: text, "siltstone__errors": ""}))


@pytest.mark.parametrize("suffix", ["pyx", "pxd"])
def test_an_import_in_a_kernel_is_seen(planted, suffix):
    root = planted(siltstone__format__entry="")
    source = root / f"engine/siltstone/format/kernels.{suffix}"
    source.write_text("from siltstone.index.table cimport Table\n")
    assert wrong_imports(root)


def test_a_cycle_is_found(planted):
    root = planted(
        siltstone__volume__layout="import siltstone.volume.allocator",
        siltstone__volume__allocator="def late():\n    from siltstone.volume.layout import Layout",
    )
    assert not wrong_imports(root)
    assert set(cycle_in(root)) == {"siltstone.volume.layout", "siltstone.volume.allocator"}
