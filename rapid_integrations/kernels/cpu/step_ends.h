// What a decode step does before its layers and behind them: tokens' rows, states that are wanted, and logits.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "blocks.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "step_parts.h"
#include "step_worker.h"
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

// x = the embedded rows of all readers. Layers that read them beside the sum find them in `embedded`, too.
inline void embed_rows(const Workspace& all) {
  const int T = all.T, E = all.E;
  for (int t = 0; t < T; t++) {
    const Part& part = all.parts.of(t);
    const bf16* const learned = (const bf16*)part.asked->learned;
    embed(all.model, part.token(t), learned ? part.row_of(learned, E, t) : nullptr, all.x + size_t(t) * E);
  }
  if (all.places.aside != all.places.embedded) std::copy(all.x, all.x + size_t(T) * E, all.embedded);
}

// What a layer reads, if it is wanted.
inline void keep_states(const Worker& w, int index) {
  const Workspace& all = w.all;
  const int T = all.T, E = all.E;
  float* const states = states_of(all.step, index, T, E);
  if (!states) return;
  const Share<int> s = w.columns(E);
  for (int t = 0; t < T; t++)
    std::copy(all.x + size_t(t) * E + s.first, all.x + size_t(t) * E + s.last, states + size_t(t) * E + s.first);
}

// Logits of the rows that are kept, which have moved up, and what the head reads if it is wanted.
inline void give_logits(const Worker& w) {
  Workspace& all = w.all;
  const Model& model = all.model;
  const int kept = int(all.parts.kept.size()), E = all.E, V = model.head.rows;
  if (kept == 0) return;
  if (model.streams) all.streams.merge(all.x, kept, w.mine, w.thread, w.team);
  const Input in = w.normed(all.x, model.final_norm, kept, model.head);
  if (float* const states = states_of(all.step, -1, all.T, E); states && w.thread == 0)
    for (int t = 0; t < kept; t++)
      for (int e = 0; e < E; e++)
        states[size_t(all.parts.kept[size_t(t)]) * E + e] = to_float(w.mine[t * padded(E) + e]);
  const Share<int> s = w.multiply(model.head, in, kept, all.step.logits, size_t(V), 32);
  for (int t = 0; t < kept; t++) {
    float* const own = all.step.logits + size_t(t) * V + s.first;
    finish_logits(model, own, s.last - s.first);
    if (any_nan(own, s.last - s.first)) all.not_a_number.store(true);
  }
}

}  // namespace
