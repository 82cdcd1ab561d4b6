// Products of a weight in panels with many inputs, as products of its levels: see prompt_product.cpp.
//
// Inputs are rounded to eight bits in groups of 32 columns, as in a step. AVX2 multiplies these at twice the rate of
// float32. What groups that stand out have left is multiplied, too: see panels.h.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "blocks.h"
#include "interface.h"
#include "panels.h"
#include "prompt_parts.h"

#if RAPID_PROMPTS_IN_LEVELS

namespace {

struct LevelCall : PromptCall {
  static constexpr int MOST_ROWS = 128;       // of a weight in one part
  static constexpr int COLUMNS = 1 << 24;     // of a part, which has all of them
  static constexpr int BLOCK = PANEL;
  static constexpr int TOGETHER = INPUTS_TOGETHER;
  static constexpr size_t NEAR = 192 * 1024;  // bytes of rounded inputs that stay in a core's cache, about
  struct InUse {};

  float* inputs;  // tiles of TOGETHER inputs, of which the last is filled up with zeros

  struct Tile {
    RoundedGroup *group, *rest;  // those of a group lie together; `rest` has only groups that stand out in one of them
    uint8_t* stands_out;         // for each group
  };

  int groups() const { return m.columns / GROUP; }
  size_t tile_floats() const {
    return size_t(groups()) * TOGETHER * 2 * (sizeof(RoundedGroup) / sizeof(float)) + whole_lines(size_t(groups()) / 4 + 1);
  }
  static int tiles_of(int t) { return (t + TOGETHER - 1) / TOGETHER; }
  size_t input_floats() const { return tiles_of(rows) * tile_floats(); }
  size_t floats() const { return TOGETHER * PANEL; }  // of one thread
  Tile tile_at(int i) const {
    RoundedGroup* const first = (RoundedGroup*)(inputs + size_t(i) * tile_floats());
    const size_t count = size_t(groups()) * TOGETHER;
    return {first, first + count, (uint8_t*)(first + 2 * count)};
  }

  void take_inputs(int i) const {
    const Tile tile = tile_at(i);
    const int first = i * TOGETHER, there = std::min(TOGETHER, rows - first);
    float most[TOGETHER];  // that the scale of a group may be
    for (int t = 0; t < TOGETHER; t++) {
      double scales = 0;
      for (int g = 0; g < groups(); g++) {
        RoundedGroup& own = tile.group[g * TOGETHER + t];
        if (t < there)
          round_group(x + size_t(first + t) * m.columns + g * GROUP, own);
        else
          own = RoundedGroup{};
        scales += own.scale;
      }
      most[t] = most_of(scales, groups());
    }
    RoundedGroup* rest = tile.rest;
    for (int g = 0; g < groups(); g++) {
      const RoundedGroup* const own = tile.group + g * TOGETHER;
      tile.stands_out[g] = 0;
      for (int t = 0; t < TOGETHER; t++) tile.stands_out[g] |= own[t].scale > most[t];
      if (!tile.stands_out[g]) continue;
      for (int t = 0; t < TOGETHER; t++, rest++)
        if (own[t].scale > most[t])
          round_rest(x + size_t(first + t) * m.columns + g * GROUP, own[t], *rest);
        else
          *rest = RoundedGroup{};
    }
  }

  // sums (TOGETHER, 16) of a panel of the weight with the inputs of a tile.
  template <class Panel>
  void panel_sums(const uint8_t* p, const Tile& tile, float* sums) const {
    __m512 total[TOGETHER];
    for (__m512& each : total) each = _mm512_setzero_ps();
    const RoundedGroup *x = tile.group, *rest = tile.rest;
    const uint8_t* stands_out = tile.stands_out;
    for (int block = 0; block < groups() / Panel::GROUPS; block++, p += Panel::BYTES)
      for (int g = 0; g < Panel::GROUPS; g++, x += TOGETHER) {
        any_group_added<Panel, TOGETHER>(p, g, x, total);
        if (*stands_out++) any_group_added<Panel, TOGETHER>(p, g, rest, total), rest += TOGETHER;
      }
    for (int t = 0; t < TOGETHER; t++) _mm512_storeu_ps(sums + t * PANEL, total[t]);
  }

  // Rows [first, last) of the weight times inputs [start, end), to columns from `to` on.
  template <class Panel>
  void multiply_form(const Matrix& w, int first, int last, int start, int end, float* sums, bf16* to) const {
    const int near = std::max(1, int(NEAR / (tile_floats() * sizeof(float)))), tiles = tiles_of(end);
    for (int begin = start / TOGETHER; begin < tiles; begin += near)
      for (int row = first; row < last; row += PANEL) {
        const PanelEnd end_of(w, row, std::min(PANEL, last - row));  // the last panel may have fewer rows
        const uint8_t* const p = (const uint8_t*)w.data + size_t(row / PANEL) * (groups() / Panel::GROUPS) * Panel::BYTES;
        for (int i = begin; i < std::min(begin + near, tiles); i++) {
          panel_sums<Panel>(p, tile_at(i), sums);
          for (int t = i * TOGETHER, n = 0; t < std::min(rows, (i + 1) * TOGETHER); t++, n++)
            end_of.store(_mm512_loadu_ps(sums + n * PANEL), to + size_t(t) * stride + row);
        }
      }
  }

  void multiply_part(const Matrix& w, int first, int last, int start, int end, float* sums, bf16* to) const {
    if (w.kind == INT8) return multiply_form<Int8Panel>(w, first, last, start, end, sums, to);
    if (w.kind == INT4) return multiply_form<Int4Panel>(w, first, last, start, end, sums, to);
    with_format(w.kind, [&](auto format) {
      multiply_form<decltype(format)>(w, first, last, start, end, sums, to);
      return 0;
    });
  }

  // Rows [first, first + count) of the weight times inputs [start, end).
  void multiply(int first, int count, int start, int end, float* sums) const {
    if (m.kind != PARTS) return multiply_part(m, first, first + count, start, end, sums, out);
    const Matrix* part = (const Matrix*)m.data;
    for (int row = 0, i = 0; i < m.parts; row += part[i++].rows) {
      const int from = std::max(first, row), to = std::min(first + count, row + part[i].rows);
      if (from < to) multiply_part(part[i], from - row, to - row, start, end, sums, out + row);
    }
  }

  static bool serves(const Matrix& m) {
    const Matrix* part = (const Matrix*)m.data;
    if (m.kind == PARTS) return std::all_of(part, part + m.parts, serves);
    return m.kind != BF16;
  }
};

}  // namespace

#endif
