// Neurons alone over a window of currents in torch's layout, [T][n]: one pass over T forward, one backward.
//
// A model is a struct of its constants with one potential a neuron; lif.h shows its five functions: `fires`, `step`,
// `back`, `back_to_state`, and a `surrogate`. Everything else is here, once for all models and curves.
#pragma once

#include <algorithm>

#include "stbp/ops/native/tuning.h"
#include "stbp/ops/surrogate/curves.h"

namespace stbp {

inline vf load_part(const float* p, int64_t n) {
    if (n >= LANES) return load(p);
    alignas(64) float lanes[LANES] = {};
    std::memcpy(lanes, p, n * sizeof(float));
    return load(lanes);
}

inline void store_part(float* p, vf v, int64_t n) { std::memcpy(p, &v, std::min<int64_t>(n, LANES) * sizeof(float)); }

// Calls f(first neuron, number of neurons) for blocks of neurons, on all threads.
template <class F>
inline void for_blocks(int64_t n, int threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < n; first += tuning::NEURON_BLOCK) {
        FlushDenormals mode;
        f(first, std::min(tuning::NEURON_BLOCK, n - first));
    }
}

// x, us, os: [T][n]; u, o (the state before the window), u_last: [n]; us may be null.
template <class Model>
void scan(const Model& model, const float* x, const float* u, const float* o, int T, int64_t n, float* os, float* us,
          float* u_last, int threads) {
    for_blocks(n, threads, [&](int64_t first, int64_t count) {
        alignas(64) float now[tuning::NEURON_BLOCK] = {}, spikes[tuning::NEURON_BLOCK] = {};
        std::memcpy(now, u + first, count * sizeof(float));
        std::memcpy(spikes, o + first, count * sizeof(float));
        for (int t = 0; t < T; t++)
            for (int64_t i = 0; i < count; i += LANES) {
                int64_t at = t * n + first + i, left = count - i;
                vf v = model.step(load(now + i), load(spikes + i) > 0.0f, load_part(x + at, left));
                vf fired = model.fires(v) ? all(1.0f) : vf{};
                store(now + i, v);
                store(spikes + i, fired);
                store_part(os + at, fired, left);
                if (us) store_part(us + at, v, left);
            }
        std::memcpy(u_last + first, now, count * sizeof(float));
    });
}

// Inputs and outputs of the backward pass: gradients of the spikes, [T][n], and of the last potential, [n]; the
// potentials of the forward pass and the state before it; gradients of the currents and of that state.
struct ScanBack {
    const float *grad_o, *grad_u, *us, *u, *o;
    float *grad_x, *to_u, *to_o;
    int T;
    int64_t n;
};

template <Surrogate S, class Model>
void scan_back(const Model& model, const ScanBack& b, int threads) {
    for_blocks(b.n, threads, [&](int64_t first, int64_t count) {
        alignas(64) float eps[tuning::NEURON_BLOCK] = {};
        for (int t = b.T - 1; t >= 0; t--)
            for (int64_t i = 0; i < count; i += LANES) {
                int64_t at = t * b.n + first + i, left = count - i;
                vf u = load_part(b.us + at, left), e = load(eps + i);
                vf direct = t == b.T - 1 ? load_part(b.grad_u + first + i, left) : vf{};
                model.template back<S>(u, load_part(b.grad_o + at, left), e);
                e += direct;
                store(eps + i, e);
                store_part(b.grad_x + at, e, left);
            }
        for (int64_t i = 0; i < count; i += LANES) {
            int64_t at = first + i, left = count - i;
            vf to_u, to_o;
            model.back_to_state(load_part(b.u + at, left), load_part(b.o + at, left) > 0.0f, load(eps + i), to_u, to_o);
            store_part(b.to_u + at, to_u, left);
            store_part(b.to_o + at, to_o, left);
        }
    });
}

template <class Model>
void scan_back(const Model& model, const ScanBack& b, int threads) {
    with_curve(model.surrogate, [&](auto surrogate) { scan_back<surrogate>(model, b, threads); });
}

}  // namespace stbp
