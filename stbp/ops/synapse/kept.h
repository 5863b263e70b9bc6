// Data that a stage leaves for the stage after it and for the backward pass: its spikes as bits, and its potentials.
//
// With the rectangle the backward pass needs of a neuron two bits, and the potential only within the window. So such
// potentials alone are kept, one after another, and a bit each that says where they belong; not of the last stage, whose
// gradient comes from outside in full. What the others would have taken is asked for, but never touched. Of a stage with
// maps the potentials of a sample follow each other, of a linear stage those of a unit of 16 neurons, for as many samples
// as one thread does in a row.
#pragma once

#include <array>
#include <vector>

#include "stbp/ops/synapse/stage.h"

namespace stbp {

// --- where it lies --------------------------------------------------------------------------------------------------

// A number of bytes by the size of the window, which need not be known yet: fixed + sample * B + step * T * B.
struct Bytes {
    int64_t fixed = 0, sample = 0, step = 0;
    int64_t of(int T, int B) const { return fixed + (sample + step * T) * B; }
    int64_t of(const Window& w) const { return of(w.T, w.B); }
    Bytes operator+(Bytes b) const { return {fixed + b.fixed, sample + b.sample, step + b.step}; }
    Bytes operator*(int64_t n) const { return {fixed * n, sample * n, step * n}; }
};

inline int units_of(const Stage& s) { return (int)(s.Mp() / UNIT); }

// A linear stage, for a unit of neurons: its potentials, and a vector more for each part, whose last one is written whole.
constexpr Bytes KEPT_OF_UNIT{tuning::PARTS * UNIT * sizeof(float), 0, UNIT * sizeof(float)};
// Its marks: 32 bits for a step of a sample, who fired and above them who is within reach.
constexpr Bytes MARKS_OF_UNIT{0, 0, sizeof(uint32_t)};
// Where in `u` the potentials of a sample begin.
constexpr Bytes PLACES_OF_UNIT{0, sizeof(uint64_t), 0};

// A stage with maps: the potentials of all samples, and a vector more for each, for it is written whole.
inline Bytes kept_of_maps(const Stage& s) {
    return {0, UNIT * (int)sizeof(float), s.P() * s.M * (int64_t)sizeof(float)};
}

// Lays the parts of all stages one behind another into the two tensors of a call, w.kept, and returns the tensors' sizes.
// Where their memory is there, the stages are pointed at their parts. The first tensor holds potentials of maps within
// reach: they are large, and as a tensor of their own the allocator keeps them more easily.
inline std::array<Bytes, 2> lay_out(const Window& w, std::vector<Stage>& stages) {
    std::array<Bytes, 2> total;
    auto put = [&](int tensor, Bytes size) {
        uint8_t* at = w.kept[tensor] ? w.kept[tensor] + total[tensor].of(w) : nullptr;
        total[tensor] = total[tensor] + size;
        return at;
    };
    auto keeps = [&](const Stage& s) { return w.save && s.fires && s.kind != Kind::LOOKUP; };
    auto some = [&](const Stage& s) {
        return keeps(s) && s.kind != Kind::CURRENT && s.neuron.surrogate == Surrogate::rectangle && &s != &stages.back();
    };
    auto linear = [](const Stage& s) { return s.kind == Kind::LINEAR; };
    for (Stage& s : stages) {    // what holds numbers comes first, so that nothing needs padding
        Bytes all{0, 0, (int64_t)(s.width() * sizeof(float))};
        Bytes size = !some(s) ? all : linear(s) ? KEPT_OF_UNIT * units_of(s) : kept_of_maps(s);
        if (keeps(s)) s.u = reinterpret_cast<float*>(put(some(s) && !linear(s) ? 0 : 1, size));
    }
    for (Stage& s : stages)
        if (some(s) && linear(s)) s.inside = put(1, (MARKS_OF_UNIT + PLACES_OF_UNIT) * units_of(s));
    for (Stage& s : stages) {
        Bytes bits{0, 0, (int64_t)s.bytes()};
        if (some(s) && !linear(s)) s.inside = put(1, bits);
        if (&s != &stages.back()) s.bits = put(1, bits);
    }
    return total;
}

// The potentials of sample b of a stage with maps.
inline float* kept_of_sample(const Window& w, const Stage& s, int b) {
    return s.u + b * (kept_of_maps(s).of(w.T, 1) / sizeof(float));
}

// A linear stage: where the potentials of a unit of neurons begin for the samples of one part.
inline float* kept_unit(const Window& w, const Stage& s, int unit, int part, int first) {
    return s.u + unit * (KEPT_OF_UNIT.of(w) / sizeof(float)) + (size_t)first * w.T * UNIT + part * UNIT;
}

// A linear stage's marks, unit by unit: [unit][B][T]. Of two threads that share out the units none writes where the other
// does, as in rows of spikes they would; between processors without a common cache that takes longer than all else.
inline uint32_t* marks_of(const Stage& s) { return reinterpret_cast<uint32_t*>(s.inside); }
inline size_t marks_of_unit(const Window& w) { return MARKS_OF_UNIT.of(w) / sizeof(uint32_t); }

// Table entry of a unit of neurons and a sample: how far behind s.u its potentials begin. The table follows the marks.
inline uint8_t* kept_place(const Window& w, const Stage& s, int unit, int b) {
    return s.inside + MARKS_OF_UNIT.of(w) * units_of(s) + PLACES_OF_UNIT.of(w) * unit + b * sizeof(uint64_t);
}

// --- potentials within reach ----------------------------------------------------------------------------------------

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

// From u, [P][T][Mp], to s.u and s.inside of sample b.
inline void keep_maps(const Window& w, const Stage& s, int b, const float* u) {
    size_t width = w.T * s.width(), Mp = s.Mp();
    float* to = kept_of_sample(w, s, b);
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
    const float* from = kept_of_sample(w, s, b);
    const uint8_t *inside = s.inside + b * width / 8, *fired = s.bits + (size_t)b * w.T * s.bytes();
    Restorer restorer(s);
    for (size_t p = 0; p < (size_t)s.P(); p++)
        for (int t = 0; t < w.T; t++)
            for (size_t n = 0; n < Mp; n += UNIT, u += UNIT, inside += 2)
                restorer.unit(half_word(inside), half_word(fired + (t * s.P() + p) * (Mp / 8) + n / 8), from, u);
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
