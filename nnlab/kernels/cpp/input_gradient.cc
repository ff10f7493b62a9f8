// dx_pc = sum over the windows that hold pixel p of g_o rule(w_co - x_pc), g_o w_co, or g_o times
// the slope of an own term, which is expected to be finite.
//
// Along an axis, pixel number `stride * m + phase - pad` is held through tap i by the window number
// m - (dilation * i - phase) / stride, for those i where the division leaves no remainder. So the
// pixels of one phase form a grid over m that all use the same taps; no cotangent is spread out.
#include <utility>

#include "columns.h"
#include "geometry.h"
#include "kernels.h"
#include "parallel.h"

namespace nnlab {
namespace {

using Range = std::pair<int64_t, int64_t>;  // [first, second)

struct Axis {
  int64_t size, windows, taps, stride, pad, dilation;

  // Whether windows one beside the other hold every pixel.
  bool dense() const {
    return stride == 1 && dilation == 1 && pad >= 0 && windows + taps - 1 >= pad + size;
  }
  int64_t reach() const { return (taps - 1) * dilation / stride; }
  int64_t grid() const { return (pad + size - 1) / stride + 1; }
  int64_t pixel(int64_t m, int64_t phase) const { return stride * m + phase - pad; }

  // The taps of a phase, each with the distance of its window from m; distances ascend.
  std::vector<std::pair<int64_t, int64_t>> taps_of(int64_t phase) const {
    std::vector<std::pair<int64_t, int64_t>> found;
    for (int64_t i = 0; i < taps; ++i)
      if (i * dilation % stride == phase) found.emplace_back(i, i * dilation / stride);
    return found;
  }

  // The first of these taps through which a window holds the pixel, and the one after the last.
  Range holding(int64_t m, int64_t phase) const {
    const auto all = taps_of(phase);
    int64_t first = 0, last = all.size();
    while (first < last && m - all[first].second >= windows) ++first;
    while (first < last && m < all[last - 1].second) --last;
    return {first, last};
  }
};

// The pixels of one phase in both directions. Terms are ordered by tap row, tap column, channel.
struct Phase {
  int64_t row, column;
  std::vector<Range> rows, columns;  // taps that hold the pixels at m, for every m of the grid
  int64_t terms_of_a_row;
  std::vector<int64_t> offsets;
  Floats packed;
};

Phase phase_of(const Shape& s, const Axis& vertical, const Axis& horizontal, int64_t row,
               int64_t column, int64_t columns, const float* kernel, int64_t widest) {
  Phase phase{row, column, {}, {}, 0, {}, Floats()};
  for (int64_t m = 0; m < vertical.grid(); ++m) phase.rows.push_back(vertical.holding(m, row));
  for (int64_t m = 0; m < horizontal.grid(); ++m)
    phase.columns.push_back(horizontal.holding(m, column));
  phase.terms_of_a_row = horizontal.taps_of(column).size() * s.co;
  std::vector<const float*> taps;
  for (const auto& [i, above] : vertical.taps_of(row))
    for (const auto& [j, before] : horizontal.taps_of(column)) {
      taps.push_back(kernel + (i * s.kw + j) * s.ci * s.co);
      for (int64_t o = 0; o < s.co; ++o)
        phase.offsets.push_back(-(above * columns + before) * s.co + o);
    }
  const int64_t terms = phase.offsets.size();
  phase.packed = Floats(terms * packed_channels(s.ci, widest));
  pack(terms, s.ci, widest,
       [&](int64_t k, int64_t c) { return taps[k / s.co][c * s.co + k % s.co]; },
       phase.packed.data());
  return phase;
}

bool all_finite(const float* values, int64_t size) {
  uint32_t found = 0;
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return !found;
}

float apply(Rule rule, float w, float x) {
  if (rule == Rule::kProduct) return w;
  const float d = w - x;
  if (rule == Rule::kClip) return d > 1 ? 1 : d < -1 ? -1 : d;
  return d > 0 ? 1 : d < 0 ? -1 : d;
}

// As the definition says, for kernels with infinities or NaNs: there the zeros around the
// cotangents would not leave the sum as it is.
void row_by_definition(const Shape& s, const Axis& vertical, const Axis& horizontal, Rule rule,
                       const float* g, const float* x, const float* kernel, int64_t row,
                       float* dx) {
  const int64_t image = row / s.h, m = (row % s.h + s.top) / s.sh;
  std::fill_n(dx, s.w * s.ci, 0.0f);
  for (const auto& [i, above] : vertical.taps_of((row % s.h + s.top) % s.sh)) {
    if (m < above || m - above >= s.oh) continue;
    for (int64_t column = 0; column < s.w; ++column) {
      const int64_t n = (column + s.left) / s.sw;
      for (const auto& [j, before] : horizontal.taps_of((column + s.left) % s.sw)) {
        if (n < before || n - before >= s.ow) continue;
        const float* cotangent = g + ((image * s.oh + m - above) * s.ow + n - before) * s.co;
        for (int64_t c = column * s.ci; c < (column + 1) * s.ci; ++c) {
          const float* w = kernel + ((i * s.kw + j) * s.ci + c - column * s.ci) * s.co;
          for (int64_t o = 0; o < s.co; ++o) dx[c] += cotangent[o] * apply(rule, w[o], x[c]);
        }
      }
    }
  }
}

}  // namespace

void input_gradient(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& given, Rule rule,
                    const float* g, const float* x, const float* kernel, float* dx) {
  const Shape s = given.flattened();
  const Axis vertical{s.h, s.oh, s.kh, s.sh, s.top, s.dh};
  const Axis horizontal{s.w, s.ow, s.kw, s.sw, s.left, s.dw};
  if (rule != Rule::kSlope && !all_finite(kernel, s.kh * s.kw * s.ci * s.co)) {
    share(pool, s.n * s.h, [&](int64_t row) {
      const int64_t start = row * s.w * s.ci;
      row_by_definition(s, vertical, horizontal, rule, g, x + start, kernel, row, dx + start);
    });
    return;
  }

  // Then this is a convolution of the cotangents with the kernel turned round.
  if (vertical.dense() && horizontal.dense() && ByColumns::pays(loops, s.w, s.ci)) {
    const int64_t top = s.kh - 1 - s.top, left = s.kw - 1 - s.left;
    ByColumns{s.n, s.h, s.w, s.ci, s.oh, s.ow, s.co, s.kh, s.kw, top, left, 1, 1, true}.run(
        pool, loops, rule, g, rule == Rule::kProduct ? nullptr : x,
        [&](int64_t i, int64_t j, int64_t o, int64_t c) {
          return kernel[(((s.kh - 1 - i) * s.kw + s.kw - 1 - j) * s.ci + c) * s.co + o];
        },
        dx);
    return;
  }

  const int64_t above = vertical.reach(), before = horizontal.reach();
  const int64_t height = vertical.grid(), width = horizontal.grid();
  const bool inside = above == 0 && before == 0 && height <= s.oh && width <= s.ow;
  const int64_t columns = inside ? s.ow : before + width;
  std::vector<Phase> phases;
  for (int64_t row = 0; row < s.sh; ++row)
    for (int64_t column = 0; column < s.sw; ++column)
      phases.push_back(
          phase_of(s, vertical, horizontal, row, column, columns, kernel, loops.widest));

  const Slices slices = Slices::among(pool.num_threads(), s.n, height, width);
  share(pool, slices.count(), [&](int64_t task) {
    const auto slice = slices[task];
    const int64_t plane = (above + slice.rows) * columns * s.co;
    Scratch& scratch = Scratch::mine();
    float* planes = inside ? nullptr : scratch.planes(slice.images * plane);
    for (int64_t image = 0; image < slice.images && !inside; ++image)
      copy_padded(g + (slice.image + image) * s.oh * s.ow * s.co, s.oh, s.ow, s.co,
                  slice.row - above, above + slice.rows, -before, columns, planes + image * plane);

    // Collects the positions of a phase in rows that the same rows of taps hold.
    const auto collect = [&](const Phase& phase, Range taps) {
      scratch.clear();
      for (int64_t image = 0; image < slice.images; ++image)
        for (int64_t r = 0; r < slice.rows; ++r) {
          const int64_t row = vertical.pixel(slice.row + r, phase.row);
          if (row < 0 || row >= s.h || phase.rows[slice.row + r] != taps) continue;
          const int64_t line = ((slice.image + image) * s.h + row) * s.w;
          const float* origin =
              inside ? g + ((slice.image + image) * s.oh + slice.row + r) * s.ow * s.co
                     : planes + image * plane + ((above + r) * columns + before) * s.co;
          for (int64_t c = 0; c < width; ++c) {
            const int64_t column = horizontal.pixel(c, phase.column);
            if (column < 0 || column >= s.w) continue;
            const int64_t at = (line + column) * s.ci;
            if (taps.first == taps.second || phase.columns[c].first == phase.columns[c].second) {
              std::fill_n(dx + at, s.ci, 0.0f);  // no window holds it
              continue;
            }
            scratch.in.push_back(origin + c * s.co);
            scratch.self.push_back(x + at);
            scratch.out.push_back(dx + at);
          }
        }
    };
    for (const Phase& phase : phases) {
      std::vector<Range> kinds(phase.rows.begin() + slice.row,
                               phase.rows.begin() + slice.row + slice.rows);
      std::sort(kinds.begin(), kinds.end());
      kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
      for (const Range& taps : kinds) {
        collect(phase, taps);
        loops.images(
            {static_cast<int64_t>(scratch.in.size()), scratch.in.data(), scratch.out.data(),
             scratch.self.data(), s.ci, taps.first * phase.terms_of_a_row,
             taps.second * phase.terms_of_a_row, static_cast<int64_t>(phase.offsets.size()),
             phase.offsets.data(), phase.packed.data()},
            rule);
      }
    }
  });
}

}  // namespace nnlab
