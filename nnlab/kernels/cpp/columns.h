// Convolutions whose output has few channels: vectors hold neighbouring columns of a row.
#pragma once

#include "geometry.h"
#include "xla/ffi/api/ffi.h"

namespace nnlab {

// out [n, height, width, channels] = sum_ijc rule(from[row - top + i dh, column - left + j dw, c],
// weights[i, j, c, channel]), of images from [n, h, w, ci] with zeros around them.
struct ByColumns {
  int64_t n, height, width, channels;
  int64_t h, w, ci, kh, kw;
  int64_t top, left, dh, dw;
  bool skips_padding;  // whether its terms are zero

  // Whether that is faster than vectors of channels.
  static bool pays(const Loops& loops, int64_t width, int64_t channels);

  // `self` are the values that the rule takes besides, as `out`, or null.
  // `weight(i, j, c, channel)` gives an element.
  template <class Weight>
  void run(xla::ffi::ThreadPool& pool, const Loops& loops, Rule rule, const float* from,
           const float* self, const Weight& weight, float* out) const {
    Floats weights(kh * kw * ci * channels);
    float* to = weights.data();
    for (int64_t i = 0; i < kh; ++i)
      for (int64_t c = 0; c < ci; ++c)
        for (int64_t j = 0; j < kw; ++j)
          for (int64_t channel = 0; channel < channels; ++channel) *to++ = weight(i, j, c, channel);
    sum(pool, loops, rule, from, self, weights.data(), out);
  }

 private:
  void sum(xla::ffi::ThreadPool& pool, const Loops& loops, Rule rule, const float* from,
           const float* self, const float* weights, float* out) const;
};

}  // namespace nnlab
