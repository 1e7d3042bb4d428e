"""What goes to one worker, in one order: batches, which readers find from then on, and questions.

Compiled: every put goes through here. And no interrupt comes in between steps that belong together: it comes only where
a lock, credit or a full pipe is waited for, and in what is called of Python.
"""

import threading

from siltstone.errors import ClosedError, ProtocolError
from siltstone_workers.gathering import messages_of
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError, SilentError
from siltstone_workers.sender import outgoing

from siltstone_workers.answers cimport Answer, Answers
from siltstone_workers.checks cimport count_rows
from siltstone_workers.credit cimport Credit, credit_of
from siltstone_workers.ledger cimport Ledger
from siltstone_workers.outbox cimport Outbox
from siltstone_workers.sender cimport Sender

cdef enum:
    #: batches up to this size wait for others, until there are so many bytes of them
    SMALL_BYTES = 4096
    OUTBOX_BYTES = 32 * 1024

cdef int APPEND = Kind.APPEND
cdef int DELETE = Kind.DELETE
cdef int END = Kind.END


cdef Py_ssize_t credit_of_messages(list messages, Py_ssize_t first) except -1:
    """What messages from the `first` on take of the credit."""
    cdef Py_ssize_t at, credit = 0, size
    for at in range(first, len(messages)):
        size = 0
        for piece in messages[at][1]:
            size += len(piece)
        credit += credit_of(size)
    return credit


cdef class Requests:
    """The way to one worker. Any thread may use it.

    :param sender: of the pipe that it reads
    :param answers: where its answers arrive
    :param ledgers: of its shards, by their numbers
    :param deadline: how long it may deal with nothing [seconds]
    :param kill: ends it, for a reason
    :param unknown: the error of what was asked of a worker that ended

    `sent` counts appends and deletes, before anything can be seen of them. `cause` is why nothing can be sent any more,
    or None.
    """

    def __init__(self, Sender sender not None, Answers answers not None, dict ledgers not None, double deadline,
                 kill, unknown):
        self.sender = sender
        self.answers = answers
        self.ledgers = ledgers
        self.deadline = deadline
        self.kill = kill
        self.unknown = unknown
        self.credit = Credit(sender.window)
        self.order = threading.Lock()
        self.outbox = Outbox()

    # ---- asking

    def ask(self, kind, *items, bulk=None):
        """Send a request, behind everything that was put before; its answer, which somebody is to wait for."""
        cdef Answer answer
        with self.order:
            self.check_open()
            answer = self.answers.expect()
            self.post([outgoing([kind, answer.request, *items], bulk)], False)
            self.is_ending = kind == END
        return answer

    def delete(self, shard, kind, keys):
        """Send (n, size) keys to be deleted, behind everything that was put before; its answer."""
        cdef Answer answer
        with self.order:
            self.check_open()
            answer = self.answers.expect()
            rows = keys.reshape(-1).data
            self.sent += 1
            self.post([([DELETE, answer.request, shard, kind, keys.shape[1]], (rows,))], True)
        return answer

    def append(self, batches):
        """Put batches of different shards; for each None where it surely fits and nobody needs to wait, or its answer.

        A small one waits here for others while the worker has not told that it dealt with the one before, until
        somebody asks for something or there is enough for a message that is worth it; readers find it all the same.
        An error leaves those counted, and found, that wait to be sent.
        """
        cdef Ledger ledger
        cdef list sure, answers, leaving = []
        with self.order:
            self.check_open()
            sure = [self.fits(ledger, stream, records) for ledger, stream, records in batches]
            answers = [None if fits else self.answers.expect() for fits in sure]
            self.sent += len(answers)
            try:
                for batch, answer in zip(batches, answers):
                    ledger, stream, records = batch
                    if answer is None and self.is_unheard and len(stream) <= SMALL_BYTES:
                        self.keep(ledger, stream, records)
                        continue
                    sequence = ledger.next_sequence()
                    leaving.append((sequence, batch, answer))
                    ledger.send(sequence, stream, records, answer is None)
                if leaving or self.outbox.bytes >= OUTBOX_BYTES:
                    self.post(messages_of(leaving), True)
            except BaseException:
                for sequence, batch, _answer in leaving:
                    (<Ledger>batch[0]).cancel(sequence)
                raise
        return answers

    cdef bint fits(self, Ledger ledger, stream, records) except -1:
        return ledger.surely_fits(len(stream), records)

    def append_one(self, batch):
        """As :meth:`append` for one batch."""
        return self.append([batch])[0]

    cpdef bint try_append(self, Ledger ledger, stream, unsigned long long records) except -1:
        """Put a small batch, if that surely fits and neither the worker nor another thread is waited for."""
        cdef Py_ssize_t size = len(stream)
        if size > SMALL_BYTES or not self.order.acquire(False):
            return False
        try:
            self.check_open()
            if self.credit.left < self.outbox.needed() + credit_of(size):
                return False
            if not ledger.surely_fits(size, records):
                return False
            self.sent += 1
            if self.is_unheard:
                self.keep(ledger, stream, records)
                if self.outbox.bytes >= OUTBOX_BYTES:
                    self.post([], True)
            else:
                self.send_small(ledger, stream, records, size)
            return True
        finally:
            self.order.release()

    cdef int send_small(self, Ledger ledger, stream, unsigned long long records, Py_ssize_t size) except -1:
        """Send a batch that surely fits, alone."""
        sequence = ledger.next_sequence()
        try:
            ledger.send(sequence, stream, records, True)
            self.post([([APPEND, 0, ((ledger.shard, sequence, records, size),)], (stream.data,))], True)
        except BaseException:
            ledger.cancel(sequence)
            raise
        return 0

    cdef int keep(self, Ledger ledger, stream, unsigned long long records) except -1:
        """Let a small batch wait in the outbox, from where it will be sent whatever becomes of others."""
        sequence = ledger.next_sequence()
        try:
            ledger.send(sequence, stream, records, True)
            self.outbox.add(ledger.shard, sequence, stream, records)
        except BaseException:
            ledger.cancel(sequence)
            raise
        return 0

    cpdef int check_open(self) except -1:
        """ClosedError once the worker was told to end its shards: nothing may come behind that.

        OutcomeUnknownError once it was killed or has ended: a batch that waits here for others would never be sent.
        """
        if self.is_ending:
            raise ClosedError("the store is closed", what="store")
        if self.cause is not None:
            self.kill(self.cause)  # an interrupt may have kept the signal from it
            raise self.unknown()
        return 0

    cdef int post(self, list last, bint are_counted) except -1:
        """Send what waits in the outbox and these messages, once the worker has room for those that are counted.

        An error, or an interrupt, leaves in the outbox what was not sent of it.
        """
        cdef Py_ssize_t of_waiting = self.outbox.needed()
        cdef list messages = [*self.outbox.messages(), *last] if of_waiting else last
        cdef Py_ssize_t credit = of_waiting + (credit_of_messages(last, 0) if are_counted else 0)
        cdef unsigned long long before = self.sender.sent
        cdef Py_ssize_t sent
        if credit:
            if not self.credit.take(credit, self.deadline):
                self.kill(f"it dealt with nothing within {self.deadline:g} s")
                raise self.unknown()
            self.is_unheard = True
        try:
            self.send(messages, self.sender)
        except BaseException:
            # What is in the pipe must not be sent again, and is what the worker will give credit back for.
            sent = self.sender.sent - before
            if of_waiting and sent:
                self.outbox.forget()
            self.credit.give(credit_of_messages(messages if are_counted else messages[:len(messages) - len(last)], sent))
            raise
        if of_waiting:
            self.outbox.forget()
        return 0

    cpdef int send(self, list messages, Sender pipe) except -1:
        """Send messages in one go; a worker that cannot be sent to any more is ended."""
        try:
            pipe.send_all(messages)
        except SilentError as error:
            self.kill(f"it took nothing from its pipe: {error}")
            raise self.unknown() from error
        except (ChannelClosedError, OSError) as error:
            # Also where an interrupt tore a message: nothing can be sent to this process any more.
            self.kill("its pipe is closed, or a message to it was not sent whole")
            raise self.unknown() from error
        return 0

    # ---- hearing

    cpdef int hear(self, number, shards) except -1:
        """Take over what the worker says of its progress, the last two items of a message; ProtocolError where that is
        malformed, or a shard is not its own."""
        cdef Ledger ledger
        for shard, sequence, room, records in count_rows("progress", shards, 4):
            ledger = self.ledgers.get(shard)
            if ledger is None:
                raise ProtocolError(f"shard {shard} is another worker's", rule="own shards", value=shard)
            ledger.progress(number, sequence, room, records)
        self.is_unheard = False
        return 0

    # ---- ending

    def end(self, str cause not None):
        """Send nothing any more, for this reason unless there was another before; who waits for credit waits no longer."""
        if self.cause is None:
            self.cause = cause
        self.credit.end()

    def count_sent(self):
        """How many appends and deletes were sent; final once nothing is sent any more."""
        # An append under way is counted before this returns, and each later one is refused.
        with self.order:
            return self.sent
