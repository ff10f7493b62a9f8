// The inner loops of the ternary product, compiled once per instruction set.
//
// NNLAB_LOOPS names the `Loops` that this compilation defines. Codes w + 1 are unsigned, for which
// there are instructions; the caller takes back what the 1 adds. A lane of 32 bits is an output,
// whose four bytes meet the same four inputs, so that nothing is added up across lanes. Codes are
// unpacked once for all tokens of a tile, whose sums stay in registers over all of the inputs.
#include "ternary_loops.h"
#include "ternary_vectors.h"

namespace nnlab::ternary {
namespace {

// How far ahead of the line that is read its like are fetched from memory, in bytes: by whole
// groups, of which the caller goes through one after the other. Processors foresee what follows a
// line in its page, but not the next page. All that is on its way fits a second-level cache.
int64_t ahead(const Tile& all) {
  constexpr int64_t kLeast = 1 << 16, kMost = 1 << 18;
  const int64_t group = all.blocks * all.lines * kLine;
  return group > kMost ? kLeast / all.blocks : (kLeast + group - 1) / group * group;
}

inline void fetch(const uint8_t* at) { __builtin_prefetch(at, 0, 2); }

// `kBlocks` blocks from this one on, or the last.
template <class Format, int kTokens>
void tile(const Tile& all, int64_t block) {
  constexpr int kAtOnce = kBlocks * kLine / kBytes;
  constexpr int64_t kLines = kStepsAtOnce / Format::kDigits;
  uint32_t unused[kTokens * kOutputs];
  const int64_t far = ahead(all);
  const uint8_t* from[kAtOnce];
  uint32_t* to[kAtOnce];
  for (int v = 0; v < kAtOnce; ++v) {
    const int64_t of = block + v * kBytes / kLine, at = v * kBytes % kLine;
    const bool there = of < all.blocks;
    from[v] = all.packed + (there ? of : block) * all.lines * kLine + at;
    to[v] = (there ? all.y + of * kTokens * kOutputs : unused) + at / kStep;
  }
  const int8_t* x = all.x;
  for (int64_t begin = 0; begin < all.lines; begin += kLines) {
    const int64_t end = all.lines - begin < kLines ? all.lines : begin + kLines;
    Part parts[kTokens][kAtOnce] = {};
    for (int64_t line = begin; line < end; ++line) {
      Bytes packed[kAtOnce];
#pragma GCC unroll 4
      for (int v = 0; v < kAtOnce; ++v) {
        packed[v] = load<Bytes>(from[v] + line * kLine);
        fetch(from[v] + line * kLine + far);
      }
#pragma GCC unroll 5
      for (int n = 0; n < Format::kDigits; ++n) {
        Bytes codes[kAtOnce];
#pragma GCC unroll 4
        for (int v = 0; v < kAtOnce; ++v) codes[v] = Format::next(packed[v], n);
#pragma GCC unroll 12
        for (int t = 0; t < kTokens; ++t, x += kStep) {
          const Bytes inputs = broadcast(x);
#pragma GCC unroll 4
          for (int v = 0; v < kAtOnce; ++v) parts[t][v] = add(parts[t][v], codes[v], inputs);
        }
      }
    }
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < kAtOnce; ++v)
        add_to(to[v] + t * kOutputs, total(parts[t][v]), begin == 0);
    }
  }
}

template <class Format, int kTokens = kTokensAtOnce>
void run_tile(const Tile& all) {
  if constexpr (kTokens > 0) {
    if (all.tokens != kTokens) return run_tile<Format, kTokens - 1>(all);
    for (int64_t block = 0; block < all.blocks; block += kBlocks) tile<Format, kTokens>(all, block);
  }
}

#if defined(__AVX512VNNI__)
// One token waits for its weights: this does least to unpack them, and reads several blocks at once,
// because memory is read the faster the more pages are open.
template <class Format, int kCount>
void one_token(const Tile& all, int64_t block) {
  const int64_t far = ahead(all), stride = all.lines * kLine;
  const uint8_t* packed = all.packed + block * stride;
  const int8_t* x = all.x;
  for (int64_t begin = 0; begin < all.lines; begin += Format::kLinesAtOnce) {
    const int64_t left = all.lines - begin;
    const int64_t end = begin + (left < Format::kLinesAtOnce ? left : Format::kLinesAtOnce);
    Lanes sums[kCount][Format::kSums] = {};
    for (int64_t line = begin; line < end; ++line, x += Format::kDigits * kStep) {
#pragma GCC unroll 8
      for (int b = 0; b < kCount; ++b) {
        const uint8_t* at = packed + b * stride + line * kLine;
        Format::add_line(sums[b], load<Bytes>(at), x);
        fetch(at + far);
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < kCount; ++b)
      add_to(all.y + (block + b) * kOutputs, Format::total(sums[b]), begin == 0);
  }
}

template <class Format, int kCount = Format::kBlocksOfOneToken>
void run_one_token(const Tile& all, int64_t block = 0) {
  for (; all.blocks - block >= kCount; block += kCount) one_token<Format, kCount>(all, block);
  if constexpr (kCount > 1) run_one_token<Format, kCount / 2>(all, block);
}
#endif

void run(const Tile& all) {
#if defined(__AVX512VNNI__)
  if (all.tokens == 1)
    return all.digits == 4 ? run_one_token<TwoBits>(all) : run_one_token<FiveInByte>(all);
#endif
  all.digits == 4 ? run_tile<TwoBits>(all) : run_tile<FiveInByte>(all);
}

void arrange(const int8_t* x, int64_t tokens, int64_t inputs, int64_t steps, int8_t* to,
             int32_t* sums) {
  const int64_t whole = inputs / kStep;
  for (int64_t t = 0; t < tokens; ++t, x += inputs) {
    int32_t sum = 0;
    for (int64_t k = 0; k < inputs; ++k) sum += x[k];
    sums[t] = sum;
    int8_t* at = to + t * kStep;
    for (int64_t s = 0; s < whole; ++s, at += tokens * kStep) memcpy(at, x + s * kStep, kStep);
    for (int64_t s = whole; s < steps; ++s, at += tokens * kStep)
      for (int64_t j = 0; j < kStep; ++j) at[j] = s * kStep + j < inputs ? x[s * kStep + j] : 0;
  }
}

}  // namespace

extern const Loops NNLAB_LOOPS = {kName, kTokensAtOnce, arrange, run};

}  // namespace nnlab::ternary
