// The inner loops of the convolutions, compiled once per instruction set.
//
// NNLAB_LOOPS names the `Loops` that this compilation defines. A block of up to two vectors of
// channels and a few positions are accumulated in registers; the weights of a block of terms stay
// in the first-level cache while all positions of the task pass by. Sums are taken over at most
// `kTermsAtOnce` terms and then added to memory, which keeps the rounding error small as well.
#include "column_loops.h"
#include "filter_loops.h"
#include "image_loops.h"
#include "loops.h"
#include "tiles.h"
#include "vectors.h"

namespace nnlab {
namespace {

template <class V, int kVectors>
struct Images {
  static void run(const Positions& all, const float* packed, int64_t channel, Rule rule) {
    switch (rule) {
      case Rule::kDistance: return plain_block<V, kVectors, Rule::kDistance>(all, packed, channel);
      case Rule::kProduct: return plain_block<V, kVectors, Rule::kProduct>(all, packed, channel);
      case Rule::kClip: return gradient_block<V, kVectors, Rule::kClip>(all, packed, channel);
      case Rule::kSign: return gradient_block<V, kVectors, Rule::kSign>(all, packed, channel);
      case Rule::kValue:
      case Rule::kSlope: return;  // own terms have loops of their own
    }
  }
};

void images(const Positions& all, Rule rule) {
  over_blocks<Images>(all, all.packed, all.terms, all.channels, rule);
}

void columns(const Columns& all, Rule rule) {
  switch (rule) {
    case Rule::kDistance: return columns_of<Widest, kAlone, Rule::kDistance>(all);
    case Rule::kProduct: return columns_of<Widest, kAlone, Rule::kProduct>(all);
    case Rule::kClip: return columns_of<Widest, kAlone, Rule::kClip>(all);
    case Rule::kSign: return columns_of<Widest, kAlone, Rule::kSign>(all);
    case Rule::kValue:
    case Rule::kSlope: return;
  }
}

void filter_gradient(const Rows& all, Rule rule) {
  over_blocks<FilterGradient>(all, all.packed, all.count, all.out, rule);
}

}  // namespace

extern const Loops NNLAB_LOOPS = {kName, 2 * lanes_of<Widest>, images, columns, filter_gradient};

}  // namespace nnlab
