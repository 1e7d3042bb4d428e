"""docs/plugins.md names everything that a plugin's author can use, and the examples of the hooks run.

That the examples in the page run is shown with those of the other pages, in tests/house.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from siltstone.plugin import PluginHost, hookspecs, hosting, types
from siltstone.plugin.discovery import PluginFailure, Provider
from siltstone.plugin.registration import DistributionInfo
from siltstone.testing.backend import BackendConformance
from siltstone.testing.entry_type import EntryTypeConformance
from siltstone.volume.backend import Backend, Handover

DOCUMENT = Path(__file__).parents[1] / "docs" / "plugins.md"
HOOKS = [name for name, member in vars(hookspecs).items() if hasattr(member, "siltstone_spec")]
RECORDS = [
    types.EntryType,
    types.BackendType,
    types.BackendOptions,
    types.Consumer,
    types.ReplayBatch,
    hosting.ShardHostType,
    hosting.Hosting,
    hosting.WorkerOptions,
    hosting.WorkerInfo,
    hosting.ShardFigures,
    Handover,
    PluginFailure,
    Provider,
    DistributionInfo,
]


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text()


def names_in(part: str) -> set[str]:
    """Return the identifiers that stand in backquotes, alone or within an expression."""
    return {name for code in re.findall(r"`([^`\n]+)`", part) for name in re.findall(r"\w+", code)}


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    found = re.search(
        rf"^(#+) [^\n]*`{re.escape(heading)}`[^\n]*\n(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/plugins.md has no section on `{heading}`"
    return found[2]


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def test_there_are_hooks() -> None:
    assert sorted(HOOKS) == [
        "siltstone_backends",
        "siltstone_consumers",
        "siltstone_entry_types",
        "siltstone_shard_hosts",
    ]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section(text: str, hook: str) -> None:
    assert section(text, hook).strip()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_a_record_is_named_in_its_section(text: str, record: type) -> None:
    fields = {field.name for field in dataclasses.fields(record) if not field.name.startswith("_")}
    missing = fields - names_in(section(text, record.__name__))
    assert not missing, f"{record.__name__}: {sorted(missing)}"


def test_every_method_of_an_entry_type_is_named(text: str) -> None:
    assert not set(public(types.EntryType)) - names_in(section(text, "EntryType"))


def test_every_part_of_a_backend_is_named(text: str) -> None:
    wanted = set(public(Backend)) | set(inspect.get_annotations(Backend))
    assert not wanted - names_in(section(text, "Backend"))


def test_every_part_of_a_shard_host_is_named(text: str) -> None:
    wanted = set(public(hosting.ShardHost)) | set(inspect.get_annotations(hosting.ShardHost))
    assert not wanted - names_in(section(text, "ShardHost"))


def test_every_part_of_the_host_is_named(text: str) -> None:
    wanted = set(public(PluginHost)) | set(inspect.get_annotations(PluginHost))
    assert not wanted - names_in(section(text, "PluginHost"))


@pytest.mark.parametrize("suite", [EntryTypeConformance, BackendConformance])
def test_every_conformance_suite_is_named_with_what_a_subclass_sets(text: str, suite: type) -> None:
    settings = {name for kind in suite.__mro__ for name in inspect.get_annotations(kind)}
    settings = {name for name in settings if not name.startswith("_")}
    assert not settings - names_in(section(text, suite.__name__))


# ---- the examples


def run_as_module(source: str, where: str) -> ModuleType:
    module = ModuleType(re.sub(r"\W", "_", where))
    exec(compile(source, where, "exec", dont_inherit=True), vars(module))
    return module


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_in_the_docstring_of_a_hook_runs_and_provides_something(hook: str) -> None:
    docstring = inspect.getdoc(getattr(hookspecs, hook))
    assert docstring
    _, _, example = docstring.partition("Example::\n")
    assert example.strip(), f"{hook} has no example"
    module = run_as_module(textwrap.dedent(example), hook)
    host = PluginHost.load(extra=[module], discover=False)
    [info] = host.distributions
    provided = {
        "siltstone_entry_types": info.entry_types,
        "siltstone_backends": info.backends,
        "siltstone_consumers": info.consumers,
        "siltstone_shard_hosts": host.shard_hosts,
    }
    assert len(provided[hook]) == 1


def test_the_entry_type_in_the_docstring_conforms() -> None:
    docstring = inspect.getdoc(hookspecs.siltstone_entry_types) or ""
    module = run_as_module(textwrap.dedent(docstring.partition("Example::\n")[2]), "docstring")

    class Suite(EntryTypeConformance):
        entry_type = next(module.siltstone_entry_types())
        examples = (module.Reference(b"0123456789abcdef", 3),)

    for name in public(Suite):
        if name.startswith("test_"):
            getattr(Suite(), name)()
