// The loops over positions: a block of channels and a few positions are accumulated in registers.
#pragma once

#include "loops.h"
#include "term.h"
#include "tiles.h"
#include "vectors.h"

namespace nnlab {
namespace {

// out[p] = sums[p], or more than before, for the valid positions and the channels of a block.
template <class V, int kVectors, int kPositions>
inline void write(const Positions& all, const Tile<kPositions>& tile,
                  const V (&sums)[kPositions][kVectors], int64_t channel, bool first) {
  for (int p = 0; p < tile.valid; ++p) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t c = channel + v * lanes_of<V>, left = all.channels - c;
      float* to = all.out[tile.index[p]] + c;
      store_first(to, first ? sums[p][v] : load_first<V>(to, left) + sums[p][v], left);
    }
  }
}

// A block of channels without `self`: distances, products or an own term. A product gains from a
// second vector beside the first, which shares its broadcast; a difference would have to copy it.
template <class V, int kVectors, Rule kRule>
void plain_block(const Positions& all, const float* packed, int64_t channel) {
  constexpr int kTogether = kRule == Rule::kProduct ? kVectors : 1;
  constexpr int kPositions = kTogether == 1 ? 8 : kAlone;
  const V one = hidden_one<V>();
  for (int64_t k0 = all.first; k0 < all.last; k0 += kTermsAtOnce) {
    const int64_t k1 = k0 + kTermsAtOnce < all.last ? k0 + kTermsAtOnce : all.last;
    for (int v0 = 0; v0 < kVectors; v0 += kTogether) {
      for (int64_t first = 0; first < all.count; first += kPositions) {
        const Tile<kPositions> tile(first, all.count);
        const float* in[kPositions];
        for (int p = 0; p < kPositions; ++p) in[p] = all.in[tile.index[p]];
        V sums[kPositions][kTogether] = {};
        const float* w = packed + (k0 * kVectors + v0) * lanes_of<V>;
        for (int64_t k = k0; k < k1; ++k, w += kVectors * lanes_of<V>) {
          const int64_t at = all.offsets[k];
#pragma GCC unroll 8
          for (int p = 0; p < kPositions; ++p) {
            const V x = broadcast<V>(in[p][at]);
#pragma GCC unroll 2
            for (int v = 0; v < kTogether; ++v) {
              const V weights = load<V>(w + v * lanes_of<V>);
              if constexpr (kRule == Rule::kProduct) {
                sums[p][v] += x * weights;
              } else if constexpr (kRule == Rule::kValue) {
                sums[p][v] += term(x, weights, one);
              } else {
                const V d = absolute(subtract(x, weights, one, true));
                sums[p][v] = subtract(sums[p][v], d, one, p % 4 == 3);
              }
            }
          }
        }
        write<V, kTogether, kPositions>(all, tile, sums, channel + v0 * lanes_of<V>,
                                        k0 == all.first);
      }
    }
  }
}

// A block of channels with `self`: the gradients of distances and of own terms.
template <class V, int kVectors, Rule kRule>
void gradient_block(const Positions& all, const float* packed, int64_t channel) {
  constexpr int kPositions = kVectors == 1 ? 2 * kBesideSelf : kBesideSelf;
  const V one = hidden_one<V>();
  for (int64_t k0 = all.first; k0 < all.last; k0 += kTermsAtOnce) {
    const int64_t k1 = k0 + kTermsAtOnce < all.last ? k0 + kTermsAtOnce : all.last;
    for (int64_t first = 0; first < all.count; first += kPositions) {
      const Tile<kPositions> tile(first, all.count);
      const float* in[kPositions];
      V self[kPositions][kVectors], sums[kPositions][kVectors];
      for (int p = 0; p < kPositions; ++p) {
        in[p] = all.in[tile.index[p]];
        for (int v = 0; v < kVectors; ++v) {
          const int64_t c = channel + v * lanes_of<V>, left = all.channels - c;
          self[p][v] = load_first<V>(all.self[tile.index[p]] + c, left);
          sums[p][v] = V{};
          if constexpr (kRule != Rule::kSlope)
            sums[p][v] = self[p][v] == self[p][v] ? V{} : self[p][v];  // what `clip` may lose
        }
      }
      const float* w = packed + k0 * kVectors * lanes_of<V>;
      for (int64_t k = k0; k < k1; ++k, w += kVectors * lanes_of<V>) {
        const int64_t at = all.offsets[k];
#pragma GCC unroll 8
        for (int p = 0; p < kPositions; ++p) {
          const V g = broadcast<V>(in[p][at]);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            const V weights = load<V>(w + v * lanes_of<V>);
            if constexpr (kRule == Rule::kSlope) {
              sums[p][v] += g * term(self[p][v], weights, one);
            } else {
              const V d = subtract(weights, self[p][v], one, (p + v) % 2 == 0);
              sums[p][v] += g * (kRule == Rule::kClip ? clip(d, one) : sign(d, one));
            }
          }
        }
      }
      write<V, kVectors, kPositions>(all, tile, sums, channel, k0 == all.first);
    }
  }
}

// Runs a body over the blocks of channels, with the vectors that the width of a block asks for.
template <template <class, int> class Body, class Work>
void over_blocks(const Work& work, const float* packed, int64_t rows, int64_t channels, Rule rule) {
  constexpr int64_t kWidest = 2 * lanes_of<Widest>;
  for (int64_t c = 0; c < channels;) {
    const int64_t width = next_width(channels - c, kWidest);
    if (width == kWidest) Body<Widest, 2>::run(work, packed, c, rule);
#if defined(__AVX512F__)
    if (width == 16) Body<F16, 1>::run(work, packed, c, rule);
#endif
#if defined(__AVX2__)
    if (width == 8) Body<F8, 1>::run(work, packed, c, rule);
#endif
    if (width == 4) Body<F4, 1>::run(work, packed, c, rule);
    c += width;
    packed += rows * width;
  }
}

}  // namespace
}  // namespace nnlab
