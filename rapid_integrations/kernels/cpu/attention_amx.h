// Attention of a prompt's queries on the processor's matrix units (amx.h): what `attend_chunk` does, 32 queries at a time.

#pragma once

#include "amx.h"
#include "attention.h"

#if RAPID_AMX

namespace {

constexpr int QUERIES = 2 * SIDE;  // whose scores are formed together, and turned into weights at once

inline size_t whole_groups(size_t rows) { return (rows + QUERIES - 1) / QUERIES * QUERIES; }

// Floats of scratch space for one call of `attend_on_amx`.
inline size_t amx_floats(int D, int rows) {
  return size_t(D) * TILE + QUERIES * TILE * 5 / 2 + whole_groups(rows) * 16 + 64;
}

// scores (32, 64) of 32 queries with a tile of keys, as `tile_scores`.
template <int D>
WITH_AMX inline void amx_scores(const bf16* q, const uint32_t* packed, float* scores) {
  for (int half = 0; half < TILE; half += 2 * SIDE) {
    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
    for (int d = 0; d < D; d += 32) {
      const uint32_t* keys = packed + size_t(d / 2) * TILE + half;
      AMX_LOAD(6, keys, TILE * 4);
      AMX_LOAD(7, keys + SIDE, TILE * 4);
      AMX_LOAD(4, q + d, D * sizeof(bf16));
      AMX_LOAD(5, q + SIDE * D + d, D * sizeof(bf16));
      AMX_DOT(0, 4, 6);
      AMX_DOT(1, 4, 7);
      AMX_DOT(2, 5, 6);
      AMX_DOT(3, 5, 7);
    }
    AMX_STORE(0, scores + half, TILE * 4);
    AMX_STORE(1, scores + half + SIDE, TILE * 4);
    AMX_STORE(2, scores + SIDE * TILE + half, TILE * 4);
    AMX_STORE(3, scores + SIDE * TILE + half + SIDE, TILE * 4);
  }
}

// mixed (32, D) += weights (32, 64) x values, as `tile_mix`.
template <int D>
WITH_AMX inline void amx_mix(const bf16* weights, const uint32_t* packed, float* mixed) {
  constexpr int64_t ROW = D * sizeof(float);
  for (int d = 0; d < D; d += 2 * SIDE) {
    AMX_LOAD(0, mixed + d, ROW);
    AMX_LOAD(1, mixed + d + SIDE, ROW);
    AMX_LOAD(2, mixed + SIDE * D + d, ROW);
    AMX_LOAD(3, mixed + SIDE * D + d + SIDE, ROW);
    for (int j = 0; j < TILE; j += 32) {
      const uint32_t* values = packed + size_t(j / 2) * D + d;
      AMX_LOAD(6, values, D * 4);
      AMX_LOAD(7, values + SIDE, D * 4);
      AMX_LOAD(4, weights + j, TILE * sizeof(bf16));
      AMX_LOAD(5, weights + SIDE * TILE + j, TILE * sizeof(bf16));
      AMX_DOT(0, 4, 6);
      AMX_DOT(1, 4, 7);
      AMX_DOT(2, 5, 6);
      AMX_DOT(3, 5, 7);
    }
    AMX_STORE(0, mixed + d, ROW);
    AMX_STORE(1, mixed + d + SIDE, ROW);
    AMX_STORE(2, mixed + SIDE * D + d, ROW);
    AMX_STORE(3, mixed + SIDE * D + d + SIDE, ROW);
  }
}

// The first group of 32 queries, from `first` on, of which one sees a key of the tile at j0; `rows` or more if none does.
inline int seen_group(const int64_t* position, int rows, int first, int64_t j0, const Sight& sight) {
  for (; first < rows; first += QUERIES)
    for (int r = first; r < std::min(rows, first + QUERIES); r++) {
      const Span span = seen_from(position[r], sight);
      if (span.begin < j0 + TILE && span.end > j0) return first;
    }
  return first;
}

// `attend_chunk` for queries of a prompt. `q` and `mixed` have room for whole groups of 32 rows.
template <int D>
WITH_AMX void attend_on_amx(bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                            const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  const AmxTiles in_use;
  uint32_t* packed_keys = (uint32_t*)scratch;
  uint32_t* packed_values = packed_keys + size_t(D / 2) * TILE;
  float* scores = (float*)(packed_values + size_t(TILE / 2) * D);
  bf16* weights = (bf16*)(scores + 2 * QUERIES * TILE);
  float* lane_sums = (float*)(weights + QUERIES * TILE);
  const int all = int(whole_groups(rows));
  const Softening soft(sight);
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + all * 16, 0.0f);
  std::fill(mixed, mixed + size_t(all) * D, 0.0f);
  std::fill(q + size_t(rows) * D, q + size_t(all) * D, bf16(0));
  for (int64_t j0 = begin, after; j0 < end; j0 = after) {
    after = tiles.next(j0, end);
    pack_tile<D>(tiles.with(j0), j0, int(std::min<int64_t>(TILE, end - j0)), packed_keys, packed_values);
    // The scores of the next queries are on their way while weights are made of these.
    int next = seen_group(position, rows, 0, j0, sight);
    if (next < rows) amx_scores<D>(q + size_t(next) * D, packed_keys, scores);
    for (int turn = 0; next < rows; turn ^= 1) {
      const int first = next, last = std::min(rows, first + QUERIES);
      float* const own = scores + turn * QUERIES * TILE;
      next = seen_group(position, rows, first + QUERIES, j0, sight);
      if (next < rows) amx_scores<D>(q + size_t(next) * D, packed_keys, scores + (turn ^ 1) * QUERIES * TILE);
      if (last < first + QUERIES) std::memset(weights, 0, QUERIES * TILE * sizeof(bf16));
      for (int r = first; r < last; r++)
        tile_weights<D>(own + (r - first) * TILE, j0, seen_from(position[r], sight), sight, soft.log2, row_max + r,
                        lane_sums + r * 16, mixed + size_t(r) * D, weights + (r - first) * TILE);
      amx_mix<D>(weights, packed_values, mixed + size_t(first) * D);
    }
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= soft.scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + r * 16));
  }
}

}  // namespace

#endif
