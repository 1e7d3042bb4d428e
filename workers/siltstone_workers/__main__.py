"""``python -m siltstone_workers REQUESTS REPLIES EVENTS ANSWERS PARENT``: a worker, with the pipes of its core."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
from typing import Final

from siltstone.errors import SiltstoneError
from siltstone_workers.calls import Calls
from siltstone_workers.checks import expect
from siltstone_workers.config import WorkerConfig
from siltstone_workers.errors import ProtocolError, error_to_wire
from siltstone_workers.inbox import Inbox
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import PROTOCOL_VERSION
from siltstone_workers.pipes import ChannelClosedError, Message
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender
from siltstone_workers.worker import Worker

_PR_SET_PDEATHSIG: Final = 1
#: the core is gone, or says that it is enough
_OVER: Final = 0
_FAILED: Final = 1
_USAGE: Final = 2
#: how long a thread keeps others of this process from their turn in Python [seconds]
SWITCH_SECONDS: Final = 0.0005


def die_with(parent: int) -> None:
    """Have the kernel end this process when the core ends, also where it could not notice: stuck, or stopped."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before.
    if os.getppid() != parent:
        os._exit(_OVER)


def greet(message: Message | None) -> WorkerConfig:
    """The configuration in the core's greeting; ProtocolError where it speaks another version."""
    if message is None or message.fields[0] != Kind.HELLO:
        raise ProtocolError("a core greets first", rule="order of messages", value=None)
    (version,) = expect(message.fields, int)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the core speaks version {version} of the protocol, this worker {PROTOCOL_VERSION}",
            rule="version",
            value=version,
        )
    return WorkerConfig.from_bulk(message.bulk)


def run(requests: Receiver, replies: Receiver, events: Sender, answers: Sender) -> int:
    """Be a worker until the core has had enough or is gone; the exit code."""
    try:
        config = greet(requests.receive())
        sys.path[:] = config.path
        os.nice(config.niceness)
        if config.affinity is not None:
            os.sched_setaffinity(0, config.affinity)
        calls = Calls(replies, events)
        worker = Worker(config, Inbox(requests), calls, events, answers, requests.window)
        events.send([Kind.READY, PROTOCOL_VERSION, os.getpid(), None])
        # What is there now stays for the life of the process: no collection need look at it.
        gc.freeze()
        # Housekeeping must not keep the thread that puts from its turn for as long as it keeps any other.
        sys.setswitchinterval(SWITCH_SECONDS)
        worker.run()
    except ChannelClosedError:
        return _OVER
    except (SiltstoneError, OSError) as error:
        return tell(events, error)
    except Exception as error:
        logging.getLogger(__name__).exception("worker")
        return tell(events, error)
    return _OVER


def tell(events: Sender, error: BaseException) -> int:
    """Say why this worker ends, to whoever still listens."""
    try:
        events.send([Kind.READY, PROTOCOL_VERSION, os.getpid(), error_to_wire(error)])
    except (ChannelClosedError, OSError, ValueError):
        return _OVER
    except MemoryError:
        pass  # not even for that; its end says enough
    return _FAILED


def main(arguments: list[str]) -> int:
    """Check what is there, and be a worker."""
    try:
        requests, replies, events, answers, parent = map(int, arguments)
        for pipe in (requests, replies, events, answers):
            os.fstat(pipe)
    except (ValueError, OSError):
        sys.stderr.write(
            "siltstone_workers: a worker is started by a core, with its pipes; see `siltstone --help`\n"
        )
        return _USAGE
    logging.basicConfig(format="siltstone worker %(process)d: %(levelname)s: %(message)s")
    die_with(parent)
    return run(Receiver(requests), Receiver(replies), Sender(events), Sender(answers))


if __name__ == "__main__":
    # Without the interpreter's end: threads may hang in the medium, and there is nothing to tidy.
    code = main(sys.argv[1:])
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(code)
