// From the events of a batch of recordings to frames, see reference.py: one pass over the events of each sample.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "stbp/ops/encode/random.h"
#include "stbp/ops/native/api.h"

namespace {

enum Parts { STEP, TIME, EVENTS };    // as _PARTS in op.py

struct Choice {    // as _Choice in op.py
    int64_t T, H, W, step_us, start_us, stop_us, jitter_us;
    int32_t parts, stabilize, counts, shift;
    uint32_t drop, seed, epoch;
};

// The events of one recording; Place: uint8_t, or uint16_t for sensors of more than 256 columns or rows.
template <class Place>
struct Events {
    const uint32_t* t;
    const Place *x, *y;
    const uint8_t* p;    // of all recordings, one bit each
    uint64_t first;
    int64_t n;
    int p_of(int64_t e) const { return p[(first + e) / 8] >> ((first + e) % 8) & 1; }
};

constexpr uint32_t STREAM = 4;    // EVENTS of encode/reference.py
constexpr int64_t SACCADE = 105000, FINE = 2 * SACCADE;

int64_t round_half_even(int64_t fine) {    // of a number that is not negative
    int64_t whole = fine / FINE, rest = fine % FINE;
    return whole + (2 * rest > FINE || (2 * rest == FINE && whole % 2));
}

// False where the event leaves the sensor.
bool stabilize(int64_t t, int64_t& x, int64_t& y, const Choice& c) {
    int64_t fx = FINE * (x + 4), fy = FINE * (y + 2);
    if (t <= SACCADE)
        fx -= 7 * t, fy -= 14 * t;
    else if (t <= 2 * SACCADE)
        fx -= 7 * t, fy += 14 * (t - 2 * SACCADE);
    else
        fx += 14 * (t - 3 * SACCADE);
    if (fx < 0 || fy < 0 || fx > FINE * (c.W - 1) || fy > FINE * (c.H - 1)) return false;
    x = round_half_even(fx), y = round_half_even(fy);
    return true;
}

// Random numbers of the events of a sample, SIDE at a time.
class Draws {
   public:
    Draws(const Choice& c, uint32_t sample) : choice_(c), sample_(sample), on_(c.drop || c.jitter_us) {}

    void shift(int64_t& dx, int64_t& dy) {
        fill(0, 1);
        dx = (int64_t)((words_[0][0] & WORD) * (2 * choice_.shift + 1) >> 32) - choice_.shift;
        dy = (int64_t)((words_[1][0] & WORD) * (2 * choice_.shift + 1) >> 32) - choice_.shift;
    }

    void next(int64_t e) {
        if (on_ && e % stbp::SIDE == 0) fill(e, 0);
    }
    bool drops(int64_t e) const { return on_ && (uint32_t)words_[0][e % stbp::SIDE] >> 8 < choice_.drop; }
    int64_t late(int64_t e) const {
        if (!choice_.jitter_us) return 0;
        int64_t total = 0;
        for (int word = 1; word < 4; word++)
            for (uint32_t w = (uint32_t)words_[word][e % stbp::SIDE]; w; w >>= 8) total += w & 255;
        return ((total - 1530) * choice_.jitter_us + 128) >> 8;
    }

   private:
    static constexpr uint64_t WORD = 0xFFFFFFFFu;

    void fill(int64_t e, uint64_t what) {
        for (int i = 0; i < stbp::SIDE; i++)
            words_[0][i] = e + i, words_[1][i] = what, words_[2][i] = sample_, words_[3][i] = choice_.epoch;
        stbp::philox(words_, choice_.seed, STREAM);
    }

    const Choice& choice_;
    uint32_t sample_;
    bool on_;
    alignas(64) uint64_t words_[4][stbp::SIDE];
};

// floor(value * multiplier / divisor), remembered: events come mostly in the order of time.
class Step {
   public:
    template <class Place>
    Step(const Events<Place>& events, const Choice& c) {
        if (c.parts == STEP) {
            origin_ = c.start_us, divisor_ = c.step_us;
            return;
        }
        multiplier_ = c.T;
        int64_t n = 0, first = INT64_MAX, last = 0;
        for (int64_t e = 0; e < events.n; e++) {
            int64_t t = events.t[e];
            if (t < c.start_us || t >= c.stop_us) continue;
            n++, first = std::min(first, t), last = std::max(last, t);
        }
        if (n) origin_ = c.parts == TIME ? first : 0, divisor_ = c.parts == TIME ? last + 1 - first : n;
    }

    // The least value of a step.
    int64_t first(int64_t step) const { return origin_ + (step * divisor_ + multiplier_ - 1) / multiplier_; }

    int64_t of(int64_t value) {    // negative before the first
        int64_t scaled = (value - origin_) * multiplier_;
        if (scaled < 0) return -1;
        if ((uint64_t)(scaled - low_) >= (uint64_t)divisor_) step_ = scaled / divisor_, low_ = step_ * divisor_;
        return step_;
    }

   private:
    int64_t origin_ = 0, multiplier_ = 1, divisor_ = 1, step_ = 0, low_ = 0;
};

// Where the events of one sample go: `at(k)` is its frame of step k.
template <class Cell>
struct Frames {
    uint8_t* rows;
    int64_t B, b;
    size_t row;
    Cell* at(int64_t k) const { return reinterpret_cast<Cell*>(rows + (k * B + b) * row); }
};

inline void put(uint8_t* frame, size_t i) { frame[i / 8] |= (uint8_t)(1u << i % 8); }
inline void put(float* frame, size_t i) { frame[i] += 1; }

// As `each`, where no event is moved, late or dropped. Events of a step follow each other, so that each costs little
// more than its own bit. COUNTED: steps go by an event's number, not by its time.
template <bool COUNTED, class Place, class Cell>
void each_unchanged(const Events<Place> events, const Choice c, const Frames<Cell> frames) {
    Step step(events, c);
    size_t places = c.H * c.W;
    int64_t stop = COUNTED ? INT64_MAX : c.stop_us, j = 0;
    uint64_t begin = 0, length = 0;    // the times, or numbers, of the events that go to `frame`
    Cell* frame = nullptr;
    for (int64_t e = 0; e < events.n; e++) {
        int64_t t = events.t[e];
        size_t x = events.x[e], y = events.y[e];
        bool outside = t < c.start_us || t >= c.stop_us;
        if (COUNTED && outside) continue;
        int64_t value = COUNTED ? j++ : t;
        if ((uint64_t)value - begin >= length) {
            if (outside) continue;
            int64_t k = step.of(value);
            if (k < 0 || k >= c.T) continue;
            begin = step.first(k), length = std::min(step.first(k + 1), stop) - begin;
            frame = frames.at(k);
        }
        if (x < (size_t)c.W && y < (size_t)c.H) put(frame, y * c.W + x + (events.p_of(e) ? places : 0));
    }
}

// Puts every event that has one into its place. The arguments are copies: no byte written can alias them.
template <class Place, class Cell>
void each(const Events<Place> events, uint32_t sample, const Choice c, const Frames<Cell> frames) {
    if (!(c.drop || c.jitter_us || c.shift || c.stabilize))
        return c.parts == EVENTS ? each_unchanged<true>(events, c, frames) : each_unchanged<false>(events, c, frames);
    Draws draws(c, sample);
    Step step(events, c);
    int64_t dx = 0, dy = 0, j = 0;
    if (c.shift) draws.shift(dx, dy);
    for (int64_t e = 0; e < events.n; e++) {
        draws.next(e);
        int64_t t = events.t[e], x = events.x[e], y = events.y[e];
        if (t < c.start_us || t >= c.stop_us) continue;
        int64_t k = step.of(c.parts == EVENTS ? j++ : t + draws.late(e));
        if (k < 0 || k >= c.T || draws.drops(e)) continue;
        if (c.stabilize && !stabilize(t, x, y, c)) continue;
        x += dx, y += dy;
        if (x < 0 || y < 0 || x >= c.W || y >= c.H) continue;
        put(frames.at(k), (events.p_of(e) * c.H + y) * c.W + x);
    }
}

// out: bits [T][B][ceil(2HW / 8)], or with `counts` floats [T][B][2HW]. A sample is the work of one thread.
template <class Place>
void frames(const uint32_t* t, const Place* x, const Place* y, const uint8_t* p, const int64_t* offsets, const int64_t* ids,
            int64_t B, const Choice c, void* out, int threads) {
    size_t places = 2 * c.H * c.W, row = c.counts ? places * sizeof(float) : (places + 7) / 8;
    uint8_t* rows = static_cast<uint8_t*>(out);
#pragma omp parallel for num_threads(threads) schedule(dynamic, stbp::tuning::SAMPLES_AT_A_TIME)
    for (int64_t b = 0; b < B; b++) {
        int64_t first = offsets[ids[b]], n = offsets[ids[b] + 1] - first;
        Frames<uint8_t> bits{rows, B, b, row};
        for (int64_t k = 0; k < c.T; k++) std::memset(bits.at(k), 0, row);
        Events<Place> events{t + first, x + first, y + first, p, (uint64_t)first, n};
        if (c.counts)
            each(events, (uint32_t)ids[b], c, Frames<float>{rows, B, b, row});
        else
            each(events, (uint32_t)ids[b], c, bits);
    }
}

}  // namespace

// x, y: uint16_t where `wide`, otherwise uint8_t.
STBP_API void stbp_frames(const uint32_t* t, const void* x, const void* y, const uint8_t* p, const int64_t* offsets,
                          const int64_t* ids, int64_t B, int wide, Choice c, void* out, int threads) {
    if (wide)
        frames(t, (const uint16_t*)x, (const uint16_t*)y, p, offsets, ids, B, c, out, threads);
    else
        frames(t, (const uint8_t*)x, (const uint8_t*)y, p, offsets, ids, B, c, out, threads);
}
