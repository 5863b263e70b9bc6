// Transposition of a matrix of floats.
#pragma once

#include <algorithm>

#include "stbp/ops/native/tuning.h"

namespace stbp {

// to[j][i] = from[i][j] for i, j < 8; strides in floats.
__attribute__((always_inline)) inline void transpose_8x8(const float* from, size_t stride, float* to, size_t to_stride) {
    typedef float row __attribute__((vector_size(32)));
    row a[8], b[8];
    for (int i = 0; i < 8; i++) __builtin_memcpy(&a[i], from + i * stride, 32);
    for (int i = 0; i < 8; i += 2) {    // pairs of floats of two rows
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)    // fours, of four rows
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            a[i + 2 * j + 1] = __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    for (int i = 0; i < 8; i++) __builtin_memcpy(to + i * to_stride, &b[i], 32);
}

// to[j][i] = from[i][j] for i < n, j < m; strides in floats.
inline void transpose(const float* from, size_t stride, int n, int m, float* to, size_t to_stride) {
    using tuning::TRANSPOSED_ROWS, tuning::TRANSPOSE_AHEAD;
    for (int i0 = 0; i0 < n; i0 += TRANSPOSED_ROWS) {
        int end = std::min(i0 + TRANSPOSED_ROWS, n);
        for (int j = 0; j < m; j += 8)
            for (int i = i0; i < end; i += 8) {
                const float* f = from + i * stride + j;
                float* t = to + j * to_stride + i;
                if (i + 8 <= n && j + 8 <= m) {
                    for (int a = 0; a < 8; a++) __builtin_prefetch(f + a * stride + TRANSPOSE_AHEAD);
                    transpose_8x8(f, stride, t, to_stride);
                    continue;
                }
                for (int a = 0; a < n - i && a < 8; a++)
                    for (int b = 0; b < m - j && b < 8; b++) t[b * to_stride + a] = f[a * stride + b];
            }
    }
}

}  // namespace stbp
