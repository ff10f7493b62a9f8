// The steps that an own term is made of, as the primitives of JAX define them: a NaN stays NaN.
#pragma once

#include "vectors.h"

namespace {

template <class V>
inline V constant(float value) {
  return broadcast<V>(value);
}

template <class V>
inline Mask<V> whole(int32_t value) {
  return value - Mask<V>{};
}

// The second operand where one of them is NaN, as the instruction has it.
template <class V>
inline V raw_max(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) return _mm512_max_ps(a, b);
#endif
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_max_ps(a, b);
#endif
#if defined(__SSE2__)
  if constexpr (lanes_of<V> == 4) return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

template <class V>
inline V raw_min(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) return _mm512_min_ps(a, b);
#endif
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_min_ps(a, b);
#endif
#if defined(__SSE2__)
  if constexpr (lanes_of<V> == 4) return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

template <class V>
inline V larger(V a, V b) {
  const V c = raw_max(a, b);
  return a == a ? c : a;
}

template <class V>
inline V smaller(V a, V b) {
  const V c = raw_min(a, b);
  return a == a ? c : a;
}

template <class V>
inline V square(V v) {
  return v * v;
}

template <class V, class Step>
inline V by_lane(V v, const Step& step) {
  for (int i = 0; i < lanes_of<V>; ++i) v[i] = step(v[i]);
  return v;
}

template <class V>
inline V square_root(V v) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) return _mm512_sqrt_ps(v);
#endif
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_sqrt_ps(v);
#endif
#if defined(__SSE2__)
  if constexpr (lanes_of<V> == 4) return _mm_sqrt_ps(v);
#else
  return by_lane(v, [](float f) { return __builtin_sqrtf(f); });
#endif
}

enum class To { kNearestEven = 0, kFloor = 1, kCeil = 2 };  // as the instruction numbers them

template <To kTo, class V>
inline V rounded(V v) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) return _mm512_roundscale_ps(v, static_cast<int>(kTo));
#endif
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_round_ps(v, static_cast<int>(kTo) | 8);
#endif
#if defined(__SSE4_1__)
  if constexpr (lanes_of<V> == 4) return _mm_round_ps(v, static_cast<int>(kTo) | 8);
#else
  return by_lane(v, [](float f) {
    return kTo == To::kFloor  ? __builtin_floorf(f)
           : kTo == To::kCeil ? __builtin_ceilf(f)
                              : __builtin_rintf(f);
  });
#endif
}

// Rounded towards zero; what 32 bits do not hold becomes the nearest that they do, NaN 0.
template <class V>
inline Mask<V> to_whole(V v) {
  const V in_range = raw_min(constant<V>(2147483520.0f), raw_max(constant<V>(-2147483648.0f), v));
  const Mask<V> converted = __builtin_convertvector(v == v ? in_range : V{}, Mask<V>);
  return v >= constant<V>(2147483648.0f) ? whole<V>(INT32_MAX) : converted;
}

template <class V>
inline V to_float(Mask<V> v) {
  return __builtin_convertvector(v, V);
}

// The nearest of 0 to size - 1.
template <class V>
inline Mask<V> in_range(Mask<V> i, int32_t size) {
  const Mask<V> first = whole<V>(0), last = whole<V>(size - 1);
  i = i < first ? first : i;
  return i > last ? last : i;
}

template <class V>
inline V look_up(const float* table, Mask<V> i) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) return _mm512_i32gather_ps((__m512i)i, table, 4);
#endif
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_i32gather_ps(table, (__m256i)i, 4);
  if constexpr (lanes_of<V> == 4) return _mm_i32gather_ps(table, (__m128i)i, 4);
#else
  V v{};
  for (int lane = 0; lane < lanes_of<V>; ++lane) v[lane] = table[i[lane]];
  return v;
#endif
}

}  // namespace
