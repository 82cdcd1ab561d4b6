// Recurrences and short convolutions in a decode step: rows enter the records of their texts, heads go on from their
// states, and gates and norms stand behind what they give.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "recurrence.h"
#include "step_worker.h"

namespace {

// A layer's recurrence, and where its rows lie.
struct Recurrent {
  const Workspace& all;
  const Layer& layer;
  const Recurrence& r;
  const size_t wide, width;  // numbers of a row in `qkv`, and in a text's record
  const size_t inputs;       // where the layer's own begin among those of a text
  float* const projected;    // (T, wide): what is convolved and what else the first product gives, but the attention's

  Recurrent(const Workspace& all, const LayerStep& here)
      : all(all),
        layer(here.layer),
        r(*layer.recurrence),
        wide(here.widths.qkv),
        width(record_width(r)),
        inputs(size_t(layer.state) * size_t(r.taps - 1) * size_t(r.channels)),
        projected(all.qkv + r.first) {}

  float* record(const Rows& asked) const { return asked.record + size_t(layer.state) * size_t(asked.record_apart); }

  // Which row of its text's record row t of the step is, and where it lies.
  int number(int t) const {
    const Part& part = all.parts.of(t);
    return part.asked->recorded + t - part.first;
  }
  float* row(int t) const { return record(*all.parts.of(t).asked) + size_t(number(t)) * width; }

  // out (count,) = `count` channels of row t from `first` on, convolved.
  void convolve_row(int t, int first, int count, float* out) const {
    const Rows& asked = *all.parts.of(t).asked;
    convolve(r, asked.inputs + inputs, record(asked), number(t), first, count, out);
  }
};

// Decays for each number of a key, and gates, behind all else in `qkv`.
inline void find_decays(const Worker& w, const Recurrent& of) {
  const Recurrence& r = of.r;
  const int T = w.all.T;
  const size_t wide = of.wide;
  float* const qkv = w.all.qkv;
  const size_t rates = size_t(of.layer.qkv.rows);
  size_t from = rates + size_t(r.value_heads), to = rates + size_t(r.rates.rows);
  for (const Matrix* m : {&r.decay_up, &r.gate_up}) {
    const int columns = m->columns;
    for (int t = 0; t < T; t++)
      for (int d = 0; d < columns; d++)
        w.mine[t * padded(columns) + d] = to_bf16(qkv[size_t(t) * wide + from + size_t(d)]);
    const Share<int> s = w.multiply(*m, w.given(w.mine, T, columns, *m), T, qkv + to, wide);
    if (m == &r.decay_up)
      for (int t = 0; t < T; t++)
        for (int i = s.first; i < s.last; i++) {
          float& kept = qkv[size_t(t) * wide + to + size_t(i)];
          kept = std::exp(r.decay[i / r.key_dim] * softplus(kept + r.bias[i]));
        }
    from += size_t(columns), to += size_t(m->rows);
  }
  w.team.barrier();
}

// What is convolved of this step's rows, and what rates and decays are computed from, into their records.
inline void record_rows(const Worker& w, const Recurrent& of) {
  const Recurrence& r = of.r;
  const int C = r.channels;
  for (int t = w.thread; t < w.all.T; t += w.threads) {
    const float* own = of.projected + size_t(t) * of.wide;
    float* const to = of.row(t);
    if (!r.value_heads) {  // the gate before the convolution
      for (int c = 0; c < C; c++) to[c] = own[c] * own[2 * C + c];
      continue;
    }
    std::copy(own, own + C, to);
    if (selective(r) || r.blocks) continue;  // the rest is computed of what is convolved
    const float* const rates = w.all.qkv + size_t(t) * of.wide + of.layer.qkv.rows;
    if (r.decay_up.rows) {
      const float* const kept = rates + r.rates.rows;
      std::copy(kept, kept + r.decay_up.rows, std::copy(rates, rates + r.value_heads, to + C));
    } else {
      std::copy(rates, rates + r.rates.rows, to + C);
    }
  }
}

// by_head = what a short convolution gives of the rows that go on, with the gate behind it.
inline void convolve_rows(const Worker& w, const LayerStep& here, const Recurrent& of) {
  const int C = of.r.channels;
  const size_t stride = padded(C);
  for (int place = w.thread; place < here.rows; place += w.threads) {
    const int t = here.row_at(place);
    of.convolve_row(t, 0, C, w.space);
    const float* behind = of.projected + size_t(t) * of.wide + C;
    for (int c = 0; c < C; c++) w.all.by_head[size_t(place) * stride + c] = to_bf16(behind[c] * w.space[c]);
  }
}

// The step, the key and the query of a Mamba's row t, of what its products give, into the row's record.
inline void record_selected_row(const Worker& w, const Recurrent& of, int t, const float* chosen, const float* steps,
                            Share<int> s) {
  const Recurrence& r = of.r;
  const int C = r.channels, K = r.key_dim, low = r.selected.rows - 2 * K;
  float* const to = of.row(t) + C;
  softplus_of(steps + s.first, r.bias + s.first, s.last - s.first, to + s.first);
  if (t % w.threads != w.thread) return;
  const Norm* norm = &r.key_norm;
  for (int first : {low, low + K}) {
    const float* const x = chosen + first;
    const Spread spread_of = spread(*norm, x, K);
    for (int i = 0; i < K; i++)
      to[C + first - low + i] = (x[i] - spread_of.mean) * spread_of.factor * weight_of(*norm, i);
    norm = &r.query_norm;
  }
}

// What of a Mamba's rows is computed of their convolved values, into their records: steps, keys and queries.
OUT_OF_LINE void record_selection(const Worker& w, const Recurrent& of) {
  const Workspace& all = w.all;
  const Recurrence& r = of.r;
  const int T = all.T, C = r.channels, V = r.value_dim, columns = r.step_up.columns;
  const int low = r.selected.rows - 2 * r.key_dim;
  const size_t wide = of.wide, stride = padded(C);
  float *const chosen = all.qkv + of.layer.qkv.rows, *const steps = chosen + r.selected.rows;  // (T, wide)
  for (int i = w.thread; i < T * r.value_heads; i += w.threads) {
    const int t = i / r.value_heads, head = i % r.value_heads;
    const Rows& asked = *all.parts.of(t).asked;
    selected_values(r, head, asked.inputs + of.inputs, of.record(asked), of.number(t), w.space);
    for (int d = 0; d < V; d++) all.by_head[size_t(t) * stride + size_t(head * V + d)] = to_bf16(w.space[d]);
  }
  w.team.barrier();
  w.multiply(r.selected, w.given(all.by_head, T, C, r.selected), T, chosen, wide);
  w.team.barrier();
  for (int t = 0; t < T; t++) {
    bf16* const to = w.mine + t * padded(columns);
    normalise(r.step_norm, chosen + size_t(t) * wide, low, to);
    std::fill(to + low, to + columns, bf16(0));
  }
  const Share<int> s = w.columns(C);
  product(r.step_up, s.first, s.last, w.given(w.mine, T, columns, r.step_up), T, {steps, wide, 0});
  for (int t = 0; t < T; t++) record_selected_row(w, of, t, chosen + size_t(t) * wide, steps + size_t(t) * wide, s);
  w.team.barrier();
}

// What an RG-LRU computes of its rows' convolved values, into their records: decays, and what is added.
OUT_OF_LINE void gate_by_block(const Worker& w, const Recurrent& of) {
  const Workspace& all = w.all;
  const Recurrence& r = of.r;
  const int T = all.T, C = r.channels, V = r.value_dim, W = C / r.blocks;
  const size_t wide = of.wide, stride = padded(C);
  float* const products = all.qkv + of.layer.qkv.rows;  // (T, wide)
  for (int i = w.thread; i < T * r.value_heads; i += w.threads) {
    const int t = i / r.value_heads, first = i % r.value_heads * V;
    float* const values = of.row(t) + 2 * size_t(C) + first;  // until they are gated
    of.convolve_row(t, first, V, values);
    for (int d = 0; d < V; d++) all.by_head[size_t(t) * stride + size_t(first + d)] = to_bf16(values[d]);
  }
  w.team.barrier();
  for (int block = w.thread; block < r.blocks; block += w.threads) {
    const int first = block * W;
    float* const own = products + 2 * first;
    const Input in = w.given(all.by_head + first, T, W, r.gates[block], stride);
    product(r.gates[block], 0, 2 * W, in, T, {own, wide, 0});
    for (int t = 0; t < T; t++) {
      const Part& part = all.parts.of(t);
      const bool begins = part.position() + t - part.first == 0;  // nothing was before, and all of the value is added
      const float *const of_values = own + size_t(t) * wide, *const of_decays = of_values + W;
      float *const kept = of.row(t) + C + first, *const added = kept + C;
      for (int d = 0; d < W; d++) {
        const float log = r.decay[first + d] * sigmoid(of_decays[d]);
        const float share = begins ? 1.0f : std::sqrt(-std::expm1(2.0f * log));
        kept[d] = begins ? 0.0f : std::exp(log);
        added[d] *= sigmoid(of_values[d]) * share;
      }
    }
  }
  w.team.barrier();
}

// recurred (T, of all heads) = what heads give: one head of a text is a task. Settled states are kept.
inline void recur_heads(const Worker& w, const Recurrent& of) {
  Workspace& all = w.all;
  const Recurrence& r = of.r;
  const int V = r.value_dim, tasks = int(all.parts.part.size()) * r.value_heads;
  const size_t whole = given_width(r);
  for (int task = all.next++; task < tasks; task = all.next++) {
    const Part& part = all.parts.part[size_t(task / r.value_heads)];
    const Rows& asked = *part.asked;
    const int head = task % r.value_heads;
    const size_t matrix = (size_t(of.layer.state) * r.value_heads + head) * matrix_floats(r);
    float* const into = asked.settled ? asked.state_into + matrix : nullptr;
    recur(r, head, asked.inputs + of.inputs, of.record(asked), asked.recorded + part.rows, asked.state + matrix, into,
          asked.settled, w.space, [&](int row, const float* given) {
            const int t = part.first + row - asked.recorded;
            if (row >= asked.recorded) std::copy(given, given + V, all.recurred + size_t(t) * whole + size_t(head) * V);
          });
  }
}

// by_head = what heads give of the rows that go on, behind gates and a norm.
inline void gate_rows(const Worker& w, const LayerStep& here, const Recurrent& of) {
  const Workspace& all = w.all;
  const Recurrence& r = of.r;
  const size_t wide = of.wide, whole = given_width(r), stride = padded(int(whole));
  const float* const gates = r.gate_up.rows ? all.qkv + wide - r.gate_up.rows : of.projected + r.channels;  // (T, wide)
  const int together = normed_together(r), norms = int(whole) / together;
  for (int i = w.thread; i < here.rows * norms; i += w.threads) {
    const int place = i / norms, t = here.row_at(place), first = i % norms * together;
    gate_heads(r, first, all.recurred + size_t(t) * whole + first, gates + size_t(t) * wide + first,
               all.by_head + size_t(place) * stride + first);
  }
}

// by_head = what a recurrence gives of the rows that go on. Beside an attention it is added with a product of its own.
OUT_OF_LINE void recur_layer(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Recurrent of(all, here);
  const Recurrence& r = of.r;
  if (r.decay_up.rows) find_decays(w, of);
  record_rows(w, of);
  w.share_tasks();
  for (int p = w.thread; p < int(all.parts.part.size()); p += w.threads) {
    const Rows& asked = *all.parts.part[size_t(p)].asked;
    if (asked.settled)
      last_inputs(r, asked.inputs + of.inputs, of.record(asked), asked.settled, asked.inputs_into + of.inputs);
  }
  if (!r.value_heads) return convolve_rows(w, here, of);
  if (selective(r)) record_selection(w, of);
  if (r.blocks) gate_by_block(w, of);
  recur_heads(w, of);
  w.team.barrier();
  gate_rows(w, here, of);
  if (!r.out.rows) return;
  w.team.barrier();  // the attention beside it writes to `by_head` only behind another barrier
  if (here.rows > 0) {
    const Input in = w.given(all.by_head, here.rows, int(given_width(r)), r.out);
    w.add_product(r.out, Norm{}, in, r.factor, here.rows, here.taken, nullptr);
  }
}

}  // namespace
