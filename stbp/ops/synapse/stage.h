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

enum class Kind : int32_t { CURRENT, LINEAR, CONV, LOOKUP };

// Mirrored by `_Stage` in call.py.
struct Stage {
    Kind kind;
    int32_t C, H, W;      // maps of the input, before pooling; N, 1, 1 without maps
    int32_t pool;         // side of the pooled area, 1 without pooling
    int32_t M, k, pad;    // outputs (neurons or maps), kernel, padding
    int32_t OH, OW;       // of the output; 1, 1 without maps
    int32_t fires;        // 0: the output is the current itself
    int32_t complement;   // 1: a linear synapse may add an input once and subtract its missing steps
    const float *weight, *bias;        // torch's layouts; bias may be null
    float *grad_weight, *grad_bias;    // backward; null where not asked for
    uint8_t* bits;                     // spikes of this stage; null where nobody needs them
    float* u;                          // potentials; null where nobody needs them
    uint8_t* inside;                   // if not null: which potentials are within reach; `u` holds these alone
    Lif neuron;

    int PH() const { return H / pool; }
    int PW() const { return W / pool; }
    int inputs() const { return C * PH() * PW(); }
    bool in_order() const { return C == 1 || PH() * PW() == 1; }    // our order of inputs is torch's
    int P() const { return OH * OW; }
    size_t Mp() const { return round_up(M, UNIT); }
    size_t bytes() const { return P() * Mp() / 8; }    // of the spikes of one step of one sample
    size_t width() const { return P() * Mp(); }        // floats of one step of one sample
};

struct Window {
    int32_t T, B, threads;
    int32_t skip;               // 1: nothing is done for samples whose gradient is zero
    const uint8_t* bits;        // [T][B][bytes] packed input, or null
    const float* current;       // [T][B][N] input of a first stage of kind CURRENT, or null
    float* out;                 // [T][B][N] spikes (or currents) of the last stage
    const float* grad;          // backward: [T][B][N] gradient of `out`
    float* grad_current;        // backward: gradient of `current`, or null
    double* density;            // [stages][3] measured: events forward, gradient of the neurons, input gradient
    int32_t* path;              // [stages][3] what was taken: see `PATHS` in call.py
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

// Calls f with the number of units as a compile-time constant.
template <int U = 1, class F>
inline void with_units(int units, F f) {
    if (units == U) return f(std::integral_constant<int, U>{});
    if constexpr (U < tuning::MAX_UNITS)
        with_units<U + 1>(units, f);
    else
        unknown("a tile whose units of 16 outputs are", units);
}

// Column of the weight (torch's order C, H, W behind the pooling) of input i (our order: position, then map).
inline int column(const Stage& s, int i) { return (i % s.C) * (s.PH() * s.PW()) + i / s.C; }

}  // namespace stbp
