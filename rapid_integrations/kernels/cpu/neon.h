// Vectors of 16 numbers on arm64: four registers of NEON behind the names that AVX-512 has for them.
//
// So the kernels are written once, and sums run in one order on all processors: products of weights in panels have the
// same bits on arm64 and on x86-64. Only what the kernels use is here, and some of it only in the form in which they use it.
//
// What a processor has beyond ARMv8.0 is used if the compiler may assume it: dot products of bytes (ARMv8.2, SDOT), of
// unsigned with signed ones (USDOT, "i8mm"), and of bfloat16 (BFDOT). Sums of integers are exact with any of these.
// BFDOT rounds in its own way, so that last bits of bfloat16 products differ from those of a processor without it; they
// are the same on all that have it. BFMMLA and SMMLA are faster for several rows, but a single row would fill half of
// their registers, and with the former a row alone would have other bits than in company if it did not.

#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace {

struct __m512 {
  float32x4_t v[4];
};
struct __m512d {
  float64x2_t v[4];
};
struct __m512i {
  int32x4_t v[4];
};
struct __m256i {
  int32x4_t v[2];
};
using __m128i = int32x4_t;
using __m512bh = __m512i;  // bfloat16
using __mmask64 = uint64_t;

template <class Vector, class F>
inline Vector by_quarter(const F& f) {
  return Vector{{f(0), f(1), f(2), f(3)}};
}

// Which lanes are meant: all bits of a lane, or none. As a number it has a bit for each lane.
struct __mmask16 {
  uint32x4_t v[4];

  __mmask16() = default;
  explicit __mmask16(uint64_t bits) {
    for (int i = 0; i < 4; i++) v[i] = vtstq_u32(vdupq_n_u32(uint32_t(bits)), weights(i));
  }
  operator uint32_t() const {
    uint32x4_t all = vandq_u32(v[0], weights(0));
    for (int i = 1; i < 4; i++) all = vorrq_u32(all, vandq_u32(v[i], weights(i)));
    return vaddvq_u32(all);
  }

 private:
  static uint32x4_t weights(int quarter) {
    const uint32_t bits[4] = {1u << 4 * quarter, 2u << 4 * quarter, 4u << 4 * quarter, 8u << 4 * quarter};
    return vld1q_u32(bits);
  }
};

constexpr int _MM_HINT_T0 = 3, _MM_HINT_T1 = 2;
constexpr int _MM_FROUND_TO_NEAREST_INT = 0, _MM_FROUND_NO_EXC = 8;
constexpr int _CMP_EQ_OQ = 0, _CMP_UNORD_Q = 3, _CMP_LT_OQ = 17, _CMP_GE_OQ = 29, _CMP_GT_OQ = 30;

inline void _mm_prefetch(const char* p, int) { __builtin_prefetch(p); }

// Memory.

inline __m128i _mm_loadu_si128(const __m128i* p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p)); }
inline void _mm_storeu_si128(__m128i* p, __m128i x) { vst1q_u8((uint8_t*)p, vreinterpretq_u8_s32(x)); }

inline __m256i _mm256_loadu_si256(const __m256i* p) {
  const __m128i* half = (const __m128i*)p;
  return {{_mm_loadu_si128(half), _mm_loadu_si128(half + 1)}};
}
inline void _mm256_storeu_si256(__m256i* p, __m256i x) {
  for (int i = 0; i < 2; i++) _mm_storeu_si128((__m128i*)p + i, x.v[i]);
}

inline __m512i _mm512_loadu_si512(const void* p) {
  return by_quarter<__m512i>([&](int i) { return _mm_loadu_si128((const __m128i*)p + i); });
}
inline __m512i _mm512_load_si512(const void* p) { return _mm512_loadu_si512(p); }
inline void _mm512_storeu_si512(void* p, __m512i x) {
  for (int i = 0; i < 4; i++) _mm_storeu_si128((__m128i*)p + i, x.v[i]);
}
inline void _mm512_store_si512(void* p, __m512i x) { _mm512_storeu_si512(p, x); }

inline __m512 _mm512_loadu_ps(const void* p) {
  return by_quarter<__m512>([&](int i) { return vld1q_f32((const float*)p + 4 * i); });
}
inline void _mm512_storeu_ps(void* p, __m512 x) {
  for (int i = 0; i < 4; i++) vst1q_f32((float*)p + 4 * i, x.v[i]);
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

inline __m512 _mm512_set1_ps(float x) { return by_quarter<__m512>([&](int) { return vdupq_n_f32(x); }); }
inline __m512i _mm512_set1_epi32(int32_t x) { return by_quarter<__m512i>([&](int) { return vdupq_n_s32(x); }); }
inline __m512i _mm512_set1_epi8(int8_t x) {
  return by_quarter<__m512i>([&](int) { return vreinterpretq_s32_s8(vdupq_n_s8(x)); });
}
inline __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0.0f); }
inline __m512i _mm512_setzero_si512() { return _mm512_set1_epi32(0); }
inline __m512i _mm512_broadcast_i32x4(__m128i x) { return {{x, x, x, x}}; }
template <class... Number>
inline __m512i _mm512_setr_epi32(Number... numbers) {
  const int32_t all[16] = {numbers...};
  return _mm512_loadu_si512(all);
}
inline __m128i _mm_cvtsi32_si128(int32_t x) { return vsetq_lane_s32(x, vdupq_n_s32(0), 0); }

// The same bits as another type, or as a part of it.

inline __m512 _mm512_castsi512_ps(__m512i x) {
  return by_quarter<__m512>([&](int i) { return vreinterpretq_f32_s32(x.v[i]); });
}
inline __m512d _mm512_castps_pd(__m512 x) {
  return by_quarter<__m512d>([&](int i) { return vreinterpretq_f64_f32(x.v[i]); });
}
inline __m512 _mm512_castpd_ps(__m512d x) {
  return by_quarter<__m512>([&](int i) { return vreinterpretq_f32_f64(x.v[i]); });
}
inline __m128i _mm256_castsi256_si128(__m256i x) { return x.v[0]; }
inline __m128i _mm256_extracti128_si256(__m256i x, int half) { return x.v[half]; }

// Arithmetic of floats. A product and a sum are rounded once.

inline __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {  // b if one of them is no number
  return by_quarter<__m512>([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline __m512 _mm512_abs_ps(__m512 x) {
  return by_quarter<__m512>([&](int i) { return vabsq_f32(x.v[i]); });
}
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {  // a b + c
  return by_quarter<__m512>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline __m512 _mm512_fmsub_ps(__m512 a, __m512 b, __m512 c) {  // a b - c
  return by_quarter<__m512>([&](int i) { return vfmaq_f32(vnegq_f32(c.v[i]), a.v[i], b.v[i]); });
}
inline __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {  // c - a b
  return by_quarter<__m512>([&](int i) { return vfmsq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline __m512 _mm512_roundscale_ps(__m512 x, int) {  // to the nearest whole number, ties to even
  return by_quarter<__m512>([&](int i) { return vrndnq_f32(x.v[i]); });
}

// x 2^n of a whole n. Two factors, since one has not the exponents of numbers that are too small for their full precision.
inline __m512 _mm512_scalef_ps(__m512 x, __m512 n) {
  return by_quarter<__m512>([&](int i) {
    const int32x4_t whole = vcvtq_s32_f32(vmaxq_f32(vminq_f32(n.v[i], vdupq_n_f32(254)), vdupq_n_f32(-252)));
    const int32x4_t first = vshrq_n_s32(whole, 1), second = vsubq_s32(whole, first), bias = vdupq_n_s32(127);
    const float32x4_t once = vmulq_f32(x.v[i], vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(first, bias), 23)));
    return vmulq_f32(once, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(second, bias), 23)));
  });
}

// Sums of lanes: i and i + 8, then i and i + 4, i + 2, i + 1.
inline float _mm512_reduce_add_ps(__m512 x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float _mm512_reduce_max_ps(__m512 x) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
}
inline int32_t _mm512_reduce_add_epi32(__m512i x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
}

// Masks.

inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  __mmask16 out;
  for (int i = 0; i < 4; i++) switch (how) {
      case _CMP_EQ_OQ: out.v[i] = vceqq_f32(a.v[i], b.v[i]); break;
      case _CMP_LT_OQ: out.v[i] = vcltq_f32(a.v[i], b.v[i]); break;
      case _CMP_GE_OQ: out.v[i] = vcgeq_f32(a.v[i], b.v[i]); break;
      case _CMP_GT_OQ: out.v[i] = vcgtq_f32(a.v[i], b.v[i]); break;
      default:  // _CMP_UNORD_Q
        out.v[i] = vmvnq_u32(vandq_u32(vceqq_f32(a.v[i], a.v[i]), vceqq_f32(b.v[i], b.v[i])));
    }
  return out;
}
inline __m512 _mm512_mask_mov_ps(__m512 otherwise, __mmask16 mask, __m512 x) {
  return by_quarter<__m512>([&](int i) { return vbslq_f32(mask.v[i], x.v[i], otherwise.v[i]); });
}
inline __m512 _mm512_mask_loadu_ps(__m512 otherwise, __mmask16 mask, const void* p) {  // all 16 are read
  return _mm512_mask_mov_ps(otherwise, mask, _mm512_loadu_ps(p));
}
inline __m512 _mm512_maskz_mul_ps(__mmask16 mask, __m512 a, __m512 b) {
  return _mm512_mask_mov_ps(_mm512_setzero_ps(), mask, _mm512_mul_ps(a, b));
}

// Bits and integers.

inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return vandq_s32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return vorrq_s32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_xor_si512(__m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return veorq_s32(a.v[i], b.v[i]); });
}
inline __m512 _mm512_and_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) {
    return vreinterpretq_f32_s32(vandq_s32(vreinterpretq_s32_f32(a.v[i]), vreinterpretq_s32_f32(b.v[i])));
  });
}
inline __m512 _mm512_or_ps(__m512 a, __m512 b) {
  return by_quarter<__m512>([&](int i) {
    return vreinterpretq_f32_s32(vorrq_s32(vreinterpretq_s32_f32(a.v[i]), vreinterpretq_s32_f32(b.v[i])));
  });
}
inline __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int) {  // a | (b & c), which 0xf8 stands for
  return _mm512_or_si512(a, _mm512_and_si512(b, c));
}
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline __m512i operator+(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
inline __m512i operator*(__m512i a, int32_t b) {
  return by_quarter<__m512i>([&](int i) { return vmulq_n_s32(a.v[i], b); });
}
inline __m512i _mm512_slli_epi32(__m512i x, int bits) {
  return by_quarter<__m512i>([&](int i) { return vshlq_s32(x.v[i], vdupq_n_s32(bits)); });
}
inline __m512i _mm512_srai_epi32(__m512i x, int bits) {
  return by_quarter<__m512i>([&](int i) { return vshlq_s32(x.v[i], vdupq_n_s32(-bits)); });
}
inline __m512i _mm512_srli_epi32(__m512i x, int bits) {
  return by_quarter<__m512i>([&](int i) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x.v[i]), vdupq_n_s32(-bits)));
  });
}
inline __m512i _mm512_srl_epi32(__m512i x, __m128i bits) { return _mm512_srli_epi32(x, vgetq_lane_s32(bits, 0)); }
inline __m512i _mm512_slli_epi16(__m512i x, int bits) {
  return by_quarter<__m512i>([&](int i) {
    return vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(x.v[i]), vdupq_n_s16(int16_t(bits))));
  });
}
inline __m512i _mm512_srli_epi16(__m512i x, int bits) { return _mm512_slli_epi16(x, -bits); }

// One type of number as another one.

inline __m512 _mm512_cvtepi32_ps(__m512i x) {
  return by_quarter<__m512>([&](int i) { return vcvtq_f32_s32(x.v[i]); });
}
inline __m512i _mm512_cvtps_epi32(__m512 x) {  // to the nearest, ties to even
  return by_quarter<__m512i>([&](int i) { return vcvtnq_s32_f32(x.v[i]); });
}
inline __m512i _mm512_cvtepu16_epi32(__m256i x) {
  const auto four = [](uint16x4_t part) { return vreinterpretq_s32_u32(vmovl_u16(part)); };
  const uint16x8_t low = vreinterpretq_u16_s32(x.v[0]), high = vreinterpretq_u16_s32(x.v[1]);
  return {{four(vget_low_u16(low)), four(vget_high_u16(low)), four(vget_low_u16(high)), four(vget_high_u16(high))}};
}
inline __m512i _mm512_cvtepu8_epi32(__m128i x) {
  const uint8x16_t bytes = vreinterpretq_u8_s32(x);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return _mm512_cvtepu16_epi32({{vreinterpretq_s32_u16(low), vreinterpretq_s32_u16(high)}});
}
inline __m512i _mm512_cvtepi8_epi32(__m128i x) {
  const int8x16_t bytes = vreinterpretq_s8_s32(x);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
           vmovl_s16(vget_high_s16(high))}};
}
inline __m128i _mm512_cvtepi32_epi8(__m512i x) {  // the lowest byte of each
  const int16x8_t low = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
  return vreinterpretq_s32_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
inline __m512 _mm512_cvtph_ps(__m256i x) {  // from float16
  const float16x8_t low = vreinterpretq_f16_s32(x.v[0]), high = vreinterpretq_f16_s32(x.v[1]);
  return {{vcvt_f32_f16(vget_low_f16(low)), vcvt_f32_f16(vget_high_f16(low)), vcvt_f32_f16(vget_low_f16(high)),
           vcvt_f32_f16(vget_high_f16(high))}};
}

// To bfloat16: to the nearest, ties to even.
inline int32x4_t eight_as_bf16(float32x4_t low, float32x4_t high) {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return vreinterpretq_s32_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high));
#else
  const auto four = [](float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t no_number = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, no_number), 16);
  };
  return vreinterpretq_s32_u16(vcombine_u16(four(low), four(high)));
#endif
}
inline __m256i _mm512_cvtneps_pbh(__m512 x) {
  return {{eight_as_bf16(x.v[0], x.v[1]), eight_as_bf16(x.v[2], x.v[3])}};
}
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  const __m256i first = _mm512_cvtneps_pbh(low), second = _mm512_cvtneps_pbh(high);
  return {{first.v[0], first.v[1], second.v[0], second.v[1]}};
}

// Lanes that change places.

inline __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int which) {
  return {{a.v[which & 3], a.v[which >> 2 & 3], b.v[which >> 4 & 3], b.v[which >> 6 & 3]}};
}
inline __m512i _mm512_shuffle_i32x4(__m512i a, __m512i b, int which) {
  return {{a.v[which & 3], a.v[which >> 2 & 3], b.v[which >> 4 & 3], b.v[which >> 6 & 3]}};
}
inline __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int which) {  // 0x88: the even lanes of both; else the odd ones
  return by_quarter<__m512>(
      [&](int i) { return which == 0x88 ? vuzp1q_f32(a.v[i], b.v[i]) : vuzp2q_f32(a.v[i], b.v[i]); });
}
inline __m512i _mm512_permutex2var_epi32(__m512i a, __m512i order, __m512i b) {  // in whole quarters
  return by_quarter<__m512i>([&](int i) {
    const int from = vgetq_lane_s32(order.v[i], 0) / 4;
    return from < 4 ? a.v[from] : b.v[from - 4];
  });
}
inline __m512i _mm512_shuffle_epi8(__m512i table, __m512i places) {
  return by_quarter<__m512i>([&](int i) {
    return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table.v[i]), vreinterpretq_u8_s32(places.v[i])));
  });
}
inline __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) {
  return by_quarter<__m512d>([&](int i) { return vzip1q_f64(a.v[i], b.v[i]); });
}
inline __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) {
  return by_quarter<__m512d>([&](int i) { return vzip2q_f64(a.v[i], b.v[i]); });
}
#define RAPID_UNPACKS(bits, type)                                                                                     \
  inline __m512i _mm512_unpacklo_epi##bits(__m512i a, __m512i b) {                                                    \
    return by_quarter<__m512i>([&](int i) {                                                                           \
      return vreinterpretq_s32_##type(                                                                                \
          vzip1q_##type(vreinterpretq_##type##_s32(a.v[i]), vreinterpretq_##type##_s32(b.v[i])));                     \
    });                                                                                                               \
  }                                                                                                                   \
  inline __m512i _mm512_unpackhi_epi##bits(__m512i a, __m512i b) {                                                    \
    return by_quarter<__m512i>([&](int i) {                                                                           \
      return vreinterpretq_s32_##type(                                                                                \
          vzip2q_##type(vreinterpretq_##type##_s32(a.v[i]), vreinterpretq_##type##_s32(b.v[i])));                     \
    });                                                                                                               \
  }
RAPID_UNPACKS(8, u8)
RAPID_UNPACKS(16, u16)
RAPID_UNPACKS(32, u32)
RAPID_UNPACKS(64, u64)
#undef RAPID_UNPACKS

// Dot products.

// Of pairs of bfloat16. Without BFDOT the odd numbers come first and each product is added without rounding it before, as
// the processors do that have AVX-512's instruction.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  return by_quarter<__m512>([&](int i) {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return vbfdotq_f32(sum.v[i], vreinterpretq_bf16_s32(a.v[i]), vreinterpretq_bf16_s32(b.v[i]));
#else
    const auto odd = [](int32x4_t x) {
      return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_s32(x), vdupq_n_u32(0xffff0000u)));
    };
    const auto even = [](int32x4_t x) { return vreinterpretq_f32_s32(vshlq_n_s32(x, 16)); };
    return vfmaq_f32(vfmaq_f32(sum.v[i], odd(a.v[i]), odd(b.v[i])), even(a.v[i]), even(b.v[i]));
#endif
  });
}

// sum + those of four signed bytes a lane.
inline int32x4_t signed_added(int32x4_t sum, int32x4_t a, int32x4_t b) {
  const int8x16_t x = vreinterpretq_s8_s32(a), y = vreinterpretq_s8_s32(b);
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, x, y);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)));
  return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(x, y))));
#endif
}

inline __m512i signed_bytes_added(__m512i sum, __m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) { return signed_added(sum.v[i], a.v[i], b.v[i]); });
}

// sum + those of four bytes a lane of `a` with four signed ones of `b`.
inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  return by_quarter<__m512i>([&](int i) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return vusdotq_s32(sum.v[i], vreinterpretq_u8_s32(a.v[i]), vreinterpretq_s8_s32(b.v[i]));
#else
    const int32x4_t moved = vreinterpretq_s32_s8(vdupq_n_s8(-128));  // what `a` is, less 128, is a signed byte
    const int32x4_t sums = signed_added(sum.v[i], veorq_s32(a.v[i], moved), b.v[i]);
    return vsubq_s32(sums, signed_added(vdupq_n_s32(0), moved, b.v[i]));
#endif
  });
}

}  // namespace
