// The kernels, each in the file of its name. Sizes are positive.
#pragma once

#include "loops.h"
#include "geometry.h"
#include "xla/ffi/api/ffi.h"

namespace nnlab {

// x [n, h, w, ci], kernel [kh, kw, ci, co] -> y [n, oh, ow, co]
void forward(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& shape, Rule rule,
             const float* x, const float* kernel, float* y);

// g [n, oh, ow, co], x, kernel -> dx, as x
void input_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& shape, Rule rule,
                    const float* g, const float* x, const float* kernel, float* dx);

// g [n, oh, ow, co], x, kernel -> dw, as kernel
void filter_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& shape, Rule rule,
                     const float* g, const float* x, const float* kernel, float* dw);

}  // namespace nnlab
