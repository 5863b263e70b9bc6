// Answers of a library to the loader (__init__.py): the instruction set it is for, and what the processor has.
#include "stbp/ops/native/api.h"

#include <cstring>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#ifndef STBP_ISA
#error "STBP_ISA, the name of the instruction set, is defined by CMakeLists.txt"
#endif

extern "C" int omp_get_num_threads();  // omp.h is not everywhere where the runtime is

namespace {

#if defined(__x86_64__)
// x86-64-v3; __builtin_cpu_supports asks the operating system too, but older compilers lack the three of cpuid.
bool has_avx2() {
    __builtin_cpu_init();
    unsigned a, b, c, d;
    const bool movbe_f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 22 & 1) && (c >> 29 & 1);
    const bool lzcnt = __get_cpuid(0x80000001u, &a, &b, &c, &d) && (c >> 5 & 1);
    return movbe_f16c && lzcnt && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

// x86-64-v4
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

// The instruction set this library was compiled for.
STBP_API const char* stbp_isa() { return STBP_ISA; }

// 1 if this processor and its operating system run what was compiled for `isa`, 0 if not or if there is no such name.
STBP_API int stbp_has_isa(const char* isa) {
#if defined(__x86_64__)
    if (!std::strcmp(isa, "avx2")) return has_avx2();
    if (!std::strcmp(isa, "avx512")) return has_avx512();
#endif
    return !std::strcmp(isa, "baseline");
}

// The size of a team of which `n` threads are asked.
STBP_API int stbp_threads(int n) {
    int seen = 0;
#pragma omp parallel num_threads(n)
    {
#pragma omp master
        seen = omp_get_num_threads();
    }
    return seen;
}
