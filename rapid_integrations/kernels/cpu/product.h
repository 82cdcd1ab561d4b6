// Products of a weight's rows with a few inputs.

#pragma once

#include <cstddef>

#include "interface.h"
#include "numbers.h"
#include "panels.h"

struct Input {  // rows of bfloat16, `stride` apart; for a weight in panels the same rows, rounded: see round_groups
  const uint16_t* x;
  RoundedRows rounded;
  int columns;
  size_t stride;
};

struct Output {  // element (t, row) of a product goes to data[t * stride + row - first]
  float* data;
  size_t stride;
  int first;
};

// Rows whose distance is a power of two would fall on the same lines of a cache.
inline size_t padded(int columns) { return size_t(columns) + 32; }

// Products of weight rows [first, last) with `rows` inputs. In panels `first` is a multiple of PANEL, and `last` is one or
// the end of the weight.
void product(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to);
