// The convolution on events, with the neurons behind it: forward. Also neurons on maps of currents.
#pragma once

#include "stbp/ops/synapse/linear.h"

namespace stbp {

// Potentials of one sample of a stage with maps are [position][T][Mp]; its bits [T][position][Mp / 8].
struct Maps {
    float* u;         // never null: where nobody keeps them, a thread's own
    uint8_t* bits;    // null where nobody needs them
    float* out;       // the sample's part of [T][B][M][P], null if this is not the last stage
    size_t out_step;
};

inline Maps maps_of(const Window& w, const Stage& s, int b, bool last, float* own) {
    size_t row = (size_t)b * w.T;
    return {s.u && !s.inside ? s.u + row * s.width() : own, s.bits ? s.bits + row * s.bytes() : nullptr,
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
        uint32_t fired[U];
        fire<U>(s.neuron, now, x, fired, m.out ? o : nullptr);
        uint8_t* bits = m.bits ? m.bits + ((size_t)t * s.P() + p) * (s.Mp() / 8) + tile.first / 8 : nullptr;
        for (int j = 0; bits && j < U; j++) {
            uint16_t part = (uint16_t)fired[j];
            std::memcpy(bits + 2 * j, &part, 2);
        }
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

// Number of the row that map 0 at an input position has for the output at (0, 0); for the output at (y, x) it is
// `shift` less.
inline uint32_t conv_row(const Stage& s, int y, int x) { return (uint32_t)(((y + s.pad) * s.k + x + s.pad) * s.C); }

inline ptrdiff_t shift(const Stage& s, int y, int x) { return (ptrdiff_t)(y * s.k + x) * s.stride * s.C; }

inline void pack_conv(const Stage& s, Tile tile, float* rows) {
    int area = s.k * s.k, width = tile.width(), valid = std::min(width, s.M - tile.first);
    std::memset(rows, 0, conv_rows(s) * width * sizeof(float));
    for (int n = 0; n < valid; n++)
        for (int c = 0; c < s.C; c++)
            for (int d = 0; d < area; d++)
                rows[((size_t)d * s.C + c) * width + n] = s.weight[((size_t)(tile.first + n) * s.C + c) * area + d];
}

// The events of one step, column after column of outputs: those of the k columns that an output sees, in the order of
// rows. What the output at (y, x) sees is then one stretch of the list of column x: row[y * stride] and k rows on.
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
            int left = x * s.stride - s.pad, first = std::clamp(left, 0, PW), end = std::clamp(left + s.k, 0, PW);
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

// One step of a tile of maps: `sink(position, currents)` for every output; `start` is where each one's sum begins.
template <int U, bool VALUED, class F>
inline void conv_step(const Stage& s, const Strips& strips, const float* rows, const float* start, F&& sink) {
    for (int y = 0; y < s.OH; y++)
        for (int x = 0; x < s.OW; x++) {
            const uint32_t* row = strips.row.data() + (size_t)x * strips.rows + y * s.stride;
            int p = y * s.OW + x;
            const float* shifted = rows - shift(s, y, x) * (U * UNIT);
            Sum<U> sum;
            for (int v = 0; v < U * PER_UNIT; v++) sum.v[v] = load(start + p * s.Mp() + v * LANES);
            sum = add_rows<U, VALUED>(sum, shifted, strips.id.data(), strips.value.data(), row[0], row[s.k]);
            sink(p, sum);
        }
}

// Value that every output of a sample has in every step: bias, and the usual values of the inputs. [position][Mp]
inline void conv_start(const Stage& s, const Events& e, const float* packed, float* start) {
    for (int p = 0; p < s.P(); p++)
        for (size_t n = 0; n < s.Mp(); n++) start[p * s.Mp() + n] = s.bias && n < (size_t)s.M ? s.bias[n] : 0;
    if (!e.usual) return;
    Events usual;
    size_t positions = (size_t)s.PH() * s.PW(), inputs = positions * s.C;
    usual.id = Buffer<uint32_t>(inputs);
    usual.value = Buffer<float>(inputs);
    usual.start = Buffer<uint32_t>(positions + 1);
    for (size_t p = 0, n = 0; p < positions; p++) {
        usual.start[p] = (uint32_t)n;
        for (int c = 0; c < s.C; c++) {
            usual.id[n] = conv_row(s, (int)p / s.PW(), (int)p % s.PW()) + c;
            usual.value[n] = e.usual[p * s.C + c];
            n += usual.value[n] != 0;
        }
        usual.start[p + 1] = (uint32_t)n;
    }
    Strips strips(s, usual.start[positions]);
    strips.fill(s, usual, 0);
    Tiles tiles(s.M, conv_rows(s));
    for (int i = 0; i < tiles.count; i++)
        with_units(tiles[i].units, [&](auto units) {
            constexpr int U = units;
            float* at = start + tiles[i].first;
            conv_step<U, true>(s, strips, packed + conv_rows(s) * tiles[i].first, at, [&](int p, const Sum<U>& sum) {
                for (int v = 0; v < U * PER_UNIT; v++) store(at + p * s.Mp() + v * LANES, sum.v[v]);
            });
        });
}

// A sample's bits in the order of stages; `own` holds them where no stage does.
inline const uint8_t* stage_bits(const Window& w, const Stage& s, const Stage* before, int b, Buffer<uint8_t>& own) {
    if (before) return before->bits + (size_t)b * w.T * before->bytes();
    own = Buffer<uint8_t>((size_t)w.T * s.H * s.W * round_up(s.C, UNIT) / 8);
    to_stage_order(w, b, s, own.data());
    return own.data();
}

// Events of a convolution's input: id is the row of W for the output at (0, 0).
inline Events read_conv(const Window& w, const Stage& s, const Stage* before, int b) {
    std::vector<uint32_t> base(s.PH() * s.PW());
    for (int y = 0, p = 0; y < s.PH(); y++)
        for (int x = 0; x < s.PW(); x++, p++) base[p] = conv_row(s, y, x);
    Buffer<uint8_t> own;
    return read_stage(w, s, stage_bits(w, s, before, b, own), base.data(), true);
}

inline void conv_forward(const Window& w, const Stage& s, const Stage* before, bool last, Report& report) {
    Tiles tiles(s.M, conv_rows(s));
    Buffer<float> packed(conv_rows(s) * s.Mp());
    std::vector<size_t> events(w.B);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> own(s.u && !s.inside ? 1 : w.T * s.width()), start(s.width());
#pragma omp for schedule(static)
        for (int i = 0; i < tiles.count; i++) pack_conv(s, tiles[i], packed.data() + conv_rows(s) * tiles[i].first);
#pragma omp for schedule(dynamic)
        for (int b = 0; b < w.B; b++) {
            Events e = read_conv(w, s, before, b);
            events[b] = e.count;
            size_t most = 0, positions = (size_t)s.PH() * s.PW();
            for (int t = 0; t < w.T; t++)
                most = std::max<size_t>(most, e.start[(t + 1) * positions] - e.start[t * positions]);
            Strips strips(s, most);
            Maps maps = maps_of(w, s, b, last, own.data());
            conv_start(s, e, packed.data(), start.data());
            for (int t = 0; t < w.T; t++) {
                strips.fill(s, e, t);
                for (int i = 0; i < tiles.count; i++)
                    with_units(tiles[i].units, [&](auto units) {
                        constexpr int U = units;
                        const float* rows = packed.data() + conv_rows(s) * tiles[i].first;
                        const float* from = start.data() + tiles[i].first;
                        auto sink = [&](int p, const Sum<U>& sum) { fire_at<U>(w, s, maps, p, t, tiles[i], sum.v); };
                        if (e.value)
                            conv_step<U, true>(s, strips, rows, from, sink);
                        else
                            conv_step<U, false>(s, strips, rows, from, sink);
                    });
            }
            if (s.inside) keep_maps(w, s, b, own.data());
        }
    }
    report.events = density(w, s, events);
    report.forward = Path::EVENTS;
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
