// Products of a weight's rows with a few inputs.

#pragma once

#include <algorithm>
#include <type_traits>

#include "interface.h"
#include "numbers.h"

namespace {

constexpr int GROUP = 32;   // int4 weights that share a scale and an offset
constexpr int PANEL = 16;   // rows of an int4 weight that lie together, a row a lane
constexpr int PANEL_BYTES = PANEL * GROUP / 2 + 2 * PANEL * 2;  // of a group: levels, scales, offsets
constexpr int AHEAD = 1024; // bytes of a weight that are asked for before they are needed

struct Input {  // rows of bfloat16, `stride` apart, and the sums of their groups for int4
  const bf16* x;
  const float* group_sums;
  int columns;
  size_t stride;
};

// Rows whose distance is a power of two would fall on the same lines of a cache.
inline size_t padded(int columns) { return size_t(columns) + 32; }

#if RAPID_AVX512

struct LoadBf16 {
  static constexpr int bytes_per_32 = 64;
  static inline __m512bh get(const uint8_t* p) { return load_bf16(p); }
};

struct LoadInt8 {
  static constexpr int bytes_per_32 = 32;
  static inline __m512bh get(const uint8_t* p) {
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(p + 16))));
    return _mm512_cvtne2ps_pbh(high, low);
  }
};

alignas(64) const bf16 LEVELS[32] = {  // level - 8 as bfloat16; twice, so that the fifth bit of an index is ignored
    0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80, 0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0,
    0x40C0, 0x40E0, 0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80, 0x0000, 0x3F80, 0x4000, 0x4040,
    0x4080, 0x40A0, 0x40C0, 0x40E0};

// out[r * T + t] for R rows of the weight and T rows of input; every sum is one chain over the columns. The weight is
// read strictly in the order in which it lies in memory, once for all inputs: that is what the processor fetches ahead
// best (two rows at a time ran at less than half the speed).
template <class Load, int R, int T>
inline void dots(const uint8_t* w, const Input& in, float* out) {
  __m512 all[R][T];
  for (int r = 0; r < R; r++) {
    __m512 acc[T];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      _mm_prefetch((const char*)w + AHEAD, _MM_HINT_T0);
      const __m512bh weights = Load::get(w);
      const bf16* x = in.x + k;
      for (int t = 0; t < T; t++) acc[t] = _mm512_dpbf16_ps(acc[t], weights, load_bf16(x + t * in.stride));
    }
    for (int t = 0; t < T; t++) all[r][t] = acc[t];
  }
  sums<R * T>(&all[0][0], out);
}

// out[t * PANEL + row] for the 16 rows of an int4 panel. A row is a lane, so that nothing is summed across lanes, and a
// group's scales and offsets are one vector each. Unpacking costs a shift and a table look-up for 32 weights.
template <int T>
inline void panel_dots(const uint8_t* p, const Input& in, float* out) {
  const __m512i levels = _mm512_load_si512(LEVELS);
  const int groups = in.columns / GROUP;
  __m512 total[T];
  for (int t = 0; t < T; t++) total[t] = _mm512_setzero_ps();
  for (int g = 0; g < groups; g++, p += PANEL_BYTES) {
    for (int line = 0; line < PANEL_BYTES; line += 64) _mm_prefetch((const char*)p + AHEAD + line, _MM_HINT_T0);
    __m512 even[T], odd[T];
    for (int t = 0; t < T; t++) even[t] = odd[t] = _mm512_setzero_ps();
    const bf16* x = in.x + g * GROUP;
    auto add = [&](__m512i indices, int column, __m512* sums) {
      const __m512bh weights = (__m512bh)_mm512_permutexvar_epi16(indices, levels);
      for (int t = 0; t < T; t++) {
        int32_t pair;
        std::memcpy(&pair, x + t * in.stride + column, 4);
        sums[t] = _mm512_dpbf16_ps(sums[t], weights, (__m512bh)_mm512_set1_epi32(pair));
      }
    };
    for (int quarter = 0; quarter < 4; quarter++) {
      const __m512i packed = _mm512_loadu_si512(p + 64 * quarter);
      const int column = 8 * quarter;
      add(packed, column, even);
      add(_mm512_srli_epi16(packed, 4), column + 2, odd);
      add(_mm512_srli_epi16(packed, 8), column + 4, even);
      add(_mm512_srli_epi16(packed, 12), column + 6, odd);
    }
    const __m512 scale = widen(_mm256_loadu_si256((const __m256i*)(p + 256)));
    const __m512 zero = widen(_mm256_loadu_si256((const __m256i*)(p + 288)));
    for (int t = 0; t < T; t++) {
      total[t] = _mm512_fmadd_ps(_mm512_add_ps(even[t], odd[t]), scale, total[t]);
      total[t] = _mm512_fmadd_ps(zero, _mm512_set1_ps(in.group_sums[t * groups + g]), total[t]);
    }
  }
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * PANEL, total[t]);
}

#else

struct LoadBf16 {
  static constexpr int bytes_per_32 = 64;
  static inline float get(const uint8_t* p, int i) { return to_float(((const bf16*)p)[i]); }
};
struct LoadInt8 {
  static constexpr int bytes_per_32 = 32;
  static inline float get(const uint8_t* p, int i) { return float(((const int8_t*)p)[i]); }
};

template <class Load, int R, int T>
inline void dots(const uint8_t* w, const Input& in, float* out) {
  for (int r = 0; r < R; r++) {
    float acc[T][32] = {};  // the lanes of a vector of 32
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      float weights[32];
      for (int i = 0; i < 32; i++) weights[i] = Load::get(w, i);
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
}

inline float panel_level(const uint8_t* group, int row, int c) {  // -8 to 7
  const uint8_t both = group[c / 8 * 64 + row * 4 + c % 2 * 2 + c % 8 / 4];
  return float((c % 4 / 2 ? both >> 4 : both & 15) - 8);
}

template <int T>
inline void panel_dots(const uint8_t* p, const Input& in, float* out) {
  const int groups = in.columns / GROUP;
  std::fill(out, out + T * PANEL, 0.0f);
  for (int g = 0; g < groups; g++, p += PANEL_BYTES) {
    const bf16 *scale = (const bf16*)(p + 256), *zero = (const bf16*)(p + 288);
    for (int row = 0; row < PANEL; row++) {
      float weights[GROUP];
      for (int c = 0; c < GROUP; c++) weights[c] = panel_level(p, row, c);
      for (int t = 0; t < T; t++) {
        const bf16* x = in.x + t * in.stride + g * GROUP;
        float sum = 0;
        for (int c = 0; c < GROUP; c++) sum += weights[c] * to_float(x[c]);
        out[t * PANEL + row] += sum * to_float(scale[row]) + to_float(zero[row]) * in.group_sums[t * groups + g];
      }
    }
  }
}

#endif

struct Output {  // element (t, row) of a product goes to data[t * stride + row - first]
  float* data;
  size_t stride;
  int first;
};

struct LoadInt4 {};  // lies in panels

template <class Load, int T>
void product_rows(const Matrix& m, int first, int last, const Input& in, int t0, const Output& to) {
  constexpr bool int4 = std::is_same_v<Load, LoadInt4>;
  constexpr int R = int4 ? PANEL : T <= 4 ? 4 : 2;  // weight rows whose sums are formed together
  const int groups = m.columns / GROUP;
  const uint8_t* data = (const uint8_t*)m.data;
  const bf16 *scale = (const bf16*)m.scale, *bias = (const bf16*)m.bias;
  const Input part{in.x + t0 * in.stride, in.group_sums + size_t(t0) * groups, in.columns, in.stride};
  float out[R * T];
  auto put = [&](int row, int t, float value) {
    if constexpr (std::is_same_v<Load, LoadInt8>) value *= to_float(scale[row]);
    if (bias) value += to_float(bias[row]);
    to.data[size_t(t0 + t) * to.stride + row - to.first] = value;
  };
  if constexpr (int4) {
    for (int row = first; row < last; row += PANEL) {
      panel_dots<T>(data + size_t(row / PANEL) * groups * PANEL_BYTES, part, out);
      for (int t = 0; t < T; t++)
        for (int r = 0; r < PANEL; r++) put(row + r, t, out[t * PANEL + r]);
    }
  } else {
    const size_t stride = size_t(m.columns / 32) * Load::bytes_per_32;
    for (int row = first; row < last;) {
      const bool whole = row + R <= last;
      const int count = whole ? R : 1;
      if (whole)
        dots<Load, R, T>(data + row * stride, part, out);
      else
        dots<Load, 1, T>(data + row * stride, part, out);
      for (int r = 0; r < count; r++, row++)
        for (int t = 0; t < T; t++) put(row, t, out[r * T + t]);
    }
  }
}

template <class Load>
void product_of(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  constexpr int BLOCK = 32;  // weight rows that stay in the nearest caches while the inputs pass by
  for (int start = first; start < last; start += BLOCK) {
    const int end = std::min(last, start + BLOCK);
    for (int t = 0; t < rows;) {
      switch (std::min(rows - t, 8)) {
        case 1: product_rows<Load, 1>(m, start, end, in, t, to); t += 1; break;
        case 2: product_rows<Load, 2>(m, start, end, in, t, to); t += 2; break;
        case 3: product_rows<Load, 3>(m, start, end, in, t, to); t += 3; break;
        case 4: product_rows<Load, 4>(m, start, end, in, t, to); t += 4; break;
        case 5: product_rows<Load, 5>(m, start, end, in, t, to); t += 5; break;
        case 6: product_rows<Load, 6>(m, start, end, in, t, to); t += 6; break;
        case 7: product_rows<Load, 7>(m, start, end, in, t, to); t += 7; break;
        default: product_rows<Load, 8>(m, start, end, in, t, to); t += 8; break;
      }
    }
  }
}

// Products of weight rows [first, last) with `rows` inputs. INT4: first and last are multiples of PANEL.
inline void product(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  switch (m.kind) {
    case INT8: return product_of<LoadInt8>(m, first, last, in, rows, to);
    case INT4: return product_of<LoadInt4>(m, first, last, in, rows, to);
    default: return product_of<LoadBf16>(m, first, last, in, rows, to);
  }
}

}  // namespace
