/* Integers of the format: big-endian, at any address. */
#ifndef SILTSTONE_BIG_ENDIAN_H
#define SILTSTONE_BIG_ENDIAN_H

#include <stdint.h>
#include <string.h>

#define BE(bits)                                                                                                       \
    static inline uint##bits##_t load_be##bits(const uint8_t *at) {                                                    \
        uint##bits##_t word;                                                                                           \
        memcpy(&word, at, sizeof word);                                                                                \
        return from_be##bits(word);                                                                                    \
    }                                                                                                                  \
    static inline void store_be##bits(uint8_t *at, uint##bits##_t word) {                                              \
        word = from_be##bits(word);                                                                                    \
        memcpy(at, &word, sizeof word);                                                                                \
    }
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define from_be16(x) (x)
#define from_be32(x) (x)
#define from_be64(x) (x)
#else
#define from_be16(x) __builtin_bswap16(x)
#define from_be32(x) __builtin_bswap32(x)
#define from_be64(x) __builtin_bswap64(x)
#endif
BE(16) BE(32) BE(64)
#undef BE

#endif
