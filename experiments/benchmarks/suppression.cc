// Non-maximum suppression one box at a time, the loop that detectors' libraries compile for CPUs:
// the best box that is left is kept, and every later one that overlaps it too much is struck out.
#include <algorithm>
#include <cstdint>
#include <vector>

extern "C" int64_t suppress(const float* boxes, const int64_t* order, int64_t n, float threshold,
                            int64_t* kept) {
  std::vector<uint8_t> struck(n, 0);
  int64_t count = 0;
  for (int64_t a = 0; a < n; ++a) {
    if (struck[a]) continue;
    const float* one = boxes + 4 * order[a];
    const float area = (one[2] - one[0]) * (one[3] - one[1]);
    kept[count++] = order[a];
    for (int64_t b = a + 1; b < n; ++b) {
      if (struck[b]) continue;
      const float* two = boxes + 4 * order[b];
      const float wide = std::max(0.0f, std::min(one[2], two[2]) - std::max(one[0], two[0]));
      const float high = std::max(0.0f, std::min(one[3], two[3]) - std::max(one[1], two[1]));
      const float shared = wide * high;
      const float whole = area + (two[2] - two[0]) * (two[3] - two[1]) - shared;
      if (shared / whole > threshold) struck[b] = 1;
    }
  }
  return count;
}
