// Counter-based random numbers: Philox 4x32 with 10 rounds, see reference.py.
#pragma once

#include <cstdint>

namespace stbp {

constexpr int SIDE = 16;    // counters worked on side by side

// The four words of SIDE counters (c0, c1, c2, c3), in place.
inline void philox(uint32_t (*c)[SIDE], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < SIDE; i++) {
            uint64_t a = (uint64_t)c[0][i] * 0xD2511F53u, b = (uint64_t)c[2][i] * 0xCD9E8D57u;
            uint32_t first = (uint32_t)(b >> 32) ^ c[1][i] ^ k0, third = (uint32_t)(a >> 32) ^ c[3][i] ^ k1;
            c[0][i] = first, c[1][i] = (uint32_t)b, c[2][i] = third, c[3][i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

}  // namespace stbp
