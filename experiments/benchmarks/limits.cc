// How many terms a second one core can sum from registers: the ceilings of the kernels.
// Compiled by measure.py for the machine that it runs on.
#include <chrono>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
using V = float __attribute__((vector_size(64)));
#elif defined(__AVX__)
using V = float __attribute__((vector_size(32)));
#else
using V = float __attribute__((vector_size(16)));
#endif
using Mask = decltype(V{} < V{});
constexpr int kLanes = sizeof(V) / sizeof(float), kChains = 12, kRounds = 20000;

#if defined(__x86_64__)
#define FORGET(v) asm volatile("" : "+v"(v))
#else
#define FORGET(v) asm volatile("" : "+w"(v))
#endif

inline V hidden_one() {
  V one = V{} + 1.0f;
  FORGET(one);
  return one;
}

// `terms` of the sum are in a vector.
template <class V, class Term>
double best(double seconds, int terms, V x, V w, Term term) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  double fastest = 0;
  while (Clock::now() < end) {
    V sums[kChains] = {};
    FORGET(w);
    const auto start = Clock::now();
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
      for (int chain = 0; chain < kChains; ++chain) {
        FORGET(x);
        term(sums[chain], x, w);
      }
    }
    const std::chrono::duration<double> taken = Clock::now() - start;
    for (V& sum : sums) FORGET(sum);
    const double rate = double(kRounds) * kChains * terms / taken.count();
    if (rate > fastest) fastest = rate;
  }
  return fastest;
}

template <class Term>
double best(double seconds, Term term) {
  return best<V>(seconds, kLanes, V{} + 0.5f, V{} + 0.7f, term);
}

extern "C" double maximum_and_add(double seconds) {
  return best(seconds, [](V& sum, V x, V w) { sum += x > w ? x : w; });
}

extern "C" double subtract_absolute_add(double seconds) {
  return best(seconds, [](V& sum, V x, V w) { sum += (V)((Mask)(x - w) & 0x7fffffff); });
}

// 1 * x - w rounds as x - w does, and runs where multiplications do.
extern "C" double subtract_on_multiplier_absolute_add(double seconds) {
  return best(seconds, [one = hidden_one()](V& sum, V x, V w) {
    sum += (V)((Mask)(x * one - w) & 0x7fffffff);
  });
}

extern "C" double multiply_add(double seconds) {
  return best(seconds, [](V& sum, V x, V w) { sum += x * w; });
}

inline V clip(V d) {
#if defined(__AVX512DQ__)
  return _mm512_range_ps(d, V{} + 1.0f, 2);
#else
  d = d > 1.0f ? V{} + 1.0f : d;
  return d < -1.0f ? V{} - 1.0f : d;
#endif
}

extern "C" double subtract_clip_multiply_add(double seconds) {
  return best(seconds, [](V& sum, V x, V w) { sum += x * clip(w - x); });
}

extern "C" double subtract_on_multiplier_clip_multiply_add(double seconds) {
  return best(seconds, [one = hidden_one()](V& sum, V x, V w) { sum += x * clip(w * one - x); });
}

#if defined(__x86_64__)
// Of bytes and bits, in the widest registers that have the instruction.
#if defined(__AVX512BW__)
using Long = long long __attribute__((vector_size(64)));
#elif defined(__AVX2__)
using Long = long long __attribute__((vector_size(32)));
#else
using Long = long long __attribute__((vector_size(16)));
#endif

template <class Term>
double best_of_integers(double seconds, int terms, Term term) {
  return best<Long>(seconds, terms, Long{} + 0x0123456789abcdef, Long{} + 0x7766554433221100, term);
}

extern "C" double absolute_differences_of_bytes(double seconds) {
  return best_of_integers(seconds, sizeof(Long), [](Long& sum, Long x, Long w) {
#if defined(__AVX512BW__)
    sum += (Long)_mm512_sad_epu8((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
    sum += (Long)_mm256_sad_epu8((__m256i)x, (__m256i)w);
#else
    sum += (Long)_mm_sad_epu8((__m128i)x, (__m128i)w);
#endif
  });
}

extern "C" double xnor_popcount(double seconds) {
  return best_of_integers(seconds, 8 * sizeof(Long), [](Long& sum, Long x, Long w) {
#if defined(__AVX512VPOPCNTDQ__)
    sum += (Long)_mm512_popcnt_epi32((__m512i)(x ^ w));
#else
    for (unsigned i = 0; i < sizeof(Long) / 8; ++i) sum[i] += __builtin_popcountll(x[i] ^ w[i]);
#endif
  });
}

#if defined(__AVX512VNNI__)
extern "C" double products_of_bytes(double seconds) {
  return best_of_integers(seconds, sizeof(Long), [](Long& sum, Long x, Long w) {
    sum = (Long)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
  });
}
#endif
#endif

// Bytes a second from memory, of more than any cache holds: in order, or in eight pages at once,
// the more that are open the faster, each line fetched so many bytes before it is added.
template <int pages, int ahead>
double bytes_read(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kPage = 8192 / sizeof(V), kAtOnce = 64 / sizeof(V);
  const std::vector<V> memory((512 << 20) / sizeof(V), V{} + 1.0f);
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  double fastest = 0;
  do {
    V sums[8] = {};
    const auto start = Clock::now();
    for (std::size_t first = 0; first < memory.size(); first += pages * kPage)
      for (std::size_t at = first; at < first + kPage; at += kAtOnce)
#pragma GCC unroll 8
        for (int page = 0; page < pages; ++page) {
          const V* line = memory.data() + at + page * kPage;
#pragma GCC unroll 4
          for (std::size_t part = 0; part < kAtOnce; ++part)
            sums[(page + part) % 8] += line[part];
          if (ahead) __builtin_prefetch(reinterpret_cast<const char*>(line) + ahead, 0, 2);
        }
    const std::chrono::duration<double> taken = Clock::now() - start;
    for (V& sum : sums) FORGET(sum);
    const double rate = memory.size() * sizeof(V) / taken.count();
    if (rate > fastest) fastest = rate;
  } while (Clock::now() < end);
  return fastest;
}

extern "C" double bytes_read_in_order(double seconds) { return bytes_read<1, 0>(seconds); }
extern "C" double bytes_read_in_pages(double seconds) { return bytes_read<8, 0>(seconds); }
extern "C" double bytes_read_ahead(double seconds) { return bytes_read<8, 1 << 16>(seconds); }
extern "C" double bytes_read_far_ahead(double seconds) { return bytes_read<8, 1 << 17>(seconds); }
