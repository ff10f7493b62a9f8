// How much of the work is in registers and in the first-level cache at a time.
#pragma once

#include "vectors.h"

namespace nnlab {
namespace {

constexpr int64_t kTermsAtOnce = 144;  // 3 x 3 x 16; times 32 channels is 18 KiB

#if defined(__AVX512F__)
using Widest = F16;
constexpr char kName[] = "avx512";
constexpr int kAlone = 8, kBesideSelf = 4;  // positions at once; 32 registers
#elif defined(__AVX2__)
using Widest = F8;
constexpr char kName[] = "avx2";
constexpr int kAlone = 4, kBesideSelf = 2;  // positions at once; 16 registers
#elif defined(__SSE2__)
using Widest = F4;
constexpr char kName[] = "sse2";
constexpr int kAlone = 4, kBesideSelf = 2;  // positions at once; 16 registers
#else
using Widest = F4;
constexpr char kName[] = "neon";
constexpr int kAlone = 8, kBesideSelf = 4;  // positions at once; 32 registers
#endif

// Pointers to the positions of a tile; past the end the last position stands in.
template <int kPositions>
struct Tile {
  int64_t valid;
  int64_t index[kPositions];

  Tile(int64_t first, int64_t count)
      : valid(count - first < kPositions ? count - first : kPositions) {
    for (int p = 0; p < kPositions; ++p) index[p] = first + (p < valid ? p : valid - 1);
  }
};

}  // namespace
}  // namespace nnlab
