// An own term: what the loops sum in place of a distance or a product.
#pragma once

#include "loops.h"

namespace nnlab {
namespace {

// The value of a term of an input x and a weight w, or its slope. It is defined where a library for
// it is compiled (`nnlab.kernels.term_source` writes that file) and nowhere else.
template <class V>
V term(V x, V w, V one);

// Whether a rule takes the value that a weight was compared with besides a cotangent.
constexpr bool takes_self(Rule rule) {
  return rule == Rule::kClip || rule == Rule::kSign || rule == Rule::kSlope;
}

}  // namespace
}  // namespace nnlab
