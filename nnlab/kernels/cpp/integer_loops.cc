// The inner loops of the integer kernels, compiled once per instruction set.
//
// NNLAB_LOOPS names the `Loops` that this compilation defines. As in loops.cc, up to two vectors of
// channels and a few positions are accumulated in registers, over a block of items whose weights
// stay in the first-level cache while all positions of the task pass by.
#include "integer_loops.h"
#include "integer_vectors.h"

namespace nnlab::integer {
namespace {

#if defined(__AVX512BW__)
constexpr char kName[] = "avx512";
constexpr int kPositionsAtOnce = 8;  // 32 registers
#elif defined(__AVX2__)
constexpr char kName[] = "avx2";
constexpr int kPositionsAtOnce = 4;  // 16 registers
#elif defined(__SSE2__)
constexpr char kName[] = "sse2";
constexpr int kPositionsAtOnce = 4;
#else
constexpr char kName[] = "neon";
constexpr int kPositionsAtOnce = 8;
#endif

template <class Term>
constexpr int kLanes = kBytes / sizeof(typename Term::Item);

// Channels of the next block when so many are left: two vectors, or one that holds the rest.
template <class Term>
int64_t width_of(int64_t channels) {
  return channels > kLanes<Term> ? 2 * kLanes<Term> : kLanes<Term>;
}

template <class Term>
int64_t packed_bytes(int64_t items, int64_t channels) {
  int64_t total = 0;
  for (int64_t c = 0; c < channels;) {
    const int64_t width = width_of<Term>(channels - c);
    total += items * width * sizeof(typename Term::Item);
    c += width;
  }
  return total;
}

// `Part` is what a row of the kernel holds: eight rows of bytes make an item, or one row of words.
template <class Term, class Part>
void pack(const void* kernel, int64_t rows, int64_t channels, void* packed) {
  using Item = typename Term::Item;
  constexpr int64_t kRows = sizeof(Item) / sizeof(Part);
  const Part* from = static_cast<const Part*>(kernel);
  Item* to = static_cast<Item*>(packed);
  for (int64_t c = 0; c < channels;) {
    const int64_t width = width_of<Term>(channels - c);
    const int64_t used = channels - c < width ? channels - c : width;
    for (int64_t row = 0; row < rows; row += kRows, to += width) {
      memset(to, 0, width * sizeof(Item));
      const int64_t last = rows - row < kRows ? rows - row : kRows;
      for (int64_t r = 0; r < last; ++r)
        for (int64_t o = 0; o < used; ++o)
          to[o] |= Item{from[(row + r) * channels + c + o]} << (8 * sizeof(Part) * r % 64);
    }
    c += width;
  }
}

// out = start - scale sum, or less than before, for the first `count` channels of a vector.
template <class Term>
inline void write(typename Term::Lanes sum, int32_t start, bool first, int64_t count,
                  int32_t* out) {
  using Result = typename Term::Result;
  const Result total = __builtin_convertvector(Term::total(sum), Result) * Term::kScale;
  if (count >= kLanes<Term>) {
    const Result result = (first ? start - Result{} : load<Result>(out)) - total;
    memcpy(out, &result, sizeof result);
  } else {
    int32_t totals[kLanes<Term>];
    memcpy(totals, &total, sizeof totals);
    for (int64_t o = 0; o < count; ++o) out[o] = (first ? start : out[o]) - totals[o];
  }
}

template <class Term, int kVectors>
void block(const Positions& all, const char* packed, int64_t channel, int32_t start) {
  using Lanes = typename Term::Lanes;
  using Item = typename Term::Item;
  constexpr int kPositions = kVectors == 1 ? 8 : kPositionsAtOnce;
  for (int64_t k0 = 0; k0 < all.items; k0 += Term::kItemsAtOnce) {
    const int64_t rest = all.items - k0;
    const int64_t k1 = k0 + (rest < Term::kItemsAtOnce ? rest : Term::kItemsAtOnce);
    for (int64_t first = 0; first < all.count; first += kPositions) {
      const int64_t left = all.count - first, valid = left < kPositions ? left : kPositions;
      const char* in[kPositions];  // past the end the last position stands in
      for (int p = 0; p < kPositions; ++p)
        in[p] = all.in + all.corners[first + (p < valid ? p : valid - 1)];
      Lanes sums[kPositions][kVectors] = {};
      const char* w = packed + k0 * kVectors * kBytes;
      for (int64_t k = k0; k < k1; ++k, w += kVectors * kBytes) {
        const int64_t at = all.offsets[k];
#pragma GCC unroll 8
        for (int p = 0; p < kPositions; ++p) {
          const Lanes x = load<Item>(in[p] + at) - Lanes{};
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v)
            sums[p][v] = Term::add(sums[p][v], x, load<Lanes>(w + v * kBytes));
        }
      }
#pragma GCC unroll 8
      for (int p = 0; p < kPositions; ++p) {  // of a known number, which keeps sums in registers
        if (p >= valid) break;
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const int64_t c = channel + v * kLanes<Term>;
          write<Term>(sums[p][v], start, k0 == 0, all.channels - c,
                      all.out + (first + p) * all.channels + c);
        }
      }
    }
  }
}

template <class Term>
void run(const Positions& all, int32_t start) {
  const char* packed = static_cast<const char*>(all.packed);
  for (int64_t c = 0; c < all.channels;) {
    const int64_t width = width_of<Term>(all.channels - c);
    if (width == kLanes<Term>) block<Term, 1>(all, packed, c, start);
    else block<Term, 2>(all, packed, c, start);
    c += width;
    packed += all.items * width * sizeof(typename Term::Item);
  }
}

void pack_signs(const float* x, int64_t rows, int64_t channels, uint32_t* words) {
  for (int64_t row = 0; row < rows; ++row, x += channels)
    for (int64_t first = 0; first < channels; first += 32) {
      const int64_t count = channels - first < 32 ? channels - first : 32;
      uint32_t word = 0;
      int64_t c = 0;
      for (; c + kFloats <= count; c += kFloats) word |= not_negative(x + first + c) << c;
      for (; c < count; ++c) word |= uint32_t{x[first + c] >= 0} << c;
      *words++ = word;
    }
}

}  // namespace

extern const Loops NNLAB_LOOPS = {
    kName,
    {sizeof(uint64_t), packed_bytes<Distance>, pack<Distance, uint8_t>, run<Distance>},
    {sizeof(uint32_t), packed_bytes<Disagreement>, pack<Disagreement, uint32_t>,
     run<Disagreement>},
    pack_signs,
};

}  // namespace nnlab::integer
