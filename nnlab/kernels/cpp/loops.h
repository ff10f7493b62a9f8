// What the instruction-set-independent half (handlers.cc) and the loops (loops.cc) share.
#pragma once

#include <stdint.h>

namespace nnlab {

// What one term is, of an input or a cotangent a and a weight w; the gradients of distances also
// take the value x (of the input) that a weight was compared with.
enum class Rule {
  kDistance,  // -|a - w|
  kProduct,   // a w
  kClip,      // a clip(w - x, -1, 1), gradient of the input
  kSign,      // a sign(w - x), gradient of the input; a sign(x - w), gradient of the kernel
  kValue,     // term(a, w), of an own term
  kSlope,     // a term(x, w), gradient of the input or of the kernel
};

// Positions that one task works on, and the terms of the sum at each of them.
//
// Term k of position p reads `in[p][offsets[k]]` and the row `packed[k][...]` of weights. `packed`
// is [blocks][terms][width], the channels of a block in a row and zeros after the last channel;
// `next_width` says how wide a block is. Only terms `first` to `last - 1` are summed.
struct Positions {
  int64_t count;             // of positions
  const float* const* in;    // [count]
  float* const* out;         // [count], `channels` floats each, written
  const float* const* self;  // [count], `channels` floats each: x, where the rule takes it
  int64_t channels;
  int64_t first, last, terms;
  const int64_t* offsets;  // [terms]
  const float* packed;
};

// Runs of columns that one task works on, each as many as a vector holds, as `Positions` otherwise:
// the values of a term are neighbours, and its weight is one number for all of them.
struct Columns {
  int64_t count;           // of runs
  const float* const* in;  // [count]: term k of a run reads `in[run][offsets[k]]` and on
  const int64_t* ranges;   // [count][2]: all other terms of a run read zeros and may be left out
  float* out;              // [count][channels][lanes]
  const float* self;       // as `out`, where the rule takes it
  int64_t channels;
  const int64_t* offsets;  // [terms]
  const float* weights;    // [terms][channels]
};

// Some rows of the filter gradient, whose terms are neighbours:
// `gradient[c][o] += sum_p g[p][o] rule(in[p][offset + c], kernel[c][o])`.
struct Rows {
  int64_t count;           // of positions
  const float* const* in;  // [count]
  int64_t offset;
  const float* packed;  // cotangents [blocks][count][width], as in `Positions`
  const float* kernel;  // [rows, out]
  float* gradient;      // [rows, out]
  int64_t rows, out;
};

// The loops for one instruction set.
struct Loops {
  const char* name;
  int64_t widest;  // channels in the widest block: two vectors
  void (*images)(const Positions&, Rule);
  void (*columns)(const Columns&, Rule);
  void (*filter_gradient)(const Rows&, Rule);
};

extern const Loops kBaselineLoops;  // SSE2 on x86-64, NEON on aarch64
extern const Loops kAvx2Loops, kAvx512Loops;

// Width of the next block when `channels` are left: the widest as long as it fills, then the
// smallest power of two that holds the rest, or its half first where the rest fills little more.
static constexpr int64_t next_width(int64_t channels, int64_t widest) {
  if (channels >= widest) return widest;
  int64_t width = 4;
  while (width < channels) width *= 2;
  return width > 8 && 4 * channels <= 3 * width ? width / 2 : width;
}

}  // namespace nnlab
