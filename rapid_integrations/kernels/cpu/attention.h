// Attention of a few queries over a long cache.

#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "interface.h"
#include "levels.h"
#include "numbers.h"

namespace {

constexpr int CHUNK = 512;  // keys of one attention task; chunks begin at absolute positions
constexpr int TILE = 64;    // keys whose scores are formed together; tiles begin at absolute positions, too

// Query rows of a product: their sums stay in registers.
#if RAPID_AVX512 && !RAPID_BF16_DOTS
constexpr int ROWS_TOGETHER = 6, PAIR_ROWS = 4;  // PAIR_ROWS: of a product of pairs of bfloat16
#elif RAPID_WIDE && !RAPID_BF16_DOTS
constexpr int ROWS_TOGETHER = 6, PAIR_ROWS = 1;
#elif RAPID_WIDE && !RAPID_AVX512
constexpr int ROWS_TOGETHER = 1, PAIR_ROWS = 1;
#else
constexpr int ROWS_TOGETHER = 6, PAIR_ROWS = 6;
#endif

// What queries and weights are multiplied as, and a tile's keys and values: pairs of bfloat16, or single numbers if the
// processor has no product of these. They are summed in the same order, the odd ones of each pair first.
#if RAPID_WIDE && !RAPID_BF16_DOTS
using Operand = float;
using Packed = float;
#else
using Operand = bf16;
using Packed = uint32_t;
#endif

// Floats that `numbers` of these take.
constexpr size_t operand_floats(size_t numbers) { return numbers * sizeof(Operand) / sizeof(float); }

struct Span {  // keys that a query sees: [begin, end)
  int64_t begin, end;
};

inline Span seen_from(int64_t position, const Sight& sight) {
  int64_t begin = sight.window ? std::max<int64_t>(0, position + 1 - sight.window) : 0;
  if (sight.chunk) begin = std::max(begin, position / sight.chunk * sight.chunk);
  return {begin, position + 1};
}

// Keys and values of one head, (rows, row_bytes), of the positions from `begin` on, a multiple of TILE: so a tile lies in
// one of them. It ends where the next one begins.
struct HeadSegment {
  int64_t begin;
  const uint8_t *keys, *values;
};

// Goes through a head's segments, tile by tile. `taken` has a byte for each tile from position 0 on, and those with a 0
// are left out; null takes all. The first tile is always taken.
class Tiles {
 public:
  Tiles(const HeadSegment* segment, int count, const uint8_t* taken = nullptr)
      : segment_(segment), last_(segment + count - 1), taken_(taken) {}

  // The tile that is read after this one, or `end` or more if this one is the last.
  int64_t next(int64_t tile, int64_t end) const {
    tile += TILE;
    if (taken_)
      while (tile < end && !taken_[tile / TILE]) tile += TILE;
    return tile;
  }

  // The segment with a tile's rows; a tile never lies before that of the call before.
  const HeadSegment& with(int64_t tile) {
    while (segment_ != last_ && segment_[1].begin <= tile) segment_++;
    return *segment_;
  }
  // The segment with the rows of a tile that comes later.
  const HeadSegment& later(int64_t tile) const {
    const HeadSegment* found = segment_;
    while (found != last_ && found[1].begin <= tile) found++;
    return *found;
  }

 private:
  const HeadSegment *segment_, *const last_;
  const uint8_t* taken_;
};

// Floats of scratch space for one call of `attend`.
inline size_t attention_floats(int kv, int D, int rows) {
  if (kv == KV_INT8) {  // of 4 bytes: see `attend_levels`
    const size_t wide = size_t(D + 63) / 64 * 64;
    return 32 * wide + 2 * TILE + size_t(rows) * (2 * TILE + wide + size_t(D) / 2 + 20) + 64;
  }
  return operand_floats(size_t(rows) * (TILE + D) + size_t(2 * D) * TILE) + size_t(rows) * (TILE + 16) + 64;
}

#if RAPID_WIDE

inline void transpose16(__m512i r[16]) {  // 16 x 16 of 32 bits
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Calls f(count, first row) for all rows, at most MOST at a time.
template <int MOST, class F>
inline void in_groups(int rows, const F& f) {
  int r = 0;
  for (; r + MOST <= rows; r += MOST) f(std::integral_constant<int, MOST>(), r);
  if constexpr (MOST > 1)
    if (r < rows) in_groups<MOST - 1>(rows - r, [&](auto count, int first) { f(count, r + first); });
}

// mixed (N, D) += weights (N, 64) x values; `packed` (32, D) has pairs of keys, a dimension a lane. W vectors at a time.
template <int N, int W>
inline void rows_mixed(const bf16* weights, size_t D, const uint32_t* packed, float* mixed, const bf16* ahead) {
  for (size_t d = 0; d < D; d += 16 * W) {
    __m512 acc[N][W];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) acc[n][i] = _mm512_loadu_ps(mixed + n * D + d + 16 * i);
    for (int j = 0; j < TILE / 2; j++) {
      if (ahead)
        for (int i = 0; i < W; i++, ahead += 32) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
      __m512bh v[W];
      for (int i = 0; i < W; i++) v[i] = load_bf16(packed + j * D + d + 16 * i);
      for (int n = 0; n < N; n++) {
        int32_t pair;
        std::memcpy(&pair, weights + n * TILE + 2 * j, 4);
        const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
        for (int i = 0; i < W; i++) acc[n][i] = _mm512_dpbf16_ps(acc[n][i], v[i], both);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) _mm512_storeu_ps(mixed + n * D + d + 16 * i, acc[n][i]);
  }
}

#if RAPID_BF16_DOTS

// Scores of N rows with a tile of 64 keys; `packed` (D / 2, 64) has pairs of dimensions, a key a lane.
template <int D, int N>
inline void tile_scores(const bf16* q, const uint32_t* packed, float* scores, const bf16* ahead) {
  __m512 acc[N][4];
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) acc[n][i] = _mm512_setzero_ps();
  for (int d = 0; d < D / 2; d++) {
    if (ahead)
      for (int i = 0; i < 4; i++) _mm_prefetch((const char*)(ahead + size_t(4 * d + i) * 32), _MM_HINT_T1);
    __m512bh k[4];
    for (int i = 0; i < 4; i++) k[i] = load_bf16(packed + d * TILE + 16 * i);
    for (int n = 0; n < N; n++) {
      int32_t pair;
      std::memcpy(&pair, q + n * D + 2 * d, 4);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int i = 0; i < 4; i++) acc[n][i] = _mm512_dpbf16_ps(acc[n][i], k[i], both);
    }
  }
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) _mm512_storeu_ps(scores + n * TILE + 16 * i, acc[n][i]);
}

template <int D, int N>
inline void tile_mix(const bf16* weights, const uint32_t* packed, float* mixed, const bf16* ahead) {
  rows_mixed<N, D % 64 == 0 ? 4 : 2>(weights, D, packed, mixed, ahead);
}

#else

// Vectors of sums that each of N rows has at a time, so that all are in registers with what is multiplied, and are enough to
// hide how long a sum takes.
constexpr int vectors_of([[maybe_unused]] int rows) {
#if RAPID_AVX512
  return 4;
#else
  return rows > 3 ? 1 : rows > 1 ? 2 : 4;
#endif
}

// Scores of N rows with a tile of 64 keys; `packed` (D, 64) has a key a lane.
template <int D, int N>
inline void tile_scores(const float* q, const float* packed, float* scores, const bf16* ahead) {
  constexpr int V = vectors_of(N);
  for (int first = 0; first < 4; first += V) {
    __m512 acc[N][V];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < V; i++) acc[n][i] = _mm512_setzero_ps();
    for (int pair = 0; pair < D; pair += 2) {
      if (ahead && first == 0)
        for (int i = 0; i < 4; i++) _mm_prefetch((const char*)(ahead + size_t(2 * pair + i) * 32), _MM_HINT_T1);
      for (int d : {pair + 1, pair}) {
        __m512 k[V];
        for (int i = 0; i < V; i++) k[i] = _mm512_loadu_ps(packed + d * TILE + 16 * (first + i));
        for (int n = 0; n < N; n++)
          for (int i = 0; i < V; i++) acc[n][i] = _mm512_fmadd_ps(k[i], _mm512_set1_ps(q[n * D + d]), acc[n][i]);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < V; i++) _mm512_storeu_ps(scores + n * TILE + 16 * (first + i), acc[n][i]);
  }
}

// mixed (N, D) += weights (N, 64) x values; `packed` (64, D) has a dimension a lane.
template <int D, int N>
inline void tile_mix(const float* weights, const float* packed, float* mixed, const bf16* ahead) {
  constexpr int W = D % (16 * vectors_of(N)) == 0 ? vectors_of(N) : 2;
  for (int first = 0; first < D; first += 16 * W) {
    __m512 acc[N][W];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) acc[n][i] = _mm512_loadu_ps(mixed + n * D + first + 16 * i);
    for (int pair = 0; pair < TILE; pair += 2) {
      if (ahead)
        for (int i = 0; i < W; i++, ahead += 32) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
      for (int j : {pair + 1, pair}) {
        __m512 v[W];
        for (int i = 0; i < W; i++) v[i] = _mm512_loadu_ps(packed + j * D + first + 16 * i);
        for (int n = 0; n < N; n++)
          for (int i = 0; i < W; i++) acc[n][i] = _mm512_fmadd_ps(v[i], _mm512_set1_ps(weights[n * TILE + j]), acc[n][i]);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < W; i++) _mm512_storeu_ps(mixed + n * D + first + 16 * i, acc[n][i]);
  }
}

#endif

inline void cap_scores(float* scores, const Sight& sight) {  // of a tile
  const __m512 cap = _mm512_set1_ps(sight.softcap), twice = _mm512_set1_ps(-2 * sight.scale / sight.softcap);
  const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
  for (int i = 0; i < TILE; i += 16) {
    const __m512 x = _mm512_loadu_ps(scores + i), e = exp512(_mm512_mul_ps(twice, _mm512_abs_ps(x)));
    const __m512 y = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));  // |tanh|
    _mm512_storeu_ps(scores + i, _mm512_mul_ps(cap, _mm512_or_ps(y, _mm512_and_ps(x, sign))));
  }
}

// Which keys of a tile are seen: bits [from, to).
inline uint64_t visible_of(int64_t from, int64_t to) {
  return (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
}

// Goes on with a row's softmax: `weights` become those of a tile's scores, powers of 2 relative to the highest score so
// far. If the tile has a higher one, what was summed and mixed (W numbers) is scaled to it.
template <int W>
inline void tile_softmax(float* scores, uint64_t visible, const Sight& sight, float log2, float* row_max, float* lane_sums,
                         float* mixed, __m512 weights[4]) {
  const __m512 unseen = _mm512_set1_ps(-1e30f);  // finite: its power of 2 is 0, that of infinity less infinity is not
  if (sight.softcap != 0) cap_scores(scores, sight);
  __m512 v[4];
  if (visible == ~0ull)
    for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_ps(scores + 16 * i);
  else
    for (int i = 0; i < 4; i++) v[i] = _mm512_mask_loadu_ps(unseen, __mmask16(visible >> (16 * i)), scores + 16 * i);
  const __m512 top = _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3]));
  __m512 sum = _mm512_loadu_ps(lane_sums);
  if (_mm512_cmp_ps_mask(top, _mm512_set1_ps(*row_max), _CMP_GT_OQ)) {
    const float highest = _mm512_reduce_max_ps(top);
    const float shrink = std::exp2((*row_max - highest) * log2);  // 0 for the first tile
    const __m512 factor = _mm512_set1_ps(shrink);
    sum = _mm512_mul_ps(sum, factor);
    for (int d = 0; d < W; d += 16) _mm512_storeu_ps(mixed + d, _mm512_mul_ps(_mm512_loadu_ps(mixed + d), factor));
    *row_max = highest;
  }
  const __m512 factor = _mm512_set1_ps(log2), less = _mm512_set1_ps(*row_max * log2);
  for (int i = 0; i < 4; i++) {
    weights[i] = exp2_512(_mm512_fmsub_ps(v[i], factor, less));
    sum = _mm512_add_ps(sum, weights[i]);
  }
  _mm512_storeu_ps(lane_sums, sum);
}

#if RAPID_BF16_DOTS

// Keys of a tile for products: `packed` (D / 2, 64) has pairs of dimensions, a key a lane. Keys that are not `present` are
// zeros. `next` asks for the keys of the tile that is read next, which come from memory, from there on; or is null.
template <int D>
inline void pack_keys(const bf16* keys, int present, uint32_t* packed, const bf16* next) {
  for (int i = 0; i < TILE; i += 16)
    for (int d = 0; d < D; d += 32) {
      __m512i r[16];
      if (next)
        for (int j = 0; j < 16; j++) _mm_prefetch((const char*)(next + (i + j) * D + d), _MM_HINT_T1);
      for (int j = 0; j < 16; j++)
        r[j] = i + j < present ? _mm512_loadu_si512(keys + (i + j) * D + d) : _mm512_setzero_si512();
      transpose16(r);
      for (int j = 0; j < 16; j++) _mm512_storeu_si512(packed + (d / 2 + j) * TILE + i, r[j]);
    }
}

// The same of values: `packed` (32, D) has pairs of keys, a dimension a lane.
template <int D>
inline void pack_values(const bf16* values, int present, uint32_t* packed, const bf16* next) {
  const __m512i order0 = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i order1 = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const __m512i zero = _mm512_setzero_si512();
  for (int j = 0; j < TILE; j += 2)
    for (int d = 0; d < D; d += 32) {
      if (next)
        for (int k = j; k < j + 2; k++) _mm_prefetch((const char*)(next + k * D + d), _MM_HINT_T1);
      const __m512i a = j < present ? _mm512_loadu_si512(values + j * D + d) : zero;
      const __m512i b = j + 1 < present ? _mm512_loadu_si512(values + (j + 1) * D + d) : zero;
      const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
      _mm512_storeu_si512(packed + (j / 2) * D + d, _mm512_permutex2var_epi32(low, order0, high));
      _mm512_storeu_si512(packed + (j / 2) * D + d + 16, _mm512_permutex2var_epi32(low, order1, high));
    }
}

inline const bf16* operands_of(const bf16* q, size_t, float*) { return q; }

inline void store_weights(const __m512 e[4], bf16* weights) {
#if RAPID_AVX512
  for (int i = 0; i < 2; i++)  // whole lines: matrix units read them at once, and wait if they were written in parts
    _mm512_storeu_si512(weights + 32 * i, (__m512i)_mm512_cvtne2ps_pbh(e[2 * i + 1], e[2 * i]));
#else
  for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i*)(weights + 16 * i), (__m256i)_mm512_cvtneps_pbh(e[i]));
#endif
}

#else

// Keys of a tile for products: `packed` (D, 64), a key a lane. Keys that are not `present` are zeros.
template <int D>
inline void pack_keys(const bf16* keys, int present, float* packed, const bf16*) {
  for (int i = 0; i < TILE; i += 16)
    for (int d = 0; d < D; d += 32) {
      __m512i r[16];
      for (int j = 0; j < 16; j++)
        r[j] = i + j < present ? _mm512_loadu_si512(keys + (i + j) * D + d) : _mm512_setzero_si512();
      transpose16(r);
      for (int j = 0; j < 16; j++) {
        float* to = packed + (d + 2 * j) * TILE + i;
        _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32(r[j], 16)));
        _mm512_storeu_ps(to + TILE, _mm512_castsi512_ps(_mm512_and_si512(r[j], _mm512_set1_epi32(int32_t(0xffff0000u)))));
      }
    }
}

// The same of values: `packed` (64, D).
template <int D>
inline void pack_values(const bf16* values, int present, float* packed, const bf16*) {
  for (int i = 0; i < present * D; i += 16) _mm512_storeu_ps(packed + i, widen(load_256(values + i)));
  std::fill(packed + present * D, packed + TILE * D, 0.0f);
}

inline const float* operands_of(const bf16* q, size_t count, float* out) {
  for (size_t i = 0; i < count; i += 16) _mm512_storeu_ps(out + i, widen(load_256(q + i)));
  return out;
}

inline void store_weights(const __m512 e[4], float* weights) {  // with the precision of bfloat16
  for (int i = 0; i < 4; i++) _mm512_storeu_ps(weights + 16 * i, rounded_as_bf16(e[i]));
}

#endif

struct Softening {  // what scores are multiplied with, before powers of e and of 2 are taken
  explicit Softening(const Sight& sight)
      : scale(sight.softcap != 0 ? 1.0f : sight.scale), log2(scale * 1.44269504f) {}  // capped ones are scaled already
  const float scale, log2;
};

// Goes on with a row's softmax as `tile_softmax`: its weights for the tile at j0, of which it sees what lies in `span`.
template <int D>
inline void tile_weights(float* scores, int64_t j0, const Span& span, const Sight& sight, float log2, float* row_max,
                         float* lane_sums, float* mixed, Operand* weights) {
  const int64_t from = std::max<int64_t>(0, span.begin - j0), to = std::min<int64_t>(TILE, span.end - j0);
  if (to <= from) {
    std::memset(weights, 0, TILE * sizeof(Operand));
    return;
  }
  __m512 e[4];
  tile_softmax<D>(scores, visible_of(from, to), sight, log2, row_max, lane_sums, mixed, e);
  store_weights(e, weights);
}

// Attention of `rows` queries, each at a position of its own, with the keys [begin, end): of each row the highest score,
// the sum of its weights, and the values mixed with them. What a row gets does not depend on the other rows.
template <int D>
void attend_chunk(const bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                  const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  Packed* packed_keys = (Packed*)scratch;
  Packed* packed_values = packed_keys + operand_floats(size_t(D) * TILE);
  float* scores = (float*)(packed_values + operand_floats(size_t(TILE) * D));
  Operand* weights = (Operand*)(scores + size_t(rows) * TILE);
  float* lane_sums = (float*)(weights + size_t(rows) * TILE);
  const Operand* const queries = operands_of(q, size_t(rows) * D, lane_sums + size_t(rows) * 16);
  const Softening soft(sight);
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + rows * 16, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * D, 0.0f);
  for (int64_t j0 = begin, after; j0 < end; j0 = after) {
    after = tiles.next(j0, end);
    const HeadSegment& here = tiles.with(j0);
    const int64_t at = (j0 - here.begin) * D;
    const int present = int(std::min<int64_t>(TILE, end - j0));
    pack_keys<D>((const bf16*)here.keys + at, present, packed_keys, nullptr);
    pack_values<D>((const bf16*)here.values + at, present, packed_values, nullptr);
    const HeadSegment& next = tiles.later(after);
    const int64_t skipped = (after - next.begin) * D;
    const bf16 *next_keys = (const bf16*)next.keys + skipped, *next_values = (const bf16*)next.values + skipped;
    in_groups<ROWS_TOGETHER>(rows, [&](auto count, int r) {
      tile_scores<D, count>(queries + r * D, packed_keys, scores + r * TILE, r ? nullptr : next_keys);
    });
    for (int r = 0; r < rows; r++)
      tile_weights<D>(scores + r * TILE, j0, seen_from(position[r], sight), sight, soft.log2, row_max + r,
                      lane_sums + r * 16, mixed + r * D, weights + r * TILE);
    in_groups<ROWS_TOGETHER>(rows, [&](auto count, int r) {
      tile_mix<D, count>(weights + r * TILE, packed_values, mixed + r * D, r ? nullptr : next_values);
    });
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= soft.scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + r * 16));
  }
}

#endif

// A key without a value takes part in a row's softmax: the row's sum with it, and what its mixed values are to be
// multiplied with. `highest` and `sum` are of all other keys; a row without a sink has -infinity.
struct Shares {
  float sum, factor;
};

inline Shares with_sink(float highest, float sum, float sink) {
  if (sink == -std::numeric_limits<float>::infinity()) return {sum, 1.0f};
  const float top = std::max(highest, sink), factor = std::exp(highest - top);
  return {sum * factor + std::exp(sink - top), factor};
}

inline float sink_of(const void* sinks, int head) {
  return sinks ? ((const float*)sinks)[head] : -std::numeric_limits<float>::infinity();
}

}  // namespace
