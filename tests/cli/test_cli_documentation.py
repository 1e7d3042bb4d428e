"""docs/cli.md leaves no command, option, JSON key or exit status out."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from siltstone.cli import exits
from siltstone.cli.application import siltstone
from siltstone.cli.report import Report

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text()


def commands(group: click.Group, path: str = "siltstone") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{path} {name}")
        else:
            found.append((f"{path} {name}", command))
    return found


COMMANDS = commands(siltstone)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_has_a_section_that_names_its_options(path: str, command: click.Command) -> None:
    section = re.search(rf"^## {path}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, f"no section on {path}"
    documented = set(re.findall(r"--[a-z][a-z-]*", section[1]))
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    assert documented == options
    assert command.help


def test_every_key_of_the_report_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    report = Report(chunking="fixed", block_size=4096, hash="sha256", store=None)
    assert set(report.as_dict()) <= documented


def test_every_exit_status_is_documented() -> None:
    table = re.search(r"\| exit status \| meaning \|\n(.*?)\n\n", PAGE, re.DOTALL)
    assert table
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", table[1], re.MULTILINE)}
    assert documented == {getattr(exits, name) for name in exits.__all__}
