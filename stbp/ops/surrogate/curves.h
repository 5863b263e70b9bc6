// The curves in place of the spike's derivative, on vectors: curves.py is the definition.
//
// To add one: its function in `namespace curves`, and its name in the list. Enumeration, switches and the names that
// Python compares with its own come from the list.
#pragma once

#include <type_traits>

#include "stbp/ops/native/fail.h"
#include "stbp/ops/native/vec.h"

#define STBP_CURVES(X) X(rectangle) X(polynomial) X(sigmoid) X(gaussian)

namespace stbp {

// h(v), v = u - threshold; the peak of each is 1/width.
namespace curves {

inline vf rectangle(vf v, float width) { return absolute(v) < width / 2 ? all(1 / width) : vf{}; }

inline vf polynomial(vf v, float width) {
    vf h = 1 / width - absolute(v) / (width * width);
    return h > 0.0f ? h : vf{};
}

inline vf sigmoid(vf v, float width) {
    vf z = exp_negative(absolute(v) * (-4 / width));
    return 4 / width * z / ((1 + z) * (1 + z));
}

inline vf gaussian(vf v, float width) {
    vf q = v / width;
    return exp_negative(-3.14159265f * q * q) / width;
}

}  // namespace curves

#define STBP_NUMBER(name) name,
enum class Surrogate : int32_t { STBP_CURVES(STBP_NUMBER) };
#undef STBP_NUMBER

template <Surrogate S>
inline vf curve(vf v, float width) {
#define STBP_CALL(name) \
    if constexpr (S == Surrogate::name) return curves::name(v, width);
    STBP_CURVES(STBP_CALL)
#undef STBP_CALL
}

// Calls f with the surrogate as a compile-time constant.
template <class F>
inline void with_curve(Surrogate surrogate, F f) {
    switch (surrogate) {
#define STBP_CASE(name) \
    case Surrogate::name: return f(std::integral_constant<Surrogate, Surrogate::name>{});
        STBP_CURVES(STBP_CASE)
#undef STBP_CASE
    }
    unknown("surrogate number", (long long)surrogate);
}

}  // namespace stbp
