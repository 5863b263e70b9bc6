// Counter-based random numbers: Philox 4x32 with 10 rounds, see reference.py.
#pragma once

#include "stbp/ops/native/tuning.h"

namespace stbp {

constexpr int SIDE = tuning::COUNTERS;

typedef uint64_t vq __attribute__((vector_size(LANES * 4)));

// The product of the lower halves of 64-bit lanes with m.
inline vq multiply(vq a, uint32_t m) {
#if defined(__AVX512F__)
    return (vq)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif defined(__AVX2__)
    return (vq)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#elif defined(__SSE2__)
    return (vq)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m));
#else
    return (a & 0xFFFFFFFFu) * (uint64_t)m;
#endif
}

// The four words of SIDE counters (c0, c1, c2, c3), in place; the upper halves of the lanes mean nothing.
inline void philox(uint64_t (*c)[SIDE], uint32_t seed, uint32_t stream) {
    constexpr int PER = LANES / 2;
    for (int i = 0; i < SIDE; i += PER) {
        vq w[4];
        for (int j = 0; j < 4; j++) std::memcpy(&w[j], &c[j][i], sizeof(vq));
        uint32_t k0 = seed, k1 = stream;
        for (int round = 0; round < 10; round++) {
            vq a = multiply(w[0], 0xD2511F53u), b = multiply(w[2], 0xCD9E8D57u);
            w[0] = (b >> 32) ^ w[1] ^ (uint64_t)k0, w[2] = (a >> 32) ^ w[3] ^ (uint64_t)k1;
            w[1] = b, w[3] = a;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        for (int j = 0; j < 4; j++) std::memcpy(&c[j][i], &w[j], sizeof(vq));
    }
}

}  // namespace stbp
