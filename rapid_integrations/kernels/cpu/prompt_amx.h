// Products of a weight with many inputs, on the processor's matrix units: see prompt_product.cpp.
//
// A weight's rows are the rows of the units' products, and the inputs are the columns: rows are cheaper to make, and inputs
// are made once.

#pragma once

#include <algorithm>
#include <cstddef>

#include "amx.h"
#include "interface.h"
#include "prompt_parts.h"
#include "scratch.h"
#include "weight_pairs.h"
#include "weight_rows.h"

#if RAPID_AMX

namespace {

constexpr int TOGETHER = 2 * SIDE;  // inputs, and rows of the weight, whose sums the units hold at a time

// Columns [from, to) of 16 rows from `row` on, a tile for each 32 columns. Those of `next_row` from `next` on are asked for
// meanwhile: from panel to panel, the processor does not foresee where they lie.
void take_weights(const Matrix& m, int row, int from, int to, int next_row, int next, bf16* out) {
  constexpr size_t NUMBERS = TILE_BYTES / sizeof(bf16);
  if (m.kind == BF16) {
    const auto place = [&](int r, int c) { return (const bf16*)m.data + size_t(r) * m.columns + c; };
    for (int c = from; c < to; c += GROUP, out += NUMBERS)
      for (int i = 0; i < SIDE; i++) {
        _mm_prefetch((const char*)place(next_row + i, next + c - from), _MM_HINT_T0);
        const __m512i numbers = row + i < m.rows ? _mm512_loadu_si512(place(row + i, c)) : _mm512_setzero_si512();
        _mm512_store_si512(out + i * GROUP, numbers);
      }
    return;
  }
  const auto take = [&](auto format) {
    using B = decltype(format);
    const int columns = GROUP * B::GROUPS;
    const auto place = [&](int r, int c) {
      return (const uint8_t*)m.data + (size_t(r / PANEL) * (m.columns / columns) + c / columns) * B::BYTES;
    };
    const char* ahead = (const char*)place(next_row, next);
    const int lines = (B::BYTES / B::GROUPS + 63) / 64;
    for (int c = from; c < to; c += GROUP, out += NUMBERS) {
      for (int i = 0; i < lines; i++) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
      ahead += B::BYTES / B::GROUPS;
      rows_of_group<B>(place(row, c), c / GROUP % B::GROUPS, out);
    }
    return 0;
  };
  if (m.kind == INT8)
    take(Int8Panel{});
  else if (m.kind == INT4)
    take(Int4Panel{});
  else
    with_format(m.kind, take);
}

// sums, four tiles of (16 rows of the weight, 16 inputs), += 32 rows times 32 inputs over `steps` times 32 columns: those of
// the first 16 inputs, and then of the others. Tiles of 16 rows or inputs lie one behind the other, step by step. Lines from
// `ahead` on are asked for, four in a step.
template <bool MORE_INPUTS, bool MORE_ROWS>
WITH_AMX void add_products(const bf16* inputs, const bf16* weights, int steps, bool first, float* sums,
                           const uint8_t* ahead) {
  constexpr int FLOATS = SIDE * SIDE;
  const size_t next = size_t(steps) * TILE_BYTES;
  const uint8_t *x = (const uint8_t*)inputs, *w = (const uint8_t*)weights;
  if (first) {
    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
  } else {
    AMX_LOAD(0, sums, 64);
    if (MORE_ROWS) AMX_LOAD(1, sums + FLOATS, 64);
    if (MORE_INPUTS) AMX_LOAD(2, sums + 2 * FLOATS, 64);
    if (MORE_INPUTS && MORE_ROWS) AMX_LOAD(3, sums + 3 * FLOATS, 64);
  }
  for (int k = 0; k < steps; k++, x += TILE_BYTES, w += TILE_BYTES) {
    for (int i = 0; i < 4; i++, ahead += 64) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
    AMX_LOAD(6, w, 64);
    AMX_LOAD(4, x, 64);
    AMX_DOT(0, 6, 4);
    if (MORE_ROWS) {
      AMX_LOAD(7, w + next, 64);
      AMX_DOT(1, 7, 4);
    }
    if (MORE_INPUTS) {
      AMX_LOAD(5, x + next, 64);
      AMX_DOT(2, 6, 5);
      if (MORE_ROWS) AMX_DOT(3, 7, 5);
    }
  }
  AMX_STORE(0, sums, 64);
  if (MORE_ROWS) AMX_STORE(1, sums + FLOATS, 64);
  if (MORE_INPUTS) AMX_STORE(2, sums + 2 * FLOATS, 64);
  if (MORE_INPUTS && MORE_ROWS) AMX_STORE(3, sums + 3 * FLOATS, 64);
}

// out (inputs, rows), an input `stride` behind the other, = sums (16 rows of a weight, 16 inputs), scaled by each row's
// scale if there are any, with the biases added.
void rounded(const float* sums, const bf16* scales, const bf16* biases, int rows, int inputs, bf16* out, size_t stride) {
  const __mmask16 there = __mmask16((1u << rows) - 1);
  alignas(64) float scale[SIDE], bias[SIDE];
  const auto numbers = [&](const bf16* from) { return widen(_mm256_maskz_loadu_epi16(there, from)); };
  if (scales) _mm512_store_ps(scale, numbers(scales));
  if (biases) _mm512_store_ps(bias, numbers(biases));
  const auto row = [&](int i) {
    __m512 x = _mm512_load_ps(sums + i * SIDE);
    if (scales) x = _mm512_mul_ps(x, _mm512_set1_ps(scale[i]));
    if (biases) x = _mm512_add_ps(x, _mm512_set1_ps(bias[i]));
    return x;
  };
  __m512i two[SIDE / 2];  // pairs of rows, an input a lane
  for (int i = 0; i < SIDE / 2; i++) two[i] = rounded_pair(row(2 * i), row(2 * i + 1));
  alignas(64) uint8_t bytes[2][SIDE * 16];  // of the first eight rows and of the last
  for (int i = 0; i < 2; i++) bytes_by_row(two[4 * i], two[4 * i + 1], two[4 * i + 2], two[4 * i + 3], bytes[i]);
  for (int t = 0; t < inputs; t++) {
    const int place = 16 * (t % 4 * 4 + t / 4);
    const auto half = [&](int i) { return _mm_load_si128((const __m128i*)(bytes[i] + place)); };
    _mm256_mask_storeu_epi16(out + size_t(t) * stride, there, _mm256_set_m128i(half(1), half(0)));
  }
}

struct AmxCall : PromptCall {
  static constexpr int MOST_ROWS = 256;  // of a weight in one part: with 1,024 inputs its sums take 1 MB
  static constexpr int COLUMNS = 512;    // of a part, about: 32 inputs of them stay in the nearest cache
  static constexpr int BLOCK = TOGETHER;
  using InUse = AmxTiles;

  bf16* inputs;  // tiles of pairs of 32 columns, an input a lane: those of a part of the columns, of 16 inputs after 16

  static int tiles_of(int t) { return (t + SIDE - 1) / SIDE; }
  size_t input_floats() const { return size_t(tiles_of(rows)) * SIDE * m.columns / 2; }
  size_t floats() const {  // of one thread
    return size_t(at_once) * part / 2 + size_t(tiles_of(std::min(rows, MOST_INPUTS)) + 1) * SIDE * at_once;
  }

  // Inputs [16 tile, 16 tile + 16) as tiles, whose columns lie as those of the weights do.
  void take_inputs(int tile) const {
    const int K = m.columns;
    const bool apart = halves_apart(m.kind);
    for (int from = 0; from < K; from += part) {
      const int to = std::min(K, from + part);
      bf16* tiles = inputs + size_t(tiles_of(rows)) * SIDE * from + size_t(tile) * SIDE * (to - from);
      for (int c = from; c < to; c += GROUP, tiles += TILE_BYTES / sizeof(bf16)) {
        __m512i pair[SIDE];
        for (int i = 0; i < SIDE; i++) {
          const int t = tile * SIDE + i;
          pair[i] = t < rows ? _mm512_loadu_si512(x + size_t(t) * K + c) : _mm512_setzero_si512();
        }
        transpose16(pair);
        for (int i = 0; i < SIDE; i++) _mm512_store_si512(tiles + i * GROUP, pair[apart ? HALVES_APART[i] : i]);
      }
    }
  }

  // Rows [first, first + count) of the weight times inputs [start, end); start is a multiple of 16.
  WITH_AMX void multiply(int first, int count, int start, int end, float* space) const {
    bf16* const weights = (bf16*)space;
    float* const sums = space + size_t(at_once) * part / 2;  // of two tiles of inputs and two panels after the other
    const int panels = (count + PANEL - 1) / PANEL, tiles = tiles_of(end - start);
    const auto sums_of = [&](int t, int p) {
      return sums + (size_t(t / 2) * (at_once / TOGETHER) + p / 2) * TOGETHER * TOGETHER + (t % 2 * 2 + p % 2) * SIDE * SIDE;
    };
    for (int from = 0; from < m.columns; from += part) {
      const int to = std::min(m.columns, from + part), steps = (to - from) / GROUP;
      const size_t size = size_t(steps) * TILE_BYTES / sizeof(bf16);  // of a panel, or of 16 inputs
      for (int p = 0; p < panels; p++) {
        const bool last = p + 1 == panels;
        const int next_row = last ? first : first + (p + 1) * PANEL, next = last ? to : from;
        take_weights(m, first + p * PANEL, from, to, next_row, next, weights + p * size);
      }
      const bf16* in = inputs + size_t(tiles_of(rows)) * SIDE * from + size_t(start / SIDE) * size;
      for (int t = 0; t < tiles; t += 2)
        for (int p = 0; p < panels; p += 2) {
          const bf16 *x_tiles = in + t * size, *w_tiles = weights + p * size;
          const bool more_inputs = t + 1 < tiles, more_rows = p + 1 < panels;
          const auto add = more_inputs ? (more_rows ? add_products<true, true> : add_products<true, false>)
                                       : (more_rows ? add_products<false, true> : add_products<false, false>);
          add(x_tiles, w_tiles, steps, from == 0, sums_of(t, p), (const uint8_t*)(x_tiles + 2 * size) + p / 2 * 256 * steps);
        }
    }
    for (int t = 0; t < tiles; t++)
      for (int p = 0; p < panels; p++) {
        const int row = first + p * PANEL, input = start + t * SIDE;
        const bf16* scales = m.kind == INT8 ? (const bf16*)m.scale + row : nullptr;
        const bf16* biases = m.bias ? (const bf16*)m.bias + row : nullptr;
        rounded(sums_of(t, p), scales, biases, std::min(PANEL, count - p * PANEL), std::min(SIDE, end - input),
                out + size_t(input) * stride + row, stride);
      }
  }
};

}  // namespace

#endif
