from typing_extensions import Buffer

JOURNALS_MAX: int
HASH_STORES_MAX: int
HASH_STORE_PARTS_MAX: int
JOURNAL_BYTES_MAX: int
SLOT_BYTES: int

def layout_bytes(segments: int, window_bytes: int) -> int: ...
def forsake(memory: Buffer, segments: int) -> None: ...
