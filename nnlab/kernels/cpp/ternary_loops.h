// What the instruction-set-independent half of the ternary product and its loops share.
#pragma once

#include <stdint.h>

namespace nnlab::ternary {

constexpr int64_t kStep = 4;      // inputs that the bytes of a line meet at once
constexpr int64_t kOutputs = 16;  // of a line, and of a block of lines
constexpr int64_t kLine = kStep * kOutputs;  // bytes

constexpr int64_t kMostBlocks = 8;   // of a group
constexpr int64_t kMostTokens = 12;  // of a tile, in any loops

// A group of blocks of outputs by a tile of tokens. Digit n of byte 4 o + j of line i of a block is
// w + 1, for output o of the block and input 4 (digits i + n) + j.
struct Tile {
  int64_t digits;         // of a byte: 4 of two bits, or 5 as `FiveInByte` has them
  int64_t lines;          // of a block
  int64_t blocks;         // 1 to kMostBlocks
  const uint8_t* packed;  // [blocks][lines][kLine]
  int64_t tokens;         // at most that of the loops
  const int8_t* x;        // as `arrange` leaves it
  uint32_t* y;            // [blocks][tokens][16], written: sums of (w + 1) x modulo 2^32
};

// The loops for one instruction set.
struct Loops {
  const char* name;
  int64_t tokens;  // of a tile, at most
  // Copies tokens [tokens][inputs] to [steps][tokens][4], zeros after the last input, and adds up
  // each one's inputs.
  void (*arrange)(const int8_t* x, int64_t tokens, int64_t inputs, int64_t steps, int8_t* to,
                  int32_t* sums);
  void (*run)(const Tile&);
};

extern const Loops kBaselineLoops;  // SSE2 on x86-64, NEON on aarch64
extern const Loops kAvx2Loops, kAvx512Loops, kAvx512VnniLoops, kAvx512VbmiLoops;

}  // namespace nnlab::ternary
