// Attention of a few queries, of all heads, over the latents that they share (multi-head latent attention).
//
// A query has `rank` numbers that meet a token's latent, and behind them `rotated` ones that meet its rotated key. What is
// mixed are the latents. A cache has rotated keys in the place of keys, and latents in that of values.

#pragma once

#include "attention.h"
#include "levels.h"

namespace {

inline size_t latent_floats(int rank, int rotated, int rows) {  // of scratch space for one call of `attend_latents`
  return size_t(rank + rotated) / 2 * TILE + size_t(TILE / 2) * rank + size_t(rows) * (TILE + TILE / 2 + 16) + 2 * TILE + 64;
}

#if RAPID_WIDE

// 32 numbers of a row, from number d on, as bf16; levels without their scale, which are whole numbers up to 127.
template <int KV>
inline __m512i numbers_of(const uint8_t* row, int d) {
  if constexpr (KV == KV_INT8) {
    const __m256i bytes = load_256(row + d);
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
  } else {
    return _mm512_loadu_si512(row + size_t(d) * sizeof(bf16));
  }
}

// packed (D / 2, 64) = pairs of dimensions of a tile's rows, a row a lane.
template <int KV>
inline void pack_dimensions(const uint8_t* rows, int D, int present, uint32_t* packed) {
  const size_t bytes = row_bytes(KV, D);
  for (int i = 0; i < TILE; i += 16)
    for (int d = 0; d < D; d += 32) {
      __m512i r[16];
      for (int j = 0; j < 16; j++)
        r[j] = i + j < present ? numbers_of<KV>(rows + size_t(i + j) * bytes, d) : _mm512_setzero_si512();
      transpose16(r);
      for (int j = 0; j < 16; j++) _mm512_storeu_si512(packed + size_t(d / 2 + j) * TILE + i, r[j]);
    }
}

// packed (32, D) = pairs of a tile's rows, a dimension a lane.
template <int KV>
inline void pack_rows(const uint8_t* rows, int D, int present, uint32_t* packed) {
  const __m512i order0 = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i order1 = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const size_t bytes = row_bytes(KV, D);
  for (int j = 0; j < TILE; j += 2)
    for (int d = 0; d < D; d += 32) {
      const __m512i zero = _mm512_setzero_si512();
      const __m512i a = j < present ? numbers_of<KV>(rows + size_t(j) * bytes, d) : zero;
      const __m512i b = j + 1 < present ? numbers_of<KV>(rows + size_t(j + 1) * bytes, d) : zero;
      const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
      _mm512_storeu_si512(packed + size_t(j / 2) * D + d, _mm512_permutex2var_epi32(low, order0, high));
      _mm512_storeu_si512(packed + size_t(j / 2) * D + d + 16, _mm512_permutex2var_epi32(low, order1, high));
    }
}

// Adds to `acc` the products of the dimensions [0, D) of N queries, `apart` from each other, with a tile's.
template <int N>
inline void dimensions_added(const bf16* q, size_t apart, int D, const uint32_t* packed, __m512 acc[N][4]) {
  for (int d = 0; d < D / 2; d++) {
    __m512bh k[4];
    for (int i = 0; i < 4; i++) k[i] = load_bf16(packed + size_t(d) * TILE + 16 * i);
    for (int n = 0; n < N; n++) {
      int32_t pair;
      std::memcpy(&pair, q + n * apart + 2 * d, 4);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int i = 0; i < 4; i++) acc[n][i] = _mm512_dpbf16_ps(acc[n][i], k[i], both);
    }
  }
}

// Scores of N queries with a tile. `scales` (2, 64) are those of its latents and of its rotated keys.
template <int KV, int N>
inline void latent_scores(const bf16* q, int rank, int rotated, const uint32_t* packed, const float* scales, float* scores) {
  const size_t apart = size_t(rank + rotated);
  __m512 acc[N][4];
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) acc[n][i] = _mm512_setzero_ps();
  dimensions_added<N>(q, apart, rank, packed, acc);
  if constexpr (KV == KV_INT8) {
    __m512 of_keys[N][4];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 4; i++) of_keys[n][i] = _mm512_setzero_ps();
    dimensions_added<N>(q + rank, apart, rotated, packed + size_t(rank / 2) * TILE, of_keys);
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 4; i++) {
        const __m512 keys = _mm512_mul_ps(of_keys[n][i], _mm512_loadu_ps(scales + TILE + 16 * i));
        acc[n][i] = _mm512_fmadd_ps(acc[n][i], _mm512_loadu_ps(scales + 16 * i), keys);
      }
  } else {
    dimensions_added<N>(q + rank, apart, rotated, packed + size_t(rank / 2) * TILE, acc);
  }
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) _mm512_storeu_ps(scores + n * TILE + 16 * i, acc[n][i]);
}

// What `attend_chunk` does, of latents: `rank` is a multiple of 64, and `rotated` one of 32.
template <int KV>
void attend_latents(int rank, int rotated, const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin,
                    int64_t end, const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  const size_t width = size_t(rank + rotated), key_bytes = row_bytes(KV, rotated), latent_bytes = row_bytes(KV, rank);
  uint32_t* packed = (uint32_t*)scratch;                 // (width / 2, 64): latents, and then rotated keys
  uint32_t* packed_latents = packed + width / 2 * TILE;  // (32, rank)
  float* scores = (float*)(packed_latents + size_t(TILE / 2) * rank);
  bf16* weights = (bf16*)(scores + size_t(rows) * TILE);
  float* lane_sums = (float*)(weights + size_t(rows) * TILE);
  float* scales = lane_sums + size_t(rows) * 16;
  const float log2 = sight.scale * 1.44269504f;  // weights are powers of 2
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + rows * 16, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * rank, 0.0f);
  for (int64_t j0 = begin; j0 < end; j0 += TILE) {
    const int present = int(std::min<int64_t>(TILE, end - j0));
    const HeadSegment& here = tiles.with(j0);
    const uint8_t* keys = here.keys + size_t(j0 - here.begin) * key_bytes;
    const uint8_t* latents = here.values + size_t(j0 - here.begin) * latent_bytes;
    pack_dimensions<KV>(latents, rank, present, packed);
    pack_dimensions<KV>(keys, rotated, present, packed + size_t(rank / 2) * TILE);
    pack_rows<KV>(latents, rank, present, packed_latents);
    if constexpr (KV == KV_INT8)
      for (int j = 0; j < TILE; j++) {
        scales[j] = j < present ? scale_of(latents + j * latent_bytes, rank) : 0.0f;
        scales[TILE + j] = j < present ? scale_of(keys + j * key_bytes, rotated) : 0.0f;
      }
    in_groups<PAIR_ROWS>(rows, [&](auto count, int r) {
      latent_scores<KV, count>(q + r * width, rank, rotated, packed, scales, scores + r * TILE);
    });
    for (int r = 0; r < rows; r++) {
      const Span span = seen_from(position[r], sight);
      const int64_t from = std::max<int64_t>(0, span.begin - j0), to = std::min<int64_t>(TILE, span.end - j0);
      bf16* w = weights + r * TILE;
      if (to <= from) {
        std::memset(w, 0, TILE * sizeof(bf16));
        continue;
      }
      __m512 e[4];
      const float before = row_max[r];
      tile_softmax<0>(scores + r * TILE, visible_of(from, to), sight, log2, row_max + r, lane_sums + r * 16, nullptr, e);
      if (row_max[r] != before) {
        const __m512 shrink = _mm512_set1_ps(std::exp2((before - row_max[r]) * log2));  // 0 for the first tile
        float* own = mixed + size_t(r) * rank;
        for (int d = 0; d < rank; d += 16) _mm512_storeu_ps(own + d, _mm512_mul_ps(_mm512_loadu_ps(own + d), shrink));
      }
      for (int i = 0; i < 4; i++) {
        if constexpr (KV == KV_INT8) e[i] = _mm512_mul_ps(e[i], _mm512_loadu_ps(scales + 16 * i));
        _mm256_storeu_si256((__m256i*)(w + 16 * i), (__m256i)_mm512_cvtneps_pbh(e[i]));
      }
    }
    in_groups<PAIR_ROWS>(rows, [&](auto count, int r) {
      rows_mixed<count, 4>(weights + r * TILE, rank, packed_latents, mixed + size_t(r) * rank, nullptr);
    });
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= sight.scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + r * 16));
  }
}

#else

inline float number_of(int kv, const uint8_t* row, int d) {  // a level without its scale
  if (kv == KV_INT8) return float(int8_t(row[d]));
  bf16 x;
  std::memcpy(&x, row + sizeof(bf16) * d, sizeof x);
  return to_float(x);
}

template <int KV>
inline float dot_of(const float* query, const uint8_t* row, int D) {
  float lanes[16] = {}, dot = 0;
  for (int d = 0; d < D; d += 16)
    for (int i = 0; i < 16; i++) lanes[i] += query[d + i] * number_of(KV, row, d + i);
  for (int i = 0; i < 16; i++) dot += lanes[i];
  return KV == KV_INT8 ? dot * scale_of(row, D) : dot;
}

template <int KV>
void attend_latents(int rank, int rotated, const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin,
                    int64_t end, const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  const int width = rank + rotated;
  const size_t key_bytes = row_bytes(KV, rotated), latent_bytes = row_bytes(KV, rank);
  float *weights = scratch, *query = weights + TILE;
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(row_sum, row_sum + rows, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * rank, 0.0f);
  for (int64_t j0 = begin; j0 < end; j0 += TILE) {
    const HeadSegment& here = tiles.with(j0);
    const uint8_t* keys = here.keys + size_t(j0 - here.begin) * key_bytes;
    const uint8_t* latents = here.values + size_t(j0 - here.begin) * latent_bytes;
    for (int r = 0; r < rows; r++) {
      const Span span = seen_from(position[r], sight);
      const int from = int(std::max<int64_t>(0, span.begin - j0)), to = int(std::min<int64_t>(TILE, span.end - j0));
      if (to <= from) continue;
      for (int d = 0; d < width; d++) query[d] = to_float(q[size_t(r) * width + d]);
      float highest = row_max[r];
      for (int j = from; j < to; j++) {
        const float of_latent = dot_of<KV>(query, latents + j * latent_bytes, rank);
        weights[j] = (of_latent + dot_of<KV>(query + rank, keys + j * key_bytes, rotated)) * sight.scale;
        highest = std::max(highest, weights[j]);
      }
      float* mix = mixed + size_t(r) * rank;
      const float shrink = std::exp(row_max[r] - highest);
      row_sum[r] *= shrink;
      for (int d = 0; d < rank; d++) mix[d] *= shrink;
      row_max[r] = highest;
      for (int j = from; j < to; j++) {
        const float e = std::exp(weights[j] - highest);
        row_sum[r] += e;
        const uint8_t* latent = latents + j * latent_bytes;
        const float weight = KV == KV_INT8 ? e * scale_of(latent, rank) : to_float(to_bf16(e));
        for (int d = 0; d < rank; d++) mix[d] += weight * number_of(KV, latent, d);
      }
    }
  }
}

#endif

// `attend_latents` of rows that are stored so.
inline auto latent_attention(int kv) { return kv == KV_INT8 ? attend_latents<KV_INT8> : attend_latents<KV_BF16>; }

}  // namespace
