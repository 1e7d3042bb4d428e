"""Every number of the format, with the relations between them asserted when this is imported."""

from __future__ import annotations

from typing import Final

SECTOR_SIZE: Final = 512
CLUSTER_SIZE: Final = 4096

# ---- volume and superblock
SLOT_SIZE: Final = 512 * 1024
SLOT_OFFSETS: Final = (0, SLOT_SIZE)
EXTENTS_OFFSET: Final = 1024 * 1024
SUPERBLOCK_MAGIC: Final = b"SILTSTN1"
SUPERBLOCK_HEADER_SIZE: Final = 32
SUPERBLOCK_PAYLOAD_MAX: Final = 524_256
FORMAT_VERSION: Final = 1
ERASE_BLOCK_MIN: Final = 64 * 1024
ERASE_BLOCK_DEFAULT: Final = 512 * 1024

# ---- entries
ENTRY_HEADER_SIZE: Final = 2
ENTRY_SIZE_MIN: Final = 2
ENTRY_SIZE_MAX: Final = 254
PLAIN_ENTRY_SIZE_MAX: Final = 253
DUMP_SIZE: Final = 16

TYPE_INVALID: Final = 0x00
TYPE_END: Final = 0x01
TYPE_HASH: Final = 0x02
TYPE_SKIP: Final = 0x03
TYPE_DELETE: Final = 0x04
TYPE_ENGINE_LAST: Final = 0x0F
TYPE_PLUGIN_FIRST: Final = 0x10
TYPE_PLUGIN_LAST: Final = 0xEF
TYPE_PRIVATE_FIRST: Final = 0xF0
TYPE_PRIVATE_LAST: Final = 0xFE
TYPE_NONE: Final = 0xFF

# ---- sealed clusters
SEAL_SIZE: Final = 32
BODY_SIZE: Final = CLUSTER_SIZE - SEAL_SIZE
USED_MAX: Final = BODY_SIZE - ENTRY_HEADER_SIZE
SKIP_SIZE: Final = 34
NO_BOUNDARY: Final = 0xFFFF
SLOT_CLUSTERS: Final = 2
UNFLUSHED_CLUSTERS_MAX: Final = 4096

# ---- journals of a store
JOURNAL_SIZE_MAX: Final = 64 * 1024 * 1024
JOURNAL_ERASE_BLOCKS_FIRST: Final = 2

assert CLUSTER_SIZE % SECTOR_SIZE == 0
assert SUPERBLOCK_HEADER_SIZE + SUPERBLOCK_PAYLOAD_MAX == SLOT_SIZE
assert SLOT_OFFSETS[1] + SLOT_SIZE == EXTENTS_OFFSET
assert ERASE_BLOCK_MIN % CLUSTER_SIZE == 0
assert ERASE_BLOCK_DEFAULT >= ERASE_BLOCK_MIN
# The rest of a closed cluster is 34-287 bytes: always one END of 34-254, or one SKIP and such an END.
assert CLUSTER_SIZE - USED_MAX == SKIP_SIZE == SEAL_SIZE + ENTRY_HEADER_SIZE
assert CLUSTER_SIZE - (USED_MAX - ENTRY_SIZE_MAX + 1) <= SKIP_SIZE + ENTRY_SIZE_MAX
# No END is ever due with 256 bytes left in the plain format (hazard 1 of the RFC's code).
assert CLUSTER_SIZE - (CLUSTER_SIZE - PLAIN_ENTRY_SIZE_MAX - ENTRY_HEADER_SIZE) < 256
# 81 entries of the first type a cluster, sealed or not: the seal costs nothing.
assert USED_MAX // 50 == (CLUSTER_SIZE - 2) // 50 == 81
assert JOURNAL_SIZE_MAX % CLUSTER_SIZE == 0
