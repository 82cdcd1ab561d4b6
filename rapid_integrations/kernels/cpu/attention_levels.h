// Attention over rows in eight bits, in integers.
//
// Queries are split into two numbers of eight bits (q = step * (128 high + low), fifteen bits in all), and so are a
// tile's weights (sixteen bits, relative to the largest one). So products are exact sums of integers, and what is
// computed differs from that of the stored numbers by less than bfloat16 queries and weights would make it differ.

#pragma once

#include "attention.h"
#include "levels.h"

#if RAPID_WIDE

namespace {

constexpr int LEVEL_ROWS = PAIR_ROWS > 1 ? 3 : 1;  // query rows of a product: each has two parts
constexpr int LINES_AHEAD = 5;  // of the next tile, at each four dimensions or keys: a row has more than D bytes
constexpr float QUERY_LEVELS = 127 * 128, WEIGHT_LEVELS = 65535;

// Sixteen sums. GCC 12 keeps sums in registers if they have the type that its instructions have, which __m512i is not.
#if RAPID_AVX512
typedef int32_t Sums __attribute__((vector_size(64)));
#else
using Sums = __m512i;
#endif

inline Sums dot_added(Sums sums, __m512i of_bytes, __m512i of_signed_bytes) {
  return (Sums)_mm512_dpbusd_epi32((__m512i)sums, of_bytes, of_signed_bytes);
}

struct SplitQuery {  // what a row's scores are made of beside its two parts
  float step;
  int32_t of_high, of_low;  // 128 times the sums of the parts, which what keys are moved by adds to products
};

// parts (2, D): a query's high and low numbers.
template <int D>
inline SplitQuery split_query(const bf16* q, int8_t* parts) {
  __m512 most = _mm512_setzero_ps();
  for (int d = 0; d < D; d += 16) most = _mm512_max_ps(most, _mm512_abs_ps(widen(load_256(q + d))));
  const float largest = _mm512_reduce_max_ps(most);
  const __m512 factor = _mm512_set1_ps(largest > LEAST_SCALED ? QUERY_LEVELS / largest : 0.0f);
  __m512i sum_high = _mm512_setzero_si512(), sum_low = sum_high;
  bool no_number = false;
  for (int d = 0; d < D; d += 16) {
    const __m512 x = widen(load_256(q + d));
    no_number |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0;
    const __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(x, factor));
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(level, _mm512_set1_epi32(64)), 7);
    const __m512i low = _mm512_sub_epi32(level, _mm512_slli_epi32(high, 7));
    sum_high = _mm512_add_epi32(sum_high, high);
    sum_low = _mm512_add_epi32(sum_low, low);
    _mm_storeu_si128((__m128i*)(parts + d), _mm512_cvtepi32_epi8(high));
    _mm_storeu_si128((__m128i*)(parts + D + d), _mm512_cvtepi32_epi8(low));
  }
  const float step = no_number ? std::numeric_limits<float>::quiet_NaN() : largest / QUERY_LEVELS;
  return {step, 128 * _mm512_reduce_add_epi32(sum_high), 128 * _mm512_reduce_add_epi32(sum_low)};
}

inline __m512i four_bytes(const void* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

// Scores of N rows with a tile of 64 keys; `packed` (D / 4, 64) has four dimensions of a key a lane, moved by 128.
template <int D, int N>
inline void level_scores(const int8_t* parts, const SplitQuery* split, const uint8_t* packed, const float* key_scale,
                         float* scores, const uint8_t* ahead) {
  Sums acc[2 * N][4];
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) {
      acc[2 * n][i] = (Sums)_mm512_set1_epi32(-split[n].of_high);
      acc[2 * n + 1][i] = (Sums)_mm512_set1_epi32(-split[n].of_low);
    }
  for (int u = 0; u < D / 4; u++) {
    if (ahead)
      for (int i = 0; i < LINES_AHEAD; i++, ahead += 64) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
    __m512i k[4];
    for (int i = 0; i < 4; i++) k[i] = _mm512_loadu_si512(packed + (u * TILE + 16 * i) * 4);
    for (int n = 0; n < 2 * N; n++) {
      const __m512i q = four_bytes(parts + n * D + 4 * u);
      for (int i = 0; i < 4; i++) acc[n][i] = dot_added(acc[n][i], k[i], q);
    }
  }
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) {
      const __m512i whole = (__m512i)(acc[2 * n][i] * 128 + acc[2 * n + 1][i]);
      const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(key_scale + 16 * i), _mm512_set1_ps(split[n].step));
      _mm512_storeu_ps(scores + n * TILE + 16 * i, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale));
    }
}

// mixed (N, W) += factor * weights (N, 64) x values; `packed` (16, W) has four keys of a dimension a lane.
template <int W, int N>
inline void level_mix(const uint8_t* parts, const float* factor, const uint8_t* packed, float* mixed,
                      const uint8_t* ahead) {
  for (int d = 0; d < W; d += 64) {
    Sums acc[2 * N][4];
    for (int n = 0; n < 2 * N; n++)
      for (int i = 0; i < 4; i++) acc[n][i] = Sums{};
    for (int u = 0; u < TILE / 4; u++) {
      if (ahead)
        for (int i = 0; i < LINES_AHEAD; i++, ahead += 64) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
      __m512i v[4];
      for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_si512(packed + (u * W + d + 16 * i) * 4);
      for (int n = 0; n < 2 * N; n++) {
        const __m512i w = four_bytes(parts + n * TILE + 4 * u);
        for (int i = 0; i < 4; i++) acc[n][i] = dot_added(acc[n][i], w, v[i]);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 4; i++) {
        float* to = mixed + n * W + d + 16 * i;
        const __m512i whole = (__m512i)(acc[2 * n][i] * 256 + acc[2 * n + 1][i]);
        _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(factor[n]), _mm512_loadu_ps(to)));
      }
  }
}

// parts (2, 64): a tile's weights, times their values' scales, in sixteen bits. Returns what they are multiplied with.
inline float split_weights(const __m512 weights[4], uint64_t visible, const float* value_scale, uint8_t* parts) {
  __m512 x[4], most = _mm512_setzero_ps();
  bool no_number = false;
  for (int i = 0; i < 4; i++) {
    x[i] = _mm512_maskz_mul_ps(__mmask16(visible >> (16 * i)), weights[i], _mm512_loadu_ps(value_scale + 16 * i));
    no_number |= _mm512_cmp_ps_mask(x[i], x[i], _CMP_UNORD_Q) != 0;
    most = _mm512_max_ps(most, x[i]);
  }
  const float largest = _mm512_reduce_max_ps(most);
  if (no_number) return std::numeric_limits<float>::quiet_NaN();
  const __m512 factor = _mm512_set1_ps(largest > LEAST_SCALED ? WEIGHT_LEVELS / largest : 0.0f);
  for (int i = 0; i < 4; i++) {
    const __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(x[i], factor));
    _mm_storeu_si128((__m128i*)(parts + 16 * i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(level, 8)));
    _mm_storeu_si128((__m128i*)(parts + TILE + 16 * i), _mm512_cvtepi32_epi8(level));
  }
  return largest / WEIGHT_LEVELS;
}

// What `attend_chunk` does, of rows in eight bits.
template <int D>
void attend_levels(const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                   const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  constexpr int W = (D + 63) / 64 * 64, ROW = D + SCALE_BYTES;
  uint8_t* packed_keys = (uint8_t*)scratch;              // (D / 4, 64, 4)
  uint8_t* packed_values = packed_keys + size_t(W) * TILE;  // (16, W, 4)
  float* key_scale = (float*)(packed_values + size_t(W) * TILE);
  float* value_scale = key_scale + TILE;
  float* scores = value_scale + TILE;                    // (rows, 64)
  float* lane_sums = scores + size_t(rows) * TILE;       // (rows, 16)
  float* sums = lane_sums + size_t(rows) * 16;           // (rows, W), each 64 of them in the order of packed values
  float* factor = sums + size_t(rows) * W;               // (rows,)
  SplitQuery* split = (SplitQuery*)(factor + rows);      // (rows,)
  int8_t* queries = (int8_t*)(split + rows);             // (rows, 2, D)
  uint8_t* weights = (uint8_t*)(queries + size_t(rows) * 2 * D);  // (rows, 2, 64)
  const float scale = sight.softcap != 0 ? 1.0f : sight.scale;  // capped scores are scaled already
  const float log2 = scale * 1.44269504f;  // weights are powers of 2
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + rows * 16, 0.0f);
  std::fill(sums, sums + size_t(rows) * W, 0.0f);
  for (int r = 0; r < rows; r++) split[r] = split_query<D>(q + size_t(r) * D, queries + size_t(r) * 2 * D);
  for (int64_t j0 = begin, after; j0 < end; j0 = after) {
    after = tiles.next(j0, end);
    const int present = int(std::min<int64_t>(TILE, end - j0));
    const HeadSegment& here = tiles.with(j0);
    const uint8_t *keys = here.keys + (j0 - here.begin) * ROW, *values = here.values + (j0 - here.begin) * ROW;
    auto part_of = [&](const uint8_t* from, int j, int d) {
      const __mmask64 inside = D - d >= 64 ? ~0ull : (1ull << (D - d)) - 1;
      return j < present ? _mm512_maskz_loadu_epi8(inside, from + size_t(j) * ROW + d) : _mm512_setzero_si512();
    };
    for (int j = 0; j < TILE; j++) {
      key_scale[j] = j < present ? scale_of(keys + size_t(j) * ROW, D) : 0.0f;
      value_scale[j] = j < present ? scale_of(values + size_t(j) * ROW, D) : 0.0f;
    }
    const __m512i moved = _mm512_set1_epi8(int8_t(-128));
    for (int i = 0; i < TILE; i += 16)
      for (int d = 0; d < D; d += 64) {
        __m512i r[16];
        for (int j = 0; j < 16; j++) r[j] = _mm512_xor_si512(part_of(keys, i + j, d), moved);
        transpose16(r);
        for (int u = 0; u < std::min(16, (D - d) / 4); u++)
          _mm512_storeu_si512(packed_keys + ((d / 4 + u) * TILE + i) * 4, r[u]);
      }
    for (int j = 0; j < TILE; j += 4)
      for (int d = 0; d < D; d += 64) {
        const __m512i a = part_of(values, j, d), b = part_of(values, j + 1, d);
        const __m512i c = part_of(values, j + 2, d), e = part_of(values, j + 3, d);
        const __m512i ab[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
        const __m512i ce[2] = {_mm512_unpacklo_epi8(c, e), _mm512_unpackhi_epi8(c, e)};
        uint8_t* to = packed_values + (size_t(j) / 4 * W + d) * 4;
        for (int half = 0; half < 2; half++) {
          _mm512_storeu_si512(to + 128 * half, _mm512_unpacklo_epi16(ab[half], ce[half]));
          _mm512_storeu_si512(to + 128 * half + 64, _mm512_unpackhi_epi16(ab[half], ce[half]));
        }
      }
    const HeadSegment& next = tiles.later(after);
    const int64_t skipped = (after - next.begin) * ROW;
    const uint8_t *next_keys = next.keys + skipped, *next_values = next.values + skipped;
    in_groups<LEVEL_ROWS>(rows, [&](auto count, int r) {
      level_scores<D, count>(queries + size_t(r) * 2 * D, split + r, packed_keys, key_scale, scores + r * TILE,
                             r ? nullptr : next_keys);
    });
    for (int r = 0; r < rows; r++) {
      const Span span = seen_from(position[r], sight);
      const int64_t from = std::max<int64_t>(0, span.begin - j0), to = std::min<int64_t>(TILE, span.end - j0);
      uint8_t* w = weights + size_t(r) * 2 * TILE;
      factor[r] = 0;
      std::memset(w, 0, 2 * TILE);
      if (to <= from) continue;
      const uint64_t visible = visible_of(from, to);
      __m512 e[4];
      tile_softmax<W>(scores + r * TILE, visible, sight, log2, row_max + r, lane_sums + r * 16, sums + size_t(r) * W, e);
      factor[r] = split_weights(e, visible, value_scale, w);
    }
    in_groups<LEVEL_ROWS>(rows, [&](auto count, int r) {
      level_mix<W, count>(weights + size_t(r) * 2 * TILE, factor + r, packed_values, sums + size_t(r) * W,
                          r ? nullptr : next_values);
    });
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + r * 16));
    for (int d = 0; d < D; d += 64) {  // vector i has in its quarter number l the dimensions 16 l + 4 i to 16 l + 4 i + 3
      __m512 m[4];
      for (int i = 0; i < 4; i++) m[i] = _mm512_loadu_ps(sums + size_t(r) * W + d + 16 * i);
      const __m512 a = _mm512_shuffle_f32x4(m[0], m[1], 0x44), b = _mm512_shuffle_f32x4(m[2], m[3], 0x44);
      const __m512 c = _mm512_shuffle_f32x4(m[0], m[1], 0xee), e = _mm512_shuffle_f32x4(m[2], m[3], 0xee);
      const __m512 out[4] = {_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd),
                             _mm512_shuffle_f32x4(c, e, 0x88), _mm512_shuffle_f32x4(c, e, 0xdd)};
      for (int i = 0; i < 4 && d + 16 * i < D; i++) _mm512_storeu_ps(mixed + size_t(r) * D + d + 16 * i, out[i]);
    }
  }
}

}  // namespace

#endif
