// Interface of a library of kernels to Python; everything else in it is hidden.
#pragma once

#define STBP_API extern "C" __attribute__((visibility("default")))
