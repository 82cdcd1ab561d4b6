// Indexed attention in a decode step: rows of the index, the keys that rows choose by it, and attention over those.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention.h"
#include "indexer.h"
#include "interface.h"
#include "latents.h"
#include "norms.h"
#include "numbers.h"
#include "scratch.h"
#include "step_worker.h"

namespace {

// Queries of an indexer, and the new rows of its keys, which lie behind all other projections in `qkv`.
OUT_OF_LINE void index_rows(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Indexer& i = *here.layer.indexer;
  const Norm none{};
  const int half = i.dim / 2, turned = all.model.turned;
  const size_t bytes = row_bytes(all.kv, half);
  for (int row = w.thread; row < all.T * (i.heads + 1); row += w.threads) {
    const int t = row / (i.heads + 1), head = row % (i.heads + 1);
    const Part& part = all.parts.of(t);
    const float *cos = part.row_of(part.asked->cos, turned, t), *sin = part.row_of(part.asked->sin, turned, t);
    if (head < i.heads) {
      bf16* const to = all.index_turned + (size_t(t) * i.heads + head) * i.dim;
      turn(none, i.rope, all.index_queries + size_t(t) * i.query.rows, i.heads, head, cos, sin, i.dim, to);
      continue;
    }
    bf16 key[512];
    float numbers[512];
    normalise(i.norm, all.qkv + size_t(t) * here.widths.qkv + here.layer.qkv.rows, i.dim, key);
    for (int d = 0; d < i.dim; d++) numbers[d] = to_float(key[d]);
    turn(none, i.rope, numbers, 1, 0, cos, sin, i.dim, key);
    const size_t to = size_t(part.cache_row(t)) * bytes;
    store_row(all.kv, key, half, (uint8_t*)part.tail().keys[i.slot] + to);
    store_row(all.kv, key + half, half, (uint8_t*)part.tail().values[i.slot] + to);
  }
}

// The scores of all keys for the rows that choose some: a chunk of a part's keys is a task.
inline void score_keys(const Worker& w, const LayerStep& here) {
  Workspace& all = w.all;
  const Layer& layer = here.layer;
  const Indexer& i = *layer.indexer;
  const size_t longest = all.places.choice.longest, wide = here.widths.qkv;
  const float* const weights = all.qkv + layer.qkv.rows + i.key.rows;  // (T, wide)
  const auto scores_of = all.kv == KV_INT8 ? index_scores<KV_INT8> : index_scores<KV_BF16>;
  int task = all.next++, first = 0;
  for (const Part& part : all.parts.part) {
    const int from = first_choosing(part, layer.chosen), chunks = from < part.rows ? part.chunks : 0;
    for (; task < first + chunks; task = all.next++) {
      const int64_t begin = int64_t(task - first) * CHUNK;
      const int64_t end = std::min<int64_t>(part.position() + part.rows, begin + CHUNK);
      const size_t row = size_t(part.first);
      scores_of(i, part, from, all.index_turned + row * i.query.rows, weights + row * wide, wide, begin, end,
                all.index_scores + row * longest, longest, w.space);
    }
    first += chunks;
  }
}

// Which keys the rows see that choose some: those with the best scores.
OUT_OF_LINE void choose_keys(const Worker& w, const LayerStep& here) {
  Workspace& all = w.all;
  const int chosen = here.layer.chosen;
  score_keys(w, here);
  w.team.barrier();
  w.share_tasks();
  for (int t = all.next++; t < all.T; t = all.next++) {
    const Part& part = all.parts.of(t);
    const int own = t - part.first;
    if (own < first_choosing(part, chosen)) continue;
    choose(all.index_scores + size_t(t) * all.places.choice.longest, part.position() + own + 1, chosen, w.space,
           all.chosen_keys + size_t(t) * size_t(chosen));
  }
  w.team.barrier();
  w.share_tasks();
}

// A thread's room for the attention of the heads of a key over a chunk of chosen keys; `chosen_floats` counts it.
struct ChosenRoom {
  int64_t* position;         // (G,)
  bf16* queries;             // (G, width)
  uint8_t *keys, *latents;   // rows of a cache
  float *max, *sum, *mixed;  // (G,), (G,) and (G, rank)
  float* scratch;

  ChosenRoom(float* space, size_t G, const Widths& widths) : position((int64_t*)space) {
    queries = (bf16*)(space + whole_lines(G * sizeof(int64_t) / sizeof(float)));
    float* const rows = (float*)queries + whole_lines(G * widths.query / 2 + LINE);
    keys = (uint8_t*)rows;
    latents = (uint8_t*)(rows + whole_lines(CHUNK * widths.key_bytes / sizeof(float)));
    max = (float*)latents + whole_lines(CHUNK * widths.value_bytes / sizeof(float));
    sum = max + whole_lines(G), mixed = sum + whole_lines(G);
    scratch = mixed + whole_lines(G * widths.mixed);
  }
};

// The attention of a row's heads `kv` over a chunk of the keys that the row has chosen.
inline void attend_chosen_chunk(const Workspace& all, const LayerStep& here, const ChosenRoom& room, int t, int kv,
                                int chunk) {
  const Layer& layer = here.layer;
  const Latent& l = *layer.latent;
  const int G = here.heads.G;
  const size_t width = here.widths.query, rank = size_t(l.rank);
  const size_t key_bytes = here.widths.key_bytes, value_bytes = here.widths.value_bytes;
  const Part& part = all.parts.of(t);
  const int own = t - part.first, begin = chunk * CHUNK, count = std::min(CHUNK, layer.chosen - begin);
  const int32_t* const chosen = all.chosen_keys + size_t(t) * size_t(layer.chosen) + begin;
  TextRows text(part, layer.slot, key_bytes, value_bytes);
  for (int j = 0; j < count; j++) text.copy(chosen[j], room.keys + j * key_bytes, room.latents + j * value_bytes);
  for (int g = 0; g < G; g++) {
    room.position[g] = layer.chosen - 1;
    const bf16* const of_head = all.q + (size_t(part.first) * all.H + (size_t(kv) * G + g) * part.rows + own) * width;
    std::memcpy(room.queries + size_t(g) * width, of_head, width * sizeof(bf16));
  }
  const HeadSegment segment{begin, room.keys, room.latents};
  const auto attend_own = latent_attention(all.kv);
  attend_own(l.rank, l.rotated, room.queries, G, room.position, {&segment, 1}, begin, begin + count, layer.sight,
             room.max, room.sum, room.mixed, room.scratch);
  const Place& place = here.heads.places[part.first_place + size_t(chunk)];
  for (int g = 0; g < G; g++) {
    const size_t at = place.offset + size_t(kv) * place.stride + size_t(g) * part.rows + own;
    all.partial.max[at] = room.max[g], all.partial.sum[at] = room.sum[g];
    std::copy(room.mixed + size_t(g) * rank, room.mixed + size_t(g + 1) * rank, all.partial.mixed + at * rank);
  }
}

// The attention of rows over the keys that they have chosen: in place of what they have of all keys.
OUT_OF_LINE void attend_chosen(const Worker& w, const LayerStep& here) {
  Workspace& all = w.all;
  const int chosen = here.layer.chosen, chunks = (chosen + CHUNK - 1) / CHUNK, KV = here.heads.KV;
  const ChosenRoom room(w.space, size_t(here.heads.G), here.widths);
  for (int task = all.next++; task < all.T * KV * chunks; task = all.next++) {
    const int t = task / (KV * chunks);
    const Part& part = all.parts.of(t);
    if (t - part.first >= first_choosing(part, chosen))
      attend_chosen_chunk(all, here, room, t, task / chunks % KV, task % chunks);
  }
}

}  // namespace
