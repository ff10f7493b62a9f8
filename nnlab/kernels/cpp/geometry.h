// Where the terms of a convolution are read from, and how positions are dealt out to tasks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "loops.h"

namespace nnlab {

// Sizes of x [n, h, w, ci], kernel [kh, kw, ci, co] and y [n, oh, ow, co], and the window.
struct Shape {
  int64_t n, h, w, ci, kh, kw, co, oh, ow;
  int64_t sh, sw, top, left, dh, dw;

  // Whether no window reaches into the padding.
  bool inside() const {
    return top == 0 && left == 0 && (oh - 1) * sh + (kh - 1) * dh < h &&
           (ow - 1) * sw + (kw - 1) * dw < w;
  }

  // The same convolution with all positions in one column, where they do not depend on each other.
  Shape flattened() const {
    if (kh != 1 || kw != 1 || sh != 1 || sw != 1 || oh != h || ow != w || top || left) return *this;
    Shape flat = *this;
    flat.h = flat.oh = n * h * w;
    flat.n = flat.w = flat.ow = 1;
    return flat;
  }
};

// Floats aligned to a cache line, not initialised.
class Floats {
 public:
  explicit Floats(int64_t size = 0) : data_(size ? allocate(size) : nullptr) {}
  float* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  static float* allocate(int64_t size) {
    return static_cast<float*>(::operator new(size * sizeof(float), std::align_val_t{64}));
  }
  std::unique_ptr<float, Free> data_;
};

// Memory of a thread, kept from task to task.
struct Scratch {
  Floats plane;
  int64_t capacity = 0;
  std::vector<const float*> in, self;
  std::vector<float*> out;
  std::vector<int64_t> terms;

  float* planes(int64_t size) {
    if (size > capacity) {
      plane = Floats(size);
      capacity = size;
    }
    return plane.data();
  }

  void clear() {
    in.clear();
    self.clear();
    out.clear();
    terms.clear();
  }

  static Scratch& mine() {
    thread_local Scratch scratch;
    return scratch;
  }
};

// Tasks of about `wanted` positions: several images, or some rows of one.
class Slices {
 public:
  struct Slice {
    int64_t image, images, row, rows;

    int64_t positions(int64_t width) const { return images * rows * width; }
  };

  Slices(int64_t n, int64_t height, int64_t width, int64_t wanted) : n_(n), height_(height) {
    images_ = std::clamp<int64_t>(wanted / (height * width), 1, n);
    rows_ = images_ > 1 ? height : std::clamp<int64_t>(wanted / width, 1, height);
    per_image_ = (height + rows_ - 1) / rows_;
  }

  // At most so many positions that every thread gets some tasks.
  static Slices among(int64_t threads, int64_t n, int64_t height, int64_t width,
                      int64_t most = 256) {
    const int64_t tasks = 4 * std::max<int64_t>(threads, 1);
    return {n, height, width, std::clamp<int64_t>(n * height * width / tasks, 32, most)};
  }

  int64_t count() const { return (n_ + images_ - 1) / images_ * per_image_; }

  Slice operator[](int64_t task) const {
    const int64_t image = task / per_image_ * images_, row = task % per_image_ * rows_;
    return {image, std::min(images_, n_ - image), row, std::min(rows_, height_ - row)};
  }

 private:
  int64_t n_, height_, images_, rows_, per_image_;
};

// Copies rows [row, row + rows) and columns [column, column + columns) of an image
// [height, width, channels]; what lies outside of it becomes zeros.
inline void copy_padded(const float* image, int64_t height, int64_t width, int64_t channels,
                        int64_t row, int64_t rows, int64_t column, int64_t columns, float* to) {
  const int64_t first = std::clamp<int64_t>(-column, 0, columns);
  const int64_t last = std::clamp<int64_t>(width - column, first, columns);
  for (int64_t r = row; r < row + rows; ++r, to += columns * channels) {
    if (r < 0 || r >= height) {
      std::fill_n(to, columns * channels, 0.0f);
      continue;
    }
    const float* from = image + (r * width + column + first) * channels;
    std::fill_n(to, first * channels, 0.0f);
    std::copy_n(from, (last - first) * channels, to + first * channels);
    std::fill(to + last * channels, to + columns * channels, 0.0f);
  }
}

// Rows of `channels` floats in blocks [blocks][rows][width], zeros after the last channel.
// `at(row, channel)` gives an element.
template <class At>
void pack(int64_t rows, int64_t channels, int64_t widest, const At& at, float* to) {
  for (int64_t c = 0; c < channels;) {
    const int64_t width = next_width(channels - c, widest), used = std::min(width, channels - c);
    for (int64_t r = 0; r < rows; ++r, to += width) {
      for (int64_t lane = 0; lane < used; ++lane) to[lane] = at(r, c + lane);
      std::fill(to + used, to + width, 0.0f);
    }
    c += width;
  }
}

// Channels rounded up to whole blocks.
inline int64_t packed_channels(int64_t channels, int64_t widest) {
  int64_t total = 0;
  while (total < channels) total += next_width(channels - total, widest);
  return total;
}

}  // namespace nnlab
