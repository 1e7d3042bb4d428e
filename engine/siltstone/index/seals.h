/* Which clusters of a journal have been found whole since this process mapped it, and how one is found so.
 *
 * What lies on a medium is verified before it is believed. A replay reads and verifies every cluster; where there
 * was none, or it was in another process, the first lookup that needs a cluster does it instead.
 */
#ifndef SILTSTONE_SEALS_H
#define SILTSTONE_SEALS_H

#include <stdint.h>
#include <string.h>

#include "format/xxh3.h"

#define SEALED_CLUSTERS_MAX 16384 /* of the largest extent that an index can name: 64 MiB */
#define SEAL_INDEX_AT 4068
#define SEAL_CHECKSUM_AT 4088

typedef struct {
    uint8_t secret[XXH3_SECRET_SIZE];            /* of one life of one journal */
    uint64_t whole[SEALED_CLUSTERS_MAX / 64];    /* a bit a cluster of the extent, its slots included */
} Seals;

static inline void seals_start(Seals *seals, uint64_t seed) {
    memset(seals, 0, sizeof *seals);
    xxh3_secret_of(seed, seals->secret);
}

static inline int seals_known(const Seals *seals, uint64_t cluster) {
    return __atomic_load_n(&seals->whole[cluster / 64], __ATOMIC_RELAXED) >> (cluster % 64) & 1;
}

/* Whether the 4096 bytes at `base` are log cluster `index` of the life whose secret this is, as it was sealed. */
static inline int seals_hold(const Seals *seals, const uint8_t *base, uint32_t index) {
    uint32_t said;
    uint64_t sum;
    memcpy(&said, base + SEAL_INDEX_AT, 4);
    memcpy(&sum, base + SEAL_CHECKSUM_AT, 8);
#if __BYTE_ORDER__ != __ORDER_BIG_ENDIAN__
    said = __builtin_bswap32(said);
    sum = __builtin_bswap64(sum);
#endif
    return said == index && sum == xxh3_long(base, SEAL_CHECKSUM_AT, seals->secret);
}

/* Verify cluster `cluster` of the extent that starts at `base`, and remember it where it is whole. */
static int seals_check(Seals *seals, const uint8_t *base, uint64_t cluster, uint32_t index) {
    if (!seals_hold(seals, base + cluster * 4096, index))
        return 0;
    /* Several readers set bits of one word at once. */
    __atomic_fetch_or(&seals->whole[cluster / 64], (uint64_t)1 << (cluster % 64), __ATOMIC_RELAXED);
    return 1;
}

#endif
