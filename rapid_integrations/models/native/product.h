// Products of a weight's rows with a few inputs.

#pragma once

#include <algorithm>
#include <type_traits>

#include "interface.h"
#include "numbers.h"

namespace {

constexpr int GROUP = 32;   // int4 weights that share a scale and an offset
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

struct LoadInt4 {
  static constexpr int bytes_per_32 = 16;
  static inline __m512bh get(const uint8_t* p) {
    __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(pairs), _mm256_srli_epi16(pairs, 4), 1);
    return (__m512bh)_mm512_permutexvar_epi16(both, _mm512_load_si512(LEVELS));
  }
};

// out[r * T + t] for R rows of the weight and T rows of input; every sum is one chain over the columns. The weight is
// read strictly in the order in which it lies in memory, once for all inputs: that is what the processor fetches ahead
// best (two rows at a time ran at less than half the speed).
template <class Load, int R, int T>
inline void dots(const uint8_t* w, const bf16* scale, const Input& in, float* out) {
  __m512 all[R][T];
  for (int r = 0; r < R; r++) {
    __m512 acc[T];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      _mm_prefetch((const char*)w + AHEAD, _MM_HINT_T0);
      const __m512bh weights = Load::get(w);
      const bf16* x = in.x + k;
      if constexpr (std::is_same_v<Load, LoadInt4>) {
        const __m512 s = _mm512_set1_ps(to_float(*scale++)), zero = _mm512_setzero_ps();
        for (int t = 0; t < T; t++)
          acc[t] = _mm512_fmadd_ps(_mm512_dpbf16_ps(zero, weights, load_bf16(x + t * in.stride)), s, acc[t]);
      } else {
        for (int t = 0; t < T; t++) acc[t] = _mm512_dpbf16_ps(acc[t], weights, load_bf16(x + t * in.stride));
      }
    }
    for (int t = 0; t < T; t++) all[r][t] = acc[t];
  }
  sums<R * T>(&all[0][0], out);
}

inline float dot_zero(const bf16* zero, const float* sums, int groups) {
  __m512 acc = _mm512_setzero_ps();
  for (int g = 0; g < groups; g += 16) {
    __mmask16 mask = groups - g >= 16 ? 0xffff : __mmask16((1u << (groups - g)) - 1);
    acc = _mm512_fmadd_ps(widen(_mm256_maskz_loadu_epi16(mask, zero + g)), _mm512_maskz_loadu_ps(mask, sums + g), acc);
  }
  return sum16(acc);
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
struct LoadInt4 {
  static constexpr int bytes_per_32 = 16;
  static inline float get(const uint8_t* p, int i) { return float((i < 16 ? p[i] & 15 : p[i - 16] >> 4) - 8); }
};

template <class Load, int R, int T>
inline void dots(const uint8_t* w, const bf16* scale, const Input& in, float* out) {
  for (int r = 0; r < R; r++) {
    float acc[T][GROUP] = {};  // the lanes of a vector of 32
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      float weights[GROUP];
      const float s = std::is_same_v<Load, LoadInt4> ? to_float(*scale++) : 1.0f;
      for (int i = 0; i < GROUP; i++) weights[i] = Load::get(w, i) * s;
      for (int t = 0; t < T; t++) {
        const bf16* x = in.x + t * in.stride + k;
        for (int i = 0; i < GROUP; i++) acc[t][i] += weights[i] * to_float(x[i]);
      }
    }
    for (int t = 0; t < T; t++) {
      float total = 0;
      for (int i = 0; i < GROUP; i++) total += acc[t][i];
      out[r * T + t] = total;
    }
  }
}

inline float dot_zero(const bf16* zero, const float* sums, int groups) {
  float total = 0;
  for (int g = 0; g < groups; g++) total += to_float(zero[g]) * sums[g];
  return total;
}

#endif

struct Output {  // element (t, row) of a product goes to data[t * stride + row - first]
  float* data;
  size_t stride;
  int first;
};

template <class Load, int T>
void product_rows(const Matrix& m, int first, int last, const Input& in, int t0, const Output& to) {
  constexpr int R = T <= 4 ? 4 : 2;  // weight rows whose sums are formed together
  constexpr bool int4 = std::is_same_v<Load, LoadInt4>;
  const int groups = m.columns / GROUP;
  const size_t stride = size_t(m.columns / 32) * Load::bytes_per_32;
  const uint8_t* data = (const uint8_t*)m.data;
  const bf16 *scale = (const bf16*)m.scale, *zero = (const bf16*)m.zero, *bias = (const bf16*)m.bias;
  const Input part{in.x + t0 * in.stride, in.group_sums + size_t(t0) * groups, in.columns, in.stride};
  float out[R * T];
  for (int row = first; row < last;) {
    const bool whole = row + R <= last;
    const int count = whole ? R : 1;
    const bf16* scales = int4 ? scale + size_t(row) * groups : nullptr;
    if (whole)
      dots<Load, R, T>(data + row * stride, scales, part, out);
    else
      dots<Load, 1, T>(data + row * stride, scales, part, out);
    for (int r = 0; r < count; r++, row++)
      for (int t = 0; t < T; t++) {
        float value = out[r * T + t];
        if constexpr (int4) value += dot_zero(zero + size_t(row) * groups, part.group_sums + size_t(t) * groups, groups);
        if constexpr (std::is_same_v<Load, LoadInt8>) value *= to_float(scale[row]);
        if (bias) value += to_float(bias[row]);
        to.data[size_t(t0 + t) * to.stride + row - to.first] = value;
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

// Products of weight rows [first, last) with `rows` inputs.
void product(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  switch (m.kind) {
    case INT8: return product_of<LoadInt8>(m, first, last, in, rows, to);
    case INT4: return product_of<LoadInt4>(m, first, last, in, rows, to);
    default: return product_of<LoadBf16>(m, first, last, in, rows, to);
  }
}

}  // namespace
