// Vectors of packed codes, and the products of codes and inputs that are summed in them.
//
// As in vectors.h everything has internal linkage, and no standard header with inline functions is
// included: the file is compiled once per instruction set.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// Bytes of a vector, blocks side by side, and tokens of a tile.
#if defined(__AVX512BW__)
constexpr int kBytes = 64, kBlocks = 2, kTokensAtOnce = 12;  // 32 registers
#elif defined(__AVX2__)
constexpr int kBytes = 32, kBlocks = 1, kTokensAtOnce = 4;  // 16 registers
#elif defined(__SSE2__)
constexpr int kBytes = 16, kBlocks = 1, kTokensAtOnce = 1;  // 16 registers
#else
constexpr int kBytes = 16, kBlocks = 1, kTokensAtOnce = 2;  // 32 registers
#endif

using Bytes = uint8_t __attribute__((vector_size(kBytes)));
using Halves = uint16_t __attribute__((vector_size(kBytes)));
using Lanes = uint32_t __attribute__((vector_size(kBytes)));

template <class T>
inline T load(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

// The four inputs of a step in every lane.
inline Bytes broadcast(const int8_t* x, int step = 0) {
  return (Bytes)(load<uint32_t>(x + 4 * step) - Lanes{});
}

inline void add_to(uint32_t* y, Lanes sum, bool first) {
  if (!first) sum += load<Lanes>(y);
  memcpy(y, &sum, sizeof sum);
}

// `Part` sums products of codes, at most 2, and inputs, exactly over so many steps; `total` gives
// the sum of every lane.
#if defined(__AVX512VNNI__)
constexpr int64_t kStepsAtOnce = int64_t{1} << 40;
using Part = Lanes;
inline Part add(Part sum, Bytes codes, Bytes inputs) {
  return (Part)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)inputs);
}
inline Lanes total(Part sum) { return sum; }
#elif defined(__AVX2__)
constexpr int64_t kStepsAtOnce = 60;  // of 2 products, each at most 2 times 128: less than 2^15
using Part = Halves;
inline Part add(Part sum, Bytes codes, Bytes inputs) {
#if defined(__AVX512BW__)
  return sum + (Part)_mm512_maddubs_epi16((__m512i)codes, (__m512i)inputs);
#else
  return sum + (Part)_mm256_maddubs_epi16((__m256i)codes, (__m256i)inputs);
#endif
}
inline Lanes total(Part sum) {
#if defined(__AVX512BW__)
  return (Lanes)_mm512_madd_epi16((__m512i)sum, _mm512_set1_epi16(1));
#else
  return (Lanes)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1));
#endif
}
#else
constexpr int64_t kStepsAtOnce = 120;  // of a product: less than 2^15
using Shorts = int16_t __attribute__((vector_size(16)));
struct Part {
  Shorts low, high;
};
inline Part add(Part sum, Bytes codes, Bytes inputs) {
  using Eight = uint8_t __attribute__((vector_size(8)));
  using SignedEight = int8_t __attribute__((vector_size(8)));
  const auto half = [&](int at) {
    return __builtin_convertvector(load<Eight>((const char*)&codes + at), Shorts);
  };
  const Shorts x = __builtin_convertvector(load<SignedEight>(&inputs), Shorts);
  return {sum.low + half(0) * x, sum.high + half(8) * x};
}
inline Lanes total(Part sum) {
  Lanes sums{};
  for (int i = 0; i < 8; ++i) {
    sums[i / 4] += (uint32_t)(int32_t)sum.low[i];
    sums[2 + i / 4] += (uint32_t)(int32_t)sum.high[i];
  }
  return sums;
}
#endif

#if defined(__AVX512VBMI__)
constexpr char kName[] = "avx512vbmi";
#elif defined(__AVX512VNNI__)
constexpr char kName[] = "avx512vnni";
#elif defined(__AVX512BW__)
constexpr char kName[] = "avx512";
#elif defined(__AVX2__)
constexpr char kName[] = "avx2";
#elif defined(__SSE2__)
constexpr char kName[] = "sse2";
#else
constexpr char kName[] = "neon";
#endif

// A sum without what makes it 2^bits times too large.
inline Lanes divided(Lanes sum, int bits) {
  using Signed = int32_t __attribute__((vector_size(kBytes)));
  return (Lanes)((Signed)sum >> bits);
}

// Codes of two bits, the first the lowest.
struct TwoBits {
  static constexpr int kDigits = 4;

  static Bytes next(Bytes& packed, int) {
    const Bytes codes = packed & 3;
    packed = (Bytes)((Halves)packed >> 2);
    return codes;
  }

#if defined(__AVX512VNNI__)
  // For one token codes are masked and hardly shifted: the second sum is 4 times too large.
  static constexpr int kSums = 2, kBlocksOfOneToken = 8;
  static constexpr int64_t kLinesAtOnce = 1 << 15;  // times 8 inputs, 2 times 128, and 4

  static void add_line(Lanes* sums, Bytes packed, const int8_t* x) {
    const Bytes high = (Bytes)((Halves)packed >> 4);
    sums[0] = add(sums[0], packed & 3, broadcast(x));
    sums[1] = add(sums[1], packed & 12, broadcast(x, 1));
    sums[0] = add(sums[0], high & 3, broadcast(x, 2));
    sums[1] = add(sums[1], high & 12, broadcast(x, 3));
  }
  static Lanes total(const Lanes* sums) { return sums[0] + divided(sums[1], 2); }
#endif
};

// A digit of a number that is less than 3 times this; the rest of the number is left.
inline Bytes digit_of(Bytes& number, uint8_t unit) {
  const Bytes one = (Bytes)(number >= unit), two = (Bytes)(number >= (uint8_t)(2 * unit));
  number -= (one & unit) + (two & unit);
  return Bytes{} - one - two;
}

#if defined(__AVX512VBMI__)
// Looks the byte up in two tables of 64: a quarter of it knows digits 0 and 4, and which of the
// second table's rows of 4 holds the others.
struct Tables {
  uint8_t first[64], others[64], apart[64];

  constexpr Tables() : first(), others(), apart() {
    for (int at = 0; at < 63; ++at)
      first[at] = at / 7 % 3 << 6 | ((at % 7 ^ at) & 15) << 2 | at / 21;
    for (int at = 0; at < 27; ++at) {
      others[at] = at / 9 | at / 3 % 3 << 2 | at % 3 << 4;
      apart[at] = at / 9 | at / 3 % 3 << 2 | at % 3 << 6;
    }
  }
};
alignas(64) constexpr Tables kTables;

// By the lower six bits. (The intrinsic without a mask makes some compilers warn.)
inline Bytes look_up(const uint8_t* table, Bytes at) {
  return (Bytes)_mm512_maskz_permutexvar_epi8(~0ull, (__m512i)at, load<__m512i>(table));
}
#endif

// Five digits in a byte, 28 (3 c_0 + c_4) + ((9 c_1 + 3 c_2 + c_3) xor c_0).
struct FiveInByte {
  static constexpr int kDigits = 5;

#if defined(__AVX512VBMI__)
  static Bytes next(Bytes& packed, int n) {
    if (n > 0) return TwoBits::next(packed, n);
    const Bytes first = look_up(kTables.first, (Bytes)((Halves)packed >> 2));
    packed = look_up(kTables.others, packed ^ first) | (first & 0xc0);
    return first & 3;
  }

  // The second sum is 4 times too large, the third 64 times.
  static constexpr int kSums = 3, kBlocksOfOneToken = 4;
  static constexpr int64_t kLinesAtOnce = 1 << 13;  // times 8 inputs, 2 times 128, and 64

  static void add_line(Lanes* sums, Bytes packed, const int8_t* x) {
    const Bytes first = look_up(kTables.first, (Bytes)((Halves)packed >> 2));
    const Bytes others = look_up(kTables.apart, packed ^ first);
    sums[0] = add(sums[0], first & 3, broadcast(x));
    sums[0] = add(sums[0], others & 3, broadcast(x, 1));
    sums[1] = add(sums[1], others & 12, broadcast(x, 2));
    sums[2] = add(sums[2], others & 0xc0, broadcast(x, 3));
    sums[2] = add(sums[2], first & 0xc0, broadcast(x, 4));
  }
  static Lanes total(const Lanes* sums) {
    return sums[0] + divided(sums[1], 2) + divided(sums[2], 6);
  }
#else
  static Bytes next(Bytes& packed, int n) {
    if (n == 0) {
      const Bytes first = digit_of(packed, 84), last = digit_of(packed, 28);
      packed = (Bytes)((Halves)(packed ^ first) << 2) + last;  // 4 (9 c_1 + 3 c_2 + c_3) + c_4
      return first;
    }
    if (n < 3) return digit_of(packed, n == 1 ? 36 : 12);
    return (n == 3 ? (Bytes)((Halves)packed >> 2) : packed) & 3;
  }
#if defined(__AVX512VNNI__)
  static constexpr int kSums = 1, kBlocksOfOneToken = 4;
  static constexpr int64_t kLinesAtOnce = 1 << 15;  // times 20 inputs, 2 times 128

  static void add_line(Lanes* sums, Bytes packed, const int8_t* x) {
#pragma GCC unroll 5
    for (int n = 0; n < kDigits; ++n)
      sums[0] = add(sums[0], next(packed, n), broadcast(x, n));
  }
  static Lanes total(const Lanes* sums) { return sums[0]; }
#endif
#endif
};

}  // namespace
