// What a decode step does before its layers and behind them: tokens' rows, inputs of every layer, states that are wanted, and
// logits.

#pragma once

#include <cmath>

#include "blocks.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_parts.h"
#include "threads.h"

namespace {

// out (hidden,): a token's row of the embedding table.
inline void row_of_table(const Model& model, int64_t id, float* out) {
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

// The same with its learned position, which may be null, as the first layer reads it.
inline void embed(const Model& model, int64_t id, const bf16* position, float* out) {
  const int E = model.hidden;
  row_of_table(model, id, out);
  if (position)
    for (int e = 0; e < E; e++) out[e] += to_float(position[e]);
  if (model.embedding_norm.kind == NO_NORM) return;
  const Spread s = spread(model.embedding_norm, out, E);
  for (int e = 0; e < E; e++)
    out[e] = (out[e] - s.mean) * s.factor * weight_of(model.embedding_norm, e) + bias_of(model.embedding_norm, e);
}

// Where the hidden states of a level are wanted, (rows, hidden), or null.
inline float* states_of(const Step& step, int level, int rows, int hidden) {
  for (int i = 0; i < step.levels; i++)
    if (step.level[i] == level) return step.states + size_t(i) * rows * hidden;
  return nullptr;
}

inline void finish_logits(const Model& model, float* logits, int count) {
  if (model.logit_scale != 1)
    for (int i = 0; i < count; i++) logits[i] *= model.logit_scale;
  if (model.logit_softcap != 0)
    for (int i = 0; i < count; i++) logits[i] = model.logit_softcap * std::tanh(logits[i] / model.logit_softcap);
}

// inputs (T, layers, width): of every layer, of embedded rows that enter their product as `in`.
inline void layer_inputs(const Model& model, const Parts& parts, const Input& in, float* inputs, int thread, Team& team) {
  const LayerInputs& of = *model.inputs;
  const int T = parts.rows, P = of.width, all = model.layers * P;
  const Share<int> s = share(all, PANEL, thread, team.threads);
  product(of.projection, s.first, s.last, in, T, {inputs, size_t(all), 0});
  team.barrier();
  for (int i = thread; i < T * model.layers; i += team.threads) {
    const int t = i / model.layers, index = i % model.layers;
    const Part& part = parts.part[parts.part_of[t]];
    const int64_t id = part.asked->ids[part.own + t - part.first];
    const bf16* row = (const bf16*)of.table + size_t(id < of.tokens ? id : 0) * all + size_t(index) * P;
    float* const own = inputs + size_t(t) * all + size_t(index) * P;
    for (int p = 0; p < P; p++) own[p] *= of.projection_scale;
    const Spread by = spread(of.norm, own, P);
    for (int p = 0; p < P; p++) {
      const float projected = (own[p] - by.mean) * by.factor * weight_of(of.norm, p) + bias_of(of.norm, p);
      own[p] = (projected + to_float(row[p]) * of.scale) * of.factor;
    }
  }
}

}  // namespace
