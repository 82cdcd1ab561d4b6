// The MLP of a layer in a decode step.

#pragma once

#include <cstddef>

#include "alternation.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_worker.h"

namespace {

constexpr int MLP_BLOCK = 32;  // columns that are computed together: what lies between two products stays near a core

// out (rows, `stride` apart) = activation(gate) * up of `inner` columns, for this thread's ones. fill(to, first, last)
// writes rows [first, last) of a matrix's product with its input, whose gates are its first `inner` rows, to
// to[t * MLP_BLOCK + row - first].
template <class Fill>
inline void activate_columns(const Worker& w, const Layer& layer, int inner, int rows, bf16* out, size_t stride,
                             const Fill& fill) {
  float *const gate = w.space, *const up = layer.gated ? gate + size_t(w.all.T) * MLP_BLOCK : nullptr;
  const Share<int> s = w.columns(inner, MLP_BLOCK);
  for (int start = s.first; start < s.last; start += MLP_BLOCK) {
    const int end = std::min(s.last, start + MLP_BLOCK);
    fill(gate, start, end);
    if (up) fill(up, inner + start, inner + end);
    for (int t = 0; t < rows; t++)
      activate(layer.activation, gate + size_t(t) * MLP_BLOCK, up ? up + size_t(t) * MLP_BLOCK : nullptr, end - start,
               out + t * stride + start);
  }
}

// All gates of sparse rows, (rows, I), and where they are cut off, which depends on all of a row.
OUT_OF_LINE void find_cutoffs(const Worker& w, const Layer& layer, const Input& in, int rows) {
  const int I = layer.down.columns;
  float* const gates = w.all.gates;
  const Share<int> s = w.columns(I, MLP_BLOCK);
  product(layer.gate_up, s.first, s.last, in, rows, {gates, size_t(I), 0});
  w.team.barrier();
  for (int t = w.thread; t < rows; t += w.threads)
    w.all.cutoffs[t] = cutoff(gates + size_t(t) * I, I, layer.quantile);
  w.team.barrier();
}

// gate (rows, MLP_BLOCK) = what is left of the gates of columns [first, last) of sparse rows.
inline void cut_gates(const Workspace& all, int I, int rows, float* gate, int first, int last) {
  for (int t = 0; t < rows; t++)
    for (int c = first; c < last; c++)
      gate[t * MLP_BLOCK + c - first] = above(all.gates[size_t(t) * I + c], all.cutoffs[t]);
}

// Adds what the MLP makes of the rows `read`, or leaves it in `of_mlp` where experts stand beside it.
inline void add_mlp(const Worker& w, const LayerStep& here, const float* read) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  const int rows = here.rows, I = layer.down.columns;
  if (rows > 0) {
    const Input in = w.normed(read, layer.before_mlp, rows, layer.gate_up);
    if (layer.sparse) find_cutoffs(w, layer, in, rows);
    activate_columns(w, layer, I, rows, all.hidden, padded(I), [&](float* to, int first, int last) {
      const bool of_gates = first < I;
      if (of_gates && layer.sparse)
        cut_gates(all, I, rows, to, first, last);
      else
        product(layer.gate_up, first, last, in, rows, {to, MLP_BLOCK, first});
      if (of_gates && layer.gate_factor != 1)
        for (int i = 0; i < rows * MLP_BLOCK; i++) to[i] *= layer.gate_factor;
    });
  }
  w.team.barrier();
  if (rows == 0) return;
  if (layer.mlp_kept != 0) w.keep_normed(layer.mlp_kept, rows);
  const Input in = w.given(all.hidden, rows, I, layer.down);
  if (layer.experts)
    w.multiply(layer.down, in, rows, all.of_mlp, size_t(all.E));
  else
    w.add_product(layer.down, layer.after_mlp, in, layer.mlp_residual, rows, nullptr, nullptr);
}

}  // namespace
