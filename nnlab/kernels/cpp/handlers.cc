// What XLA calls, and the choice of an instruction set.
#include <cstring>
#include <map>
#include <mutex>
#include <string>
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
  const std::string_view wanted = wanted_set();
#if defined(__x86_64__)
  const Loops* all[] = {&kAvx512Loops, &kAvx2Loops, &kBaselineLoops};
#else
  const Loops* all[] = {&kBaselineLoops};
#endif
  for (const Loops* loops : all)
    if (has(*loops) && (wanted.empty() || wanted == loops->name)) return loops;
  return nullptr;
}

const Loops* chosen() {
  static const Loops* loops = choose();
  return loops;
}

// Loops of own terms, from libraries that are compiled for them.
struct Terms {
  std::mutex mutex;
  std::map<std::string, const Loops*, std::less<>> loops;

  static Terms& all() {
    static Terms& terms = *new Terms;  // outlives whatever still runs at the end of the process
    return terms;
  }
};

struct Sum {
  const Loops* loops;
  Rule rule;
};

// What a name means; that of an own term, `of_term`.
ffi::ErrorOr<Sum> sum_of(std::string_view name, Rule of_term) {
  if (name == "distance") return Sum{chosen(), Rule::kDistance};
  if (name == "product") return Sum{chosen(), Rule::kProduct};
  if (name == "clip") return Sum{chosen(), Rule::kClip};
  if (name == "sign") return Sum{chosen(), Rule::kSign};
  Terms& terms = Terms::all();
  const std::lock_guard<std::mutex> lock(terms.mutex);
  const auto found = terms.loops.find(name);
  if (found != terms.loops.end()) return Sum{found->second, of_term};
  return ffi::Unexpected(ffi::Error::InvalidArgument("a rule that this process does not know"));
}

ffi::Error run_forward(ffi::ThreadPool pool, Window window, std::string_view name, Array x,
                       Array kernel, Result y) {
  const auto shape = shape_of(chosen(), window, x, kernel, *y);
  if (shape.has_error()) return shape.error();
  const auto sum = sum_of(name, Rule::kValue);
  if (sum.has_error()) return sum.error();
  return reporting([&] {
    forward(pool, *sum->loops, *shape, sum->rule, x.typed_data(), kernel.typed_data(), y->typed_data());
  });
}

using Gradient = decltype(input_gradient);

template <Gradient* kGradient>
ffi::Error run_gradient(ffi::ThreadPool pool, Window window, std::string_view name, Array g,
                        Array x, Array kernel, Result result) {
  const auto shape = shape_of(chosen(), window, x, kernel, g);
  if (shape.has_error()) return shape.error();
  const auto sum = sum_of(name, Rule::kSlope);
  if (sum.has_error()) return sum.error();
  return reporting([&] {
    kGradient(pool, *sum->loops, *shape, sum->rule, g.typed_data(), x.typed_data(),
              kernel.typed_data(), result->typed_data());
  });
}

}  // namespace

#pragma GCC visibility push(default)

// The instruction set in use, or null if the one that is asked for is not there.
extern "C" const char* nnlab_instruction_set() { return chosen() ? chosen()->name : nullptr; }

// Makes the loops of an own term known, for good, by a name for `rule` in the calls below.
extern "C" void nnlab_add_term(const char* name, const Loops* loops) {
  Terms& terms = Terms::all();
  const std::lock_guard<std::mutex> lock(terms.mutex);
  terms.loops.emplace(name, loops);
}

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
