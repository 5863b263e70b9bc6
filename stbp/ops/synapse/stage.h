// A stage is [average pooling] + synapse + neurons; its spikes are the next stage's input.
//
// Between stages spikes are bits, sample by sample: [B][T][P][Mp / 8], P positions (1 behind a linear synapse), Mp = M
// maps or neurons rounded up to a multiple of 16. Outside, bits are [T][B][ceil(N / 8)] in the order C, H, W.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stbp/ops/native/buffer.h"
#include "stbp/ops/native/tuning.h"
#include "stbp/ops/neuron/lif.h"

namespace stbp {

// Python asks for the first three; a lookup is taken where it will do for a convolution.
enum class Kind : int32_t { CURRENT, LINEAR, CONV, LOOKUP };

// Description of a stage by Python; mirrored by `_Stage` in call.py.
struct StageOrder {
    Kind kind;
    int32_t C, H, W;             // maps of the input, before pooling; N, 1, 1 without maps
    int32_t pool;                // side of the pooled area, 1 without pooling
    int32_t M, k, stride, pad;   // outputs (neurons or maps), kernel, padding
    int32_t fires;               // 0: no neurons, the output is the current itself
    const float *weight, *bias;        // torch's layouts; bias may be null
    float *grad_weight, *grad_bias;    // backward; null where not asked for
    Lif neuron;
};

// The same with what follows from it.
struct Stage : StageOrder {
    int OH, OW;         // of the output; 1, 1 without maps
    uint8_t* bits;      // spikes of this stage; null where nobody needs them
    float* u;           // potentials; null where nobody needs them
    uint8_t* inside;    // if not null: which potentials are within reach; `u` holds these alone

    int PH() const { return H / pool; }
    int PW() const { return W / pool; }
    int inputs() const { return C * PH() * PW(); }
    bool in_order() const { return C == 1 || PH() * PW() == 1; }    // our order of inputs is torch's
    int P() const { return OH * OW; }
    size_t Mp() const { return round_up(M, UNIT); }
    size_t bytes() const { return P() * Mp() / 8; }    // of the spikes of one step of one sample
    size_t width() const { return P() * Mp(); }        // floats of one step of one sample
    // A synapse may add an input's usual value once and then the differences, where nobody sees the order of its sums;
    // a current that goes out is the same in any window.
    bool complement() const { return fires; }
};

// Paths that ran: the name of each is what Python reports.
#define STBP_PATHS(X)             \
    X(NONE, "")                   \
    X(EVENTS, "events")           \
    X(DENSE, "dense")             \
    X(BY_SAMPLE, "events by sample") \
    X(BY_INPUT, "events by input")   \
    X(LOOKUP, "lookup")           \
    X(BY_STEP, "events by step")

#define STBP_ENUMERATOR(path, name) path,
enum class Path : int32_t { STBP_PATHS(STBP_ENUMERATOR) };
#undef STBP_ENUMERATOR

// Report of what a stage did; mirrored by `_Report` in call.py.
struct Report {
    double events, gradient;        // shares: of inputs that fire, of what goes down that is not zero
    Path forward, weight, input;    // input: the gradient that goes down
};

// Mirrored by `_Window` in call.py.
struct Window {
    int32_t T, B, threads;
    int32_t skip;               // 1: nothing is done for samples whose gradient is zero
    int32_t save;               // 1: what the backward pass needs is kept
    const uint8_t* bits;        // [T][B][bytes] packed input, or null
    const float* current;       // [T][B][N] input of a first stage of kind CURRENT, or null
    float* out;                 // [T][B][N] spikes (or currents) of the last stage
    const float* grad;          // backward: [T][B][N] gradient of `out`
    float* grad_current;        // backward: gradient of `current`, or null
    uint8_t* kept[2];           // memory for what the stages leave behind: see kept.h
    Report* report;             // [stages]
};

struct Tile {
    int first, units;    // first output, and how many times 16 outputs
    int width() const { return units * UNIT; }
};

// How `outputs` are cut into tiles, for a synapse of `inputs` rows.
struct Tiles {
    int units, per_tile, count;
    Tiles(int outputs, size_t inputs, int most = tuning::MAX_UNITS, size_t bytes = tuning::TILE_BYTES) {
        units = (int)round_up(outputs, UNIT) / UNIT;
        int fit = (int)(bytes / (inputs * UNIT * sizeof(float) + 1));
        per_tile = std::clamp(fit, std::min(2, most), most);
        count = (units + per_tile - 1) / per_tile;
    }
    Tile operator[](int i) const { return {i * per_tile * UNIT, std::min(per_tile, units - i * per_tile)}; }
};

// Calls f with a number from `N` to `most` as a compile-time constant.
template <int most, int N = 1, class F>
inline void with_number(int number, F f) {
    if (number == N) return f(std::integral_constant<int, N>{});
    if constexpr (N < most)
        with_number<most, N + 1>(number, f);
    else
        unknown("a number beyond those that are compiled in,", number);
}

// Calls f with the number of units as a compile-time constant.
template <class F>
inline void with_units(int units, F f) {
    with_number<tuning::MAX_UNITS>(units, f);
}

// Column of the weight (torch's order C, H, W behind the pooling) of input i (our order: position, then map).
inline int column(const Stage& s, int i) { return (i % s.C) * (s.PH() * s.PW()) + i / s.C; }

}  // namespace stbp
