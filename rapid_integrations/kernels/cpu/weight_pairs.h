// Weights of 16 rows and 32 columns as numbers: 16 vectors with a pair of columns each, a row a lane. That is what the
// processor's matrix units read, and what a transposition makes rows of.

#pragma once

#include <type_traits>

#include "attention.h"
#include "blocks.h"
#include "numbers.h"
#include "panels.h"

#if RAPID_WIDE

namespace {

inline __m512i rounded_pair(__m512 even, __m512 odd) {  // bfloat16: even columns in the low halves of the lanes
#if RAPID_AVX512
  alignas(64) static constexpr int16_t ORDER[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(ORDER), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
#else
  auto rounded = [](__m512 x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); };
  return _mm512_or_si512(rounded(even), _mm512_slli_epi32(rounded(odd), 16));
#endif
}

// Column number BYTE of the four columns whose levels `four` has, less OFFSET.
template <int BYTE, int OFFSET>
inline __m512 level_at(__m512i four) {
  const __m512i moved = BYTE ? _mm512_srli_epi32(four, 8 * BYTE) : four;
  const __m512i level = BYTE == 3 ? moved : _mm512_and_si512(moved, _mm512_set1_epi32(255));
  return _mm512_sub_ps(_mm512_cvtepi32_ps(level), _mm512_set1_ps(OFFSET));
}

// Calls f(i, even, odd) with the numbers of columns 2 i and 2 i + 1 of a group, a row a lane, for i from 0 to 15. Of INT8
// these are the levels alone: their scales are for whole rows, and apply to a product.
template <class B, class F>
inline __attribute__((always_inline)) void columns_of(const uint8_t* block, int g, const F& f) {
  constexpr bool IS_PANEL = std::is_same_v<B, Int8Panel> || std::is_same_v<B, Int4Panel>;
  __m512 first = _mm512_set1_ps(1.0f), second = first, minimum = _mm512_setzero_ps();
  if constexpr (!IS_PANEL) {
    const auto figures = B::figures(block, g);
    first = figures.first, second = figures.second, minimum = figures.minimum;
  } else if constexpr (B::SCALED) {
    first = second = widen(load_256(B::scales(block))), minimum = widen(load_256(B::zeros(block)));
  }
  unrolled_constants(std::make_integer_sequence<int, GROUP / 4>{}, [&](auto i) __attribute__((always_inline)) {
    constexpr int I = decltype(i)::value;
    __m512i four;
    if constexpr (IS_PANEL)
      four = B::four(block, 4 * I);
    else
      four = B::template four<I>(block, g);
    auto weight = [&](__m512 level) __attribute__((always_inline)) {
      if constexpr (std::is_same_v<B, Int8Panel>) return level;
      return _mm512_fmadd_ps(level, I < 4 ? first : second, minimum);
    };
    f(2 * I, weight(level_at<0, B::OFFSET>(four)), weight(level_at<1, B::OFFSET>(four)));
    f(2 * I + 1, weight(level_at<2, B::OFFSET>(four)), weight(level_at<3, B::OFFSET>(four)));
  });
}

// r[i]: columns 2 i and 2 i + 1 of a group, as a pair.
template <class B>
inline void group_pairs(const uint8_t* block, int g, __m512i r[16]) {
  columns_of<B>(block, g, [&](int i, __m512 even, __m512 odd) __attribute__((always_inline)) { r[i] = rounded_pair(even, odd); });
}

}  // namespace

#endif
