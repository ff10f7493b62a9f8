// Sums of integer terms over the windows of an image, a slice of the positions a task.
#include "integer.h"
#include "parallel.h"

namespace nnlab::integer {
namespace {

constexpr int64_t kGranule = 8;  // bytes that are copied at once; as many may follow a copy

void copy(const char* from, int64_t size, char* to) {
  if (size > 16 * kGranule) {
    std::memcpy(to, from, size);
    return;
  }
  for (int64_t at = 0; at < size; at += kGranule) std::memcpy(to + at, from + at, kGranule);
}

// Where the items of a window are read. A run is a part of the window without gaps: a row of taps,
// or one tap of a dilated kernel. Runs of whole items are read from the image where they are, or
// from a padded copy of it; others are joined in a copy of each window, with zeros after the last.
struct Layout {
  Shape s;
  int64_t pixel;  // bytes
  int64_t item;   // bytes
  bool whole = run() % item == 0;
  bool in_place = whole && s.inside();
  int64_t columns = in_place ? s.w : (s.ow - 1) * s.sw + (s.kw - 1) * s.dw + 1;
  int64_t items = (s.kh * s.kw * pixel + item - 1) / item;

  int64_t run() const { return (s.dw == 1 ? s.kw : 1) * pixel; }
  int64_t rows(const Slices::Slice& slice) const {
    return in_place ? s.h : (slice.rows - 1) * s.sh + (s.kh - 1) * s.dh + 1;
  }

  // Where in the image each run begins, seen from the corner of the window.
  std::vector<int64_t> runs() const {
    std::vector<int64_t> found;
    for (int64_t i = 0; i < s.kh; ++i)
      for (int64_t j = 0; j < s.kw; j += s.dw == 1 ? s.kw : 1)
        found.push_back((i * s.dh * columns + j * s.dw) * pixel);
    return found;
  }

  std::vector<int64_t> offsets() const {
    std::vector<int64_t> found;
    found.reserve(items);
    if (whole) {
      for (const int64_t start : runs())
        for (int64_t at = 0; at < run(); at += item) found.push_back(start + at);
    } else {
      for (int64_t k = 0; k < items; ++k) found.push_back(k * item);
    }
    return found;
  }

  // The corners of all windows of a slice; those of any smaller slice are the first of these.
  std::vector<int64_t> corners(const Slices::Slice& slice) const {
    std::vector<int64_t> found;
    found.reserve(slice.images * slice.rows * s.ow);
    for (int64_t image = 0; image < slice.images; ++image)
      for (int64_t r = 0; r < slice.rows; ++r)
        for (int64_t c = 0; c < s.ow; ++c)
          found.push_back(((image * rows(slice) + r * s.sh) * columns + c * s.sw) * pixel);
    return found;
  }
};

// Copies the rows and columns that a slice reads of an image; what lies outside gets `fill`.
void copy_padded(const Layout& layout, const char* image, int64_t row, int64_t rows, char fill,
                 char* to) {
  const Shape& s = layout.s;
  const int64_t columns = layout.columns, pixel = layout.pixel;
  const int64_t first = std::min(s.left, columns);
  const int64_t last = std::clamp(s.w + s.left, first, columns);
  std::memset(to, fill, rows * columns * pixel);
  for (int64_t r = row; r < row + rows; ++r, to += columns * pixel)
    if (r >= 0 && r < s.h)
      std::memcpy(to + first * pixel, image + (r * s.w + first - s.left) * pixel,
                  (last - first) * pixel);
}

// Runs `sum` over all slices, then `finish(slice, y of the slice)`.
template <class Finish>
void forward(xla::ffi::ThreadPool& pool, const Sum& sum, const Layout& layout, const char* x,
             const uint8_t* padding, const void* kernel, int64_t kernel_rows, int32_t terms,
             int32_t* y, const Finish& finish) {
  const Shape& s = layout.s;
  const Slices slices = Slices::among(pool.num_threads(), s.n, s.oh, s.ow);
  const auto runs = layout.runs(), offsets = layout.offsets(), corners = layout.corners(slices[0]);
  const int64_t window = layout.items * layout.item;
  std::vector<int64_t> copies;
  if (!layout.whole)
    for (size_t p = 0; p < corners.size(); ++p) copies.push_back(p * window);
  const Floats packed(sum.packed_bytes(layout.items, s.co) / sizeof(float));
  sum.pack(kernel, kernel_rows, s.co, packed.data());

  share(pool, slices.count(), [&](int64_t task) {
    const auto slice = slices[task];
    const int64_t count = slice.images * slice.rows * s.ow;
    const int64_t rows = layout.rows(slice), plane = rows * layout.columns * layout.pixel;
    const char* in = x + (slice.image * s.h + slice.row * s.sh) * s.w * layout.pixel;
    if (!layout.in_place) {
      const int64_t bytes = slice.images * plane + kGranule;
      const int64_t spare = layout.whole ? 0 : count * window + 2 * kGranule;
      char* planes = reinterpret_cast<char*>(
          Scratch::mine().planes((bytes + spare) / sizeof(float) + 1));
      for (int64_t i = 0; i < slice.images; ++i)
        copy_padded(layout, x + (slice.image + i) * s.h * s.w * layout.pixel,
                    slice.row * s.sh - s.top, rows, padding ? padding[slice.image + i] : 0,
                    planes + i * plane);
      in = planes;
      if (!layout.whole) {
        char* to = planes + bytes;
        for (int64_t p = 0; p < count; ++p, to += window) {
          char* end = to;
          for (const int64_t start : runs) {
            copy(planes + corners[p] + start, layout.run(), end);
            end += layout.run();
          }
          std::memset(end, 0, kGranule);
        }
        in = planes + bytes;
      }
    }
    int32_t* out = y + (slice.image * s.oh + slice.row) * s.ow * s.co;
    sum.run({count, in, (layout.whole ? corners : copies).data(), out, s.co, layout.items,
             offsets.data(), packed.data()},
            terms);
    finish(slice, out);
  });
}

// The positions on an axis by the taps of their windows that lie in the image, from `first` to
// `last - 1`: equal positions are of one kind, and those whose windows are whole of kind 0.
struct Kinds {
  std::vector<std::pair<int64_t, int64_t>> taps;  // of a kind
  std::vector<int64_t> kinds;                     // of a position

  Kinds(int64_t positions, int64_t size, int64_t stride, int64_t low, int64_t count,
        int64_t dilation)
      : taps{{0, count}} {
    const auto up = [&](int64_t pixels) {
      return (std::max<int64_t>(pixels, 0) + dilation - 1) / dilation;
    };
    for (int64_t p = 0; p < positions; ++p) {
      const int64_t corner = p * stride - low, first = std::min(up(-corner), count);
      const std::pair found(first, std::clamp(up(size - corner), first, count));
      const auto known = std::find(taps.begin(), taps.end(), found);
      kinds.push_back(known - taps.begin());
      if (known == taps.end()) taps.push_back(found);
    }
  }
};

}  // namespace

void distances(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& s, const uint8_t* x,
               const uint8_t* padding, const uint8_t* kernel, int32_t* y) {
  const Layout layout{s, s.ci, loops.distances.item};
  forward(pool, loops.distances, layout, reinterpret_cast<const char*>(x), padding, kernel,
          s.kh * s.kw * s.ci, 0, y, [](const auto&, int32_t*) {});
}

// Padding is a zero in every bit, and so disagrees with as many signs of the kernel as are ones:
// where windows reach into the padding, what that adds is taken back.
void agreements(xla::ffi::ThreadPool& pool, const Loops& loops, const Shape& s, int64_t channels,
                const uint32_t* x, const uint32_t* kernel, int32_t* y) {
  const Kinds rows(s.oh, s.h, s.sh, s.top, s.kh, s.dh);
  const Kinds columns(s.ow, s.w, s.sw, s.left, s.kw, s.dw);
  const int64_t across = columns.taps.size();
  std::vector<int32_t> excess(rows.taps.size() * across * s.co);  // of every kind of position
  if (excess.size() > static_cast<size_t>(s.co)) {
    for (int64_t i = 0; i < s.kh; ++i)
      for (int64_t j = 0; j < s.kw; ++j) {
        std::vector<int32_t> tap(s.co, static_cast<int32_t>(channels));
        const uint32_t* words = kernel + (i * s.kw + j) * s.ci * s.co;
        for (int64_t word = 0; word < s.ci; ++word)
          for (int64_t o = 0; o < s.co; ++o)
            tap[o] -= 2 * __builtin_popcount(words[word * s.co + o]);
        int32_t* sum = excess.data();
        for (const auto& [top, bottom] : rows.taps)
          for (const auto& [left, right] : columns.taps) {
            const bool padding = i < top || i >= bottom || j < left || j >= right;
            for (int64_t o = 0; o < s.co; ++o) sum[o] += padding ? tap[o] : 0;
            sum += s.co;
          }
      }
  }
  const auto take_back = [&](const Slices::Slice& slice, int32_t* out) {
    for (int64_t r = 0; r < slice.images * slice.rows; ++r) {
      const int64_t row = rows.kinds[slice.row + r % slice.rows] * across;
      for (int64_t c = 0; c < s.ow; ++c, out += s.co) {
        const int64_t kind = row + columns.kinds[c];
        if (kind == 0) continue;
        const int32_t* sum = excess.data() + kind * s.co;
        for (int64_t o = 0; o < s.co; ++o) out[o] -= sum[o];
      }
    }
  };
  const Layout layout{s, s.ci * 4, loops.disagreements.item};
  forward(pool, loops.disagreements, layout, reinterpret_cast<const char*>(x), nullptr, kernel,
          s.kh * s.kw * s.ci, static_cast<int32_t>(s.kh * s.kw * channels), y, take_back);
}

}  // namespace nnlab::integer
