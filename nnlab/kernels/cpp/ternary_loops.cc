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

template <class Format, int kTokens>
void tile(const Tile& all) {
  constexpr int kVectors = 2 * kLine / kBytes;  // of both blocks
  constexpr int kAtOnce = kBlocks * kLine / kBytes;
  constexpr int64_t kLines = kStepsAtOnce / Format::kDigits;
  for (int side = 0; side < kVectors; side += kAtOnce) {
    const uint8_t* from[kAtOnce];
    for (int v = 0; v < kAtOnce; ++v) {
      const int at = (side + v) * kBytes;
      from[v] = at < kLine ? all.first + at : all.second + (at - kLine);
    }
    const int8_t* x = all.x;
    for (int64_t begin = 0; begin < all.lines; begin += kLines) {
      const int64_t end = all.lines - begin < kLines ? all.lines : begin + kLines;
      Part parts[kTokens][kAtOnce] = {};
      for (int64_t line = begin; line < end; ++line) {
        Bytes packed[kAtOnce];
#pragma GCC unroll 4
        for (int v = 0; v < kAtOnce; ++v) packed[v] = load<Bytes>(from[v] + line * kLine);
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
        for (int v = 0; v < kAtOnce; ++v) {
          const int64_t lane = (side + v) * kBytes / kStep;
          add_to(all.y[lane / kOutputs] + t * kOutputs + lane % kOutputs, total(parts[t][v]),
                 begin == 0);
        }
      }
    }
  }
}

template <class Format, int kTokens = kTokensAtOnce>
void run_tile(const Tile& all) {
  if constexpr (kTokens > 0) {
    if (all.tokens == kTokens) tile<Format, kTokens>(all);
    else run_tile<Format, kTokens - 1>(all);
  }
}

#if defined(__AVX512VNNI__)
// One token waits for its weights, so this does least to unpack them.
template <class Format>
void one_token(const Tile& all) {
  const int8_t* x = all.x;
  for (int64_t begin = 0; begin < all.lines; begin += Format::kLinesAtOnce) {
    const int64_t left = all.lines - begin;
    const int64_t end = begin + (left < Format::kLinesAtOnce ? left : Format::kLinesAtOnce);
    Lanes sums[2][Format::kSums] = {};
    for (int64_t line = begin; line < end; ++line) {
      Bytes first = load<Bytes>(all.first + line * kLine);
      Bytes second = load<Bytes>(all.second + line * kLine);
#pragma GCC unroll 5
      for (int n = 0; n < Format::kDigits; ++n, x += kStep) {
        const Bytes inputs = broadcast(x);
        Format::add_step(sums[0], first, n, inputs);
        Format::add_step(sums[1], second, n, inputs);
      }
    }
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b) add_to(all.y[b], Format::total(sums[b]), begin == 0);
  }
}
#endif

void run(const Tile& all) {
#if defined(__AVX512VNNI__)
  if (all.tokens == 1) return all.digits == 4 ? one_token<TwoBits>(all) : one_token<Base3>(all);
#endif
  all.digits == 4 ? run_tile<TwoBits>(all) : run_tile<Base3>(all);
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
