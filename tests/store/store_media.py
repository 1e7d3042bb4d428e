"""The media that a store can lie on, made for a test and taken apart again."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from real_media import loop_over, mounted, need_root

from siltstone.core.media import new_volume, open_backend
from siltstone.core.options import StoreOptions
from siltstone.plugin import BackendOptions
from siltstone.shard import rolling
from siltstone.shard.group import ShardGroup
from siltstone.store import Store
from siltstone.volume.ports import Ports
from siltstone_plugins.memory import forget, open_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone.plugin.host import PluginHost

MIB = 1 << 20
#: bytes of a device
DEVICE_SIZE = 64 * MIB
_ZRAM = Path("/sys/class/zram-control")


@dataclass(frozen=True)
class Medium:
    """One medium: how it is named, and the options that it is opened with."""

    target: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_device(self) -> bool:
        """Whether it is there before a store is."""
        return self.target.startswith("/dev/")

    def contents(self) -> bytes:
        """All of its bytes, past the cache of a device."""
        if self.target.startswith("memory:"):
            backend = open_memory(self.target.partition(":")[2], BackendOptions(read_only=True))
            with backend:
                return bytes(backend.read(0, backend.size))
        return Path(self.target).read_bytes()


@contextlib.contextmanager
def medium(kind: str, folder: Path) -> Iterator[Medium]:
    """The medium of this kind, empty; or a skipped test where there is none."""
    with contextlib.ExitStack() as stack:
        if kind == "file":
            yield Medium(str(folder / "store.silt"))
        elif kind == "tmpfs":
            point = stack.enter_context(mounted("tmpfs", folder / "tmpfs", "-t", "tmpfs", "-o", "size=256m"))
            yield Medium(str(point / "store.silt"))
        elif kind == "memory":
            stack.callback(forget, "test")
            yield Medium("memory:test")
        elif kind == "zram":
            yield Medium(stack.enter_context(zram_device()), {"discard": "keep"})
        else:
            _loop, sector, cache = kind.split("-")
            image = folder / "image"
            with image.open("xb") as file:
                file.truncate(DEVICE_SIZE)
            device = stack.enter_context(loop_over(image, sector=int(sector)))
            yield Medium(device, {"discard": "keep", "direct": cache == "direct"})


DEVICES = ["loop-512-direct", "loop-512-buffered", "loop-4096-direct", "loop-4096-buffered", "zram"]
KINDS = ["file", "tmpfs", *DEVICES, "memory"]


def kinds(*names: str) -> pytest.MarkDecorator:
    """Run a test on media of these kinds, marked where they need root."""
    return pytest.mark.parametrize(
        "kind",
        [pytest.param(name, marks=[] if name in ("file", "memory") else pytest.mark.root) for name in names],
    )


@contextlib.contextmanager
def zram_device() -> Iterator[str]:
    """A zram device of its own."""
    need_root()
    if not (_ZRAM / "hot_add").exists():
        pytest.skip("the kernel has no zram")
    number = (_ZRAM / "hot_add").read_text().strip()
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(str(DEVICE_SIZE))
        yield f"/dev/zram{number}"
    finally:
        # An error that was caught may still keep a store, and with it the maps of its journals.
        gc.collect()
        _tell(Path(f"/sys/block/zram{number}/reset"), "1")
        _tell(_ZRAM / "hot_remove", number)


def _tell(control: Path, text: str) -> None:
    # Busy while somebody looks at the device.
    deadline = time.monotonic() + 10
    while True:
        try:
            control.write_text(text)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


# ---- stores whose every byte is determined


def settled_options(on: Medium, host: PluginHost, **options: Any) -> StoreOptions:
    """Options without chance or time in them."""
    return StoreOptions(
        target=on.target,
        workers=0,
        backend_options=on.options,
        erase_block=64 * 1024,
        plugins=host,
        ports=Ports(
            clock=lambda: 0.0, wall_time=lambda: 1_600_000_000.0, random_bytes=random.Random(5).randbytes
        ),
        **options,
    )


def create_settled(on: Medium, host: PluginHost, **options: Any) -> None:
    """Format a medium as siltstone.create does."""
    chosen = settled_options(on, host, **options)
    with open_backend(host, chosen, create=True) as backend:
        new_volume(backend, host, chosen).close()


def open_settled(on: Medium, host: PluginHost, **options: Any) -> Store:
    """A store whose housekeeping is done when it is told, by `store._core.shards.group.tick()`."""
    # Its own thread looks at once what is due, and would do some of it before it is ended.
    with patch.object(ShardGroup, "tick", lambda _group: None):
        store = Store(settled_options(on, host, **options))
        if not store.read_only:
            store._core.shards.end_housekeeping()
    return store


def freeze(store: Store) -> None:
    """Close the active journals of a settled store, so that they can be packed and incarnated."""
    group = store._core.shards.group
    for shard in group.shards.values():
        with group._flush_lock:
            rolling.freeze(shard)


def incarnate(store: Store) -> bool:
    """Make a hash store of what shard 0 of a settled store has in its journals."""
    freeze(store)
    group = store._core.shards.group
    return bool(group.upkeep.incarnate(group.shards[0]))
