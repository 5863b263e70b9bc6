// The neuron models alone over a window, as op.py calls them.
#include "stbp/ops/native/api.h"
#include "stbp/ops/neuron/lif.h"
#include "stbp/ops/neuron/scan.h"

using namespace stbp;

// The surrogates that these kernels know, in the order of their numbers.
STBP_API const char* stbp_curves() {
#define STBP_NAME(name) "," #name
    return &(STBP_CURVES(STBP_NAME))[1];
#undef STBP_NAME
}

// Arguments as `scan`.
STBP_API void stbp_lif_forward(const float* x, const float* u, const float* o, const Lif* neuron, int T, int64_t n,
                               float* os, float* us, float* u_last, int threads) {
    scan(*neuron, x, u, o, T, n, os, us, u_last, threads);
}

// Arguments as `lif_backward` of reference.py; to_u and to_o are the gradients of the state given.
STBP_API void stbp_lif_backward(const float* grad_o, const float* grad_u, const float* us, const float* u,
                                const float* o, const Lif* neuron, int T, int64_t n, float* grad_x, float* to_u,
                                float* to_o, int threads) {
    scan_back(*neuron, {grad_o, grad_u, us, u, o, grad_x, to_u, to_o, T, n}, threads);
}
