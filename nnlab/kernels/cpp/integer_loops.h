// What the instruction-set-independent half of the integer kernels and their loops share.
#pragma once

#include <stdint.h>

namespace nnlab::integer {

// Positions that one task works on. A sum is taken over items, several terms in an integer each:
// 8 bytes whose distances are added, or 32 signs whose disagreements are counted.
//
// Item k of position p is read at `in + corners[p] + offsets[k]`, and meets `packed[k][...]`, which
// is [blocks][items][width]: the channels of a block in a row, zeros after the last channel.
struct Positions {
  int64_t count;
  const char* in;
  const int64_t* corners;  // [count], in bytes
  int32_t* out;            // [count, channels], written
  int64_t channels;
  int64_t items;
  const int64_t* offsets;  // [items], in bytes
  const void* packed;
};

// A sum over windows: y = -sum |x - w|, or y = `terms` - 2 sum popcount(x ^ w).
struct Sum {
  int64_t item;  // bytes of an item
  // Bytes that `pack` writes for a kernel of so many items.
  int64_t (*packed_bytes)(int64_t items, int64_t channels);
  // Packs a kernel [rows, channels]: of `rows` bytes, or of `rows` words.
  void (*pack)(const void* kernel, int64_t rows, int64_t channels, void* packed);
  void (*run)(const Positions&, int32_t terms);
};

// The loops for one instruction set.
struct Loops {
  const char* name;
  Sum distances, disagreements;
  // Bit c % 32 of word c / 32 of a row tells whether x[c] >= 0; bits past the last are zeros.
  void (*pack_signs)(const float* x, int64_t rows, int64_t channels, uint32_t* words);
};

extern const Loops kBaselineLoops;  // SSE2 on x86-64, NEON on aarch64
extern const Loops kAvx2Loops, kAvx512Loops, kAvx512CountingLoops;  // the last with VPOPCNTDQ

}  // namespace nnlab::integer
