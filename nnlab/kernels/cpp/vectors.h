// Vectors of 4, 8 and 16 floats, and the few operations on them that decide the speed.
//
// Everything has internal linkage: the file is compiled once per instruction set, and the linker
// must never take the copy of one set for the code of another. No standard header with inline
// functions is included for the same reason.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

using F4 = float __attribute__((vector_size(16)));
#if defined(__AVX2__)
using F8 = float __attribute__((vector_size(32)));
#endif
#if defined(__AVX512F__)
using F16 = float __attribute__((vector_size(64)));
#endif

template <class V>
constexpr int lanes_of = sizeof(V) / sizeof(float);

template <class V>
inline V load(const float* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}

// The first `count` floats (none if negative, all if more than a vector), then zeros. Memory past
// them is not touched.
template <class V>
inline V load_first(const float* from, int64_t count) {
  if (count >= lanes_of<V>) return load<V>(from);
#if defined(__AVX512F__) && defined(__AVX512VL__)
  const unsigned mask = count > 0 ? (1u << count) - 1 : 0;
  if constexpr (lanes_of<V> == 16) return _mm512_maskz_loadu_ps(mask, from);
  if constexpr (lanes_of<V> == 8) return _mm256_maskz_loadu_ps(mask, from);
  if constexpr (lanes_of<V> == 4) return _mm_maskz_loadu_ps(mask, from);
#else
  V v{};
  for (int64_t i = 0; i < count; ++i) v[i] = from[i];
  return v;
#endif
}

template <class V>
inline void store_first(float* to, V v, int64_t count) {
  if (count >= lanes_of<V>) {
    memcpy(to, &v, sizeof v);
    return;
  }
#if defined(__AVX512F__) && defined(__AVX512VL__)
  const unsigned mask = count > 0 ? (1u << count) - 1 : 0;
  if constexpr (lanes_of<V> == 16) _mm512_mask_storeu_ps(to, mask, v);
  if constexpr (lanes_of<V> == 8) _mm256_mask_storeu_ps(to, mask, v);
  if constexpr (lanes_of<V> == 4) _mm_mask_storeu_ps(to, mask, v);
#else
  for (int64_t i = 0; i < count; ++i) to[i] = v[i];
#endif
}

template <class V>
inline V broadcast(float value) {
  return value - V{};  // unlike value + 0, which turns -0 into 0, this needs no instruction
}

// The integer vector that a comparison of two vectors gives.
template <class V>
using Mask = decltype(V{} < V{});

template <class V>
inline V absolute(V v) {
  return (V)((Mask<V>)v & 0x7fffffff);
}

// x - y. Cores with multipliers and adders on separate ports (AMD's) take it on either: as
// 1 * x - y, which rounds the same, or as written. `on_multiplier` says where, so that both kinds
// of port are kept busy; elsewhere the two cost the same.
template <class V>
inline V subtract(V x, V y, [[maybe_unused]] V one, [[maybe_unused]] bool on_multiplier) {
#if defined(__AVX512F__)
  if constexpr (lanes_of<V> == 16) {
    if (on_multiplier) return _mm512_fmsub_ps(x, one, y);
  }
#endif
#if defined(__FMA__)
  if constexpr (lanes_of<V> == 8) {
    if (on_multiplier) return _mm256_fmsub_ps(x, one, y);
  }
#endif
  return x - y;
}

// A vector of ones that the compiler cannot tell from any other, lest it undo `subtract`.
template <class V>
inline V hidden_one() {
  V one = broadcast<V>(1.0f);
#if defined(__FMA__)
  asm("" : "+x"(one));
#endif
  return one;
}

// HardTanh for numbers; a NaN may come out as NaN or as 1.
template <class V>
inline V clip(V d, V one) {
#if defined(__AVX512DQ__) && defined(__AVX512VL__)
  // "The smaller in magnitude, with the sign of the first": one instruction.
  if constexpr (lanes_of<V> == 16) return _mm512_range_ps(d, one, 2);
  if constexpr (lanes_of<V> == 8) return _mm256_range_ps(d, one, 2);
  if constexpr (lanes_of<V> == 4) return _mm_range_ps(d, one, 2);
#else
#if defined(__AVX2__)
  if constexpr (lanes_of<V> == 8) return _mm256_max_ps(-one, _mm256_min_ps(one, d));
#endif
#if defined(__SSE2__)
  if constexpr (lanes_of<V> == 4) return _mm_max_ps(-one, _mm_min_ps(one, d));
#else
  d = d > one ? one : d;
  return d < -one ? -one : d;
#endif
#endif
}

// -1, 0 or 1; NaN stays NaN.
template <class V>
inline V sign(V d, V one) {
#if defined(__AVX512F__)
  // One instruction, with a reply for each kind of number: from the lowest digit on quiet and
  // signalling NaN (2: itself), zero (8: 0), one, -inf, inf, negative, positive (9: -1, a: 1).
  // On half a vector it is no faster, and the two choices below are.
  const __m512i replies = _mm512_set1_epi32(static_cast<int>(0xa9a9a822));
  if constexpr (lanes_of<V> == 16) return _mm512_fixupimm_ps(d, d, replies, 0);
#endif
  d = d > V{} ? one : d;
  return d < V{} ? -one : d;
}

}  // namespace
