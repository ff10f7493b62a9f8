// Products of int8 inputs and packed ternary weights: what XLA calls, and the choice of loops.
#include <algorithm>
#include <cstring>

#include "geometry.h"
#include "handling.h"
#include "parallel.h"
#include "ternary_loops.h"

namespace nnlab::ternary {
namespace {

namespace ffi = xla::ffi;
using Bytes = ffi::Buffer<ffi::U8>;
using Sums = ffi::Result<ffi::Buffer<ffi::S32>>;

// At least: what takes longer than to wake a thread, which are some 20 microseconds.
constexpr int64_t kTermsOfTask = 1 << 23;

bool has(const Loops& loops) {
#if defined(__x86_64__)
  if (&loops == &kAvx512VbmiLoops)
    return has(kAvx512VnniLoops) && __builtin_cpu_supports("avx512vbmi");
  if (&loops == &kAvx512VnniLoops)
    return has(kAvx512Loops) && __builtin_cpu_supports("avx512vnni");
  if (&loops == &kAvx512Loops) return has_avx512();
  if (&loops == &kAvx2Loops) return __builtin_cpu_supports("avx2");
#endif
  return &loops == &kBaselineLoops;
}

// As for the integer kernels: the best loops, or the best of those that NNLAB_KERNELS_ISA names and
// lesser ones.
const Loops* choose() {
#if defined(__x86_64__)
  const Loops* all[] = {&kAvx512VbmiLoops, &kAvx512VnniLoops, &kAvx512Loops, &kAvx2Loops,
                        &kBaselineLoops};
#else
  const Loops* all[] = {&kBaselineLoops};
#endif
  return best(all, wanted_instructions(), has);
}

const Loops* chosen() {
  static const Loops* loops = choose();
  return loops;
}

// y [tokens, outputs] = x [tokens, inputs] by the weights of `blocks` of 16 outputs.
void product(ffi::ThreadPool& pool, const Loops& loops, int64_t digits, int64_t tokens,
             int64_t inputs, int64_t outputs, int64_t blocks, int64_t lines, const int8_t* x,
             const uint8_t* packed, int32_t* y) {
  const int64_t steps = digits * lines, tiles = (tokens + loops.tokens - 1) / loops.tokens;
  const auto first_of = [&](int64_t tile) { return tokens * tile / tiles; };
  const int64_t bytes = tokens * (steps * kStep + int64_t{sizeof(int32_t)});
  int32_t* sums = reinterpret_cast<int32_t*>(Scratch::mine().planes(bytes / sizeof(float)));
  int8_t* arranged = reinterpret_cast<int8_t*>(sums + tokens);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = first_of(tile);
    loops.arrange(x + first * inputs, first_of(tile + 1) - first, inputs, steps,
                  arranged + first * steps * kStep, sums + first);
  }
  const int64_t pairs = (blocks + 1) / 2, most = 8 * std::max<int64_t>(pool.num_threads(), 1);
  const int64_t wanted =
      std::clamp<int64_t>(tokens * inputs * outputs / kTermsOfTask, 1, std::min(most, pairs));
  const int64_t at_once = (pairs + wanted - 1) / wanted;
  share(pool, (pairs + at_once - 1) / at_once, [&](int64_t task) {
    alignas(64) uint32_t results[kMostBlocks * kMostTokens * kOutputs];
    const int64_t last = std::min(blocks, 2 * (task + 1) * at_once);
    for (int64_t block = 2 * task * at_once; block < last; block += kMostBlocks)
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t first = first_of(tile), count = first_of(tile + 1) - first;
        const int64_t group = std::min(kMostBlocks, last - block);
        loops.run({digits, lines, group, packed + block * lines * kLine, count,
                   arranged + first * steps * kStep, results});
        const uint32_t* result = results;
        for (int64_t output = block * kOutputs; output < (block + group) * kOutputs;
             output += kOutputs)
          for (int64_t t = first; t < first + count; ++t, result += kOutputs)
            for (int64_t o = 0; o < std::min(kOutputs, outputs - output); ++o)
              y[t * outputs + output + o] =  // sum of (w + 1) x less that of x
                  static_cast<int32_t>(result[o] - static_cast<uint32_t>(sums[t]));
      }
  });
}

ffi::Error run(ffi::ThreadPool pool, int64_t digits, Bytes x, Bytes packed, Sums y) {
  if (!chosen()) return ffi::Error::Internal("no loops for this processor");
  const auto a = x.dimensions(), w = packed.dimensions(), b = y->dimensions();
  if ((digits != 4 && digits != 5) || a.size() != 2 || w.size() != 3 || b.size() != 2 ||
      a[0] != b[0] || w[2] != kLine || w[0] != (b[1] + kOutputs - 1) / kOutputs ||
      w[1] != (a[1] + digits * kStep - 1) / (digits * kStep))
    return ffi::Error::InvalidArgument("sizes of inputs and packed weights do not fit");
  return reporting([&] {
    product(pool, *chosen(), digits, a[0], a[1], b[1], w[0], w[1],
            reinterpret_cast<const int8_t*>(x.typed_data()), packed.typed_data(), y->typed_data());
  });
}

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(nnlab_ternary_dense_packed, run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("digits")
                                  .Arg<Bytes>()
                                  .Arg<Bytes>()
                                  .Ret<ffi::Buffer<ffi::S32>>());

#pragma GCC visibility pop

}  // namespace nnlab::ternary
