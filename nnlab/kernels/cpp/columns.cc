// A task copies some rows of its images channel by channel, so that the columns of a channel are
// neighbours in memory. A run is as many of them as a vector holds.
#include "columns.h"

#include "parallel.h"

namespace nnlab {
namespace {

constexpr int64_t kPositions = 1024;  // of a task at most: the rows around them are copied as well

// An image row [width, channels] as [channels][pitch].
void separate(const float* row, int64_t width, int64_t channels, int64_t pitch, float* to) {
  for (int64_t c = 0; c < channels; ++c, to += pitch)
    for (int64_t column = 0; column < width; ++column) to[column] = row[column * channels + c];
}

}  // namespace

bool ByColumns::pays(const Loops& loops, int64_t width, int64_t channels) {
  const int64_t lanes = loops.widest / 2, runs = (width + lanes - 1) / lanes;
  return channels < 8 && 2 * channels < loops.widest && 4 * width >= 3 * runs * lanes;
}

void ByColumns::sum(xla::ffi::ThreadPool& pool, const Loops& loops, Rule rule, const float* from,
                    const float* self, const float* weights, float* out) const {
  const int64_t lanes = loops.widest / 2, runs = (width + lanes - 1) / lanes;
  const int64_t reach = (kw - 1) * dw, pitch = runs * lanes + reach, terms_of_a_row = ci * kw;
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < kh; ++i)
    for (int64_t c = 0; c < ci; ++c)
      for (int64_t j = 0; j < kw; ++j) offsets.push_back((i * dh * ci + c) * pitch + j * dw);

  const int64_t before = std::max<int64_t>(left, 0), skipped = before - left;
  const int64_t seen = std::clamp<int64_t>(w - skipped, 0, pitch - before);
  const Slices slices = Slices::among(pool.num_threads(), n, height, width, kPositions);
  share(pool, slices.count(), [&](int64_t task) {
    const auto slice = slices[task];
    const int64_t rows = slice.rows + (kh - 1) * dh, plane = rows * ci * pitch;
    const int64_t count = slice.images * slice.rows * runs, size = count * channels * lanes;
    Scratch& scratch = Scratch::mine();
    float* planes = scratch.planes(slice.images * plane + size * (self ? 2 : 1));
    float* results = planes + slice.images * plane;
    float* selves = self ? results + size : nullptr;
    std::fill(planes, results, 0.0f);
    for (int64_t image = 0; image < slice.images; ++image)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t row = slice.row - top + r;
        if (row < 0 || row >= h || seen == 0) continue;
        separate(from + (((slice.image + image) * h + row) * w + skipped) * ci, seen, ci, pitch,
                 planes + image * plane + r * ci * pitch + before);
      }

    // Calls with every run, its place in the images and how many of its columns there are.
    const auto each = [&](const auto& call) {
      int64_t run = 0;
      for (int64_t r = 0; r < slice.rows; ++r)
        for (int64_t image = 0; image < slice.images; ++image)
          for (int64_t column = 0; column < width; column += lanes, ++run) {
            const int64_t row = (slice.image + image) * height + slice.row + r;
            call(run, r, planes + image * plane + r * ci * pitch + column,
                 (row * width + column) * channels, std::min(lanes, width - column));
          }
    };
    scratch.clear();
    each([&](int64_t run, int64_t r, const float* in, int64_t at, int64_t columns) {
      scratch.in.push_back(in);
      // Rows of taps that lie on the image: first, and one after the last.
      int64_t first = 0, last = kh;
      const int64_t row = slice.row + r - top;
      while (skips_padding && first < last && row + first * dh < 0) ++first;
      while (skips_padding && first < last && row + (last - 1) * dh >= h) --last;
      scratch.terms.push_back(first * terms_of_a_row);
      scratch.terms.push_back(last * terms_of_a_row);
      if (!self) return;
      float* to = selves + run * channels * lanes;
      std::fill_n(to, channels * lanes, 0.0f);
      separate(self + at, columns, channels, lanes, to);
    });
    loops.columns({count, scratch.in.data(), scratch.terms.data(), results, selves, channels,
                   offsets.data(), weights},
                  rule);
    each([&](int64_t run, int64_t, const float*, int64_t at, int64_t columns) {
      const float* result = results + run * channels * lanes;
      for (int64_t c = 0; c < channels; ++c, result += lanes)
        for (int64_t column = 0; column < columns; ++column)
          out[at + column * channels + c] = result[column];
    });
  });
}

}  // namespace nnlab
