// The integer kernels. Sizes are positive.
#pragma once

#include "geometry.h"
#include "integer_loops.h"
#include "xla/ffi/api/ffi.h"

namespace nnlab::integer {

// y = -sum |x - w| of bytes; `padding` [n] holds the value of an image's padded pixels.
void distances(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& shape, const uint8_t* x,
               const uint8_t* padding, const uint8_t* kernel, int32_t* y);

// y = agreeing minus disagreeing of `channels` signs a pixel, 32 in a word; padding adds nothing.
void agreements(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& shape,
                int64_t channels, const uint32_t* x, const uint32_t* kernel, int32_t* y);

}  // namespace nnlab::integer
