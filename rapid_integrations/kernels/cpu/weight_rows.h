// Weights of 16 rows and 32 columns as bfloat16 numbers, a row of 64 bytes behind the other, as the processor's matrix
// units read them (amx.h).
//
// Levels of four bits are not computed with one by one: the sixteen numbers that they can stand for in a row and group are
// computed once, and looked up for 32 weights at a time. They are the same numbers, with the same rounding.

#pragma once

#include "amx.h"
#include "blocks.h"
#include "numbers.h"
#include "panels.h"

#if RAPID_AMX

namespace {

// What rows of a group are computed from, a row each.
struct RowFigures {
  alignas(64) float first[PANEL], second[PANEL], minimum[PANEL];  // scales of the first and the last 16 columns
};

// Whether the numbers of a format are looked up: a level has four bits.
template <class B>
constexpr bool looked_up() {
  if constexpr (std::is_same_v<B, Int8Panel> || std::is_same_v<B, Int4Panel>)
    return std::is_same_v<B, Int4Panel>;
  else
    return B::LOW == PANEL * GROUP / 2 && !B::HIGH;
}

// Whether the columns of a group lie so in its rows: those whose levels are low halves of bytes, and then those of high ones.
// (Each pair of columns stays together.) If not, they lie in order.
inline bool halves_apart(int kind) {
  if (kind == BF16 || kind == INT8) return false;
  return kind == INT4 || with_format(kind, [](auto format) { return looked_up<decltype(format)>(); });
}

// Where pair number i of the columns of a group lies if their halves are apart.
constexpr int HALVES_APART[16] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};

template <class F>
inline __m512 numbers_of(const F& number) {  // what the levels of four bits stand for, before scales
  alignas(64) float numbers[16];
  for (int level = 0; level < 16; level++) numbers[level] = float(number(level));
  return _mm512_load_ps(numbers);
}

// The 16 bytes that each row has in four vectors, a row a lane: those of row 4 j + k at 16 (4 k + j).
inline void bytes_by_row(__m512i a, __m512i b, __m512i c, __m512i d, uint8_t* out) {
  const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  const __m512i ab_later = _mm512_unpackhi_epi32(a, b), cd_later = _mm512_unpackhi_epi32(c, d);
  _mm512_store_si512(out, _mm512_unpacklo_epi64(ab, cd));
  _mm512_store_si512(out + 64, _mm512_unpackhi_epi64(ab, cd));
  _mm512_store_si512(out + 128, _mm512_unpacklo_epi64(ab_later, cd_later));
  _mm512_store_si512(out + 192, _mm512_unpackhi_epi64(ab_later, cd_later));
}

// `levels` are the 256 bytes of a group, of which each has two columns; `numbers` what the sixteen levels stand for.
inline void rows_looked_up(const uint8_t* levels, const RowFigures& of, __m512 numbers, bf16* out) {
  alignas(64) uint8_t bytes[PANEL * 16];
  bytes_by_row(_mm512_loadu_si512(levels), _mm512_loadu_si512(levels + 64), _mm512_loadu_si512(levels + 128),
               _mm512_loadu_si512(levels + 192), bytes);
  const __m512i low = _mm512_set1_epi16(15);
  const __m512i table = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);  // of the second of two rows
  auto weights = [&](int row) __attribute__((always_inline)) {
    return _mm512_fmadd_ps(numbers, _mm512_set1_ps(of.first[row]), _mm512_set1_ps(of.minimum[row]));
  };
  auto keep = [&](int row, __m256i first_half, __m256i second_half) __attribute__((always_inline)) {
    _mm256_store_si256((__m256i*)(out + row * GROUP), first_half);
    _mm256_store_si256((__m256i*)(out + row * GROUP + GROUP / 2), second_half);
  };
#pragma GCC unroll 8
  for (int two = 0; two < PANEL / 2; two++) {
    const int first = two % 4 + two / 4 * 8, second = first + 4;
    const __m512i tables = (__m512i)_mm512_cvtne2ps_pbh(weights(second), weights(first));
    const __m512i both = _mm512_cvtepu8_epi16(load_256(bytes + 64 * (two % 4) + 32 * (two / 4)));
    constexpr int AND_THEN_OR = 0xea;  // (a & b) | c
    const __m512i x = _mm512_permutexvar_epi16(_mm512_ternarylogic_epi32(both, low, table, AND_THEN_OR), tables);
    const __m512i y = _mm512_permutexvar_epi16(_mm512_or_si512(_mm512_srli_epi16(both, 4), table), tables);
    keep(first, _mm512_castsi512_si256(x), _mm512_castsi512_si256(y));
    keep(second, _mm512_extracti64x4_epi64(x, 1), _mm512_extracti64x4_epi64(y, 1));
  }
}

// `four(i)` gives the levels of columns 4 i to 4 i + 3, a byte each, a row a lane.
template <int OFFSET, class Four>
inline void rows_computed(const Four& four, const RowFigures& of, bf16* out) {
  alignas(64) uint8_t bytes[2][PANEL * 16];  // signed: levels less OFFSET
  auto less = [&](auto i) __attribute__((always_inline)) {
    return OFFSET ? _mm512_sub_epi8(four(i), _mm512_set1_epi8(int8_t(OFFSET))) : four(i);
  };
  using std::integral_constant;
  bytes_by_row(less(integral_constant<int, 0>{}), less(integral_constant<int, 1>{}), less(integral_constant<int, 2>{}),
               less(integral_constant<int, 3>{}), bytes[0]);
  bytes_by_row(less(integral_constant<int, 4>{}), less(integral_constant<int, 5>{}), less(integral_constant<int, 6>{}),
               less(integral_constant<int, 7>{}), bytes[1]);
#pragma GCC unroll 16
  for (int place = 0; place < PANEL; place++) {
    const int row = place / 4 + place % 4 * 4;
    auto half = [&](int number, const float* scale) __attribute__((always_inline)) {
      const __m512i level = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)(bytes[number] + 16 * place)));
      return _mm512_fmadd_ps(_mm512_cvtepi32_ps(level), _mm512_set1_ps(scale[row]), _mm512_set1_ps(of.minimum[row]));
    };
    _mm512_store_si512(out + row * GROUP, (__m512i)_mm512_cvtne2ps_pbh(half(1, of.second), half(0, of.first)));
  }
}

// Group g of a block; of INT8 the levels alone: their scales are for whole rows, and apply to a product.
template <class B>
inline void rows_of_group(const uint8_t* block, int g, bf16* out) {
  RowFigures of;
  if constexpr (std::is_same_v<B, Int8Panel>) {
    _mm512_store_ps(of.first, _mm512_set1_ps(1.0f));
    _mm512_store_ps(of.second, _mm512_set1_ps(1.0f));
    _mm512_store_ps(of.minimum, _mm512_setzero_ps());
    rows_computed<B::OFFSET>([&](auto i) { return B::four(block, 4 * decltype(i)::value); }, of, out);
  } else if constexpr (std::is_same_v<B, Int4Panel>) {
    _mm512_store_ps(of.first, widen(load_256(B::scales(block))));
    _mm512_store_ps(of.minimum, widen(load_256(B::zeros(block))));
    rows_looked_up(block, of, numbers_of([](int level) { return level - B::OFFSET; }), out);
  } else {
    const auto figures = B::figures(block, g);
    _mm512_store_ps(of.first, figures.first);
    _mm512_store_ps(of.minimum, figures.minimum);
    if constexpr (looked_up<B>()) {
      rows_looked_up(B::low(block, g), of, numbers_of([](int level) { return B::listed(uint8_t(level)) - B::OFFSET; }), out);
    } else {
      _mm512_store_ps(of.second, figures.second);
      rows_computed<B::OFFSET>([&](auto i) { return B::template four<decltype(i)::value>(block, g); }, of, out);
    }
  }
}

}  // namespace

#endif
