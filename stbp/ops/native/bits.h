// Rows of bits: bit n of a row is bit n % 8 of byte n / 8. Steps as rows, or neurons as rows ("step map").
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "stbp/ops/native/buffer.h"

namespace stbp {

// Up to 8 bytes of a row as a word.
inline uint64_t word(const uint8_t* p, size_t bytes) {
    uint64_t w = 0;
    if (bytes >= 8)
        std::memcpy(&w, p, 8);
    else
        for (size_t i = 0; i < bytes; i++) w |= (uint64_t)p[i] << (8 * i);
    return w;
}

inline size_t ones(const uint8_t* p, size_t bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i += 8) n += __builtin_popcountll(word(p + i, bytes - i));
    return n;
}

// Indices of the bits set in word i of a row, appended at `out`; returns the new end.
inline uint32_t* indices(uint64_t w, size_t i, uint32_t* out) {
    for (; w; w &= w - 1) *out++ = (uint32_t)(i * 64 + __builtin_ctzll(w));
    return out;
}

inline uint32_t* indices(const uint8_t* row, size_t bytes, uint32_t* out) {
    for (size_t i = 0; i < bytes; i += 8) out = indices(word(row + i, bytes - i), i / 8, out);
    return out;
}

// Which bits are set in more than half of T rows of `words` words. They are counted digit by digit, all side by side.
inline std::vector<uint64_t> in_most(const std::vector<uint64_t>& rows, int T, size_t words) {
    int digits = 32 - __builtin_clz((unsigned)T);
    std::vector<uint64_t> count(digits * words, 0), carry(words), more(words, 0), equal(words, ~0ull);
    for (int t = 0; t < T; t++) {
        std::copy_n(rows.begin() + t * words, words, carry.begin());
        for (int d = 0; d < digits; d++)
            for (size_t i = 0; i < words; i++) {
                uint64_t digit = count[d * words + i], next = digit & carry[i];
                count[d * words + i] = digit ^ carry[i];
                carry[i] = next;
            }
    }
    for (int d = digits - 1; d >= 0; d--) {
        uint64_t half = (T / 2 >> d & 1) ? ~0ull : 0;
        for (size_t i = 0; i < words; i++) {
            uint64_t digit = count[d * words + i];
            more[i] |= equal[i] & digit & ~half;
            equal[i] &= ~(digit ^ half);
        }
    }
    return more;
}

// Bit j of byte i becomes bit i of byte j.
inline uint64_t transpose_bits(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
    return x ^ t ^ (t << 28);
}

// In which steps every neuron fires: bit t of its row of `words` words.
struct StepMap {
    size_t words, row;    // of a neuron's row: words, bytes
    Buffer<uint64_t> bits;

    StepMap(int T, size_t neurons) : words((T + 63) / 64), row(words * 8), bits(round_up_8(neurons) * words) {
        bits.zero();
    }

    // From T rows of `bytes` bytes, `stride` bytes apart.
    void read(const uint8_t* rows, int T, size_t bytes, size_t stride) {
        uint8_t* to = reinterpret_cast<uint8_t*>(bits.data());
        for (int t = 0; t < T; t += 8)
            for (size_t j = 0; j < bytes; j++) {
                uint64_t x = 0;
                for (int i = 0; i < std::min(8, T - t); i++) x |= (uint64_t)rows[(t + i) * stride + j] << (8 * i);
                if (!x) continue;
                x = transpose_bits(x);
                for (int i = 0; i < 8; i++) to[(j * 8 + i) * row + t / 8] = (uint8_t)(x >> (8 * i));
            }
    }

    // The same to T rows.
    void write(uint8_t* rows, int T, size_t bytes, size_t stride) const {
        const uint8_t* from = reinterpret_cast<const uint8_t*>(bits.data());
        for (int t = 0; t < T; t += 8)
            for (size_t j = 0; j < bytes; j++) {
                uint64_t x = 0;
                for (int i = 0; i < 8; i++) x |= (uint64_t)from[(j * 8 + i) * row + t / 8] << (8 * i);
                if (x) x = transpose_bits(x);
                for (int i = 0; i < std::min(8, T - t); i++) rows[(t + i) * stride + j] = (uint8_t)(x >> (8 * i));
            }
    }

    // All of T steps.
    void fill(size_t neuron, int T) {
        for (size_t j = 0; j < words; j++)
            bits[neuron * words + j] = T - 64 * j >= 64 ? ~0ull : (1ull << (T - 64 * j)) - 1;
    }

    uint32_t fired(size_t neuron) const {
        uint32_t n = 0;
        for (size_t j = 0; j < words; j++) n += __builtin_popcountll(bits[neuron * words + j]);
        return n;
    }

    // Calls f(t) for the steps in which the neuron fires, or does not.
    template <class F>
    void each(size_t neuron, int T, bool fires, F f) const {
        for (size_t j = 0; j < words; j++) {
            uint64_t w = bits[neuron * words + j], valid = T - 64 * j >= 64 ? ~0ull : (1ull << (T - 64 * j)) - 1;
            for (w = fires ? w : ~w & valid; w; w &= w - 1) f((uint32_t)(64 * j + __builtin_ctzll(w)));
        }
    }

   private:
    static size_t round_up_8(size_t n) { return (n + 7) / 8 * 8; }
};

}  // namespace stbp
