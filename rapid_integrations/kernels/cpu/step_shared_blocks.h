// Blocks of which several layers of a decode step share the weights (Zamba2): adapters of low rank beside them, the
// embedded rows that they read, and what they give to the next layer alone.

#pragma once

#include <algorithm>
#include <cstddef>

#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_mlp.h"
#include "step_worker.h"

namespace {

// low = what the first matrix of an adapter gives for rows that enter it as `in`.
OUT_OF_LINE void go_low(const Worker& w, const Adapter& a, const Input& in, int rows) {
  const Share<int> s = w.columns(a.down.rows);
  const size_t count = size_t(s.last - s.first), stride = padded(a.down.rows);
  product(a.down, s.first, s.last, in, rows, {w.space, count, s.first});
  for (int t = 0; t < rows; t++)
    for (size_t c = 0; c < count; c++) w.all.low[t * stride + size_t(s.first) + c] = to_bf16(w.space[t * count + c]);
}

// y gets rows [first, last) of what the second one makes of that: element (t, row) is y[t * stride + row - first].
// `room` is for MLP_BLOCK numbers of each row.
OUT_OF_LINE void go_up(const Worker& w, const Adapter& a, int first, int last, int rows, float* y, size_t stride,
                       float* room) {
  constexpr int BLOCK = MLP_BLOCK;
  const int rank = a.up[0].columns;
  for (int p = 0, begin = 0; p < a.parts; begin += a.up[p++].rows) {
    const Input in{w.all.low + size_t(p) * rank, {}, rank, padded(a.down.rows)};
    const int from = std::max(first, begin), to = std::min(last, begin + a.up[p].rows);
    for (int start = from; start < to; start += BLOCK) {
      const int end = std::min(to, start + BLOCK);
      product(a.up[p], start - begin, end - begin, in, rows, {room, BLOCK, start - begin});
      for (int t = 0; t < rows; t++)
        for (int i = start; i < end; i++) y[size_t(t) * stride + size_t(i - first)] += room[t * BLOCK + i - start];
    }
  }
}

// Rows of a layer and the embedded ones behind them, as a norm leaves them.
OUT_OF_LINE Input normed_both(const Worker& w, const Norm& norm, const Matrix& m) {
  const Workspace& all = w.all;
  const int E = all.E;
  for (int t = 0; t < all.T; t++) {
    std::copy_n(all.x + size_t(t) * E, E, w.space);
    std::copy_n(all.embedded + size_t(t) * E, E, w.space + E);
    normalise(norm, w.space, 2 * E, w.mine + t * padded(2 * E));
  }
  return w.given(w.mine, all.T, 2 * E, m);
}

// aside = what the next layer reads, of a layer that gives nothing to the sum: its MLP reads what its attention gives.
OUT_OF_LINE void give_aside(const Worker& w, const Layer& layer) {
  const Workspace& all = w.all;
  const int T = all.T, E = all.E, I = layer.down.columns;
  const Adapter* const adapter = layer.gate_up_adapter;
  w.multiply(layer.out, w.given(all.by_head, T, layer.out.columns, layer.out), T, all.aside, size_t(E));
  w.team.barrier();
  const Input in = w.normed(all.aside, layer.before_mlp, T, layer.gate_up);
  if (adapter) {
    go_low(w, *adapter, Input{w.mine, {}, E, padded(E)}, T);
    w.team.barrier();
  }
  float* const room = w.space + 2 * size_t(T) * MLP_BLOCK;  // behind gates and what they are multiplied with
  activate_columns(w, layer, I, T, all.hidden, padded(I), [&](float* to, int first, int last) {
    product(layer.gate_up, first, last, in, T, {to, MLP_BLOCK, first});
    if (adapter) go_up(w, *adapter, first, last, T, to, MLP_BLOCK, room);
  });
  w.team.barrier();
  const Share<int> s = w.multiply(layer.down, w.given(all.hidden, T, I, layer.down), T, all.added, size_t(E));
  w.team.barrier();
  const size_t count = size_t(s.last - s.first);
  product(layer.aside, s.first, s.last, w.normed(all.added, Norm{}, T, layer.aside), T, {w.space, count, s.first});
  for (int t = 0; t < T; t++)
    for (int e = s.first; e < s.last; e++)
      all.aside[size_t(t) * E + e] = all.x[size_t(t) * E + e] + w.space[t * count + e - s.first];
  w.team.barrier();
}

}  // namespace
