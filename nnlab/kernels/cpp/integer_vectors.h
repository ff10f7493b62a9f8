// Vectors of integers and the two terms that are summed in them.
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

#if defined(__AVX512BW__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

using Bytes = uint8_t __attribute__((vector_size(kBytes)));
using Words = uint32_t __attribute__((vector_size(kBytes)));
using Longs = uint64_t __attribute__((vector_size(kBytes)));

template <class T>
inline T load(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

// Distances of 8 bytes in every lane.
struct Distance {
  using Item = uint64_t;
  using Lanes = Longs;
  using Result = int32_t __attribute__((vector_size(kBytes / 2)));
  static constexpr int32_t kScale = 1;

#if defined(__SSE2__)
  static constexpr int64_t kItemsAtOnce = 128;  // times 16 channels is 16 KiB
  static Lanes add(Lanes sum, Lanes x, Lanes w) {
#if defined(__AVX512BW__)
    return sum + (Lanes)_mm512_sad_epu8((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
    return sum + (Lanes)_mm256_sad_epu8((__m256i)x, (__m256i)w);
#else
    return sum + (Lanes)_mm_sad_epu8((__m128i)x, (__m128i)w);
#endif
  }
  static Lanes total(Lanes sum) { return sum; }
#else
  static constexpr int64_t kItemsAtOnce = 128;  // 128 times two bytes is less than 2^16
  static Lanes add(Lanes sum, Lanes x, Lanes w) {
    const Bytes a = (Bytes)x, b = (Bytes)w;
    const Lanes d = (Lanes)(a > b ? a - b : b - a), low = Lanes{} + 0x00ff00ff00ff00ff;
    return sum + (d & low) + (d >> 8 & low);  // four sums of 16 bits
  }
  static Lanes total(Lanes sum) {
    const Lanes low = Lanes{} + 0x0000ffff0000ffff;
    sum = (sum & low) + (sum >> 16 & low);
    return (sum & 0xffffffff) + (sum >> 32);
  }
#endif
};

#if !defined(__AVX512VPOPCNTDQ__)
// The number of ones in every byte.
inline Words ones_of_bytes(Words v) {
  const Words low = Words{} + 0x0f0f0f0fu;
#if defined(__AVX2__)
  Longs table{};  // of the nibbles 0 to 15, once in every 16 bytes
  for (int i = 0; i < kBytes / 8; ++i) table[i] = i % 2 ? 0x0403030203020201 : 0x0302020102010100;
  const Words high = v >> 4 & low;
#if defined(__AVX512BW__)
  return (Words)((Bytes)_mm512_shuffle_epi8((__m512i)table, (__m512i)(v & low)) +
                 (Bytes)_mm512_shuffle_epi8((__m512i)table, (__m512i)high));
#else
  return (Words)((Bytes)_mm256_shuffle_epi8((__m256i)table, (__m256i)(v & low)) +
                 (Bytes)_mm256_shuffle_epi8((__m256i)table, (__m256i)high));
#endif
#else
  v -= v >> 1 & 0x55555555u;
  v = (v & 0x33333333u) + (v >> 2 & 0x33333333u);
  return (v + (v >> 4)) & low;
#endif
}
#endif

// Bits of 32 that differ, in every lane.
struct Disagreement {
  using Item = uint32_t;
  using Lanes = Words;
  using Result = int32_t __attribute__((vector_size(kBytes)));
  static constexpr int32_t kScale = 2;

#if defined(__AVX512VPOPCNTDQ__)
  static constexpr int64_t kItemsAtOnce = 128;  // times 32 channels is 16 KiB
  static Lanes add(Lanes sum, Lanes x, Lanes w) {
    return sum + (Lanes)_mm512_popcnt_epi32((__m512i)(x ^ w));
  }
  static Lanes total(Lanes sum) { return sum; }
#else
  static constexpr int64_t kItemsAtOnce = 31;  // 31 times eight bits is less than 2^8
  static Lanes add(Lanes sum, Lanes x, Lanes w) { return sum + ones_of_bytes(x ^ w); }
  static Lanes total(Lanes sum) {
    sum = (sum & 0x00ff00ffu) + (sum >> 8 & 0x00ff00ffu);
    return (sum & 0xffffu) + (sum >> 16);
  }
#endif
};

// Bit i tells whether x[i] >= 0.
constexpr int kFloats = kBytes / 4;
inline uint32_t not_negative(const float* x) {
#if defined(__AVX512BW__)
  return _mm512_cmp_ps_mask(load<__m512>(x), _mm512_setzero_ps(), _CMP_GE_OQ);
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps(load<__m256>(x), _mm256_setzero_ps(), _CMP_GE_OQ));
#elif defined(__SSE2__)
  return _mm_movemask_ps(_mm_cmpge_ps(load<__m128>(x), _mm_setzero_ps()));
#else
  return (x[0] >= 0) | (x[1] >= 0) << 1 | (x[2] >= 0) << 2 | (x[3] >= 0) << 3;
#endif
}

}  // namespace
