// From the rows of a layer in a decode step to heads: the first product, rotations, and the new rows of the caches.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "attention.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_shared_blocks.h"
#include "step_worker.h"

namespace {

// qkv (T, wide) = what the first products of a layer give: queries, keys, values, and what else its Widths count.
inline void project(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  const size_t wide = here.widths.qkv;
  const int T = all.T;
  float* const qkv = all.qkv;
  const Input in = layer.with_embedding
                       ? normed_both(w, layer.before_attention, layer.qkv)
                       : w.normed(here.reads_aside ? all.aside : all.x, layer.before_attention, T, layer.qkv);
  const Share<int> s = w.multiply(layer.qkv, in, T, qkv, wide);
  if (const Adapter* a = layer.qkv_adapter) {
    go_low(w, *a, Input{w.mine, {}, in.columns, in.stride}, T);
    w.team.barrier();
    go_up(w, *a, s.first, s.last, T, qkv + s.first, wide, w.space);
  }
  if (const Recurrence* r = layer.recurrence) w.multiply(r->rates, in, T, qkv + layer.qkv.rows, wide, 1);
  if (const Indexer* i = layer.indexer) {
    float* const keys = qkv + layer.qkv.rows;
    w.multiply(i->weights, in, T, keys + i->key.rows, wide, 1);
    w.multiply(i->key, w.given_again(in, T, layer.qkv, i->key), T, keys, wide);
  }
  if (layer.laurel) all.laurel.go_left(*layer.laurel, in, T, w.thread, w.team);
}

// x (D,) times its factors, rounded again.
inline void scale_row(bf16* x, int D, const float* factors) {
  for (int d = 0; d < D; d++) x[d] = to_bf16(to_float(x[d]) * factors[d]);
}

// The heads of a row: its queries as they meet keys, in `q`, and its keys and values, in the cache.
struct RowHeads {
  const Workspace& all;
  const LayerStep& here;
  const Layer& layer;
  const int t, H, KV, D;
  const Part& part;
  const float* const projected;  // (H + 2 KV, D)

  RowHeads(const Workspace& all, const LayerStep& here, int t)
      : all(all),
        here(here),
        layer(here.layer),
        t(t),
        H(here.heads.KV * here.heads.G),
        KV(here.heads.KV),
        D(layer.head_dim),
        part(all.parts.of(t)),
        projected(all.qkv + size_t(t) * here.widths.qkv) {}

  void write_query(int head) const {
    bf16* const to = all.q + (size_t(part.first) * H + size_t(head) * part.rows + t - part.first) * D;
    rotate(layer.query, projected, H, head, head, to);
    if (!layer.growth_every) return;
    const float factor = growth_of(layer, part.asked->past + part.rows_before(t));
    for (int d = 0; d < D; d++) to[d] = to_bf16(to_float(to[d]) * factor);
  }

  void write_key(int head) const {
    bf16 row[512];
    rotate(layer.key, projected + size_t(H) * D, KV, head, H + head, row);
    store_row(all.kv, row, D, stored(part.tail().keys, head));
  }

  void write_value(int head) const {
    const float *const values = projected + size_t(H + KV) * D, *v = values + size_t(head) * D;
    bf16 row[512];
    float normalised[512];
    if (layer.value.kind != NO_NORM) {
      std::copy(v, v + D, normalised);
      normalise_head(layer.value, values, KV, head, D, normalised);
      v = normalised;
    }
    for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
    store_row(all.kv, row, D, stored(part.tail().values, head));
  }

 private:
  // to (D,) = one of `heads` heads, normalised, rotated and balanced. It is number `place` among queries and keys.
  void rotate(const Norm& norm, const float* from, int heads, int head, int place, bf16* to) const {
    const int turned = all.model.turned;
    const float* const cos = part.row_of(part.asked->cos, turned, t);
    const float* const sin = part.row_of(part.asked->sin, turned, t);
    turn(norm, layer.rope, from, heads, head, cos, sin, D, to);
    if (layer.balance) scale_row(to, D, (const float*)layer.balance + size_t(place) * D);
  }

  // Where a head's row lies in the cache.
  uint8_t* stored(void* const* rows, int head) const {
    const size_t row = size_t(head) * size_t(part.tail().capacity) + size_t(part.cache_row(t));
    return (uint8_t*)rows[layer.slot] + row * here.widths.key_bytes;
  }
};

// Every head of every row is a task.
inline void write_heads(const Worker& w, const LayerStep& here) {
  const int KV = here.heads.KV, H = KV * here.heads.G, count = here.layer.shares ? H : H + 2 * KV;  // that a row has
  for (int i = w.thread; i < w.all.T * count; i += w.threads) {
    const RowHeads row(w.all, here, i / count);
    const int head = i % count;
    if (head < H)
      row.write_query(head);
    else if (head < H + KV)
      row.write_key(head - H);
    else
      row.write_value(head - H - KV);
  }
}

}  // namespace
