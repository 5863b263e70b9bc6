// The iterative LIF neuron on one vector of neurons: reference.py is the definition, ops/README.md has the symbols.
#pragma once

#include "stbp/ops/native/vec.h"

namespace stbp {

enum Surrogate { RECTANGLE, POLYNOMIAL, SIGMOID, GAUSSIAN };

// Field by field `Neuron` in op.py.
struct Neuron {
    float keep0, keep1;                        // f(o) of the forward pass
    float back0, back1, slope0, slope1;        // f and f' of the backward pass
    float threshold, width;
    int32_t surrogate;
};

// h(u - threshold)
template <int S>
inline vf curve(const Neuron& n, vf u) {
    vf v = absolute(u - n.threshold);
    if constexpr (S == RECTANGLE) return v < n.width / 2 ? all(1 / n.width) : vf{};
    if constexpr (S == POLYNOMIAL) {
        vf h = 1 / n.width - v / (n.width * n.width);
        return h > 0.0f ? h : vf{};
    }
    if constexpr (S == SIGMOID) {
        vf z = exp_negative(v * (-4 / n.width));
        return 4 / n.width * z / ((1 + z) * (1 + z));
    }
    vf q = v / n.width;
    return exp_negative(-3.14159265f * q * q) / n.width;
}

// One step forward: the potential after current x, from the potential before.
inline vf step(const Neuron& n, vf u, vf x) {
    vf keep = u >= n.threshold ? all(n.keep1) : all(n.keep0);
    return u * keep + x;
}

// The same number from both cases side by side: more to do, but less to wait for where few neurons go through all steps.
inline vf step_of_both(const Neuron& n, vf u, vf x) {
    vf kept = u * n.keep0 + x, after = u * n.keep1 + x;
    return u >= n.threshold ? after : kept;
}

// One step backward. `eps` is dL/du of step t + 1 and becomes that of step t; `grad` is what reaches the spikes of
// step t from outside. Returns a = eps^t - f(0) eps^{t+1}, which is zero outside the curve's support unless o^t = 1.
// With h = h(u): eps^t = grad h + eps^{t+1} (u f'(o) h + f(o)), so that one step waits for one multiplication only.
inline vf step_back(const Neuron& n, vf u, vf h, vf slope, vf keep, vf grad, vf& eps) {
    vf own = grad * h, factor = u * slope * h;
    vf a = fma(eps, factor + (keep - n.back0), own);
    eps = fma(eps, factor + keep, own);
    return a;
}

template <int S>
inline vf step_back(const Neuron& n, vf u, vf grad, vf& eps) {
    auto fired = u >= n.threshold;
    vf slope = fired ? all(n.slope1) : all(n.slope0);
    vf keep = fired ? all(n.back1) : all(n.back0);
    return step_back(n, u, curve<S>(n, u), slope, keep, grad, eps);
}

// The same with the rectangle from what the forward pass kept: which lanes fired, which were within the window; the
// potentials of these, 0 elsewhere.
inline vf step_back_kept(const Neuron& n, vf u, uint32_t inside, uint32_t fired, vf grad, vf& eps) {
    vf h = select(inside, all(1 / n.width), vf{});
    vf slope = select(fired, all(n.slope1), all(n.slope0));
    vf keep = select(fired, all(n.back1), all(n.back0));
    return step_back(n, u, h, slope, keep, grad, eps);
}

}  // namespace stbp
