// What XLA calls for integers, and the choice of an instruction set among their loops.
#include "handling.h"
#include "integer.h"
#include "parallel.h"

namespace nnlab::integer {
namespace {

namespace ffi = xla::ffi;
template <ffi::DataType type>
using Array = ffi::Buffer<type>;
using Bytes = Array<ffi::U8>;
using Words = Array<ffi::U32>;
using Sums = ffi::Result<Array<ffi::S32>>;

constexpr int64_t kFloatsOfTask = 1 << 15;  // whose signs one task packs

bool has(const Loops& loops) {
#if defined(__x86_64__)
  if (&loops == &kAvx512CountingLoops)
    return has(kAvx512Loops) && __builtin_cpu_supports("avx512vpopcntdq");
  if (&loops == &kAvx512Loops) return has_avx512();
  if (&loops == &kAvx2Loops) return __builtin_cpu_supports("avx2");
#endif
  return &loops == &kBaselineLoops;
}

// The best loops for this processor; with NNLAB_KERNELS_ISA the best among those that it names and
// lesser ones, where avx512 means what all processors with AVX-512 have: no VPOPCNTDQ.
const Loops* choose() {
  const std::string_view wanted = wanted_set();
#if defined(__x86_64__)
  if (wanted.empty() && has(kAvx512CountingLoops)) return &kAvx512CountingLoops;
  const Loops* all[] = {&kAvx512Loops, &kAvx2Loops, &kBaselineLoops};
#else
  const Loops* all[] = {&kBaselineLoops};
#endif
  return best(all, wanted, has);
}

const Loops* chosen() {
  static const Loops* loops = choose();
  return loops;
}

ffi::Error run_distances(ffi::ThreadPool pool, Window window, Bytes x, Bytes padding, Bytes kernel,
                         Sums y) {
  const auto shape = shape_of(chosen(), window, x, kernel, *y);
  if (shape.has_error()) return shape.error();
  if (padding.element_count() != static_cast<size_t>(shape->n))
    return ffi::Error::InvalidArgument("expected a value of padding for every image");
  return reporting([&] {
    distances(pool, *chosen(), *shape, x.typed_data(), padding.typed_data(), kernel.typed_data(),
              y->typed_data());
  });
}

ffi::Error run_agreements(ffi::ThreadPool pool, Window window, int64_t channels, Words x,
                          Words kernel, Sums y) {
  const auto shape = shape_of(chosen(), window, x, kernel, *y);
  if (shape.has_error()) return shape.error();
  return reporting([&] {
    agreements(pool, *chosen(), *shape, channels, x.typed_data(), kernel.typed_data(),
               y->typed_data());
  });
}

ffi::Error run_pack_signs(ffi::ThreadPool pool, Array<ffi::F32> x, ffi::Result<Words> words) {
  if (!chosen()) return ffi::Error::Internal("no loops for this processor");
  const int64_t channels = x.dimensions().back(), per_row = (channels + 31) / 32;
  const int64_t rows = x.element_count() / channels;
  if (static_cast<int64_t>(words->element_count()) != rows * per_row)
    return ffi::Error::InvalidArgument("expected a word for every 32 channels");
  const int64_t at_once = std::max<int64_t>(kFloatsOfTask / channels, 1);
  return reporting([&] {
    share(pool, (rows + at_once - 1) / at_once, [&](int64_t task) {
      const int64_t first = task * at_once;
      chosen()->pack_signs(x.typed_data() + first * channels, std::min(at_once, rows - first),
                           channels, words->typed_data() + first * per_row);
    });
  });
}

}  // namespace

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(nnlab_adder_conv_uint8, run_distances,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Window>("window")
                                  .Arg<Bytes>()
                                  .Arg<Bytes>()
                                  .Arg<Bytes>()
                                  .Ret<Array<ffi::S32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nnlab_binary_conv_packed, run_agreements,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Window>("window")
                                  .Attr<int64_t>("channels")
                                  .Arg<Words>()
                                  .Arg<Words>()
                                  .Ret<Array<ffi::S32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(nnlab_pack_signs, run_pack_signs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array<ffi::F32>>()
                                  .Ret<Words>());

#pragma GCC visibility pop

}  // namespace nnlab::integer
