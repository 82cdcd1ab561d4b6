// Vectors of 16 numbers on x86-64 without AVX-512: two registers of AVX2 behind the names that AVX-512 has for them.
//
// So the kernels are written once, and sums run in one order on all processors: products of weights in panels have the
// same bits here as with AVX-512. Only what the kernels use is here, and some of it only in the form in which they use it.
//
// The compiler's header declares the same names for AVX-512. Within the unnamed namespace, where all of the kernels'
// vectors are, those declared here come first; outside it they are ambiguous. Some compilers have macros for them, which are
// undone.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _mm512_cmp_ps_mask
#undef _mm512_permutex2var_epi32
#undef _mm512_roundscale_ps
#undef _mm512_setr_epi32
#undef _mm512_shuffle_f32x4
#undef _mm512_shuffle_i32x4
#undef _mm512_shuffle_ps
#undef _mm512_slli_epi32
#undef _mm512_srai_epi32
#undef _mm512_srli_epi32
#undef _mm512_slli_epi16
#undef _mm512_srli_epi16
#undef _mm512_ternarylogic_epi32

namespace {

struct __m512 {
  __m256 v[2];
};
struct __m512d {
  __m256d v[2];
};
struct __m512i {
  __m256i v[2];
};
using __m512bh = __m512i;  // bfloat16
using __mmask64 = uint64_t;

template <class Vector, class F>
inline __attribute__((always_inline)) Vector by_half(const F& f) {
  return Vector{{f(0), f(1)}};
}

// Which lanes are meant: all bits of a lane, or none. As a number it has a bit for each lane.
struct __mmask16 {
  __m256 v[2];

  __mmask16() = default;
  explicit __mmask16(uint64_t bits) {
    for (int i = 0; i < 2; i++) {
      const __m256i own = _mm256_set1_epi32(int32_t(bits >> 8 * i));
      const __m256i weights = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
      v[i] = _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(own, weights), weights));
    }
  }
  operator uint32_t() const { return uint32_t(_mm256_movemask_ps(v[0]) | _mm256_movemask_ps(v[1]) << 8); }
};

// Memory.

inline __m512i _mm512_loadu_si512(const void* p) {
  return by_half<__m512i>([&](int i) { return _mm256_loadu_si256((const __m256i*)p + i); });
}
inline __m512i _mm512_load_si512(const void* p) { return _mm512_loadu_si512(p); }
inline void _mm512_storeu_si512(void* p, __m512i x) {
  for (int i = 0; i < 2; i++) _mm256_storeu_si256((__m256i*)p + i, x.v[i]);
}
inline void _mm512_store_si512(void* p, __m512i x) { _mm512_storeu_si512(p, x); }

inline __m512 _mm512_loadu_ps(const void* p) {
  return by_half<__m512>([&](int i) { return _mm256_loadu_ps((const float*)p + 8 * i); });
}
inline void _mm512_storeu_ps(void* p, __m512 x) {
  for (int i = 0; i < 2; i++) _mm256_storeu_ps((float*)p + 8 * i, x.v[i]);
}
inline void _mm512_store_ps(void* p, __m512 x) { _mm512_storeu_ps(p, x); }

// The first bytes, as many as the mask has ones, and zeros behind them.
inline __m512i _mm512_maskz_loadu_epi8(__mmask64 first, const void* p) {
  if (first == ~__mmask64(0)) return _mm512_loadu_si512(p);
  uint8_t bytes[64] = {};
  std::memcpy(bytes, p, size_t(__builtin_ctzll(~first)));
  return _mm512_loadu_si512(bytes);
}

// Numbers that are the same in all lanes, or written out.

inline __m512 _mm512_set1_ps(float x) {
  return by_half<__m512>([&](int) { return _mm256_set1_ps(x); });
}
inline __m512i _mm512_set1_epi32(int32_t x) {
  return by_half<__m512i>([&](int) { return _mm256_set1_epi32(x); });
}
inline __m512i _mm512_set1_epi8(int8_t x) {
  return by_half<__m512i>([&](int) { return _mm256_set1_epi8(x); });
}
inline __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0.0f); }
inline __m512i _mm512_setzero_si512() { return _mm512_set1_epi32(0); }
inline __m512i _mm512_broadcast_i32x4(__m128i x) {
  return by_half<__m512i>([&](int) { return _mm256_broadcastsi128_si256(x); });
}
template <class... Number>
inline __m512i _mm512_setr_epi32(Number... numbers) {
  const int32_t all[16] = {numbers...};
  return _mm512_loadu_si512(all);
}

// The same bits as another type.

inline __m512 _mm512_castsi512_ps(__m512i x) {
  return by_half<__m512>([&](int i) { return _mm256_castsi256_ps(x.v[i]); });
}
inline __m512d _mm512_castps_pd(__m512 x) {
  return by_half<__m512d>([&](int i) { return _mm256_castps_pd(x.v[i]); });
}
inline __m512 _mm512_castpd_ps(__m512d x) {
  return by_half<__m512>([&](int i) { return _mm256_castpd_ps(x.v[i]); });
}

// Arithmetic of floats. A product and a sum are rounded once.

inline __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_add_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_sub_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_mul_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_sqrt_ps(__m512 x) {
  return by_half<__m512>([&](int i) { return _mm256_sqrt_ps(x.v[i]); });
}
inline __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_div_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {  // b if one of them is no number
  return by_half<__m512>([&](int i) { return _mm256_max_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {  // a b + c
  return by_half<__m512>([&](int i) { return _mm256_fmadd_ps(a.v[i], b.v[i], c.v[i]); });
}
inline __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c) {  // a b - c
  return by_half<__m512>([&](int i) { return _mm256_fmsub_ps(a.v[i], b.v[i], c.v[i]); });
}
inline __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {  // c - a b
  return by_half<__m512>([&](int i) { return _mm256_fnmadd_ps(a.v[i], b.v[i], c.v[i]); });
}
inline __m512 _mm512_roundscale_ps(__m512 x, int) {  // to the nearest whole number, ties to even
  return by_half<__m512>(
      [&](int i) { return _mm256_round_ps(x.v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); });
}

// x 2^n of a whole n. Two factors, since one has not the exponents of numbers that are too small for their full precision.
inline __m512 _mm512_scalef_ps(__m512 x, __m512 n) {
  return by_half<__m512>([&](int i) {
    const __m256 bounded = _mm256_max_ps(_mm256_min_ps(n.v[i], _mm256_set1_ps(254)), _mm256_set1_ps(-252));
    const __m256i whole = _mm256_cvtps_epi32(bounded), bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_srai_epi32(whole, 1), second = _mm256_sub_epi32(whole, first);
    const auto power = [&](__m256i exponent) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(exponent, bias), 23));
    };
    return _mm256_mul_ps(_mm256_mul_ps(x.v[i], power(first)), power(second));
  });
}

// x 2^n for x near 1; 0 if that is too small for full precision.
inline __m512 times_power(__m512 x, __m512 n) {
  return by_half<__m512>([&](int i) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v[i]), 23);
    const __m256 moved = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.v[i]), exponent));
    return _mm256_and_ps(moved, _mm256_cmp_ps(n.v[i], _mm256_set1_ps(-125), _CMP_NLT_UQ));  // NaN stays
  });
}

// Sums of lanes: i and i + 8, then i and i + 4, i + 2, i + 1.
template <class F>
inline float folded(__m512 x, const F& f) {
  const __m256 eight = f(x.v[0], x.v[1]);
  const auto four = [&](__m128 a, __m128 b) { return _mm256_castps256_ps128(f(_mm256_castps128_ps256(a), _mm256_castps128_ps256(b))); };
  const __m128 quarter = four(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = four(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(four(two, _mm_shuffle_ps(two, two, 1)));
}
inline float _mm512_reduce_add_ps(__m512 x) {
  return folded(x, [](__m256 a, __m256 b) { return _mm256_add_ps(a, b); });
}
inline float _mm512_reduce_max_ps(__m512 x) {
  return folded(x, [](__m256 a, __m256 b) { return _mm256_max_ps(a, b); });
}
inline int32_t _mm512_reduce_add_epi32(__m512i x) {
  const __m256i eight = _mm256_add_epi32(x.v[0], x.v[1]);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_srli_epi64(two, 32)));
}

// Masks.

inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  __mmask16 out;
  for (int i = 0; i < 2; i++) switch (how) {
      case _CMP_EQ_OQ: out.v[i] = _mm256_cmp_ps(a.v[i], b.v[i], _CMP_EQ_OQ); break;
      case _CMP_LT_OQ: out.v[i] = _mm256_cmp_ps(a.v[i], b.v[i], _CMP_LT_OQ); break;
      case _CMP_GE_OQ: out.v[i] = _mm256_cmp_ps(a.v[i], b.v[i], _CMP_GE_OQ); break;
      case _CMP_GT_OQ: out.v[i] = _mm256_cmp_ps(a.v[i], b.v[i], _CMP_GT_OQ); break;
      default: out.v[i] = _mm256_cmp_ps(a.v[i], b.v[i], _CMP_UNORD_Q);
    }
  return out;
}
inline __m512 _mm512_mask_mov_ps(__m512 otherwise, __mmask16 mask, __m512 x) {
  return by_half<__m512>([&](int i) { return _mm256_blendv_ps(otherwise.v[i], x.v[i], mask.v[i]); });
}
inline __m512 _mm512_mask_loadu_ps(__m512 otherwise, __mmask16 mask, const void* p) {  // all 16 are read
  return _mm512_mask_mov_ps(otherwise, mask, _mm512_loadu_ps(p));
}
inline __m512 _mm512_maskz_mul_ps(__mmask16 mask, __m512 a, __m512 b) {
  return _mm512_mask_mov_ps(_mm512_setzero_ps(), mask, _mm512_mul_ps(a, b));
}

// Bits and integers.

inline __m512i _mm512_castps_si512(__m512 x) {
  return by_half<__m512i>([&](int i) { return _mm256_castps_si256(x.v[i]); });
}
inline __m512i _mm512_max_epu16(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_max_epu16(a.v[i], b.v[i]); });
}
inline __m512i _mm512_max_epi32(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_max_epi32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_mask_blend_epi16(uint32_t, __m512i even, __m512i odd) {  // of 0xaaaaaaaa
  return by_half<__m512i>([&](int i) { return _mm256_blend_epi16(even.v[i], odd.v[i], 0xaa); });
}

inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_and_si256(a.v[i], b.v[i]); });
}
inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_or_si256(a.v[i], b.v[i]); });
}
inline __m512i _mm512_xor_si512(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_xor_si256(a.v[i], b.v[i]); });
}
inline __m512 _mm512_and_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_and_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_or_ps(__m512 a, __m512 b) {
  return by_half<__m512>([&](int i) { return _mm256_or_ps(a.v[i], b.v[i]); });
}
inline __m512 _mm512_abs_ps(__m512 x) {
  return _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)));
}
inline __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int) {  // a | (b & c), which 0xf8 stands for
  return _mm512_or_si512(a, _mm512_and_si512(b, c));
}
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_add_epi32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_sub_epi32(a.v[i], b.v[i]); });
}
inline __m512i operator+(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
inline __m512i operator*(__m512i a, int32_t b) {
  return by_half<__m512i>([&](int i) { return _mm256_mullo_epi32(a.v[i], _mm256_set1_epi32(b)); });
}
inline __m512i _mm512_slli_epi32(__m512i x, int bits) {
  return by_half<__m512i>([&](int i) { return _mm256_slli_epi32(x.v[i], bits); });
}
inline __m512i _mm512_srai_epi32(__m512i x, int bits) {
  return by_half<__m512i>([&](int i) { return _mm256_srai_epi32(x.v[i], bits); });
}
inline __m512i _mm512_srli_epi32(__m512i x, int bits) {
  return by_half<__m512i>([&](int i) { return _mm256_srli_epi32(x.v[i], bits); });
}
inline __m512i _mm512_srl_epi32(__m512i x, __m128i bits) {
  return by_half<__m512i>([&](int i) { return _mm256_srl_epi32(x.v[i], bits); });
}
inline __m512i _mm512_slli_epi16(__m512i x, int bits) {
  return by_half<__m512i>([&](int i) { return _mm256_slli_epi16(x.v[i], bits); });
}
inline __m512i _mm512_srli_epi16(__m512i x, int bits) {
  return by_half<__m512i>([&](int i) { return _mm256_srli_epi16(x.v[i], bits); });
}

// One type of number as another one.

inline __m512 _mm512_cvtepi32_ps(__m512i x) {
  return by_half<__m512>([&](int i) { return _mm256_cvtepi32_ps(x.v[i]); });
}
inline __m512i _mm512_cvtps_epi32(__m512 x) {  // to the nearest, ties to even
  return by_half<__m512i>([&](int i) { return _mm256_cvtps_epi32(x.v[i]); });
}
inline __m512i _mm512_cvtepu16_epi32(__m256i x) {
  return {{_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1))}};
}
inline __m512i _mm512_cvtepu8_epi32(__m128i x) {
  return {{_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x))}};
}
inline __m512i _mm512_cvtepi8_epi32(__m128i x) {
  return {{_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))}};
}

// Numbers of 16 bits, each in a lane: the eight of both, in order.
inline __m256i sixteen_packed(__m256i low, __m256i high) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
}
inline __m128i _mm512_cvtepi32_epi8(__m512i x) {  // the lowest byte of each
  const __m512i bytes = _mm512_and_si512(x, _mm512_set1_epi32(255));
  const __m256i both = sixteen_packed(bytes.v[0], bytes.v[1]);
  return _mm_packus_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
}
inline __m256i _mm512_cvtepi32_epi16(__m512i x) {  // the lower half of each
  const __m512i halves = _mm512_and_si512(x, _mm512_set1_epi32(0xffff));
  return sixteen_packed(halves.v[0], halves.v[1]);
}
inline __m512 _mm512_cvtph_ps(__m256i x) {  // from float16
  return {{_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))}};
}

// To bfloat16, in the upper halves of the lanes: to the nearest, ties to even. The lower halves are left as they come out.
inline __m256i upper_as_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i no_number = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  return _mm256_blendv_epi8(up, no_number, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
inline __m256i _mm512_cvtneps_pbh(__m512 x) {
  return sixteen_packed(_mm256_srli_epi32(upper_as_bf16(x.v[0]), 16), _mm256_srli_epi32(upper_as_bf16(x.v[1]), 16));
}
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  return {{_mm512_cvtneps_pbh(low), _mm512_cvtneps_pbh(high)}};
}

// Lanes that change places.

inline __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int which) {  // 0x44, 0xee, 0x88: the even quarters, or the odd ones
  const auto quarters = [](__m512i x, bool odd) {
    return odd ? _mm256_permute2x128_si256(x.v[0], x.v[1], 0x31) : _mm256_permute2x128_si256(x.v[0], x.v[1], 0x20);
  };
  if (which == 0x44) return {{a.v[0], b.v[0]}};
  if (which == 0xee) return {{a.v[1], b.v[1]}};
  return {{quarters(a, which != 0x88), quarters(b, which != 0x88)}};
}
inline __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int which) {
  const auto bits = [](__m512 x) { return by_half<__m512i>([&](int i) { return _mm256_castps_si256(x.v[i]); }); };
  return _mm512_castsi512_ps(_mm512_shuffle_i32x4(bits(a), bits(b), which));
}
inline __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int which) {  // 0x88: the even lanes of both; else the odd ones
  return by_half<__m512>([&](int i) {
    return which == 0x88 ? _mm256_shuffle_ps(a.v[i], b.v[i], 0x88) : _mm256_shuffle_ps(a.v[i], b.v[i], 0xdd);
  });
}
// The first quarters of both by turns, if `order` begins with 0, and otherwise the last ones.
inline __m512i _mm512_permutex2var_epi32(__m512i a, __m512i order, __m512i b) {
  const int half = _mm_cvtsi128_si32(_mm256_castsi256_si128(order.v[0])) / 8;
  return {{_mm256_permute2x128_si256(a.v[half], b.v[half], 0x20), _mm256_permute2x128_si256(a.v[half], b.v[half], 0x31)}};
}
inline __m512i _mm512_shuffle_epi8(__m512i table, __m512i places) {
  return by_half<__m512i>([&](int i) { return _mm256_shuffle_epi8(table.v[i], places.v[i]); });
}
inline __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) {
  return by_half<__m512d>([&](int i) { return _mm256_unpacklo_pd(a.v[i], b.v[i]); });
}
inline __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) {
  return by_half<__m512d>([&](int i) { return _mm256_unpackhi_pd(a.v[i], b.v[i]); });
}
#define RAPID_UNPACKS(bits)                                                                      \
  inline __m512i _mm512_unpacklo_epi##bits(__m512i a, __m512i b) {                               \
    return by_half<__m512i>([&](int i) { return _mm256_unpacklo_epi##bits(a.v[i], b.v[i]); });   \
  }                                                                                              \
  inline __m512i _mm512_unpackhi_epi##bits(__m512i a, __m512i b) {                               \
    return by_half<__m512i>([&](int i) { return _mm256_unpackhi_epi##bits(a.v[i], b.v[i]); });   \
  }
RAPID_UNPACKS(8)
RAPID_UNPACKS(16)
RAPID_UNPACKS(32)
RAPID_UNPACKS(64)
#undef RAPID_UNPACKS

// Dot products.

// Of pairs of bfloat16. The odd numbers come first and each product is added without rounding it before, as the processors
// do that have an instruction for it.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  return by_half<__m512>([&](int i) {
    const auto odd = [](__m256i x) {
      return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(int32_t(0xffff0000u))));
    };
    const auto even = [](__m256i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); };
    const __m256 first = _mm256_fmadd_ps(odd(a.v[i]), odd(b.v[i]), sum.v[i]);
    return _mm256_fmadd_ps(even(a.v[i]), even(b.v[i]), first);
  });
}

// sum + those of four bytes a lane of `a` with four signed ones of `b`. Products of pairs of bytes would not fit into 16 bits.
inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
#if defined(__AVXVNNI__)
#define RAPID_VNNI 1
  return by_half<__m512i>([&](int i) { return _mm256_dpbusd_avx_epi32(sum.v[i], a.v[i], b.v[i]); });
#else
  return by_half<__m512i>([&](int i) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a.v[i], _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(b.v[i], 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a.v[i], 8), _mm256_srai_epi16(b.v[i], 8));
    return _mm256_add_epi32(sum.v[i], _mm256_add_epi32(even, odd));
  });
#endif
}

#if RAPID_VNNI
// sum + those of two numbers of 16 bits a lane.
inline __m512i _mm512_dpwssd_epi32(__m512i sum, __m512i a, __m512i b) {
  return by_half<__m512i>([&](int i) { return _mm256_dpwssd_avx_epi32(sum.v[i], a.v[i], b.v[i]); });
}
#endif

}  // namespace
