// What products of prompts are divided into, on matrix units (prompt_amx.h) and on vectors (prompt_vectors.h).

#pragma once

#include <algorithm>
#include <cstddef>

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

}  // namespace
