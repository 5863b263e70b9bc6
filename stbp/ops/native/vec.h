// One vector register of floats, the same on every instruction set: arithmetic is the compiler's (vector extensions),
// what they cannot say (fused multiply-add, masks) is below. Products and sums that decide a spike are written
// `a * b + c` and are never fused (-ffp-contract=off); `fma` is for synapses and gradients, where float32 rounding is
// allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stbp {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Widths of rows are multiples of this on every instruction set, so that packed layouts are the same everywhere.
constexpr int UNIT = 16;
constexpr int PER_UNIT = UNIT / LANES;

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

inline vf load(const float* p) {
    vf v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }

inline vf all(float x) { return x - vf{}; }

inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// Bit i of the result: lane i of a >= lane i of b.
inline uint32_t bits_ge(vf a, vf b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b));
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)(a[i] >= b[i]) << i;
    return bits;
#endif
}

// Bit i of the result: lane i is not zero (NaN is not zero).
inline uint32_t bits_nonzero(vf a) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, _mm256_setzero_ps(), _CMP_NEQ_UQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpneq_ps((__m128)a, _mm_setzero_ps()));
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)(a[i] != 0) << i;
    return bits;
#endif
}

inline vf absolute(vf a) {
    vi bits;
    __builtin_memcpy(&bits, &a, sizeof a);
    bits &= 0x7FFFFFFF;
    __builtin_memcpy(&a, &bits, sizeof a);
    return a;
}

// a where bit i is set, else b.
inline vf select(uint32_t bits, vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_mask_blend_ps((__mmask16)bits, (__m512)b, (__m512)a);
#else
    vi lane, mask;
    for (int i = 0; i < LANES; i++) lane[i] = 1 << i;
    mask = (lane & (int32_t)bits) != 0;
    return mask ? a : b;
#endif
}

// Floats from `from` on, one after another, to the lanes whose bits are set; 0 in the others. A whole vector is read.
inline vf expand(uint32_t bits, const float* from) {
#if defined(__AVX512F__)
    __m512 packed = _mm512_loadu_ps(from);
    __asm__("" : "+v"(packed));    // read first: the instruction's own way to memory is slow
    return (vf)_mm512_maskz_expand_ps((__mmask16)bits, packed);
#else
    vf x = {};
    for (; bits; bits &= bits - 1) x[__builtin_ctz(bits)] = *from++;
    return x;
#endif
}

// e^x to a few units in the last place for x <= 0; 0 where that underflows.
inline vf exp_negative(vf x) {
    vf clamped = x < -87.0f ? all(-87.0f) : x;
    vf scaled = clamped * 1.44269504f - 0.5f;
    vi n = __builtin_convertvector(scaled, vi);  // towards zero: the nearest integer of a negative number
    vf whole = __builtin_convertvector(n, vf);
    vf r = fma(whole, all(-0.693145752f), clamped);
    r = fma(whole, all(-1.42860677e-6f), r);
    vf p = all(1.0f / 5040);
    const float series[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (float c : series) p = fma(p, r, all(c));
    vi exponent = (n + 127) << 23;
    vf power;
    __builtin_memcpy(&power, &exponent, sizeof power);
    return x < -87.0f ? vf{} : p * power;
}

// Denormals count as zero for as long as this lives; the caller's mode comes back afterwards. One for each thread.
class FlushDenormals {
   public:
#if defined(__x86_64__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before_); }

   private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
        __asm__ volatile("msr fpcr, %0" ::"r"(before_ | (1ull << 24)));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(before_)); }

   private:
    uint64_t before_;
#else
    FlushDenormals() {}
#endif
};

}  // namespace stbp
