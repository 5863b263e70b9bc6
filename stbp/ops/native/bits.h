// Rows of bits: bit n of a row is bit n % 8 of byte n / 8. Steps as rows, or neurons as rows ("step map").
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "stbp/ops/native/buffer.h"
#include "stbp/ops/native/tuning.h"

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

// Fetches the bytes behind a row: of a network's input they are the next sample's.
inline void prefetch_behind(const uint8_t* row, size_t bytes) {
    for (size_t j = 0; j < bytes; j += tuning::LINE) __builtin_prefetch(row + bytes + j);
}

inline size_t ones(const uint8_t* p, size_t bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i += 8) n += __builtin_popcountll(word(p + i, bytes - i));
    return n;
}

// Indices of the bits set in word i of a row, appended at `out`; returns the new end. Up to three more are written: by
// fours the processor guesses better where they end.
inline uint32_t* indices(uint64_t w, size_t i, uint32_t* out) {
    int n = __builtin_popcountll(w);
    for (int j = 0; j < n; j += 4)
        for (int k = 0; k < 4; k++, w &= w - 1) out[j + k] = (uint32_t)(64 * i + std::countr_zero(w));
    return out + n;
}

inline uint32_t* indices(const uint8_t* row, size_t bytes, uint32_t* out) {
    for (size_t i = 0; i < bytes; i += 8) out = indices(word(row + i, bytes - i), i / 8, out);
    return out;
}

// Which bits are set in more than half of T rows of `words` words. One object for many windows keeps its memory.
struct Majority {
    std::vector<uint64_t> rows, more;

    // Fills `more` from `rows`. The ones are counted digit by digit, all side by side.
    void count(int T, size_t words) {
        int digits = 32 - __builtin_clz((unsigned)T);
        number_.assign(digits * words, 0);
        carry_.resize(words);
        for (int t = 0; t < T; t++) {
            std::copy_n(rows.begin() + t * words, words, carry_.begin());
            for (int d = 0; d < digits; d++)
                for (size_t i = 0; i < words; i++) {
                    uint64_t digit = number_[d * words + i], next = digit & carry_[i];
                    number_[d * words + i] = digit ^ carry_[i];
                    carry_[i] = next;
                }
        }
        more.assign(words, 0);
        std::vector<uint64_t>& equal = carry_;
        equal.assign(words, ~0ull);
        for (int d = digits - 1; d >= 0; d--) {
            uint64_t half = (T / 2 >> d & 1) ? ~0ull : 0;
            for (size_t i = 0; i < words; i++) {
                uint64_t digit = number_[d * words + i];
                more[i] |= equal[i] & digit & ~half;
                equal[i] &= ~(digit ^ half);
            }
        }
    }

   private:
    std::vector<uint64_t> number_, carry_;
};

// Square blocks of 32 x 32 bits on their diagonal, side by side: a is 32 rows of n words of two such blocks each.
inline void transpose_32(uint64_t* a, size_t n) {
    uint64_t mask = 0x0000FFFF0000FFFFull;
    for (int s = 16; s; s >>= 1, mask ^= mask << s)
        for (int k = 0; k < 32; k += 2 * s) {
            uint64_t *upper = a + k * n, *lower = upper + s * n;
            for (size_t i = 0; i < s * n; i++) {
                uint64_t swap = ((upper[i] >> s) ^ lower[i]) & mask;
                lower[i] ^= swap;
                upper[i] ^= swap << s;
            }
        }
}

// In which steps every neuron fires: bit t of its row of `words` words.
struct StepMap {
    size_t count;                      // of neurons
    size_t words, neurons, columns;    // of a neuron's row; in all, whole words of them; words of a step's row, padded
    Buffer<uint64_t> bits;
    Buffer<uint64_t> block;    // 32 steps on their way from or to rows
    Buffer<uint64_t> some;     // who fires at all, by `read`

    StepMap(int T, size_t count)
        : count(count), words((T + 63) / 64), neurons(round_up_64(count)), columns((count + 511) / 512 * 8),
          bits(neurons * words), block(32 * columns), some(columns) {
        bits.zero();
    }

    // From T rows of `bytes` bytes, `stride` bytes apart.
    void read(const uint8_t* rows, int T, size_t bytes, size_t stride) {
        bits.zero();
        some.zero();
        for (int t = 0; t < T; t += 32) {
            block.zero();
            for (int i = 0; i < std::min(32, T - t); i++) {
                const uint8_t* row = rows + (t + i) * stride;
                prefetch_behind(row, bytes);
                for (size_t j = 0; j < bytes; j += 8)
                    some[j / 8] |= block[i * columns + j / 8] = word(row + j, bytes - j);
            }
            if (count % 64) some[count / 64] &= (1ull << count % 64) - 1;    // whatever stands behind the last one
            transpose_32(block.data(), columns);
            each_that_fires([&](size_t k) {
                bits[k * words + t / 64] |= (uint64_t)(uint32_t)(block[of(k)] >> shift(k)) << t % 64;
            });
        }
    }

    // Calls f(neuron), in their order, for those that fire in any of the steps that `read` has seen.
    template <class F>
    void each_that_fires(F f) const {
        for (size_t i = 0; i < some.size(); i++)
            for (uint64_t w = some[i]; w; w &= w - 1) f(64 * i + __builtin_ctzll(w));
    }

    // The whole map to T rows.
    void write(uint8_t* rows, int T, size_t bytes, size_t stride) {
        for (int t = 0; t < T; t += 32) {
            block.zero();
            for (size_t k = 0; k < neurons; k++)
                block[of(k)] |= (uint64_t)(uint32_t)(bits[k * words + t / 64] >> t % 64) << shift(k);
            transpose_32(block.data(), columns);
            for (int i = 0; i < std::min(32, T - t); i++)
                std::memcpy(rows + (t + i) * stride, &block[i * columns], bytes);
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
        for (size_t j = 0; j < words; j++)
            for (uint64_t w = steps(neuron, j, T, fires); w; w &= w - 1) f((uint32_t)(64 * j + __builtin_ctzll(w)));
    }

    // The numbers that `each` names, appended at `out` as `indices` does; returns the new end.
    uint32_t* list(size_t neuron, int T, bool fires, uint32_t* out) const {
        for (size_t j = 0; j < words; j++) out = indices(steps(neuron, j, T, fires), j, out);
        return out;
    }

   private:
    // In which of the 64 steps of word j the neuron fires, or does not.
    uint64_t steps(size_t neuron, size_t j, int T, bool fires) const {
        uint64_t w = bits[neuron * words + j], valid = T - 64 * j >= 64 ? ~0ull : (1ull << (T - 64 * j)) - 1;
        return fires ? w : ~w & valid;
    }

    // Where in `block` the steps of a neuron stand: word and half of it.
    size_t of(size_t neuron) const { return neuron % 32 * columns + neuron / 64; }
    static int shift(size_t neuron) { return neuron % 64 / 32 * 32; }
    static size_t round_up_64(size_t n) { return (n + 63) / 64 * 64; }
};

}  // namespace stbp
