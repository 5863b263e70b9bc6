// The linear synapse on events, with the neurons behind it: forward, and the gradients of weight and bias.
#pragma once

#include "stbp/ops/native/transpose.h"
#include "stbp/ops/synapse/events.h"
#include "stbp/ops/synapse/kept.h"

namespace stbp {

// A row of up to U * 16 floats to memory that holds only `n` of them.
template <int U>
inline void store_part(float* to, const vf* row, int n) {
    int v = 0;
    for (; v < U * PER_UNIT && (v + 1) * LANES <= n; v++) store(to + v * LANES, row[v]);
    if (v < U * PER_UNIT && v * LANES < n) std::memcpy(to + v * LANES, &row[v], (n - v * LANES) * sizeof(float));
}

// One step of U units of neurons: potentials `u` in place, who fires into `fired` and, where it is not null, `o`.
template <int U>
inline void fire(const Lif& n, vf* u, const vf* x, uint32_t* fired, vf* o) {
    for (int j = 0; j < U; j++) {
        fired[j] = 0;
        for (int i = 0; i < PER_UNIT; i++) {
            int v = j * PER_UNIT + i;
            u[v] = n.step(u[v], x[v]);
            fired[j] |= bits_ge(u[v], all(n.threshold)) << (i * LANES);
        }
    }
    if (o)
        for (int v = 0; v < U * PER_UNIT; v++) o[v] = u[v] >= n.threshold ? all(1.0f) : vf{};
}

// The currents of one sample's tile go through the neurons step by step and out to marks, potentials and output.
template <int U>
struct Sink {
    const Stage& s;
    const Window& w;
    int b;
    Tile tile;
    uint32_t* marks;    // of the tile's first unit and this sample; null where nobody needs them
    float** kept;       // of every unit, where its next potential within reach goes
    vf u[U * PER_UNIT] = {};

    __attribute__((always_inline)) void operator()(int t, const vf* x) {
        vf o[U * PER_UNIT];
        const vf* out = x;
        if (s.fires) {
            uint32_t mark[U];
            fire<U>(s.neuron, u, x, mark, w.out ? o : nullptr);
            if (s.inside)
                keep(mark);
            else if (s.u)
                for (int v = 0; v < U * PER_UNIT; v++)
                    store(s.u + ((size_t)b * w.T + t) * s.Mp() + tile.first + v * LANES, u[v]);
            if (marks)
                for (int j = 0; j < U; j++) marks[j * marks_of_unit(w) + t] = mark[j];
            out = o;
        }
        if (w.out) store_part<U>(w.out + ((size_t)t * w.B + b) * s.M + tile.first, out, s.M - tile.first);
    }

    __attribute__((always_inline)) void keep(uint32_t* mark) {
        vf half = half_window(s);
        for (int j = 0; j < U; j++) {
            uint32_t valid = valid_lanes(s, tile.first + j * UNIT);
            mark[j] |= (uint32_t)keep_unit(s, u + j * PER_UNIT, half, valid, kept[j]) << UNIT;
        }
    }
};

// Who fired, of one sample, from the units' marks to rows of bits, [T][Mp / 8].
inline void spikes_of(const Window& w, const Stage& s, const uint32_t* marks, int b) {
    uint8_t* rows = s.bits + (size_t)b * w.T * s.bytes();
    for (size_t unit = 0; unit < s.Mp() / UNIT; unit++) {
        const uint32_t* mark = marks + unit * marks_of_unit(w) + (size_t)b * w.T;
        for (int t = 0; t < w.T; t++) {
            uint16_t fired = (uint16_t)mark[t];
            std::memcpy(rows + t * s.bytes() + 2 * unit, &fired, 2);
        }
    }
}

// The tile's columns of W^T: [inputs][U * 16], zero beyond the last output.
inline void pack_forward(const Stage& s, Tile tile, float* rows) {
    int K = s.inputs(), width = tile.width(), valid = std::min(width, s.M - tile.first);
    const float* weight = s.weight + (size_t)tile.first * K;
    if (valid < width) std::memset(rows, 0, (size_t)K * width * sizeof(float));
    if (s.in_order()) return transpose(weight, K, valid, K, rows, width);
    for (int n = 0; n < valid; n++)
        for (int k = 0; k < K; k++) rows[(size_t)k * width + n] = weight[(size_t)n * K + column(s, k)];
}

// U units of sums.
template <int U>
struct Sum {
    vf v[U * PER_UNIT];
};

template <int U>
inline Sum<U> bias_of(const Stage& s, Tile tile) {
    alignas(64) float row[U * UNIT] = {};
    if (s.bias) std::memcpy(row, s.bias + tile.first, std::min(tile.width(), s.M - tile.first) * sizeof(float));
    Sum<U> bias;
    for (int v = 0; v < U * PER_UNIT; v++) bias.v[v] = load(row + v * LANES);
    return bias;
}

// `sum` plus or minus the rows with these ids. It is passed and returned by value so that it stays in registers.
template <int U, bool VALUED>
inline Sum<U> add_rows(Sum<U> sum, const float* rows, const uint32_t* id, const float* value, uint32_t first,
                       uint32_t end) {
    for (uint32_t i = first; i < end; i++) {
        const float* row = rows + (size_t)id[i] * (U * UNIT);
        if constexpr (VALUED) {
            vf x = all(value[i]);
            for (int v = 0; v < U * PER_UNIT; v++) sum.v[v] = fma(x, load(row + v * LANES), sum.v[v]);
        } else {
            for (int v = 0; v < U * PER_UNIT; v++) sum.v[v] += load(row + v * LANES);
        }
    }
    return sum;
}

template <int U>
inline Sum<U> subtract_rows(Sum<U> sum, const float* rows, const uint32_t* id, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++) {
        const float* row = rows + (size_t)id[i] * (U * UNIT);
        for (int v = 0; v < U * PER_UNIT; v++) sum.v[v] -= load(row + v * LANES);
    }
    return sum;
}

// For narrow tiles, where the order of summation is free: several sums take turns.
template <int U>
inline Sum<U> add_rows_by_turns(Sum<U> sum, const float* rows, const uint32_t* id, uint32_t first, uint32_t end) {
    constexpr int TURNS = tuning::turns(U);
    Sum<U> turn[TURNS] = {sum};
    for (; first + TURNS <= end; first += TURNS)
        for (int j = 0; j < TURNS; j++) {
            const float* row = rows + (size_t)id[first + j] * (U * UNIT);
            for (int v = 0; v < U * PER_UNIT; v++) turn[j].v[v] += load(row + v * LANES);
        }
    turn[0] = add_rows<U, false>(turn[0], rows, id, nullptr, first, end);
    for (int j = 1; j < TURNS; j++)
        for (int v = 0; v < U * PER_UNIT; v++) turn[0].v[v] += turn[j].v[v];
    return turn[0];
}

template <int U, bool VALUED>
inline void linear_events(const Coded& c, int T, const float* rows, const Sum<U>& bias, bool by_turns, Sink<U> sink) {
    Sum<U> base = add_rows<U, VALUED>(bias, rows, c.base, c.base_value.data(), 0, (uint32_t)c.bases);
    const uint32_t* id = c.id;
    for (int t = 0; t < T; t++) {
        uint32_t first = c.start[2 * t], minus = c.start[2 * t + 1], end = c.start[2 * t + 2];
        Sum<U> x = U <= 2 && !VALUED && by_turns
                       ? add_rows_by_turns<U>(base, rows, id, first, minus)
                       : add_rows<U, VALUED>(base, rows, id, c.value.data(), first, minus);
        x = subtract_rows<U>(x, rows, id, minus, end);
        sink(t, x.v);
    }
}

// y[r] = start + sum over k of x[r][k] rows[k] for R rows of x, in the order of k: what an event list of the same
// input gives, bit for bit, since a product with zero adds nothing.
template <int R, int NV>
inline void dense_block(const float* x, size_t x_stride, int K, const float* rows, size_t row_stride, const vf* start,
                        vf (*y)[NV]) {
    vf sum[R][NV];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < NV; v++) sum[r][v] = start[v];
    for (int k = 0; k < K; k++) {
        vf row[NV];
        for (int v = 0; v < NV; v++) row[v] = load(rows + k * row_stride + v * LANES);
        for (int r = 0; r < R; r++) {
            vf value = all(x[r * x_stride + k]);
            for (int v = 0; v < NV; v++) sum[r][v] = fma(value, row[v], sum[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < NV; v++) y[r][v] = sum[r][v];
}

// The product of x, [T][K], with rows [K][U * 16], each row given to `sink(t, y)`; registers hold some steps of a tile.
template <int U, class F>
inline void dense_product(const float* x, size_t stride, int T, int K, const float* rows, const vf* start, F&& sink) {
    constexpr int NV = U * PER_UNIT, R = tuning::DENSE_STEPS, PART = LANES == 16 ? NV : PER_UNIT;
    for (int t = 0; t < T; t += R) {
        vf y[R][NV];
        int n = std::min(R, T - t);
        for (int part = 0; part < NV; part += PART) {
            vf block[R][PART];
            const float* from = rows + part * LANES;
            if (n == R)
                dense_block<R, PART>(x + t * stride, stride, K, from, U * UNIT, start + part, block);
            else
                for (int r = 0; r < n; r++)
                    dense_block<1, PART>(x + (t + r) * stride, stride, K, from, U * UNIT, start + part, block + r);
            for (int r = 0; r < n; r++)
                for (int v = 0; v < PART; v++) y[r][part + v] = block[r][v];
        }
        for (int r = 0; r < n; r++) sink(t + r, y[r]);
    }
}

inline void to_dense(const Coded& c, int T, size_t K, float* x) {
    std::memset(x, 0, T * K * sizeof(float));
    for (int t = 0; t < T; t++) {
        float* row = x + t * K;
        for (size_t j = 0; j < c.bases; j++) row[c.base[j]] = c.base_value ? c.base_value[j] : 1.0f;
        for (uint32_t i = c.start[2 * t]; i < c.start[2 * t + 1]; i++) row[c.id[i]] += c.value ? c.value[i] : 1.0f;
        for (uint32_t i = c.start[2 * t + 1]; i < c.start[2 * t + 2]; i++) row[c.id[i]] -= 1.0f;
    }
}

struct Input {
    std::vector<Coded> coded;    // of all samples; empty where each is read in its turn: see `read_batch`
    double density = 0;    // of the events
    bool dense = false;
};

// The rows of a linear synapse's input, where its bits lie in the order of the inputs; else `first` is null.
inline Rows rows_of(const Window& w, const Stage& s, const Stage* before, int b) {
    if (s.inputs() != s.C || s.pool > 1) return {nullptr, 0, 0};
    if (!before) return input_rows(w, b, s.C);
    return {before->bits + (size_t)b * w.T * before->bytes(), before->bytes(), before->bytes()};
}

inline Events read_linear(const Window& w, const Stage& s, const Stage* before, int b) {
    if (Rows rows = rows_of(w, s, before, b); rows.first) return read_rows(rows, w.T);
    std::vector<uint32_t> base(s.PH() * s.PW());
    for (size_t p = 0; p < base.size(); p++) base[p] = (uint32_t)(p * s.C);
    if (before) return read_stage(w, s, before->bits + (size_t)b * w.T * before->bytes(), base.data(), false);
    Buffer<uint8_t> own((size_t)w.T * s.H * s.W * round_up(s.C, UNIT) / 8);
    to_stage_order(w, b, s, own.data());
    return read_stage(w, s, own.data(), base.data(), false);
}

// In how many steps of a window an input fires that does so at all: the mean over a few samples; many if not known.
inline double steps_per_input(const Window& w, const Stage& s, const Stage* before) {
    size_t n = 0, active = 0;
    for (int b = 0; b < std::min(w.B, tuning::JUDGED_SAMPLES); b++) {
        Rows rows = rows_of(w, s, before, b);
        if (!rows.first) return w.T;
        std::vector<uint8_t> seen(rows.bytes, 0);
        for (int t = 0; t < w.T; t++) {
            const uint8_t* row = rows.first + t * rows.stride;
            n += ones(row, rows.bytes);
            for (size_t j = 0; j < rows.bytes; j++) seen[j] |= row[j];
        }
        active += ones(seen.data(), rows.bytes);
    }
    return active ? (double)n / active : w.T;
}

// The batch's events in the coding that the forward pass will use, and whether events are used at all. What a single
// tile wants, as it stands in the bits, is only counted: a sample's list is read when its turn comes, into memory that
// the thread has just used. Lists of all samples would lie where another thread worked.
inline Input read_batch(const Window& w, const Stage& s, const Stage* before, bool once) {
    Input in;
    std::vector<size_t> events(w.B), rows(w.B);
    bool usual = s.complement() && s.M > tuning::FEW_OUTPUTS && steps_per_input(w, s, before) >= tuning::usual_steps(w.T);
    bool later = once && !usual && rows_of(w, s, before, 0).first;
    if (!later) in.coded.resize(w.B);
#pragma omp parallel num_threads(w.threads)
    {
        Majority majority;
#pragma omp for schedule(static)
        for (int b = 0; b < w.B; b++) {
            Rows from = rows_of(w, s, before, b);
            if (later) {
                for (int t = 0; t < w.T; t++) events[b] += ones(from.first + t * from.stride, from.bytes);
                rows[b] = events[b];
                continue;
            }
            if (usual && from.first)
                in.coded[b] = complement_code(from, w.T, majority);
            else
                in.coded[b] = plain_code(read_linear(w, s, before, b), w.T);
            events[b] = in.coded[b].fired;
            rows[b] = in.coded[b].start[2 * w.T] + in.coded[b].bases;
        }
    }
    in.density = density(w, s, events);
    in.dense = density(w, s, rows) > tuning::DENSE;
    return in;
}

inline void linear_forward(const Window& w, const Stage& s, const Stage* before, bool last, Report& report) {
    Window to = w;
    if (!last) to.out = nullptr;
    int K = s.inputs();
    Tiles tiles(s.M, K);
    Input in = read_batch(w, s, before, tiles.count == 1);
    report.events = in.density;
    report.forward = in.dense ? Path::DENSE : Path::EVENTS;
    int parts = std::clamp((w.B + tuning::PART_SAMPLES - 1) / tuning::PART_SAMPLES, 1, tuning::PARTS);
    Buffer<uint32_t> own(s.bits && !s.inside ? s.Mp() / UNIT * marks_of_unit(w) : 1);
    uint32_t* marks = s.inside ? marks_of(s) : s.bits ? own.data() : nullptr;
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> rows((size_t)K * tiles.per_tile * UNIT), x(in.dense ? (size_t)w.T * K : 1);
        int packed = -1;
#pragma omp for schedule(static)  // neighbours share a tile: each thread packs it once
        for (int task = 0; task < tiles.count * parts; task++) {
            Tile tile = tiles[task / parts];
            if (packed != tile.first) pack_forward(s, tile, rows.data()), packed = tile.first;
            // Threads start with different samples: in step they would write into the same cache lines of spikes.
            int64_t part = (task % parts + task / parts * parts / tiles.count) % parts;
            int first = (int)(w.B * part / parts), end = (int)(w.B * (part + 1) / parts);
            with_units(tile.units, [&](auto units) {
                constexpr int U = units;
                Sum<U> bias = bias_of<U>(s, tile);
                float* kept[U];
                for (int j = 0; j < U && s.inside; j++)
                    kept[j] = kept_unit(w, s, tile.first / UNIT + j, (int)part, first);
                for (int b = first; b < end; b++) {
                    for (int j = 0; j < U && s.inside; j++) {
                        uint64_t place = kept[j] - s.u;
                        std::memcpy(kept_place(w, s, tile.first / UNIT + j, b), &place, sizeof place);
                    }
                    size_t place = tile.first / UNIT * marks_of_unit(w) + (size_t)b * w.T;
                    Sink<U> sink{s, to, b, tile, marks ? marks + place : nullptr, kept};
                    Coded own;
                    if (in.coded.empty()) own = plain_code(read_linear(w, s, before, b), w.T);
                    const Coded& coded = in.coded.empty() ? own : in.coded[b];
                    if (in.dense) {
                        to_dense(coded, w.T, K, x.data());
                        dense_product<U>(x.data(), K, w.T, K, rows.data(), bias.v, sink);
                    } else if (coded.value) {
                        linear_events<U, true>(coded, w.T, rows.data(), bias, s.complement(), sink);
                    } else {
                        linear_events<U, false>(coded, w.T, rows.data(), bias, s.complement(), sink);
                    }
                }
            });
        }
        if (s.bits) {
#pragma omp for schedule(static)
            for (int b = 0; b < w.B; b++) spikes_of(w, s, marks, b);
        }
    }
}

}  // namespace stbp
