// Forward and backward pass of a chain of stages over a whole window: the two functions that call.py calls.
#include "stbp/ops/native/api.h"
#include "stbp/ops/synapse/conv_back.h"

using namespace stbp;

// Bytes of the structures that call.py mirrors.
STBP_API int stbp_size_of_stage() { return sizeof(Stage); }
STBP_API int stbp_size_of_window() { return sizeof(Window); }

STBP_API void stbp_chain_forward(const Window* window, const Stage* stages, int n) {
    const Window& w = *window;
    for (int i = 0; i < n; i++) {
        const Stage& s = stages[i];
        const Stage* before = i ? &stages[i - 1] : nullptr;
        bool last = i == n - 1;
        switch (s.kind) {
            case Kind::CURRENT: current_forward(w, s, last); continue;
            case Kind::LINEAR: linear_forward(w, s, before, last, w.path + 3 * i, w.density + 3 * i); continue;
            case Kind::CONV: conv_forward(w, s, before, last, w.path + 3 * i, w.density + 3 * i); continue;
            case Kind::LOOKUP: lookup_forward(w, s, last, w.path + 3 * i, w.density + 3 * i); continue;
        }
        unknown("a stage of kind", (long long)s.kind);
    }
}

STBP_API void stbp_chain_backward(const Window* window, const Stage* stages, int n) {
    Sent sent;
    Upper up;
    int i = n - 1;
    for (; i >= 0 && stages[i].kind == Kind::LINEAR; i--) {
        Sent own;
        const Stage* before = i ? &stages[i - 1] : nullptr;
        linear_back(*window, stages[i], before, up, before ? &own : nullptr, window->path + 3 * i,
                    window->density + 3 * i);
        sent = std::move(own);
        up = {&stages[i], &sent};
    }
    if (i >= 0) maps_back(*window, stages, i + 1, up);
}
