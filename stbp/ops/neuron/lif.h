// The iterative LIF neuron on one vector of neurons: reference.py is the definition, ops/README.md has the symbols.
#pragma once

#include "stbp/ops/native/vec.h"
#include "stbp/ops/surrogate/curves.h"

namespace stbp {

// Its constants; mirrored in op.py.
struct Lif {
    float keep0, keep1;                     // f(o) of the forward pass
    float back0, back1, slope0, slope1;     // f and f' of the backward pass
    float threshold, width;
    Surrogate surrogate;

    vi fires(vf u) const { return u >= threshold; }

    // One step: the potential after current x, from the potential before and who fired with it.
    vf step(vf u, vi fired, vf x) const { return u * (fired ? all(keep1) : all(keep0)) + x; }
    vf step(vf u, vf x) const { return step(u, fires(u), x); }

    // The same number from both cases side by side: more to do, but less to wait for where few neurons go through all
    // steps.
    vf step_of_both(vf u, vf x) const {
        vf kept = u * keep0 + x, after = u * keep1 + x;
        return fires(u) ? after : kept;
    }

    // One step backward. `eps` is dL/du of step t + 1 and becomes that of step t; `grad` is what reaches the spikes of
    // step t from outside. Returns a = eps^t - f(0) eps^{t+1}, which is zero outside the curve's support unless o^t = 1.
    template <Surrogate S>
    vf back(vf u, vf grad, vf& eps) const {
        vi fired = fires(u);
        vf slope = fired ? all(slope1) : all(slope0);
        vf keep = fired ? all(back1) : all(back0);
        return back(u, curve<S>(u - threshold, width), slope, keep, grad, eps);
    }

    // The same with the rectangle from what the forward pass kept: which lanes fired, which were within the window; the
    // potentials of these, 0 elsewhere.
    vf back_kept(vf u, uint32_t inside, uint32_t fired, vf grad, vf& eps) const {
        vf h = select(inside, all(1 / width), vf{});
        vf slope = select(fired, all(slope1), all(slope0));
        vf keep = select(fired, all(back1), all(back0));
        return back(u, h, slope, keep, grad, eps);
    }

    // From dL/du of the first step to the gradients of the state before it.
    void back_to_state(vf u, vi fired, vf eps, vf& to_u, vf& to_o) const {
        to_u = eps * (fired ? all(back1) : all(back0));
        to_o = eps * u * (fired ? all(slope1) : all(slope0));
    }

   private:
    // With h = h(u): eps^t = grad h + eps^{t+1} (u f'(o) h + f(o)), so that one step waits for one multiplication only.
    vf back(vf u, vf h, vf slope, vf keep, vf grad, vf& eps) const {
        vf own = grad * h, factor = u * slope * h;
        vf a = fma(eps, factor + (keep - back0), own);
        eps = fma(eps, factor + keep, own);
        return a;
    }
};

}  // namespace stbp
