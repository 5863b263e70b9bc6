// The iterative LIF neuron over a window of currents in torch's layout, [T][n]: one pass over T forward, one backward.
#include <algorithm>

#include "stbp/ops/neuron/lif.h"
#include "stbp/ops/native/api.h"
#include "stbp/ops/native/buffer.h"

using namespace stbp;

namespace {

constexpr int64_t BLOCK = 512;    // neurons whose potentials stay in the nearest cache from step to step

vf load_part(const float* p, int64_t n) {
    if (n >= LANES) return load(p);
    alignas(64) float lanes[LANES] = {};
    std::memcpy(lanes, p, n * sizeof(float));
    return load(lanes);
}

void store_part(float* p, vf v, int64_t n) { std::memcpy(p, &v, std::min<int64_t>(n, LANES) * sizeof(float)); }

// Calls f(first neuron, number of neurons) for blocks of neurons, on all threads.
template <class F>
void for_blocks(int64_t n, int threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < n; first += BLOCK) {
        FlushDenormals mode;
        f(first, std::min(BLOCK, n - first));
    }
}

struct Backward {
    const float *grad_o, *grad_u, *us, *u, *o;
    float *grad_x, *to_u, *to_o;
    int64_t n;
    int T;
};

template <int S>
void backward(const Backward& b, const Neuron& neuron, int threads) {
    for_blocks(b.n, threads, [&](int64_t first, int64_t count) {
        alignas(64) float eps[BLOCK] = {};
        for (int t = b.T - 1; t >= 0; t--)
            for (int64_t i = 0; i < count; i += LANES) {
                int64_t at = t * b.n + first + i, left = count - i;
                vf u = load_part(b.us + at, left), e = load(eps + i);
                vf direct = t == b.T - 1 ? load_part(b.grad_u + first + i, left) : vf{};
                step_back<S>(neuron, u, load_part(b.grad_o + at, left), e);
                e += direct;
                store(eps + i, e);
                store_part(b.grad_x + at, e, left);
            }
        for (int64_t i = 0; i < count; i += LANES) {
            int64_t at = first + i, left = count - i;
            vf e = load(eps + i), u = load_part(b.u + at, left);
            auto fired = load_part(b.o + at, left) > 0.0f;
            store_part(b.to_u + at, e * (fired ? all(neuron.back1) : all(neuron.back0)), left);
            store_part(b.to_o + at, e * u * (fired ? all(neuron.slope1) : all(neuron.slope0)), left);
        }
    });
}

}  // namespace

// x, us, os: [T][n]; u, o, u_last: [n]; us may be null.
STBP_API void stbp_lif_forward(const float* x, const float* u, const float* o, const Neuron* neuron, int T, int64_t n,
                               float* os, float* us, float* u_last, int threads) {
    for_blocks(n, threads, [&](int64_t first, int64_t count) {
        alignas(64) float now[BLOCK] = {}, spikes[BLOCK] = {};
        std::memcpy(now, u + first, count * sizeof(float));
        std::memcpy(spikes, o + first, count * sizeof(float));
        for (int t = 0; t < T; t++)
            for (int64_t i = 0; i < count; i += LANES) {
                int64_t at = t * n + first + i, left = count - i;
                vf keep = load(spikes + i) > 0.0f ? all(neuron->keep1) : all(neuron->keep0);
                vf v = load(now + i) * keep + load_part(x + at, left);
                vf fired = v >= neuron->threshold ? all(1.0f) : vf{};
                store(now + i, v);
                store(spikes + i, fired);
                store_part(os + at, fired, left);
                if (us) store_part(us + at, v, left);
            }
        std::memcpy(u_last + first, now, count * sizeof(float));
    });
}

// Arguments as `lif_backward` of reference.py; to_u and to_o are the gradients of the state given.
STBP_API void stbp_lif_backward(const float* grad_o, const float* grad_u, const float* us, const float* u,
                                const float* o, const Neuron* neuron, int T, int64_t n, float* grad_x, float* to_u,
                                float* to_o, int threads) {
    Backward b{grad_o, grad_u, us, u, o, grad_x, to_u, to_o, n, T};
    switch (neuron->surrogate) {
        case RECTANGLE: return backward<RECTANGLE>(b, *neuron, threads);
        case POLYNOMIAL: return backward<POLYNOMIAL>(b, *neuron, threads);
        case SIGMOID: return backward<SIGMOID>(b, *neuron, threads);
        default: return backward<GAUSSIAN>(b, *neuron, threads);
    }
}
