// Lists of events of one sample's window, read from bits: by time step for the forward pass, by input for the gradients.
#pragma once

#include <vector>

#include "stbp/ops/chain/stage.h"
#include "stbp/ops/native/bits.h"

namespace stbp {

// Events in the order of time, then input. `value` is empty where every event counts one.
struct Events {
    Buffer<uint32_t> id;
    Buffer<float> value;
    Buffer<uint32_t> start;    // [T + 1]; with positions [T * positions + 1]
    size_t count = 0;
};

constexpr int MAX_AREA = 64;    // positions that are pooled into one

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

// Appends the events of 16 maps at one position: `masks` are the bits of the n positions that are pooled there.
__attribute__((always_inline)) inline uint32_t append(uint32_t base, const uint16_t* masks, int n, float share,
                                                      uint32_t* id, float* value) {
    uint32_t any = 0;
    for (int j = 0; j < n; j++) any |= masks[j];
    if (!any) return 0;
#if defined(__AVX512F__)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 m = (__mmask16)any;
    _mm512_storeu_si512(id, _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lane, _mm512_set1_epi32((int)base))));
    if (value) {
        __m512 sum = _mm512_setzero_ps();
        for (int j = 0; j < n; j++) sum = _mm512_mask_add_ps(sum, masks[j], sum, _mm512_set1_ps(1.0f));
        _mm512_storeu_ps(value, _mm512_maskz_compress_ps(m, _mm512_mul_ps(sum, _mm512_set1_ps(share))));
    }
    return __builtin_popcount(any);
#else
    uint32_t count = 0;
    for (uint32_t m = any; m; m &= m - 1, count++) {
        int i = __builtin_ctz(m), sum = 0;
        for (int j = 0; j < n; j++) sum += masks[j] >> i & 1;
        id[count] = base + i;
        if (value) value[count] = (float)sum * share;
    }
    return count;
#endif
}

// From the bits of a stage, [T][H * W][Cp / 8], through the pooling of stage `s`: id = base[position] + map. With
// `positions` the starts are those of every position of every step, else those of every step.
inline Events read_stage(const Window& w, const Stage& s, const uint8_t* bits, const uint32_t* base, bool positions) {
    size_t Cb = round_up(s.C, UNIT) / 8, P = (size_t)s.H * s.W;
    int PH = s.PH(), PW = s.PW(), area = s.pool * s.pool;
    size_t room = ones(bits, w.T * P * Cb) + UNIT;
    Events e;
    e.id = Buffer<uint32_t>(room);
    if (area > 1) e.value = Buffer<float>(room);
    e.start = Buffer<uint32_t>(positions ? (size_t)w.T * PH * PW + 1 : w.T + 1);
    uint32_t *start = e.start.data(), *id = e.id.data(), n = 0;
    float *value = e.value.data(), share = 1.0f / area;
    uint16_t masks[MAX_AREA];
    for (int t = 0; t < w.T; t++) {
        if (!positions) *start++ = n;
        for (int y = 0; y < PH; y++)
            for (int x = 0; x < PW; x++) {
                if (positions) *start++ = n;
                const uint8_t* corner = bits + (t * P + (size_t)y * s.pool * s.W + (size_t)x * s.pool) * Cb;
                for (size_t unit = 0; unit < Cb / 2; unit++) {
                    int j = 0;
                    for (int dy = 0; dy < s.pool; dy++)
                        for (int dx = 0; dx < s.pool; dx++, j++)
                            std::memcpy(&masks[j], corner + (dy * s.W + dx) * Cb + 2 * unit, 2);
                    n += append(base[y * PW + x] + (uint32_t)(unit * UNIT), masks, area, share, id + n,
                                value ? value + n : nullptr);
                }
            }
    }
    *start = n;
    e.count = n;
    return e;
}

// The events of a linear synapse's input, in a form that adds few rows. An input that fires in more than half of the
// steps is in `base`: its row is added once for the whole window and subtracted in the steps where it is missing.
struct Coded {
    Buffer<uint32_t> base;
    size_t bases = 0;
    Buffer<uint32_t> id;       // step t: rows to add, start[2t] to start[2t + 1]; to subtract, from there to start[2t + 2]
    Buffer<float> value;
    Buffer<uint32_t> start;    // [2 T + 1]
    size_t fired = 0;          // events before coding
};

inline Coded plain_code(Events&& e, int T) {
    Coded c;
    c.start = Buffer<uint32_t>(2 * T + 1);
    for (int t = 0; t < T; t++) c.start[2 * t] = e.start[t], c.start[2 * t + 1] = e.start[t + 1];
    c.start[2 * T] = e.start[T];
    c.fired = e.count;
    c.id = std::move(e.id);
    c.value = std::move(e.value);
    return c;
}

// The rows of a sample coded so: per step first what is added, then what is subtracted, each in the order of inputs.
inline Coded complement_code(Rows rows, int T, size_t inputs) {
    size_t words = (rows.bytes + 7) / 8, room = 0;
    auto at = [&](int t, size_t i) { return word(rows.first + t * rows.stride + 8 * i, rows.bytes - 8 * i); };
    std::vector<uint64_t> often(words);
    Coded c;
    c.base = Buffer<uint32_t>(inputs);
    uint32_t* end = c.base.data();
    for (size_t i = 0; i < words; i++) {
        often[i] = in_most(T, [&](int t) { return at(t, i); });
        end = indices(often[i], i, end);
        for (int t = 0; t < T; t++) {
            uint64_t w = at(t, i);
            c.fired += __builtin_popcountll(w);
            room += __builtin_popcountll(w ^ often[i]);
        }
    }
    c.bases = end - c.base.data();
    c.id = Buffer<uint32_t>(room);
    c.start = Buffer<uint32_t>(2 * T + 1);
    end = c.id.data();
    for (int t = 0; t < T; t++) {
        c.start[2 * t] = (uint32_t)(end - c.id.data());
        for (size_t i = 0; i < words; i++) end = indices(at(t, i) & ~often[i], i, end);
        c.start[2 * t + 1] = (uint32_t)(end - c.id.data());
        if (c.bases)
            for (size_t i = 0; i < words; i++) end = indices(~at(t, i) & often[i], i, end);
    }
    c.start[2 * T] = (uint32_t)(end - c.id.data());
    return c;
}

// Events by input: row[first .. end) are the rows (sample in the chunk * T + t) in which input `key` fires, or, where
// `missing`, those of the window in which it does not.
struct Times {
    struct Input {
        uint32_t key, first, end;
        bool missing;
    };
    std::vector<Input> input;
    Buffer<uint32_t> row;
    Buffer<float> value;
};

// Of one sample whose events all count one. An input that fires in more than half of the steps is listed by the others.
inline Times by_input(Rows rows, int T, size_t inputs) {
    StepMap map(T, rows.bytes * 8);
    map.read(rows.first, T, rows.bytes, rows.stride);
    size_t events = 0;
    for (int t = 0; t < T; t++) events += ones(rows.first + t * rows.stride, rows.bytes);
    Times times;
    times.row = Buffer<uint32_t>(events);
    uint32_t n = 0;
    for (size_t k = 0; k < inputs; k++) {
        uint32_t fired = map.fired(k), first = n;
        if (!fired) continue;
        bool missing = 2 * fired > (uint32_t)T;
        map.each(k, T, !missing, [&](uint32_t t) { times.row[n++] = t; });
        times.input.push_back({(uint32_t)k, first, n, missing});
    }
    return times;
}

// Of a chunk of samples, with their values if they have any.
inline Times by_input(const std::vector<Events>& chunk, int T, size_t inputs) {
    std::vector<uint32_t> at(inputs + 1, 0);
    size_t n = 0;
    for (const Events& e : chunk) {
        for (size_t i = 0; i < e.count; i++) at[e.id[i] + 1]++;
        n += e.count;
    }
    Times times;
    times.row = Buffer<uint32_t>(n);
    bool valued = n && (bool)chunk[0].value;
    if (valued) times.value = Buffer<float>(n);
    for (size_t k = 0; k < inputs; k++) {
        if (at[k + 1]) times.input.push_back({(uint32_t)k, at[k], at[k] + at[k + 1], false});
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
