// The convolution on events, with the neurons behind it: forward. Also neurons on maps of currents.
#pragma once

#include "stbp/ops/chain/linear.h"

namespace stbp {

// A tile is one unit of maps: its weights, 24 KB for a kernel of 5x5 on 15 maps, stay in the nearest cache.
constexpr int CONV_UNITS = 1;

// Potentials of one sample of a stage with maps are [position][T][Mp]; its bits [T][position][Mp / 8].
struct Maps {
    float* u;         // never null: where nobody keeps them, a thread's own
    uint8_t* bits;    // null where nobody needs them
    float* out;       // the sample's part of [T][B][M][P], null if this is not the last stage
    size_t out_step;
};

inline Maps maps_of(const Window& w, const Stage& s, int b, bool last, float* own) {
    size_t row = (size_t)b * w.T;
    return {s.u ? s.u + row * s.width() : own, s.bits ? s.bits + row * s.bytes() : nullptr,
            last ? w.out + (size_t)b * s.M * s.P() : nullptr, (size_t)w.B * s.M * s.P()};
}

// Step t of the neurons of a tile at one position.
template <int U>
inline void fire_at(const Window& w, const Stage& s, const Maps& m, int p, int t, Tile tile, const vf* x) {
    float* u = m.u + ((size_t)p * w.T + t) * s.Mp() + tile.first;
    vf now[U * PER_UNIT] = {}, o[U * PER_UNIT];
    if (s.fires) {
        if (t)
            for (int v = 0; v < U * PER_UNIT; v++) now[v] = load(u - s.Mp() + v * LANES);
        uint8_t* bits = m.bits ? m.bits + ((size_t)t * s.P() + p) * (s.Mp() / 8) + tile.first / 8 : nullptr;
        fire<U>(s.neuron, now, x, bits, m.out ? o : nullptr);
        for (int v = 0; v < U * PER_UNIT; v++) store(u + v * LANES, now[v]);
    }
    if (!m.out) return;
    alignas(64) float lanes[U * UNIT];
    for (int v = 0; v < U * PER_UNIT; v++) store(lanes + v * LANES, s.fires ? o[v] : x[v]);
    for (int i = 0; i < std::min(tile.width(), s.M - tile.first); i++)
        m.out[t * m.out_step + (size_t)(tile.first + i) * s.P() + p] = lanes[i];
}

// W as rows [dy][dx][input map][tile], tile after tile; zero beyond the last output.
inline size_t conv_rows(const Stage& s) { return (size_t)s.k * s.k * s.C; }

inline void pack_conv(const Stage& s, Tile tile, float* rows) {
    int area = s.k * s.k, width = tile.width(), valid = std::min(width, s.M - tile.first);
    std::memset(rows, 0, conv_rows(s) * width * sizeof(float));
    for (int n = 0; n < valid; n++)
        for (int c = 0; c < s.C; c++)
            for (int d = 0; d < area; d++)
                rows[((size_t)d * s.C + c) * width + n] = s.weight[((size_t)(tile.first + n) * s.C + c) * area + d];
}

// The events of one step, column after column of outputs: those of the k columns that an output sees, in the order of
// rows. What the output at (y, x) sees is then one stretch of the list of column x: row[y] to row[y + k].
struct Strips {
    size_t room;
    Buffer<uint32_t> id, row;
    Buffer<float> value;
    int rows;

    Strips(const Stage& s, size_t most) : room(most + UNIT), rows(s.PH() + 2 * s.pad + 1) {
        id = Buffer<uint32_t>(room * s.OW);
        value = Buffer<float>(room * s.OW);
        row = Buffer<uint32_t>((size_t)rows * s.OW);
    }

    void fill(const Stage& s, const Events& e, int t) {
        int PH = s.PH(), PW = s.PW();
        for (int x = 0; x < s.OW; x++) {
            uint32_t n = (uint32_t)(x * room);
            int first = std::clamp(x - s.pad, 0, PW), end = std::clamp(x - s.pad + s.k, 0, PW);
            for (int y = 0; y < rows; y++) {
                row[(size_t)x * rows + y] = n;
                if (y < s.pad || y >= s.pad + PH) continue;
                const uint32_t* at = e.start.data() + ((size_t)t * PH + y - s.pad) * PW;
                uint32_t from = at[first], count = at[end] - from;
                for (uint32_t i = 0; i < count; i += UNIT) {
                    std::memcpy(&id[n + i], &e.id[from + i], UNIT * sizeof(uint32_t));
                    if (e.value) std::memcpy(&value[n + i], &e.value[from + i], UNIT * sizeof(float));
                }
                n += count;
            }
        }
    }
};

// One unit of sums of a stretch of events; four sums take turns, so that one addition need not wait for another.
template <bool VALUED>
inline Sum<1> add_stretch(Sum<1> first, const float* rows, const uint32_t* id, const float* value, uint32_t n) {
    Sum<1> turn[4] = {first};
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            for (int v = 0; v < PER_UNIT; v++) {
                vf row = load(rows + (size_t)id[i + j] * UNIT + v * LANES);
                turn[j].v[v] = VALUED ? fma(all(value[i + j]), row, turn[j].v[v]) : turn[j].v[v] + row;
            }
    turn[0] = add_rows<1, VALUED>(turn[0], rows, id, value, i, n);
    for (int v = 0; v < PER_UNIT; v++) turn[0].v[v] = (turn[0].v[v] + turn[1].v[v]) + (turn[2].v[v] + turn[3].v[v]);
    return turn[0];
}

// One step of a tile of maps.
template <int U, bool VALUED>
inline void conv_step(const Window& w, const Stage& s, const Strips& strips, const Maps& m, int t, Tile tile,
                      const float* rows, const Sum<U>& bias) {
    for (int y = 0; y < s.OH; y++)
        for (int x = 0; x < s.OW; x++) {
            const uint32_t* row = strips.row.data() + (size_t)x * strips.rows;
            uint32_t first = row[y], n = row[y + s.k] - first;
            const float* shifted = rows - (ptrdiff_t)(y * s.k + x) * s.C * (U * UNIT);
            Sum<U> sum = add_stretch<VALUED>(bias, shifted, &strips.id[first], &strips.value[first], n);
            fire_at<U>(w, s, m, y * s.OW + x, t, tile, sum.v);
        }
}

// Events of a convolution's input: id is the row of W for the output at (0, 0).
inline Events read_conv(const Window& w, const Stage& s, const Stage* before, int b) {
    std::vector<uint32_t> base(s.PH() * s.PW());
    for (int y = 0; y < s.PH(); y++)
        for (int x = 0; x < s.PW(); x++) base[y * s.PW() + x] = (uint32_t)(((y + s.pad) * s.k + x + s.pad) * s.C);
    if (before) return read_stage(w, s, before->bits + (size_t)b * w.T * before->bytes(), base.data(), true);
    Buffer<uint8_t> own((size_t)w.T * s.H * s.W * round_up(s.C, UNIT) / 8);
    to_stage_order(w, b, s, own.data());
    return read_stage(w, s, own.data(), base.data(), true);
}

inline void conv_forward(const Window& w, const Stage& s, const Stage* before, bool last, int* path, double* density) {
    Tiles tiles(s.M, conv_rows(s), CONV_UNITS);
    size_t tile_size = conv_rows(s) * tiles.per_tile * UNIT;
    Buffer<float> packed(tile_size * tiles.count);
    std::vector<size_t> events(w.B);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> own(s.u ? 1 : w.T * s.width());
#pragma omp for schedule(static)
        for (int i = 0; i < tiles.count; i++) pack_conv(s, tiles[i], packed.data() + i * tile_size);
#pragma omp for schedule(dynamic)
        for (int b = 0; b < w.B; b++) {
            Events e = read_conv(w, s, before, b);
            events[b] = e.count;
            size_t most = 0, positions = (size_t)s.PH() * s.PW();
            for (int t = 0; t < w.T; t++)
                most = std::max<size_t>(most, e.start[(t + 1) * positions] - e.start[t * positions]);
            Strips strips(s, most);
            Maps maps = maps_of(w, s, b, last, own.data());
            for (int t = 0; t < w.T; t++) {
                strips.fill(s, e, t);
                for (int i = 0; i < tiles.count; i++)
                    with_units(tiles[i].units, [&](auto units) {
                        constexpr int U = std::min<int>(units, CONV_UNITS);
                        const float* rows = packed.data() + i * tile_size;
                        Sum<U> bias = bias_of<U>(s, tiles[i]);
                        if (e.value)
                            conv_step<U, true>(w, s, strips, maps, t, tiles[i], rows, bias);
                        else
                            conv_step<U, false>(w, s, strips, maps, t, tiles[i], rows, bias);
                    });
            }
        }
    }
    double n = 0, all = (double)w.B * w.T * s.inputs();
    for (size_t count : events) n += count;
    density[0] = all ? n / all : 0;
    path[0] = 1;
}

// Neurons on maps of currents, or without maps where P is 1.
inline void current_forward(const Window& w, const Stage& s, bool last) {
    Tiles tiles(s.M, 1, 1);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> own(s.u ? 1 : w.T * s.width());
#pragma omp for schedule(static)
        for (int b = 0; b < w.B; b++) {
            Maps maps = maps_of(w, s, b, last, own.data());
            for (int p = 0; p < s.P(); p++)
                for (int i = 0; i < tiles.count; i++)
                    for (int t = 0; t < w.T; t++) {
                        alignas(64) float lanes[UNIT] = {};
                        const float* from = w.current + ((size_t)t * w.B + b) * s.M * s.P() + p;
                        int n = std::min(UNIT, s.M - tiles[i].first);
                        for (int j = 0; j < n; j++) lanes[j] = from[(size_t)(tiles[i].first + j) * s.P()];
                        vf x[PER_UNIT];
                        for (int v = 0; v < PER_UNIT; v++) x[v] = load(lanes + v * LANES);
                        fire_at<1>(w, s, maps, p, t, tiles[i], x);
                    }
        }
    }
}

}  // namespace stbp
