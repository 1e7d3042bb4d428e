"""What a reader may rely on in every module: its size, its name, its docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
SHIPPED = (HOUSE / "engine", HOUSE / "plugins", HOUSE / "workers")
WRITTEN = (*SHIPPED, HOUSE / "tests", HOUSE / "benchmarks", HOUSE / "examples")

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 80
#: names that say nothing of what is inside
EMPTY_NAMES = {"common", "helper", "helpers", "misc", "tools", "util", "utils"}


def modules(folders: tuple[Path, ...]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if "build" not in path.parts]


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def test_no_module_is_too_long():
    sizes = {name_of(path): path.read_text().count("\n") for path in modules(WRITTEN)}
    assert not {name: lines for name, lines in sizes.items() if lines > MODULE_LINES_MAX}


def test_no_function_is_longer_than_a_screen_or_two():
    long = [
        f"{name_of(path)}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in modules(SHIPPED)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long


def test_no_name_says_nothing():
    empty = [name_of(path) for path in modules(WRITTEN) if EMPTY_NAMES & {path.stem, path.parent.name}]
    assert not empty


@pytest.mark.parametrize(
    "package", ["engine/siltstone", "plugins/siltstone_plugins", "workers/siltstone_workers"]
)
def test_every_package_is_typed(package):
    assert (HOUSE / package / "__init__.py").is_file()
    assert (HOUSE / package / "py.typed").is_file()


def test_every_kernel_has_a_stub():
    kernels = list((HOUSE / "engine").rglob("*.pyx"))
    assert kernels
    assert not [name_of(path) for path in kernels if not path.with_suffix(".pyi").is_file()]


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public_definitions(tree: ast.Module) -> list[tuple[ast.ClassDef | None, Definition]]:
    """What a module defines for others, each with the class that it is in."""
    found: list[tuple[ast.ClassDef | None, Definition]] = []
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    while scopes:
        scope = scopes.pop()
        for node in scope.body:
            if isinstance(node, Definition) and not node.name.startswith("_"):
                found.append((scope if isinstance(scope, ast.ClassDef) else None, node))
                if isinstance(node, ast.ClassDef):
                    scopes.append(node)
    return found


def is_plain(node: Definition) -> bool:
    # A line or two says itself what it does, a test of a conformance suite by its name.
    return not isinstance(node, ast.ClassDef) and (len(node.body) <= 2 or node.name.startswith("test_"))


def test_what_is_public_has_a_docstring():
    trees = {path: ast.parse(path.read_text()) for path in modules(SHIPPED)}
    # An override does what the method of its base says.
    said = {
        (owner.name, node.name)
        for tree in trees.values()
        for owner, node in public_definitions(tree)
        if owner is not None and ast.get_docstring(node)
    }
    missing = [
        f"{name_of(path)}:{node.lineno}: {node.name}"
        for path, tree in trees.items()
        for owner, node in public_definitions(tree)
        if ast.get_docstring(node) is None and not is_plain(node)
        if owner is None or not any((ast.unparse(base), node.name) in said for base in owner.bases)
    ]
    missing += [
        f"{name_of(path)}: the module"
        for path, tree in trees.items()
        if tree.body and not ast.get_docstring(tree)
    ]
    assert not missing, "\n".join(missing)


def test_nothing_names_a_machine():
    # A path of somebody's machine in a file works nowhere else.
    machine = re.compile(r"(?<![\w.])/(?:work|home/\w+|Users/\w+|root)/")
    found = [
        f"{name_of(path)}: {match[0]}"
        for folder in (*WRITTEN, HOUSE / "docs", HOUSE / "conf")
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".py", ".pyx", ".pyi", ".h", ".md", ".toml"} and path != Path(__file__)
        for match in machine.finditer(path.read_text())
    ]
    assert not found
