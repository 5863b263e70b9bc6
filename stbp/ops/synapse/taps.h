// The gradient of a kernel's weights: lists of events by input, and sums of rows over them.
#pragma once

#include "stbp/ops/synapse/lookup.h"

namespace stbp {

// Where the pixels of a row lie in the lists below, padding included: those that the first weight of the kernel's rows
// meets, one stride after another, then those that the second meets, and so on; with stride 1 one after another.
struct Places {
    int stride, pad, of_phase, count;
    explicit Places(const Stage& s)
        : stride(s.stride), pad(s.pad), of_phase((s.PW() + 2 * s.pad + s.stride - 1) / s.stride),
          count(of_phase * s.stride) {}
    // Place that the output in column x sees through weight dx; pixel x of the row is seen by output 0 through x + pad.
    int seen(int x, int dx) const { return dx % stride * of_phase + x + dx / stride; }
    int pixel(int place) const { return place % of_phase * stride + place / of_phase - pad; }
};

// The events of a sample's input, one input after another: row of pixels, map, place. So what the outputs of a row see
// through one weight of the kernel is one stretch of the list. An event's row is place * (T + 1) + t; t = T stands for
// the sum of all steps, and its value is the input's usual one.
struct Taps {
    Buffer<uint32_t> at;    // [PH * C * places + 1], where an input's events begin
    Buffer<uint32_t> row;
    Buffer<float> value;
};

inline Taps taps_of_conv(const Window& w, const Stage& s, const Stage* before, int b) {
    Buffer<uint8_t> own;
    Counts counts(w, s, stage_bits(w, s, before, b, own), s.complement());
    Places places(s);
    uint32_t PW = s.PW(), rows = w.T + 1;
    size_t row_of_maps = (size_t)s.C * places.count, inputs = s.PH() * row_of_maps;
    float share = 1.0f / (s.pool * s.pool);
    auto maps = [&](const Counts::Unit& u) { return std::min<int>(UNIT, s.C - u.unit * UNIT); };
    auto place = [&](const Counts::Unit& u) { return places.seen(0, u.position % PW + s.pad); };
    auto input = [&](const Counts::Unit& u) {
        return u.position / PW * row_of_maps + u.unit * UNIT * places.count + place(u);
    };
    Taps taps;
    taps.at = Buffer<uint32_t>(inputs + 2);
    uint32_t* at = taps.at.zero().data() + 1;    // at first behind an input's place: how many
    for (const Counts::Unit& u : counts.active) {
        alignas(16) int8_t usual[UNIT];
        std::memcpy(usual, &u.usual, UNIT);
        for (int t = 0; t < w.T; t += 127) {
            bytes16 n = {};
            for (int i = t; i < std::min(w.T, t + 127); i++) n -= (bytes16)(u.count[i] != u.usual);
            for (int c = 0; c < maps(u); c++) at[input(u) + c * places.count + 1] += n[c] + (t == 0 && usual[c]);
        }
    }
    for (size_t i = 0; i < inputs; i++) at[i + 1] += at[i];
    taps.row = Buffer<uint32_t>(at[inputs]);
    taps.value = Buffer<float>(at[inputs]);
    for (const Counts::Unit& u : counts.active) {
        uint32_t* end = at + input(u);
        uint32_t first = place(u) * rows;
        auto append = [&](bytes16 lanes, uint32_t row) {
            alignas(16) int8_t lane[UNIT];
            std::memcpy(lane, &lanes, UNIT);
            for (uint32_t m = nonzero_lanes(lanes); m; m &= m - 1) {
                int c = __builtin_ctz(m);
                uint32_t to = end[c * places.count]++;
                taps.row[to] = row;
                taps.value[to] = lane[c] * share;
            }
        };
        for (int t = 0; t < w.T; t++) append(u.count[t] - u.usual, first + t);
        append(u.usual, first + w.T);
    }
    return taps;
}

inline Taps taps_of_lookup(const Window& w, const Stage& s, int b) {
    uint32_t P = s.H * s.W, rows = w.T + 1, n = 0;
    Rows bits = input_rows(w, b, (size_t)s.C * P);
    StepMap map(w.T, bits.bytes * 8);
    map.read(bits.first, w.T, bits.bytes, bits.stride);
    size_t most = s.C * P;
    for (int t = 0; t < w.T; t++) most += ones(bits.first + t * bits.stride, bits.bytes);
    Places places(s);
    Taps taps;
    taps.at = Buffer<uint32_t>((size_t)s.H * s.C * places.count + 1);
    taps.row = Buffer<uint32_t>(most);
    taps.value = Buffer<float>(most);
    uint32_t* at = taps.at.data();
    for (int y = 0; y < s.H; y++)
        for (int c = 0; c < s.C; c++)
            for (int place = 0; place < places.count; place++) {
                *at++ = n;
                int x = places.pixel(place);
                if (x < 0 || x >= s.W) continue;
                size_t pixel = (size_t)c * P + y * s.W + x;
                uint32_t fired = map.fired(pixel);
                bool missing = 2 * fired > (uint32_t)w.T;
                auto append = [&](uint32_t t, float value) {
                    taps.row[n] = place * rows + t, taps.value[n++] = value;
                };
                if (fired) map.each(pixel, w.T, !missing, [&](uint32_t t) { append(t, missing ? -1.0f : 1.0f); });
                if (missing) append(w.T, 1.0f);
            }
    *at = n;
    return taps;
}

// The sum of rows; two sums take turns.
template <int U>
inline Sum<U> add_in_pairs(const float* rows, const uint32_t* id, const float* value, uint32_t first, uint32_t end) {
    Sum<U> sum = {}, odd = {};
    for (; first + 2 <= end; first += 2) {
        const float *a = rows + (size_t)id[first] * (U * UNIT), *b = rows + (size_t)id[first + 1] * (U * UNIT);
        for (int v = 0; v < U * PER_UNIT; v++) {
            sum.v[v] = fma(all(value[first]), load(a + v * LANES), sum.v[v]);
            odd.v[v] = fma(all(value[first + 1]), load(b + v * LANES), odd.v[v]);
        }
    }
    sum = add_rows<U, true>(sum, rows, id, value, first, end);
    for (int v = 0; v < U * PER_UNIT; v++) sum.v[v] += odd.v[v];
    return sum;
}

// D[dy][dx][map] += the gradient's rows of n outputs from (y, x0) on, g = [n][T + 1][U * 16], over the events below.
template <int U>
inline void add_taps(const Stage& s, const Taps& taps, int T, int y, int x0, int n, const float* g, float* D) {
    Places places(s);
    for (int dy = 0; dy < s.k; dy++) {
        int iy = y * s.stride + dy - s.pad;
        if (iy < 0 || iy >= s.PH()) continue;
        for (int dx = 0; dx < s.k; dx++) {
            int first = places.seen(x0, dx), end = first + n;
            const float* rows = g - (ptrdiff_t)first * (T + 1) * (U * UNIT);
            const uint32_t* at = taps.at.data() + (size_t)iy * s.C * places.count;
            float* d = D + (size_t)(dy * s.k + dx) * s.C * (U * UNIT);
            for (int c = 0; c < s.C; c++, d += U * UNIT, at += places.count) {
                if (at[first] == at[end]) continue;
                Sum<U> sum = add_in_pairs<U>(rows, taps.row.data(), taps.value.data(), at[first], at[end]);
                for (int v = 0; v < U * PER_UNIT; v++) store(d + v * LANES, load(d + v * LANES) + sum.v[v]);
            }
        }
    }
}

}  // namespace stbp
