/* Words that several threads or processes read while one writes them. */
#ifndef SILTSTONE_ATOMICS_H
#define SILTSTONE_ATOMICS_H

#include <sched.h>
#include <stdint.h>

static inline uint64_t load_acquire(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static inline uint64_t load_relaxed(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline uint32_t load_half(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline uint8_t load_byte(const uint8_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
static inline void store_release(uint64_t *at, uint64_t word) { __atomic_store_n(at, word, __ATOMIC_RELEASE); }

/* A sequence number is odd while what it guards is being changed. */
static inline void begin_change(uint64_t *sequence) {
    __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
static inline void end_change(uint64_t *sequence) { __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELEASE); }
static inline int unchanged(const uint64_t *sequence, uint64_t seen) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(sequence, __ATOMIC_RELAXED) == seen;
}

/* Before something is looked at again: wait a moment, longer the more often. 1: it is time to give up. */
#define SPINS 4096
#define YIELDS 256
static inline int wait_a_moment(uint32_t *waits) {
    uint32_t count = (*waits)++;
    if (count < SPINS) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
        return 0;
    }
    sched_yield(); /* the writer may want this very processor */
    return count >= SPINS + YIELDS;
}

#endif
