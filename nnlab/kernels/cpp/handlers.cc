// What XLA calls: handlers that check sizes, and the choice of an instruction set.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string_view>

#include "kernels.h"

namespace nnlab {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;
using Window = ffi::Span<const int64_t>;  // strides, (top, left) padding, dilation

bool has(const Loops& loops) {
#if defined(__x86_64__)
  if (&loops == &kAvx512Loops)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (&loops == &kAvx2Loops)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return &loops == &kBaselineLoops;
}

// The best loops for this processor, or those that NNLAB_KERNELS_ISA names; null if it has none
// such. Read once.
const Loops* choose() {
  const char* wanted = std::getenv("NNLAB_KERNELS_ISA");
#if defined(__x86_64__)
  const Loops* all[] = {&kAvx512Loops, &kAvx2Loops, &kBaselineLoops};
#else
  const Loops* all[] = {&kBaselineLoops};
#endif
  for (const Loops* loops : all)
    if (has(*loops) && (!wanted || !*wanted || !std::strcmp(wanted, loops->name))) return loops;
  return nullptr;
}

const Loops* chosen() {
  static const Loops* loops = choose();
  return loops;
}

ffi::ErrorOr<Shape> shape_of(Window window, const Array& x, const Array& kernel, const Array& y) {
  const auto a = x.dimensions(), k = kernel.dimensions(), b = y.dimensions();
  if (!chosen()) return ffi::Unexpected(ffi::Error::Internal("no loops for this processor"));
  if (window.size() != 6 || a.size() != 4 || k.size() != 4 || b.size() != 4 || a[0] != b[0] ||
      a[3] != k[2] || b[3] != k[3])
    return ffi::Unexpected(ffi::Error::InvalidArgument("sizes of images and kernel do not fit"));
  return Shape{a[0],      a[1],      a[2],      a[3],      k[0],      k[1],      k[3],     b[1],
               b[2],      window[0], window[1], window[2], window[3], window[4], window[5]};
}

ffi::ErrorOr<Rule> rule_of(std::string_view name) {
  if (name == "distance") return Rule::kDistance;
  if (name == "product") return Rule::kProduct;
  if (name == "clip") return Rule::kClip;
  if (name == "sign") return Rule::kSign;
  return ffi::Unexpected(ffi::Error::InvalidArgument("unknown rule"));
}

// What a kernel throws, for want of memory, becomes an error of the call.
template <class Kernel>
ffi::Error reporting(const Kernel& kernel) {
  try {
    kernel();
    return ffi::Error::Success();
  } catch (const std::exception& problem) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, problem.what());
  }
}

ffi::Error run_forward(ffi::ThreadPool pool, Window window, std::string_view name, Array x,
                       Array kernel, Result y) {
  const auto shape = shape_of(window, x, kernel, *y);
  if (shape.has_error()) return shape.error();
  const auto rule = rule_of(name);
  if (rule.has_error()) return rule.error();
  return reporting([&] {
    forward(pool, *chosen(), *shape, *rule, x.typed_data(), kernel.typed_data(), y->typed_data());
  });
}

using Gradient = decltype(input_gradient);

template <Gradient* kGradient>
ffi::Error run_gradient(ffi::ThreadPool pool, Window window, std::string_view name, Array g,
                        Array x, Array kernel, Result result) {
  const auto shape = shape_of(window, x, kernel, g);
  if (shape.has_error()) return shape.error();
  const auto rule = rule_of(name);
  if (rule.has_error()) return rule.error();
  return reporting([&] {
    kGradient(pool, *chosen(), *shape, *rule, g.typed_data(), x.typed_data(), kernel.typed_data(),
              result->typed_data());
  });
}

}  // namespace

#pragma GCC visibility push(default)

// The instruction set in use, or null if the one that is asked for is not there.
extern "C" const char* nnlab_instruction_set() { return chosen() ? chosen()->name : nullptr; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(nnlab_conv, run_forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<Window>("window")
                                  .Attr<std::string_view>("rule")
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>());

#define NNLAB_GRADIENT(symbol, function)                        \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(symbol, run_gradient<function>, \
                                ffi::Ffi::Bind()                \
                                    .Ctx<ffi::ThreadPool>()     \
                                    .Attr<Window>("window")     \
                                    .Attr<std::string_view>("rule") \
                                    .Arg<Array>()               \
                                    .Arg<Array>()               \
                                    .Arg<Array>()               \
                                    .Ret<Array>())

NNLAB_GRADIENT(nnlab_conv_input_gradient, input_gradient);
NNLAB_GRADIENT(nnlab_conv_filter_gradient, filter_gradient);

#pragma GCC visibility pop

}  // namespace nnlab
