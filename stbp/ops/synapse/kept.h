// With the rectangle the backward pass needs of a neuron two bits, and the potential only within the window. So such
// potentials alone are kept, one after another, and a bit each that says where they belong. What the others would have
// taken is asked for, but never touched. Of a stage with maps the potentials of a sample follow each other, of a linear
// stage those of a unit of 16 neurons, for as many samples as one thread does in a row.
#pragma once

#include "stbp/ops/synapse/stage.h"

namespace stbp {

inline vf half_window(const Stage& s) { return all(s.neuron.width / 2); }

// Appends to `to` the lanes of a unit of potentials that are valid and within reach; returns which these are.
inline uint16_t keep_unit(const Stage& s, const vf* u, vf half, uint32_t valid, float*& to) {
    uint32_t bits = 0;
    for (int v = 0; v < PER_UNIT; v++) {
        uint32_t outside = bits_ge(absolute(u[v] - s.neuron.threshold), half);
        uint32_t some = ~outside & (valid >> (v * LANES)) & ((1ull << LANES) - 1);
        bits |= some << (v * LANES);
#if defined(__AVX512F__)
        store(to, (vf)_mm512_maskz_compress_ps((__mmask16)some, (__m512)u[v]));
        to += __builtin_popcount(some);
#else
        for (; some; some &= some - 1) *to++ = u[v][__builtin_ctz(some)];
#endif
    }
    return (uint16_t)bits;
}

// Which lanes of the unit that starts at this neuron or map are one.
inline uint32_t valid_lanes(const Stage& s, size_t first) {
    return first + UNIT > (size_t)s.M ? (1u << s.M % UNIT) - 1 : 0xFFFF;
}

inline uint16_t half_word(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return bits;
}

// Back to u: outside the window any potential will do that is there too, above if the neuron fired and else below.
struct Restorer {
    vf above, below;
    explicit Restorer(const Stage& s) {
        // twice the threshold and zero where the width is lost in rounding
        above = all(std::max(s.neuron.threshold + s.neuron.width, 2 * s.neuron.threshold));
        below = all(std::min(s.neuron.threshold - s.neuron.width, 0.0f));
    }

    void unit(uint16_t inside, uint16_t fired, const float*& from, float* u) const {
        for (int v = 0; v < PER_UNIT; v++) {
            uint32_t some = inside >> (v * LANES) & ((1ull << LANES) - 1);
            vf x = select(fired >> (v * LANES), above, below);
            store(u + v * LANES, select(some, expand(some, from), x));
            from += __builtin_popcount(some);
        }
    }
};

// Floats for the potentials of one sample of a stage with maps: all of them, and a vector, for it is written whole.
inline size_t kept_room(const Window& w, const Stage& s) { return (size_t)w.T * s.P() * s.M + UNIT; }

// From u, [P][T][Mp], to s.u and s.inside of sample b.
inline void keep_maps(const Window& w, const Stage& s, int b, const float* u) {
    size_t width = w.T * s.width(), Mp = s.Mp();
    float* to = s.u + b * kept_room(w, s);
    uint8_t* inside = s.inside + b * width / 8;
    vf half = half_window(s);
    for (size_t i = 0; i < width; i += UNIT) {
        vf now[PER_UNIT];
        for (int v = 0; v < PER_UNIT; v++) now[v] = load(u + i + v * LANES);
        uint16_t bits = keep_unit(s, now, half, valid_lanes(s, i % Mp), to);
        std::memcpy(inside + i / 8, &bits, 2);
    }
}

inline void restore_maps(const Window& w, const Stage& s, int b, float* u) {
    size_t width = w.T * s.width(), Mp = s.Mp();
    const float* from = s.u + b * kept_room(w, s);
    const uint8_t *inside = s.inside + b * width / 8, *fired = s.bits + (size_t)b * w.T * s.bytes();
    Restorer restorer(s);
    for (size_t p = 0; p < (size_t)s.P(); p++)
        for (int t = 0; t < w.T; t++)
            for (size_t n = 0; n < Mp; n += UNIT, u += UNIT, inside += 2)
                restorer.unit(half_word(inside), half_word(fired + (t * s.P() + p) * (Mp / 8) + n / 8), from, u);
}

// A linear stage: 32 bits for a unit of neurons and a step, who fired and above them who is within reach, unit by unit:
// [unit][B][T]. Of two threads that share out the units none writes where the other does, as in rows of spikes they
// would; between processors without a common cache that takes longer than all else.
inline uint32_t* marks_of(const Stage& s) { return reinterpret_cast<uint32_t*>(s.inside); }
inline size_t marks_of_unit(const Window& w) { return (size_t)w.B * w.T; }

// A linear stage: where the potentials of a unit of neurons begin for the samples of one part.
inline float* kept_unit(const Window& w, const Stage& s, int unit, int part, int first) {
    return s.u + unit * ((size_t)w.B * w.T * UNIT + tuning::PARTS * UNIT) + (size_t)first * w.T * UNIT + part * UNIT;
}

// Of a unit of neurons and a sample, how far behind s.u its potentials begin. This table stands behind the marks.
inline uint8_t* kept_place(const Window& w, const Stage& s, int unit, int b) {
    size_t marks = s.Mp() / UNIT * marks_of_unit(w) * sizeof(uint32_t);
    return s.inside + marks + ((size_t)unit * w.B + b) * sizeof(uint64_t);
}

// Backward through U units of neurons of a linear stage for one sample, from what was kept: `g`, [T][U * 16], holds
// dL/do and becomes dL/du. `a`, with rows of `a_stride` floats, may be null.
template <int U>
inline void kept_neurons_back(const Window& w, const Stage& s, int b, int first, float* g, float* a, size_t a_stride,
                              vf* sum) {
    const Lif n = s.neuron;
    const int T = w.T;
    for (int j = 0; j < U; j++) {
        int unit = first / UNIT + j;
        const uint32_t* mark = marks_of(s) + unit * marks_of_unit(w) + (size_t)b * T;
        uint64_t place;
        std::memcpy(&place, kept_place(w, s, unit, b), sizeof place);
        const float* end = s.u + place;
        size_t kept = 0;
        for (int t = 0; t < T; t++) kept += __builtin_popcount(mark[t] >> UNIT);
        end += kept;
        vf eps[PER_UNIT] = {}, over_time[PER_UNIT] = {};
        for (int t = T - 1; t >= 0; t--) {
            uint32_t inside = mark[t] >> UNIT, fired = mark[t] & 0xFFFF;
            for (int v = PER_UNIT - 1; v >= 0; v--) {
                uint32_t some = inside >> (v * LANES) & ((1u << LANES) - 1);
                end -= __builtin_popcount(some);
                __builtin_prefetch(end + kept);    // the next sample's stretch
                float* gt = g + (size_t)t * (U * UNIT) + j * UNIT + v * LANES;
                vf part = n.back_kept(expand(some, end), some, fired >> (v * LANES), load(gt), eps[v]);
                store(gt, eps[v]);
                if (a) store(a + t * a_stride + j * UNIT + v * LANES, part);
                over_time[v] += eps[v];
            }
        }
        for (int v = 0; v < PER_UNIT; v++) sum[j * PER_UNIT + v] = over_time[v];
    }
}

}  // namespace stbp
