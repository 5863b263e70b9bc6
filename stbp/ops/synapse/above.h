// Where a stage with maps finds the gradient of its spikes.
#pragma once

#include "stbp/ops/synapse/linear_back.h"

namespace stbp {

// dL/do as a stage with maps finds it: at step t and position p (behind the pooling of the stage above) maps stand at
// data[t * step + p * position]. With `keep` it still is a^t that has to be summed back in time.
struct Above {
    const float* data = nullptr;
    size_t step = 0, position = 0;
    int pool = 1, PH = 0, PW = 0;
    int pad = 0;       // the grid of positions is padded by this much on each side
    bool sum = false;
    float keep = 0;
};

// The gradient from outside, [T][B][M][P], of one sample: [position][T][Mp].
inline Above from_outside(const Window& w, const Stage& s, int b, Buffer<float>& own) {
    own.zero();
    size_t P = s.P(), Mp = s.Mp();
    for (int t = 0; t < w.T; t++)
        for (int c = 0; c < s.M; c++) {
            const float* from = w.grad + (((size_t)t * w.B + b) * s.M + c) * P;
            for (size_t p = 0; p < P; p++) own[(p * w.T + t) * Mp + c] = from[p];
        }
    return {own.data(), Mp, w.T * Mp, 1, s.OH, s.OW, 0, false, 0};
}

// The gradient from a linear stage, of one sample: [T][inputs], positions C floats apart.
inline Above from_linear(const Window& w, const Stage& up, const Sent& sent, int b, const Tiles& tiles,
                         const float* rows, Buffer<float>& tile, Buffer<float>& own) {
    size_t step = tiles.units * UNIT;
    for (int i = 0; i < tiles.count; i++) {
        const float* from = rows + (size_t)i * tiles.per_tile * UNIT * up.M;
        with_units(tiles[i].units, [&](auto units) {
            input_gradient<units>(w, up, sent, b, from, tile.data());
        });
        for (int t = 0; t < w.T; t++)
            std::memcpy(own.data() + t * step + tiles[i].first, tile.data() + t * tiles[i].width(),
                        tiles[i].width() * sizeof(float));
    }
    return {own.data(), step, (size_t)up.C, up.pool, up.PH(), up.PW(), 0, false, 0};
}

// dL/do of U units at position p of a stage, [T][U * 16]: an average's gradient is shared by its area.
template <int U>
inline void gather(const Window& w, const Stage& s, const Above& above, int p, Tile tile, float* g) {
    constexpr int NV = U * PER_UNIT;
    int y = p / s.OW / above.pool, x = p % s.OW / above.pool;
    size_t row = w.T * (size_t)(U * UNIT);
    if (y >= above.PH || x >= above.PW) {
        std::memset(g, 0, row * sizeof(float));
        return;
    }
    size_t place = (size_t)(y + above.pad) * (above.PW + 2 * above.pad) + x + above.pad;
    const float* from = above.data + place * above.position + tile.first;
    vf share = all(1.0f / (above.pool * above.pool)), keep = all(above.keep);
    alignas(64) float valid[U * UNIT];
    for (int i = 0; i < U * UNIT; i++) valid[i] = tile.first + i < s.M ? 1 : 0;
    vf run[NV] = {}, mask[NV];
    for (int v = 0; v < NV; v++) mask[v] = load(valid + v * LANES);
    for (int t = w.T - 1; t >= 0; t--)
        for (int v = 0; v < NV; v++) {
            vf e = load(from + t * above.step + v * LANES);
            run[v] = above.sum ? fma(keep, run[v], e) : e;
            store(g + t * (U * UNIT) + v * LANES, mask[v] > 0.0f ? run[v] * share : vf{});
        }
}

}  // namespace stbp
