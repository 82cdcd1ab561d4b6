// Products of a weight's rows with a few inputs: see product.h.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "blocks.h"
#include "product.h"
#include "scratch.h"
#include "threads.h"

namespace {

// How many inputs share a pass over a weight. Memory has nothing to do in a further pass over what is in a cache by then.
// On AVX-512 that costs more than sums that leave their registers: ten inputs take 0.78 of the time they had in two passes.
#if RAPID_AVX512
constexpr int TOGETHER = 2 * INPUTS_TOGETHER;
#else
constexpr int TOGETHER = INPUTS_TOGETHER;
#endif

// out[r * T + t] for R rows of a bfloat16 weight and T rows of input; every sum is one chain over the columns. The weight
// is read strictly in the order in which it lies in memory, once for all inputs: that is what the processor fetches ahead
// best (two rows at a time ran at less than half the speed).
template <int R, int T>
inline void dots(const bf16* w, const Input& in, float* out) {
#if RAPID_WIDE
  __m512 all[R][T];
  for (int r = 0; r < R; r++) {
    __m512 acc[T];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < in.columns; k += 32, w += 32) {
      _mm_prefetch((const char*)w + AHEAD, _MM_HINT_T0);
      const __m512bh weights = load_bf16(w);
      const bf16* x = in.x + k;
      for (int t = 0; t < T; t++) acc[t] = _mm512_dpbf16_ps(acc[t], weights, load_bf16(x + t * in.stride));
    }
    for (int t = 0; t < T; t++) all[r][t] = acc[t];
  }
  sums<R * T>(&all[0][0], out);
#else
  for (int r = 0; r < R; r++) {
    float acc[T][32] = {};  // the lanes of a vector of 32
    for (int k = 0; k < in.columns; k += 32, w += 32) {
      float weights[32];
      for (int i = 0; i < 32; i++) weights[i] = to_float(w[i]);
      for (int t = 0; t < T; t++) {
        const bf16* x = in.x + t * in.stride + k;
        for (int i = 0; i < 32; i++) acc[t][i] += weights[i] * to_float(x[i]);
      }
    }
    for (int t = 0; t < T; t++) {
      float total = 0;
      for (int i = 0; i < 32; i++) total += acc[t][i];
      out[r * T + t] = total;
    }
  }
#endif
}

struct Bf16Rows {
  static constexpr int BLOCK = 32;  // weight rows that stay in the nearest caches while the inputs pass by

  // Weight rows [first, last) times T of `rows` inputs, from input t0 on.
  template <int T>
  static void multiply(const Matrix& m, int first, int last, const Input& in, int t0, int, const Output& to) {
    constexpr int R = T <= 4 ? 4 : T <= 8 ? 2 : 1;  // weight rows whose sums are formed together
    const bf16 *data = (const bf16*)m.data, *bias = (const bf16*)m.bias;
    const Input part{in.x + t0 * in.stride, {}, in.columns, in.stride};
    float out[R * T];
    for (int row = first; row < last;) {
      const bool whole = row + R <= last;
      const int count = whole ? R : 1;
      if (whole)
        dots<R, T>(data + size_t(row) * m.columns, part, out);
      else
        dots<1, T>(data + size_t(row) * m.columns, part, out);
      for (int r = 0; r < count; r++, row++)
        for (int t = 0; t < T; t++)
          to.data[size_t(t0 + t) * to.stride + row - to.first] = out[r * T + t] + (bias ? to_float(bias[row]) : 0.0f);
    }
  }
};

template <class Panel>
struct Panels {
  static constexpr int BLOCK = PANEL;

  template <int T>
  static void multiply(const Matrix& m, int first, int last, const Input& in, int t0, int rows, const Output& to) {
    const int groups = m.columns / GROUP, count = last - first;  // the last panel may have fewer rows than others
    const bf16 *scale = (const bf16*)m.scale, *bias = (const bf16*)m.bias;
    float out[T * PANEL], scales[PANEL], biases[PANEL];
    for (int r = 0; r < count; r++) {
      scales[r] = scale ? to_float(scale[first + r]) : 1.0f;
      biases[r] = bias ? to_float(bias[first + r]) : 0.0f;
    }
    const uint8_t* panel = (const uint8_t*)m.data + size_t(first / PANEL) * (groups / Panel::GROUPS) * Panel::BYTES;
    if constexpr (IS_PLAIN<Panel>)
      panel_dots<Panel, T>(panel, in.rounded.group + t0, groups, rows, out);
    else
      block_dots<Panel, T>(panel, in.rounded.group + t0, groups, rows, out);
    if (in.rounded.rests) rests_added<Panel>(panel, in.rounded, t0, t0 + T, out);
    for (int t = 0; t < T; t++) {
      float* row = to.data + size_t(t0 + t) * to.stride + first - to.first;
      for (int r = 0; r < count; r++) row[r] = out[t * PANEL + r] * scales[r] + biases[r];
    }
  }
};

// Calls f with the constant `count`, which is 1 to MOST.
template <int MOST, class F>
inline void with_count(int count, const F& f) {
  if constexpr (MOST > 1)
    if (count < MOST) return with_count<MOST - 1>(count, f);
  f(std::integral_constant<int, MOST>{});
}

template <class Form>
void product_of(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  for (int start = first; start < last; start += Form::BLOCK) {
    const int end = std::min(last, start + Form::BLOCK);
    for (int t = 0; t < rows;) {
      const int passes = (rows - t + TOGETHER - 1) / TOGETHER;  // of about as many inputs each
      const int count = (rows - t + passes - 1) / passes;
      with_count<TOGETHER>(count, [&](auto inputs) {
        Form::template multiply<decltype(inputs)::value>(m, start, end, in, t, rows, to);
      });
      t += count;
    }
  }
}

}  // namespace

void product(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  switch (m.kind) {
    case INT8: return product_of<Panels<Int8Panel>>(m, first, last, in, rows, to);
    case INT4: return product_of<Panels<Int4Panel>>(m, first, last, in, rows, to);
    case BF16: return product_of<Bf16Rows>(m, first, last, in, rows, to);
    case PARTS: {
      const Matrix* part = (const Matrix*)m.data;
      for (int start = 0, i = 0; i < m.parts; start += part[i++].rows) {
        const int from = std::max(first, start), end = std::min(last, start + part[i].rows);
        if (from < end) product(part[i], from - start, end - start, in, rows, {to.data, to.stride, to.first - start});
      }
      return;
    }
    default:
      with_format(m.kind, [&](auto format) {
        product_of<Panels<decltype(format)>>(m, first, last, in, rows, to);
        return 0;
      });
  }
}

extern "C" {

// out (rows, m.rows) float32: the product of a weight with bf16 inputs (rows, m.columns), as in a decode step.
// Returns 0, or 1 if there was no memory for what is computed on the way.
int rapid_product(const Matrix* m, const void* x, int32_t rows, int32_t threads, float* out) {
  const size_t columns = size_t(m->columns), stride = padded(m->columns);
  const Floats inputs(rows * stride / 2 + rounded_floats(rows, columns) + LINE);
  if (!inputs.get()) return 1;
  bf16* const first = (bf16*)inputs.get();
  RoundedRows rounded{};
  for (int t = 0; t < rows; t++) std::memcpy(first + t * stride, (const bf16*)x + t * columns, columns * sizeof(bf16));
  if (m->kind != BF16) rounded = round_groups(first, rows, m->columns, stride, inputs.get() + rows * stride / 2);
  in_parallel(threads, [&](int thread, Team& team) {
    const Share<int> s = share(m->rows, PANEL, thread, team.threads);
    product(*m, s.first, s.last, {first, rounded, m->columns, stride}, rows, {out, size_t(m->rows), 0});
  });
  return 0;
}

}  // extern "C"
