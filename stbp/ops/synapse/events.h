// Lists of events of one sample's window, read from bits: by step for the forward pass, by input for the gradients.
#pragma once

#include <vector>

#include "stbp/ops/synapse/stage.h"
#include "stbp/ops/native/bits.h"

namespace stbp {

// Events in the order of time, then input. `value` is empty where every event counts one.
struct Events {
    Buffer<uint32_t> id;
    Buffer<float> value;
    Buffer<uint32_t> start;    // [T + 1]; with positions [T * positions + 1]
    Buffer<float> usual;       // of every input, what its events are differences to; empty: 0
    size_t count = 0;
};

// One sample's window as T rows of bits.
struct Rows {
    const uint8_t* first;
    size_t bytes, stride;
};

// id = number of the bit.
inline Events read_rows(Rows rows, int T) {
    size_t n = 0;
    for (int t = 0; t < T; t++) n += ones(rows.first + t * rows.stride, rows.bytes);
    Events e;
    e.id = Buffer<uint32_t>(n);
    e.start = Buffer<uint32_t>(T + 1);
    e.count = n;
    uint32_t* end = e.id.data();
    for (int t = 0; t < T; t++) {
        e.start[t] = (uint32_t)(end - e.id.data());
        end = indices(rows.first + t * rows.stride, rows.bytes, end);
    }
    e.start[T] = (uint32_t)n;
    return e;
}

// The bits that enter a network, in the order of the input.
inline Rows input_rows(const Window& w, int b, size_t elements) {
    size_t bytes = (elements + 7) / 8;
    return {w.bits + b * bytes, bytes, w.B * bytes};
}

// The input's bits in the order of stages, [T][P][Cp / 8].
inline void to_stage_order(const Window& w, int b, const Stage& s, uint8_t* out) {
    size_t P = (size_t)s.H * s.W, Cb = round_up(s.C, UNIT) / 8;
    std::memset(out, 0, w.T * P * Cb);
    Events e = read_rows(input_rows(w, b, s.C * P), w.T);
    for (int t = 0; t < w.T; t++)
        for (uint32_t i = e.start[t]; i < e.start[t + 1]; i++) {
            size_t c = e.id[i] / P, p = e.id[i] % P;
            out[(t * P + p) * Cb + c / 8] |= (uint8_t)(1u << c % 8);
        }
}

typedef int8_t bytes16 __attribute__((vector_size(16)));

// 1 in lane i where bit i is set.
inline bytes16 lanes_of(uint16_t bits) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return (bytes16)_mm_maskz_set1_epi8(bits, 1);
#else
    constexpr uint64_t SPREAD = 0x0101010101010101ull, PICK = 0x8040201008040201ull;
    uint64_t half[2] = {(bits & 255) * SPREAD & PICK, (bits >> 8) * SPREAD & PICK};
    bytes16 v;
    std::memcpy(&v, half, 16);
    return (v != 0) & 1;
#endif
}

// Bit i of the result: lane i is not zero.
inline uint32_t nonzero_lanes(bytes16 v) {
#if defined(__SSE2__)
    return ~_mm_movemask_epi8(_mm_cmpeq_epi8((__m128i)v, _mm_setzero_si128())) & 0xFFFF;
#else
    uint32_t bits = 0;
    for (int i = 0; i < UNIT; i++) bits |= (uint32_t)(v[i] != 0) << i;
    return bits;
#endif
}

// Appends the lanes that are not zero, the first of them number `base`; returns how many there are. Up to a vector
// behind them is written too.
inline uint32_t append_counts(bytes16 count, uint32_t base, float share, uint32_t* id, float* value) {
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i wide = _mm512_cvtepi8_epi32((__m128i)count);
    __mmask16 m = _mm512_test_epi32_mask(wide, wide);
    _mm512_storeu_si512(id, _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lane, _mm512_set1_epi32((int)base))));
    __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(share));
    if (value) _mm512_storeu_ps(value, _mm512_maskz_compress_ps(m, x));
    return __builtin_popcount(m);
#else
    uint32_t n = 0;
    for (uint32_t m = nonzero_lanes(count); m; m &= m - 1, n++) {
        int i = __builtin_ctz(m);
        id[n] = base + i;
        if (value) value[n] = count[i] * share;
    }
    return n;
#endif
}

// Which share of a stage's inputs fires, by the events of every sample.
inline double density(const Window& w, const Stage& s, const std::vector<size_t>& events) {
    double n = 0, all = (double)w.B * w.T * s.inputs();
    for (size_t count : events) n += count;
    return all ? n / all : 0;
}

// How many of the positions pooled into one fire, for 16 maps at a time, and what these counts usually are.
struct Counts {
    struct Unit {
        uint32_t position, unit;
        bytes16 usual;
        const bytes16* count;    // [T]
    };
    std::vector<Unit> active;    // those in which anything fires, in the order of positions
    Buffer<bytes16> count;
    size_t differences = 0;      // counts that are not usual

    Counts(const Window& w, const Stage& s, const uint8_t* bits, bool coded) {
        size_t Cb = round_up(s.C, UNIT) / 8, step = (size_t)s.H * s.W * Cb, units = Cb / 2;
        int area = s.pool * s.pool, PW = s.PW(), positions = s.PH() * PW;
        count = Buffer<bytes16>(positions * units * w.T);
        bytes16* to = count.data();
        std::vector<size_t> offset;
        for (int dy = 0; dy < s.pool; dy++)
            for (int dx = 0; dx < s.pool; dx++) offset.push_back(((size_t)dy * s.W + dx) * Cb);
        for (int p = 0; p < positions; p++)
            for (size_t unit = 0; unit < units; unit++) {
                const uint8_t* corner = bits + ((size_t)(p / PW) * s.pool * s.W + p % PW * s.pool) * Cb + 2 * unit;
                bytes16 any = {};
                for (int t = 0; t < w.T; t++, corner += step) {
                    to[t] = area == 4 ? sum_of<4>(corner, offset.data(), 4) : sum_of<0>(corner, offset.data(), area);
                    any |= to[t];
                }
                if (!nonzero_lanes(any)) continue;
                active.push_back({(uint32_t)p, (uint32_t)unit, bytes16{}, to});
                differences += coded ? find_usual(active.back(), w.T, area) : 0;
                if (!coded)
                    for (int t = 0; t < w.T; t++) differences += __builtin_popcount(nonzero_lanes(to[t]));
                to += w.T;
            }
    }

   private:
    template <int AREA>
    static bytes16 sum_of(const uint8_t* corner, const size_t* offset, int area) {
        bytes16 sum = {};
        for (int j = 0; j < (AREA ? AREA : area); j++) {
            uint16_t mask;
            std::memcpy(&mask, corner + offset[j], 2);
            sum += lanes_of(mask);
        }
        return sum;
    }

    // The most frequent count of every lane in up to 127 steps; of equally frequent ones the smallest. Large areas:
    // none or all. Returns how many counts differ.
    static size_t find_usual(Unit& unit, int T, int area) {
        bytes16 best = {}, most = {};
        int steps = std::min(T, 127);
        for (int candidate = 0; candidate <= area; candidate += area > 4 ? area : 1) {
            bytes16 n = {};
            for (int t = 0; t < steps; t++) n -= (bytes16)(unit.count[t] == (int8_t)candidate);
            auto better = n > most;
            best = better ? bytes16{} + (int8_t)candidate : best;
            most = better ? n : most;
        }
        unit.usual = best;
        size_t differ = 0;
        for (int i = 0; i < UNIT; i++) differ += steps - most[i];
        return differ + (size_t)(T - steps) * UNIT;
    }
};

// From the bits of a stage, [T][H * W][Cp / 8], through the pooling of stage `s`: id = base[position] + map. With
// `positions` the starts are those of every position of every step, else those of every step. If the stage's sums may
// be taken in any order, events are the differences to each input's most frequent value.
inline Events read_stage(const Window& w, const Stage& s, const uint8_t* bits, const uint32_t* base, bool positions) {
    int area = s.pool * s.pool, P = s.PH() * s.PW();
    float share = 1.0f / area;
    Counts counts(w, s, bits, s.complement());
    Events e;
    if (s.complement()) {
        e.usual = Buffer<float>((size_t)P * s.C);
        e.usual.zero();
        for (const Counts::Unit& u : counts.active)
            for (int c = 0; c < std::min<int>(UNIT, s.C - u.unit * UNIT); c++)
                e.usual[(size_t)u.position * s.C + u.unit * UNIT + c] = u.usual[c] * share;
    }
    e.id = Buffer<uint32_t>(counts.differences + UNIT);
    if (area > 1 || s.complement()) e.value = Buffer<float>(counts.differences + UNIT);
    e.start = Buffer<uint32_t>(positions ? (size_t)w.T * P + 1 : w.T + 1);
    uint32_t *start = e.start.data(), *id = e.id.data(), n = 0;
    float* value = e.value.data();
    for (int t = 0; t < w.T; t++) {
        uint32_t p = 0;
        if (!positions) *start++ = n;
        for (const Counts::Unit& u : counts.active) {
            for (; positions && p <= u.position; p++) *start++ = n;
            n += append_counts(u.count[t] - u.usual, base[u.position] + u.unit * UNIT, share, id + n,
                               value ? value + n : nullptr);
        }
        for (; positions && p < (uint32_t)P; p++) *start++ = n;
    }
    *start = n;
    e.count = n;
    return e;
}

// The events of a linear synapse's input, in a form that adds few rows. An input that fires in more than half of the
// steps is in `base`: its row is added once for the whole window and subtracted in the steps where it is missing.
struct Coded {
    const uint32_t* base = nullptr;
    size_t bases = 0;
    const uint32_t* id = nullptr;
    const uint32_t* start = nullptr;    // [2 T + 1]; step t adds from 2 t to 2 t + 1, subtracts from there to 2 t + 2
    Buffer<float> base_value, value;    // empty: 1
    size_t fired = 0;                   // events before coding
    Buffer<uint32_t> lists, ids;        // where they lie
};

inline Coded plain_code(Events&& e, int T) {
    Coded c;
    c.lists = Buffer<uint32_t>(2 * T + 1 + e.usual.size());
    uint32_t *start = c.lists.data(), *base = start + 2 * T + 1;
    for (int t = 0; t < T; t++) start[2 * t] = e.start[t], start[2 * t + 1] = e.start[t + 1];
    start[2 * T] = e.start[T];
    c.fired = e.count;
    c.ids = std::move(e.id);
    c.value = std::move(e.value);
    c.start = start, c.base = base, c.id = c.ids.data();
    if (!e.usual) return c;
    c.base_value = Buffer<float>(e.usual.size());
    for (size_t k = 0; k < e.usual.size(); k++) {
        base[c.bases] = (uint32_t)k;
        c.base_value[c.bases] = e.usual[k];
        c.bases += e.usual[k] != 0;
    }
    return c;
}

// The rows of a sample coded so: per step first what is added, then what is subtracted, each in the order of inputs.
inline Coded complement_code(Rows rows, int T, Majority& majority) {
    size_t words = (rows.bytes + 7) / 8, room = 0, bases = 0;
    majority.rows.resize(T * words);
    uint64_t* all = majority.rows.data();
    for (int t = 0; t < T; t++) {
        const uint8_t* row = rows.first + t * rows.stride;
        prefetch_behind(row, rows.bytes);
        for (size_t i = 0; i < words; i++) all[t * words + i] = word(row + 8 * i, rows.bytes - 8 * i);
    }
    majority.count(T, words);
    const uint64_t* often = majority.more.data();
    Coded c;
    for (size_t i = 0; i < words; i++) bases += __builtin_popcountll(often[i]);
    for (int t = 0; t < T; t++)
        for (size_t i = 0; i < words; i++) {
            c.fired += __builtin_popcountll(all[t * words + i]);
            room += __builtin_popcountll(all[t * words + i] ^ often[i]);
        }
    c.lists = Buffer<uint32_t>(2 * T + 1 + bases + room);
    uint32_t *start = c.lists.data(), *base = start + 2 * T + 1, *id = base + bases, *end = base;
    for (size_t i = 0; i < words; i++) end = indices(often[i], i, end);
    end = id;
    for (int t = 0; t < T; t++) {
        const uint64_t* row = all + t * words;
        start[2 * t] = (uint32_t)(end - id);
        for (size_t i = 0; i < words; i++) end = indices(row[i] & ~often[i], i, end);
        start[2 * t + 1] = (uint32_t)(end - id);
        if (bases)
            for (size_t i = 0; i < words; i++) end = indices(~row[i] & often[i], i, end);
    }
    start[2 * T] = (uint32_t)(end - id);
    c.start = start, c.base = base, c.bases = bases, c.id = id;
    return c;
}

// Events by input: row[first .. end) are the rows (sample in the chunk * T + t) in which input `key` fires. The input
// is `usual` in every step plus these events; with usual = 1 and no values they are the steps in which it is missing.
struct Times {
    struct Input {
        uint32_t key, first, end;
        float usual;
    };
    std::vector<Input> input;
    Buffer<uint32_t> row;
    Buffer<float> value;
};

// Times of one sample whose events all count one. An input that fires in more than half of the steps is listed by the
// others. Lists of equal length come one after another: the processor foresees where each one ends.
inline Times by_input(Rows rows, int T, StepMap& map) {
    map.read(rows.first, T, rows.bytes, rows.stride);
    std::vector<uint32_t> at(T + 2, 0);
    auto length = [T](uint32_t fired) { return std::min(fired, T - fired); };
    size_t events = 0;
    map.each_that_fires([&](size_t k) {
        uint32_t n = length(map.fired(k));
        at[n + 1]++;
        events += n;
    });
    for (int i = 0; i <= T; i++) at[i + 1] += at[i];
    Times times;
    times.input.resize(at[T + 1]);
    times.row = Buffer<uint32_t>(events);
    uint32_t* end = times.row.data();
    map.each_that_fires([&](size_t k) {
        uint32_t fired = map.fired(k), first = (uint32_t)(end - times.row.data());
        bool missing = 2 * fired > (uint32_t)T;
        end = map.list(k, T, !missing, end);
        times.input[at[length(fired)]++] = {(uint32_t)k, first, first + length(fired), missing ? 1.0f : 0.0f};
    });
    return times;
}

// Times of a chunk of samples, with their values if they have any; usual values only of a single one.
inline Times by_input(const std::vector<Events>& chunk, int T, size_t inputs) {
    std::vector<uint32_t> at(inputs + 1, 0);
    size_t n = 0;
    for (const Events& e : chunk) {
        for (size_t i = 0; i < e.count; i++) at[e.id[i] + 1]++;
        n += e.count;
    }
    Times times;
    times.row = Buffer<uint32_t>(n);
    bool valued = (bool)chunk[0].value;
    if (valued) times.value = Buffer<float>(n);
    for (size_t k = 0; k < inputs; k++) {
        float usual = chunk[0].usual ? chunk[0].usual[k] : 0;
        if (at[k + 1] || usual != 0) times.input.push_back({(uint32_t)k, at[k], at[k] + at[k + 1], usual});
        at[k + 1] += at[k];
    }
    uint32_t row = 0;
    for (const Events& e : chunk)
        for (int t = 0; t < T; t++, row++)
            for (uint32_t i = e.start[t]; i < e.start[t + 1]; i++) {
                uint32_t to = at[e.id[i]]++;
                times.row[to] = row;
                if (valued) times.value[to] = e.value[i];
            }
    return times;
}

}  // namespace stbp
