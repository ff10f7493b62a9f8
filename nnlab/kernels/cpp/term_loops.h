// Everything that a library of one own term is made of, apart from the term: it is compiled for one
// instruction set, with the system's compiler, when the term is first used.
#pragma once

#include "column_loops.h"
#include "filter_loops.h"
#include "image_loops.h"
#include "loops.h"
#include "term_vectors.h"
#include "tiles.h"

namespace nnlab {
namespace {

template <class V, int kVectors>
struct Values {
  static void run(const Positions& all, const float* packed, int64_t channel, Rule) {
    plain_block<V, kVectors, Rule::kValue>(all, packed, channel);
  }
};

template <class V, int kVectors>
struct Slopes {
  static void run(const Positions& all, const float* packed, int64_t channel, Rule) {
    gradient_block<V, kVectors, Rule::kSlope>(all, packed, channel);
  }
};

template <class V, int kVectors>
struct FilterSlopes {
  static void run(const Rows& all, const float* packed, int64_t channel, Rule) {
    FilterGradient<V, kVectors>::template differences<Rule::kSlope>(all, packed, channel);
  }
};

template <template <class, int> class Body>
void images(const Positions& all, Rule rule) {
  over_blocks<Body>(all, all.packed, all.terms, all.channels, rule);
}

template <Rule kRule>
void columns(const Columns& all, Rule) {
  columns_of<Widest, kAlone, kRule>(all);
}

void filter_gradient(const Rows& all, Rule rule) {
  over_blocks<FilterSlopes>(all, all.packed, all.count, all.out, rule);
}

constexpr int64_t kWidestBlock = 2 * lanes_of<Widest>;

// What a library exports, by what its term is; a library has one kind of loops.
#define NNLAB_VALUE {kName, kWidestBlock, images<Values>, columns<Rule::kValue>, nullptr}
#define NNLAB_INPUT_RULE {kName, kWidestBlock, images<Slopes>, columns<Rule::kSlope>, nullptr}
#define NNLAB_FILTER_RULE {kName, kWidestBlock, nullptr, nullptr, filter_gradient}

}  // namespace
}  // namespace nnlab
