// The backward pass of neurons behind a linear synapse, its weight's gradient, and the gradient of its input.
#pragma once

#include "stbp/ops/synapse/linear.h"

namespace stbp {

// Values that a stage sends down. dL/do of the stage below is dX^t = f(0) dX^{t+1} + W^T a^t, where a^t (see `back` in
// lif.h) is zero for every neuron that neither fired nor was within reach of the threshold.
struct Sent {
    Buffer<float> a;                // [B][T][Mp]
    std::vector<Events> events;     // of every sample: id = neuron, value = a
    std::vector<uint8_t> live;      // 0: the sample's gradient is zero
    bool dense = false;
};

// Appends the lanes of v that are not zero, the first of them number `first`; returns how many there are. Up to a
// vector behind them is written too.
inline uint32_t append_nonzero(vf v, int first, uint32_t* id, float* value) {
    uint32_t m = bits_nonzero(v);
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i number = _mm512_add_epi32(lane, _mm512_set1_epi32(first));
    _mm512_storeu_si512(id, _mm512_maskz_compress_epi32((__mmask16)m, number));
    _mm512_storeu_ps(value, _mm512_maskz_compress_ps((__mmask16)m, (__m512)v));
    return __builtin_popcount(m);
#else
    uint32_t n = 0;
    for (; m; m &= m - 1, n++) {
        int i = __builtin_ctz(m);
        id[n] = first + i;
        value[n] = v[i];
    }
    return n;
#endif
}

// a of one sample as lists of what is not zero.
inline Events nonzero(const float* a, int T, size_t width, int valid) {
    Events e;
    size_t room = 0;
    for (size_t i = 0; i < T * width; i += LANES) room += __builtin_popcount(bits_nonzero(load(a + i)));
    e.id = Buffer<uint32_t>(room + UNIT);
    e.value = Buffer<float>(room + UNIT);
    e.start = Buffer<uint32_t>(T + 1);
    for (int t = 0; t < T; t++) {
        e.start[t] = (uint32_t)e.count;
        for (int i = 0; i < valid; i += LANES)
            e.count += append_nonzero(load(a + t * width + i), i, &e.id[e.count], &e.value[e.count]);
    }
    e.start[T] = (uint32_t)e.count;
    return e;
}

// Lists of every sample, and whether a dense product is the faster way through them.
inline void list_sent(const Window& w, const Stage& s, Sent& sent, Report& report) {
    sent.events.resize(w.B);
#pragma omp parallel for num_threads(w.threads) schedule(static)
    for (int b = 0; b < w.B; b++) {
        FlushDenormals mode;
        if (sent.live[b]) sent.events[b] = nonzero(sent.a.data() + (size_t)b * w.T * s.Mp(), w.T, s.Mp(), s.M);
    }
    double n = 0, all = 0;
    for (int b = 0; b < w.B; b++) {
        bool some = sent.events[b].count > 0;    // skipped or not: the choice must not depend on it
        if (some) n += sent.events[b].count, all += (double)w.T * s.M;
        if (w.skip) sent.live[b] = some;
    }
    report.gradient = all ? n / all : 0;
    sent.dense = report.gradient > tuning::DENSE;
}

// Columns [first, first + width) of W in the order of our inputs: [M][width], zero beyond the last input.
inline void pack_back(const Stage& s, int first, int width, float* rows) {
    int K = s.inputs(), valid = std::min(width, K - first);
    for (int n = 0; n < s.M; n++) {
        float* row = rows + (size_t)n * width;
        for (int j = 0; j < valid; j++) row[j] = s.weight[(size_t)n * K + column(s, first + j)];
        for (int j = valid; j < width; j++) row[j] = 0;
    }
}

// dL/do of one sample's tile of the stage below, [T][U * 16].
template <int U>
inline void input_gradient(const Window& w, const Stage& up, const Sent& sent, int b, const float* rows, float* to) {
    constexpr int NV = U * PER_UNIT;
    vf keep = all(up.neuron.back0);
    Sum<U> sum = {};
    if (sent.dense) {
        dense_product<U>(sent.a.data() + (size_t)b * w.T * up.Mp(), up.Mp(), w.T, up.M, rows, sum.v, [&](int t, vf* y) {
            for (int v = 0; v < NV; v++) store(to + t * (U * UNIT) + v * LANES, y[v]);
        });
        for (int t = w.T - 1; t >= 0; t--)
            for (int v = 0; v < NV; v++) {
                float* at = to + t * (U * UNIT) + v * LANES;
                sum.v[v] = fma(keep, sum.v[v], load(at));
                store(at, sum.v[v]);
            }
        return;
    }
    const Events& e = sent.events[b];
    for (int t = w.T - 1; t >= 0; t--) {
        for (int v = 0; v < NV; v++) sum.v[v] *= keep;
        sum = add_rows<U, true>(sum, rows, e.id.data(), e.value.data(), e.start[t], e.start[t + 1]);
        for (int v = 0; v < NV; v++) store(to + t * (U * UNIT) + v * LANES, sum.v[v]);
    }
}

// The gradient that comes from outside, of one sample's tile: [T][U * 16], zero beyond the last neuron.
template <int U>
inline void outside_gradient(const Window& w, const Stage& s, int b, Tile tile, float* to) {
    int n = std::min(tile.width(), s.M - tile.first);
    if (n < tile.width()) std::memset(to, 0, (size_t)w.T * tile.width() * sizeof(float));
    for (int t = 0; t < w.T; t++)
        std::memcpy(to + t * tile.width(), w.grad + ((size_t)t * w.B + b) * s.M + tile.first, n * sizeof(float));
}

// Backward through U units of neurons: `g`, [T][U * 16], holds dL/do and becomes dL/du. `u` and `a` have rows of
// `stride` and `a_stride` floats; `a` may be null. `ahead` is how far the potentials lie that will be read next: they
// are fetched meanwhile.
template <int U, Surrogate S>
inline void neurons_back(const Lif& n, int T, const float* u, size_t stride, ptrdiff_t ahead, float* g, float* a,
                         size_t a_stride, vf* sum) {
    for (int v = 0; v < U * PER_UNIT; v++) {
        vf eps = {}, over_time = {};
        for (int t = T - 1; t >= 0; t--) {
            const float* at = u + t * stride + v * LANES;
            float* gt = g + t * (U * UNIT) + v * LANES;
            __builtin_prefetch(at + ahead);
            vf part = n.back<S>(load(at), load(gt), eps);
            store(gt, eps);
            if (a) store(a + t * a_stride + v * LANES, part);
            over_time += eps;
        }
        sum[v] = over_time;
    }
}

// An input's share of the gradient: the sum over its events, and its usual value times the sum of all steps.
template <bool VALUED>
inline vf with_usual(vf events, float usual, vf total) {
    return VALUED ? fma(all(usual), total, events) : usual * total + (1 - 2 * usual) * events;
}

// D[input] += sum of the rows of g, [chunk * T][U * 16], in which the input fires; `total` is the sum of all of them.
template <int U, bool VALUED>
inline void add_weight_gradient(const Times& times, const float* g, const vf* total, float* D) {
    constexpr int NV = U * PER_UNIT;
    const Times::Input* end = times.input.data() + times.input.size();
    for (const Times::Input& input : times.input) {
        const float* next = D + (size_t)(&input + 1 < end ? (&input)[1].key : 0) * (U * UNIT);
        for (int v = 0; v < U * PER_UNIT; v += tuning::LINE / sizeof(vf)) __builtin_prefetch(next + v * LANES, 1);
        Sum<U> sum = add_rows<U, VALUED>({}, g, times.row.data(), times.value.data(), input.first, input.end);
        float* d = D + (size_t)input.key * (U * UNIT);
        for (int v = 0; v < NV; v++)
            store(d + v * LANES, load(d + v * LANES) + with_usual<VALUED>(sum.v[v], input.usual, total[v]));
    }
}

// The same for a single unit of outputs, step by step: no lists, and the whole of D stays in the nearest caches.
inline void add_by_step(Rows rows, int T, const float* g, float* D) {
    for (int t = 0; t < T; t++) {
        vf row[PER_UNIT];
        for (int v = 0; v < PER_UNIT; v++) row[v] = load(g + t * UNIT + v * LANES);
        for (size_t i = 0; i < rows.bytes; i += 8) {
            uint64_t w = word(rows.first + t * rows.stride + i, rows.bytes - i);
            for (; w; w &= w - 1) {
                float* d = D + (i * 8 + __builtin_ctzll(w)) * UNIT;
                for (int v = 0; v < PER_UNIT; v++) store(d + v * LANES, load(d + v * LANES) + row[v]);
            }
        }
    }
}

// Samples whose gradients are summed over an input's events before the gradient's row is touched: one where an input
// fires often in a window, several where it is rare.
inline int chunk_size(const Window& w, const Stage& s, const Stage* before, int per_tile) {
    if (steps_per_input(w, s, before) >= tuning::STEPS_PER_INPUT) return 1;
    size_t sample = (size_t)w.T * per_tile * UNIT * sizeof(float);
    return std::max(1, (int)(tuning::CHUNK_BYTES / sample));
}

// How the work on a stage is cut: tiles of neurons times groups of samples, the same for any number of threads.
struct Plan {
    Tiles tiles;
    int groups, chunk, per_group;    // chunks of a group
    bool by_step;
    int first(int group, int c, int B) const { return std::min(end(group, B), start(group, B) + c * chunk); }
    int start(int group, int B) const { return (int)((int64_t)B * group / groups); }
    int end(int group, int B) const { return start(group + 1, B); }
};

inline Plan plan_back(const Window& w, const Stage& s, const Stage* before, bool weighted) {
    Plan plan{Tiles(s.M, s.inputs(), tuning::MAX_UNITS, tuning::GRADIENT_TILE_BYTES), 1, 1, 0, false};
    plan.groups = std::clamp(std::min(tuning::LINEAR_GROUPS / plan.tiles.count, w.B), 1, tuning::LINEAR_GROUPS);
    plan.by_step = plan.tiles.units == 1 && rows_of(w, s, before, 0).first;
    if (weighted && !plan.by_step) plan.chunk = chunk_size(w, s, before, plan.tiles.per_tile);
    int most = (w.B + plan.groups - 1) / plan.groups + 1;
    plan.per_group = (most + plan.chunk - 1) / plan.chunk;
    return plan;
}

struct Upper {
    const Stage* stage = nullptr;    // null: the gradient comes from outside
    const Sent* sent = nullptr;
};

// One task of a stage's backward pass: a tile of neurons, a group of samples.
template <int U, Surrogate S>
inline void back_task(const Window& w, const Stage& s, const Stage* before, Upper up, const Plan& plan, int group,
                      Tile tile, const std::vector<Times>& times, const uint8_t* live, const float* up_rows, float* g,
                      Sent* sent, float* D, float* db) {
    constexpr int NV = U * PER_UNIT;
    vf all_sums[NV] = {};
    for (int c = 0; c < plan.per_group; c++) {
        int first = plan.first(group, c, w.B), end = plan.first(group, c + 1, w.B);
        vf sum[NV] = {};
        for (int b = first; b < end; b++) {
            float* gb = g + (size_t)(b - first) * w.T * tile.width();
            if (w.skip && !live[b]) {
                if (plan.chunk > 1) std::memset(gb, 0, (size_t)w.T * tile.width() * sizeof(float));
                continue;
            }
            if (up.stage)
                input_gradient<U>(w, *up.stage, *up.sent, b, up_rows, gb);
            else
                outside_gradient<U>(w, s, b, tile, gb);
            size_t place = (size_t)b * w.T * s.Mp() + tile.first;
            if (s.fires) {
                float* a = sent ? sent->a.data() + place : nullptr;
                if (S == Surrogate::rectangle && s.inside) {
                    kept_neurons_back<U>(w, s, b, tile.first, gb, a, s.Mp(), sum);
                } else {
                    ptrdiff_t ahead = b + 1 < w.B ? w.T * s.Mp() : 0;
                    neurons_back<U, S>(s.neuron, w.T, s.u + place, s.Mp(), ahead, gb, a, s.Mp(), sum);
                }
            } else {
                for (int v = 0; v < NV; v++) sum[v] = vf{};
                for (int t = 0; t < w.T; t++)
                    for (int v = 0; v < NV; v++) sum[v] += load(gb + t * tile.width() + v * LANES);
            }
            for (int v = 0; v < NV; v++) all_sums[v] += sum[v];
        }
        if (!D || first == end || (w.skip && plan.chunk == 1 && !live[first])) continue;
        if (plan.by_step) {
            add_by_step(rows_of(w, s, before, first), w.T, g, D);
            continue;
        }
        const Times& lists = times[group * plan.per_group + c];
        if (lists.value)
            add_weight_gradient<U, true>(lists, g, sum, D);
        else
            add_weight_gradient<U, false>(lists, g, sum, D);
    }
    for (int v = 0; v < NV; v++) store(db + v * LANES, all_sums[v]);
}

// The sum over groups of a tile's D and db, into torch's layout.
inline void unpack_gradient(const Stage& s, Tile tile, const float* D, const float* db, int groups, size_t step,
                            size_t db_step) {
    int K = s.inputs(), width = tile.width(), valid = std::min(width, s.M - tile.first);
    for (int n = 0; s.grad_bias && n < valid; n++) {
        float sum = db[n];
        for (int g = 1; g < groups; g++) sum += db[g * db_step + n];
        s.grad_bias[tile.first + n] = sum;
    }
    if (!s.grad_weight) return;
    float* to = s.grad_weight + (size_t)tile.first * K;
    if (groups == 1 && s.in_order()) return transpose(D, width, K, valid, to, K);
    for (int n = 0; n < valid; n++)
        for (int k = 0; k < K; k++) {
            float sum = D[(size_t)k * width + n];
            for (int g = 1; g < groups; g++) sum += D[g * step + (size_t)k * width + n];
            to[(size_t)n * K + column(s, k)] = sum;
        }
}

inline std::vector<Times> times_of(const Window& w, const Stage& s, const Stage* before, const Plan& plan) {
    std::vector<Times> times(plan.groups * plan.per_group);
#pragma omp parallel num_threads(w.threads)
    {
        StepMap map(w.T, s.inputs());
#pragma omp for schedule(static)
        for (int i = 0; i < (int)times.size(); i++) {
            int group = i / plan.per_group, c = i % plan.per_group;
            int first = plan.first(group, c, w.B), end = plan.first(group, c + 1, w.B);
            Rows rows = rows_of(w, s, before, first);
            if (end == first + 1 && rows.first) {
                times[i] = by_input(rows, w.T, map);
                continue;
            }
            if (end <= first) continue;
            std::vector<Events> events;
            for (int b = first; b < end; b++) events.push_back(read_linear(w, s, before, b));
            times[i] = by_input(events, w.T, s.inputs());
        }
    }
    return times;
}

inline std::vector<uint8_t> live_outside(const Window& w, const Stage& s) {
    std::vector<uint8_t> live(w.B, 0);
    size_t n = (size_t)s.M * s.P();
    for (int b = 0; b < w.B; b++)
        for (int t = 0; t < w.T && !live[b]; t++)
            for (size_t i = 0; i < n && !live[b]; i++) live[b] = w.grad[((size_t)t * w.B + b) * n + i] != 0;
    return live;
}

// The backward pass of a linear stage: gradients of its weight and bias, and with `sent` what the stage below needs.
inline void linear_back(const Window& w, const Stage& s, const Stage* before, Upper up, Sent* sent, Report& report) {
    bool weighted = s.grad_weight;
    Plan plan = plan_back(w, s, before, weighted);
    std::vector<Times> times;
    if (weighted && !plan.by_step) times = times_of(w, s, before, plan);
    if (weighted) report.weight = plan.by_step ? Path::BY_STEP : plan.chunk == 1 ? Path::BY_SAMPLE : Path::BY_INPUT;
    std::vector<uint8_t> live = up.sent ? up.sent->live : live_outside(w, s);
    if (sent) {
        sent->a = Buffer<float>((size_t)w.B * w.T * s.Mp());
        sent->live = w.skip ? live : std::vector<uint8_t>(w.B, 1);
    }
    int widest = plan.tiles.per_tile * UNIT, K = s.inputs();
    size_t step = (size_t)K * widest, tasks = (size_t)plan.tiles.count * plan.groups;
    bool shared = plan.groups > 1;
    Buffer<float> partial(shared ? step * tasks : 1), biases(tasks * widest);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> own(shared ? 1 : step), g((size_t)plan.chunk * w.T * widest);
        Buffer<float> rows(up.stage ? (size_t)up.stage->M * widest : 1);
#pragma omp for schedule(static)  // as in the forward pass: what a thread kept is in its own cache
        for (int task = 0; task < (int)tasks; task++) {
            int which = task / plan.groups, group = task % plan.groups;
            Tile tile = plan.tiles[which];
            if (up.stage) pack_back(*up.stage, tile.first, tile.width(), rows.data());
            float* D = shared ? partial.data() + step * task : own.data();
            float* db = biases.data() + (size_t)task * widest;
            if (weighted) std::memset(D, 0, step * sizeof(float));
            with_units(tile.units, [&](auto units) {
                with_curve(s.neuron.surrogate, [&](auto surrogate) {
                    constexpr int U = units;
                    back_task<U, surrogate>(w, s, before, up, plan, group, tile, times, live.data(), rows.data(),
                                            g.data(), sent, weighted ? D : nullptr, db);
                });
            });
            if (!shared) unpack_gradient(s, tile, D, db, 1, 0, 0);
        }
        if (shared) {
#pragma omp for schedule(static)
            for (int which = 0; which < plan.tiles.count; which++) {
                size_t task = (size_t)which * plan.groups;
                unpack_gradient(s, plan.tiles[which], partial.data() + step * task, biases.data() + task * widest,
                                plan.groups, step, widest);
            }
        }
    }
    if (!sent) return;
    list_sent(w, s, *sent, report);
    report.input = sent->dense ? Path::DENSE : Path::EVENTS;
}

}  // namespace stbp
