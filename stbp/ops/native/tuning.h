// Every number of the kernels that was chosen because it is fast: another value gives the same results up to the order of
// a sum, and other times. All were tuned on one Zen 4 core with 1 MB of second cache; what was measured is in LOG.md.
#pragma once

#include "stbp/ops/native/vec.h"

namespace stbp::tuning {

// --- vectors and caches ---------------------------------------------------------------------------------------------

// Bytes that the processor fetches from memory at once.
constexpr size_t LINE = 64;

// Transposition of a matrix: rows whose lines stay in the nearest cache until all of them is used, and how many floats
// ahead of its use a row is fetched.
constexpr int TRANSPOSED_ROWS = 64, TRANSPOSE_AHEAD = 64;

// Philox counters worked on side by side: as many as hide the latency of the multiplications.
constexpr int COUNTERS = 16;

// Images or recordings that a thread takes at a time: they differ in events, so few, and not so few that threads wait.
constexpr int SAMPLES_AT_A_TIME = 4;

// --- neurons alone, loss --------------------------------------------------------------------------------------------

// Neurons that go through all steps together: their potentials stay in the nearest cache from step to step.
constexpr int64_t NEURON_BLOCK = 512;

// Numbers of a step of the loss that one thread does: with fewer in all, waking a second thread takes longer.
constexpr int64_t LOSS_PART = 4096;

// --- tiles of outputs -----------------------------------------------------------------------------------------------

// Units of 16 outputs in the widest tile: its sums fill the registers without spilling.
constexpr int MAX_UNITS = LANES >= 8 ? 5 : 2;

// Weights of a tile in the forward pass: with the events and potentials they stay in the second cache.
constexpr size_t TILE_BYTES = 320 << 10;

// The gradient of a tile of a linear synapse: nothing else of the backward pass wants the second cache, and wide rows
// read an input's list fewer times.
constexpr size_t GRADIENT_TILE_BYTES = 800 << 10;

// --- events or dense ------------------------------------------------------------------------------------------------

// Above this share of rows to add per step a dense product is faster: it reads a row of weights once for
// DENSE_STEPS steps, an event for one.
constexpr double DENSE = 0.45;

// Steps whose sums the dense product holds in registers together.
constexpr int DENSE_STEPS = 4;

// Sums that take turns where a tile is narrow and their order is free: one or two units do not keep the adders busy.
constexpr int turns(int units) { return units == 1 ? 4 : 2; }

// With no more outputs than this a row is added faster than the inputs' usual values are found.
constexpr int FEW_OUTPUTS = 32;

// Samples by which it is judged how often an input fires that fires at all: any few of a batch show it.
constexpr int JUDGED_SAMPLES = 8;

// Steps in which such an input must fire for usual values to save more rows than finding them costs.
inline double usual_steps(int T) { return T / 8.0 < 4.0 ? T / 8.0 : 4.0; }

// --- the linear synapse ---------------------------------------------------------------------------------------------

// A batch's samples are done in at most so many parts, of at least so many samples: enough for all threads to be busy,
// few enough for a thread to pack the weights of a tile seldom. The number decides where potentials are kept.
constexpr int PARTS = 8, PART_SAMPLES = 4;

// Groups of samples whose gradients are summed apart, over all tiles: their number decides the order of the sum, so it
// must not depend on the number of threads.
constexpr int LINEAR_GROUPS = 8;

// In at least so many steps of a window an input must fire for its gradient to be summed over one sample; where it is
// rarer, over as many as a tile's dL/du leave room for in the second cache.
constexpr double STEPS_PER_INPUT = 4;
constexpr size_t CHUNK_BYTES = 384 << 10;

// --- convolutions ---------------------------------------------------------------------------------------------------

// Groups of samples whose gradients are summed apart; fixed as LINEAR_GROUPS is, and large, for they are also the pieces
// of work that threads take.
constexpr int MAP_GROUPS = 50;

// dL/du of the outputs of a row that are taken together in the weight's gradient: longer lists and fewer visits of the
// gradient, and all of them still lie in or near the first cache.
constexpr size_t OUTPUTS_BYTES = 48 << 10;

// Rows of the kernel taken together in the input's gradient: as many as the registers allow.
constexpr int KERNEL_ROWS = LANES == 16 ? 2 : 1;

// Tables of a looked-up convolution: no more rows of its kernel in all, and no more bytes than stay in the first two
// caches beside the rows of the input.
constexpr int LOOKUP_ROWS = 16;
constexpr size_t LOOKUP_BYTES = 48 << 10;

// Steps whose entries are found before the first is read: a loop that is all vectors.
constexpr int LOOKUP_STEPS = 32;

}  // namespace stbp::tuning
