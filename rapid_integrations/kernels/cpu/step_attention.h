// The attention of a layer in a decode step: over chunks of keys, whose results are then mixed. Chunks begin at
// absolute positions, so that a row's sums run in one order whatever is read with it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "attend.h"
#include "indexer.h"
#include "interface.h"
#include "latents.h"
#include "numbers.h"
#include "scratch.h"
#include "step_choice.h"
#include "step_heads.h"
#include "step_latents.h"
#include "step_worker.h"

namespace {

// The queries of a group of parts that meet a chunk's keys together, for the heads of one key.
struct Queries {
  const bf16* data;         // (rows of the group, numbers of a query)
  int64_t* position;        // of each row
  int64_t begin;            // of the chunk
  int64_t first, end;       // keys that any of them sees, in whole tiles from the first on
};

// Lays them behind each other, in this thread's own space, if they are of several parts.
inline Queries gather_queries(const Worker& w, const LayerStep& here, const Group& group, int kv) {
  const Workspace& all = w.all;
  const Heads& heads = here.heads;
  const size_t width = here.widths.query;
  const int64_t begin = int64_t(group.chunk) * CHUNK;
  bf16* const together = (bf16*)(w.space + whole_lines(size_t(heads.most_rows) * sizeof(int64_t) / sizeof(float)));
  Queries out{together, (int64_t*)w.space, begin, begin + CHUNK, begin};
  int row = 0;
  for (const int r : group.members) {
    const Part& part = all.parts.part[size_t(r)];
    const int each = heads.G * part.rows;
    const bf16* own = all.q + (size_t(part.first) * size_t(heads.KV * heads.G) + size_t(kv) * each) * width;
    if (group.members.size() == 1)
      out.data = own;
    else
      std::memcpy(together + size_t(row) * width, own, size_t(each) * width * sizeof(bf16));
    for (int i = 0; i < each; i++) out.position[row++] = part.position() + i % part.rows;
    const int64_t oldest = seen_from(part.position(), here.layer.sight).begin;
    const int64_t first = oldest <= begin ? begin : begin + std::min<int64_t>(oldest - begin, CHUNK) / TILE * TILE;
    out.first = std::min(out.first, first);
    out.end = std::max(out.end, std::min<int64_t>(part.position() + part.rows, begin + CHUNK));
  }
  return out;
}

constexpr int MOST_SEGMENTS = CHUNK / TILE + 2;  // that lie in a chunk

// A tree's rows lie beside each other. Those of a chain are laid where the rows of a text would lie, from position
// `from` on: so sums run in the same order.
inline HeadSegment gather_path(const Worker& w, const LayerStep& here, const Part& member, size_t head, int64_t from,
                               int64_t end) {
  const Places& places = w.all.places;
  const Segment& tail = member.tail();
  const size_t key_bytes = here.widths.key_bytes, value_bytes = here.widths.value_bytes;
  const int64_t past = member.asked->past;
  const uint8_t* const all_keys = (const uint8_t*)tail.keys[here.layer.slot];
  const uint8_t* const all_values = (const uint8_t*)tail.values[here.layer.slot];
  uint8_t* const keys = (uint8_t*)(w.space + places.gathered - whole_lines(places.gathered_rows * places.row));
  uint8_t* const values = keys + places.gathered_rows * key_bytes;
  for (int64_t at = from; at < end; at++) {
    const int64_t held = at < past ? at : past + member.path[size_t(at - past)];
    const size_t row = head * size_t(tail.capacity) + size_t(held - tail.begin), to = size_t(at - from);
    std::memcpy(keys + to * key_bytes, all_keys + row * key_bytes, key_bytes);
    std::memcpy(values + to * value_bytes, all_values + row * value_bytes, value_bytes);
  }
  return {from, keys, values};
}

// Where a head's keys and values of a chunk lie, in `segments`. Returns how many of them there are.
inline int segments_of(const Worker& w, const LayerStep& here, const Part& member, int kv, const Queries& queries,
                       HeadSegment* segments) {
  const int slot = here.layer.slot;
  const Rows& any = *member.asked;
  const size_t head = here.layer.latent ? 0 : size_t(kv);  // all heads share latents
  int count = 0;
  for (const Segment* s = any.segment; s != any.segment + any.segments && s->begin < queries.end; s++) {
    if (s + 1 != any.segment + any.segments && s[1].begin <= queries.begin) continue;
    const size_t first = head * size_t(s->capacity);
    segments[count++] = {s->begin, (const uint8_t*)s->keys[slot] + first * here.widths.key_bytes,
                         (const uint8_t*)s->values[slot] + first * here.widths.value_bytes};
  }
  if (!member.path.empty() && any.past < queries.end) {
    const int64_t from = std::max(queries.begin, any.past / TILE * TILE);  // the tile in which its rows begin
    while (count && segments[count - 1].begin >= from) count--;
    segments[count++] = gather_path(w, here, member, head, from, queries.end);
  }
  return count;
}

// What each row has of each chunk, in `partial`: a group's chunk is a task for each key head.
OUT_OF_LINE void attend_chunks(const Worker& w, const LayerStep& here) {
  Workspace& all = w.all;
  const Layer& layer = here.layer;
  const Heads& heads = here.heads;
  const auto all_choose = [&](int r) {
    return here.choosing && first_choosing(all.parts.part[size_t(r)], layer.chosen) == 0;
  };
  for (size_t number = size_t(all.next++); number < heads.tasks.size(); number = size_t(all.next++)) {
    const Task& task = heads.tasks[number];
    const Group& group = heads.groups[size_t(task.group)];
    if (std::all_of(group.members.begin(), group.members.end(), all_choose)) continue;
    const Queries queries = gather_queries(w, here, group, task.kv);
    HeadSegment segments[MOST_SEGMENTS];  // those that begin before the chunk ends
    const int count = segments_of(w, here, all.parts.part[size_t(group.members[0])], task.kv, queries, segments);
    const size_t at = group.partial + size_t(task.kv) * group.rows;
    float *const max = all.partial.max + at, *const sum = all.partial.sum + at;
    float *const mixed = all.partial.mixed + at * here.widths.mixed, *const scratch = w.space + all.places.gathered;
    if (const Latent* l = layer.latent)
      latent_attention(all.kv)(l->rank, l->rotated, queries.data, group.rows, queries.position, {segments, count},
                               queries.first, queries.end, layer.sight, max, sum, mixed, scratch);
    else
      attend_step(all.kv, layer.head_dim, heads.G, queries.data, group.rows, queries.position, {segments, count},
                  queries.first, queries.end, layer.sight, max, sum, mixed, scratch);
  }
}

// to (numbers of a value,) = what a head of row t mixes of all chunks.
OUT_OF_LINE void mix_chunks(const Workspace& all, const LayerStep& here, int t, int head, bf16* to) {
  const Layer& layer = here.layer;
  const Heads& heads = here.heads;
  const Partial& partial = all.partial;
  const Part& part = all.parts.of(t);
  const int width = int(here.widths.mixed), row = head % heads.G * part.rows + t - part.first;
  const bool chooses = here.choosing && t - part.first >= first_choosing(part, layer.chosen);
  const int chunks = chooses ? (layer.chosen + CHUNK - 1) / CHUNK : part.chunks;
  const auto at = [&](int c) {
    const Place& place = heads.places[part.first_place + size_t(c)];
    return place.offset + size_t(head / heads.G) * place.stride + size_t(row);
  };
  float highest = -std::numeric_limits<float>::infinity(), sum = 0;
  for (int c = 0; c < chunks; c++) highest = std::max(highest, partial.max[at(c)]);
  float out[512] = {};
  for (int c = 0; c < chunks; c++) {
    if (partial.sum[at(c)] == 0) continue;
    const float weight = std::exp(partial.max[at(c)] - highest);
    sum += weight * partial.sum[at(c)];
    const float* mixed = partial.mixed + at(c) * here.widths.mixed;
    for (int d = 0; d < width; d++) out[d] += weight * mixed[d];
  }
  if (layer.sinks) {
    const Shares with = with_sink(highest, sum, sink_of(layer.sinks, head));
    sum = with.sum;
    for (int d = 0; d < width; d++) out[d] *= with.factor;
  }
  if (layer.output_gates) {
    const size_t before = size_t(heads.KV) * size_t(heads.G + 2) * size_t(layer.head_dim);  // queries, keys and values
    gate_head(layer, all.qkv + size_t(t) * here.widths.qkv + before, head, layer.head_dim, out);
  }
  for (int d = 0; d < width; d++) to[d] = to_bf16(out[d] / sum);
}

// by_head = what the heads of the rows that go on give.
inline void attend_layer(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  if (layer.latent)
    write_latents(w, here);
  else
    write_heads(w, here);
  w.share_tasks();
  if (here.choosing && layer.indexer) choose_keys(w, here);
  attend_chunks(w, here);
  w.team.barrier();
  if (here.choosing) {
    w.share_tasks();
    attend_chosen(w, here);
    w.team.barrier();
  }
  if (layer.latent)
    return latents_to_values(w, here, [&](int t, int head, bf16* to) { mix_chunks(all, here, t, head, to); });
  const int H = here.heads.KV * here.heads.G;
  const size_t stride = padded(layer.out.columns);
  for (int i = w.thread; i < H * here.rows; i += w.threads) {
    const int place = i / H, head = i % H;
    mix_chunks(all, here, here.row_at(place), head, all.by_head + place * stride + size_t(head) * layer.head_dim);
  }
}

}  // namespace
