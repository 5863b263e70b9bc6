// A first convolution on few maps: the sum over a row of the kernel is a table's entry, whatever fires in it.
#pragma once

#include "stbp/ops/synapse/conv.h"

namespace stbp {

// A row of pixels and its padding lie in one word of 64 bits, from any bit of its first byte on.
constexpr int LOOKUP_WIDTH = 56;

// True where a convolution of the network's own bits can be looked up.
inline bool looks_up(const StageOrder& s) {
    if (s.pool != 1 || s.M > UNIT || s.C * s.k > tuning::LOOKUP_ROWS || s.W + 2 * s.pad > LOOKUP_WIDTH) return false;
    return ((size_t)s.C * s.k << s.k) * UNIT * sizeof(float) <= tuning::LOOKUP_BYTES;
}

// For row r = map * k + dy of the kernel and every pattern of its k pixels the sum of their weights: [rows][2^k][16].
inline Buffer<float> tables_of(const Stage& s) {
    int rows = s.C * s.k, patterns = 1 << s.k;
    Buffer<float> table((size_t)rows * patterns * UNIT);
    table.zero();
    for (int r = 0; r < rows; r++)
        for (int pattern = 1; pattern < patterns; pattern++) {
            int dx = 31 - __builtin_clz(pattern);
            float* to = table.data() + ((size_t)r * patterns + pattern) * UNIT;
            const float* rest = table.data() + ((size_t)r * patterns + (pattern ^ 1 << dx)) * UNIT;
            for (int n = 0; n < s.M; n++) to[n] = rest[n] + s.weight[((size_t)n * s.C * s.k + r) * s.k + dx];
        }
    return table;
}

// One sample's input: every row of pixels, padded, as a word for every step, and which pixels fire at all.
struct Pixels {
    int height;
    Buffer<uint64_t> word;    // [C][height][T]
    Buffer<uint64_t> any;     // [C][height]

    Pixels(const Window& w, const Stage& s, int b) : height(s.H + 2 * s.pad) {
        word = Buffer<uint64_t>((size_t)s.C * height * w.T);
        any = Buffer<uint64_t>((size_t)s.C * height);
        word.zero();
        any.zero();
        Rows rows = input_rows(w, b, (size_t)s.C * s.H * s.W);
        uint64_t mask = (1ull << s.W) - 1;
        for (int t = 0; t < w.T; t++) {
            const uint8_t* row = rows.first + t * rows.stride;
            for (int c = 0; c < s.C; c++)
                for (int y = 0; y < s.H; y++) {
                    size_t bit = ((size_t)c * s.H + y) * s.W, byte = bit / 8;
                    uint64_t x = stbp::word(row + byte, rows.bytes - byte) >> bit % 8;
                    if (bit % 8 + s.W > 64) x |= (uint64_t)row[byte + 8] << (64 - bit % 8);
                    x = (x & mask) << s.pad;
                    word[((size_t)c * height + y + s.pad) * w.T + t] = x;
                    any[(size_t)c * height + y + s.pad] |= x;
                }
        }
    }

    // True if no pixel that the output at (y, x) sees ever fires.
    bool empty(const Stage& s, int y, int x) const {
        uint64_t seen = 0;
        for (int c = 0; c < s.C; c++)
            for (int dy = 0; dy < s.k; dy++) seen |= any[(size_t)c * height + y * s.stride + dy];
        return !(seen >> x * s.stride & ((1ull << s.k) - 1));
    }
};

// Potentials, [T][16], of the output at (y, x); a fixed number of rows of the kernel lets the sum stay in registers.
template <int ROWS>
inline void lookup_potentials(const Stage& s, int T, const Pixels& pixels, const float* table, int y, int x, float* u) {
    constexpr int STEPS = tuning::LOOKUP_STEPS, MOST = ROWS ? ROWS : tuning::LOOKUP_ROWS;
    int rows = ROWS ? ROWS : s.C * s.k, patterns = 1 << s.k;
    uint32_t entry[MOST * STEPS];
    Sum<1> bias = bias_of<1>(s, {0, 1});
    vf now[PER_UNIT] = {};
    for (int first = 0; first < T; first += STEPS, u += STEPS * UNIT) {
        int steps = std::min(STEPS, T - first);
        for (int r = 0; r < rows; r++) {    // first a loop that is all vectors
            size_t row = (size_t)(r / s.k) * pixels.height + y * s.stride + r % s.k;
            const uint64_t* word = pixels.word.data() + row * T + first;
            for (int t = 0; t < steps; t++)
                entry[r * STEPS + t] = ((uint32_t)(word[t] >> x * s.stride) & (patterns - 1)) * UNIT + r * patterns * UNIT;
        }
        for (int t = 0; t < steps; t++) {
            Sum<1> sum = bias;
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < PER_UNIT; v++) sum.v[v] += load(table + entry[r * STEPS + t] + v * LANES);
            for (int v = 0; v < PER_UNIT; v++) {
                now[v] = s.neuron.step_of_both(now[v], sum.v[v]);
                store(u + t * UNIT + v * LANES, now[v]);
            }
        }
    }
}

inline void lookup_potentials(const Stage& s, int T, const Pixels& pixels, const float* table, int y, int x, float* u) {
    switch (s.C * s.k) {
        case 3: return lookup_potentials<3>(s, T, pixels, table, y, x, u);
        case 5: return lookup_potentials<5>(s, T, pixels, table, y, x, u);
        case 10: return lookup_potentials<10>(s, T, pixels, table, y, x, u);
        default: return lookup_potentials<0>(s, T, pixels, table, y, x, u);
    }
}

// Potentials where no pixel ever fires: those of the bias alone.
inline void background(const Stage& s, int T, float* u) {
    Sum<1> bias = bias_of<1>(s, {0, 1});
    vf now[PER_UNIT] = {};
    for (int t = 0; t < T; t++)
        for (int v = 0; v < PER_UNIT; v++) {
            now[v] = s.neuron.step(now[v], bias.v[v]);
            store(u + t * UNIT + v * LANES, now[v]);
        }
}

inline uint16_t fired(const Stage& s, const float* u) {
    uint32_t bits = 0;
    for (int v = 0; v < PER_UNIT; v++) bits |= bits_ge(load(u + v * LANES), all(s.neuron.threshold)) << (v * LANES);
    return (uint16_t)bits;
}

inline void lookup_forward(const Window& w, const Stage& s, bool last, Report& report) {
    Buffer<float> table = tables_of(s);
    std::vector<size_t> events(w.B);
#pragma omp parallel num_threads(w.threads)
    {
        FlushDenormals mode;
        Buffer<float> u((size_t)w.T * UNIT), quiet((size_t)w.T * UNIT);
        background(s, w.T, quiet.data());
#pragma omp for schedule(dynamic)
        for (int b = 0; b < w.B; b++) {
            Pixels pixels(w, s, b);
            Rows rows = input_rows(w, b, (size_t)s.C * s.H * s.W);
            events[b] = 0;
            for (int t = 0; t < w.T; t++) events[b] += ones(rows.first + t * rows.stride, rows.bytes);
            Maps maps = maps_of(w, s, b, last, nullptr);
            for (int p = 0; p < s.P(); p++) {
                int y = p / s.OW, x = p % s.OW;
                const float* from = quiet.data();
                if (!pixels.empty(s, y, x)) {
                    lookup_potentials(s, w.T, pixels, table.data(), y, x, u.data());
                    from = u.data();
                }
                for (int t = 0; t < w.T; t++) {
                    uint16_t bits = fired(s, from + t * UNIT);
                    if (maps.bits) std::memcpy(maps.bits + ((size_t)t * s.P() + p) * 2, &bits, 2);
                    if (maps.out)
                        for (int i = 0; i < s.M; i++)
                            maps.out[t * maps.out_step + (size_t)i * s.P() + p] = bits >> i & 1;
                }
            }
        }
    }
    report.events = density(w, s, events);
    report.forward = Path::LOOKUP;
}

}  // namespace stbp
