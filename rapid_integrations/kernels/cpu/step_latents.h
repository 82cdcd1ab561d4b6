// Latent attention in a decode step: queries as they meet latents, the new rows of the caches, and values of what heads
// mix.

#pragma once

#include <cstddef>
#include <cstdint>

#include "attention.h"
#include "interface.h"
#include "latents.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_choice.h"
#include "step_heads.h"
#include "step_worker.h"

namespace {

struct HeadQueries {  // of all rows: (T, H, plain + rotated)
  const float* data;
  size_t apart;       // from row to row
};

// What a second product makes of compressed queries, and of the same the queries of an indexer.
inline HeadQueries second_queries(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Latent& l = *here.layer.latent;
  const int T = all.T, compressed = l.query_up.columns;
  for (int t = 0; t < T; t++)
    normalise(l.query, all.qkv + size_t(t) * here.widths.qkv, compressed, w.mine + t * padded(compressed));
  const Input in = w.given(w.mine, T, compressed, l.query_up);
  w.multiply(l.query_up, in, T, all.queries, size_t(l.query_up.rows));
  if (const Indexer* i = here.layer.indexer)
    w.multiply(i->query, w.given_again(in, T, l.query_up, i->query), T, all.index_queries, size_t(i->query.rows));
  w.team.barrier();
  return {all.queries, size_t(l.query_up.rows)};
}

// to (rotated,) = the rotated numbers of a head of row t; behind the heads' come those of the key that all share.
inline void turn_rotated(const Workspace& all, const Layer& layer, int t, const float* from, int head, bf16* to) {
  const Norm none{};
  const Part& part = all.parts.of(t);
  const int turned = all.model.turned, rotated = layer.latent->rotated;
  turn(none, layer.rope, from, 1, 0, part.row_of(part.asked->cos, turned, t), part.row_of(part.asked->sin, turned, t),
       rotated, to);
  if (layer.balance) scale_row(to, rotated, (const float*)layer.balance + size_t(head) * rotated);
}

// The latent and the rotated key of row t, in the cache.
inline void write_latent(const Workspace& all, const LayerStep& here, int t) {
  const Layer& layer = here.layer;
  const Latent& l = *layer.latent;
  const Part& part = all.parts.of(t);
  const size_t to = size_t(part.cache_row(t));
  const float* latent = all.qkv + size_t(t) * here.widths.qkv + layer.qkv.rows - l.rotated - l.rank;
  bf16 row[512];
  normalise(l.latent, latent, l.rank, row);
  store_row(all.kv, row, l.rank, (uint8_t*)part.tail().values[layer.slot] + to * here.widths.value_bytes);
  turn_rotated(all, layer, t, latent + l.rank, all.H, row);
  store_row(all.kv, row, l.rotated, (uint8_t*)part.tail().keys[layer.slot] + to * here.widths.key_bytes);
}

// Queries as they meet latents and rotated keys, in `q`, and the new rows of the caches.
OUT_OF_LINE void write_latents(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Latent& l = *here.layer.latent;
  const int T = all.T, H = all.H;
  const size_t both = size_t(l.plain + l.rotated), width = here.widths.query;
  const HeadQueries queries = l.query_up.rows ? second_queries(w, here) : HeadQueries{all.qkv, here.widths.qkv};
  for (int head = w.thread; head < H; head += w.threads) {
    for (int t = 0; t < T; t++)
      for (int d = 0; d < l.plain; d++)
        w.mine[t * padded(l.plain) + d] = to_bf16(queries.data[t * queries.apart + head * both + d]);
    const Input in = w.given(w.mine, T, l.plain, l.keys[head]);
    product(l.keys[head], 0, l.rank, in, T, {w.space, size_t(l.rank), 0});
    for (int t = 0; t < T; t++) {
      const Part& part = all.parts.of(t);
      bf16* const to = all.q + (size_t(part.first) * H + size_t(head) * part.rows + t - part.first) * width;
      const float grown = growth_of(here.layer, part.position() + t - part.first);
      for (int d = 0; d < l.rank; d++) to[d] = to_bf16(grown * w.space[size_t(t) * l.rank + d]);
      turn_rotated(all, here.layer, t, queries.data + t * queries.apart + head * both + l.plain, head, to + l.rank);
      if (!here.layer.growth_every) continue;
      for (size_t d = size_t(l.rank); d < width; d++) to[d] = to_bf16(grown * to_float(to[d]));
    }
  }
  for (int t = w.thread; t < T; t += w.threads) write_latent(all, here, t);
  if (here.layer.indexer) index_rows(w, here);
}

// by_head = the values of what heads mix of latents. mix(t, head, to) writes what a head of row t has mixed.
template <class Mix>
inline void latents_to_values(const Worker& w, const LayerStep& here, const Mix& mix) {
  const Latent& l = *here.layer.latent;
  const size_t stride = padded(here.layer.out.columns);
  const int rows = here.rows;
  for (int head = w.thread; head < w.all.H && rows > 0; head += w.threads) {
    for (int i = 0; i < rows; i++) mix(here.row_at(i), head, w.mine + size_t(i) * padded(l.rank));
    const Input in = w.given(w.mine, rows, l.rank, l.values[head]);
    product(l.values[head], 0, l.value, in, rows, {w.space, size_t(l.value), 0});
    for (int i = 0; i < rows; i++)
      for (int d = 0; d < l.value; d++)
        w.all.by_head[i * stride + size_t(head) * l.value + d] = to_bf16(w.space[size_t(i) * l.value + d]);
  }
}

}  // namespace
