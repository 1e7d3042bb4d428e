"""Lets readers in other processes look into the indexes of a store that is open here: hands them its shared memory.

Over an abstract unix socket, which has no name in any file system and is gone with its process. A reader gets a
description of the workers and the descriptors of their memory, opened for reading only; and again whenever one of
them is replaced. It keeps the connection: its end tells either side that the other is gone.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from siltstone.errors import SiltstoneError, WorkerError
from siltstone.threads import start_thread
from siltstone.volume.descriptors import above_standard
from siltstone_workers.frames import pack_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from siltstone_workers.keeper import Keeper
    from siltstone_workers.memory import WorkerMemory

_log = logging.getLogger(__name__)
#: what both sides must have in common
SHARING_VERSION: Final = 1
#: a description with its descriptors is one packet of at most so many bytes, and so many descriptors
PACKET_MAX: Final = 128 * 1024
DESCRIPTORS_MAX: Final = 250
#: readers at a time; one more is told that there are too many
READERS_MAX: Final = 64
#: how long nobody is let in after that failed: whoever waits stays there, and would be tried again at once [seconds]
_REST_SECONDS: Final = 0.5
_CREDENTIALS: Final = struct.Struct("3i")
#: held while a reader is let in, and by whoever forks: no child gets a connection that is in no set yet
_forking: Final = threading.Lock()
_all: Final[WeakSet[Sharing]] = WeakSet()


def address(uuid: bytes) -> str:
    """Where the readers of a volume find whoever has it open."""
    return f"\0siltstone-{uuid.hex()}"


def _listening_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    return socket.socket(fileno=above_standard(made.detach()))


def peer_user(connection: socket.socket) -> int:
    """Whose process is at the other end, as the kernel has it."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, user, _group = _CREDENTIALS.unpack(found)
    return int(user)


def describe(
    keepers: Sequence[Keeper], is_served: Callable[[int], bool], medium: str | None
) -> tuple[dict[str, Any], list[WorkerMemory]]:
    """What readers in other processes are told, and the memory that they get, kept from being closed meanwhile."""
    serving = [keeper for keeper in keepers if is_served(keeper.shards[0])]
    workers = [
        {
            "number": keeper.number,
            "pid": None if keeper.process is None else keeper.process.pid,
            "state": keeper.state.value,
            "restarts": keeper.restarts,
            "last_error": keeper.last_error,
            "serves": keeper in serving,
            **keeper.place.describe(),
        }
        for keeper in keepers
    ]
    memories = [keeper.place.shared() for keeper in serving]
    return {"version": SHARING_VERSION, "medium": medium, "workers": workers}, memories


class Sharing:
    """Serves readers from a thread of its own; none of them can make it wait.

    :param uuid: of the volume
    :param describe: gives the description and the workers that serve now, at one moment
    """

    def __init__(
        self, uuid: bytes, describe: Callable[[], tuple[dict[str, Any], list[WorkerMemory]]]
    ) -> None:
        self._describe = describe
        try:
            self._listening = _listening_socket()
            try:
                ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            except BaseException:
                self._listening.close()
                raise
        except OSError as error:
            raise WorkerError(f"readers cannot be let in: {error.strerror}", cause=str(error)) from error
        self._wake_reading: int = above_standard(ends[0])
        self._wake_writing: int | None = above_standard(ends[1])
        #: held while something is written to the pipe that wakes the thread, and while that is closed
        self._waking = threading.Lock()
        self._readers: set[socket.socket] = set()
        self._rests_until = 0.0
        self._over = False
        # Before the socket has a name: a child that is forked from here on gives it up.
        _all.add(self)
        try:
            self._listening.bind(address(uuid))
            self._listening.listen(READERS_MAX)
        except OSError as error:
            # Taken: a stranger of this name, or a core that is just ending. The store itself needs no readers.
            self._listening.close()
            _log.warning(
                "volume %s: other processes cannot read it while it is open here: %s",
                uuid.hex(),
                error.strerror,
            )
        self._thread = threading.Thread(target=self._serve, name="siltstone-readers", daemon=True)
        try:
            start_thread(self._thread)
        except SiltstoneError:
            self._let_go()
            self._end_waking()
            raise

    def changed(self) -> None:
        """Tell all readers what is true now; nobody any more once it is closed."""
        with self._waking, suppress(BlockingIOError):
            if self._wake_writing is not None:
                os.write(self._wake_writing, b"\0")

    def close(self) -> None:
        """Let go of all readers, and end."""
        self._over = True
        self.changed()
        self._thread.join()

    def _end_waking(self) -> None:
        """Close the pipe that wakes the thread, which ends: whoever else has something to tell tells nobody."""
        with self._waking:
            reading, writing = self._wake_reading, self._wake_writing
            self._wake_writing = None
            if writing is not None:
                os.close(reading)
                os.close(writing)

    def leave_to_parent(self) -> None:
        """Give up name and connections in a forked child: they would outlive the parent, and nobody answers here."""
        self._listening.close()
        for reader in self._readers:
            reader.close()

    # ---- the thread

    def _serve(self) -> None:
        try:
            with selectors.PollSelector() as selector:
                selector.register(self._wake_reading, selectors.EVENT_READ)
                self._listen(selector)
                while not self._over:
                    left = self._rests_until - time.monotonic()
                    if left <= 0:
                        self._listen(selector)
                    for key, _events in selector.select(left if left > 0 else None):
                        self._handle(key.fileobj, selector)
        finally:
            # Here and not by whoever closes: an interrupt may keep that one from waiting for the end.
            self._end_waking()
            self._let_go()

    def _let_go(self) -> None:
        for reader in self._readers:
            reader.close()
        self._listening.close()

    def _listen(self, selector: selectors.BaseSelector) -> None:
        """Let readers in from here on."""
        if self._listening.fileno() >= 0 and self._listening not in selector.get_map():
            selector.register(self._listening, selectors.EVENT_READ)

    def _rest(self, selector: selectors.BaseSelector) -> None:
        """Let nobody in for a while; those who were let in are told what changes all the same."""
        selector.unregister(self._listening)
        self._rests_until = time.monotonic() + _REST_SECONDS

    def _handle(self, ready: object, selector: selectors.BaseSelector) -> None:
        """Do what is due where something can be read."""
        try:
            if ready == self._wake_reading:
                with suppress(BlockingIOError):
                    os.read(self._wake_reading, 4096)
                for reader in list(self._readers):
                    self._tell(reader, selector)
            elif ready is self._listening:
                self._accept(selector)
            else:
                self._drop(ready, selector)  # type: ignore[arg-type] # readers say nothing
        except Exception:  # noqa: BLE001 - logged, and whoever waits comes again
            # A bug, or no memory: the others are served on, and whoever comes next perhaps.
            _log.exception("a reader was not served")
            if ready is self._listening:
                self._rest(selector)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            with _forking:
                reader, _address = self._listening.accept()
                self._readers.add(reader)
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError as error:
            if not self._rests_until:
                # Once, however often it is tried again.
                _log.warning("a reader cannot be let in: %s", error.strerror)
            self._rest(selector)
            return
        self._rests_until = 0.0
        selector.register(reader, selectors.EVENT_READ)
        try:
            self._greet(reader, selector)
        except BaseException:
            self._drop(reader, selector)
            raise

    def _greet(self, reader: socket.socket, selector: selectors.BaseSelector) -> None:
        """Tell a reader what is true now, or why it is not let in."""
        reader.setblocking(False)
        user = peer_user(reader)
        if user not in (os.geteuid(), 0) or len(self._readers) > READERS_MAX:
            why = "too many readers" if user in (os.geteuid(), 0) else "another user's"
            with suppress(OSError):
                reader.send(pack_value({"version": SHARING_VERSION, "refused": why}))
            self._drop(reader, selector)
            return
        self._tell(reader, selector)

    def _tell(self, reader: socket.socket, selector: selectors.BaseSelector) -> None:
        opened: list[int] = []
        try:
            description, memories = self._describe()
            for descriptor in (each for memory in memories for each in (memory.index, memory.mirrors)):
                # Anew, for reading only: what is handed out cannot be written through. One at a time, so that those
                # before are closed where one fails.
                opened += [os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)]
            socket.send_fds(reader, [pack_value(description)], opened)
        except OSError:
            # Gone, or it does not listen: it may come again.
            self._drop(reader, selector)
        except BaseException:
            # It would go on with what is no longer true.
            self._drop(reader, selector)
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _drop(self, reader: socket.socket, selector: selectors.BaseSelector) -> None:
        if reader in self._readers:
            selector.unregister(reader)
            reader.close()
            # Last: a child that is forked before this closes it too.
            self._readers.discard(reader)


def _after_fork_in_child() -> None:
    _forking.release()
    for sharing in list(_all):
        sharing.leave_to_parent()


os.register_at_fork(
    before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_after_fork_in_child
)
