// Bernoulli encoding of images, and packing of dense spikes. Only pixels that are neither 0 nor 1 draw random numbers.
#include <cmath>
#include <vector>

#include "stbp/ops/encode/random.h"
#include "stbp/ops/native/api.h"
#include "stbp/ops/native/vec.h"

namespace {

constexpr uint32_t ALWAYS = 1u << 24;

struct Pixel {
    uint32_t index, level;    // it fires where the upper 24 bits of its random word are below `level`
};

uint32_t level_of(float p) { return (uint32_t)std::ceil((double)p * ALWAYS); }

// The spikes of one sample, [T][bytes].
struct Sample {
    uint8_t* bits;
    size_t bytes;
    int T;
    void set(int t, uint32_t pixel) { bits[t * bytes + pixel / 8] |= (uint8_t)(1u << pixel % 8); }
};

// Draws for pixels two by two or more: every lane is a pixel and a block of four steps.
void draw(const std::vector<Pixel>& pixels, uint32_t sample, uint32_t seed, uint32_t epoch, Sample out) {
    using stbp::SIDE;
    int blocks = (out.T + 3) / 4;
    size_t lanes = pixels.size() * blocks;
    for (size_t first = 0; first < lanes; first += SIDE) {
        alignas(64) uint32_t c[4][SIDE];
        int n = (int)std::min<size_t>(SIDE, lanes - first);
        for (int i = 0; i < SIDE; i++) {
            size_t lane = i < n ? first + i : first;
            c[0][i] = pixels[lane / blocks].index, c[1][i] = (uint32_t)(lane % blocks), c[2][i] = sample, c[3][i] = epoch;
        }
        stbp::philox(c, seed, 0);
        for (int i = 0; i < n; i++) {
            Pixel pixel = pixels[(first + i) / blocks];
            int t = (int)((first + i) % blocks) * 4;
            for (int word = 0; word < 4 && t + word < out.T; word++)
                if (c[word][i] >> 8 < pixel.level) out.set(t + word, pixel.index);
        }
    }
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
        std::vector<uint8_t> own(T * row);
        std::vector<Pixel> pixels;
#pragma omp for schedule(dynamic, 4)
        for (int64_t b = 0; b < B; b++) {
            std::fill(own.begin(), own.end(), 0);
            pixels.clear();
            Sample out{own.data(), row, T};
            for (int64_t i = 0; i < N; i++) {
                uint32_t level = bytes_per_pixel == 1 ? byte_level[static_cast<const uint8_t*>(image)[b * N + i]]
                                                      : level_of(static_cast<const float*>(image)[b * N + i]);
                if (level >= ALWAYS)
                    for (int t = 0; t < T; t++) out.set(t, (uint32_t)i);
                else if (level)
                    pixels.push_back({(uint32_t)i, level});
            }
            draw(pixels, (uint32_t)sample[b], seed, epoch, out);
            for (int t = 0; t < T; t++) std::memcpy(bits + (t * B + b) * row, own.data() + t * row, row);
        }
    }
}

// o: [rows][n] floats; bits: [rows][ceil(n / 8)]. 0 if a value is neither 0 nor 1: then the bits mean nothing.
STBP_API int stbp_pack(const float* o, int64_t rows, int64_t n, uint8_t* bits, int threads) {
    using namespace stbp;
    int64_t row = (n + 7) / 8;
    int binary = 1;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(& : binary)
    for (int64_t r = 0; r < rows; r++) {
        const float* from = o + r * n;
        uint8_t* to = bits + r * row;
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
        binary &= !wrong;
    }
    return binary;
}
