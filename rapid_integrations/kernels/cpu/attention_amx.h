// Attention on the processor's matrix units (amx.h): what `attend_chunk` does, 32 queries at a time.

#pragma once

#include "amx.h"
#include "attention.h"

#if RAPID_AMX

namespace {

constexpr int QUERIES = 2 * SIDE;  // whose scores are formed together, and turned into weights at once

inline size_t whole_groups(size_t rows) { return (rows + QUERIES - 1) / QUERIES * QUERIES; }

// Floats of scratch space for one call of `attend_on_amx`.
inline size_t amx_floats(int D, int rows) {
  return size_t(D) * TILE * 3 / 2 + QUERIES * TILE * 5 / 2 + whole_groups(rows) * 16 + 64;
}

// scores (32, 64) of 32 queries with a tile of keys, as `tile_scores`. If BOTH is false, of the first 16.
template <int D, bool BOTH>
WITH_AMX inline void amx_scores(const bf16* q, const uint32_t* packed, float* scores) {
  for (int half = 0; half < TILE; half += 2 * SIDE) {
    AMX_ZERO(0);
    AMX_ZERO(1);
    if constexpr (BOTH) {
      AMX_ZERO(2);
      AMX_ZERO(3);
    }
    for (int d = 0; d < D; d += 32) {
      const uint32_t* keys = packed + size_t(d / 2) * TILE + half;
      AMX_LOAD(6, keys, TILE * 4);
      AMX_LOAD(7, keys + SIDE, TILE * 4);
      AMX_LOAD(4, q + d, D * sizeof(bf16));
      AMX_DOT(0, 4, 6);
      AMX_DOT(1, 4, 7);
      if constexpr (BOTH) {
        AMX_LOAD(5, q + SIDE * D + d, D * sizeof(bf16));
        AMX_DOT(2, 5, 6);
        AMX_DOT(3, 5, 7);
      }
    }
    AMX_STORE(0, scores + half, TILE * 4);
    AMX_STORE(1, scores + half + SIDE, TILE * 4);
    if constexpr (BOTH) {
      AMX_STORE(2, scores + SIDE * TILE + half, TILE * 4);
      AMX_STORE(3, scores + SIDE * TILE + half + SIDE, TILE * 4);
    }
  }
}

// mixed (32, D) += weights (32, 64) x values, as `tile_mix`. If BOTH is false, the first 16 rows.
template <int D, bool BOTH>
WITH_AMX inline void amx_mix(const bf16* weights, const uint32_t* packed, float* mixed) {
  constexpr int64_t ROW = D * sizeof(float);
  for (int d = 0; d < D; d += 2 * SIDE) {
    AMX_LOAD(0, mixed + d, ROW);
    AMX_LOAD(1, mixed + d + SIDE, ROW);
    if constexpr (BOTH) {
      AMX_LOAD(2, mixed + SIDE * D + d, ROW);
      AMX_LOAD(3, mixed + SIDE * D + d + SIDE, ROW);
    }
    for (int j = 0; j < TILE; j += 32) {
      const uint32_t* values = packed + size_t(j / 2) * D + d;
      AMX_LOAD(6, values, D * 4);
      AMX_LOAD(7, values + SIDE, D * 4);
      AMX_LOAD(4, weights + j, TILE * sizeof(bf16));
      AMX_DOT(0, 4, 6);
      AMX_DOT(1, 4, 7);
      if constexpr (BOTH) {
        AMX_LOAD(5, weights + SIDE * TILE + j, TILE * sizeof(bf16));
        AMX_DOT(2, 5, 6);
        AMX_DOT(3, 5, 7);
      }
    }
    AMX_STORE(0, mixed + d, ROW);
    AMX_STORE(1, mixed + d + SIDE, ROW);
    if constexpr (BOTH) {
      AMX_STORE(2, mixed + SIDE * D + d, ROW);
      AMX_STORE(3, mixed + SIDE * D + d + SIDE, ROW);
    }
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

// `attend_chunk` on matrix units. `q` and `mixed` have room for whole groups of 32 rows. A cache that is READ_ONCE comes
// from memory; a prompt's queries meet it again and again.
template <int D, bool READ_ONCE>
WITH_AMX void attend_on_amx(bf16* q, int rows, const int64_t* position, Tiles tiles, int64_t begin, int64_t end,
                            const Sight& sight, float* row_max, float* row_sum, float* mixed, float* scratch) {
  const AmxTiles in_use;
  constexpr size_t KEYS = size_t(D / 2) * TILE;
  uint32_t* packed_keys = (uint32_t*)scratch;  // of two tiles
  uint32_t* packed_values = packed_keys + 2 * KEYS;
  float* scores = (float*)(packed_values + size_t(TILE / 2) * D);  // of two groups
  bf16* weights = (bf16*)(scores + 2 * QUERIES * TILE);
  float* lane_sums = (float*)(weights + QUERIES * TILE);
  const int all = int(whole_groups(rows));
  const Softening soft(sight);
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(lane_sums, lane_sums + rows * 16, 0.0f);
  std::fill(mixed, mixed + size_t(all) * D, 0.0f);
  std::fill(q + size_t(rows) * D, q + size_t(all) * D, bf16(0));
  std::memset(weights, 0, QUERIES * TILE * sizeof(bf16));

  // Goes through all tiles, and through the groups of queries of which one sees a key of the tile. A group's scores are
  // formed one turn ahead: they are on their way while weights are made of those before.
  struct Turn {
    int64_t tile;
    int first;
    unsigned tiles;  // so far
  };
  const auto behind = [&](Turn turn) {
    turn.first = seen_group(position, rows, turn.first + QUERIES, turn.tile, sight);
    while (turn.first >= rows && (turn.tile = tiles.next(turn.tile, end)) < end) {
      turn.tiles++;
      turn.first = seen_group(position, rows, 0, turn.tile, sight);
    }
    return turn;
  };
  // Packs the keys or the values of a tile, and asks for those of the next one.
  const auto pack = [&](int64_t tile, const uint8_t* HeadSegment::* part, auto pack_rows, uint32_t* packed) {
    const auto rows_from = [&](int64_t at) {
      const HeadSegment& segment = tiles.later(at);
      return (const bf16*)(segment.*part) + (at - segment.begin) * D;
    };
    const int present = int(std::min<int64_t>(TILE, end - tile));
    pack_rows(rows_from(tile), present, packed, READ_ONCE ? rows_from(tiles.next(tile, end)) : nullptr);
  };
  const auto score = [&](const Turn& turn, bool new_tile, float* to) WITH_AMX {
    uint32_t* const packed = packed_keys + turn.tiles % 2 * KEYS;
    if (new_tile) pack(turn.tile, &HeadSegment::keys, pack_keys<D>, packed);
    if (turn.first + SIDE < rows)
      amx_scores<D, true>(q + size_t(turn.first) * D, packed, to);
    else
      amx_scores<D, false>(q + size_t(turn.first) * D, packed, to);
  };

  Turn turn = behind({begin, -QUERIES, 0});
  bool new_tile = true, odd = false;
  if (turn.tile < end) score(turn, true, scores);
  while (turn.tile < end) {
    const Turn next = behind(turn);
    const bool next_is_new = next.tile != turn.tile;
    float* const own = scores + odd * QUERIES * TILE;
    odd = !odd;
    if (next.tile < end) score(next, next_is_new, scores + odd * QUERIES * TILE);
    if (new_tile) {
      tiles.with(turn.tile);  // the segments before it are done with
      pack(turn.tile, &HeadSegment::values, pack_values<D>, packed_values);
    }
    const int first = turn.first, last = std::min(rows, first + QUERIES);
    if (first > 0 && last < first + QUERIES)
      std::memset(weights + (last - first) * TILE, 0, (first + QUERIES - last) * TILE * sizeof(bf16));
    for (int r = first; r < last; r++)
      tile_weights<D>(own + (r - first) * TILE, turn.tile, seen_from(position[r], sight), sight, soft.log2, row_max + r,
                      lane_sums + r * 16, mixed + size_t(r) * D, weights + (r - first) * TILE);
    if (first + SIDE < rows)
      amx_mix<D, true>(weights, packed_values, mixed + size_t(first) * D);
    else
      amx_mix<D, false>(weights, packed_values, mixed + size_t(first) * D);
    turn = next, new_tile = next_is_new;
  }
  for (int r = 0; r < rows; r++) {
    row_max[r] *= soft.scale;
    row_sum[r] = sum16(_mm512_loadu_ps(lane_sums + r * 16));
  }
}

}  // namespace

#endif
