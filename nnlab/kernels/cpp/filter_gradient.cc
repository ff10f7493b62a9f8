// dw_ko = sum_p g_po sign(x_pk - w_ko), or g_po x_pk, over all positions p, padding included.
#include "geometry.h"
#include "kernels.h"
#include "parallel.h"

namespace nnlab {
namespace {

constexpr int64_t kPositionsAtOnce = 256;             // summed in registers, then added to memory
constexpr int64_t kPartialFloats = int64_t{1} << 20;  // at most, of sums that tasks keep apart
constexpr int64_t kShares = 32;
constexpr int64_t kTermsCopied = 512;  // at most, of a window
constexpr int64_t kSpare = 16;

// The corner of the window at a position.
struct Corner {
  const float* image;
  int64_t row, column;
};

std::vector<Corner> corners(const Shape& s, const float* x, int64_t first, int64_t count) {
  std::vector<Corner> found;
  found.reserve(count);
  int64_t image = first / (s.oh * s.ow), row = first / s.ow % s.oh, column = first % s.ow;
  for (int64_t p = 0; p < count; ++p) {
    found.push_back(
        {x + image * s.h * s.w * s.ci, row * s.sh - s.top, column * s.sw - s.left});
    if (++column < s.ow) continue;
    column = 0;
    if (++row < s.oh) continue;
    row = 0;
    ++image;
  }
  return found;
}

// Copies the window at a corner, [kh, kw, in], zeros where it reaches into the padding. Up to
// `kSpare` floats after it are overwritten; `end` is the end of all images.
void copy_window(const Shape& s, const Corner& corner, const float* end, float* to) {
  const bool whole = s.dw == 1 && corner.column >= 0 && corner.column + s.kw <= s.w;
  for (int64_t i = 0; i < s.kh; ++i, to += s.kw * s.ci) {
    const int64_t row = corner.row + i * s.dh;
    const float* from = corner.image + (row * s.w + corner.column) * s.ci;
    if (row < 0 || row >= s.h) {
      std::fill_n(to, s.kw * s.ci, 0.0f);
    } else if (whole && s.kw * s.ci <= kSpare && end - from >= kSpare) {
      std::memcpy(to, from, kSpare * sizeof(float));  // of a size known here, without a call
    } else if (whole) {
      std::copy_n(from, s.kw * s.ci, to);
    } else {
      for (int64_t j = 0; j < s.kw; ++j) {
        const int64_t column = corner.column + j * s.dw;
        const bool padding = column < 0 || column >= s.w;
        for (int64_t c = 0; c < s.ci; ++c)
          to[j * s.ci + c] = padding ? 0.0f : from[j * s.dw * s.ci + c];
      }
    }
  }
}

}  // namespace

void filter_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& given, Rule rule,
                     const float* g, const float* x, const float* kernel, float* dw) {
  const Shape s = given.flattened();
  const int64_t positions = s.n * s.oh * s.ow, terms = s.kh * s.kw * s.ci, size = terms * s.co;
  // With few channels the windows of a block of positions are copied, and the whole kernel is one
  // tap, whose rows fill the registers.
  const bool copied = s.ci < 8 && terms > s.ci && terms <= kTermsCopied;
  const int64_t taps = copied ? 1 : s.kh * s.kw, tap_size = size / taps, in = terms / taps;
  // A task is a share of the positions, and one tap only where memory allows few shares. How many
  // there are depends on the sizes alone, and shares are added up in order: so no sum depends on
  // the number of threads.
  const int64_t blocks = (positions + kPositionsAtOnce - 1) / kPositionsAtOnce;
  const int64_t shares = std::clamp<int64_t>(kPartialFloats / size, 1, std::min(blocks, kShares));
  const int64_t groups = shares < kShares ? taps : 1;
  const std::vector<float> zeros(s.ci, 0.0f);
  const Floats partial(shares > 1 ? shares * size : 0);
  float* sums = shares > 1 ? partial.data() : dw;

  share(pool, shares * groups, [&](int64_t task) {
    const int64_t part = task / groups, group = task % groups;
    const int64_t first_tap = taps * group / groups, last_tap = taps * (group + 1) / groups;
    float* gradient = sums + part * size;
    std::fill(gradient + first_tap * tap_size, gradient + last_tap * tap_size, 0.0f);
    Scratch& scratch = Scratch::mine();
    const int64_t width = packed_channels(s.co, loops.widest);
    float* packed = scratch.planes(kPositionsAtOnce * (width + (copied ? terms : 0)) + kSpare);
    float* copies = packed + kPositionsAtOnce * width;
    for (int64_t block = blocks * part / shares; block < blocks * (part + 1) / shares; ++block) {
      const int64_t first = block * kPositionsAtOnce;
      const int64_t count = std::min(kPositionsAtOnce, positions - first);
      pack(count, s.co, loops.widest,
           [&](int64_t p, int64_t o) { return g[(first + p) * s.co + o]; }, packed);
      const auto windows = corners(s, x, first, count);
      for (int64_t tap = first_tap; tap < last_tap; ++tap) {
        const int64_t down = tap / s.kw * s.dh, right = tap % s.kw * s.dw;
        scratch.clear();
        for (const Corner& corner : windows) {
          const int64_t row = corner.row + down, column = corner.column + right;
          const float* pixel = corner.image + (row * s.w + column) * s.ci;
          if (copied) {
            float* copy = copies + scratch.in.size() * terms;
            copy_window(s, corner, x + s.n * s.h * s.w * s.ci, copy);
            pixel = copy;
          } else if (row < 0 || row >= s.h || column < 0 || column >= s.w) {
            pixel = zeros.data();
          }
          scratch.in.push_back(pixel);
        }
        loops.filter_gradient({count, scratch.in.data(), packed, kernel + tap * tap_size,
                               gradient + tap * tap_size, in, s.co},
                              rule);
      }
    }
  });

  if (shares == 1) return;
  std::copy_n(sums, size, dw);
  for (int64_t part = 1; part < shares; ++part)
    for (int64_t k = 0; k < size; ++k) dw[k] += sums[part * size + k];
}

}  // namespace nnlab
