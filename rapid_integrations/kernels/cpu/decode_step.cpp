// One forward pass of a Llama-like decoder for a few new tokens (a decode or verify step), on a processor.
//
// A step reads every weight and every cached key and value once, for one to some thirty rows of input. What PyTorch's
// operators cost beyond that is calls, thread synchronisation and kernels made for many rows. Here the whole step is
// one parallel region. Activations are float32, and rounded to bfloat16 where they enter a product, as the model does.
//
// Every row is computed in the same order of operations whatever the number of rows, of threads or of tokens behind
// it: sums over a weight's columns run in one fixed order, and attention is split at absolute positions. A token thus
// gets bit for bit the same logits alone and among the drafts that are verified with it.
//
// Plain C interface, no PyTorch headers: it compiles in seconds. `interface.h` has the structs.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>

#include "attention.h"
#include "interface.h"
#include "numbers.h"
#include "product.h"
#include "scratch.h"
#include "threads.h"

namespace {

struct Partial {  // of one chunk: running maximum and sum of exp for each row, and the weighted values
  float* max;   // (tasks, G * T)
  float* sum;
  float* mixed;  // (tasks, G * T, D)
};

void norm(const float* x, const bf16* weight, float eps, int n, bf16* out) {
  float squares[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
  float total = 0;
  for (; i < n; i++) total += x[i] * x[i];
  for (int j = 0; j < 16; j++) total += squares[j];
  const float factor = 1.0f / std::sqrt(total / n + eps);
  for (i = 0; i < n; i++) out[i] = to_bf16(x[i] * factor * to_float(weight[i]));
}

void sum_groups(const bf16* x, int rows, int columns, float* sums) {
  for (int t = 0; t < rows; t++, x += padded(columns))
    for (int g = 0; g < columns / GROUP; g++) {
      float total = 0;
      for (int i = 0; i < GROUP; i++) total += to_float(x[g * GROUP + i]);
      *sums++ = total;
    }
}

// out = silu(gate) * up
void silu_times(const float* gate, const float* up, int n, bf16* out) {
  int i = 0;
#if RAPID_AVX512
  for (; i + 16 <= n; i += 16) {
    const __m512 product = _mm512_mul_ps(silu512(_mm512_loadu_ps(gate + i)), _mm512_loadu_ps(up + i));
    _mm256_storeu_si256((__m256i*)(out + i), (__m256i)_mm512_cvtneps_pbh(product));
  }
#endif
  for (; i < n; i++) out[i] = to_bf16(gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
}

// Where in the scratch space of a step everything lies, in floats.
struct Places {
  size_t qkv, q, max, sum, mixed, x, heads, hidden;  // shared by the threads
  size_t own;                                        // where the threads' own space begins
  size_t space, input;                               // of each thread: attention's tiles and results on their way;
                                                     // normalised rows and their group sums

  Places(const Model& model, const Step& step) {
    const size_t T = size_t(step.rows), E = size_t(model.hidden), H = size_t(model.heads), D = size_t(model.head_dim);
    const size_t KV = size_t(model.kv_heads), I = size_t(model.intermediate), rows = H / KV * T;
    const size_t tasks = KV * ((size_t(step.past) + T + CHUNK - 1) / CHUNK), widest = std::max({E, I, H * D});
    size_t floats = 0;
    auto reserve = [&](size_t n) { return std::exchange(floats, floats + whole_lines(n)); };
    qkv = reserve(T * (H + 2 * KV) * D);
    q = reserve(T * H * D / 2 + LINE);
    max = reserve(tasks * rows);
    sum = reserve(tasks * rows);
    mixed = reserve(tasks * rows * D);
    x = reserve(T * E);
    heads = reserve(T * padded(int(H * D)) / 2);
    hidden = reserve(T * padded(int(I)) / 2);
    own = floats;
    space = whole_lines(std::max(T * std::max<size_t>(E, 64), attention_floats(int(D), int(rows))));
    input = whole_lines(T * padded(int(widest)) / 2 + T * (widest / GROUP + 1));
  }

  size_t all(int threads) const { return own + size_t(threads) * (space + input) + LINE; }
};

}  // namespace

extern "C" {

// Floats of scratch space that a step needs, whatever its `scratch` says.
int64_t rapid_step_floats(const Model* model, const Step* step) {
  return int64_t(Places(*model, *step).all(step->threads));
}

int rapid_serves_head_dim(int head_dim) { return head_dim_served(head_dim) ? 1 : 0; }

// Returns 0; 1 if an id is no token's; 2 if a logit is no number.
int rapid_decode_step(const Model* model, const Step* step) {
  for (int t = 0; t < step->rows; t++)
    if (step->ids[t] < 0 || step->ids[t] >= model->vocabulary) return 1;
  const int T = step->rows, E = model->hidden, H = model->heads, KV = model->kv_heads, D = model->head_dim;
  const int I = model->intermediate, G = H / KV, wide = (H + 2 * KV) * D;
  const int64_t total = step->past + T;
  const int chunks = int((total + CHUNK - 1) / CHUNK), tasks = KV * chunks, attention_rows = G * T;
  const Places places(*model, *step);
  float* const base = align(step->scratch);
  float* qkv = base + places.qkv;
  bf16* q = (bf16*)(base + places.q);  // (KV, G * T, D)
  const Partial partial{base + places.max, base + places.sum, base + places.mixed};
  bf16* by_head = (bf16*)(base + places.heads);  // (T, H * D), padded
  bf16* hidden = (bf16*)(base + places.hidden);  // (T, I), padded
  float* x = base + places.x;                    // (T, E)
  for (int t = 0; t < T; t++) {
    const bf16* token = (const bf16*)model->embedding + step->ids[t] * E;
    for (int e = 0; e < E; e++) x[size_t(t) * E + e] = to_float(token[e]);
  }
  std::atomic<int> next{0};
  std::atomic<bool> not_a_number{false};
  const int widest = std::max({E, I, H * D});

  in_parallel(step->threads, [&](const int thread, Team& team) {
    const int threads = team.threads;
    float* const space = base + places.own + size_t(thread) * (places.space + places.input);
    bf16* const mine = (bf16*)(space + places.space);
    float* const sums = space + places.space + T * padded(widest) / 2;

    auto normed = [&](const bf16* weight, float eps, int from, const Matrix& m) {
      for (int t = from; t < T; t++) norm(x + size_t(t) * E, weight, eps, E, mine + (t - from) * padded(E));
      if (m.kind == INT4) sum_groups(mine, T - from, E, sums);
      return Input{mine, sums, E, padded(E)};
    };
    auto given = [&](const bf16* rows, int from, int columns, const Matrix& m) {
      const bf16* first = rows + from * padded(columns);
      if (m.kind == INT4) sum_groups(first, T - from, columns, sums);
      return Input{first, sums, columns, padded(columns)};
    };

    auto add_product = [&](const Matrix& m, Share<int> s, const Input& in, int from) {
      const int count = s.last - s.first;
      product(m, s.first, s.last, in, T - from, {space, size_t(count), s.first});
      for (int t = from; t < T; t++)
        for (int o = 0; o < count; o++) x[size_t(t) * E + s.first + o] += space[size_t(t - from) * count + o];
    };

    for (int index = 0; index < model->layers; index++) {
      const Layer& layer = model->layer[index];
      const int from = index == model->layers - 1 ? T - step->keep : 0;  // of the last layer only what is asked for
      bf16 *keys = (bf16*)step->keys[index], *values = (bf16*)step->values[index];

      {
        const Input in = normed((const bf16*)layer.attention_norm, layer.attention_eps, 0, layer.qkv);
        const Share<int> s = share(wide, PANEL, thread, threads);
        product(layer.qkv, s.first, s.last, in, T, {qkv, size_t(wide), 0});
      }
      team.barrier();
      for (int i = thread; i < T * (H + 2 * KV); i += threads) {
        const int t = i / (H + 2 * KV), head = i % (H + 2 * KV);
        float* v = qkv + size_t(t) * wide + size_t(head) * D;
        if (head >= H + KV) {
          bf16* row = values + (size_t(head - H - KV) * step->capacity + step->past + t) * D;
          for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
          continue;
        }
        const bool key = head >= H;
        if (const bf16* weight = (const bf16*)(key ? layer.k_norm : layer.q_norm)) {
          float squares = 0;
          for (int d = 0; d < D; d++) squares += v[d] * v[d];
          const float factor = 1.0f / std::sqrt(squares / D + layer.qk_eps);
          for (int d = 0; d < D; d++) v[d] *= factor * to_float(weight[d]);
        }
        const float *cos = step->cos + size_t(t) * D, *sin = step->sin + size_t(t) * D;
        bf16* row = key ? keys + (size_t(head - H) * step->capacity + step->past + t) * D
                        : q + ((size_t(head / G) * G + head % G) * T + t) * D;
        for (int d = 0; d < D; d++) row[d] = to_bf16(v[d] * cos[d] + v[(d + D / 2) % D] * sin[d]);
      }
      if (thread == 0) next.store(0);
      team.barrier();
      const int64_t oldest = seen_by(step->past, 0, layer.window).begin;
      for (int task = next++; task < tasks; task = next++) {
        const int kv = task / chunks;
        const int64_t begin = int64_t(task % chunks) * CHUNK, end = std::min(total, begin + CHUNK);
        const int64_t first = begin >= oldest ? begin : begin + std::min<int64_t>(oldest - begin, CHUNK) / TILE * TILE;
        attend(D, q + size_t(kv) * attention_rows * D, attention_rows, T, keys + size_t(kv) * step->capacity * D,
               values + size_t(kv) * step->capacity * D, first, end, step->past, layer.window, layer.scale,
               partial.max + size_t(task) * attention_rows, partial.sum + size_t(task) * attention_rows,
               partial.mixed + size_t(task) * attention_rows * D, space);
      }
      team.barrier();
      for (int i = thread; i < H * (T - from); i += threads) {
        const int head = i % H, t = from + i / H, row = (head % G) * T + t;
        float highest = -std::numeric_limits<float>::infinity(), sum = 0;
        auto at = [&](int c) { return (size_t(head / G) * chunks + c) * attention_rows + row; };
        for (int c = 0; c < chunks; c++) highest = std::max(highest, partial.max[at(c)]);
        float out[512] = {};
        for (int c = 0; c < chunks; c++) {
          if (partial.sum[at(c)] == 0) continue;
          const float weight = std::exp(partial.max[at(c)] - highest);
          sum += weight * partial.sum[at(c)];
          const float* mixed = partial.mixed + at(c) * D;
          for (int d = 0; d < D; d++) out[d] += weight * mixed[d];
        }
        for (int d = 0; d < D; d++) by_head[t * padded(H * D) + head * D + d] = to_bf16(out[d] / sum);
      }
      team.barrier();
      if (from < T) {
        const Input in = given(by_head, from, H * D, layer.out);
        const Share<int> s = share(E, PANEL, thread, threads);
        add_product(layer.out, s, in, from);
      }
      team.barrier();
      if (from < T) {
        const Input in = normed((const bf16*)layer.mlp_norm, layer.mlp_eps, from, layer.gate_up);
        const Share<int> s = share(I, 32, thread, threads);
        constexpr int BLOCK = 32;
        float *gate = space, *up = gate + size_t(T) * BLOCK;
        for (int start = s.first; start < s.last; start += BLOCK) {
          const int end = std::min(s.last, start + BLOCK);
          product(layer.gate_up, start, end, in, T - from, {gate, BLOCK, start});
          product(layer.gate_up, I + start, I + end, in, T - from, {up, BLOCK, I + start});
          for (int t = from; t < T; t++)
            silu_times(gate + size_t(t - from) * BLOCK, up + size_t(t - from) * BLOCK, end - start,
                       hidden + t * padded(I) + start);
        }
      }
      team.barrier();
      if (from < T) {
        const Input in = given(hidden, from, I, layer.down);
        const Share<int> s = share(E, PANEL, thread, threads);
        add_product(layer.down, s, in, from);
      }
      team.barrier();
    }
    if (step->keep > 0) {
      const int from = T - step->keep, V = model->head.rows;
      const Input in = normed((const bf16*)model->final_norm, model->final_eps, from, model->head);
      const Share<int> s = share(V, 32, thread, threads);
      product(model->head, s.first, s.last, in, step->keep, {step->logits, size_t(V), 0});
      for (int t = 0; t < step->keep; t++)
        if (any_nan(step->logits + size_t(t) * V + s.first, s.last - s.first)) not_a_number.store(true);
    }
  });

  return not_a_number.load() ? 2 : 0;
}

}  // extern "C"
