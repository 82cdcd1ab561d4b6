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
#include "experts.h"
#include "interface.h"
#include "norms.h"
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

// out (hidden,): a token's row of the embedding table.
void embed(const Model& model, int64_t id, float* out) {
  const int E = model.hidden;
  if (model.embedding_kind == BF16) {
    const bf16* row = (const bf16*)model.embedding + size_t(id) * E;
    for (int e = 0; e < E; e++) out[e] = to_float(row[e]) * model.embedding_scale;
    return;
  }
  with_format(model.embedding_kind, [&](auto format) {
    using B = decltype(format);
    raw_row<B>((const uint8_t*)model.embedding + size_t(id) * (E / (GROUP * B::GROUPS)) * B::RAW, E, out);
    return 0;
  });
  if (model.embedding_scale != 1)
    for (int e = 0; e < E; e++) out[e] *= model.embedding_scale;
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

void finish_logits(const Model& model, float* logits, int count) {
  if (model.logit_scale != 1)
    for (int i = 0; i < count; i++) logits[i] *= model.logit_scale;
  if (model.logit_softcap != 0)
    for (int i = 0; i < count; i++) logits[i] = model.logit_softcap * std::tanh(logits[i] / model.logit_softcap);
}

struct Needs {  // of the layers that have more than others
  bool before = false, added = false;  // rows as they were before attention; what a norm stands behind
  size_t widest = 0, hidden = 0;       // of experts: the widest one, and what all that a row takes write
  size_t routed = 0, pairs = 0, experts = 0;

  explicit Needs(const Model& model) {
    for (const Layer* layer = model.layer; layer != model.layer + model.layers; layer++) {
      before |= layer->parallel != 0;
      added |= layer->after_attention.kind != NO_NORM || layer->after_mlp.kind != NO_NORM;
      if (const Experts* e = layer->experts) {
        const size_t each = size_t(e->taken + (e->shared ? 1 : 0));
        widest = std::max(widest, size_t(e->widest));
        hidden = std::max(hidden, each * padded(e->widest));
        pairs = std::max(pairs, each);
        experts = std::max(experts, size_t(e->count) + 2);
        routed = std::max(routed, routed_floats(*e));
      }
    }
  }
};

// Where in the scratch space of a step everything lies, in floats.
struct Places {
  size_t qkv, q, max, sum, mixed, x, heads, hidden;  // shared by the threads
  size_t before, added, routed;                      // shared, too, and only there if a layer needs them
  size_t own;                                        // where the threads' own space begins
  size_t space, input;                               // of each thread: attention's tiles and results on their way;
                                                     // normalised rows, and rows in rounded groups
  size_t extra;                                      // of each thread, for layers with experts
  size_t gathered;                                   // of `space`, for the positions and queries of a group, and for
                                                     // the keys and values of a tree's chain
  size_t gathered_rows;                              // how many of those

  Places(const Model& model, const Parts& parts) {
    const size_t T = size_t(parts.rows), E = size_t(model.hidden), H = size_t(model.heads), D = size_t(model.head_dim);
    const size_t KV = size_t(model.kv_heads), I = size_t(model.intermediate);
    const Needs needs(model);
    const size_t most = size_t(parts.most_rows), widest = std::max({E, I, H * D, needs.widest});
    size_t floats = 0;
    auto reserve = [&](size_t n) { return std::exchange(floats, floats + whole_lines(n)); };
    qkv = reserve(T * (H + 2 * KV) * D);
    q = reserve(T * H * D / 2 + LINE);
    max = reserve(parts.partials);
    sum = reserve(parts.partials);
    mixed = reserve(parts.partials * D);
    x = reserve(T * E);
    heads = reserve(T * padded(int(H * D)) / 2);
    hidden = reserve(T * std::max(padded(int(I)), needs.hidden) / 2);
    before = reserve(needs.before ? T * E : 0);
    added = reserve(needs.added ? T * E : 0);
    routed = reserve(T * needs.routed);
    own = floats;
    gathered_rows = std::min<size_t>(CHUNK, T + TILE);
    gathered = whole_lines(most * sizeof(int64_t) / sizeof(float)) + whole_lines(most * D / 2 + LINE) +
               whole_lines(gathered_rows * D);
    const size_t products = T * std::max<size_t>(needs.routed ? 2 * E : E, 64);
    space = whole_lines(std::max(products, gathered + attention_floats(int(D), int(most))));
    input = whole_lines(T * padded(int(widest)) / 2 + T * (widest / GROUP) * sizeof(RoundedGroup) / sizeof(float));
    extra = space + input;
    if (needs.routed) input += whole_lines(T * padded(int(E)) / 2 + 2 * T * needs.pairs + needs.experts);
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
  const int G = H / KV, wide = (H + 2 * KV) * D;
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
  float *const before = base + places.before, *const added = base + places.added;  // (T, E)
  const size_t widest = std::max({size_t(E), size_t(model->intermediate), size_t(H) * D, Needs(*model).widest});

  in_parallel(step->threads, [&](const int thread, Team& team) {
    const int threads = team.threads;
    float* const space = base + places.own + size_t(thread) * (places.space + places.input);
    bf16* const mine = (bf16*)(space + places.space);
    RoundedGroup* const rounded = (RoundedGroup*)(space + places.space + T * padded(int(widest)) / 2);

    auto given = [&](const bf16* first, int rows, int columns, const Matrix& m, size_t stride = 0) {
      if (!stride) stride = padded(columns);
      if (m.kind != BF16) round_groups(first, rows, columns, stride, rounded);
      return Input{first, rounded, columns, stride};
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

    // The same for what a norm stands behind: y (rows, E), of which this thread has written its columns.
    auto add_behind = [&](const Norm& norm, Share<int> s, float factor, int rows, const int* taken, float* kept) {
      team.barrier();
      const size_t count = size_t(s.last - s.first);
      for (int t = 0; t < rows; t++) {
        const float* y = added + size_t(t) * E;
        const Spread of = spread(norm, y, E);
        for (int e = s.first; e < s.last; e++)
          space[t * count + e - s.first] = (y[e] - of.mean) * of.factor * weight_of(norm, e) + bias_of(norm, e);
      }
      add(s, space, count, factor, rows, taken, kept);
    };

    auto add_product = [&](const Matrix& m, const Norm& norm, const Input& in, const Layer& layer, int rows,
                           const int* taken, float* kept) {
      const Share<int> s = share(E, PANEL, thread, threads);
      const size_t count = size_t(s.last - s.first);
      if (norm.kind == NO_NORM) {
        product(m, s.first, s.last, in, rows, {space, count, s.first});
        return add(s, space, count, layer.residual, rows, taken, kept);
      }
      product(m, s.first, s.last, in, rows, {added, size_t(E), 0});
      add_behind(norm, s, layer.residual, rows, taken, kept);
    };

    auto add_experts = [&](const Layer& layer, const float* read, int rows) {
      const Experts& e = *layer.experts;
      const Routed routed{e, base + places.routed};
      {
        const Input in = normed(read, layer.before_mlp, rows, e.router);
        const Share<int> s = share(e.router.rows, 1, thread, threads);
        product(e.router, s.first, s.last, in, rows, {routed.base, routed_floats(e), 0});
      }
      team.barrier();
      for (int t = thread; t < rows; t += threads) route(e, routed.scores(t), routed.weights(t), routed.taken(t));
      team.barrier();
      bf16* const gathered = (bf16*)(base + places.own + size_t(thread) * (places.space + places.input) + places.extra);
      const Order order(routed, rows, (int32_t*)(gathered + size_t(T) * padded(E)));
      const size_t stride = padded(e.widest);  // of `hidden`, which has a row for each pair
      for (int i = 0; i < experts_of(e); i++) {
        const int first = order.begin[i], count = order.begin[i + 1] - first, inner = e.down[i].columns;
        if (count == 0) continue;
        for (int n = 0; n < count; n++)
          std::copy_n(mine + size_t(order.row[first + n]) * padded(E), E, gathered + size_t(n) * padded(E));
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
      const bool behind = layer.after_mlp.kind != NO_NORM;
      float *const y = behind ? added + s.first : space, *const part = space + size_t(rows) * columns;
      const size_t apart = behind ? size_t(E) : columns;
      for (int t = 0; t < rows; t++) std::fill_n(y + t * apart, columns, 0.0f);
      for (int i = 0; i < experts_of(e); i++) {
        const int first = order.begin[i], count = order.begin[i + 1] - first;
        if (count == 0) continue;
        const Input in = given(hidden + size_t(first) * stride, count, e.down[i].columns, e.down[i], stride);
        product(e.down[i], s.first, s.last, in, count, {part, columns, s.first});
        for (int n = 0; n < count; n++) {
          const int t = order.row[first + n];
          const float weight = routed.weights(t)[order.slot[first + n]];
          for (size_t c = 0; c < columns; c++) y[t * apart + c] += weight * part[n * columns + c];
        }
      }
      if (behind)
        add_behind(layer.after_mlp, s, layer.residual, rows, nullptr, nullptr);
      else
        add(s, y, apart, layer.residual, rows, nullptr, nullptr);
    };

    for (int index = 0; index < model->layers; index++) {
      const Layer& layer = model->layer[index];
      // Of the last layer only what is asked for.
      const int* taken = index == model->layers - 1 ? parts.kept.data() : nullptr;
      const int rows = index == model->layers - 1 ? kept : T;

      {
        const Input in = normed(x, layer.before_attention, T, layer.qkv);
        const Share<int> s = share(wide, PANEL, thread, threads);
        product(layer.qkv, s.first, s.last, in, T, {qkv, size_t(wide), 0});
      }
      team.barrier();
      for (int i = thread; i < T * (H + 2 * KV); i += threads) {
        const int t = i / (H + 2 * KV), head = i % (H + 2 * KV);
        const float* projected = qkv + size_t(t) * wide;
        const Part& part = parts.part[parts.part_of[t]];
        const Rows& asked = *part.asked;
        const Segment& tail = part.tail();
        const int own = t - part.first;  // among the chain's rows
        const int64_t behind = asked.past - tail.begin + part.own + own;
        if (head >= H + KV) {
          const float* v = projected + size_t(head) * D;
          bf16* row = (bf16*)tail.values[index] + (size_t(head - H - KV) * tail.capacity + behind) * D;
          for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
          continue;
        }
        const size_t turned = size_t(part.depth + own) * model->turned;
        const float *cos = asked.cos + turned, *sin = asked.sin + turned;
        if (head >= H)
          turn(layer.key, layer.rope, projected + size_t(H) * D, KV, head - H, cos, sin, D,
               (bf16*)tail.keys[index] + (size_t(head - H) * tail.capacity + behind) * D);
        else
          turn(layer.query, layer.rope, projected, H, head, cos, sin, D,
               q + (size_t(part.first) * H + size_t(head) * part.rows + own) * D);
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
        attend(D, queries, group.rows, position, {segments, count}, first, end, layer.sight, partial.max + at,
               partial.sum + at, partial.mixed + at * D, space + places.gathered);
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
        if (layer.sinks) {
          const Shares with = with_sink(highest, sum, sink_of(layer.sinks, head));
          sum = with.sum;
          for (int d = 0; d < D; d++) out[d] *= with.factor;
        }
        for (int d = 0; d < D; d++) by_head[i / H * padded(H * D) + head * D + d] = to_bf16(out[d] / sum);
      }
      team.barrier();
      if (rows > 0) {
        const Input in = given(by_head, rows, H * D, layer.out);
        add_product(layer.out, layer.after_attention, in, layer, rows, taken, layer.parallel ? before : nullptr);
      }
      team.barrier();
      const float* const read = layer.parallel ? before : x;  // by the MLP
      if (layer.experts) {
        if (rows > 0) add_experts(layer, read, rows);
        team.barrier();
        continue;
      }
      const int I = layer.down.columns;
      if (rows > 0) {
        const Input in = normed(read, layer.before_mlp, rows, layer.gate_up);
        const Share<int> s = share(I, 32, thread, threads);
        constexpr int BLOCK = 32;
        float *gate = space, *up = layer.gated ? gate + size_t(T) * BLOCK : nullptr;
        for (int start = s.first; start < s.last; start += BLOCK) {
          const int end = std::min(s.last, start + BLOCK);
          product(layer.gate_up, start, end, in, rows, {gate, BLOCK, start});
          if (up) product(layer.gate_up, I + start, I + end, in, rows, {up, BLOCK, I + start});
          for (int t = 0; t < rows; t++)
            activate(layer.activation, gate + size_t(t) * BLOCK, up ? up + size_t(t) * BLOCK : nullptr, end - start,
                     hidden + t * padded(I) + start);
        }
      }
      team.barrier();
      if (rows > 0) {
        const Input in = given(hidden, rows, I, layer.down);
        add_product(layer.down, layer.after_mlp, in, layer, rows, nullptr, nullptr);
      }
      team.barrier();
    }
    if (kept > 0) {
      const int V = model->head.rows;
      const Input in = normed(x, model->final_norm, kept, model->head);
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
