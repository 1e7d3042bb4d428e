from collections.abc import Sequence
from typing import Any

from typing_extensions import Buffer

from siltstone_workers.frames import Bytes

def encode_frame(message: Sequence[Any], bulk: Buffer | None = None) -> list[Bytes]: ...
