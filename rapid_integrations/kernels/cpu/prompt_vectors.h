// Products of a weight with many inputs, on vectors: see prompt_product.cpp.
//
// They are formed in float32, which every processor multiplies at full speed. A row of the weight is a lane, as in its
// panels, so that its numbers come out of them in the order in which they are read; an input's number is broadcast.

#pragma once

#include <algorithm>
#include <cstddef>

#include "blocks.h"
#include "interface.h"
#include "prompt_parts.h"
#include "weight_pairs.h"

#if RAPID_WIDE

namespace {

// Columns [from, to) of 16 rows of the weight from `row` on: out (to - from, 16). Of INT8 these are the levels alone.
inline void take_columns(const Matrix& m, int row, int from, int to, float* out) {
  if (m.kind == BF16) {
    for (int c = from; c < to; c += GROUP, out += GROUP * PANEL) {
      __m512i pair[16];  // of columns, a row a lane
      for (int i = 0; i < PANEL; i++) {
        const bf16* place = (const bf16*)m.data + size_t(row + i) * m.columns + c;
        pair[i] = row + i < m.rows ? _mm512_loadu_si512(place) : _mm512_setzero_si512();
      }
      transpose16(pair);
      for (int i = 0; i < GROUP / 2; i++) {
        const __m512i odd = _mm512_and_si512(pair[i], _mm512_set1_epi32(int32_t(0xffff0000u)));
        _mm512_store_ps(out + 2 * i * PANEL, _mm512_castsi512_ps(_mm512_slli_epi32(pair[i], 16)));
        _mm512_store_ps(out + (2 * i + 1) * PANEL, _mm512_castsi512_ps(odd));
      }
    }
    return;
  }
  const auto take = [&](auto format) {
    using B = decltype(format);
    const int columns = GROUP * B::GROUPS;
    const uint8_t* const panel = (const uint8_t*)m.data + size_t(row / PANEL) * (m.columns / columns) * B::BYTES;
    for (int c = from; c < to; c += GROUP, out += GROUP * PANEL)
      columns_of<B>(panel + size_t(c / columns) * B::BYTES, c / GROUP % B::GROUPS, [&](int i, __m512 even, __m512 odd) {
        _mm512_store_ps(out + 2 * i * PANEL, even);
        _mm512_store_ps(out + (2 * i + 1) * PANEL, odd);
      });
    return 0;
  };
  if (m.kind == INT8)
    take(Int8Panel{});
  else if (m.kind == INT4)
    take(Int4Panel{});
  else
    with_format(m.kind, take);
}

// sums (N, 16), `apart` from each other, (+)= products of N inputs, `K` from each other, with 16 rows, of `columns` columns.
template <int N>
inline void add_products(const float* x, size_t K, const float* weights, int columns, bool first, float* sums, size_t apart) {
  __m512 acc[N];
  for (int n = 0; n < N; n++) acc[n] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + n * apart);
  for (int c = 0; c < columns; c++) {
    const __m512 w = _mm512_loadu_ps(weights + size_t(c) * PANEL);
    for (int n = 0; n < N; n++) acc[n] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[n * K + c]), acc[n]);
  }
  for (int n = 0; n < N; n++) _mm512_storeu_ps(sums + n * apart, acc[n]);
}

struct VectorCall : PromptCall {
  static constexpr int MOST_ROWS = 128;  // of a weight in one part: as numbers they take 256 KB
  static constexpr int COLUMNS = 384;    // of a part, about: as numbers a panel of them stays in the nearest cache
  static constexpr int BLOCK = PANEL;
#if RAPID_AVX512
  static constexpr int TOGETHER = 14;    // inputs whose sums stay in registers
#else
  static constexpr int TOGETHER = 6;
#endif
  struct InUse {};

  float* inputs;  // (rows, columns)

  size_t input_floats() const { return size_t(rows) * m.columns; }
  size_t floats() const { return size_t(at_once) * (part + std::min(rows, MOST_INPUTS)); }  // of one thread
  static int tiles_of(int t) { return t; }

  void take_inputs(int t) const {
    const size_t K = size_t(m.columns), row = size_t(t) * K;
    for (size_t c = 0; c < K; c += 16) _mm512_store_ps(inputs + row + c, widen(load_256(x + row + c)));
  }

  // Rows [first, first + count) of the weight times inputs [start, end).
  void multiply(int first, int count, int start, int end, float* space) const {
    float* const sums = space + size_t(at_once) * part;  // (inputs, at_once)
    const size_t K = size_t(m.columns);
    const int panels = (count + PANEL - 1) / PANEL;
    for (int from = 0; from < m.columns; from += part) {
      const int columns = std::min(part, m.columns - from);
      const size_t size = size_t(columns) * PANEL;
      for (int p = 0; p < panels; p++) take_columns(m, first + p * PANEL, from, from + columns, space + p * size);
      in_groups<TOGETHER>(end - start, [&](auto n, int t) {
        const float* in = inputs + size_t(start + t) * K + from;
        for (int p = 0; p < panels; p++)
          add_products<n>(in, K, space + p * size, columns, from == 0, sums + size_t(t) * at_once + p * PANEL, at_once);
      });
    }
    for (int p = 0; p < panels; p++) {
      const int row = first + p * PANEL, there = std::min(PANEL, count - p * PANEL);  // the last panel may have fewer rows
      const PanelEnd end_of(m, row, there);
      for (int t = 0; t < end - start; t++)
        end_of.store(_mm512_loadu_ps(sums + size_t(t) * at_once + p * PANEL), out + size_t(start + t) * stride + row);
    }
  }
};

}  // namespace

#endif
