// What a library of kernels shows to Python; everything else in it is hidden.
#pragma once

#define STBP_API extern "C" __attribute__((visibility("default")))
