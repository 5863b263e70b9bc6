// The pixels of an event camera before a moving image: the same numbers in the same order as reference.py, one recording
// a thread. Pixels are numbered column by column. Image columns and pixels without ink are left out: adding zeros changes
// no sum.
#include <algorithm>
#include <cmath>
#include <vector>

#include "stbp/ops/encode/random.h"
#include "stbp/ops/native/api.h"
#include "stbp/ops/native/vec.h"

namespace {

using namespace stbp;

constexpr float FINE = 64;
constexpr uint32_t SENSOR = 5;    // the stream of the seed
enum : uint32_t { NOISE, COUNT, PLACE };
constexpr int GROUP = 4;    // steps whose noise one Philox block holds

// Mirrored in op.py.
struct Model {
    int64_t h, w, H, W, steps, entries_x, entries_y, counts[2];
    const float *table_x, *table_y, *offset_x, *offset_y, *on, *off;
    const uint32_t *count_off, *count_on;
    float base, gain, floor, alpha, noise, dead_on, dead_off, step_us;
    uint32_t seed, unused;
};

struct Found {
    std::vector<std::vector<uint64_t>> keys;
};

uint64_t key_of(uint64_t t, uint64_t x, uint64_t y, uint64_t p) { return t << 17 | y << 9 | x << 1 | p; }

inline vi bits_of(vf x) { return (vi)x; }

inline vf log_of(vf x) {
    vi e = (bits_of(x) - 0x3F3504F3) >> 23;
    vf m = (vf)(bits_of(x) - (e << 23));
    vf s = (m - 1.0f) / (m + 1.0f), z = s * s;
    vf p = z * (float)(1.0 / 9) + (float)(1.0 / 7);
    p = p * z + (float)(1.0 / 5);
    p = p * z + (float)(1.0 / 3);
    p = p * z + 1.0f;
    return (s + s) * p + __builtin_convertvector(e, vf) * (float)0.6931471805599453;
}

// Which sensor columns an image column reaches, and by how much.
struct Band {
    int64_t first, last;    // the last one is left out
};

float weight(const float* table, int64_t entries, float a) {
    if (!(a < (float)(entries - 1))) return 0;
    int k = (int)a;
    return table[k] + (a - (float)k) * (table[k + 1] - table[k]);
}

class Recording {
   public:
    explicit Recording(const Model& model)
        : m_(model),
          n_(model.H * model.W),
          padded_(round_up(n_, UNIT) + round_up(model.H, UNIT)),
          rows_(round_up(model.H, UNIT)),
          across_(model.w * model.W),
          down_(model.h * rows_),
          columns_(model.w * rows_),
          across_band_(model.w),
          down_band_(model.h) {
        for (auto* field : {&seen_, &low_, &v_, &level_, &free_, &on_, &off_}) field->assign(padded_, 0);
        for (auto& field : shake_) field.assign(padded_, 0);
        std::copy(m_.on, m_.on + n_, on_.begin());
        std::copy(m_.off, m_.off + n_, off_.begin());
        for (size_t i = n_; i < padded_; i++) on_[i] = off_[i] = INFINITY;
    }

    void run(const uint8_t* image, const float* position, uint32_t sample, std::vector<uint64_t>& keys) {
        ink_.clear();
        for (int64_t i = 0; i < m_.w; i++)
            for (int64_t j = 0; j < m_.h; j++)
                if (uint8_t value = image[j * m_.w + i]) ink_.push_back({i, j, (float)value / 255.0f});
        keys_ = &keys;
        std::fill(free_.begin(), free_.end(), -1.0f);
        for (int64_t k = 0; k <= m_.steps; k++) {
            if (k % GROUP == 0) shake(k / GROUP, sample);
            look(position[2 * k], position[2 * k + 1]);
            if (k == 0)
                begin();
            else
                step(k, shake_[k % GROUP].data());
        }
        for (uint32_t p = 0; p < 2; p++) background(p, sample);
        std::sort(keys.begin(), keys.end());
    }

   private:
    struct Ink {
        int64_t i, j;
        float value;
    };

    void shake(int64_t block, uint32_t sample) {
        if (m_.noise == 0) return;
        for (int64_t first = 0; first < n_; first += SIDE) {
            alignas(64) uint64_t c[4][SIDE];
            for (int i = 0; i < SIDE; i++) c[0][i] = first + i, c[1][i] = block, c[2][i] = sample, c[3][i] = NOISE;
            philox(c, m_.seed, SENSOR);
            for (int word = 0; word < GROUP; word++) {
                float* to = shake_[word].data() + first;
                for (int i = 0; i < SIDE; i++) {
                    uint32_t r = (uint32_t)c[word][i];
                    int sum = (int)((r & 255) + (r >> 8 & 255) + (r >> 16 & 255) + (r >> 24)) - 510;
                    to[i] = (float)sum * m_.noise;
                }
            }
        }
    }

    // The image's share of the light on every pixel.
    void look(float x, float y) {
        std::fill(down_.begin(), down_.end(), 0.0f);
        bands(m_.table_x, m_.entries_x, m_.offset_x, m_.w, x, m_.W, m_.W, across_, across_band_);
        bands(m_.table_y, m_.entries_y, m_.offset_y, m_.h, y, m_.H, rows_, down_, down_band_);
        std::fill(seen_.begin(), seen_.end(), 0.0f);
        for (size_t at = 0; at < ink_.size();) {
            int64_t i = ink_[at].i, first = m_.H, last = 0;
            float* column = columns_.data() + i * rows_;
            std::fill(column, column + rows_, 0.0f);
            for (; at < ink_.size() && ink_[at].i == i; at++) {
                const Band& band = down_band_[ink_[at].j];
                const float* row = down_.data() + ink_[at].j * rows_;
                first = std::min(first, band.first), last = std::max(last, band.last);
                for (int64_t y0 = band.first / LANES * LANES; y0 < band.last; y0 += LANES)
                    store(column + y0, load(column + y0) + ink_[at].value * load(row + y0));
            }
            for (int64_t x0 = across_band_[i].first; x0 < across_band_[i].last; x0++)
                for (int64_t y0 = first / LANES * LANES; y0 < last; y0 += LANES) {
                    float* to = seen_.data() + x0 * m_.H + y0;
                    store(to, load(to) + across_[i * m_.W + x0] * load(column + y0));
                }
        }
    }

    void bands(const float* table, int64_t entries, const float* offset, int64_t n, float centre, int64_t size,
               int64_t stride, std::vector<float>& to, std::vector<Band>& band) {
        int64_t reach = (int64_t)((float)entries / FINE) + 2;
        for (int64_t i = 0; i < n; i++) {
            float place = centre + offset[i];
            int64_t middle = (int64_t)std::floor(std::clamp(place, -1e6f, 1e6f));
            band[i] = {std::clamp<int64_t>(middle - reach, 0, size), std::clamp<int64_t>(middle + reach + 1, 0, size)};
            for (int64_t x = band[i].first; x < band[i].last; x++)
                to[i * stride + x] = weight(table, entries, std::fabs((float)x - place) * FINE);
        }
    }

    vf signal(size_t i) const {
        vf light = m_.base + m_.gain * load(&seen_[i]), floor = all(m_.floor);
        return log_of(light > floor ? light : floor);
    }

    void begin() {
        for (int64_t i = 0; i < n_; i += LANES) {
            vf u = signal(i), v = u + load(&shake_[0][i]);
            store(&low_[i], u), store(&v_[i], v), store(&level_[i], v);
        }
    }

    void step(int64_t k, const float* shake) {
        vf start = all((float)(k - 1)), now = all((float)k);
        for (int64_t i = 0; i < n_; i += LANES) {
            vf low = load(&low_[i]), before = load(&v_[i]), level = load(&level_[i]), free = load(&free_[i]);
            low = low + m_.alpha * (signal(i) - low);
            vf v = low + load(shake + i);
            vi waits = free > start, open = free <= now;
            vf begin = waits ? free - start : vf{};
            level = (waits & open) ? before + begin * (v - before) : level;
            vf d = v - level;
            vi fired = open & ((d > load(&on_[i])) | (d < -load(&off_[i])));
            store(&low_[i], low), store(&v_[i], v), store(&level_[i], level);
            uint32_t lanes = bits_nonzero(fired ? all(1.0f) : vf{});
            for (; lanes; lanes &= lanes - 1) {
                int lane = __builtin_ctz(lanes);
                fire(k, i + lane, before[lane], begin[lane], waits[lane] != 0);
            }
        }
    }

    void fire(int64_t k, int64_t i, float before, float begin, bool waited) {
        float start = (float)(k - 1), v = v_[i], level = level_[i], d = v - level;
        bool on = d > on_[i];
        float first = waited ? 0.0f : before - level, aim = on ? on_[i] : -off_[i];
        float share = begin + (1.0f - begin) * ((aim - first) / (d - first));
        float t = start + std::min(std::max(share, begin), 1.0f);
        keys_->push_back(key_of((uint32_t)(t * m_.step_us), i / m_.H, i % m_.H, on));
        free_[i] = t + (on ? m_.dead_on : m_.dead_off);
        if (free_[i] <= (float)k) level_[i] = before + (free_[i] - start) * (v - before);
    }

    void background(uint32_t p, uint32_t sample) {
        alignas(64) uint64_t c[4][SIDE];
        auto draw = [&](uint32_t first, uint32_t use) {
            for (int i = 0; i < SIDE; i++) c[0][i] = first + i, c[1][i] = p, c[2][i] = sample, c[3][i] = use;
            philox(c, m_.seed, SENSOR);
        };
        draw(0, COUNT);
        const uint32_t* counts = p ? m_.count_on : m_.count_off;
        int64_t n = std::upper_bound(counts, counts + m_.counts[p], (uint32_t)c[0][0]) - counts;
        uint64_t duration = (uint64_t)std::llround((double)m_.steps * (double)m_.step_us);
        for (int64_t first = 0; first < n; first += SIDE) {
            draw((uint32_t)first, PLACE);
            for (int64_t i = 0; i < std::min<int64_t>(SIDE, n - first); i++) {
                uint64_t place = (uint64_t)(uint32_t)c[0][i] * n_ >> 32, t = (uint32_t)c[1][i] * duration >> 32;
                keys_->push_back(key_of(t, place / m_.H, place % m_.H, p));
            }
        }
    }

    const Model& m_;
    int64_t n_;
    size_t padded_;
    int64_t rows_;
    std::vector<float> across_, down_, columns_;
    std::vector<Band> across_band_, down_band_;
    std::vector<float> seen_, low_, v_, level_, free_, on_, off_, shake_[GROUP];
    std::vector<Ink> ink_;
    std::vector<uint64_t>* keys_ = nullptr;
};

}  // namespace

STBP_API int64_t stbp_saccade_size() { return sizeof(Model); }

// image: [B][h][w]; position: [B][steps + 1][2]; length: [B], filled in. The events wait until they are taken.
STBP_API void stbp_saccade(const Model* model, const uint8_t* image, const float* position, const int64_t* sample,
                           int64_t B, int64_t* length, Found** found, int threads) {
    *found = new Found{std::vector<std::vector<uint64_t>>(B)};
#pragma omp parallel num_threads(threads)
    {
        Recording recording(*model);
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < B; b++) {
            recording.run(image + b * model->h * model->w, position + b * (model->steps + 1) * 2, (uint32_t)sample[b],
                          (*found)->keys[b]);
            length[b] = (int64_t)(*found)->keys[b].size();
        }
    }
}

// Hands the events over, one recording behind the other, and forgets them.
STBP_API void stbp_saccade_take(Found* found, uint32_t* t, uint8_t* x, uint8_t* y, uint8_t* p) {
    for (const auto& keys : found->keys)
        for (uint64_t key : keys) *t++ = (uint32_t)(key >> 17), *x++ = key >> 1, *y++ = key >> 9, *p++ = key & 1;
    delete found;
}
