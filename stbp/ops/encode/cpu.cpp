// Bernoulli encoding of images, and packing of dense spikes. Only pixels that are neither 0 nor 1 draw random numbers.
#include <cmath>
#include <vector>

#include "stbp/ops/encode/random.h"
#include "stbp/ops/native/api.h"
#include "stbp/ops/native/bits.h"
#include "stbp/ops/native/vec.h"

namespace {

constexpr uint32_t ALWAYS = 1u << 24;

struct Pixel {
    uint32_t index, level;    // it fires where the upper 24 bits of its random word are below `level`
};

uint32_t level_of(float p) { return (uint32_t)std::ceil((double)p * ALWAYS); }

// Draws for all pixels: every lane is a pixel and a block of four steps. No branch depends on a random number.
void draw(const std::vector<Pixel>& pixels, uint32_t sample, uint32_t seed, uint32_t epoch, int T, stbp::StepMap& map) {
    using stbp::SIDE;
    size_t blocks = (T + 3) / 4, lanes = pixels.size() * blocks, pixel = 0, block = 0;
    for (size_t first = 0; first < lanes; first += SIDE) {
        alignas(64) uint64_t c[4][SIDE];
        size_t n = std::min<size_t>(SIDE, lanes - first), p = pixel, t = block;
        for (size_t i = 0; i < SIDE; i++) {
            c[0][i] = pixels[std::min(p, pixels.size() - 1)].index, c[1][i] = t, c[2][i] = sample, c[3][i] = epoch;
            if (++t == blocks) t = 0, p++;
        }
        stbp::philox(c, seed, 0);
        for (size_t i = 0; i < n; i++) {
            uint64_t fired = 0;
            for (int word = 0; word < 4; word++)
                fired |= (uint64_t)((uint32_t)c[word][i] >> 8 < pixels[pixel].level) << word;
            map.bits[pixels[pixel].index * map.words + block / 16] |= fired << (4 * (block % 16));
            if (++block == blocks) block = 0, pixel++;
        }
    }
    uint64_t valid = T % 64 ? (1ull << T % 64) - 1 : ~0ull;    // the last block may reach beyond the window
    for (const Pixel& one : pixels) map.bits[one.index * map.words + map.words - 1] &= valid;
}

}  // namespace

// image: [B][N] floats, or bytes if `bytes_per_pixel` is 1; bits: [T][B][ceil(N / 8)].
STBP_API void stbp_bernoulli(const void* image, int bytes_per_pixel, int64_t B, int64_t N, int T, uint32_t seed,
                             uint32_t epoch, const int64_t* sample, uint8_t* bits, int threads) {
    uint32_t byte_level[256];
    for (int i = 0; i < 256; i++) byte_level[i] = level_of((float)i / 255);
    size_t row = (N + 7) / 8;
#pragma omp parallel num_threads(threads)
    {
        stbp::StepMap map(T, row * 8);
        std::vector<Pixel> pixels;
#pragma omp for schedule(dynamic, stbp::tuning::SAMPLES_AT_A_TIME)
        for (int64_t b = 0; b < B; b++) {
            map.bits.zero();
            pixels.clear();
            for (int64_t i = 0; i < N; i++) {
                uint32_t level = bytes_per_pixel == 1 ? byte_level[static_cast<const uint8_t*>(image)[b * N + i]]
                                                      : level_of(static_cast<const float*>(image)[b * N + i]);
                if (level >= ALWAYS)
                    map.fill(i, T);
                else if (level)
                    pixels.push_back({(uint32_t)i, level});
            }
            draw(pixels, (uint32_t)sample[b], seed, epoch, T, map);
            map.write(bits + b * row, T, row, B * row);
        }
    }
}

// One row of n floats to bits; whether all of them are 0 or 1.
static bool pack_row(const float* from, int64_t n, uint8_t* to) {
    using namespace stbp;
    int64_t i = 0;
    uint32_t wrong = 0;
    for (; i + UNIT <= n; i += UNIT) {
        uint32_t fired = 0;
        for (int v = 0; v < PER_UNIT; v++) {
            vf x = load(from + i + v * LANES);
            uint32_t some = bits_nonzero(x);
            fired |= some << (v * LANES);
            wrong |= some & bits_nonzero(x - 1.0f);
        }
        uint16_t part = (uint16_t)fired;
        std::memcpy(to + i / 8, &part, 2);
    }
    for (; i < n; i += 8) {
        uint8_t part = 0;
        for (int64_t j = i; j < std::min(i + 8, n); j++) {
            part |= (uint8_t)((from[j] != 0) << (j - i));
            wrong |= from[j] != 0 && from[j] != 1;
        }
        to[i / 8] = part;
    }
    return !wrong;
}

// o: [T][B][n] floats; bits: [T][B][ceil(n / 8)]. 0 if a value is neither 0 nor 1: then the bits mean nothing.
STBP_API int stbp_pack(const float* o, int64_t T, int64_t B, int64_t n, uint8_t* bits, int threads) {
    if (B < threads) B *= T, T = 1;
    int64_t row = (n + 7) / 8;
    int binary = 1;
#pragma omp parallel num_threads(threads) reduction(& : binary)
    for (int64_t t = 0; t < T; t++) {
#pragma omp for schedule(static) nowait  // in every step the same samples, those that the thread will read
        for (int64_t b = 0; b < B; b++) binary &= pack_row(o + (t * B + b) * n, n, bits + (t * B + b) * row);
    }
    return binary;
}
