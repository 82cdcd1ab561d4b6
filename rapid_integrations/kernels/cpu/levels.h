// Rows of a cache: as bfloat16, or in eight bits.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "interface.h"
#include "numbers.h"

namespace {

// KV_INT8: a row has D levels from -127 to 127 and behind them its scale (float): number = level * scale. Each row has a
// scale of its own, so that it never depends on the rows around it, and the scale lies where the row is read anyway.
constexpr int SCALE_BYTES = 4;
constexpr float LEAST_SCALED = 1e-30f;  // rows of smaller numbers are zeros

inline size_t row_bytes(int kv, int D) { return kv == KV_INT8 ? size_t(D) + SCALE_BYTES : size_t(D) * sizeof(bf16); }

inline float scale_of(const uint8_t* row, int D) {
  float scale;
  std::memcpy(&scale, row + D, sizeof scale);
  return scale;
}

// Stores a row; `quantised_rows` of Python gives the same bits. A row with a NaN has the scale NaN.
inline void store_row(int kv, const bf16* from, int D, uint8_t* row) {
  if (kv != KV_INT8) {
    std::memcpy(row, from, size_t(D) * sizeof(bf16));
    return;
  }
  float most = 0;
  bool no_number = false;
  for (int d = 0; d < D; d++) {
    const float x = std::fabs(to_float(from[d]));
    no_number |= !(x <= std::numeric_limits<float>::max());
    most = std::max(most, x);
  }
  const float factor = most > LEAST_SCALED && !no_number ? 127.0f / most : 0.0f;
  for (int d = 0; d < D; d++) row[d] = uint8_t(int8_t(no_number ? 0 : std::nearbyint(to_float(from[d]) * factor)));
  const float scale = no_number ? std::numeric_limits<float>::quiet_NaN() : factor > 0 ? most / 127.0f : 0.0f;
  std::memcpy(row + D, &scale, sizeof scale);
}

}  // namespace
