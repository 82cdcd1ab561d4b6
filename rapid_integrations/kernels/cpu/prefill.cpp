// What a prefill does between its matrix products, which PyTorch's kernels do well: hundreds of new tokens at a time.
//
// Attention reads the keys in tiles that stay in a core's cache, forms the scores of a block of queries (all heads that
// share the keys), and adds up the values weighted with what it has of the softmax so far; scores are never stored
// beyond a tile (Dao 2023, arXiv 2307.08691). Tiles begin at absolute positions, so that a query's sums do not depend on
// the block that it is in.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "alternation.h"
#include "attend.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "recurrence.h"
#include "scratch.h"
#include "threads.h"

namespace {

constexpr int BLOCK_ROWS = 192;  // queries times the heads that share a key: their state and scores stay near a core
constexpr int AMX_ROWS = 384;   // the same on matrix units, which a tile's keys are packed for
constexpr int SPARSE_ROWS = 256;  // the same, if blocks of queries leave blocks of keys out

// Queries that are computed together. Those of one selection begin at its multiples, so they divide TILE.
int queries_together(const Attention& a, int group) {
  if (!a.taken) return std::max(1, (on_amx(a.kv) ? AMX_ROWS : BLOCK_ROWS) / group);
  int block = TILE;
  while (block > 1 && block * group > SPARSE_ROWS) block /= 2;
  return block;
}

// out = silu(gate) * up of as many of `count` numbers as fill vectors. Returns how many these are.
inline int64_t silu_gated(const bf16* gate, const bf16* up, int64_t count, bf16* out) {
  int64_t done = 0;
#if RAPID_WIDE
  for (; done + 16 <= count; done += 16) {
    const __m512 g = widen(load_256(gate + done)), u = widen(load_256(up + done));
    _mm256_storeu_si256((__m256i*)(out + done), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(silu512(g), u)));
  }
#else
  (void)gate, (void)up, (void)count, (void)out;
#endif
  return done;
}

}  // namespace

extern "C" {

// Normalises (where the model does) and rotates queries and keys.
void rapid_rotate(const Rotation* r) {
  const int D = r->head_dim, H = r->heads, rotated = H + r->kv_heads;
  for_each(r->threads, r->rows, [&](int64_t t) {
    const bf16* row = (const bf16*)r->qkv + size_t(t) * (rotated + r->kv_heads) * D;
    bf16* out = (bf16*)r->out + size_t(t) * rotated * D;
    float x[WIDEST];
    for (int i = 0; i < rotated * D; i++) x[i] = to_float(row[i]);
    const float *cos = r->cos + size_t(t) * r->turned, *sin = r->sin + size_t(t) * r->turned;
    for (int h = 0; h < H; h++) turn(r->query, r->rope, x, H, h, cos, sin, D, out + h * D);
    for (int h = 0; h < r->kv_heads; h++)
      turn(r->key, r->rope, x + size_t(H) * D, r->kv_heads, h, cos, sin, D, out + (H + h) * D);
  });
}

// Returns 0, or 1 if there was no memory for what is computed on the way.
int rapid_attend(const Attention* a) {
  const int D = a->head_dim, H = a->heads, G = H / a->kv_heads;
  const int block = queries_together(*a, G), blocks = (a->rows + block - 1) / block;
  const size_t rows = prompt_rows(a->kv, size_t(block) * G);
  const size_t queries = whole_lines(rows * D / 2 + LINE), row_sums = whole_lines(rows);
  const size_t positions = whole_lines(rows * sizeof(int64_t) / sizeof(float));
  const size_t floats = whole_lines(queries + 2 * row_sums + positions + rows * D + prompt_floats(a->kv, D, int(rows)));
  const Floats space(size_t(a->threads) * floats);
  if (!space.get()) return 1;
  const int count = int(a->segments);
  std::vector<HeadSegment> segments;  // (kv_heads, count)
  for (int kv = 0; kv < a->kv_heads; kv++)
    for (const LayerSegment* s = a->segment; s != a->segment + count; s++)
      segments.push_back(
          {s->begin, (const uint8_t*)s->keys + kv * s->key_stride, (const uint8_t*)s->values + kv * s->value_stride});
  auto attend_block = [&](int task, float* const base) {
    const int kv = task % a->kv_heads, start = (blocks - 1 - task / a->kv_heads) * block;  // the longest ones first
    const int T = std::min(block, a->rows - start);
    const int64_t past = a->past + start, oldest = seen_from(past, a->sight).begin;
    const int64_t of_queries = int64_t(kv) * (a->rows / TILE) + start / TILE;
    const uint8_t* taken = a->taken ? (const uint8_t*)a->taken + of_queries * ((a->past + a->rows) / TILE) : nullptr;
    bf16* const q = (bf16*)base;  // (G, T, D)
    float *highest = base + queries, *sum = highest + row_sums, *mixed = sum + row_sums + positions;
    int64_t* const position = (int64_t*)(sum + row_sums);
    for (int g = 0; g < G; g++)
      for (int t = 0; t < T; t++) {
        position[g * T + t] = past + t;
        std::memcpy(q + (size_t(g) * T + t) * D,
                    (const bf16*)a->queries + (start + t) * a->row_stride + (int64_t(kv) * G + g) * a->head_stride,
                    D * sizeof(bf16));
      }
    attend_prompt(a->kv, D, q, G * T, position, {&segments[size_t(kv) * count], count, taken}, oldest / TILE * TILE, past + T,
                  a->sight, highest, sum, mixed, mixed + rows * D);
    for (int g = 0; g < G; g++)
      for (int t = 0; t < T; t++) {
        const float* row = mixed + (size_t(g) * T + t) * D;
        const Shares with = with_sink(highest[g * T + t], sum[g * T + t], sink_of(a->sinks, kv * G + g));
        const float factor = with.factor / with.sum;
        bf16* out = (bf16*)a->out + (size_t(start + t) * H + size_t(kv) * G + g) * D;
        for (int d = 0; d < D; d++) out[d] = to_bf16(row[d] * factor);
      }
  };
  std::atomic<int> next{0};
  in_parallel(a->threads, [&](int thread, Team&) {
    for (int task = next++; task < blocks * a->kv_heads; task = next++)
      attend_block(task, space.get() + size_t(thread) * floats);
  });
  return 0;
}

// Returns 0, or 1 if there was no memory for what is computed on the way.
int rapid_recur(const Recurring* call) {
  const Recurrence& r = *call->recurrence;
  const size_t floats = whole_lines(recur_floats(r));
  const Floats space(size_t(call->threads) * floats);
  if (!space.get()) return 1;
  std::atomic<int> next{0};
  in_parallel(call->threads, [&](int thread, Team&) {
    for (int head = next++; head < r.value_heads; head = next++) {
      const size_t at = size_t(head) * matrix_floats(r);
      recur(r, head, call->inputs, call->record, call->rows, call->state + at,
            call->state_into ? call->state_into + at : nullptr, call->rows, space.get() + size_t(thread) * floats,
            [&](int t, const float* given) {
              std::copy(given, given + r.value_dim, call->out + (size_t(t) * r.value_heads + head) * r.value_dim);
            });
    }
  });
  return 0;
}

// out bf16 = what heads give, x float, which is changed, with gates bf16 and the norm; all (rows, value_heads * value_dim).
void rapid_gate_heads(const Recurrence* r, float* x, const void* gates, int64_t rows, int32_t threads, void* out) {
  const int together = normed_together(*r), parts = r->value_heads * r->value_dim / together;
  for_each(threads, rows * parts, [&](int64_t part) {
    const int64_t at = part * together;
    float gate[WIDEST];
    for (int i = 0; i < together; i++) gate[i] = to_float(((const bf16*)gates)[at + i]);
    gate_heads(*r, int(part % parts) * together, x + at, gate, (bf16*)out + at);
  });
}

// x (rows, columns) += factor * added, if there is anything to add; out = x normalised. All bf16.
void rapid_add_norm(void* x, const void* added, float factor, const Norm* norm, int64_t rows, int32_t columns,
                    int32_t threads, void* out) {
  for_each(threads, rows, [&](int64_t t) {
    bf16 *row = (bf16*)x + t * columns, *to = (bf16*)out + t * columns;
    if (added) {
      const bf16* more = (const bf16*)added + t * columns;
      for (int i = 0; i < columns; i++)
        row[i] = to_bf16(to_float(row[i]) + to_float(to_bf16(to_float(more[i]) * factor)));
    }
    float wide[WIDEST];
    for (int i = 0; i < columns; i++) wide[i] = to_float(row[i]);
    normalise(*norm, wide, columns, to);
  });
}

// out (rows, columns) = activation(gate) * up of gate_up (rows, 2 columns), or activation(x) of (rows, columns) if it is
// not `gated`; all bf16. `sparse`: only what of the gate is above its quantile, less that.
void rapid_gate(const void* gate_up, int64_t rows, int64_t columns, const Act* activation, int32_t gated, int32_t sparse,
                float quantile, int32_t threads, void* out) {
  for_each(threads, rows, [&](int64_t t) {
    const bf16 *gate = (const bf16*)gate_up + t * columns * (gated ? 2 : 1), *up = gate + columns;
    bf16* to = (bf16*)out + t * columns;
    // What most models have.
    const int64_t done = activation->kind == SILU && gated && !sparse ? silu_gated(gate, up, columns, to) : 0;
    constexpr int64_t BLOCK = 256;
    float cut = 0;
    if (sparse) {
      float whole[WIDEST];
      for (int64_t i = 0; i < columns; i++) whole[i] = to_float(gate[i]);
      cut = cutoff(whole, int(columns), quantile);
    }
    float x[BLOCK], y[BLOCK];
    for (int64_t start = done; start < columns; start += BLOCK) {
      const int count = int(std::min(BLOCK, columns - start));
      for (int i = 0; i < count; i++) x[i] = to_float(gate[start + i]);
      for (int i = 0; sparse && i < count; i++) x[i] = above(x[i], cut);
      for (int i = 0; gated && i < count; i++) y[i] = to_float(up[start + i]);
      activate(*activation, x, gated ? y : nullptr, count, to + start);
    }
  });
}

}  // extern "C"
