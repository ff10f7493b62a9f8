// dw_ko = sum_p g_po sign(x_pk - w_ko) over all positions p, those in the padding included.
#include "geometry.h"
#include "kernels.h"
#include "parallel.h"

namespace nnlab {
namespace {

constexpr int64_t kPositionsAtOnce = 256;             // summed in registers, then added to memory
constexpr int64_t kPartialFloats = int64_t{1} << 20;  // at most, of sums that tasks keep apart
constexpr int64_t kShares = 32;

// The corner of the window at a position.
struct Corner {
  const float* image;
  int64_t row, column;
};

std::vector<Corner> corners(const Shape& s, const float* x, int64_t first, int64_t count) {
  std::vector<Corner> found;
  found.reserve(count);
  for (int64_t p = first; p < first + count; ++p)
    found.push_back({x + p / (s.oh * s.ow) * s.h * s.w * s.ci, p / s.ow % s.oh * s.sh - s.top,
                     p % s.ow * s.sw - s.left});
  return found;
}

}  // namespace

void adder_conv_filter_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& given,
                                const float* g, const float* x, const float* kernel, float* dw) {
  const Shape s = given.flattened();
  const int64_t positions = s.n * s.oh * s.ow, taps = s.kh * s.kw, size = taps * s.ci * s.co;
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
    const int64_t tap_size = s.ci * s.co;
    float* gradient = sums + part * size;
    std::fill(gradient + first_tap * tap_size, gradient + last_tap * tap_size, 0.0f);
    Scratch& scratch = Scratch::mine();
    float* packed = scratch.planes(kPositionsAtOnce * packed_channels(s.co, loops.widest));
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
          const bool padding = row < 0 || row >= s.h || column < 0 || column >= s.w;
          scratch.in.push_back(padding ? zeros.data()
                                       : corner.image + (row * s.w + column) * s.ci);
        }
        loops.filter_gradient({count, scratch.in.data(), packed, kernel + tap * tap_size,
                               gradient + tap * tap_size, s.ci, s.co});
      }
    }
  });

  if (shares == 1) return;
  std::copy_n(sums, size, dw);
  for (int64_t part = 1; part < shares; ++part)
    for (int64_t k = 0; k < size; ++k) dw[k] += sums[part * size + k];
}

}  // namespace nnlab
