// dw_ko = sum_p g_po sign(x_pk - w_ko), g_po x_pk, or g_po times the slope of an own term, over all
// positions p, padding included.
#include "geometry.h"
#include "kernels.h"
#include "parallel.h"

namespace nnlab {
namespace {

constexpr int64_t kPositionsAtOnce = 256;             // summed in registers, then added to memory
constexpr int64_t kPartialFloats = int64_t{1} << 20;  // at most, of sums that tasks keep apart
constexpr int64_t kShares = 32;
constexpr int64_t kRowsAtOnce = 96;

// Rows of the kernel [terms, out] whose terms are neighbours in an image.
struct Run {
  int64_t row, rows, offset;  // the first row, their number, and where the first term is read
};

// The runs of a kernel over images of so many columns, none longer than `kRowsAtOnce`.
std::vector<Run> runs_of(const Shape& s, int64_t columns) {
  std::vector<Run> runs;
  for (int64_t i = 0; i < s.kh; ++i)
    for (int64_t j = 0; j < s.kw; j += s.dw == 1 ? s.kw : 1) {
      const int64_t row = (i * s.kw + j) * s.ci, rows = s.dw == 1 ? s.kw * s.ci : s.ci;
      const int64_t offset = (i * s.dh * columns + j * s.dw) * s.ci;
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        runs.push_back({row + r, std::min(kRowsAtOnce, rows - r), offset + r});
    }
  return runs;
}

}  // namespace

void filter_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& given, Rule rule,
                     const float* g, const float* x, const float* kernel, float* dw) {
  const Shape s = given.flattened();
  const bool inside = s.inside();  // then the windows are read where they are
  const int64_t columns = inside ? s.w : (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1;
  const int64_t size = s.kh * s.kw * s.ci * s.co;
  const auto runs = runs_of(s, columns);
  // A task is a share of the positions, and some of the runs only where memory allows few shares.
  // How many there are depends on the sizes alone, and shares are added up in order: so no sum
  // depends on the number of threads.
  const Slices slices(s.n, s.oh, s.ow, kPositionsAtOnce);
  const int64_t blocks = slices.count(), all_runs = runs.size();
  const int64_t shares = std::clamp<int64_t>(kPartialFloats / size, 1, std::min(blocks, kShares));
  const int64_t groups = std::min(all_runs, (kShares + shares - 1) / shares);
  const Floats partial(shares > 1 ? shares * size : 0);
  float* sums = shares > 1 ? partial.data() : dw;
  const bool is_packed = s.co == next_width(s.co, loops.widest);  // one block, without a gap

  share(pool, shares * groups, [&](int64_t task) {
    const int64_t part = task / groups, group = task % groups;
    const int64_t first = all_runs * group / groups, last = all_runs * (group + 1) / groups;
    float* gradient = sums + part * size;
    for (int64_t run = first; run < last; ++run)
      std::fill_n(gradient + runs[run].row * s.co, runs[run].rows * s.co, 0.0f);
    Scratch& scratch = Scratch::mine();
    for (int64_t block = blocks * part / shares; block < blocks * (part + 1) / shares; ++block) {
      const auto slice = slices[block];
      const int64_t rows = (slice.rows - 1) * s.sh + (s.kh - 1) * s.dh + 1;
      const int64_t plane = inside ? 0 : rows * columns * s.ci, count = slice.positions(s.ow);
      float* planes = scratch.planes(slice.images * plane +
                                     (is_packed ? 0 : count * packed_channels(s.co, loops.widest)));
      float* packed = planes + slice.images * plane;
      const float* cotangents = g + (slice.image * s.oh + slice.row) * s.ow * s.co;
      if (!is_packed)
        pack(count, s.co, loops.widest,
             [&](int64_t p, int64_t o) { return cotangents[p * s.co + o]; }, packed);
      scratch.clear();
      for (int64_t image = slice.image; image < slice.image + slice.images; ++image) {
        const float* from = x + image * s.h * s.w * s.ci;
        const float* origin = inside ? from + slice.row * s.sh * columns * s.ci : planes;
        if (!inside) {
          const int64_t row = slice.row * s.sh - s.top;
          copy_padded(from, s.h, s.w, s.ci, row, rows, -s.left, columns, planes);
          planes += plane;
        }
        for (int64_t r = 0; r < slice.rows; ++r)
          for (int64_t c = 0; c < s.ow; ++c)
            scratch.in.push_back(origin + (r * s.sh * columns + c * s.sw) * s.ci);
      }
      for (int64_t run = first; run < last; ++run) {
        const int64_t at = runs[run].row * s.co;
        loops.filter_gradient({count, scratch.in.data(), runs[run].offset,
                               is_packed ? cotangents : packed, kernel + at, gradient + at,
                               runs[run].rows, s.co},
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
