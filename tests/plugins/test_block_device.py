"""The backend for raw devices: what is refused, with not a byte of it changed, and what may be forced."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest
import xxhash
from real_media import MIB, child, digest, loop_over, mounted, program, run

from siltstone.errors import AlreadyExistsError, ConfigError, LockedError, NotFoundError, RefusedDeviceError
from siltstone.plugin import BackendOptions
from siltstone_plugins import block_device
from siltstone_plugins._options import FORCEABLE
from siltstone_plugins.block_device import open_device

pytestmark = pytest.mark.root


def open_for(device, *, create=True, force=(), **options):
    return open_device(device, BackendOptions(create=create, force=frozenset(force), **options))


def put(device, offset, data):
    with Path(device).open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)
        os.fsync(file.fileno())


def slot(payload=b"\x80", *, valid=True, sequence=7):
    """A superblock slot as format.md has it."""
    start = struct.pack(">8sIIQ", b"SILTSTN1", 1, len(payload), sequence)
    checksum = xxhash.xxh3_64_intdigest(start + payload) ^ (not valid)
    return start + struct.pack(">Q", checksum) + payload


def refused(device, reason, **options):
    """Assert that `reason` refuses a device, with nothing forced and all else forced, and changes nothing."""
    before = digest(device)
    others = frozenset(FORCEABLE) - {reason}
    for force in ((), others):
        with pytest.raises(RefusedDeviceError) as caught:
            open_for(device, force=force, **options)
        assert caught.value.reason == reason
        assert caught.value.url == device
        assert device in str(caught.value)
    assert digest(device) == before


def forced(device, reason):
    """Assert that naming `reason` opens a device that is refused, and that opening alone changes nothing."""
    before = digest(device)
    with open_for(device, force={reason}) as backend:
        backend.lock()
        assert len(backend.read(0, 4096)) == 4096
    assert digest(device) == before


@pytest.fixture(params=[True, False], ids=["blkid", "no-blkid"])
def with_and_without_blkid(request, monkeypatch):
    if request.param:
        program("blkid")
    else:
        monkeypatch.setattr("siltstone_plugins._device_checks.probe", lambda path: None)


# ---- contents


def make_gpt(device):
    run("sgdisk", "--new=1:2048:4095", device)


def make_backup_gpt_only(device):
    make_gpt(device)
    put(device, 0, bytes(MIB))


MBR = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]) + bytes(48) + b"\x55\xaa"

#: what makes a device foreign: the reason that refuses it, its size [MiB], how to make it so
MAKERS = {
    "ext4": ("signature", 16, lambda device: run("mkfs.ext4", "-q", device)),
    "xfs": ("signature", 320, lambda device: run("mkfs.xfs", "-q", device)),
    "swap": ("signature", 8, lambda device: run("mkswap", device)),
    "LUKS": ("signature", 8, lambda device: put(device, 0, b"LUKS\xba\xbe\x00\x02" + bytes(500))),
    "LVM2": ("signature", 8, lambda device: put(device, 512, b"LABELONE" + bytes(16) + b"LVM2 001")),
    "md at the end": ("signature", 8, lambda device: put(device, 8 * MIB - 8192, b"\xfc\x4e\x2b\xa9\x01")),
    "GPT": ("partitioned", 8, make_gpt),
    "backup GPT": ("partitioned", 8, make_backup_gpt_only),
    "MBR": ("partitioned", 8, lambda device: put(device, 446, MBR)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.usefixtures("with_and_without_blkid")
def test_foreign_contents_are_refused_unless_forced_by_name(make_loop, kind):
    reason, size, make = MAKERS[kind]
    device = make_loop(size * MIB)
    make(device)
    refused(device, reason)
    forced(device, reason)


def test_foreign_contents_are_refused_without_create_too(make_loop):
    device = make_loop(16 * MIB)
    run("mkfs.ext4", "-q", device)
    refused(device, "signature", exclusive=False)
    before = digest(device)
    with pytest.raises(RefusedDeviceError):
        open_for(device, create=False)
    with open_for(device, create=False, read_only=True) as backend:
        backend.lock()
        assert backend.read(1024, 512)[56:58] == b"\x53\xef"
    assert digest(device) == before


def test_unknown_contents_are_refused_where_a_volume_would_be_made(make_loop):
    device = make_loop()
    put(device, 300_000, b"who knows")
    refused(device, "data")
    forced(device, "data")
    # Whether it holds a volume is for the engine to find out, and it writes none unless asked to.
    with open_for(device, create=False) as backend:
        backend.lock()


@pytest.mark.parametrize("blank", [b"\x00", b"\xff"])
@pytest.mark.usefixtures("with_and_without_blkid")
def test_a_blank_device_is_taken(make_loop, blank):
    device = make_loop()
    put(device, 0, blank * 8 * MIB)
    with open_for(device, exclusive=True) as backend:
        backend.lock()
        backend.publish()
        assert backend.size == 8 * MIB


# ---- contents of ours


@pytest.mark.usefixtures("with_and_without_blkid")
def test_a_volume_of_ours_is_opened(make_loop):
    device = make_loop()
    for a, b in ((slot(), slot()), (slot(), bytes(33)), (bytes(33), slot()), (slot(valid=False), slot())):
        put(device, 0, a)
        put(device, 512 * 1024, b)
        with open_for(device, create=False) as backend:
            backend.lock()
        with open_for(device) as backend:
            backend.lock()
        before = digest(device)
        with pytest.raises(AlreadyExistsError):
            open_for(device, exclusive=True)
        assert digest(device) == before


def test_bytes_of_a_superblock_that_look_foreign_are_ours(make_loop):
    device = make_loop()
    payload = bytearray(8192)
    payload[4096 - 32 : 4096 - 32 + 4] = b"\xfc\x4e\x2b\xa9"
    put(device, 0, slot(bytes(payload)))
    with open_for(device, create=False) as backend:
        backend.lock()
    # The same bytes behind the end of the payload are somebody else's.
    put(device, 0, slot(b"\x80"))
    refused(device, "signature")


def test_an_old_superblock_does_not_hand_over_a_file_system(make_loop):
    device = make_loop(16 * MIB)
    put(device, 512 * 1024, slot())
    run("mkfs.ext4", "-q", device)
    put(device, 512 * 1024, slot())
    refused(device, "signature")


def test_what_is_left_at_the_end_of_a_volume_of_ours_is_not_in_the_way(make_loop):
    device = make_loop()
    make_backup_gpt_only(device)
    put(device, 0, slot())
    with open_for(device, create=False) as backend:
        backend.lock()


# ---- use


def test_a_mounted_device_is_refused_and_cannot_be_forced(make_loop, tmp_path):
    device = make_loop(16 * MIB)
    run("mkfs.ext4", "-q", device)
    with mounted(device, tmp_path / "point", "-o", "ro,noload"):
        refused(device, "mounted")
        before = digest(device)
        with pytest.raises(RefusedDeviceError, match="kernel itself") as caught:
            open_for(device, force=FORCEABLE)
        assert caught.value.reason == "mounted"
        assert str(tmp_path / "point") in str(caught.value)
        assert digest(device) == before


def test_swap_in_use_is_refused_and_cannot_be_forced(make_loop):
    device = make_loop()
    run("mkswap", device)
    run("swapon", device)
    try:
        refused(device, "swap")
        with pytest.raises(RefusedDeviceError, match="kernel itself"):
            open_for(device, force=FORCEABLE)
    finally:
        run("swapoff", device)


def test_partitions_that_the_kernel_knows_are_refused(make_loop):
    device = make_loop()
    run("addpart", device, 1, 2048, 2048)
    try:
        refused(device, "partitioned")
        forced(device, "partitioned")
    finally:
        run("delpart", device, 1)


def test_what_another_driver_holds_is_refused(make_loop, monkeypatch):
    # There is no md or device mapper on every machine: the kernel's list of holders is played.
    device = make_loop()
    monkeypatch.setattr("siltstone_plugins._sysfs.Device.holders", lambda self: ["md0"])
    refused(device, "held")
    with pytest.raises(RefusedDeviceError, match="md0"):
        open_for(device)


@pytest.mark.parametrize("how", ["from the start", "set later"])
def test_a_read_only_device_is_refused_for_writing(tmp_path, how):
    image = tmp_path / "image"
    image.write_bytes(bytes(8 * MIB))
    with loop_over(image, read_only=how == "from the start") as device:
        if how == "set later":
            run("blockdev", "--setro", device)
        try:
            refused(device, "read_only")
            with pytest.raises(RefusedDeviceError):
                open_for(device, force=FORCEABLE)
            with open_for(device, create=False, read_only=True) as backend:
                backend.lock()
                assert backend.read(0, 4096) == bytes(4096)
        finally:
            # A loop device keeps this when it is detached, for whoever gets it next.
            run("blockdev", "--setrw", device)


HOLD = """
import os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_device_that_somebody_else_holds_is_locked(make_loop):
    device = make_loop()
    with child(HOLD, device) as process:
        assert process.stdout.readline() == "held\n", process.stderr.read()
        before = digest(device)
        with pytest.raises(LockedError) as caught:
            open_for(device, force=FORCEABLE)
        assert f"process {process.pid} (" in caught.value.holder
        with open_for(device, read_only=True) as reader, pytest.raises(LockedError) as caught:
            reader.lock()
        assert f"process {process.pid} (" in caught.value.holder
        assert digest(device) == before
        process.kill()
        process.wait()
    with open_for(device) as backend:
        backend.lock()


def test_another_name_of_the_device_is_no_way_around_the_lock(make_loop, tmp_path):
    device = make_loop()
    other = tmp_path / "node"
    os.mknod(other, 0o600 | 0o060000, Path(device).stat().st_rdev)
    with open_for(device) as backend:
        backend.lock()
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            open_for(str(other))
        with open_for(str(other), read_only=True) as reader, pytest.raises(LockedError):
            reader.lock()


# ---- what is no device


def test_what_is_no_block_device_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    for path in (tmp_path, tmp_path / "file", "/dev/null"):
        with pytest.raises(RefusedDeviceError) as caught:
            open_for(str(path))
        assert caught.value.reason == "kind"
        assert not block_device.claims(str(path))
    for path in (str(tmp_path / "absent"), "", "a\0b"):
        with pytest.raises(NotFoundError):
            open_for(path)
        assert not block_device.claims(path)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_device_is_claimed_also_through_a_symlink(make_loop, tmp_path):
    device = make_loop()
    (tmp_path / "link").symlink_to(device)
    assert block_device.claims(device)
    assert block_device.claims(str(tmp_path / "link"))
    with open_for(str(tmp_path / "link")) as backend:
        backend.lock()
    (claim,) = block_device.siltstone_backends()
    assert claim.scheme == "block"


def test_a_device_without_a_medium_is_refused(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"")
    with loop_over(image) as device, pytest.raises(RefusedDeviceError) as caught:
        open_for(device)
    assert caught.value.reason == "empty"


def test_options_are_checked(make_loop):
    device = make_loop()
    for options in (
        {"extra": {"direct": "yes"}},
        {"extra": {"discard": "punch"}},
        {"extra": {"speed": 1}},
        {"force": {"read_only"}},
    ):
        with pytest.raises(ConfigError), contextlib.closing(open_for(device, **options)):
            pass
