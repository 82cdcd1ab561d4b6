// Inputs of layers in a decode step (Gemma 3n, Gemma 4): each layer has numbers of its own for a token, which it adds
// at its end.

#pragma once

#include <cstddef>

#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_worker.h"

namespace {

// inputs (T, layers, width): of every layer, of the embedded rows.
OUT_OF_LINE void find_inputs(const Worker& w, const LayerInputs& of) {
  const Workspace& all = w.all;
  const int layers = all.model.layers, P = of.width, width = layers * P;
  w.multiply(of.projection, w.normed(all.x, Norm{}, all.T, of.projection), all.T, all.inputs, size_t(width));
  w.team.barrier();
  for (int i = w.thread; i < all.T * layers; i += w.threads) {
    const int t = i / layers, index = i % layers;
    const int64_t id = all.parts.of(t).token(t);
    const bf16* row = (const bf16*)of.table + size_t(id < of.tokens ? id : 0) * width + size_t(index) * P;
    float* const own = all.inputs + size_t(t) * width + size_t(index) * P;
    for (int p = 0; p < P; p++) own[p] *= of.projection_scale;
    const Spread by = spread(of.norm, own, P);
    for (int p = 0; p < P; p++) {
      const float projected = (own[p] - by.mean) * by.factor * weight_of(of.norm, p) + bias_of(of.norm, p);
      own[p] = (projected + to_float(row[p]) * of.scale) * of.factor;
    }
  }
}

// Adds what a layer makes of its rows and of its own input: to the rows, or to all streams but the first.
OUT_OF_LINE void add_input(const Worker& w, const LayerStep& here, const LayerInput& own) {
  const Workspace& all = w.all;
  const int rows = here.rows, P = own.gate.rows;
  const size_t of_all = size_t(all.model.layers) * P;
  w.team.barrier();
  {
    const Input in = w.normed(all.x, Norm{}, rows, own.gate);
    const Share<int> s = w.columns(P);
    const size_t count = size_t(s.last - s.first);
    product(own.gate, s.first, s.last, in, rows, {w.space, count, s.first});
    for (int t = 0; t < rows; t++)
      activate(own.activation, w.space + t * count,
               all.inputs + size_t(here.row_at(t)) * of_all + size_t(here.index) * P + s.first, int(count),
               all.hidden + t * padded(P) + s.first);
  }
  w.team.barrier();
  const Input in = w.given(all.hidden, rows, P, own.projection);
  if (!here.layer.alternation) return w.add_product(own.projection, own.norm, in, 1.0f, rows, nullptr, nullptr);
  const Share<int> s = w.multiply(own.projection, in, rows, all.added, size_t(all.E));
  w.norm_added(own.norm, s, rows);
  all.streams.add(s, rows, w.space, size_t(s.last - s.first));
}

}  // namespace
