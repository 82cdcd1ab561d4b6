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

#include "attention.h"
#include "blocks.h"
#include "interface.h"
#include "numbers.h"
#include "product.h"
#include "scratch.h"
#include "threads.h"

namespace {

struct Partial {  // of a row and a chunk: the highest score, the sum of the weights, and the values mixed with them
  float* max;
  float* sum;
  float* mixed;  // of each of them (D,)
};

void norm(const float* x, const bf16* weight, float eps, int n, bf16* out) {
  float squares[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
  float total = 0;
  for (; i < n; i++) total += x[i] * x[i];
  for (int j = 0; j < 16; j++) total += squares[j];
  const float factor = 1.0f / std::sqrt(total / n + eps);
  for (i = 0; i < n; i++) out[i] = to_bf16(x[i] * factor * to_float(weight[i]));
}

// out = silu(gate) * up
void silu_times(const float* gate, const float* up, int n, bf16* out) {
  int i = 0;
#if RAPID_AVX512
  for (; i + 16 <= n; i += 16) {
    const __m512 product = _mm512_mul_ps(silu512(_mm512_loadu_ps(gate + i)), _mm512_loadu_ps(up + i));
    _mm256_storeu_si256((__m256i*)(out + i), (__m256i)_mm512_cvtneps_pbh(product));
  }
#endif
  for (; i < n; i++) out[i] = to_bf16(gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
}

// out (hidden,): a token's row of the embedding table.
void embed(const Model& model, int64_t id, float* out) {
  const int E = model.hidden;
  if (model.embedding_kind == BF16) {
    const bf16* row = (const bf16*)model.embedding + size_t(id) * E;
    for (int e = 0; e < E; e++) out[e] = to_float(row[e]);
    return;
  }
  with_format(model.embedding_kind, [&](auto format) {
    using B = decltype(format);
    raw_row<B>((const uint8_t*)model.embedding + size_t(id) * (E / (GROUP * B::GROUPS)) * B::RAW, E, out);
    return 0;
  });
}

// A chain of one reader's rows. A tree is several chains: each has rows of its own behind those of its ancestors.
struct Part {
  const Rows* asked;
  int first, rows;   // of its rows, among those of all readers
  int own;           // the first of them, among the reader's
  int depth;         // how many of the reader's rows come before it in its text
  std::vector<int> path;  // of a tree: the reader's rows that make the text, its own included
  int chunks;        // of its attention
  size_t first_place;

  int64_t position() const { return asked->past + depth; }

  const Segment& tail() const { return asked->segment[asked->segments - 1]; }

  // The keys of the segment in which a whole chunk lies before the new rows, or null.
  const void* holder(int chunk) const {
    const int64_t begin = int64_t(chunk) * CHUNK, end = begin + CHUNK;
    for (int64_t s = 0; s < asked->segments; s++)
      if (end <= (s + 1 < asked->segments ? asked->segment[s + 1].begin : asked->past))
        return begin >= asked->segment[s].begin ? asked->segment[s].keys : nullptr;
    return nullptr;
  }
};

// Parts for which the same chunk of the same keys is attended to at once: the keys are then read and packed once.
struct Group {
  int chunk, rows;           // rows: of all members, for one key head
  std::vector<int> members;  // parts
  size_t partial;            // where its results begin: (kv_heads, rows)
};

struct Place {  // of a reader's results for one chunk: from `offset` on, and so far from one key head to the next
  size_t offset, stride;
};

struct Task {
  int group, kv;
};

struct Parts {
  std::vector<Part> part;
  std::vector<int> part_of;  // of each row
  std::vector<int> kept;     // rows whose logits are wanted, ascending
  std::vector<Group> groups;
  std::vector<Place> places;  // of each part's chunks
  std::vector<Task> tasks;
  int rows = 0;
  size_t partials = 0;
  int most_rows = 0;         // of one group

  Parts(const Model& model, const Step& step) {
    const int G = model.heads / model.kv_heads;
    std::vector<int> group_of;            // of each part's chunks
    std::vector<const void*> holders;
    for (int r = 0; r < step.readers; r++) {
      const Rows& asked = step.reader[r];
      for (int t = asked.rows - asked.keep; t < asked.rows; t++) kept.push_back(rows + t);
      divide(asked);
    }
    for (int r = 0; r < int(part.size()); r++) {
      const int chunks = part[r].chunks;
      part[r].first_place = group_of.size();
      for (int c = 0; c < chunks; c++) {
        int group = -1;
        holders.push_back(part.size() > 1 ? part[r].holder(c) : nullptr);
        for (int other = 0; holders.back() && other < r && group < 0; other++) {
          const size_t place = part[other].first_place + c;
          if (c < part[other].chunks && holders[place] == holders.back()) group = group_of[place];
        }
        if (group < 0) {
          group = int(groups.size());
          groups.push_back({c, 0, {}, 0});
        }
        groups[group].members.push_back(r);
        places.push_back({size_t(groups[group].rows), 0});
        groups[group].rows += G * part[r].rows;
        group_of.push_back(group);
      }
    }
    for (Group& group : groups) {
      group.partial = partials;
      partials += size_t(model.kv_heads) * group.rows;
      most_rows = std::max(most_rows, group.rows);
    }
    for (size_t i = 0; i < places.size(); i++) {
      places[i].offset += groups[group_of[i]].partial;
      places[i].stride = groups[group_of[i]].rows;
    }
    for (int kv = 0; kv < model.kv_heads; kv++)
      for (size_t g = 0; g < groups.size(); g++)
        if (groups[g].members.size() > 1) tasks.push_back({int(g), kv});  // the longest ones first
    for (const Part& each : part)
      for (int kv = 0; kv < model.kv_heads; kv++)
        for (int c = 0; c < each.chunks; c++) {
          const int group = group_of[each.first_place + c];
          if (groups[group].members.size() == 1) tasks.push_back({group, kv});
        }
  }

 private:
  // Adds a reader's chains: one, or of a tree one for each token that does not follow the token in the row before it.
  void divide(const Rows& asked) {
    for (int t = 0; t < asked.rows;) {
      Part chain{&asked, rows, 0, t, 0, {}, 0, 0};
      if (asked.parents) {
        for (int row = asked.parents[t]; row >= 0; row = asked.parents[row]) chain.path.push_back(row);
        std::reverse(chain.path.begin(), chain.path.end());
        chain.depth = int(chain.path.size());
      }
      do {
        if (asked.parents) chain.path.push_back(t);
        part_of.push_back(int(part.size()));
        chain.rows++;
        t++;
      } while (t < asked.rows && (!asked.parents || asked.parents[t] == t - 1));
      chain.chunks = int((chain.position() + chain.rows + CHUNK - 1) / CHUNK);
      rows += chain.rows;
      part.push_back(std::move(chain));
    }
  }
};

// Where in the scratch space of a step everything lies, in floats.
struct Places {
  size_t qkv, q, max, sum, mixed, x, heads, hidden;  // shared by the threads
  size_t own;                                        // where the threads' own space begins
  size_t space, input;                               // of each thread: attention's tiles and results on their way;
                                                     // normalised rows, and rows in rounded groups
  size_t gathered;                                   // of `space`, for the positions and queries of a group, and for
                                                     // the keys and values of a tree's chain
  size_t gathered_rows;                              // how many of those

  Places(const Model& model, const Parts& parts) {
    const size_t T = size_t(parts.rows), E = size_t(model.hidden), H = size_t(model.heads), D = size_t(model.head_dim);
    const size_t KV = size_t(model.kv_heads), I = size_t(model.intermediate);
    const size_t most = size_t(parts.most_rows), widest = std::max({E, I, H * D});
    size_t floats = 0;
    auto reserve = [&](size_t n) { return std::exchange(floats, floats + whole_lines(n)); };
    qkv = reserve(T * (H + 2 * KV) * D);
    q = reserve(T * H * D / 2 + LINE);
    max = reserve(parts.partials);
    sum = reserve(parts.partials);
    mixed = reserve(parts.partials * D);
    x = reserve(T * E);
    heads = reserve(T * padded(int(H * D)) / 2);
    hidden = reserve(T * padded(int(I)) / 2);
    own = floats;
    gathered_rows = std::min<size_t>(CHUNK, T + TILE);
    gathered = whole_lines(most * sizeof(int64_t) / sizeof(float)) + whole_lines(most * D / 2 + LINE) +
               whole_lines(gathered_rows * D);
    space = whole_lines(std::max(T * std::max<size_t>(E, 64), gathered + attention_floats(int(D), int(most))));
    input = whole_lines(T * padded(int(widest)) / 2 + T * (widest / GROUP) * sizeof(RoundedGroup) / sizeof(float));
  }

  size_t all(int threads) const { return own + size_t(threads) * (space + input) + LINE; }
};

}  // namespace

extern "C" {

// Floats of scratch space that a step needs, whatever its `scratch` says.
int64_t rapid_step_floats(const Model* model, const Step* step) {
  return int64_t(Places(*model, Parts(*model, *step)).all(step->threads));
}

int rapid_serves_head_dim(int head_dim) { return head_dim_served(head_dim) ? 1 : 0; }

// Returns 0; 1 if an id is no token's; 2 if a logit is no number.
int rapid_decode_step(const Model* model, const Step* step) {
  const Parts parts(*model, *step);
  for (const Part& part : parts.part)
    for (int t = part.own; t < part.own + part.rows; t++)
      if (part.asked->ids[t] < 0 || part.asked->ids[t] >= model->vocabulary) return 1;
  const int T = parts.rows, kept = int(parts.kept.size());
  const int E = model->hidden, H = model->heads, KV = model->kv_heads, D = model->head_dim;
  const int I = model->intermediate, G = H / KV, wide = (H + 2 * KV) * D;
  const Places places(*model, parts);
  float* const base = align(step->scratch);
  float* qkv = base + places.qkv;
  bf16* q = (bf16*)(base + places.q);  // of each part (KV, G * its rows, D)
  const Partial partial{base + places.max, base + places.sum, base + places.mixed};
  bf16* by_head = (bf16*)(base + places.heads);  // (T, H * D), padded
  bf16* hidden = (bf16*)(base + places.hidden);  // (T, I), padded
  float* x = base + places.x;                    // (T, E)
  for (int t = 0; t < T; t++) {
    const Part& part = parts.part[parts.part_of[t]];
    embed(*model, part.asked->ids[part.own + t - part.first], x + size_t(t) * E);
  }
  std::atomic<int> next{0};
  std::atomic<bool> not_a_number{false};
  const int widest = std::max({E, I, H * D});

  in_parallel(step->threads, [&](const int thread, Team& team) {
    const int threads = team.threads;
    float* const space = base + places.own + size_t(thread) * (places.space + places.input);
    bf16* const mine = (bf16*)(space + places.space);
    RoundedGroup* const rounded = (RoundedGroup*)(space + places.space + T * padded(widest) / 2);

    auto given = [&](const bf16* first, int rows, int columns, const Matrix& m) {
      if (m.kind != BF16) round_groups(first, rows, columns, padded(columns), rounded);
      return Input{first, rounded, columns, padded(columns)};
    };
    auto normed = [&](const bf16* weight, float eps, int rows, const Matrix& m) {
      for (int t = 0; t < rows; t++) norm(x + size_t(t) * E, weight, eps, E, mine + t * padded(E));
      return given(mine, rows, E, m);
    };

    // x = x + product; where only some rows go on, `taken` says which, and they move up.
    auto add_product = [&](const Matrix& m, Share<int> s, const Input& in, int rows, const int* taken) {
      const int count = s.last - s.first;
      product(m, s.first, s.last, in, rows, {space, size_t(count), s.first});
      for (int t = 0; t < rows; t++) {
        // Columns of this thread alone, and never a row above t.
        const float* before = x + size_t(taken ? taken[t] : t) * E + s.first;
        float* after = x + size_t(t) * E + s.first;
        for (int o = 0; o < count; o++) after[o] = before[o] + space[size_t(t) * count + o];
      }
    };

    for (int index = 0; index < model->layers; index++) {
      const Layer& layer = model->layer[index];
      // Of the last layer only what is asked for.
      const int* taken = index == model->layers - 1 ? parts.kept.data() : nullptr;
      const int rows = index == model->layers - 1 ? kept : T;

      {
        const Input in = normed((const bf16*)layer.attention_norm, layer.attention_eps, T, layer.qkv);
        const Share<int> s = share(wide, PANEL, thread, threads);
        product(layer.qkv, s.first, s.last, in, T, {qkv, size_t(wide), 0});
      }
      team.barrier();
      for (int i = thread; i < T * (H + 2 * KV); i += threads) {
        const int t = i / (H + 2 * KV), head = i % (H + 2 * KV);
        float* v = qkv + size_t(t) * wide + size_t(head) * D;
        const Part& part = parts.part[parts.part_of[t]];
        const Rows& asked = *part.asked;
        const Segment& tail = part.tail();
        const int own = t - part.first;  // among the chain's rows
        const int64_t behind = asked.past - tail.begin + part.own + own;
        if (head >= H + KV) {
          bf16* row = (bf16*)tail.values[index] + (size_t(head - H - KV) * tail.capacity + behind) * D;
          for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
          continue;
        }
        const bool key = head >= H;
        if (const bf16* weight = (const bf16*)(key ? layer.k_norm : layer.q_norm)) {
          float squares = 0;
          for (int d = 0; d < D; d++) squares += v[d] * v[d];
          const float factor = 1.0f / std::sqrt(squares / D + layer.qk_eps);
          for (int d = 0; d < D; d++) v[d] *= factor * to_float(weight[d]);
        }
        const size_t turned = size_t(part.depth + own) * D;
        const float *cos = asked.cos + turned, *sin = asked.sin + turned;
        bf16* row = key ? (bf16*)tail.keys[index] + (size_t(head - H) * tail.capacity + behind) * D
                        : q + (size_t(part.first) * H + size_t(head) * part.rows + own) * D;
        for (int d = 0; d < D; d++) row[d] = to_bf16(v[d] * cos[d] + v[(d + D / 2) % D] * sin[d]);
      }
      if (thread == 0) next.store(0);
      team.barrier();
      for (size_t number = size_t(next++); number < parts.tasks.size(); number = size_t(next++)) {
        const Group& group = parts.groups[parts.tasks[number].group];
        const int kv = parts.tasks[number].kv;
        const int64_t begin = int64_t(group.chunk) * CHUNK;
        int64_t first = begin + CHUNK, end = begin;
        int64_t* const position = (int64_t*)space;
        bf16* const together = (bf16*)(space + whole_lines(size_t(parts.most_rows) * sizeof(int64_t) / sizeof(float)));
        const bf16* queries = together;  // (group.rows, D)
        int row = 0;
        for (const int r : group.members) {
          const Part& part = parts.part[r];
          const int each = G * part.rows;
          const bf16* own = q + (size_t(part.first) * H + size_t(kv) * each) * D;
          if (group.members.size() == 1)
            queries = own;
          else
            std::memcpy(together + size_t(row) * D, own, size_t(each) * D * sizeof(bf16));
          for (int i = 0; i < each; i++) position[row++] = part.position() + i % part.rows;
          const int64_t oldest = seen_from(part.position(), layer.window).begin;
          first = std::min(first, oldest <= begin ? begin : begin + std::min<int64_t>(oldest - begin, CHUNK) / TILE * TILE);
          end = std::max(end, std::min<int64_t>(part.position() + part.rows, begin + CHUNK));
        }
        HeadSegment segments[CHUNK / TILE + 2];  // those that begin before the chunk ends
        int count = 0;
        const Part& member = parts.part[group.members[0]];
        const Rows& any = *member.asked;
        for (const Segment* s = any.segment; s != any.segment + any.segments && s->begin < end; s++) {
          if (s + 1 != any.segment + any.segments && s[1].begin <= begin) continue;
          const size_t head = size_t(kv) * s->capacity * D;
          segments[count++] = {s->begin, (const bf16*)s->keys[index] + head, (const bf16*)s->values[index] + head};
        }
        if (!member.path.empty() && any.past < end) {
          // A tree's rows lie beside each other. Those of this chain are laid where a chain's rows would lie, behind the
          // rows of the tile in which they begin: so sums run in the same order.
          const int64_t from = std::max(begin, any.past / TILE * TILE);
          const Segment& tail = member.tail();
          const size_t head = size_t(kv) * tail.capacity * D;
          bf16* const keys = (bf16*)(space + places.gathered - whole_lines(places.gathered_rows * D));
          bf16* const values = keys + places.gathered_rows * D;
          for (int64_t at = from; at < end; at++) {
            const int64_t held = at < any.past ? at : any.past + member.path[size_t(at - any.past)];
            const size_t row = head + size_t(held - tail.begin) * D;
            std::memcpy(keys + (at - from) * D, (const bf16*)tail.keys[index] + row, size_t(D) * sizeof(bf16));
            std::memcpy(values + (at - from) * D, (const bf16*)tail.values[index] + row, size_t(D) * sizeof(bf16));
          }
          while (count && segments[count - 1].begin >= from) count--;
          segments[count++] = {from, keys, values};
        }
        const size_t at = group.partial + size_t(kv) * group.rows;
        attend(D, queries, group.rows, position, {segments, count}, first, end, layer.window, layer.scale,
               partial.max + at, partial.sum + at, partial.mixed + at * D, space + places.gathered);
      }
      team.barrier();
      for (int i = thread; i < H * rows; i += threads) {
        const int head = i % H, t = taken ? taken[i / H] : i / H;
        const Part& part = parts.part[parts.part_of[t]];
        const int row = (head % G) * part.rows + t - part.first;
        float highest = -std::numeric_limits<float>::infinity(), sum = 0;
        auto at = [&](int c) {
          const Place& place = parts.places[part.first_place + c];
          return place.offset + size_t(head / G) * place.stride + row;
        };
        for (int c = 0; c < part.chunks; c++) highest = std::max(highest, partial.max[at(c)]);
        float out[512] = {};
        for (int c = 0; c < part.chunks; c++) {
          if (partial.sum[at(c)] == 0) continue;
          const float weight = std::exp(partial.max[at(c)] - highest);
          sum += weight * partial.sum[at(c)];
          const float* mixed = partial.mixed + at(c) * D;
          for (int d = 0; d < D; d++) out[d] += weight * mixed[d];
        }
        for (int d = 0; d < D; d++) by_head[i / H * padded(H * D) + head * D + d] = to_bf16(out[d] / sum);
      }
      team.barrier();
      if (rows > 0) {
        const Input in = given(by_head, rows, H * D, layer.out);
        const Share<int> s = share(E, PANEL, thread, threads);
        add_product(layer.out, s, in, rows, taken);
      }
      team.barrier();
      if (rows > 0) {
        const Input in = normed((const bf16*)layer.mlp_norm, layer.mlp_eps, rows, layer.gate_up);
        const Share<int> s = share(I, 32, thread, threads);
        constexpr int BLOCK = 32;
        float *gate = space, *up = gate + size_t(T) * BLOCK;
        for (int start = s.first; start < s.last; start += BLOCK) {
          const int end = std::min(s.last, start + BLOCK);
          product(layer.gate_up, start, end, in, rows, {gate, BLOCK, start});
          product(layer.gate_up, I + start, I + end, in, rows, {up, BLOCK, I + start});
          for (int t = 0; t < rows; t++)
            silu_times(gate + size_t(t) * BLOCK, up + size_t(t) * BLOCK, end - start, hidden + t * padded(I) + start);
        }
      }
      team.barrier();
      if (rows > 0) {
        const Input in = given(hidden, rows, I, layer.down);
        const Share<int> s = share(E, PANEL, thread, threads);
        add_product(layer.down, s, in, rows, nullptr);
      }
      team.barrier();
    }
    if (kept > 0) {
      const int V = model->head.rows;
      const Input in = normed((const bf16*)model->final_norm, model->final_eps, kept, model->head);
      const Share<int> s = share(V, 32, thread, threads);
      product(model->head, s.first, s.last, in, kept, {step->logits, size_t(V), 0});
      for (int t = 0; t < kept; t++)
        if (any_nan(step->logits + size_t(t) * V + s.first, s.last - s.first)) not_a_number.store(true);
    }
  });

  return not_a_number.load() ? 2 : 0;
}

}  // extern "C"
