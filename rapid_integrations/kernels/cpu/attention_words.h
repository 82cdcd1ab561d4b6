// Attention in integers of sixteen bits.
//
// Processors with VNNI but without products of bfloat16 multiply and add pairs of these at twice the rate of float32. Each
// query and each key becomes whole numbers of its length divided by RANGE, each value of its largest number, and the
// weights of a query in a tile of their sum. So every sum of products fits into 32 bits, is exact, and depends on nothing
// but the query and the keys that it sees. What is rounded off is about a tenth of what bfloat16 has rounded off before.
// A tile's keys and values are converted once for all queries. For three of them this costs more than it gains, with seven it
// is even, and from a dozen on it gains.

#pragma once

#include <cmath>

#include "attention.h"
#include "attention_levels.h"

#if RAPID_WORD_DOTS

namespace {

constexpr float RANGE = 32766;        // of 32767: a number that is rounded up still fits
constexpr float LEAST_LENGTH = 1e-30f;  // anything shorter is zero

inline Sums words_added(Sums sums, __m512i a, __m512i b) { return (Sums)_mm512_dpwssd_epi32((__m512i)sums, a, b); }

// Two numbers a lane, the first one below.
inline __m512i paired_words(__m512 first, __m512 second) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_cvtps_epi32(first), _mm512_slli_epi32(_mm512_cvtps_epi32(second), 16));
}

// The even and the odd ones of 32 numbers, each in sixteen lanes.
inline __m512 evens(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 odds(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int32_t(0xffff0000u))));
}

// What numbers of which the largest, or the length, is `most` are multiplied with to become whole ones, and what makes
// numbers of these again: NaN if `most` is infinite or no number.
struct Words {
  explicit Words(float most) {
    if (!(most <= std::numeric_limits<float>::max()))
      step = std::numeric_limits<float>::quiet_NaN();
    else if (most > LEAST_LENGTH)
      factor = RANGE / most, step = most / RANGE;
  }
  float factor = 0, step = 0;
};

// The same of sixteen.
struct Words16 {
  explicit Words16(__m512 most) {
    const __m512 range = _mm512_set1_ps(RANGE), zero = _mm512_setzero_ps();
    const __mmask16 number = _mm512_cmp_ps_mask(_mm512_set1_ps(std::numeric_limits<float>::max()), most, _CMP_GE_OQ);
    const __mmask16 some = _mm512_cmp_ps_mask(most, _mm512_set1_ps(LEAST_LENGTH), _CMP_GT_OQ);
    const auto of = [&](__m512 a, __m512 b, __m512 otherwise) {
      return _mm512_mask_mov_ps(otherwise, number, _mm512_mask_mov_ps(zero, some, _mm512_div_ps(a, b)));
    };
    factor = of(range, most, zero), step = of(most, range, _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()));
  }
  __m512 factor, step;
};

// A query's whole numbers; returns their step.
template <int D>
inline float query_words(const bf16* q, int16_t* words) {
  __m512 squares = _mm512_setzero_ps();
  for (int d = 0; d < D; d += 16) {
    const __m512 x = widen(load_256(q + d));
    squares = _mm512_fmadd_ps(x, x, squares);
  }
  const Words of(std::sqrt(sum16(squares)));
  const __m512 factor = _mm512_set1_ps(of.factor);
  for (int d = 0; d < D; d += 16)
    _mm256_storeu_si256((__m256i*)(words + d),
                        _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(widen(load_256(q + d)), factor))));
  return of.step;
}

// Calls f with a function that loads 32 numbers of a row of a tile from a dimension on: zeros if it is not `present`.
template <int D, class F>
inline void with_rows(const bf16* rows, int present, const F& f) {
  if (present >= TILE)
    f([=](int row, int d) { return _mm512_loadu_si512(rows + row * D + d); });
  else
    f([=](int row, int d) { return row < present ? _mm512_loadu_si512(rows + row * D + d) : _mm512_setzero_si512(); });
}

// Asks for `lines` of what is read next, from `ahead` on, unless that is null.
template <int lines>
inline void ask_ahead(const bf16*& ahead) {
  if (ahead)
    for (int i = 0; i < lines; i++, ahead += 32) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
}

// Keys of a tile: `packed` (D / 2, 64) has pairs of dimensions, a key a lane. Those that are not `present` are zeros.
// Meanwhile the keys of the tile that is read next, at `ahead`, are asked for.
template <int D>
inline void key_words(const bf16* keys, int present, uint32_t* packed, float* step, const bf16* ahead) {
  with_rows<D>(keys, present, [&](const auto& row) {
    for (int i = 0; i < TILE; i += 16) {
      __m512 squares[4];  // a single one would wait for itself
      for (__m512& each : squares) each = _mm512_setzero_ps();
      for (int d = 0; d < D; d += 32) {
        __m512i r[16];
        for (int j = 0; j < 16; j++) r[j] = row(i + j, d);
        transpose16(r);
        for (int j = 0; j < 16; j++) {
          const __m512 even = evens(r[j]), odd = odds(r[j]);
          squares[j % 4] = _mm512_fmadd_ps(odd, odd, _mm512_fmadd_ps(even, even, squares[j % 4]));
          _mm512_storeu_si512(packed + (d / 2 + j) * TILE + i, r[j]);
        }
      }
      const __m512 square = _mm512_add_ps(_mm512_add_ps(squares[0], squares[1]), _mm512_add_ps(squares[2], squares[3]));
      const Words16 of(_mm512_sqrt_ps(square));
      _mm512_storeu_ps(step + i, of.step);
      for (int d = 0; d < D / 2; d++) {
        ask_ahead<1>(ahead);
        uint32_t* const at = packed + d * TILE + i;
        const __m512i pair = _mm512_loadu_si512(at);
        _mm512_storeu_si512(at, paired_words(_mm512_mul_ps(evens(pair), of.factor), _mm512_mul_ps(odds(pair), of.factor)));
      }
    }
  });
}

// Values of a tile, the same: `packed` (32, D) has pairs of keys, a dimension a lane, of each 32 dimensions first the even
// ones.
template <int D>
inline void value_words(const bf16* values, int present, uint32_t* packed, float* step, const bf16* ahead) {
  const __m512i unsigned_bits = _mm512_set1_epi32(0x7fff7fff);  // these are ordered as the numbers are
  with_rows<D>(values, present, [&](const auto& row) {
    for (int i = 0; i < TILE; i += 16) {
      __m512 most[16];
      for (int j = 0; j < 16; j++) {
        __m512i top = _mm512_and_si512(row(i + j, 0), unsigned_bits);
        for (int d = 32; d < D; d += 32) top = _mm512_max_epu16(top, _mm512_and_si512(row(i + j, d), unsigned_bits));
        most[j] = odds(_mm512_max_epu16(top, _mm512_slli_epi32(top, 16)));
      }
      alignas(64) float largest[16], factor[16];
      folded<16>(most, largest, [](__m512 a, __m512 b) {
        return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
      });
      const Words16 of(_mm512_loadu_ps(largest));
      _mm512_storeu_ps(step + i, of.step);
      _mm512_storeu_ps(factor, of.factor);
      for (int j = 0; j < 16; j += 2) {
        const __m512 first = _mm512_set1_ps(factor[j]), second = _mm512_set1_ps(factor[j + 1]);
        for (int d = 0; d < D; d += 32) {
          ask_ahead<2>(ahead);
          const __m512i a = row(i + j, d), b = row(i + j + 1, d);
          uint32_t* const to = packed + (i + j) / 2 * D + d;
          _mm512_storeu_si512(to, paired_words(_mm512_mul_ps(evens(a), first), _mm512_mul_ps(evens(b), second)));
          _mm512_storeu_si512(to + 16, paired_words(_mm512_mul_ps(odds(a), first), _mm512_mul_ps(odds(b), second)));
        }
      }
    }
  });
}

// Puts dimensions back in their order: see `value_words`.
template <int D>
inline void in_order(float* mixed) {
  for (int d = 0; d < D; d += 32) {
    float row[32];
    for (int i = 0; i < 16; i++) row[2 * i] = mixed[d + i], row[2 * i + 1] = mixed[d + 16 + i];
    std::memcpy(mixed + d, row, sizeof row);
  }
}

inline __m512i pair_at(const int16_t* words) {
  int32_t pair;
  std::memcpy(&pair, words, sizeof pair);
  return _mm512_set1_epi32(pair);
}

// Scores of N rows with a tile of 64 keys.
template <int D, int N>
inline void word_scores(const int16_t* q, const float* step, const uint32_t* packed, const float* key_step, float* scores) {
  constexpr int V = vectors_of(N);
  for (int first = 0; first < 4; first += V) {
    Sums acc[N][V];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < V; i++) acc[n][i] = (Sums)_mm512_setzero_si512();
    for (int d = 0; d < D / 2; d++) {
      __m512i k[V];
      for (int i = 0; i < V; i++) k[i] = _mm512_loadu_si512(packed + d * TILE + 16 * (first + i));
      for (int n = 0; n < N; n++) {
        const __m512i both = pair_at(q + n * D + 2 * d);
        for (int i = 0; i < V; i++) acc[n][i] = words_added(acc[n][i], k[i], both);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < V; i++) {
        const __m512 of_both = _mm512_mul_ps(_mm512_loadu_ps(key_step + 16 * (first + i)), _mm512_set1_ps(step[n]));
        _mm512_storeu_ps(scores + n * TILE + 16 * (first + i), _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)acc[n][i]), of_both));
      }
  }
}

// mixed (N, D) += step * weights (N, 64) x values.
template <int D, int N>
inline void word_mix(const int16_t* weights, const float* step, const uint32_t* packed, float* mixed) {
  constexpr int W = D % (16 * vectors_of(N)) == 0 ? vectors_of(N) : 2;
  for (int d = 0; d < D; d += 16 * W) {
    Sums acc[N][W];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) acc[n][i] = (Sums)_mm512_setzero_si512();
    for (int j = 0; j < TILE / 2; j++) {
      __m512i v[W];
      for (int i = 0; i < W; i++) v[i] = _mm512_loadu_si512(packed + j * D + d + 16 * i);
      for (int n = 0; n < N; n++) {
        const __m512i both = pair_at(weights + n * TILE + 2 * j);
        for (int i = 0; i < W; i++) acc[n][i] = words_added(acc[n][i], v[i], both);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) {
        float* const to = mixed + n * D + d + 16 * i;
        const __m512 sums = _mm512_cvtepi32_ps((__m512i)acc[n][i]);
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sums, _mm512_set1_ps(step[n]), _mm512_loadu_ps(to)));
      }
  }
}

// A tile's weights times the steps of its values, as whole numbers; returns their step.
inline float weight_words(const __m512 weights[4], uint64_t visible, const float* value_step, int16_t* words) {
  __m512 x[4], sum = _mm512_setzero_ps();
  for (int i = 0; i < 4; i++) {
    x[i] = _mm512_maskz_mul_ps(__mmask16(visible >> (16 * i)), weights[i], _mm512_loadu_ps(value_step + 16 * i));
    sum = _mm512_add_ps(sum, x[i]);
  }
  const Words of(sum16(sum));
  const __m512 factor = _mm512_set1_ps(of.factor);
  for (int i = 0; i < 4; i++)
    _mm256_storeu_si256((__m256i*)(words + 16 * i), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x[i], factor))));
  return of.step;
}

// What `attend_chunk` does, with no more scratch space.
template <int D>
void attend_words(const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                  const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  uint32_t* const packed_keys = (uint32_t*)scratch;                     // (D / 2, 64)
  uint32_t* const packed_values = packed_keys + D / 2 * TILE;           // (32, D)
  float* const key_step = (float*)(packed_values + TILE / 2 * D);
  float* const value_step = key_step + TILE;
  float* const scores = value_step + TILE;                              // (rows, 64)
  float* const lane_sums = scores + size_t(rows) * TILE;                // (rows, 16)
  float* const query_step = lane_sums + size_t(rows) * 16;              // (rows,)
  float* const weight_step = query_step + rows;                         // (rows,)
  int16_t* const queries = (int16_t*)(weight_step + rows);              // (rows, D)
  int16_t* const weights = queries + size_t(rows) * D;                  // (rows, 64)
  const Softening soft(sight);
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + rows * 16, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * D, 0.0f);
  for (int r = 0; r < rows; r++) query_step[r] = query_words<D>(q + size_t(r) * D, queries + size_t(r) * D);
  for (int64_t j0 = begin, after; j0 < end; j0 = after) {
    after = tiles.next(j0, end);
    const HeadSegment& here = tiles.with(j0);
    const int64_t at = (j0 - here.begin) * D;
    const int present = int(std::min<int64_t>(TILE, end - j0));
    const HeadSegment& next = tiles.later(after);
    const int64_t skipped = (after - next.begin) * D;
    const bf16 *next_keys = (const bf16*)next.keys + skipped, *next_values = (const bf16*)next.values + skipped;
    key_words<D>((const bf16*)here.keys + at, present, packed_keys, key_step, next_keys);
    value_words<D>((const bf16*)here.values + at, present, packed_values, value_step, next_values);
    in_groups<ROWS_TOGETHER>(rows, [&](auto count, int r) {
      word_scores<D, count>(queries + size_t(r) * D, query_step + r, packed_keys, key_step, scores + size_t(r) * TILE);
    });
    for (int r = 0; r < rows; r++) {
      const Span span = seen_from(position[r], sight);
      const int64_t from = std::max<int64_t>(0, span.begin - j0), to = std::min<int64_t>(TILE, span.end - j0);
      int16_t* const own = weights + size_t(r) * TILE;
      weight_step[r] = 0;
      if (to <= from) {
        std::memset(own, 0, TILE * sizeof *own);
        continue;
      }
      const uint64_t visible = visible_of(from, to);
      __m512 e[4];
      tile_softmax<D>(scores + size_t(r) * TILE, visible, sight, soft.log2, row_max + r, lane_sums + size_t(r) * 16,
                      mixed + size_t(r) * D, e);
      weight_step[r] = weight_words(e, visible, value_step, own);
    }
    in_groups<ROWS_TOGETHER>(rows, [&](auto count, int r) {
      word_mix<D, count>(weights + size_t(r) * TILE, weight_step + r, packed_values, mixed + size_t(r) * D);
    });
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= soft.scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + size_t(r) * 16));
    in_order<D>(mixed + size_t(r) * D);
  }
}

}  // namespace

#endif
