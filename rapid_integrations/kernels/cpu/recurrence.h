// Gated delta nets (arXiv 2412.06464), Mamba2 (arXiv 2405.21060) and Mamba (arXiv 2312.00752): each head keeps a matrix S
// (key_dim, value_dim) in place of keys and values. Short convolutions (LFM2) keep their last inputs alone.
//
// A token's key k, value v, query q, decay a and rate b make S' = a S + k u^T, and the head gives S'^T q. A delta net has
// u = b (v - a S^T k), and keys and queries of length 1; Mamba2 has u = b v, and gives a multiple of v, too. Of some delta nets
// (Kimi Linear, arXiv 2510.26692) each number of a key has a decay of its own, a factor on its row of S.
//
// A Mamba convolves values alone. One key and query serve all heads, and they and a step for each value are computed of the
// convolved values. Each number of S has a decay of its own, exp(step decay), and u = step v. Its heads are as many columns as
// are computed together, no more.
//
// An RG-LRU (arXiv 2402.19427) has S of one row, which a decay for each number and what is added change, and gives S. It convolves
// values, and computes decays and what is added of them by gates of blocks of channels.
//
// Lightning attention (arXiv 2401.04658) is a Mamba2 whose rates are 1 and whose decays are constant: `rates` has no rows.
//
// Tokens are computed one after another, so that one has the same bits whatever others are read with it. A row of a text
// holds the numbers that are convolved, and behind them what rates and then what decays are computed from; Mamba2 has both
// of the same. Where each number of a key has a decay, these are computed before, and the row holds them; of a Mamba it holds
// steps, the key and the query, and of an RG-LRU decays and what is added. It may stand beside an attention (Falcon-H1), with an `out` of its own.

#pragma once

#include <algorithm>
#include <cmath>

#include "interface.h"
#include "norms.h"
#include "numbers.h"

namespace {

inline bool selective(const Recurrence& r) { return r.selected.rows != 0; }

// Numbers of a row behind those that are convolved.
inline size_t recorded_rates(const Recurrence& r) {
  if (selective(r)) return size_t(r.channels) + 2 * size_t(r.key_dim);
  if (r.blocks) return 2 * size_t(r.channels);
  return size_t(r.decay_up.rows ? r.value_heads + r.decay_up.rows : r.rates.rows);
}

inline size_t record_width(const Recurrence& r) { return size_t(r.channels) + recorded_rates(r); }

inline size_t matrix_floats(const Recurrence& r) { return size_t(r.key_dim) * size_t(r.value_dim); }

// Numbers of a row that its heads give, or its channels.
inline size_t given_width(const Recurrence& r) {
  return r.value_heads ? size_t(r.value_heads) * size_t(r.value_dim) : size_t(r.channels);
}

// Floats of space that one head needs.
inline size_t recur_floats(const Recurrence& r) { return matrix_floats(r) + 3 * size_t(r.key_dim) + 3 * size_t(r.value_dim); }

// out (count,) = what a convolution makes of `count` channels from `first` on, of row t. Before row 0 there are taps - 1 rows
// of `before`.
inline void convolve(const Recurrence& r, const float* before, const float* record, int t, int first, int count, float* out) {
  const size_t C = size_t(r.channels), width = record_width(r);
  if (r.tap_bias)
    std::copy_n(r.tap_bias + first, count, out);
  else
    std::fill_n(out, count, 0.0f);
  for (int w = 0; w < r.taps; w++) {
    const int row = t + w - (r.taps - 1);
    const float* x = (row < 0 ? before + size_t(row + r.taps - 1) * C : record + size_t(row) * width) + first;
    const float* tap = r.tap + size_t(w) * C + first;
    for (int c = 0; c < count; c++) out[c] += tap[c] * x[c];
  }
}

inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

inline float silu(float x) { return x / (1.0f + std::exp(-x)); }

inline float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

#if RAPID_WIDE
inline __m512 softplus512(__m512 x) {  // max(x, 0) + log(1 + y) of y = exp(-|x|), which is 2 artanh(y / (2 + y))
  const __m512 y = exp512(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
  const __m512 s = _mm512_div_ps(y, _mm512_add_ps(_mm512_set1_ps(2.0f), y)), square = _mm512_mul_ps(s, s);
  __m512 p = _mm512_set1_ps(2.0f / 17);
  for (float c : {2.0f / 15, 2.0f / 13, 2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3, 2.0f})
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(c));
  return _mm512_fmadd_ps(p, s, _mm512_max_ps(_mm512_setzero_ps(), x));
}
#endif

// out = softplus(x + bias).
inline void softplus_of(const float* x, const float* bias, int count, float* out) {
  int c = 0;
#if RAPID_WIDE
  for (; c + 16 <= count; c += 16)
    _mm512_storeu_ps(out + c, softplus512(_mm512_add_ps(_mm512_loadu_ps(x + c), _mm512_loadu_ps(bias + c))));
#endif
  for (; c < count; c++) out[c] = softplus(x[c] + bias[c]);
}

inline void silu_of(float* out, int count) {
  int c = 0;
#if RAPID_WIDE
  for (; c + 16 <= count; c += 16) _mm512_storeu_ps(out + c, silu512(_mm512_loadu_ps(out + c)));
#endif
  for (; c < count; c++) out[c] = silu(out[c]);
}

// x (count,), scaled to a length of `length`.
inline void scale_to(float length, int count, float* x) {
  float squares[16] = {};
  for (int i = 0; i < count; i++) squares[i % 16] += x[i] * x[i];
  float total = 0;
  for (float each : squares) total += each;
  const float factor = length / std::sqrt(total + 1e-6f);
  for (int i = 0; i < count; i++) x[i] *= factor;
}

// out (value_dim,) = S^T k.
inline void find(const float* S, const float* k, int rows, int columns, float* out) {
  int d = 0;
#if RAPID_WIDE
  constexpr int N = 4;
  for (; d + 16 * N <= columns; d += 16 * N) {
    __m512 sum[N];
    for (int j = 0; j < N; j++) sum[j] = _mm512_setzero_ps();
    for (int i = 0; i < rows; i++) {
      const __m512 factor = _mm512_set1_ps(k[i]);
      for (int j = 0; j < N; j++)
        sum[j] = _mm512_fmadd_ps(factor, _mm512_loadu_ps(S + size_t(i) * columns + d + 16 * j), sum[j]);
    }
    for (int j = 0; j < N; j++) _mm512_storeu_ps(out + d + 16 * j, sum[j]);
  }
#endif
  std::fill(out + d, out + columns, 0.0f);
  for (int i = 0; i < rows; i++)
    for (int c = d; c < columns; c++) out[c] += k[i] * S[size_t(i) * columns + c];
}

// to = kept * from + k added^T; out = to^T q. `kept` is one number, or one for each row.
template <bool EACH>
void change(const float* from, const float* kept, const float* k, const float* added, const float* q, int rows, int columns,
            float* to, float* out) {
  int d = 0;
#if RAPID_WIDE
  constexpr int N = 2;
  __m512 left = _mm512_set1_ps(kept[0]);
  for (; d + 16 * N <= columns; d += 16 * N) {
    __m512 sum[N], more[N];
    for (int j = 0; j < N; j++) sum[j] = _mm512_setzero_ps(), more[j] = _mm512_loadu_ps(added + d + 16 * j);
    for (int i = 0; i < rows; i++) {
      const __m512 of_key = _mm512_set1_ps(k[i]), of_query = _mm512_set1_ps(q[i]);
      if (EACH) left = _mm512_set1_ps(kept[i]);
      for (int j = 0; j < N; j++) {
        const size_t at = size_t(i) * columns + d + 16 * j;
        const __m512 changed = _mm512_fmadd_ps(of_key, more[j], _mm512_mul_ps(left, _mm512_loadu_ps(from + at)));
        _mm512_storeu_ps(to + at, changed);
        sum[j] = _mm512_fmadd_ps(of_query, changed, sum[j]);
      }
    }
    for (int j = 0; j < N; j++) _mm512_storeu_ps(out + d + 16 * j, sum[j]);
  }
#endif
  std::fill(out + d, out + columns, 0.0f);
  for (int i = 0; i < rows; i++)
    for (int c = d; c < columns; c++) {
      const size_t at = size_t(i) * columns + c;
      to[at] = kept[EACH ? i : 0] * from[at] + k[i] * added[c];
      out[c] += q[i] * to[at];
    }
}

// to = exp(step decay) * from + k added^T; out = to^T q. `decay` has a number for each one of the matrix, `step` for each column.
inline void change_selectively(const float* from, const float* decay, const float* step, const float* k, const float* added,
                               const float* q, int rows, int columns, float* to, float* out) {
  int d = 0;
#if RAPID_WIDE
  for (; d + 16 <= columns; d += 16) {
    const __m512 steps = _mm512_loadu_ps(step + d), more = _mm512_loadu_ps(added + d);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < rows; i++) {
      const size_t at = size_t(i) * columns + d;
      const __m512 left = exp512(_mm512_mul_ps(steps, _mm512_loadu_ps(decay + at)));
      const __m512 changed = _mm512_fmadd_ps(_mm512_set1_ps(k[i]), more, _mm512_mul_ps(left, _mm512_loadu_ps(from + at)));
      _mm512_storeu_ps(to + at, changed);
      sum = _mm512_fmadd_ps(_mm512_set1_ps(q[i]), changed, sum);
    }
    _mm512_storeu_ps(out + d, sum);
  }
#endif
  std::fill(out + d, out + columns, 0.0f);
  for (int i = 0; i < rows; i++)
    for (int c = d; c < columns; c++) {
      const size_t at = size_t(i) * columns + c;
      to[at] = std::exp(step[c] * decay[at]) * from[at] + k[i] * added[c];
      out[c] += q[i] * to[at];
    }
}

// out = the values of one head of a Mamba, of row t.
inline void selected_values(const Recurrence& r, int head, const float* before, const float* record, int t, float* out) {
  convolve(r, before, record, t, head * r.value_dim, r.value_dim, out);
  silu_of(out, r.value_dim);
}

// Does `recur` for a head of a Mamba.
template <class Give>
void recur_selectively(const Recurrence& r, int head, const float* before, const float* record, int count, const float* state,
                       float* into, int settled, float* space, const Give& give) {
  const int V = r.value_dim, first = head * V;
  float *const matrix = space, *const v = matrix + matrix_floats(r), *const added = v + V, *const out = added + V;
  const float* const decay = r.decay + size_t(head) * matrix_floats(r);
  const float* from = state;
  for (int t = 0; t < count; t++) {
    float* const to = into && t < settled ? into : matrix;
    selected_values(r, head, before, record, t, v);
    const float* const own = record + size_t(t) * record_width(r) + r.channels;  // steps, the key and the query
    const float *const step = own + first, *const k = own + r.channels, *const q = k + r.key_dim;
    for (int d = 0; d < V; d++) added[d] = step[d] * v[d];
    change_selectively(from, decay, step, k, added, q, r.key_dim, V, to, out);
    for (int d = 0; d < V; d++) out[d] += r.skip[first + d] * v[d];
    from = to;
    give(t, out);
  }
}

// Does `recur` for the channels of one head of an RG-LRU.
template <class Give>
void recur_by_number(const Recurrence& r, int head, const float* record, int count, const float* state, float* into, int settled,
                     float* matrix, const Give& give) {
  const float* from = state;
  for (int t = 0; t < count; t++) {
    float* const to = into && t < settled ? into : matrix;
    const float* const kept = record + size_t(t) * record_width(r) + r.channels + size_t(head) * r.value_dim;
    const float* const added = kept + r.channels;
    for (int d = 0; d < r.value_dim; d++) to[d] = kept[d] * from[d] + added[d];
    from = to;
    give(t, to);
  }
}

// Reads `count` rows with one head, whose matrix is `state`. Behind the first `settled` rows the matrix is left in `into`,
// unless that is null. Row t's output is passed to give(t, output (value_dim,)).
template <class Give>
void recur(const Recurrence& r, int head, const float* before, const float* record, int count, const float* state, float* into,
           int settled, float* space, const Give& give) {
  if (selective(r)) return recur_selectively(r, head, before, record, count, state, into, settled, space, give);
  if (r.blocks) return recur_by_number(r, head, record, count, state, into, settled, space, give);
  const int K = r.key_dim, V = r.value_dim;
  const int key_head = r.tiled ? head % r.key_heads : head / (r.value_heads / r.key_heads);
  const int keys = r.key_heads * K, C = r.channels;
  float *const matrix = space, *const q = matrix + matrix_floats(r), *const k = q + K;
  float *const v = k + K, *const found = v + V, *const out = found + V, *const left = out + V;
  const float* from = state;
  for (int t = 0; t < count; t++) {
    float* const to = into && t < settled ? into : matrix;
    convolve(r, before, record, t, key_head * K, K, q);
    convolve(r, before, record, t, keys + key_head * K, K, k);
    convolve(r, before, record, t, 2 * keys + head * V, V, v);
    silu_of(q, 2 * K + V);  // they lie one behind the other
    const float* const own = record + size_t(t) * record_width(r) + C;
    if (r.decay_up.rows) {
      const float *const kept = own + r.value_heads + size_t(head) * K, rate = r.rate_scale * sigmoid(own[head]);
      scale_to(1.0f / std::sqrt(float(K)), K, q);
      scale_to(1.0f, K, k);
      for (int i = 0; i < K; i++) left[i] = kept[i] * k[i];
      find(from, left, K, V, found);
      for (int d = 0; d < V; d++) v[d] = rate * (v[d] - found[d]);
      change<true>(from, kept, k, v, q, K, V, to, out);
      from = to;
      give(t, out);
      continue;
    }
    const auto rate_of = [&] { return own[r.rates.rows - r.value_heads + head] * r.rate_factor + r.bias[head]; };
    const float step = r.rates.rows ? std::max(softplus(rate_of()), r.least_rate) : 1.0f;
    const float kept = std::exp(r.decay[head] * step);
    if (r.skip) {
      for (int d = 0; d < V; d++) found[d] = step * v[d];
      change<false>(from, &kept, k, found, q, K, V, to, out);
      for (int d = 0; d < V; d++) out[d] += r.skip[head] * v[d];
    } else {
      scale_to(1.0f / std::sqrt(float(K)), K, q);
      scale_to(1.0f, K, k);
      find(from, k, K, V, found);
      const float rate = r.rate_scale * sigmoid(own[head]);
      for (int d = 0; d < V; d++) v[d] = rate * (v[d] - kept * found[d]);
      change<false>(from, &kept, k, v, q, K, V, to, out);
    }
    from = to;
    give(t, out);
  }
}

// The last taps - 1 rows that are convolved, of those before and the first `settled` of the record.
inline void last_inputs(const Recurrence& r, const float* before, const float* record, int settled, float* into) {
  const int C = r.channels, kept = r.taps - 1;
  for (int w = 0; w < kept; w++) {
    const int row = settled - kept + w;
    const float* from = row < 0 ? before + size_t(row + kept) * C : record + size_t(row) * record_width(r);
    std::copy(from, from + C, into + size_t(w) * C);
  }
}

// How many numbers of a row the norm takes together. Without a norm, those of a head are as good as any.
inline int normed_together(const Recurrence& r) { return r.together ? r.together : r.value_dim; }

inline float factor_of(const Recurrence& r, float gate) {
  if (r.gelu_gates) return activated({GELU_TANH, 0, 0, 0, 0}, gate, nullptr);
  return r.sigmoid_gates ? sigmoid(gate * r.gate_factor) : silu(gate * r.gate_factor);
}

// out = what heads give, x, with its gates and the norm: the numbers from `first` on that the norm takes together. x may be
// changed.
inline void gate_heads(const Recurrence& r, int first, float* x, const float* gate, bf16* out) {
  const int count = normed_together(r), weight = r.skip ? first : 0;
  if (r.skip && !r.gates_behind) {
    for (int d = 0; d < count; d++) x[d] *= factor_of(r, gate[d]);
    const Spread s = spread(r.norm, x, count);
    for (int d = 0; d < count; d++) out[d] = to_bf16((x[d] - s.mean) * s.factor * weight_of(r.norm, weight + d));
    return;
  }
  const Spread s = spread(r.norm, x, count);
  for (int d = 0; d < count; d++)
    out[d] = to_bf16((x[d] - s.mean) * s.factor * weight_of(r.norm, weight + d) * factor_of(r, gate[d]));
}

}  // namespace
