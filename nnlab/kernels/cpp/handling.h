// What all handlers do: check sizes, and turn exceptions into errors of the call.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "geometry.h"
#include "xla/ffi/api/ffi.h"

namespace nnlab {

using Window = xla::ffi::Span<const int64_t>;  // strides, (top, left) padding, dilation

// The instruction set that NNLAB_KERNELS_ISA names, "" for the best that there is.
inline std::string_view wanted_instructions() {
  const char* variable = std::getenv("NNLAB_KERNELS_ISA");
  return variable ? variable : "";
}

// The same for kernels to which all kinds of AVX-512 are one; the ternary product tells them apart.
inline std::string_view wanted_set() {
  const std::string_view wanted = wanted_instructions();
  return wanted == "avx512vnni" || wanted == "avx512vbmi" ? "avx512" : wanted;
}

#if defined(__x86_64__)
// What all processors with AVX-512 but the first ones have.
inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// The first of these loops, the best of which come first, that this processor has; null if there are
// none. Those before the set that is wanted, if one is, do not count.
template <class Loops, size_t number>
const Loops* best(const Loops* const (&all)[number], std::string_view wanted,
                  bool (*has)(const Loops&)) {
  bool allowed = wanted.empty();
  for (const Loops* loops : all) {
    allowed |= wanted == loops->name;
    if (allowed && has(*loops)) return loops;
  }
  return nullptr;
}

// `ready` says whether there are loops for this processor.
template <class Operand, class Output>
xla::ffi::ErrorOr<Shape> shape_of(bool ready, Window window, const Operand& x,
                                  const Operand& kernel, const Output& y) {
  using xla::ffi::Error, xla::ffi::Unexpected;
  const auto a = x.dimensions(), k = kernel.dimensions(), b = y.dimensions();
  if (!ready) return Unexpected(Error::Internal("no loops for this processor"));
  if (window.size() != 6 || a.size() != 4 || k.size() != 4 || b.size() != 4 || a[0] != b[0] ||
      a[3] != k[2] || b[3] != k[3])
    return Unexpected(Error::InvalidArgument("sizes of images and kernel do not fit"));
  return Shape{a[0],      a[1],      a[2],      a[3],      k[0],      k[1],      k[3],     b[1],
               b[2],      window[0], window[1], window[2], window[3], window[4], window[5]};
}

// What a kernel throws, for want of memory, becomes an error of the call.
template <class Kernel>
xla::ffi::Error reporting(const Kernel& kernel) {
  try {
    kernel();
    return xla::ffi::Error::Success();
  } catch (const std::exception& problem) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, problem.what());
  }
}

}  // namespace nnlab
