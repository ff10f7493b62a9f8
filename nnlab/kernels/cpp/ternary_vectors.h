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

// Four inputs in every lane.
inline Bytes broadcast(const int8_t* x) { return (Bytes)(load<uint32_t>(x) - Lanes{}); }

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
  // For one token codes are masked and not shifted: sum n is 4^n times too large.
  static constexpr int kSums = 4;
  static constexpr int64_t kLinesAtOnce = (1 << 15) - 1;  // times 4 inputs, 2 times 128, and 64

  static void add_step(Lanes* sums, Bytes& packed, int n, Bytes inputs) {
    sums[n] = add(sums[n], packed & (uint8_t)(3 << 2 * n), inputs);
  }
  static Lanes total(const Lanes* sums) {
    return sums[0] + divided(sums[1], 2) + divided(sums[2], 4) + divided(sums[3], 6);
  }
#endif
};

#if defined(__AVX512VBMI__)
// Of every byte of five digits the last four, in two bits each.
struct LastDigits {
  uint8_t of[256];

  constexpr LastDigits() : of() {
    for (int byte = 0; byte < 256; ++byte)
      for (int n = 0, rest = byte; n < 4; ++n) {
        rest = rest * 3 % 256;
        of[byte] |= rest * 3 / 256 << 2 * n;
      }
  }
};
constexpr LastDigits kLastDigits;

inline Bytes last_digits(Bytes packed) {
  const auto in_half = [&](int half) {
    const uint8_t* table = kLastDigits.of + 128 * half;
    return _mm512_permutex2var_epi8(load<__m512i>(table), (__m512i)packed,
                                    load<__m512i>(table + 64));
  };
  return (Bytes)_mm512_mask_blend_epi8(_mm512_movepi8_mask((__m512i)packed), in_half(0),
                                       in_half(1));
}
#endif

// Five digits of base 3 as a fraction of 256, of which a product by 3 shifts the first out: with
// r_0 the byte and r_{n+1} = 3 r_n modulo 256, digit n is (3 r_n - r_{n+1}) / 256.
struct Base3 {
  static constexpr int kDigits = 5;

  static Bytes next(Bytes& packed, int n) {
#if defined(__AVX512VBMI__)
    if (n > 0) return TwoBits::next(packed, n);
#endif
    const Bytes first = Bytes{} - (Bytes)(packed > 85) - (Bytes)(packed > 170);
#if defined(__AVX512VBMI__)
    packed = last_digits(packed);
#else
    if (n + 1 < kDigits) packed += packed + packed;
#endif
    return first;
  }

  // For one token r_n and r_{n+1} are summed in place of the digit.
#if defined(__AVX512VBMI__)
  static constexpr int kSums = 6;
  static constexpr int64_t kLinesAtOnce = (1 << 13) - 1;  // times 4 inputs, 2 times 128, and 256

  static void add_step(Lanes* sums, Bytes& packed, int n, Bytes inputs) {
    if (n > 0) return TwoBits::add_step(sums, packed, n - 1, inputs);
    sums[4] = add(sums[4], packed, inputs);
    sums[5] = add(sums[5], packed + packed + packed, inputs);
    packed = last_digits(packed);
  }
  static Lanes total(const Lanes* sums) {
    return TwoBits::total(sums) + divided(3 * sums[4] - sums[5], 8);
  }
#elif defined(__AVX512VNNI__)
  static constexpr int kSums = 10;
  static constexpr int64_t kLinesAtOnce = 1600;  // times 20 inputs, 2 times 128, and 256

  static void add_step(Lanes* sums, Bytes& packed, int n, Bytes inputs) {
    sums[n] = add(sums[n], packed, inputs);
    packed += packed + packed;
    sums[5 + n] = add(sums[5 + n], packed, inputs);
  }
  static Lanes total(const Lanes* sums) {
    Lanes sum{};
    for (int n = 0; n < 5; ++n) sum += 3 * sums[n] - sums[5 + n];
    return divided(sum, 8);
  }
#endif
};

}  // namespace
