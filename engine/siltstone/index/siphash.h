/* SipHash (Aumasson and Bernstein, 2012): a keyed hash of short inputs that nobody without the key can steer. */
#ifndef SILTSTONE_SIPHASH_H
#define SILTSTONE_SIPHASH_H

#include <stdint.h>
#include <string.h>

#define SIP_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND                                                                                                      \
    do {                                                                                                               \
        a += b; c += d; b = SIP_ROTATE(b, 13); d = SIP_ROTATE(d, 16); b ^= a; d ^= c; a = SIP_ROTATE(a, 32);           \
        c += b; a += d; b = SIP_ROTATE(b, 17); d = SIP_ROTATE(d, 21); b ^= c; d ^= a; c = SIP_ROTATE(c, 32);           \
    } while (0)

static inline uint64_t sip_load(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* `compress` rounds a word and `finish` at the end: SipHash-1-3 in the index, 2-4 where the paper's vectors are. */
static inline __attribute__((always_inline)) uint64_t
siphash(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size, const int compress, const int finish) {
    uint64_t a = k0 ^ 0x736f6d6570736575u, b = k1 ^ 0x646f72616e646f6du;
    uint64_t c = k0 ^ 0x6c7967656e657261u, d = k1 ^ 0x7465646279746573u;
    uint64_t word;
    size_t i;
    for (i = 0; i + 8 <= size; i += 8) {
        word = sip_load(data + i);
        d ^= word;
        for (int r = 0; r < compress; r++) SIP_ROUND;
        a ^= word;
    }
    word = (uint64_t)size << 56;
    for (size_t j = 0; i + j < size; j++)
        word |= (uint64_t)data[i + j] << (8 * j);
    d ^= word;
    for (int r = 0; r < compress; r++) SIP_ROUND;
    a ^= word;
    c ^= 0xff;
    for (int r = 0; r < finish; r++) SIP_ROUND;
    return a ^ b ^ c ^ d;
}

static uint64_t siphash13(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size) {
    return siphash(k0, k1, data, size, 1, 3);
}

static uint64_t siphash24(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size) {
    return siphash(k0, k1, data, size, 2, 4);
}

#endif
