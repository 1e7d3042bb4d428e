"""The documentation is true: its examples run, its links lead somewhere, nothing public is left out of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import siltstone.errors
from siltstone.errors import SiltstoneError

HOUSE = Path(__file__).parents[2]
DOCS = HOUSE / "docs"
PAGES = sorted([*HOUSE.glob("*.md"), *DOCS.glob("*.md"), *(HOUSE / "benchmarks").glob("*.md")])

#: a fenced block, and what stands in a comment on the line before it: ```python after <!-- skip: reason -->
BLOCK = re.compile(
    r"(?:<!--\s*(?P<mark>.*?)\s*-->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
SKIP = re.compile(r"skip: \S.*")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def examples_of(page: Path) -> list[tuple[int, str]]:
    """The Python examples of a page that run, each with its line."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start("code")) + 1, match["code"])
        for match in BLOCK.finditer(text)
        if match["language"] == "python" and not (match["mark"] and SKIP.fullmatch(match["mark"]))
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if examples_of(page)], ids=name_of)
def test_examples_run(page, tmp_path):
    # One after another in one interpreter of their own, each at the line where it stands, for tracebacks.
    script = [""] * (page.read_text().count("\n") + 1)
    for line, code in examples_of(page):
        for at, text in enumerate(code.splitlines()):
            script[line - 1 + at] = text
    (tmp_path / "example.py").write_text("\n".join(script))
    command = [sys.executable, "-W", "error", "example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{name_of(page)} (the lines are the page's):\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_skipped_example_says_why(page):
    marks = [
        match["mark"]
        for match in BLOCK.finditer(page.read_text())
        if (match["mark"] or "").startswith("skip")
    ]
    assert all(SKIP.fullmatch(mark) for mark in marks), marks


def anchors_of(page: Path) -> set[str]:
    headings = HEADING.findall(BLOCK.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        inside = path.exists() and path.is_relative_to(HOUSE)
        if not inside or (anchor and anchor not in anchors_of(path)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_named_in_the_tree_is_there(page):
    named = re.findall(
        r"`((?:tests|conf|engine|plugins|workers|examples|benchmarks)/[\w./-]*)`", page.read_text()
    )
    assert not [path for path in named if not (HOUSE / path).exists()]


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text()
    assert not [
        page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in index
    ]


def test_the_changelog_has_a_place_for_what_is_not_released():
    changelog = (HOUSE / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[?Unreleased\]?$", changelog, re.MULTILINE)


def test_every_error_is_documented():
    errors = {
        name
        for name, value in vars(siltstone.errors).items()
        if isinstance(value, type) and issubclass(value, SiltstoneError)
    }
    headings = set(HEADING.findall((DOCS / "errors.md").read_text()))
    documented = {name for heading in headings for name in re.findall(r"`(\w+Error)`", heading)}
    assert documented == errors


def test_every_error_says_what_happened_and_what_to_do():
    _, *sections = re.split(r"^### ", (DOCS / "errors.md").read_text(), flags=re.MULTILINE)
    assert not [
        section.splitlines()[0]
        for section in sections
        if not re.search(r"^\*What happened\.\* \S", section, re.MULTILINE)
        or not re.search(r"^\*What to do\.\* \S", section, re.MULTILINE)
    ]


def test_every_dependency_has_a_reason():
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())
    lists = [
        project["build-system"]["requires"],
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
    ]
    required = {re.split(r"[^\w-]", line)[0].lower() for lines in lists for line in lines} - {"siltstone"}
    page = (DOCS / "dependencies.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", page, re.MULTILINE)
    assert {name for name, reason in rows if reason} == required


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    pages = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", pages, re.MULTILINE)) <= targets


def test_a_broken_example_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n```python\nassert False\n```\n\n<!-- skip: needs a device -->\n```python\nnever\n```\n"
    )
    assert examples_of(page) == [(4, "assert False\n")]
