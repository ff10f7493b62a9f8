// What XLA calls, and the choice of an instruction set.
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "handling.h"
#include "kernels.h"

namespace nnlab {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;

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

ffi::ErrorOr<Rule> rule_of(std::string_view name) {
  if (name == "distance") return Rule::kDistance;
  if (name == "product") return Rule::kProduct;
  if (name == "clip") return Rule::kClip;
  if (name == "sign") return Rule::kSign;
  return ffi::Unexpected(ffi::Error::InvalidArgument("unknown rule"));
}

ffi::Error run_forward(ffi::ThreadPool pool, Window window, std::string_view name, Array x,
                       Array kernel, Result y) {
  const auto shape = shape_of(chosen(), window, x, kernel, *y);
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
  const auto shape = shape_of(chosen(), window, x, kernel, g);
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
