// Where everything lies in the scratch space of a decode step.

#pragma once

#include <algorithm>
#include <utility>

#include "attend.h"
#include "experts.h"
#include "interface.h"
#include "numbers.h"
#include "product.h"
#include "scratch.h"
#include "step_parts.h"

namespace {

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
  size_t row;                                        // floats that hold a key and its value

  Places(const Model& model, const Parts& parts, int kv) {
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
    row = row_bytes(kv, int(D)) * 2 / sizeof(float);
    gathered_rows = std::min<size_t>(CHUNK, T + TILE);
    gathered = whole_lines(most * sizeof(int64_t) / sizeof(float)) + whole_lines(most * D / 2 + LINE) +
               whole_lines(gathered_rows * row);
    const size_t products = T * std::max<size_t>(needs.routed ? 2 * E : E, 64);
    space = whole_lines(std::max(products, gathered + attention_floats(kv, int(D), int(most))));
    input = whole_lines(T * padded(int(widest)) / 2 + T * (widest / GROUP) * sizeof(RoundedGroup) / sizeof(float));
    extra = space + input;
    if (needs.routed) input += whole_lines(T * padded(int(E)) / 2 + 2 * T * needs.pairs + needs.experts);
  }

  size_t all(int threads) const { return own + size_t(threads) * (space + input) + LINE; }
};

}  // namespace
