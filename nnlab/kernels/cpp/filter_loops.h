// The loops of the filter gradient: rows of the kernel are accumulated in registers.
#pragma once

#include "loops.h"
#include "term.h"
#include "tiles.h"
#include "vectors.h"

namespace nnlab {
namespace {

// Cotangents times sign(value - w), value or the slope of an own term: several sums at a time, of
// rows of the kernel or else of every second or fourth position.
template <class V, int kVectors>
struct FilterGradient {
  static void run(const Rows& all, const float* packed, int64_t channel, Rule rule) {
    if (rule == Rule::kProduct) {
      constexpr int kMost = kVectors == 1 ? 2 * kAlone : kAlone + kAlone / 2;
      int64_t row = blocks<kMost, Rule::kProduct>(all, packed, channel, 0);
      if constexpr (kMost > 8) row = blocks<8, Rule::kProduct>(all, packed, channel, row);
      rest<Rule::kProduct>(all, packed, channel, row);
    } else {
      differences<Rule::kSign>(all, packed, channel);
    }
  }

  template <Rule kRule>
  static void differences(const Rows& all, const float* packed, int64_t channel) {
    int64_t row = 0;
    if constexpr (kVectors == 1) row = blocks<kAlone, kRule>(all, packed, channel, 0);
    rest<kRule>(all, packed, channel, row);
  }

  template <Rule kRule>
  static void rest(const Rows& all, const float* packed, int64_t channel, int64_t row) {
    row = blocks<6, kRule>(all, packed, channel, row);
    row = blocks<4, kRule>(all, packed, channel, row);
    row = blocks<2, kRule>(all, packed, channel, row);
    blocks<1, kRule>(all, packed, channel, row);
  }

  // All blocks of so many rows from a row on; gives the row after them.
  template <int kRows, Rule kRule>
  static int64_t blocks(const Rows& all, const float* packed, int64_t channel, int64_t row) {
    constexpr int kChains = kRows < 4 ? 4 / kRows : 1;
    for (; row + kRows <= all.rows; row += kRows)
      block<kRows, kChains, kRule>(all, packed, channel, row);
    return row;
  }

  template <int kRows, int kChains, Rule kRule>
  static void block(const Rows& all, const float* packed, int64_t channel, int64_t row) {
    constexpr int kWidth = kVectors * lanes_of<V>;
    const V one = broadcast<V>(1.0f);
    const int64_t at = all.offset + row;
    V kernel[kRows][kVectors], sums[kChains][kRows][kVectors] = {};
    const auto start = [&](int r, int v) {
      return (row + r) * all.out + channel + v * lanes_of<V>;
    };
    const auto left = [&](int v) { return all.out - channel - v * lanes_of<V>; };
    const auto add = [&](int64_t p, int chain) __attribute__((always_inline)) {
      const float* in = all.in[p] + at;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V x = broadcast<V>(in[r]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          const V g = load<V>(packed + p * kWidth + v * lanes_of<V>);
          if constexpr (kRule == Rule::kSlope) {
            sums[chain][r][v] += g * term(x, kernel[r][v], one);
          } else {
            sums[chain][r][v] += g * (kRule == Rule::kProduct ? x : sign(x - kernel[r][v], one));
          }
        }
      }
    };
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v)
        kernel[r][v] = load_first<V>(all.kernel + start(r, v), left(v));
    int64_t p = 0;
    for (; p + kChains <= all.count; p += kChains) {
#pragma GCC unroll 4
      for (int chain = 0; chain < kChains; ++chain) add(p + chain, chain);
    }
    for (; p < all.count; ++p) add(p, 0);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) {
        V sum = sums[0][r][v];
        for (int chain = 1; chain < kChains; ++chain) sum += sums[chain][r][v];
        float* to = all.gradient + start(r, v);
        store_first(to, load_first<V>(to, left(v)) + sum, left(v));
      }
  }
};

}  // namespace
}  // namespace nnlab
