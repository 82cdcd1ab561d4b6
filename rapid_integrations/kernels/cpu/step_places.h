// Where everything lies in the scratch space of a decode step.

#pragma once

#include <algorithm>
#include <utility>

#include "attend.h"
#include "experts.h"
#include "indexer.h"
#include "interface.h"
#include "latents.h"
#include "numbers.h"
#include "product.h"
#include "recurrence.h"
#include "scratch.h"
#include "step_parts.h"
#include "step_streams.h"

namespace {

struct Needs {  // of the layers that have more than others
  bool before = false, added = false;  // rows as they were before attention; what a norm stands behind
  bool branches = false;               // experts beside an MLP
  size_t widest = 0, hidden = 0;       // of experts: the widest one, and what all that a row takes write
  size_t routed = 0, pairs = 0, experts = 0;
  size_t inputs = 0;                   // of all layers, and what enters the projection of one of them
  size_t input = 0;
  size_t laurel = 0, gates = 0;        // of augmented residuals; of gates of which a share becomes 0
  size_t latent = 0;                   // of a head's products with latents
  bool aside = false;                  // layers that read embedded rows, or give nothing to the sum
  size_t low = 0;                      // between the two matrices of an adapter

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
        branches |= e->branches != nullptr;
      }
      if (const Laurel* own = layer->laurel) laurel = std::max(laurel, LaurelRows::floats(*own, model.hidden));
      if (const Latent* l = layer->latent) latent = size_t(std::max(l->rank, l->value));
      aside |= layer->with_embedding || layer->aside.rows;
      for (const Adapter* a : {layer->qkv_adapter, layer->gate_up_adapter})
        if (a) low = std::max(low, size_t(a->down.rows));
      if (layer->sparse) gates = size_t(model.intermediate) + 1;  // and where they are cut off
      if (const LayerInput* own = layer->input) {
        added = true;
        input = std::max(input, size_t(own->projection.columns));
      }
    }
    added |= branches || aside;
    if (model.inputs) inputs = size_t(model.layers) * size_t(model.inputs->width);
  }
};

struct Widths {  // numbers of what a layer's attention works with, and bytes of a cache's rows
  size_t qkv;      // of what its first product gives
  size_t queries;  // of all heads' queries if a second product gives them, or 0
  size_t query;    // of a head's query as it meets keys
  size_t mixed;    // of what a head mixes
  size_t out;      // of what all heads give
  size_t widest;   // of rows that enter one of its products
  size_t key_bytes, value_bytes;

  Widths(const Layer& layer, int kv) {
    const size_t H = size_t(layer.heads), D = size_t(layer.head_dim);
    qkv = size_t(layer.qkv.rows);
    if (const Latent* l = layer.latent) {
      const size_t compressed = size_t(l->query_up.rows ? l->query_up.columns : 0);
      queries = size_t(l->query_up.rows);
      query = size_t(l->rank + l->rotated);
      mixed = size_t(l->rank);
      out = H * size_t(l->value);
      widest = std::max({out, compressed, mixed, size_t(l->plain)});
      key_bytes = row_bytes(kv, l->rotated), value_bytes = row_bytes(kv, l->rank);
    } else {
      queries = 0, query = mixed = D, out = widest = H * D;
      key_bytes = value_bytes = row_bytes(kv, layer.head_dim);
    }
    if (const Indexer* i = layer.indexer) qkv += size_t(i->key.rows) + size_t(i->weights.rows);
    if (const Recurrence* r = layer.recurrence) {
      qkv += size_t(r->rates.rows) + size_t(r->decay_up.rows) + size_t(r->gate_up.rows);
      qkv += size_t(r->selected.rows) + size_t(r->step_up.rows) + (r->blocks ? 2 * size_t(r->channels) : 0);
      const size_t given = given_width(*r);
      out = r->out.rows ? std::max(out, given) : given;
      widest = std::max({out, size_t(r->decay_up.columns), size_t(r->gate_up.columns), size_t(r->step_up.columns)});
    }
  }
};

// Floats of scratch space for G heads of a row that attend to a chunk of the keys which it has chosen.
inline size_t chosen_floats(const Layer& layer, int G, size_t query, int kv) {
  const Latent& l = *layer.latent;
  return whole_lines(size_t(G) * sizeof(int64_t) / sizeof(float)) + whole_lines(size_t(G) * query / 2 + LINE) +
         whole_lines(CHUNK * row_bytes(kv, l.rotated) / sizeof(float)) +
         whole_lines(CHUNK * row_bytes(kv, l.rank) / sizeof(float)) + 2 * whole_lines(size_t(G)) +
         whole_lines(size_t(G) * l.rank) + latent_floats(l.rank, l.rotated, G) + LINE;
}

// Where in the scratch space of a step everything lies, in floats.
struct Places {
  size_t qkv, queries, q, max, sum, mixed, x, heads, hidden;  // shared by the threads
  size_t before, added, branches, routed, inputs, recurred;  // shared, too, and only there if a layer needs them
  size_t streams, laurel, gates;                     // the same
  size_t embedded, aside, low;                       // the same
  size_t own;                                        // where the threads' own space begins
  size_t space, input;                               // of each thread: attention's tiles and results on their way;
                                                     // normalised rows, and rows in rounded groups
  size_t extra;                                      // of each thread, for layers with experts
  size_t gathered;                                   // of `space`, for the positions and queries of a group, and for
                                                     // the keys and values of a tree's chain
  size_t gathered_rows;                              // how many of those
  size_t row;                                        // floats that hold a key and its value
  size_t widest;                                     // numbers of a row that enters a product, at most
  ChoicePlaces choice;                               // of the keys that rows see

  Places(const Model& model, const Parts& parts, const HeadsOfLayers& heads_of, int kv) {
    const size_t T = size_t(parts.rows), E = size_t(model.hidden), H = size_t(model.heads);
    const size_t I = size_t(model.intermediate);
    const Needs needs(model);
    widest = std::max({E, I, needs.widest, needs.input, needs.low});
    size_t most = 0, partials = 0, of_mixed = 0, of_qkv = 0, of_queries = 0, of_query = 0, of_out = 0, own_floats = 0;
    size_t recurring = 0, of_heads = 0;
    row = 0;
    for (const Heads& each : heads_of.kinds) {
      most = std::max(most, size_t(each.most_rows));
      partials = std::max(partials, each.partials);
    }
    for (int index = 0; index < model.layers; index++) {
      const Layer& layer = model.layer[index];
      const Heads& own_heads = heads_of.of(index);
      const Widths widths(layer, kv);
      const int rows = own_heads.most_rows;
      widest = std::max({widest, widths.widest, size_t(layer.qkv.columns)});
      of_qkv = std::max(of_qkv, widths.qkv), of_queries = std::max(of_queries, widths.queries);
      of_query = std::max(of_query, widths.query), of_out = std::max(of_out, widths.out);
      of_mixed = std::max(of_mixed, own_heads.partials * widths.mixed);
      row = std::max(row, (widths.key_bytes + widths.value_bytes) / sizeof(float));
      own_floats = std::max(own_floats, layer.latent ? latent_floats(layer.latent->rank, layer.latent->rotated, rows)
                                                     : attend_floats(kv, layer.head_dim, rows));
      if (const Recurrence* r = layer.recurrence)
        recurring = std::max({recurring, recur_floats(*r), size_t(r->value_heads ? 0 : r->channels)});
      if (layer.recurrence) of_heads = std::max(of_heads, widths.out);
      if (layer.chosen) choosing(parts, layer, own_heads, widths, kv);
    }
    size_t floats = 0;
    auto reserve = [&](size_t n) { return std::exchange(floats, floats + whole_lines(n)); };
    qkv = reserve(T * of_qkv);
    queries = reserve(T * of_queries);
    q = reserve(T * H * of_query / 2 + LINE);
    max = reserve(partials);
    sum = reserve(partials);
    mixed = reserve(of_mixed);
    x = reserve(T * E);
    heads = reserve(T * padded(int(of_out)) / 2);
    hidden = reserve(T * std::max({padded(int(I)), needs.hidden, padded(int(needs.input))}) / 2);
    before = reserve(needs.before ? T * E : 0);
    added = reserve(needs.added ? T * E : 0);
    branches = reserve(needs.branches ? 2 * T * E : 0);
    routed = reserve(T * needs.routed);
    inputs = reserve(T * needs.inputs);
    recurred = reserve(T * of_heads);
    streams = reserve(model.streams ? size_t(model.streams->count) * T * E : 0);
    laurel = reserve(T * needs.laurel);
    gates = reserve(T * needs.gates);
    embedded = reserve(needs.aside ? T * E : 0);
    aside = reserve(needs.aside ? T * E : 0);
    low = reserve(needs.low ? T * padded(int(needs.low)) / 2 : 0);
    choice.queries = reserve(T * of_index);
    choice.turned = reserve(T * of_index / 2 + LINE);
    choice.scores = reserve(T * choice.longest);
    choice.keys = reserve(choice.longest ? T * chosen : 0);
    own = floats;
    gathered_rows = std::min<size_t>(CHUNK, T + TILE);
    gathered = whole_lines(most * sizeof(int64_t) / sizeof(float)) + whole_lines(most * of_query / 2 + LINE) +
               whole_lines(gathered_rows * row);
    const size_t doubled = needs.routed || needs.aside ? 2 * E : E;
    const size_t products = T * std::max<size_t>({doubled, needs.input, needs.latent, needs.low, size_t(needs.low ? 96 : 64)});
    space = whole_lines(std::max({products, gathered + own_floats, recurring, choice.space}));
    input = whole_lines(T * padded(int(widest)) / 2 + rounded_floats(T, widest));
    extra = space + input;
    if (needs.routed) input += whole_lines(T * padded(int(E)) / 2 + 2 * T * needs.pairs + needs.experts);
  }

  size_t all(int threads) const { return own + size_t(threads) * (space + input) + LINE; }

 private:
  size_t of_index = 0, chosen = 0;

  // What a layer whose rows choose keys needs.
  void choosing(const Parts& parts, const Layer& layer, const Heads& heads, const Widths& widths, int kv) {
    if (const Indexer* i = layer.indexer) of_index = std::max(of_index, size_t(i->query.rows));
    if (!any_choosing(parts, layer.chosen)) return;
    chosen = std::max(chosen, size_t(layer.chosen));
    for (const Part& part : parts.part) choice.longest = std::max(choice.longest, size_t(part.position() + part.rows));
    choice.longest = whole_lines(choice.longest);
    choice.space = std::max({choice.space, choice.longest, chosen_floats(layer, heads.G, widths.query, kv)});
    if (layer.indexer) choice.space = std::max(choice.space, index_floats(*layer.indexer, kv));
  }
};

}  // namespace
