// The backward pass of the stages with maps, sample by sample through all of them: what lies between two of them never
// leaves the cache. Gradients of weights are summed in a fixed number of groups of samples, then over the groups.
#pragma once

#include "stbp/ops/synapse/above.h"
#include "stbp/ops/synapse/taps.h"

namespace stbp {

// Columns of the kernel taken together: their sums slide through registers, so a wider kernel is done in parts.
constexpr int KERNEL_COLUMNS = 7;

// W for the gradient of the input: [unit of 16 input maps][rows of the kernel][columns][output map][row][column][16],
// rows and columns in parts of those that are taken together.
inline Buffer<float> pack_conv_back(const Stage& s) {
    size_t units = round_up(s.C, UNIT) / UNIT, area = (size_t)s.k * s.k;
    Buffer<float> packed(units * area * s.M * UNIT);
    packed.zero();
    for (int n = 0; n < s.M; n++)
        for (int c = 0; c < s.C; c++)
            for (int dy = 0; dy < s.k; dy++) {
                int first = dy / tuning::KERNEL_ROWS * tuning::KERNEL_ROWS;
                int rows = std::min(tuning::KERNEL_ROWS, s.k - first);
                for (int dx = 0; dx < s.k; dx++) {
                    int left = dx / KERNEL_COLUMNS * KERNEL_COLUMNS, columns = std::min(KERNEL_COLUMNS, s.k - left);
                    size_t part = (c / UNIT * area + (size_t)first * s.k + (size_t)rows * left) * s.M;
                    float* to = packed.data() + (part + ((size_t)n * rows + dy - first) * columns) * UNIT;
                    to[(dx - left) * UNIT + c % UNIT] = s.weight[(((size_t)n * s.C + c) * s.k + dy) * s.k + dx];
                }
            }
    return packed;
}

// a of one sample as lists, for every step and output position.
inline void list_maps(const Window& w, const Stage& s, const float* a, Events& e) {
    uint32_t n = 0, *start = e.start.data();
    for (int t = 0; t < w.T; t++)
        for (int p = 0; p < s.P(); p++) {
            *start++ = n;
            const float* row = a + ((size_t)p * w.T + t) * s.Mp();
            for (int i = 0; i < s.M; i += LANES) n += append_nonzero(load(row + i), i, &e.id[n], &e.value[n]);
        }
    *start = n;
    e.count = n;
}

// Raw dX, [padded input position][T][step] for one unit of input maps, of a part of the kernel of R rows and K columns
// from (dy, dx) on. With stride 1 the sums of rows of inputs slide through registers along a row of outputs, else an
// output's are loaded and stored. Still to be summed back in time.
template <int K, int R, bool SLIDES>
inline void input_gradient_of_part(const Window& w, const Stage& s, const Events& e, int dy, int dx,
                                   const float* weights, float* to, size_t step) {
    size_t position = w.T * step, down = (s.PW() + 2 * s.pad) * position, stride = SLIDES ? 1 : s.stride;
    auto each = [](auto f) {
        for (int r = 0; r < R; r++)
            for (int v = 0; v < PER_UNIT; v++) f(r, v);
    };
    for (int t = 0; t < w.T; t++)
        for (int y = 0; y < s.OH; y++) {
            const uint32_t* start = e.start.data() + ((size_t)t * s.OH + y) * s.OW;
            if (start[0] == start[s.OW]) continue;
            float* row = to + (y * stride + dy) * down + dx * position + t * step;
            auto place = [&](int r, int x, int v) { return row + r * down + x * position + v * LANES; };
            Sum<R * K> sum = {};
            auto at = [&](int r, int x, int v) -> vf& { return sum.v[(r * K + x) * PER_UNIT + v]; };
            constexpr int NEW = SLIDES ? K - 1 : 0;    // the first column that an output does not share with the last
            for (int i = 0; i < NEW; i++) each([&](int r, int v) { at(r, i, v) = load(place(r, i, v)); });
            for (int x = 0; x < s.OW; x++) {
                int left = (int)(x * stride);
                for (int i = NEW; i < K; i++) each([&](int r, int v) { at(r, i, v) = load(place(r, left + i, v)); });
                sum = add_rows<R * K, true>(sum, weights, e.id.data(), e.value.data(), start[x], start[x + 1]);
                for (int i = 0; i < K - NEW; i++) each([&](int r, int v) { store(place(r, left + i, v), at(r, i, v)); });
                for (int i = 0; i < NEW; i++) each([&](int r, int v) { at(r, i, v) = at(r, i + 1, v); });
            }
            for (int i = 0; i < NEW; i++) each([&](int r, int v) { store(place(r, s.OW + i, v), at(r, i, v)); });
        }
}

template <int K, int R>
inline void input_gradient_of_part(const Window& w, const Stage& s, const Events& e, int dy, int dx,
                                   const float* weights, float* to, size_t step) {
    if (s.stride == 1)
        input_gradient_of_part<K, R, true>(w, s, e, dy, dx, weights, to, step);
    else
        input_gradient_of_part<K, R, false>(w, s, e, dy, dx, weights, to, step);
}

inline void conv_input_gradient(const Window& w, const Stage& s, const Events& e, const float* weights, float* to,
                                size_t step) {
    for (int dy = 0; dy < s.k; dy += tuning::KERNEL_ROWS)
        for (int dx = 0; dx < s.k; dx += KERNEL_COLUMNS) {
            int rows = std::min(tuning::KERNEL_ROWS, s.k - dy), columns = std::min(KERNEL_COLUMNS, s.k - dx);
            with_number<KERNEL_COLUMNS>(columns, [&](auto k) {
                with_number<tuning::KERNEL_ROWS>(rows, [&](auto r) {
                    input_gradient_of_part<k, r>(w, s, e, dy, dx, weights, to, step);
                });
            });
            weights += (size_t)rows * columns * s.M * UNIT;
        }
}

// Data that a stage needs in every thread, and its gradient's sums of every group.
struct MapStage {
    const Stage& s;
    const Stage* before;
    Tiles tiles;
    size_t sums;                     // floats of a group's gradient: every tile's D, then the bias
    Buffer<float> partial;           // [groups][sums]
    Buffer<float> table, packed;     // of a lookup; of a convolution with a stage below

    MapStage(const Stage& stage, const Stage* below, int groups)
        : s(stage), before(below), tiles(stage.M, stage.kind == Kind::CURRENT ? 1 : conv_rows(stage)) {
        sums = stage.kind == Kind::CURRENT ? 0 : (conv_rows(s) + 1) * tiles.units * UNIT;
        partial = Buffer<float>(sums * groups);
        if (s.kind == Kind::LOOKUP) table = tables_of(s);
        if (before) packed = pack_conv_back(s);
    }
    size_t tile_at(int i) const { return conv_rows(s) * tiles.per_tile * UNIT * i; }
    float* bias(float* D) const { return D + conv_rows(s) * tiles.units * UNIT; }

    // How many outputs of a row are taken together.
    int outputs(const Window& w) const {
        size_t output = (w.T + 1) * tiles.per_tile * UNIT * sizeof(float);
        return std::clamp((int)(tuning::OUTPUTS_BYTES / output), 1, s.OW);
    }
};

// One thread's memory for one stage.
struct MapScratch {
    Buffer<float> g, a, u, quiet, below;
    Events sent;
    MapScratch(const Window& w, const MapStage& m) {
        size_t unit = (size_t)(w.T + 1) * UNIT;
        g = Buffer<float>(unit * m.tiles.per_tile * m.outputs(w));
        if (m.s.kind == Kind::LOOKUP) {
            u = Buffer<float>(unit), quiet = Buffer<float>(unit);
            background(m.s, w.T, quiet.data());
        }
        if (m.s.inside) u = Buffer<float>(w.T * m.s.width());
        if (!m.before) return;
        a = Buffer<float>(w.T * m.s.width());
        sent.id = Buffer<uint32_t>(w.T * m.s.width());
        sent.value = Buffer<float>(w.T * m.s.width());
        sent.start = Buffer<uint32_t>((size_t)w.T * m.s.P() + 1);
        size_t grid = (size_t)(m.s.PH() + 2 * m.s.pad) * (m.s.PW() + 2 * m.s.pad);
        below = Buffer<float>(grid * w.T * round_up(m.s.C, UNIT));
    }
};

inline void scatter_current(const Window& w, const Stage& s, int b, int p, Tile tile, const float* g) {
    for (int t = 0; t < w.T; t++)
        for (int i = 0; i < std::min(tile.width(), s.M - tile.first); i++)
            w.grad_current[(((size_t)t * w.B + b) * s.M + tile.first + i) * s.P() + p] = g[t * tile.width() + i];
}

// A tile of neurons at n outputs from (y, x0) on: dL/do to dL/du, and the sums of the weight's gradient. `u` gives the
// potentials of a position.
template <int U, Surrogate S, class F>
inline void outputs_back(const Window& w, const MapStage& m, int b, int y, int x0, int n, int which, const Above& above,
                         F&& u, const Taps& taps, MapScratch& own, float* D) {
    const Stage& s = m.s;
    Tile tile = m.tiles[which];
    vf all_sums[U * PER_UNIT] = {};
    for (int j = 0; j < n; j++) {
        int p = y * s.OW + x0 + j;
        float* g = own.g.data() + (size_t)j * (w.T + 1) * (U * UNIT);
        gather<U>(w, s, above, p, tile, g);
        vf sum[U * PER_UNIT] = {};
        size_t place = (size_t)p * w.T * s.Mp() + tile.first;
        if (s.fires) {
            float* a = own.a ? own.a.data() + place : nullptr;
            neurons_back<U, S>(s.neuron, w.T, u(p) + tile.first, s.Mp(), w.T * s.Mp(), g, a, s.Mp(), sum);
        } else {
            for (int t = 0; t < w.T; t++)
                for (int v = 0; v < U * PER_UNIT; v++) sum[v] += load(g + t * (U * UNIT) + v * LANES);
        }
        if (s.kind == Kind::CURRENT && w.grad_current) scatter_current(w, s, b, p, tile, g);
        for (int v = 0; v < U * PER_UNIT; v++) {
            store(g + w.T * (U * UNIT) + v * LANES, sum[v]);
            all_sums[v] += sum[v];
        }
    }
    if (s.kind == Kind::CURRENT) return;
    float* bias = m.bias(D) + tile.first;
    for (int v = 0; v < U * PER_UNIT; v++) store(bias + v * LANES, load(bias + v * LANES) + all_sums[v]);
    if (taps.at) add_taps<U>(s, taps, w.T, y, x0, n, own.g.data(), D + m.tile_at(which));
}

// One sample through one stage.
inline void stage_back(const Window& w, const MapStage& m, int b, const Above& above, MapScratch& own, float* D) {
    const Stage& s = m.s;
    Taps taps;
    if (s.grad_weight && s.kind == Kind::CONV) taps = taps_of_conv(w, s, m.before, b);
    if (s.grad_weight && s.kind == Kind::LOOKUP) taps = taps_of_lookup(w, s, b);
    std::vector<Pixels> pixels;
    if (s.kind == Kind::LOOKUP) pixels.emplace_back(w, s, b);
    if (s.inside) restore_maps(w, s, b, own.u.data());
    const float* kept = s.inside ? own.u.data() : s.u ? s.u + (size_t)b * w.T * s.width() : nullptr;
    auto potentials = [&](int p) -> const float* {
        if (s.kind != Kind::LOOKUP) return kept + (size_t)p * w.T * s.Mp();
        if (pixels[0].empty(s, p / s.OW, p % s.OW)) return own.quiet.data();
        lookup_potentials(s, w.T, pixels[0], m.table.data(), p / s.OW, p % s.OW, own.u.data());
        return own.u.data();
    };
    int block = m.outputs(w);
    for (int y = 0; y < s.OH; y++)
        for (int x = 0; x < s.OW; x += block)
            for (int i = 0; i < m.tiles.count; i++)
                with_units(m.tiles[i].units, [&](auto units) {
                    with_curve(s.neuron.surrogate, [&](auto surrogate) {
                        constexpr int U = units;
                        outputs_back<U, surrogate>(w, m, b, y, x, std::min(block, s.OW - x), i, above, potentials, taps,
                                                   own, D);
                    });
                });
}

// Gradient that the stage below gets, and how much of a was not zero.
inline Above send_below(const Window& w, const MapStage& m, MapScratch& own, size_t& sent) {
    const Stage& s = m.s;
    Events& e = own.sent;
    list_maps(w, s, own.a.data(), e);
    sent += e.count;
    own.below.zero();
    size_t step = round_up(s.C, UNIT), part = (size_t)s.k * s.k * s.M * UNIT;
    for (size_t unit = 0; unit < step / UNIT; unit++)
        conv_input_gradient(w, s, e, m.packed.data() + unit * part, own.below.data() + unit * UNIT, step);
    return {own.below.data(), step, w.T * step, s.pool, s.PH(), s.PW(), s.pad, true, s.neuron.back0};
}

inline void unpack_conv(const MapStage& m, int groups) {
    const Stage& s = m.s;
    int area = s.k * s.k;
    auto total = [&](size_t at) {
        float sum = m.partial[at];
        for (int g = 1; g < groups; g++) sum += m.partial[m.sums * g + at];
        return sum;
    };
    for (int i = 0; i < m.tiles.count; i++) {
        Tile tile = m.tiles[i];
        for (int n = 0; n < std::min(tile.width(), s.M - tile.first); n++) {
            int map = tile.first + n;
            if (s.grad_bias) s.grad_bias[map] = total(conv_rows(s) * m.tiles.units * UNIT + map);
            for (int c = 0; s.grad_weight && c < s.C; c++)
                for (int d = 0; d < area; d++)
                    s.grad_weight[((size_t)map * s.C + c) * area + d] =
                        total(m.tile_at(i) + ((size_t)d * s.C + c) * tile.width() + n);
        }
    }
}

// The backward pass of stages[0 .. n), all with maps; `up` is the linear stage above, or none.
inline void maps_back(const Window& w, const Stage* stages, int n, Upper up) {
    int groups = std::min(tuning::MAP_GROUPS, w.B);
    std::vector<MapStage> maps;
    for (int i = 0; i < n; i++) maps.emplace_back(stages[i], i ? &stages[i - 1] : nullptr, groups);
    const Stage& top = stages[n - 1];
    std::vector<uint8_t> live = up.sent ? up.sent->live : live_outside(w, top);
    Tiles tiles(up.stage ? up.stage->inputs() : 1, up.stage ? up.stage->M : 1);
    Buffer<float> rows(up.stage ? (size_t)tiles.units * UNIT * up.stage->M : 1);
    std::vector<size_t> sent((size_t)groups * n, 0);
    size_t width = up.stage ? (size_t)tiles.units * UNIT + UNIT : top.width();
    if (w.grad_current && w.skip) std::memset(w.grad_current, 0, (size_t)w.T * w.B * stages[0].M * stages[0].P() * 4);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        std::vector<MapScratch> own;
        for (const MapStage& m : maps) own.emplace_back(w, m);
        Buffer<float> outside(w.T * width), tile((size_t)w.T * tuning::MAX_UNITS * UNIT);
#pragma omp for schedule(static)
        for (int i = 0; i < (up.stage ? tiles.count : 0); i++)
            pack_back(*up.stage, tiles[i].first, tiles[i].width(),
                      rows.data() + (size_t)i * tiles.per_tile * UNIT * up.stage->M);
#pragma omp for schedule(dynamic)
        for (int g = 0; g < groups; g++) {
            for (MapStage& m : maps) std::memset(m.partial.data() + m.sums * g, 0, m.sums * sizeof(float));
            for (int b = w.B * g / groups; b < w.B * (g + 1) / groups; b++) {
                if (w.skip && !live[b]) continue;
                Above above = up.stage ? from_linear(w, *up.stage, *up.sent, b, tiles, rows.data(), tile, outside)
                                       : from_outside(w, top, b, outside);
                for (int i = n - 1; i >= 0; i--) {
                    stage_back(w, maps[i], b, above, own[i], maps[i].partial.data() + maps[i].sums * g);
                    if (i) above = send_below(w, maps[i], own[i], sent[(size_t)g * n + i]);
                }
            }
        }
#pragma omp for schedule(dynamic)
        for (int i = 0; i < n; i++)
            if (stages[i].kind != Kind::CURRENT) unpack_conv(maps[i], groups);
    }
    double samples = 0;
    for (uint8_t one : live) samples += w.skip ? one : 1;
    for (int i = 0; i < n; i++) {
        double found = 0;
        for (int g = 0; g < groups; g++) found += sent[(size_t)g * n + i];
        Report& report = w.report[i];
        report.gradient = samples ? found / (samples * w.T * stages[i].P() * stages[i].M) : 0;
        if (stages[i].grad_weight) report.weight = Path::BY_SAMPLE;
        if (i) report.input = Path::EVENTS;
    }
}

}  // namespace stbp
