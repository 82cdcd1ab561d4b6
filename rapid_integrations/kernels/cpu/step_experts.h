// The experts of a layer in a decode step: each is read once for all rows that take it.

#pragma once

#include <algorithm>
#include <cstddef>

#include "experts.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_mlp.h"
#include "step_worker.h"

namespace {

// Which experts the rows `read` take, and the rows in `mine` as experts read them.
inline void route_rows(const Worker& w, const Layer& layer, const Routed& routed, const float* read, int rows) {
  const Experts& e = *layer.experts;
  const Branches* const branches = e.branches;
  const int E = w.all.E;
  const Input in = w.normed(read, branches ? branches->router : layer.before_mlp, rows, e.router);
  w.multiply(e.router, in, rows, routed.base, routed_floats(e), 1);
  w.team.barrier();
  for (int t = w.thread; t < rows; t += w.threads) route(e, routed.scores(t), routed.weights(t), routed.taken(t));
  if (branches)
    for (int t = 0; t < rows; t++) normalise(branches->before, read + size_t(t) * E, E, w.mine + t * padded(E));
  w.team.barrier();
}

// gathered (count, E), padded: the rows that take expert i, from the pair `first` on.
inline void gather_rows(const Worker& w, const Routed& routed, const Order& order, int first, int count,
                        bf16* gathered) {
  const Experts& e = routed.e;
  const int E = w.all.E;
  for (int n = 0; n < count; n++) {
    const int t = order.row[first + n];
    const bf16* from = w.mine + size_t(t) * padded(E);
    bf16* const to = gathered + size_t(n) * padded(E);
    if (e.scales_inputs) {
      const float weight = to_float(to_bf16(routed.weights(t)[order.slot[first + n]]));
      for (int c = 0; c < E; c++) to[c] = to_bf16(to_float(from[c]) * weight);
    } else {
      std::copy_n(from, E, to);
    }
  }
}

// hidden (pairs, `stride` apart) = what lies between the products of an expert, for this thread's columns of each.
inline void enter_experts(const Worker& w, const Layer& layer, const Routed& routed, const Order& order, bf16* gathered,
                          size_t stride) {
  const Experts& e = routed.e;
  for (int i = 0; i < experts_of(e); i++) {
    const int first = order.begin[i], count = order.begin[i + 1] - first;
    if (count == 0) continue;
    gather_rows(w, routed, order, first, count, gathered);
    const Input in = w.given(gathered, count, w.all.E, e.gate_up[i]);
    bf16* const out = w.all.hidden + size_t(first) * stride;
    activate_columns(w, layer, e.down[i].columns, count, out, stride, [&](float* to, int from, int end) {
      product(e.gate_up[i], from, end, in, count, {to, MLP_BLOCK, from});
    });
  }
}

// y = the weighted sums of what each row's experts give, for this thread's columns s: of row t from y + t * apart on.
inline void sum_experts(const Worker& w, const Routed& routed, const Order& order, size_t stride, Share<int> s,
                        int rows, float* y, size_t apart) {
  const Experts& e = routed.e;
  const size_t columns = size_t(s.last - s.first);
  float* const part = w.space + size_t(rows) * columns;
  for (int t = 0; t < rows; t++) std::fill_n(y + t * apart, columns, 0.0f);
  for (int i = 0; i < experts_of(e); i++) {
    const int first = order.begin[i], count = order.begin[i + 1] - first;
    if (count == 0) continue;
    const Input in = w.given(w.all.hidden + size_t(first) * stride, count, e.down[i].columns, e.down[i], stride);
    product(e.down[i], s.first, s.last, in, count, {part, columns, s.first});
    for (int n = 0; n < count; n++) {
      const int t = order.row[first + n];
      const float weight = e.scales_inputs ? 1.0f : routed.weights(t)[order.slot[first + n]];
      for (size_t c = 0; c < columns; c++) y[t * apart + c] += weight * part[n * columns + c];
    }
  }
}

// added = after_mlp(of_mlp) + after(of_experts), for this thread's columns s.
inline void join_branches(const Worker& w, const Branches& norms, Share<int> s, int rows) {
  const Workspace& all = w.all;
  const int E = all.E;
  w.team.barrier();
  for (int t = 0; t < rows; t++) {
    const float *a = all.of_mlp + size_t(t) * E, *b = all.of_experts + size_t(t) * E;
    const Spread of_a = spread(norms.after_mlp, a, E), of_b = spread(norms.after, b, E);
    for (int e = s.first; e < s.last; e++)
      all.added[size_t(t) * E + e] =
          (a[e] - of_a.mean) * of_a.factor * weight_of(norms.after_mlp, e) + bias_of(norms.after_mlp, e) +
          (b[e] - of_b.mean) * of_b.factor * weight_of(norms.after, e) + bias_of(norms.after, e);
  }
}

// Adds what the experts make of the rows `read`, with the MLP beside them if there is one.
OUT_OF_LINE void add_experts(const Worker& w, const LayerStep& here, const float* read) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  const Experts& e = *layer.experts;
  const Branches* const branches = e.branches;
  const int rows = here.rows;
  const Routed routed{e, all.base + all.places.routed};
  route_rows(w, layer, routed, read, rows);
  bf16* const gathered = (bf16*)(w.space + all.places.extra);
  const Order order(routed, rows, (int32_t*)(gathered + size_t(all.T) * padded(all.E)));
  const size_t stride = padded(e.widest);  // of `hidden`, which has a row for each pair
  enter_experts(w, layer, routed, order, gathered, stride);
  w.team.barrier();
  if (layer.mlp_kept != 0) w.keep_normed(layer.mlp_kept, rows);
  const Share<int> s = w.columns(all.E);
  const bool behind = branches || layer.after_mlp.kind != NO_NORM;
  float* const whole = branches ? all.of_experts : all.added;  // that a norm stands behind
  float* const y = behind ? whole + s.first : w.space;
  const size_t apart = behind ? size_t(all.E) : size_t(s.last - s.first);
  sum_experts(w, routed, order, stride, s, rows, y, apart);
  if (branches) join_branches(w, *branches, s, rows);
  if (behind)
    w.add_normed(layer.after_mlp, s, layer.mlp_residual, rows, nullptr, nullptr);
  else
    w.add(s, y, apart, layer.mlp_residual, rows, nullptr, nullptr);
}

}  // namespace
