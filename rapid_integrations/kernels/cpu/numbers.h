// Numbers: bfloat16, and what a processor's vectors do with it.
//
// RAPID_WIDE: there are vectors of 16 lanes, of AVX-512 (`avx512.h`), AVX2 (`avx2.h`) or NEON (`neon.h`). Without them, and with
// RAPID_PORTABLE, the compiler makes what it can of loops.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    !defined(RAPID_PORTABLE)
#define RAPID_AVX512 1
#define RAPID_WIDE 1
#include "avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(RAPID_PORTABLE)
#define RAPID_AVX2 1
#define RAPID_WIDE 1
#include "avx2.h"
#elif defined(__aarch64__) && !defined(RAPID_PORTABLE)
#define RAPID_WIDE 1
#include "neon.h"
#endif

// RAPID_BF16_DOTS: the processor has an instruction for dot products of bfloat16.
#if (RAPID_AVX512 && defined(__AVX512BF16__)) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define RAPID_BF16_DOTS 1
#else
#define RAPID_BF16_DOTS 0
#endif

// RAPID_PROMPTS_IN_LEVELS: products of bytes are the fastest that there are for many inputs.
#if RAPID_AVX2 || (RAPID_AVX512 && !RAPID_BF16_DOTS)
#define RAPID_PROMPTS_IN_LEVELS 1
#endif

// RAPID_WORD_DOTS: dot products of 16-bit integers are faster than those of any other numbers that are as precise.
#if (RAPID_AVX512 && !RAPID_BF16_DOTS) || RAPID_VNNI
#define RAPID_WORD_DOTS 1
#endif

// RAPID_STEPS_IN_WORDS: steps may attend with them, too. (On AVX2 with VNNI this was not measured.)
#if RAPID_AVX512 && RAPID_WORD_DOTS
#define RAPID_STEPS_IN_WORDS 1
#endif

// How many inputs share a pass over a weight: as many as leave their sums in registers.
#if RAPID_WIDE && !RAPID_AVX512
constexpr int INPUTS_TOGETHER = 4;
#else
constexpr int INPUTS_TOGETHER = 8;
#endif

namespace {

using bf16 = uint16_t;

inline float to_float(bf16 x) {
  uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline bf16 to_bf16(float x) {  // round to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return bf16((bits >> 16) | 0x40);  // NaN
  return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline bool any_nan(const float* x, int64_t n) {
  bool found = false;
  for (int64_t i = 0; i < n; i++) found |= x[i] != x[i];
  return found;
}

#if RAPID_WIDE

inline float sum16(__m512 v) { return _mm512_reduce_add_ps(v); }

inline __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

inline __m256i load_256(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }

inline __m512bh load_bf16(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

inline __m512 rounded_as_bf16(__m512 x) {  // to the precision of bfloat16
#if RAPID_AVX2
  const __m512i upper = by_half<__m512i>([&](int i) { return upper_as_bf16(x.v[i]); });
  return _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_set1_epi32(int32_t(0xffff0000u))));
#else
  return widen((__m256i)_mm512_cvtneps_pbh(x));
#endif
}

inline __m512 exp512(__m512 x) {  // relative error about 2e-7; for x <= 0
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);  // of NaN it returns its second operand
  __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
  __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.9875691e-4f);
  for (float c : {1.3981999e-3f, 8.3334519e-3f, 4.1665796e-2f, 1.6666665e-1f, 5.0000001e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

inline __m512 exp2_512(__m512 y) {  // 2^y, relative error about 2e-7
  const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(y, n);
  __m512 p = _mm512_set1_ps(1.33976603e-3f);
  for (float c : {9.67011460e-3f, 5.55042094e-2f, 2.40223021e-1f, 6.93147182e-1f, 1.0f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
#if RAPID_AVX2
  return times_power(p, n);
#else
  return _mm512_scalef_ps(p, n);
#endif
}

inline __m512 silu512(__m512 x) {  // x / (1 + exp(-x)), by exp(-|x|), which is what exp512 computes
  const __m512 one = _mm512_set1_ps(1.0f), e = exp512(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
  const __m512 top = _mm512_mask_mov_ps(one, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), e);
  return _mm512_div_ps(_mm512_mul_ps(x, top), _mm512_add_ps(one, e));
}

// What `of` makes of the lanes of each of N <= 16 vectors, in the order in which `sum16` adds them.
template <int N, class F>
inline void folded(const __m512* v, float* out, const F& of) {
  constexpr int quads = (N + 3) / 4;
  __m512 quad[4];
  for (int k = 0; k < 4; k++) {
    if (k >= quads) {
      quad[k] = _mm512_setzero_ps();
      continue;
    }
    auto at = [&](int i) { return 4 * k + i < N ? v[4 * k + i] : _mm512_setzero_ps(); };
    auto halves = [&](__m512 a, __m512 b) {  // lane i and i + 8
      return of(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    };
    const __m512 ab = halves(at(0), at(1)), cd = halves(at(2), at(3));
    quad[k] = of(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));  // i and i + 4
  }
  auto pairs = [&](__m512 a, __m512 b) {  // i and i + 2
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return of(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  };
  const __m512 p = pairs(quad[0], quad[1]), q = pairs(quad[2], quad[3]);
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, of(_mm512_shuffle_ps(p, q, 0x88), _mm512_shuffle_ps(p, q, 0xdd)));
  for (int i = 0; i < N; i++) out[i] = lanes[i % 4 * 4 + i / 4];
}

// Sums of the lanes of N <= 16 vectors.
template <int N>
inline void sums(const __m512* v, float* out) {
  folded<N>(v, out, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}

#endif

}  // namespace
