// From the content of an N-MNIST recording to columns, see stbp/data/events/formats/nmnist.py: one pass, no copy in between.
#include <cstdint>

#include "stbp/ops/native/api.h"

namespace {

constexpr int64_t SIZE = 5;
constexpr uint32_t MARKER = 240, LAST = (1u << 23) - 1;

}  // namespace

// raw: a recording of so many bytes. t, x, y, p: columns with room for its events from element `first` on.
// Returns 0 where anything is not as usual: an overflow marker or a row behind it, an event cut off, time running back.
STBP_API int stbp_nmnist(const uint8_t* raw, int64_t bytes, int64_t first, uint32_t* __restrict t,
                         uint8_t* __restrict x, uint8_t* __restrict y, uint8_t* __restrict p) {
    t += first, x += first, y += first, p += first;
    int64_t events = bytes / SIZE;
    uint32_t odd = bytes % SIZE != 0;
    for (int64_t e = 0; e < events; e++) {    // apart: the loops behind fit vector units
        const uint8_t* at = raw + SIZE * e;
        x[e] = at[0], t[e] = (uint32_t)at[1] << 24 | at[2] << 16 | at[3] << 8 | at[4];
    }
    for (int64_t e = 0; e < events; e++) {
        uint32_t word = t[e];
        odd |= word >= MARKER << 24;
        y[e] = (uint8_t)(word >> 24), p[e] = word >> 23 & 1, t[e] = word & LAST;
    }
    for (int64_t e = 1; e < events; e++) odd |= t[e] < t[e - 1];
    return !odd;
}
