// How a kernel ends that was called with what it does not know.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace stbp {

// Ends the process: Python checks what it passes on, so this is a mistake in the code, and any number would be wrong.
[[noreturn]] inline void unknown(const char* what, long long number) {
    std::fprintf(stderr, "stbp: a compiled kernel was given %s %lld, which it does not know\n", what, number);
    std::abort();
}

}  // namespace stbp
