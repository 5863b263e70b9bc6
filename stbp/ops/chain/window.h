// With the rectangle the backward pass needs of a neuron two bits, and the potential only within the window. So of a
// stage with maps only those potentials are kept, one after another, and a bit each that says where they belong.
#pragma once

#include "stbp/ops/chain/stage.h"

namespace stbp {

// Floats for the potentials of one sample: all of them, and a vector, since the last one is written whole.
inline size_t kept_room(const Window& w, const Stage& s) { return (size_t)w.T * s.P() * s.M + UNIT; }

// From u, [P][T][Mp], to s.u and s.inside of sample b.
inline void keep_inside(const Window& w, const Stage& s, int b, const float* u) {
    size_t width = w.T * s.width();
    float* to = s.u + b * kept_room(w, s);
    uint8_t* inside = s.inside + b * width / 8;
    vf half = all(s.neuron.width / 2);
    size_t Mp = s.Mp();
    uint32_t tail = (1u << (s.M % UNIT ? s.M % UNIT : UNIT)) - 1;    // valid lanes of the last unit of maps
    for (size_t i = 0; i < width; i += UNIT) {
        uint32_t bits = 0, valid = (i + UNIT) % Mp ? 0xFFFF : tail;
        for (int v = 0; v < PER_UNIT; v++) {
            vf x = load(u + i + v * LANES);
            uint32_t outside = bits_ge(absolute(x - s.neuron.threshold), half);
            uint32_t some = ~outside & (valid >> (v * LANES)) & ((1ull << LANES) - 1);
            bits |= some << (v * LANES);
#if defined(__AVX512F__)
            store(to, (vf)_mm512_maskz_compress_ps((__mmask16)some, (__m512)x));
            to += __builtin_popcount(some);
#else
            for (; some; some &= some - 1) *to++ = x[__builtin_ctz(some)];
#endif
        }
        uint16_t part = (uint16_t)bits;
        std::memcpy(inside + i / 8, &part, 2);
    }
}

// Back to u: outside the window any potential will do that is there too, above if the neuron fired and else below.
inline void restore(const Window& w, const Stage& s, int b, float* u) {
    size_t width = w.T * s.width(), Mp = s.Mp();
    const float* from = s.u + b * kept_room(w, s);
    const uint8_t *inside = s.inside + b * width / 8, *fired = s.bits + (size_t)b * w.T * s.bytes();
    // twice the threshold and zero where the width is lost in rounding
    vf above = all(std::max(s.neuron.threshold + s.neuron.width, 2 * s.neuron.threshold));
    vf below = all(std::min(s.neuron.threshold - s.neuron.width, 0.0f));
    for (size_t p = 0; p < (size_t)s.P(); p++)
        for (int t = 0; t < w.T; t++)
            for (size_t n = 0; n < Mp; n += UNIT, u += UNIT, inside += 2) {
                uint16_t in, out;
                std::memcpy(&in, inside, 2);
                std::memcpy(&out, fired + (t * s.P() + p) * (Mp / 8) + n / 8, 2);
                for (int v = 0; v < PER_UNIT; v++) {
                    uint32_t some = in >> (v * LANES) & ((1ull << LANES) - 1);
                    vf x = select(out >> (v * LANES), above, below);
#if defined(__AVX512F__)
                    x = (vf)_mm512_mask_expandloadu_ps((__m512)x, (__mmask16)some, from);
                    from += __builtin_popcount(some);
#else
                    for (; some; some &= some - 1) x[__builtin_ctz(some)] = *from++;
#endif
                    store(u + v * LANES, x);
                }
            }
}

}  // namespace stbp
