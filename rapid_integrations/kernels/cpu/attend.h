// Attention of a few queries over a long cache, whatever its rows are stored as.

#pragma once

#include "attention.h"
#include "attention_amx.h"
#include "attention_levels.h"
#include "attention_words.h"
#include "scratch.h"

namespace {

constexpr int SHARING_FOR_WORDS = 5;  // with fewer, a single row takes longer in integers of sixteen bits

#if RAPID_WIDE

inline bool head_dim_served(int d) {
  return d == 32 || d == 64 || d == 96 || d == 128 || d == 160 || d == 192 || d == 224 || d == 256 || d == 512;
}

// Calls f with a head's width as a constant.
template <class F>
inline void with_head_dim(int D, const F& f) {
  switch (D) {
    case 32: return f(std::integral_constant<int, 32>());
    case 64: return f(std::integral_constant<int, 64>());
    case 96: return f(std::integral_constant<int, 96>());
    case 128: return f(std::integral_constant<int, 128>());
    case 160: return f(std::integral_constant<int, 160>());  // of Zamba2, as 224
    case 192: return f(std::integral_constant<int, 192>());  // of MiMo-V2
    case 224: return f(std::integral_constant<int, 224>());
    case 256: return f(std::integral_constant<int, 256>());
    default: return f(std::integral_constant<int, 512>());
  }
}

// Whether rows stored so are computed on matrix units, however many there are.
inline bool on_amx(int kv) {
#if RAPID_AMX
  return kv == KV_BF16 && amx_usable();
#else
  (void)kv;
  return false;
#endif
}

inline void attend(int kv, int D, const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin,
                   int64_t end, const Sight& sight, float* m, float* l, float* mixed, float* scratch) {
  with_head_dim(D, [&](auto width) {
    if (kv == KV_INT8) return attend_levels<width>(q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch);
#if RAPID_AMX
    if (on_amx(kv)) {
      const size_t all = whole_groups(size_t(rows)), count = size_t(rows) * D;
      float* const sums = scratch + whole_lines(all * D / 2);
      std::memcpy(scratch, q, count * sizeof(bf16));
      attend_on_amx<width, true>((bf16*)scratch, rows, position, tiles, begin, end, sight, m, l, sums, sums + all * D);
      std::memcpy(mixed, sums, count * sizeof(float));
      return;
    }
#endif
    attend_chunk<width>(q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch);
  });
}

// Floats of scratch space for one call of `attend`.
inline size_t attend_floats(int kv, int D, int rows) {
  const size_t floats = attention_floats(kv, D, rows);
#if RAPID_AMX
  const size_t all = whole_groups(size_t(rows));
  if (kv == KV_BF16) return std::max(floats, whole_lines(all * D / 2) + all * D + amx_floats(D, rows));
#endif
  return floats;
}

#else

inline bool head_dim_served(int d) { return d % 2 == 0 && d <= 512; }

struct Bf16Row {
  static float at(const uint8_t* row, int d) {
    bf16 x;
    std::memcpy(&x, row + 2 * d, sizeof x);
    return to_float(x);
  }
  static float scale(const uint8_t*, int) { return 1.0f; }
  static float weight(float e, const uint8_t*, int) { return to_float(to_bf16(e)); }
};

struct LevelRow {
  static float at(const uint8_t* row, int d) { return float(int8_t(row[d])); }
  static float scale(const uint8_t* row, int D) { return scale_of(row, D); }
  static float weight(float e, const uint8_t* row, int D) { return e * scale_of(row, D); }
};

template <class Row>
inline void attend_rows(size_t bytes, int D, const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin,
                        int64_t end, const Sight& sight, float* m, float* l, float* mixed, float* scratch) {
  float *weights = scratch, *query = weights + TILE;
  std::fill(m, m + rows, -std::numeric_limits<float>::infinity());
  std::fill(l, l + rows, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * D, 0.0f);
  for (int64_t j0 = begin; j0 < end; j0 = tiles.next(j0, end)) {
    const HeadSegment& here = tiles.with(j0);
    const size_t skipped = size_t(j0 - here.begin) * bytes;
    const uint8_t *keys = here.keys + skipped, *values = here.values + skipped;
    for (int r = 0; r < rows; r++) {
      const Span span = seen_from(position[r], sight);
      const int from = int(std::max<int64_t>(0, span.begin - j0)), to = int(std::min<int64_t>(TILE, span.end - j0));
      if (to <= from) continue;
      for (int d = 0; d < D; d++) query[d] = to_float(q[r * D + d]);
      float highest = m[r];
      for (int j = from; j < to; j++) {
        float lanes[16] = {};
        const uint8_t* key = keys + size_t(j) * bytes;
        for (int d = 0; d + 16 <= D; d += 16)
          for (int i = 0; i < 16; i++) lanes[i] += query[d + i] * Row::at(key, d + i);
        float dot = 0;
        for (int d = D / 16 * 16; d < D; d++) dot += query[d] * Row::at(key, d);
        for (int i = 0; i < 16; i++) dot += lanes[i];
        weights[j] = dot * Row::scale(key, D) * sight.scale;
        if (sight.softcap != 0) weights[j] = sight.softcap * std::tanh(weights[j] / sight.softcap);
        highest = std::max(highest, weights[j]);
      }
      float* mix = mixed + size_t(r) * D;
      const float shrink = std::exp(m[r] - highest);
      l[r] *= shrink;
      for (int d = 0; d < D; d++) mix[d] *= shrink;
      m[r] = highest;
      for (int j = from; j < to; j++) {
        const float e = std::exp(weights[j] - highest);
        l[r] += e;
        const uint8_t* value = values + size_t(j) * bytes;
        const float weight = Row::weight(e, value, D);
        for (int d = 0; d < D; d++) mix[d] += weight * Row::at(value, d);
      }
    }
  }
}

inline void attend(int kv, int D, const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin,
                   int64_t end, const Sight& sight, float* m, float* l, float* mixed, float* scratch) {
  const auto rows_of = kv == KV_INT8 ? attend_rows<LevelRow> : attend_rows<Bf16Row>;
  rows_of(row_bytes(kv, D), D, q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch);
}

inline bool on_amx(int) { return false; }

inline size_t attend_floats(int kv, int D, int rows) { return attention_floats(kv, D, rows); }

#endif

// Rows that `q` and `mixed` have room for in `attend_prompt`.
inline size_t prompt_rows(int kv, size_t rows) {
#if RAPID_AMX
  if (on_amx(kv)) return whole_groups(rows);
#endif
  (void)kv;
  return rows;
}

// Floats of scratch space for one call of `attend_prompt`.
inline size_t prompt_floats(int kv, int D, int rows) {
#if RAPID_AMX
  if (on_amx(kv)) return amx_floats(D, rows);
#endif
  return attend_floats(kv, D, rows);
}

// `attend` for queries of a prompt.
inline void attend_prompt(int kv, int D, bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                          const Sight& sight, float* m, float* l, float* mixed, float* scratch) {
#if RAPID_AMX
  if (on_amx(kv))
    return with_head_dim(
        D, [&](auto width) { attend_on_amx<width, false>(q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch); });
#endif
#if RAPID_WORD_DOTS
  if (kv == KV_BF16)
    return with_head_dim(
        D, [&](auto width) { attend_words<width>(q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch); });
#endif
  attend(kv, D, q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch);
}

// `attend` for rows of a step. `sharing` query heads meet the same keys: how it is computed depends on the model alone, so
// that a row has the same bits alone and in company.
inline void attend_step(int kv, int D, [[maybe_unused]] int sharing, const bf16* q, int rows, const int64_t* position,
                        Tiles tiles, int64_t begin, int64_t end, const Sight& sight, float* m, float* l, float* mixed,
                        float* scratch) {
#if RAPID_STEPS_IN_WORDS
  if (kv == KV_BF16 && sharing >= SHARING_FOR_WORDS)
    return with_head_dim(
        D, [&](auto width) { attend_words<width>(q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch); });
#endif
  attend(kv, D, q, rows, position, tiles, begin, end, sight, m, l, mixed, scratch);
}

}  // namespace
