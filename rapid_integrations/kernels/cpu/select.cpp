// Which blocks of keys a block of a prompt's queries reads, if its attention is sparse: XAttention (Xu et al. 2025, arXiv
// 2503.16428).
//
// A stride of queries, in reverse order, and a stride of keys are two long rows, whose product sums an antidiagonal of
// the scores between them. A softmax over these sums, divided by the stride, estimates how the queries' weights are
// spread over the blocks of keys. The blocks with the largest shares are taken until the shares reach a threshold.
// Blocks begin at absolute positions, and nothing but their own queries and the keys up to their end is looked at.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "attention.h"
#include "interface.h"
#include "scratch.h"
#include "threads.h"

namespace {

constexpr int STRIDE = 16;            // queries and keys whose antidiagonal is summed
constexpr int STEPS = TILE / STRIDE;  // strides of a block
constexpr int DENSE_BLOCKS = 16;      // the first blocks of a text read all keys, which are few

// scores (4, 4) = 4 rows of queries times 4 rows of keys, each of `length` numbers, a multiple of 32 with vectors.
inline void stride_scores(const bf16* queries, const bf16* keys, int length, float* scores) {
#if RAPID_WIDE
  __m512 acc[16];
  for (int i = 0; i < 16; i++) acc[i] = _mm512_setzero_ps();
  for (int d = 0; d < length; d += 32) {
    __m512bh k[STEPS];
    for (int j = 0; j < STEPS; j++) k[j] = load_bf16(keys + size_t(j) * length + d);
    for (int i = 0; i < 4; i++) {
      const __m512bh q = load_bf16(queries + size_t(i) * length + d);
      for (int j = 0; j < STEPS; j++) acc[4 * i + j] = _mm512_dpbf16_ps(acc[4 * i + j], q, k[j]);
    }
  }
  sums<16>(acc, scores);
#else
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < STEPS; j++) {
      float sum = 0;
      for (int d = 0; d < length; d++) sum += to_float(queries[size_t(i) * length + d]) * to_float(keys[size_t(j) * length + d]);
      scores[4 * i + j] = sum;
    }
#endif
}

// Replaces scores by their shares: powers of 2 of `log2` times them, divided by their sum.
inline void softmax(float* scores, int count, float log2) {
  const float highest = *std::max_element(scores, scores + count) * log2;
  float sum = 0;
  int done = 0;
#if RAPID_WIDE
  __m512 lanes = _mm512_setzero_ps();
  for (; done + 16 <= count; done += 16) {
    const __m512 e = exp2_512(_mm512_fmsub_ps(_mm512_loadu_ps(scores + done), _mm512_set1_ps(log2), _mm512_set1_ps(highest)));
    _mm512_storeu_ps(scores + done, e);
    lanes = _mm512_add_ps(lanes, e);
  }
  sum = sum16(lanes);
#endif
  for (; done < count; done++) sum += scores[done] = std::exp2(scores[done] * log2 - highest);
  for (int i = 0; i < count; i++) scores[i] /= sum;
}

// Marks the first block and the last one, and of the others those with the largest shares, until the marked ones have
// `enough` of them together. `order` has room for all.
inline void take_blocks(const float* shares, int count, float enough, int* order, uint8_t* taken) {
  std::memset(taken, 0, count);
  taken[0] = taken[count - 1] = 1;
  float held = shares[0] + (count > 1 ? shares[count - 1] : 0);
  std::iota(order, order + count, 0);
  std::sort(order, order + count, [&](int a, int b) { return shares[a] != shares[b] ? shares[a] > shares[b] : a < b; });
  for (int i = 0; i < count && held < enough; i++) {
    if (taken[order[i]]) continue;
    taken[order[i]] = 1;
    held += shares[order[i]];
  }
}

}  // namespace

extern "C" {

// Fills taken, uint8 (kv_heads, rows / 64, (past + rows) / 64): what `Attention.taken` is. The heads that share keys
// read the same blocks, chosen by the mean of their shares. Returns 0, or 1 if there was no memory.
int rapid_select_blocks(const Attention* a, float threshold, uint8_t* taken) {
  const int D = a->head_dim, G = a->heads / a->kv_heads, blocks = a->rows / TILE, rows = G * STEPS, length = STRIDE * D;
  const int past = int(a->past / TILE), width = past + blocks;
  const size_t queries = whole_lines(size_t(rows) * length / 2), unpacked = whole_lines(size_t(TILE) * D / 2);
  const size_t scores = whole_lines(size_t(rows) * width * STEPS), shares = whole_lines(width);
  const size_t floats = whole_lines(queries + unpacked + scores + 2 * shares);
  const Floats space(size_t(a->threads) * floats);
  if (!space.get()) return 1;
  const size_t bytes = row_bytes(a->kv, D);
  auto select = [&](int task, float* const base) {
    const int kv = task % a->kv_heads, block = blocks - 1 - task / a->kv_heads, count = past + block + 1;
    uint8_t* const out = taken + (size_t(kv) * blocks + block) * width;
    std::memset(out, 0, width);
    if (count <= DENSE_BLOCKS) {
      std::memset(out, 1, count);
      return;
    }
    bf16 *const q = (bf16*)base, *const wide = (bf16*)(base + queries);
    float *score = base + queries + unpacked, *share = score + scores;
    for (int g = 0; g < G; g++)
      for (int t = 0; t < TILE; t++) {  // reversed within a stride
        const int at = t / STRIDE * STRIDE + STRIDE - 1 - t % STRIDE;
        std::memcpy(q + (size_t(g) * TILE + at) * D,
                    (const bf16*)a->queries + (int64_t(block) * TILE + t) * a->row_stride + (int64_t(kv) * G + g) * a->head_stride,
                    D * sizeof(bf16));
      }
    const LayerSegment* segment = a->segment;
    for (int k = 0; k < count; k++) {
      while (segment + 1 != a->segment + a->segments && segment[1].begin <= int64_t(k) * TILE) segment++;
      const uint8_t* from = (const uint8_t*)segment->keys + kv * segment->key_stride + (int64_t(k) * TILE - segment->begin) * bytes;
      const bf16* keys = (const bf16*)from;
      if (a->kv == KV_INT8) {
        for (int j = 0; j < TILE; j++) {
          const uint8_t* row = from + j * bytes;
          const float scale = scale_of(row, D);
          for (int d = 0; d < D; d++) wide[j * D + d] = to_bf16(float(int8_t(row[d])) * scale);
        }
        keys = wide;
      }
      for (int r = 0; r < rows; r += 4) {
        float own[16];
        stride_scores(q + size_t(r) * length, keys, length, own);
        for (int i = 0; i < 4; i++)
          std::memcpy(score + (size_t(r + i) * width + k) * STEPS, own + 4 * i, STEPS * sizeof(float));
      }
    }
    std::fill(share, share + count, 0.0f);
    for (int r = 0; r < rows; r++) {
      float* own = score + size_t(r) * width * STEPS;
      const int seen = (count - 1) * STEPS + r % STEPS + 1;
      softmax(own, seen, a->sight.scale / STRIDE * 1.44269504f);
      for (int j = 0; j < seen; j++) share[j / STEPS] += own[j];
    }
    take_blocks(share, count, threshold * rows, (int*)(share + shares), out);
  };
  std::atomic<int> next{0};
  in_parallel(a->threads, [&](int thread, Team&) {
    for (int task = next++; task < blocks * a->kv_heads; task = next++) select(task, space.get() + size_t(thread) * floats);
  });
  return 0;
}

}  // extern "C"
