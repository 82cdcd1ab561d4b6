// Products of a weight with many inputs: on the processor's matrix units (prompt_amx.h), or on vectors, of its levels
// (prompt_levels.h) or of its numbers (prompt_vectors.h).
//
// A part of a weight stays in a core's cache while the inputs pass by, for matrix units and float32 as the numbers that are
// made of its panels. Sums run over the columns in one order, in float32, and are rounded once. So a row of the product has
// the same bits whatever other rows it is computed with, and in however many threads. (oneDNN's products on matrix units do
// not: how they divide the columns depends on the shape of the whole product.)

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <vector>

#include "interface.h"
#include "prompt_amx.h"
#include "prompt_levels.h"
#include "prompt_vectors.h"
#include "scratch.h"
#include "threads.h"

#if RAPID_WIDE

namespace {

// Floats that the calling thread keeps for its next call: a prompt has hundreds, and fresh memory is slow.
float* kept_space(size_t floats) {
  thread_local std::vector<float> kept;
  try {
    if (kept.size() < floats + LINE) kept = std::vector<float>(), kept.resize(floats + LINE);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return align(kept.data());
}

template <class Call>
int computed(const Matrix& m, const bf16* x, int rows, int threads, bf16* out, size_t stride) {
  const int at_once = rows_at_once(m.rows, threads, Call::MOST_ROWS, Call::BLOCK);
  Call call{{m, x, rows, out, stride, columns_of_part(m.columns, Call::COLUMNS), at_once}, nullptr};
  const int tiles = Call::tiles_of(rows), parts = (m.rows + at_once - 1) / at_once;
  const size_t floats = whole_lines(call.floats()), inputs = whole_lines(call.input_floats());
  float* const space = kept_space(inputs + size_t(threads) * floats);
  if (!space) return 1;
  call.inputs = decltype(call.inputs)(space);
  std::atomic<int> next{0};
  in_parallel(threads, [&](int thread, Team& team) {
    const Share<int> mine = share(tiles, 1, thread, team.threads);
    for (int tile = mine.first; tile < mine.last; tile++) call.take_inputs(tile);
    team.barrier();
    [[maybe_unused]] const typename Call::InUse in_use;
    for (int task = next++; task < parts * ((rows + MOST_INPUTS - 1) / MOST_INPUTS); task = next++) {
      const int first = task % parts * at_once, start = task / parts * MOST_INPUTS;
      call.multiply(first, std::min(at_once, m.rows - first), start, std::min(rows, start + MOST_INPUTS),
                    space + inputs + size_t(thread) * floats);
    }
  });
  return 0;
}

int prompt_product(const Matrix& m, const bf16* x, int rows, int threads, bf16* out, size_t stride) {
#if RAPID_PROMPTS_IN_LEVELS
  if (LevelCall::serves(m)) return computed<LevelCall>(m, x, rows, threads, out, stride);
#endif
  if (m.kind == PARTS) {
    const Matrix* part = (const Matrix*)m.data;
    for (int i = 0, first = 0; i < m.parts; first += part[i++].rows)
      if (prompt_product(part[i], x, rows, threads, out + first, stride)) return 1;
    return 0;
  }
#if RAPID_AMX
  if (amx_usable()) return computed<AmxCall>(m, x, rows, threads, out, stride);
#endif
  return computed<VectorCall>(m, x, rows, threads, out, stride);
}

}  // namespace

#endif

extern "C" {

// Whether `rapid_prompt_product` is the fastest that there is: elsewhere oneDNN has the processor's products of bfloat16. On
// macOS there is no oneDNN.
int rapid_multiplies_prompts() {
#if RAPID_AMX
  return amx_usable();
#elif RAPID_WIDE && (!RAPID_BF16_DOTS || defined(__APPLE__))
  return 1;
#else
  return 0;
#endif
}

// out (rows, m.rows) bf16: the product of a weight with bf16 inputs (rows, m.columns), whose columns are a multiple of 32.
// Returns 0, or 1 if there was no memory for what is computed on the way.
int rapid_prompt_product(const Matrix* m, const void* x, int32_t rows, int32_t threads, void* out) {
#if RAPID_WIDE
  return prompt_product(*m, (const bf16*)x, rows, threads, (bf16*)out, m->rows);
#else
  (void)m, (void)x, (void)rows, (void)threads, (void)out;
  return 1;
#endif
}

}  // extern "C"
