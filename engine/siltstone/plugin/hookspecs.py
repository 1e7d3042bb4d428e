"""The hooks that a plugin may implement. Each yields records of :mod:`siltstone.plugin.types`.

A hook is called once, when the plugin is loaded. It reads nothing, starts nothing and returns soon; records
that open something do so when the engine asks them to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siltstone.plugin.hosting import ShardHostType
    from siltstone.plugin.types import BackendType, Consumer, EntryType

__all__ = [
    "PROJECT",
    "hookimpl",
    "siltstone_backends",
    "siltstone_consumers",
    "siltstone_entry_types",
    "siltstone_shard_hosts",
]

#: name of the pluggy project and of the entry-point group
PROJECT: Final = "siltstone"

hookspec = pluggy.HookspecMarker(PROJECT)
#: marks a plugin's functions as implementations of the hooks here
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def siltstone_entry_types() -> Iterable[EntryType]:  # type: ignore[empty-body]
    '''Yield the entry types that this plugin provides.

    Example::

        import struct
        from dataclasses import dataclass

        from siltstone.plugin import EntryType, hookimpl

        @dataclass(frozen=True)
        class Reference:
            """How often a block is referred to."""

            block: bytes
            count: int

        def encode(reference):
            return struct.pack(">16sI", reference.block, reference.count)

        def decode(payload):
            return Reference(*struct.unpack(">16sI", payload))

        @hookimpl
        def siltstone_entry_types():
            yield EntryType(
                id=0x42,
                name="reference",
                version=1,
                record=Reference,
                encode=encode,
                decode=decode,
                fields=(("block", "V16"), ("count", ">u4")),
                key=(0, 16),
            )
    '''


@hookspec
def siltstone_backends() -> Iterable[BackendType]:  # type: ignore[empty-body]
    """Yield the backends that this plugin provides.

    Example::

        from siltstone.errors import NotFoundError
        from siltstone.plugin import BackendType, hookimpl

        def open_tape(rest, options):
            raise NotFoundError(f"tape:{rest}: there is no tape drive", url=f"tape:{rest}")

        @hookimpl
        def siltstone_backends():
            yield BackendType(
                scheme="tape",
                open=open_tape,
                claims=lambda path: path.startswith("/dev/nst"),
                priority=10,
                options={"rewind": "rewind when the volume is closed (true or false)"},
            )
    """


@hookspec
def siltstone_consumers() -> Iterable[Consumer]:  # type: ignore[empty-body]
    """Yield what wants the entries of types without a key when a store is opened.

    Example::

        from siltstone.plugin import Consumer, hookimpl

        counts = {}

        def count(batch):
            name = batch.entry_type.name
            counts[name] = counts.get(name, 0) + len(batch.payloads)

        @hookimpl
        def siltstone_consumers():
            yield Consumer(name="note_counter", entry_types=frozenset({"snapshot_note"}), consume=count)
    """


@hookspec
def siltstone_shard_hosts() -> Iterable[ShardHostType]:  # type: ignore[empty-body]
    """Yield the shard hosts that this plugin provides: who runs the shards of a store, in which processes.

    Example::

        from siltstone.errors import StateError
        from siltstone.plugin import ShardHostType, hookimpl

        def open_on_a_cluster(hosting):
            raise StateError("there is no cluster", what="cluster", state="absent")

        @hookimpl
        def siltstone_shard_hosts():
            yield ShardHostType(name="cluster", open=open_on_a_cluster)
    """
