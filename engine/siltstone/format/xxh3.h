/* XXH3-64 of long inputs (more than 240 bytes), from its public specification.
 *
 * The Python package xxhash serves everything that runs once per superblock or journal; the loops that check
 * hundreds of thousands of clusters a second without the interpreter lock cannot call it, so this stands here.
 * The tests compare the two.
 */
#ifndef SILTSTONE_XXH3_H
#define SILTSTONE_XXH3_H

#include <stdint.h>
#include <string.h>

#define XXH3_SECRET_SIZE 192
#define XXH3_STRIPE 64
#define XXH3_STRIPES_PER_BLOCK ((XXH3_SECRET_SIZE - XXH3_STRIPE) / 8)

static const uint64_t PRIME32_1 = 0x9E3779B1u, PRIME32_2 = 0x85EBCA77u, PRIME32_3 = 0xC2B2AE3Du;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87u, PRIME64_2 = 0xC2B2AE3D27D4EB4Fu,
                      PRIME64_3 = 0x165667B19E3779F9u, PRIME64_4 = 0x85EBCA77C2B2AE63u,
                      PRIME64_5 = 0x27D4EB2F165667C5u;

static const uint8_t xxh3_default_secret[XXH3_SECRET_SIZE] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static inline uint64_t xxh3_load(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void xxh3_store(uint8_t *at, uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(at, &word, 8);
}

/* The secret that a seed stands for: 192 bytes, made once per journal. */
static void xxh3_secret_of(uint64_t seed, uint8_t *secret) {
    for (int i = 0; i < XXH3_SECRET_SIZE; i += 16) {
        xxh3_store(secret + i, xxh3_load(xxh3_default_secret + i) + seed);
        xxh3_store(secret + i + 8, xxh3_load(xxh3_default_secret + i + 8) - seed);
    }
}

static inline void xxh3_accumulate(uint64_t *restrict lanes, const uint8_t *input, const uint8_t *secret) {
    uint64_t data[8], keyed[8];
    for (int i = 0; i < 8; i++) {
        data[i] = xxh3_load(input + 8 * i);
        keyed[i] = data[i] ^ xxh3_load(secret + 8 * i);
    }
    for (int i = 0; i < 8; i++)
        lanes[i] += (uint64_t)(uint32_t)keyed[i] * (keyed[i] >> 32) + data[i ^ 1];
}

static inline void xxh3_scramble(uint64_t *restrict lanes, const uint8_t *secret) {
    for (int i = 0; i < 8; i++) {
        lanes[i] ^= lanes[i] >> 47;
        lanes[i] ^= xxh3_load(secret + 8 * i);
        lanes[i] *= PRIME32_1;
    }
}

static inline uint64_t xxh3_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* XXH3-64 of `length` > 240 bytes under a secret made by xxh3_secret_of. */
static uint64_t xxh3_long(const uint8_t *input, size_t length, const uint8_t *secret) {
    uint64_t lanes[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    const size_t block = XXH3_STRIPE * XXH3_STRIPES_PER_BLOCK;
    const size_t blocks = (length - 1) / block;
    for (size_t b = 0; b < blocks; b++) {
        for (int s = 0; s < XXH3_STRIPES_PER_BLOCK; s++)
            xxh3_accumulate(lanes, input + b * block + s * XXH3_STRIPE, secret + 8 * s);
        xxh3_scramble(lanes, secret + XXH3_SECRET_SIZE - XXH3_STRIPE);
    }
    const size_t stripes = (length - 1 - blocks * block) / XXH3_STRIPE;
    for (size_t s = 0; s < stripes; s++)
        xxh3_accumulate(lanes, input + blocks * block + s * XXH3_STRIPE, secret + 8 * s);
    xxh3_accumulate(lanes, input + length - XXH3_STRIPE, secret + XXH3_SECRET_SIZE - XXH3_STRIPE - 7);
    uint64_t sum = (uint64_t)length * PRIME64_1;
    for (int i = 0; i < 4; i++)
        sum += xxh3_fold(lanes[2 * i] ^ xxh3_load(secret + 11 + 16 * i), lanes[2 * i + 1] ^ xxh3_load(secret + 19 + 16 * i));
    sum ^= sum >> 37;
    sum *= 0x165667919E3779F9u;
    return sum ^ (sum >> 32);
}

#endif
