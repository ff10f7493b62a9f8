// Checks the loops of one instruction set against sums of 64 bits, without XLA around them.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ternary_loops.h"

using namespace nnlab::ternary;

int main() {
  int64_t sums = 0, wrong = 0;
  const int64_t sizes[] = {1, 77, 4096}, blocks = 3;
  for (int64_t digits = 4; digits <= 5; ++digits)
    for (const int64_t inputs : sizes)
      for (int kind = 0; kind < 3; ++kind)  // random, and all 1 by all 127 or -128
        for (int64_t tokens = 1; tokens <= kBaselineLoops.tokens; ++tokens) {
          const int64_t lines = (inputs + digits * kStep - 1) / (digits * kStep);
          std::vector<int> w(blocks * kOutputs * inputs);
          std::vector<int8_t> x(tokens * inputs);
          for (int& value : w) value = kind ? 1 : std::rand() % 3 - 1;
          for (int8_t& value : x) value = kind == 1 ? 127 : kind == 2 ? -128 : std::rand() % 256;
          std::vector<uint8_t> packed(blocks * lines * kLine);
          for (int64_t at = 0; at < static_cast<int64_t>(packed.size()); ++at) {
            const int64_t output = at / (lines * kLine) * kOutputs + at % kLine / kStep;
            int c[5];
            for (int64_t n = 0; n < digits; ++n) {
              const int64_t k = kStep * (at / kLine % lines * digits + n) + at % kStep;
              c[n] = k < inputs ? w[output * inputs + k] + 1 : 1;
            }
            packed[at] = digits == 4 ? c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6
                                     : 28 * (3 * c[0] + c[4]) + ((9 * c[1] + 3 * c[2] + c[3]) ^ c[0]);
          }
          std::vector<int8_t> arranged(tokens * lines * digits * kStep);
          std::vector<int32_t> of_x(tokens);
          kBaselineLoops.arrange(x.data(), tokens, inputs, lines * digits, arranged.data(),
                                 of_x.data());
          std::vector<uint32_t> y(blocks * tokens * kOutputs);
          kBaselineLoops.run(
              {digits, lines, blocks, packed.data(), tokens, arranged.data(), y.data()});
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t o = 0; o < blocks * kOutputs; ++o, ++sums) {
              int64_t sum = 0;
              for (int64_t k = 0; k < inputs; ++k) sum += w[o * inputs + k] * x[t * inputs + k];
              const uint32_t found = y[(o / kOutputs * tokens + t) * kOutputs + o % kOutputs];
              wrong += sum != static_cast<int32_t>(found - static_cast<uint32_t>(of_x[t]));
            }
        }
  std::printf("%s: %lld of %lld sums are wrong\n", kBaselineLoops.name,
              static_cast<long long>(wrong), static_cast<long long>(sums));
  return wrong != 0;
}
