// y_po = sum_k rule(x_pk, w_ko) over the windows of an image.
#include "columns.h"
#include "geometry.h"
#include "kernels.h"
#include "parallel.h"

namespace nnlab {

void forward(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& given, Rule rule,
             const float* x, const float* kernel, float* y) {
  const Shape s = given.flattened();
  if (s.sh == 1 && s.sw == 1 && ByColumns::pays(loops, s.ow, s.co)) {
    ByColumns{s.n,  s.oh, s.ow,  s.co,   s.h,  s.w,  s.ci,
              s.kh, s.kw, s.top, s.left, s.dh, s.dw, false}
        .run(pool, loops, rule, x, nullptr,
             [&](int64_t i, int64_t j, int64_t c, int64_t o) {
               return kernel[((i * s.kw + j) * s.ci + c) * s.co + o];
             },
             y);
    return;
  }
  const bool inside = s.inside();  // then the windows are read where they are
  const int64_t columns = inside ? s.w : (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1;
  const int64_t terms = s.kh * s.kw * s.ci;

  std::vector<int64_t> offsets;
  offsets.reserve(terms);
  for (int64_t i = 0; i < s.kh; ++i)
    for (int64_t j = 0; j < s.kw; ++j)
      for (int64_t c = 0; c < s.ci; ++c)
        offsets.push_back((i * s.dh * columns + j * s.dw) * s.ci + c);
  const Floats packed(terms * packed_channels(s.co, loops.widest));
  pack(terms, s.co, loops.widest, [&](int64_t k, int64_t o) { return kernel[k * s.co + o]; },
       packed.data());

  const Slices slices = Slices::among(pool.num_threads(), s.n, s.oh, s.ow);
  share(pool, slices.count(), [&](int64_t task) {
    const auto slice = slices[task];
    const int64_t rows = (slice.rows - 1) * s.sh + (s.kh - 1) * s.dh + 1;
    const int64_t plane = rows * columns * s.ci;
    Scratch& scratch = Scratch::mine();
    scratch.clear();
    float* planes = inside ? nullptr : scratch.planes(slice.images * plane);
    for (int64_t image = slice.image; image < slice.image + slice.images; ++image) {
      const float* from = x + image * s.h * s.w * s.ci;
      const float* origin = from + slice.row * s.sh * columns * s.ci;
      if (!inside) {
        copy_padded(from, s.h, s.w, s.ci, slice.row * s.sh - s.top, rows, -s.left, columns, planes);
        origin = planes;
        planes += plane;
      }
      float* out = y + (image * s.oh + slice.row) * s.ow * s.co;
      for (int64_t r = 0; r < slice.rows; ++r)
        for (int64_t c = 0; c < s.ow; ++c, out += s.co) {
          scratch.in.push_back(origin + (r * s.sh * columns + c * s.sw) * s.ci);
          scratch.out.push_back(out);
        }
    }
    loops.images({static_cast<int64_t>(scratch.in.size()), scratch.in.data(),
                  scratch.out.data(), nullptr, s.co, 0, terms, terms, offsets.data(),
                  packed.data()},
                 rule);
  });
}

}  // namespace nnlab
