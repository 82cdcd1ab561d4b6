// One forward pass of a Llama-like decoder for a few new tokens (a decode or verify step), on a processor.
//
// A step reads every weight and every cached key and value once, for one to some thirty rows of input, of one reader or
// of several with a cache each (target and drafter of a request, or requests of several people). What PyTorch's
// operators cost beyond that is calls, thread synchronisation and kernels made for many rows. Here the whole step is
// one parallel region. Activations are float32, and rounded to bfloat16 where they enter a product, as the model does.
//
// Every row is computed in the same order of operations whatever the number of rows, of threads or of tokens behind
// it: sums over a weight's columns run in one fixed order, and attention is split at absolute positions. A token thus
// gets bit for bit the same logits alone, among the drafts that are verified with it, and in company of other readers.
// That holds for readers whose texts share a beginning, too: their queries meet its keys together, chunk by chunk. The
// chains of a tree of drafts are like such readers.
//
// Plain C interface, no PyTorch headers: it compiles in seconds. `interface.h` has the structs.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "attend.h"
#include "experts.h"
#include "indexer.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "recurrence.h"
#include "scratch.h"
#include "step_ends.h"
#include "step_parts.h"
#include "step_places.h"
#include "step_streams.h"
#include "threads.h"

namespace {

struct Partial {  // of a row and a chunk: the highest score, the sum of the weights, and the values mixed with them
  float* max;
  float* sum;
  float* mixed;  // of each of them so many numbers as a value has
};

}  // namespace

extern "C" {

// Floats of scratch space that a step needs, whatever its `scratch` says.
int64_t rapid_step_floats(const Model* model, const Step* step) {
  const Parts parts(*step);
  return int64_t(Places(*model, parts, HeadsOfLayers(*model, parts), step->kv).all(step->threads));
}

int rapid_serves_head_dim(int head_dim) { return head_dim_served(head_dim) ? 1 : 0; }

// Returns 0; 1 if an id is no token's; 2 if a logit is no number.
int rapid_decode_step(const Model* model, const Step* step) {
  const Parts parts(*step);
  const HeadsOfLayers heads_of(*model, parts);
  for (const Part& part : parts.part)
    for (int t = part.own; t < part.own + part.rows; t++)
      if (part.asked->ids[t] < 0 || part.asked->ids[t] >= model->vocabulary) return 1;
  const int T = parts.rows, kept = int(parts.kept.size());
  const int E = model->hidden, H = model->heads, kind = step->kv;
  const Places places(*model, parts, heads_of, kind);
  float* const base = align(step->scratch);
  float* qkv = base + places.qkv;
  bf16* q = (bf16*)(base + places.q);  // of each part (KV, G * its rows, numbers of a query)
  const Partial partial{base + places.max, base + places.sum, base + places.mixed};
  bf16* by_head = (bf16*)(base + places.heads);  // (T, of all heads), padded
  bf16* hidden = (bf16*)(base + places.hidden);  // (T, I), padded
  float* x = base + places.x;                    // (T, E)
  for (int t = 0; t < T; t++) {
    const Part& part = parts.part[parts.part_of[t]];
    const bf16* const learned = (const bf16*)part.asked->learned;
    const bf16* const position = learned ? learned + size_t(part.depth + t - part.first) * E : nullptr;
    embed(*model, part.asked->ids[part.own + t - part.first], position, x + size_t(t) * E);
  }
  std::atomic<int> next{0};
  std::atomic<bool> not_a_number{false};
  float *const before = base + places.before, *const added = base + places.added;  // (T, E)
  float *const of_mlp = base + places.branches, *const of_experts = of_mlp + size_t(T) * E;  // (T, E)
  float* const recurred = base + places.recurred;  // (T, what the heads of a recurrence give)
  float* const inputs = base + places.inputs;  // (T, layers, numbers of an input)
  const StreamRows streams{model->streams, base + places.streams, T, E};
  const LaurelRows laurel(base + places.laurel, T, E);
  float *const gates = base + places.gates, *const cutoffs = gates + size_t(T) * model->intermediate;  // of sparse MLPs
  const size_t widest = places.widest;
  float *const embedded = base + places.embedded, *const aside = base + places.aside;  // (T, E), if there are such layers
  if (places.aside != places.embedded) std::copy(x, x + size_t(T) * E, embedded);
  float* const index_queries = base + places.choice.queries;     // (T, heads D) of an indexer
  bf16* const index_turned = (bf16*)(base + places.choice.turned);
  float* const index_scores_of = base + places.choice.scores;    // (T, places.choice.longest)
  int32_t* const chosen_keys = (int32_t*)(base + places.choice.keys);  // (T, chosen), until another layer chooses
  bf16* const low = (bf16*)(base + places.low);  // (T, between the two matrices of an adapter), padded

  in_parallel(step->threads, [&](const int thread, Team& team) {
    const int threads = team.threads;
    float* const space = base + places.own + size_t(thread) * (places.space + places.input);
    bf16* const mine = (bf16*)(space + places.space);
    float* const rounded = space + places.space + T * padded(int(widest)) / 2;

    auto given = [&](const bf16* first, int rows, int columns, const Matrix& m, size_t stride = 0) {
      if (!stride) stride = padded(columns);
      if (m.kind == BF16) return Input{first, {}, columns, stride};
      return Input{first, round_groups(first, rows, columns, stride, rounded), columns, stride};
    };
    auto normed = [&](const float* from, const Norm& norm, int rows, const Matrix& m) {
      for (int t = 0; t < rows; t++) normalise(norm, from + size_t(t) * E, E, mine + t * padded(E));
      return given(mine, rows, E, m);
    };

    // x = x + factor * y for this thread's columns s, where row t of y begins at y + t * stride. If only some rows go on,
    // `taken` says which, and they move up. Rows as they were are kept in `before` if it is not null.
    auto add = [&](Share<int> s, const float* y, size_t stride, float factor, int rows, const int* taken, float* kept) {
      for (int t = 0; t < rows; t++) {
        // Columns of this thread alone, and never a row above t.
        const float* old = x + size_t(taken ? taken[t] : t) * E;
        if (kept) std::copy(old + s.first, old + s.last, kept + size_t(t) * E + s.first);
        for (int e = s.first; e < s.last; e++) x[size_t(t) * E + e] = old[e] + factor * y[t * stride + e - s.first];
      }
    };

    // space (rows, columns s) = what a norm leaves of `added` (rows, E), of which this thread has written its columns.
    auto behind = [&](const Norm& norm, Share<int> s, int rows) {
      team.barrier();
      const size_t count = size_t(s.last - s.first);
      for (int t = 0; t < rows; t++) {
        const float* y = added + size_t(t) * E;
        const Spread of = spread(norm, y, E);
        for (int e = s.first; e < s.last; e++)
          space[t * count + e - s.first] = (y[e] - of.mean) * of.factor * weight_of(norm, e) + bias_of(norm, e);
      }
    };

    // The same as `add` for what a norm stands behind.
    auto add_behind = [&](const Norm& norm, Share<int> s, float factor, int rows, const int* taken, float* kept) {
      behind(norm, s, rows);
      add(s, space, size_t(s.last - s.first), factor, rows, taken, kept);
    };

    auto add_product = [&](const Matrix& m, const Norm& norm, const Input& in, float factor, int rows, const int* taken,
                           float* kept) {
      const Share<int> s = share(E, PANEL, thread, threads);
      const size_t count = size_t(s.last - s.first);
      if (norm.kind == NO_NORM) {
        product(m, s.first, s.last, in, rows, {space, count, s.first});
        return add(s, space, count, factor, rows, taken, kept);
      }
      product(m, s.first, s.last, in, rows, {added, size_t(E), 0});
      add_behind(norm, s, factor, rows, taken, kept);
    };

    // Queries of an indexer, and the new rows of its keys, which lie behind `before` others in `qkv`.
    auto index_rows = [&](const Indexer& i, int before, const Widths& widths) NOT_INLINED {
      const Norm none{};
      const int half = i.dim / 2;
      const size_t bytes = row_bytes(kind, half);
      for (int row = thread; row < T * (i.heads + 1); row += threads) {
        const int t = row / (i.heads + 1), head = row % (i.heads + 1);
        const Part& part = parts.part[parts.part_of[t]];
        const size_t at = size_t(part.depth + t - part.first) * model->turned;
        const float *cos = part.asked->cos + at, *sin = part.asked->sin + at;
        if (head < i.heads) {
          bf16* const to = index_turned + (size_t(t) * i.heads + head) * i.dim;
          turn(none, i.rope, index_queries + size_t(t) * i.query.rows, i.heads, head, cos, sin, i.dim, to);
          continue;
        }
        bf16 key[512];
        float numbers[512];
        normalise(i.norm, qkv + size_t(t) * widths.qkv + before, i.dim, key);
        for (int d = 0; d < i.dim; d++) numbers[d] = to_float(key[d]);
        turn(none, i.rope, numbers, 1, 0, cos, sin, i.dim, key);
        const Segment& tail = part.tail();
        const size_t behind = size_t(part.asked->past - tail.begin + part.own + t - part.first) * bytes;
        store_row(kind, key, half, (uint8_t*)tail.keys[i.slot] + behind);
        store_row(kind, key + half, half, (uint8_t*)tail.values[i.slot] + behind);
      }
    };

    // Queries as they meet latents and rotated keys, and the new rows of the caches.
    auto latent_rows = [&](const Layer& layer, const Widths& widths) {
      const Latent& l = *layer.latent;
      const int wide = int(widths.qkv), width = int(widths.query);
      const size_t both = size_t(l.plain + l.rotated);
      const float* queries = qkv;  // (T, H, both)
      size_t apart = size_t(wide);
      if (l.query_up.rows) {
        const int compressed = l.query_up.columns;
        for (int t = 0; t < T; t++) normalise(l.query, qkv + size_t(t) * wide, compressed, mine + t * padded(compressed));
        const Input in = given(mine, T, compressed, l.query_up);
        const Share<int> s = share(l.query_up.rows, PANEL, thread, threads);
        float* const products = base + places.queries;
        product(l.query_up, s.first, s.last, in, T, {products, size_t(l.query_up.rows), 0});
        queries = products, apart = size_t(l.query_up.rows);
        if (const Indexer* i = layer.indexer) {
          const bool alike = i->query.kind == BF16 || l.query_up.kind != BF16;
          const Share<int> of_index = share(i->query.rows, PANEL, thread, threads);
          product(i->query, of_index.first, of_index.last, alike ? in : given(mine, T, compressed, i->query), T,
                  {index_queries, size_t(i->query.rows), 0});
        }
        team.barrier();
      }
      const Norm none{};
      const auto turned = [&](int t, const float* from, int head, bf16* to) {
        const Part& part = parts.part[parts.part_of[t]];
        const size_t at = size_t(part.depth + t - part.first) * model->turned;
        turn(none, layer.rope, from, 1, 0, part.asked->cos + at, part.asked->sin + at, l.rotated, to);
        if (layer.balance)
          for (int d = 0; d < l.rotated; d++)
            to[d] = to_bf16(to_float(to[d]) * ((const float*)layer.balance)[size_t(head) * l.rotated + d]);
      };
      for (int head = thread; head < H; head += threads) {
        for (int t = 0; t < T; t++)
          for (int d = 0; d < l.plain; d++) mine[t * padded(l.plain) + d] = to_bf16(queries[t * apart + head * both + d]);
        const Input in = given(mine, T, l.plain, l.keys[head]);
        product(l.keys[head], 0, l.rank, in, T, {space, size_t(l.rank), 0});
        for (int t = 0; t < T; t++) {
          const Part& part = parts.part[parts.part_of[t]];
          bf16* const to = q + (size_t(part.first) * H + size_t(head) * part.rows + t - part.first) * width;
          for (int d = 0; d < l.rank; d++) to[d] = to_bf16(space[size_t(t) * l.rank + d]);
          turned(t, queries + t * apart + head * both + l.plain, head, to + l.rank);
        }
      }
      for (int t = thread; t < T; t += threads) {
        const Part& part = parts.part[parts.part_of[t]];
        const Segment& tail = part.tail();
        const int64_t behind = part.asked->past - tail.begin + part.own + t - part.first;
        const float* latent = qkv + size_t(t) * wide + layer.qkv.rows - l.rotated - l.rank;
        bf16 row[512];
        normalise(l.latent, latent, l.rank, row);
        store_row(kind, row, l.rank, (uint8_t*)tail.values[layer.slot] + size_t(behind) * widths.value_bytes);
        turned(t, latent + l.rank, H, row);
        store_row(kind, row, l.rotated, (uint8_t*)tail.keys[layer.slot] + size_t(behind) * widths.key_bytes);
      }
      if (layer.indexer) index_rows(*layer.indexer, layer.qkv.rows, widths);
    };

    // Which keys the rows see that choose some: first the scores of all keys, and then the best ones.
    auto choose_keys = [&](const Layer& layer, const Widths& widths) NOT_INLINED {
      const Indexer& i = *layer.indexer;
      const size_t longest = places.choice.longest;
      const float* const weights = qkv + layer.qkv.rows + i.key.rows;  // (T, widths.qkv)
      const auto scores_of = kind == KV_INT8 ? index_scores<KV_INT8> : index_scores<KV_BF16>;
      int task = next++, first = 0;
      for (const Part& part : parts.part) {
        const int from = first_choosing(part, layer.chosen), chunks = from < part.rows ? part.chunks : 0;
        for (; task < first + chunks; task = next++) {
          const int64_t begin = int64_t(task - first) * CHUNK;
          const int64_t end = std::min<int64_t>(part.position() + part.rows, begin + CHUNK);
          scores_of(i, part, from, index_turned + size_t(part.first) * i.query.rows, weights + size_t(part.first) * widths.qkv,
                    widths.qkv, begin, end, index_scores_of + size_t(part.first) * longest, longest, space);
        }
        first += chunks;
      }
      team.barrier();
      if (thread == 0) next.store(0);
      team.barrier();
      for (int t = next++; t < T; t = next++) {
        const Part& part = parts.part[parts.part_of[t]];
        const int own = t - part.first;
        if (own < first_choosing(part, layer.chosen)) continue;
        choose(index_scores_of + size_t(t) * longest, part.position() + own + 1, layer.chosen, space,
               chosen_keys + size_t(t) * size_t(layer.chosen));
      }
      team.barrier();
      if (thread == 0) next.store(0);
      team.barrier();
    };

    // The attention of rows over the keys that they have chosen: in place of what they have of all keys.
    auto attend_chosen = [&](const Layer& layer, const Widths& widths, const Heads& of_keys) NOT_INLINED {
      const Latent& l = *layer.latent;
      const int chunks = (layer.chosen + CHUNK - 1) / CHUNK, KV = of_keys.KV, G = of_keys.G;
      const size_t width = widths.query, rank = size_t(l.rank);
      int64_t* const position = (int64_t*)space;
      bf16* const together = (bf16*)(space + whole_lines(size_t(G) * sizeof(int64_t) / sizeof(float)));
      float* const rows_of = (float*)together + whole_lines(size_t(G) * width / 2 + LINE);
      uint8_t* const keys = (uint8_t*)rows_of;
      uint8_t* const latents = (uint8_t*)(rows_of + whole_lines(CHUNK * widths.key_bytes / sizeof(float)));
      float* const max = (float*)latents + whole_lines(CHUNK * widths.value_bytes / sizeof(float));
      float *const sum = max + whole_lines(size_t(G)), *const mixed = sum + whole_lines(size_t(G));
      float* const scratch = mixed + whole_lines(size_t(G) * rank);
      const auto attend_own = kind == KV_INT8 ? attend_latents<KV_INT8> : attend_latents<KV_BF16>;
      for (int task = next++; task < T * KV * chunks; task = next++) {
        const int t = task / (KV * chunks), kv = task / chunks % KV, chunk = task % chunks;
        const Part& part = parts.part[parts.part_of[t]];
        const int own = t - part.first;
        if (own < first_choosing(part, layer.chosen)) continue;
        const int begin = chunk * CHUNK, count = std::min(CHUNK, layer.chosen - begin);
        const int32_t* const positions = chosen_keys + size_t(t) * size_t(layer.chosen) + begin;
        TextRows text(part, layer.slot, widths.key_bytes, widths.value_bytes);
        for (int j = 0; j < count; j++)
          text.copy(positions[j], keys + size_t(j) * widths.key_bytes, latents + size_t(j) * widths.value_bytes);
        for (int g = 0; g < G; g++) {
          position[g] = layer.chosen - 1;
          const bf16* const of_head = q + (size_t(part.first) * H + (size_t(kv) * G + g) * part.rows + own) * width;
          std::memcpy(together + size_t(g) * width, of_head, width * sizeof(bf16));
        }
        const HeadSegment segment{begin, keys, latents};
        attend_own(l.rank, l.rotated, together, G, position, {&segment, 1}, begin, begin + count, layer.sight, max, sum, mixed,
                   scratch);
        const Place& place = of_keys.places[part.first_place + size_t(chunk)];
        for (int g = 0; g < G; g++) {
          const size_t at = place.offset + size_t(kv) * place.stride + size_t(g) * part.rows + own;
          partial.max[at] = max[g], partial.sum[at] = sum[g];
          std::copy(mixed + size_t(g) * rank, mixed + size_t(g + 1) * rank, partial.mixed + at * rank);
        }
      }
    };

    // Decays for each number of a key, and gates, behind all else in `qkv`.
    auto low_rank = [&](const Layer& layer, size_t wide) NOT_INLINED {
      const Recurrence& r = *layer.recurrence;
      const size_t rates = size_t(layer.qkv.rows);
      size_t from = rates + size_t(r.value_heads), to = rates + size_t(r.rates.rows);
      for (const Matrix* m : {&r.decay_up, &r.gate_up}) {
        const int columns = m->columns;
        for (int t = 0; t < T; t++)
          for (int d = 0; d < columns; d++) mine[t * padded(columns) + d] = to_bf16(qkv[size_t(t) * wide + from + size_t(d)]);
        const Share<int> s = share(m->rows, PANEL, thread, threads);
        product(*m, s.first, s.last, given(mine, T, columns, *m), T, {qkv + to, wide, 0});
        if (m == &r.decay_up)
          for (int t = 0; t < T; t++)
            for (int i = s.first; i < s.last; i++) {
              float& kept = qkv[size_t(t) * wide + to + size_t(i)];
              kept = std::exp(r.decay[i / r.key_dim] * softplus(kept + r.bias[i]));
            }
        from += size_t(columns), to += size_t(m->rows);
      }
    };

    // What of a Mamba's rows is computed of their convolved values, into their records: steps, keys and queries.
    auto select = [&](const Layer& layer, size_t wide, size_t inputs) NOT_INLINED {
      const Recurrence& r = *layer.recurrence;
      const int C = r.channels, V = r.value_dim, K = r.key_dim, low = r.selected.rows - 2 * K, columns = r.step_up.columns;
      const size_t width = record_width(r), stride = padded(C);
      float *const chosen = qkv + layer.qkv.rows, *const steps = chosen + r.selected.rows;  // (T, wide)
      const auto record_of = [&](const Rows& asked) { return asked.record + size_t(layer.state) * size_t(asked.record_apart); };
      for (int i = thread; i < T * r.value_heads; i += threads) {
        const int t = i / r.value_heads, head = i % r.value_heads;
        const Part& part = parts.part[parts.part_of[t]];
        const Rows& asked = *part.asked;
        selected_values(r, head, asked.inputs + inputs, record_of(asked), asked.recorded + t - part.first, space);
        for (int d = 0; d < V; d++) by_head[size_t(t) * stride + size_t(head * V + d)] = to_bf16(space[d]);
      }
      team.barrier();
      const Share<int> own = share(r.selected.rows, PANEL, thread, threads);
      product(r.selected, own.first, own.last, given(by_head, T, C, r.selected), T, {chosen, wide, 0});
      team.barrier();
      for (int t = 0; t < T; t++) {
        normalise(r.step_norm, chosen + size_t(t) * wide, low, mine + t * padded(columns));
        std::fill(mine + t * padded(columns) + low, mine + t * padded(columns) + columns, bf16(0));
      }
      const Share<int> s = share(C, PANEL, thread, threads);
      product(r.step_up, s.first, s.last, given(mine, T, columns, r.step_up), T, {steps, wide, 0});
      for (int t = 0; t < T; t++) {
        const Part& part = parts.part[parts.part_of[t]];
        float* const to = record_of(*part.asked) + size_t(part.asked->recorded + t - part.first) * width + C;
        softplus_of(steps + size_t(t) * wide + s.first, r.bias + s.first, s.last - s.first, to + s.first);
        if (t % threads != thread) continue;
        const Norm* norm = &r.key_norm;
        for (int first : {low, low + K}) {
          const float* const x = chosen + size_t(t) * wide + first;
          const Spread spread_of = spread(*norm, x, K);
          for (int i = 0; i < K; i++) to[C + first - low + i] = (x[i] - spread_of.mean) * spread_of.factor * weight_of(*norm, i);
          norm = &r.query_norm;
        }
      }
      team.barrier();
    };

    // What an RG-LRU computes of its rows' convolved values, into their records: decays, and what is added.
    auto gate_by_block = [&](const Layer& layer, size_t wide, size_t inputs) NOT_INLINED {
      const Recurrence& r = *layer.recurrence;
      const int C = r.channels, V = r.value_dim, W = C / r.blocks;
      const size_t width = record_width(r), stride = padded(C);
      float* const products = qkv + layer.qkv.rows;  // (T, wide)
      const auto record_of = [&](const Rows& asked) { return asked.record + size_t(layer.state) * size_t(asked.record_apart); };
      const auto row_of = [&](int t) {
        const Part& part = parts.part[parts.part_of[t]];
        return record_of(*part.asked) + size_t(part.asked->recorded + t - part.first) * width;
      };
      for (int i = thread; i < T * r.value_heads; i += threads) {
        const int t = i / r.value_heads, first = i % r.value_heads * V;
        const Part& part = parts.part[parts.part_of[t]];
        const Rows& asked = *part.asked;
        float* const values = row_of(t) + 2 * size_t(C) + first;  // until they are gated
        convolve(r, asked.inputs + inputs, record_of(asked), asked.recorded + t - part.first, first, V, values);
        for (int d = 0; d < V; d++) by_head[size_t(t) * stride + size_t(first + d)] = to_bf16(values[d]);
      }
      team.barrier();
      for (int block = thread; block < r.blocks; block += threads) {
        const int first = block * W;
        float* const own = products + 2 * first;
        product(r.gates[block], 0, 2 * W, given(by_head + first, T, W, r.gates[block], stride), T, {own, wide, 0});
        for (int t = 0; t < T; t++) {
          const Part& part = parts.part[parts.part_of[t]];
          const bool begins = part.position() + t - part.first == 0;  // nothing was before, and all of the value is added
          const float *const of_values = own + size_t(t) * wide, *const of_decays = of_values + W;
          float *const kept = row_of(t) + C + first, *const added = kept + C;
          for (int d = 0; d < W; d++) {
            const float log = r.decay[first + d] * sigmoid(of_decays[d]);
            const float share = begins ? 1.0f : std::sqrt(-std::expm1(2.0f * log));
            kept[d] = begins ? 0.0f : std::exp(log);
            added[d] *= sigmoid(of_values[d]) * share;
          }
        }
      }
      team.barrier();
    };

    // What a recurrence's heads give, in `by_head`, and the states that are to be kept.
    auto recur_rows = [&](const Layer& layer, const Widths& widths, int rows, const int* taken) NOT_INLINED {
      const Recurrence& r = *layer.recurrence;
      const int C = r.channels, V = r.value_dim;
      const size_t wide = widths.qkv, width = record_width(r), whole = given_width(r), stride = padded(int(whole));
      const float* const given_to_it = qkv + r.first;  // (T, wide)
      if (r.decay_up.rows) {
        low_rank(layer, wide);
        team.barrier();
      }
      const float* const gates_of_it = r.gate_up.rows ? qkv + wide - r.gate_up.rows : given_to_it + C;  // (T, wide)
      const auto record_of = [&](const Rows& asked) { return asked.record + size_t(layer.state) * size_t(asked.record_apart); };
      for (int t = thread; t < T; t += threads) {
        const Part& part = parts.part[parts.part_of[t]];
        const float* own = given_to_it + size_t(t) * wide;
        float* const to = record_of(*part.asked) + size_t(part.asked->recorded + t - part.first) * width;
        if (!r.value_heads) {  // the gate before the convolution
          for (int c = 0; c < C; c++) to[c] = own[c] * own[2 * C + c];
          continue;
        }
        std::copy(own, own + C, to);
        if (selective(r) || r.blocks) continue;  // the rest is computed of what is convolved
        const float* const rates = qkv + size_t(t) * wide + layer.qkv.rows;
        if (r.decay_up.rows) {
          const float* const kept = rates + r.rates.rows;
          std::copy(kept, kept + r.decay_up.rows, std::copy(rates, rates + r.value_heads, to + C));
        } else {
          std::copy(rates, rates + r.rates.rows, to + C);
        }
      }
      if (thread == 0) next.store(0);
      team.barrier();
      const size_t inputs = size_t(layer.state) * size_t(r.taps - 1) * size_t(C);
      for (int p = thread; p < int(parts.part.size()); p += threads) {
        const Rows& asked = *parts.part[size_t(p)].asked;
        if (asked.settled) last_inputs(r, asked.inputs + inputs, record_of(asked), asked.settled, asked.inputs_into + inputs);
      }
      for (int place = thread; !r.value_heads && place < rows; place += threads) {
        const int t = taken ? taken[place] : place;
        const Part& part = parts.part[parts.part_of[t]];
        const Rows& asked = *part.asked;
        convolve(r, asked.inputs + inputs, record_of(asked), asked.recorded + t - part.first, 0, C, space);
        const float* behind = given_to_it + size_t(t) * wide + C;
        for (int c = 0; c < C; c++) by_head[size_t(place) * stride + c] = to_bf16(behind[c] * space[c]);
      }
      if (!r.value_heads) return;
      if (selective(r)) select(layer, wide, inputs);
      if (r.blocks) gate_by_block(layer, wide, inputs);
      const int tasks = int(parts.part.size()) * r.value_heads;
      for (int task = next++; task < tasks; task = next++) {
        const Part& part = parts.part[size_t(task / r.value_heads)];
        const Rows& asked = *part.asked;
        const int head = task % r.value_heads;
        const size_t matrix = (size_t(layer.state) * r.value_heads + head) * matrix_floats(r);
        recur(r, head, asked.inputs + inputs, record_of(asked), asked.recorded + part.rows, asked.state + matrix,
              asked.settled ? asked.state_into + matrix : nullptr, asked.settled, space, [&](int row, const float* given) {
                const int t = part.first + row - asked.recorded;
                if (row >= asked.recorded) std::copy(given, given + V, recurred + size_t(t) * whole + size_t(head) * V);
              });
      }
      team.barrier();
      const int together = normed_together(r), norms = int(whole) / together;
      for (int i = thread; i < rows * norms; i += threads) {
        const int place = i / norms, t = taken ? taken[place] : place, first = i % norms * together;
        gate_heads(r, first, recurred + size_t(t) * whole + first, gates_of_it + size_t(t) * wide + first,
                   by_head + size_t(place) * stride + first);
      }
      if (!r.out.rows) return;
      team.barrier();  // the attention beside it writes to `by_head` only behind another barrier
      if (rows > 0) add_product(r.out, Norm{}, given(by_head, rows, int(whole), r.out), r.factor, rows, taken, nullptr);
    };

    // added = after_mlp(of_mlp) + after(of_experts), for this thread's columns s.
    auto join = [&](const Branches& norms, Share<int> s, int rows) {
      team.barrier();
      for (int t = 0; t < rows; t++) {
        const float *a = of_mlp + size_t(t) * E, *b = of_experts + size_t(t) * E;
        const Spread of_a = spread(norms.after_mlp, a, E), of_b = spread(norms.after, b, E);
        for (int e = s.first; e < s.last; e++)
          added[size_t(t) * E + e] =
              (a[e] - of_a.mean) * of_a.factor * weight_of(norms.after_mlp, e) + bias_of(norms.after_mlp, e) +
              (b[e] - of_b.mean) * of_b.factor * weight_of(norms.after, e) + bias_of(norms.after, e);
      }
    };

    // low = what the first matrix of an adapter gives for rows that enter it as `in`.
    auto go_low = [&](const Adapter& a, const Input& in, int rows) NOT_INLINED {
      const Share<int> s = share(a.down.rows, PANEL, thread, threads);
      const size_t count = size_t(s.last - s.first), stride = padded(a.down.rows);
      product(a.down, s.first, s.last, in, rows, {space, count, s.first});
      for (int t = 0; t < rows; t++)
        for (size_t c = 0; c < count; c++) low[t * stride + size_t(s.first) + c] = to_bf16(space[t * count + c]);
    };

    // y gets rows [first, last) of what the second one makes of that: element (t, row) is y[t * stride + row - first].
    auto go_up = [&](const Adapter& a, int first, int last, int rows, float* y, size_t stride, float* room) NOT_INLINED {
      constexpr int BLOCK = 32;
      const int rank = a.up[0].columns;
      for (int p = 0, begin = 0; p < a.parts; begin += a.up[p++].rows) {
        const Input in{low + size_t(p) * rank, {}, rank, padded(a.down.rows)};
        const int from = std::max(first, begin), to = std::min(last, begin + a.up[p].rows);
        for (int start = from; start < to; start += BLOCK) {
          const int end = std::min(to, start + BLOCK);
          product(a.up[p], start - begin, end - begin, in, rows, {room, BLOCK, start - begin});
          for (int t = 0; t < rows; t++)
            for (int i = start; i < end; i++) y[size_t(t) * stride + size_t(i - first)] += room[t * BLOCK + i - start];
        }
      }
    };

    // Rows of a layer and the embedded ones behind them, as a norm leaves them.
    auto normed_both = [&](const Norm& norm, const Matrix& m) NOT_INLINED {
      for (int t = 0; t < T; t++) {
        std::copy_n(x + size_t(t) * E, E, space);
        std::copy_n(embedded + size_t(t) * E, E, space + E);
        normalise(norm, space, 2 * E, mine + t * padded(2 * E));
      }
      return given(mine, T, 2 * E, m);
    };

    // aside = what the next layer reads, of a layer that gives nothing to the sum: its MLP reads what its attention gives.
    auto give_aside = [&](const Layer& layer) NOT_INLINED {
      constexpr int BLOCK = 32;
      const int I = layer.down.columns;
      const Share<int> s = share(E, PANEL, thread, threads), own = share(I, BLOCK, thread, threads);
      product(layer.out, s.first, s.last, given(by_head, T, layer.out.columns, layer.out), T, {aside, size_t(E), 0});
      team.barrier();
      const Input in = normed(aside, layer.before_mlp, T, layer.gate_up);
      if (const Adapter* a = layer.gate_up_adapter) {
        go_low(*a, Input{mine, {}, E, padded(E)}, T);
        team.barrier();
      }
      float *const gate = space, *const up = gate + size_t(T) * BLOCK, *const room = up + size_t(T) * BLOCK;
      for (int start = own.first; start < own.last; start += BLOCK) {
        const int end = std::min(own.last, start + BLOCK);
        for (int part = 0; part < (layer.gated ? 2 : 1); part++) {
          float* const to = part ? up : gate;
          product(layer.gate_up, part * I + start, part * I + end, in, T, {to, BLOCK, part * I + start});
          if (const Adapter* a = layer.gate_up_adapter) go_up(*a, part * I + start, part * I + end, T, to, BLOCK, room);
        }
        for (int t = 0; t < T; t++)
          activate(layer.activation, gate + size_t(t) * BLOCK, layer.gated ? up + size_t(t) * BLOCK : nullptr, end - start,
                   hidden + t * padded(I) + start);
      }
      team.barrier();
      product(layer.down, s.first, s.last, given(hidden, T, I, layer.down), T, {added, size_t(E), 0});
      team.barrier();
      const size_t count = size_t(s.last - s.first);
      product(layer.aside, s.first, s.last, normed(added, Norm{}, T, layer.aside), T, {space, count, s.first});
      for (int t = 0; t < T; t++)
        for (int e = s.first; e < s.last; e++) aside[size_t(t) * E + e] = x[size_t(t) * E + e] + space[t * count + e - s.first];
      team.barrier();
    };

    auto add_experts = [&](const Layer& layer, const float* read, int rows) {
      const Experts& e = *layer.experts;
      const Branches* const branches = e.branches;
      const Routed routed{e, base + places.routed};
      {
        const Input in = normed(read, branches ? branches->router : layer.before_mlp, rows, e.router);
        const Share<int> s = share(e.router.rows, 1, thread, threads);
        product(e.router, s.first, s.last, in, rows, {routed.base, routed_floats(e), 0});
      }
      team.barrier();
      for (int t = thread; t < rows; t += threads) route(e, routed.scores(t), routed.weights(t), routed.taken(t));
      if (branches)
        for (int t = 0; t < rows; t++) normalise(branches->before, read + size_t(t) * E, E, mine + t * padded(E));
      team.barrier();
      bf16* const gathered = (bf16*)(base + places.own + size_t(thread) * (places.space + places.input) + places.extra);
      const Order order(routed, rows, (int32_t*)(gathered + size_t(T) * padded(E)));
      const size_t stride = padded(e.widest);  // of `hidden`, which has a row for each pair
      for (int i = 0; i < experts_of(e); i++) {
        const int first = order.begin[i], count = order.begin[i + 1] - first, inner = e.down[i].columns;
        if (count == 0) continue;
        for (int n = 0; n < count; n++) {
          const int t = order.row[first + n];
          const bf16* from = mine + size_t(t) * padded(E);
          bf16* const to = gathered + size_t(n) * padded(E);
          if (e.scales_inputs) {
            const float weight = to_float(to_bf16(routed.weights(t)[order.slot[first + n]]));
            for (int c = 0; c < E; c++) to[c] = to_bf16(to_float(from[c]) * weight);
          } else {
            std::copy_n(from, E, to);
          }
        }
        const Input in = given(gathered, count, E, e.gate_up[i]);
        constexpr int BLOCK = 32;
        float *gate = space, *up = layer.gated ? gate + size_t(T) * BLOCK : nullptr;
        const Share<int> s = share(inner, BLOCK, thread, threads);
        for (int start = s.first; start < s.last; start += BLOCK) {
          const int end = std::min(s.last, start + BLOCK);
          product(e.gate_up[i], start, end, in, count, {gate, BLOCK, start});
          if (up) product(e.gate_up[i], inner + start, inner + end, in, count, {up, BLOCK, inner + start});
          for (int n = 0; n < count; n++)
            activate(layer.activation, gate + size_t(n) * BLOCK, up ? up + size_t(n) * BLOCK : nullptr, end - start,
                     hidden + size_t(first + n) * stride + start);
        }
      }
      team.barrier();
      const Share<int> s = share(E, PANEL, thread, threads);
      const size_t columns = size_t(s.last - s.first);
      const bool behind = branches || layer.after_mlp.kind != NO_NORM;
      float* const whole = branches ? of_experts : added;  // that a norm stands behind
      float *const y = behind ? whole + s.first : space, *const part = space + size_t(rows) * columns;
      const size_t apart = behind ? size_t(E) : columns;
      for (int t = 0; t < rows; t++) std::fill_n(y + t * apart, columns, 0.0f);
      for (int i = 0; i < experts_of(e); i++) {
        const int first = order.begin[i], count = order.begin[i + 1] - first;
        if (count == 0) continue;
        const Input in = given(hidden + size_t(first) * stride, count, e.down[i].columns, e.down[i], stride);
        product(e.down[i], s.first, s.last, in, count, {part, columns, s.first});
        for (int n = 0; n < count; n++) {
          const int t = order.row[first + n];
          const float weight = e.scales_inputs ? 1.0f : routed.weights(t)[order.slot[first + n]];
          for (size_t c = 0; c < columns; c++) y[t * apart + c] += weight * part[n * columns + c];
        }
      }
      if (branches) join(*branches, s, rows);
      if (behind)
        add_behind(layer.after_mlp, s, layer.mlp_residual, rows, nullptr, nullptr);
      else
        add(s, y, apart, layer.mlp_residual, rows, nullptr, nullptr);
    };

    if (const LayerInputs* of = model->inputs)
      layer_inputs(*model, parts, normed(x, Norm{}, T, of->projection), inputs, thread, team);

    // What a layer gives when its MLP is added: of its own input, and all of it scaled. `taken` says whose rows go on.
    auto end_layer = [&](const Layer& layer, int index, int rows, const int* taken) {
      if (layer.alternation) streams.mend(*layer.alternation, x, rows, mine, thread, team);
      if (const LayerInput* own = layer.input; own && rows > 0) {
        team.barrier();
        const int P = own->gate.rows;
        const size_t all = size_t(model->layers) * P;
        {
          const Input in = normed(x, Norm{}, rows, own->gate);
          const Share<int> s = share(P, PANEL, thread, threads);
          const size_t count = size_t(s.last - s.first);
          product(own->gate, s.first, s.last, in, rows, {space, count, s.first});
          for (int t = 0; t < rows; t++)
            activate(own->activation, space + t * count, inputs + (taken ? taken[t] : t) * all + size_t(index) * P + s.first,
                     int(count), hidden + t * padded(P) + s.first);
        }
        team.barrier();
        const Input in = given(hidden, rows, P, own->projection);
        if (layer.alternation) {
          const Share<int> s = share(E, PANEL, thread, threads);
          product(own->projection, s.first, s.last, in, rows, {added, size_t(E), 0});
          behind(own->norm, s, rows);
          streams.add(s, rows, space, size_t(s.last - s.first));
        } else {
          add_product(own->projection, own->norm, in, 1.0f, rows, nullptr, nullptr);
        }
      }
      if (layer.scale != 1) {
        const Share<int> s = share(E, PANEL, thread, threads);
        for (int t = 0; t < rows; t++)
          for (int e = s.first; e < s.last; e++) x[size_t(t) * E + e] *= layer.scale;
      }
      team.barrier();
    };

    if (const Streams* of = model->streams) streams.spread_out(x, normed(x, Norm{}, T, of->spread[0]), thread, team);
    for (int index = 0; index < model->layers; index++) {
      const Layer& layer = model->layer[index];
      if (layer.alternation) streams.guess(*layer.alternation, x, mine, thread, team);
      const Heads& of_keys = heads_of.of(index);
      const Widths widths(*model, layer, kind);
      const int KV = of_keys.KV, G = of_keys.G, D = layer.head_dim, slot = layer.slot;
      const int wide = int(widths.qkv), width = int(widths.query), mixed_width = int(widths.mixed);
      const int heads_width = layer.out.columns;
      const size_t key_bytes = widths.key_bytes, value_bytes = widths.value_bytes;
      // Of the last layer only what is asked for.
      const int* taken = index == model->layers - 1 ? parts.kept.data() : nullptr;
      const int rows = index == model->layers - 1 ? kept : T;

      if (float* const states = states_of(*step, index, T, E)) {
        const Share<int> s = share(E, PANEL, thread, threads);
        for (int t = 0; t < T; t++)
          std::copy(x + size_t(t) * E + s.first, x + size_t(t) * E + s.last, states + size_t(t) * E + s.first);
      }

      {
        const float* const rows_read = index && model->layer[index - 1].aside.rows ? aside : x;
        const Input in = layer.with_embedding ? normed_both(layer.before_attention, layer.qkv)
                                              : normed(rows_read, layer.before_attention, T, layer.qkv);
        const Share<int> s = share(layer.qkv.rows, PANEL, thread, threads);
        product(layer.qkv, s.first, s.last, in, T, {qkv, size_t(wide), 0});
        if (const Adapter* a = layer.qkv_adapter) {
          go_low(*a, Input{mine, {}, in.columns, in.stride}, T);
          team.barrier();
          go_up(*a, s.first, s.last, T, qkv + s.first, size_t(wide), space);
        }
        if (const Recurrence* r = layer.recurrence) {
          const Share<int> own = share(r->rates.rows, 1, thread, threads);
          product(r->rates, own.first, own.last, in, T, {qkv + layer.qkv.rows, size_t(wide), 0});
        }
        if (const Indexer* i = layer.indexer) {
          const Share<int> own = share(i->key.rows, PANEL, thread, threads), each = share(i->weights.rows, 1, thread, threads);
          product(i->weights, each.first, each.last, in, T, {qkv + layer.qkv.rows + i->key.rows, size_t(wide), 0});
          const bool alike = i->key.kind == BF16 || layer.qkv.kind != BF16;
          product(i->key, own.first, own.last, alike ? in : given(mine, T, in.columns, i->key), T,
                  {qkv + layer.qkv.rows, size_t(wide), 0});
        }
        if (layer.laurel) laurel.go_left(*layer.laurel, in, T, thread, team);
      }
      team.barrier();
      if (layer.laurel) laurel.go_right(*layer.laurel, T, mine, thread, team);
      const bool beside = layer.recurrence && layer.recurrence->out.rows;  // which has added what it gives
      if (layer.recurrence) recur_rows(layer, widths, rows, taken);
      if (!layer.recurrence || beside) {
        if (layer.latent) latent_rows(layer, widths);
        const int projections = layer.shares ? H : H + 2 * KV;  // that a row has in heads
        for (int i = layer.latent ? T * projections : thread; i < T * projections; i += threads) {
          const int t = i / projections, head = i % projections;
          const float* projected = qkv + size_t(t) * wide;
          const Part& part = parts.part[parts.part_of[t]];
          const Rows& asked = *part.asked;
          const Segment& tail = part.tail();
          const int own = t - part.first;  // among the chain's rows
          const int64_t behind = asked.past - tail.begin + part.own + own;
          const auto row_of = [&](void* const* rows, int of) {
            return (uint8_t*)rows[slot] + (size_t(of) * tail.capacity + behind) * key_bytes;
          };
          bf16 row[512];
          if (head >= H + KV) {
            const float* v = projected + size_t(head) * D;
            float own_v[512];
            if (layer.value.kind != NO_NORM) {
              std::copy(v, v + D, own_v);
              normalise_head(layer.value, projected + size_t(H + KV) * D, KV, head - H - KV, D, own_v);
              v = own_v;
            }
            for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
            store_row(kind, row, D, row_of(tail.values, head - H - KV));
            continue;
          }
          const float* const balance = layer.balance ? (const float*)layer.balance + size_t(head) * D : nullptr;
          const size_t turned = size_t(part.depth + own) * model->turned;
          const float *cos = asked.cos + turned, *sin = asked.sin + turned;
          bf16* const turned_row =
              head >= H ? row : q + (size_t(part.first) * H + size_t(head) * part.rows + own) * D;
          if (head >= H)
            turn(layer.key, layer.rope, projected + size_t(H) * D, KV, head - H, cos, sin, D, turned_row);
          else
            turn(layer.query, layer.rope, projected, H, head, cos, sin, D, turned_row);
          if (balance)
            for (int d = 0; d < D; d++) turned_row[d] = to_bf16(to_float(turned_row[d]) * balance[d]);
          if (head < H && layer.growth_every) {
            const float many = float((asked.past + part.depth + own + layer.growth_ahead) / layer.growth_every);
            const float factor = 1.0f + layer.growth_scale * std::log1p(many);
            for (int d = 0; d < D; d++) turned_row[d] = to_bf16(to_float(turned_row[d]) * factor);
          }
          if (head >= H) store_row(kind, row, D, row_of(tail.keys, head - H));
        }
        if (thread == 0) next.store(0);
        team.barrier();
        const bool choosing = any_choosing(parts, layer.chosen);
        if (choosing && layer.indexer) choose_keys(layer, widths);
        const auto all_choose = [&](int r) { return choosing && first_choosing(parts.part[size_t(r)], layer.chosen) == 0; };
        for (size_t number = size_t(next++); number < of_keys.tasks.size(); number = size_t(next++)) {
          const Group& group = of_keys.groups[of_keys.tasks[number].group];
          if (std::all_of(group.members.begin(), group.members.end(), all_choose)) continue;
          const int kv = of_keys.tasks[number].kv;
          const int64_t begin = int64_t(group.chunk) * CHUNK;
          int64_t first = begin + CHUNK, end = begin;
          int64_t* const position = (int64_t*)space;
          bf16* const together = (bf16*)(space + whole_lines(size_t(of_keys.most_rows) * sizeof(int64_t) / sizeof(float)));
          const bf16* queries = together;  // (group.rows, width)
          int row = 0;
          for (const int r : group.members) {
            const Part& part = parts.part[r];
            const int each = G * part.rows;
            const bf16* own = q + (size_t(part.first) * H + size_t(kv) * each) * width;
            if (group.members.size() == 1)
              queries = own;
            else
              std::memcpy(together + size_t(row) * width, own, size_t(each) * width * sizeof(bf16));
            for (int i = 0; i < each; i++) position[row++] = part.position() + i % part.rows;
            const int64_t oldest = seen_from(part.position(), layer.sight).begin;
            first = std::min(first, oldest <= begin ? begin : begin + std::min<int64_t>(oldest - begin, CHUNK) / TILE * TILE);
            end = std::max(end, std::min<int64_t>(part.position() + part.rows, begin + CHUNK));
          }
          HeadSegment segments[CHUNK / TILE + 2];  // those that begin before the chunk ends
          int count = 0;
          const Part& member = parts.part[group.members[0]];
          const Rows& any = *member.asked;
          for (const Segment* s = any.segment; s != any.segment + any.segments && s->begin < end; s++) {
            if (s + 1 != any.segment + any.segments && s[1].begin <= begin) continue;
            const size_t head = layer.latent ? 0 : size_t(kv) * s->capacity;  // all heads share latents
            segments[count++] = {s->begin, (const uint8_t*)s->keys[slot] + head * key_bytes,
                                 (const uint8_t*)s->values[slot] + head * value_bytes};
          }
          if (!member.path.empty() && any.past < end) {
            // A tree's rows lie beside each other. Those of this chain are laid where a chain's rows would lie, behind the
            // rows of the tile in which they begin: so sums run in the same order.
            const int64_t from = std::max(begin, any.past / TILE * TILE);
            const Segment& tail = member.tail();
            const size_t head = layer.latent ? 0 : size_t(kv) * tail.capacity;
            uint8_t* const keys = (uint8_t*)(space + places.gathered - whole_lines(places.gathered_rows * places.row));
            uint8_t* const values = keys + places.gathered_rows * key_bytes;
            for (int64_t at = from; at < end; at++) {
              const int64_t held = at < any.past ? at : any.past + member.path[size_t(at - any.past)];
              const size_t row = head + size_t(held - tail.begin), to = size_t(at - from);
              std::memcpy(keys + to * key_bytes, (const uint8_t*)tail.keys[slot] + row * key_bytes, key_bytes);
              std::memcpy(values + to * value_bytes, (const uint8_t*)tail.values[slot] + row * value_bytes, value_bytes);
            }
            while (count && segments[count - 1].begin >= from) count--;
            segments[count++] = {from, keys, values};
          }
          const size_t at = group.partial + size_t(kv) * group.rows;
          float *const max = partial.max + at, *const sum = partial.sum + at, *const mixed = partial.mixed + at * mixed_width;
          if (const Latent* l = layer.latent) {
            const auto attend_own = kind == KV_INT8 ? attend_latents<KV_INT8> : attend_latents<KV_BF16>;
            attend_own(l->rank, l->rotated, queries, group.rows, position, {segments, count}, first, end, layer.sight, max, sum,
                       mixed, space + places.gathered);
          } else {
            attend_step(kind, D, G, queries, group.rows, position, {segments, count}, first, end, layer.sight, max, sum, mixed,
                        space + places.gathered);
          }
        }
        team.barrier();
        if (choosing) {
          if (thread == 0) next.store(0);
          team.barrier();
          attend_chosen(layer, widths, of_keys);
          team.barrier();
        }
        const auto combined = [&](int t, int head, bf16* to) {  // what row t's head mixes of all chunks
          const Part& part = parts.part[parts.part_of[t]];
          const bool chooses = choosing && t - part.first >= first_choosing(part, layer.chosen);
          const int chunks = chooses ? (layer.chosen + CHUNK - 1) / CHUNK : part.chunks;
          const int row = (head % G) * part.rows + t - part.first;
          float highest = -std::numeric_limits<float>::infinity(), sum = 0;
          auto at = [&](int c) {
            const Place& place = of_keys.places[part.first_place + c];
            return place.offset + size_t(head / G) * place.stride + row;
          };
          for (int c = 0; c < chunks; c++) highest = std::max(highest, partial.max[at(c)]);
          float out[512] = {};
          for (int c = 0; c < chunks; c++) {
            if (partial.sum[at(c)] == 0) continue;
            const float weight = std::exp(partial.max[at(c)] - highest);
            sum += weight * partial.sum[at(c)];
            const float* mixed = partial.mixed + at(c) * mixed_width;
            for (int d = 0; d < mixed_width; d++) out[d] += weight * mixed[d];
          }
          if (layer.sinks) {
            const Shares with = with_sink(highest, sum, sink_of(layer.sinks, head));
            sum = with.sum;
            for (int d = 0; d < mixed_width; d++) out[d] *= with.factor;
          }
          if (layer.output_gates) {
            const float* gate = qkv + size_t(t) * wide + size_t(H + 2 * KV + head) * D;
            for (int d = 0; d < D; d++) out[d] /= 1.0f + std::exp(-gate[d]);
          }
          for (int d = 0; d < mixed_width; d++) to[d] = to_bf16(out[d] / sum);
        };
        if (const Latent* l = layer.latent) {
          for (int head = thread; head < H && rows > 0; head += threads) {
            for (int i = 0; i < rows; i++) combined(taken ? taken[i] : i, head, mine + size_t(i) * padded(l->rank));
            const Input in = given(mine, rows, l->rank, l->values[head]);
            product(l->values[head], 0, l->value, in, rows, {space, size_t(l->value), 0});
            for (int i = 0; i < rows; i++)
              for (int d = 0; d < l->value; d++)
                by_head[i * padded(heads_width) + size_t(head) * l->value + d] = to_bf16(space[size_t(i) * l->value + d]);
          }
        } else {
          for (int i = thread; i < H * rows; i += threads)
            combined(taken ? taken[i / H] : i / H, i % H, by_head + i / H * padded(heads_width) + i % H * D);
        }
      }
      team.barrier();
      if (layer.aside.rows) {  // the next layer adds something
        give_aside(layer);
        continue;
      }
      if (rows > 0) {
        const Input in = given(by_head, rows, heads_width, layer.out);
        add_product(layer.out, layer.after_attention, in, layer.attention_residual, rows, beside ? nullptr : taken,
                    layer.parallel ? before : nullptr);
        const Share<int> s = share(E, PANEL, thread, threads);
        if (layer.laurel) laurel.add(*layer.laurel, s, x, rows, taken);
        if (layer.alternation && taken) streams.move_up(s, rows, taken);
      }
      team.barrier();
      const float* const read = layer.parallel ? before : x;  // by the MLP
      if (layer.down.rows) {
        const int I = layer.down.columns;
        if (rows > 0) {
          const Input in = normed(read, layer.before_mlp, rows, layer.gate_up);
          const Share<int> s = share(I, 32, thread, threads);
          constexpr int BLOCK = 32;
          float *gate = space, *up = layer.gated ? gate + size_t(T) * BLOCK : nullptr;
          if (layer.sparse) {  // where a gate is cut off depends on all of it
            product(layer.gate_up, s.first, s.last, in, rows, {gates, size_t(I), 0});
            team.barrier();
            for (int t = thread; t < rows; t += threads) cutoffs[t] = cutoff(gates + size_t(t) * I, I, layer.quantile);
            team.barrier();
          }
          for (int start = s.first; start < s.last; start += BLOCK) {
            const int end = std::min(s.last, start + BLOCK);
            if (!layer.sparse) product(layer.gate_up, start, end, in, rows, {gate, BLOCK, start});
            for (int t = 0; layer.sparse && t < rows; t++)
              for (int c = start; c < end; c++) gate[t * BLOCK + c - start] = above(gates[size_t(t) * I + c], cutoffs[t]);
            if (up) product(layer.gate_up, I + start, I + end, in, rows, {up, BLOCK, I + start});
            if (layer.gate_factor != 1)
              for (int i = 0; i < rows * BLOCK; i++) gate[i] *= layer.gate_factor;
            for (int t = 0; t < rows; t++)
              activate(layer.activation, gate + size_t(t) * BLOCK, up ? up + size_t(t) * BLOCK : nullptr, end - start,
                       hidden + t * padded(I) + start);
          }
        }
        team.barrier();
        if (rows > 0) {
          const Input in = given(hidden, rows, I, layer.down);
          const Share<int> s = share(E, PANEL, thread, threads);
          if (layer.experts)
            product(layer.down, s.first, s.last, in, rows, {of_mlp, size_t(E), 0});
          else
            add_product(layer.down, layer.after_mlp, in, layer.mlp_residual, rows, nullptr, nullptr);
        }
      }
      if (layer.experts && rows > 0) add_experts(layer, read, rows);
      end_layer(layer, index, rows, taken);
    }
    if (model->streams && kept > 0) streams.merge(x, kept, mine, thread, team);
    if (kept > 0) {
      const int V = model->head.rows;
      const Input in = normed(x, model->final_norm, kept, model->head);
      if (float* const states = states_of(*step, -1, T, E); states && thread == 0)
        for (int t = 0; t < kept; t++)
          for (int e = 0; e < E; e++)
            states[size_t(parts.kept[t]) * E + e] = to_float(mine[t * padded(E) + e]);
      const Share<int> s = share(V, 32, thread, threads);
      product(model->head, s.first, s.last, in, kept, {step->logits, size_t(V), 0});
      for (int t = 0; t < kept; t++) {
        finish_logits(*model, step->logits + size_t(t) * V + s.first, s.last - s.first);
        if (any_nan(step->logits + size_t(t) * V + s.first, s.last - s.first)) not_a_number.store(true);
      }
    }
  });

  return not_a_number.load() ? 2 : 0;
}

}  // extern "C"
