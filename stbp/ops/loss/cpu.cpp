// The paper's loss on a window of output spikes, and its gradient.
#include <algorithm>
#include <cstdint>

#include "stbp/ops/native/api.h"
#include "stbp/ops/native/tuning.h"

using stbp::tuning::LOSS_PART;

// o: [T][B][K]; y: [B]; distance: [B][K], rates minus one-hot labels; loss: one number. 0 if a label is no class: then
// loss and distance mean nothing.
STBP_API int stbp_rate_mse(const float* o, const int64_t* y, int64_t T, int64_t B, int64_t K, float* distance,
                           float* loss, int threads) {
    int64_t n = B * K, parts = (n + LOSS_PART - 1) / LOSS_PART;
#pragma omp parallel for num_threads(threads) if (parts > 1)
    for (int64_t part = 0; part < parts; part++) {
        stbp::FlushDenormals mode;
        int64_t first = part * LOSS_PART, end = std::min(n, first + LOSS_PART);
        std::fill(distance + first, distance + end, 0.0f);
        for (int64_t t = 0; t < T; t++)
            for (int64_t i = first; i < end; i++) distance[i] += o[t * n + i];
        for (int64_t i = first; i < end; i++) distance[i] /= (float)T;
    }
    for (int64_t b = 0; b < B; b++) {
        if (y[b] < 0 || y[b] >= K) return 0;
        distance[b * K + y[b]] -= 1.0f;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)distance[i] * distance[i];
    *loss = (float)(sum / (2.0 * (double)B));
    return 1;
}

// grad: [T][B][K], dL/do, from dL/dloss: the same in every step.
STBP_API void stbp_rate_mse_backward(const float* distance, const float* loss_grad, int64_t T, int64_t B, int64_t K,
                                     float* grad, int threads) {
    int64_t n = B * K;
    float share = *loss_grad / (float)(T * B);
#pragma omp parallel for num_threads(threads) if (n > LOSS_PART)
    for (int64_t t = 0; t < T; t++) {
        stbp::FlushDenormals mode;
        for (int64_t i = 0; i < n; i++) grad[t * n + i] = distance[i] * share;
    }
}
