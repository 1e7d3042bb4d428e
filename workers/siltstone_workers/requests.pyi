from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from siltstone.errors import OutcomeUnknownError
from siltstone_workers.answers import Answer, Answers
from siltstone_workers.credit import Credit
from siltstone_workers.gathering import Batch
from siltstone_workers.kinds import Kind
from siltstone_workers.ledger import Ledger
from siltstone_workers.outbox import Outbox
from siltstone_workers.sender import Outgoing, Sender

class Requests:
    sender: Sender
    ledgers: Mapping[int, Ledger]
    credit: Credit
    sent: int
    outbox: Outbox
    cause: str | None
    def __init__(
        self,
        sender: Sender,
        answers: Answers,
        ledgers: dict[int, Ledger],
        deadline: float,
        kill: Callable[[str], None],
        unknown: Callable[[], OutcomeUnknownError],
    ) -> None: ...
    def ask(self, kind: Kind, *items: Any, bulk: Buffer | None = None) -> Answer: ...
    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> Answer: ...
    def append(self, batches: Sequence[Batch]) -> list[Answer | None]: ...
    def append_one(self, batch: Batch) -> Answer | None: ...
    def try_append(self, ledger: Ledger, stream: NDArray[np.uint8], records: int) -> bool: ...
    def check_open(self) -> None: ...
    def send(self, messages: list[Outgoing], pipe: Sender) -> None: ...
    def hear(self, number: int, shards: object) -> None: ...
    def end(self, cause: str) -> None: ...
    def count_sent(self) -> int: ...
