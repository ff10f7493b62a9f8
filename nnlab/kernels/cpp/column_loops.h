// The loops over runs of columns: a few runs and channels at a time are accumulated in registers.
#pragma once

#include "loops.h"
#include "term.h"
#include "tiles.h"
#include "vectors.h"

namespace nnlab {
namespace {

// The range of terms of a few runs together: what more it holds for one of them reads zeros.
template <int kRuns>
inline void range_of(const Columns& all, const int64_t (&index)[kRuns], int64_t& first,
                     int64_t& last) {
  first = all.ranges[2 * index[0]];
  last = all.ranges[2 * index[0] + 1];
  for (int64_t p : index) {
    if (all.ranges[2 * p] < first) first = all.ranges[2 * p];
    if (all.ranges[2 * p + 1] > last) last = all.ranges[2 * p + 1];
  }
}

template <class V, int kRuns, int kChannels, Rule kRule>
void columns_block(const Columns& all, int64_t channel) {
  constexpr bool kSelf = takes_self(kRule);
  const V one = hidden_one<V>();
  for (int64_t start = 0; start < all.count; start += kRuns) {
    const Tile<kRuns> tile(start, all.count);
    int64_t first, last;
    range_of(all, tile.index, first, last);
    const float* in[kRuns];
    V self[kRuns][kChannels] = {}, total[kRuns][kChannels] = {};
    const auto at = [&](int p, int c) {
      return (tile.index[p] * all.channels + channel + c) * lanes_of<V>;
    };
    for (int p = 0; p < kRuns; ++p) {
      in[p] = all.in[tile.index[p]];
      for (int c = 0; c < kChannels; ++c) {
        if constexpr (kSelf) {
          const V x = self[p][c] = load<V>(all.self + at(p, c));
          if constexpr (kRule != Rule::kSlope) total[p][c] = x == x ? V{} : x;  // as `clip` may not
        }
      }
    }
    // Sums begin at the same terms for every tile, so that none depends on what it holds.
    for (int64_t k = first; k < last;) {
      const int64_t next = (k / kTermsAtOnce + 1) * kTermsAtOnce, end = next < last ? next : last;
      V sums[kRuns][kChannels] = {};
      for (; k < end; ++k) {
        const float* w = all.weights + k * all.channels + channel;
        const int64_t offset = all.offsets[k];
#pragma GCC unroll 8
        for (int p = 0; p < kRuns; ++p) {
          const V a = load<V>(in[p] + offset);
#pragma GCC unroll 4
          for (int c = 0; c < kChannels; ++c) {
            const V weight = broadcast<V>(w[c]);
            if constexpr (kRule == Rule::kProduct) {
              sums[p][c] += a * weight;
            } else if constexpr (kRule == Rule::kDistance) {
              const V d = absolute(subtract(a, weight, one, true));
              sums[p][c] = subtract(sums[p][c], d, one, p % 4 == 3);
            } else if constexpr (kRule == Rule::kValue) {
              sums[p][c] += term(a, weight, one);
            } else if constexpr (kRule == Rule::kSlope) {
              sums[p][c] += a * term(self[p][c], weight, one);
            } else {
              const V d = subtract(weight, self[p][c], one, (p + c) % 2 == 0);
              sums[p][c] += a * (kRule == Rule::kClip ? clip(d, one) : sign(d, one));
            }
          }
        }
      }
      for (int p = 0; p < kRuns; ++p)
        for (int c = 0; c < kChannels; ++c) total[p][c] += sums[p][c];
    }
    for (int p = 0; p < kRuns; ++p)
      for (int c = 0; c < kChannels; ++c)
        store_first(all.out + at(p, c), total[p][c], lanes_of<V>);
  }
}

template <class V, int kMany, Rule kRule>
void columns_of(const Columns& all) {
  constexpr bool kSelf = takes_self(kRule);
  int64_t c = 0;
  for (; c + 3 <= all.channels && all.channels - c != 4; c += 3)
    columns_block<V, kMany / 2, 3, kRule>(all, c);
  for (; c + 2 <= all.channels; c += 2)
    columns_block<V, kSelf ? kMany / 2 : kMany, 2, kRule>(all, c);
  if (c < all.channels) columns_block<V, kMany, 1, kRule>(all, c);
}

}  // namespace
}  // namespace nnlab
