"""Distributions that a test writes into a directory on sys.path: nothing is built and nothing is installed."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENTRY_TYPE_SOURCE = """
from siltstone.plugin import EntryType, hookimpl

class Record:
    pass

@hookimpl
def siltstone_entry_types():
    yield EntryType(id={id}, name={name!r}, version={version}, record=Record,
                    encode=lambda record: b"", decode=lambda payload: Record())
"""


def entry_type_source(id: int, name: str, version: int = 1) -> str:  # noqa: A002
    """Return the text of a plugin that provides one entry type without a key."""
    return ENTRY_TYPE_SOURCE.format(id=id, name=name, version=version)


class Site:
    """A directory like site-packages, first on sys.path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(path))

    def add(self, name: str, version: str, plugins: Mapping[str, str]) -> None:
        """Write a distribution whose entry points, by name, are modules of these texts."""
        points = []
        for entry_point, source in plugins.items():
            module = f"{name}_{entry_point}_plugin".lower().replace("-", "_").replace(".", "_")
            (self.path / f"{module}.py").write_text(source)
            points.append(f"{entry_point} = {module}")
        self.add_entry_points(name, version, points)

    def add_entry_points(self, name: str, version: str, points: list[str]) -> None:
        """Write a distribution with these lines as its entry points."""
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        self.add_raw(name, version, metadata.encode(), "\n".join(["[siltstone]", *points, ""]).encode())

    def add_raw(self, name: str, version: str, metadata: bytes, entry_points: bytes) -> None:
        """Write a distribution with these bytes as its metadata files."""
        folder = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_bytes(metadata)
        (folder / "entry_points.txt").write_bytes(entry_points)
        importlib.invalidate_caches()

    def remove(self) -> None:
        """Take the directory off sys.path again, and what was imported from it out of sys.modules."""
        sys.path.remove(str(self.path))
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(str(self.path)):
                del sys.modules[name]
        importlib.invalidate_caches()
