// What products of prompts are divided into, on matrix units (prompt_amx.h) and on vectors (prompt_vectors.h,
// prompt_levels.h).

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "interface.h"
#include "numbers.h"
#include "panels.h"

namespace {

constexpr int MOST_INPUTS = 1024;  // that pass by a part of a weight

// The number of columns of a part, `about` or up to a quarter more: all have as many whole groups, or one less.
inline int columns_of_part(int columns, int about) {
  const int groups = columns / GROUP, parts = (columns + about * 5 / 4 - 1) / (about * 5 / 4);
  return (groups + parts - 1) / parts * GROUP;
}

// Rows of a weight that are taken at once, at most `most` and whole blocks, so that all threads have as many parts.
inline int rows_at_once(int rows, int threads, int most, int block) {
  const int blocks = (rows + block - 1) / block, rounds = (rows + most * threads - 1) / (most * threads);
  return (blocks + rounds * threads - 1) / (rounds * threads) * block;
}

// What a call of `prompt_product` has to compute, in all threads.
struct PromptCall {
  const Matrix& m;
  const bf16* x;  // (rows, columns)
  int rows;
  bf16* out;      // (rows, m.rows), rows `stride` apart
  size_t stride;
  int part;       // columns of a part
  int at_once;    // rows of the weight in a part
};

#if RAPID_WIDE

// What is done to sums of a panel's rows, of which `there` are rows of the weight: scales of INT8, biases, one rounding.
struct PanelEnd {
  __m512 scale, bias;
  int there;

  PanelEnd(const Matrix& m, int row, int there) : there(there) {
    float scales[PANEL], biases[PANEL];
    for (int i = 0; i < PANEL; i++) {
      scales[i] = m.kind == INT8 && i < there ? to_float(((const bf16*)m.scale)[row + i]) : 1.0f;
      biases[i] = m.bias && i < there ? to_float(((const bf16*)m.bias)[row + i]) : 0.0f;
    }
    scale = _mm512_loadu_ps(scales), bias = _mm512_loadu_ps(biases);
  }
  void store(__m512 sums, bf16* out) const {
    const __m256i numbers = (__m256i)_mm512_cvtneps_pbh(_mm512_add_ps(_mm512_mul_ps(sums, scale), bias));
    std::memcpy(out, &numbers, size_t(there) * sizeof(bf16));
  }
};

#endif

}  // namespace
