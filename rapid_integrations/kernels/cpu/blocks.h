// Weights in the blocks of a GGUF file, as they lie in the file and as they lie in panels.
//
// A block has one group of 32 columns, or eight. A weight is (level - OFFSET) * scale + min. In blocks of one group scale
// and min (where there is one) are float16. In blocks of eight (the "K" formats) they are products of a float16 of the
// block and a small integer of the group; Q6_K has an integer for each half of a group. All numbers are kept as the file
// has them: levels, integers and float16s only change places. Each product of level, integer and float16 is exact in
// float32, so a weight in float32 is the one that the gguf package computes.
//
// 16 rows are a panel, as in `panels.h`, and a panel is one block after another. Of a block there are, in this order:
// the low four bits (or all eight) of its groups, as INT4 (or INT8) has them; the high bits of its groups; the integers
// of its groups (16 for the rows' scales or the first half, 16 for their minima or the second half); the rows' scales;
// the rows' minima. Of the fifth bits of a group, byte 4 row + c % 4 has that of column c at bit c / 4. Of its fifth and
// sixth, byte 64 (c / 16) + 4 row + c % 4 has those of column c from bit 2 (c / 4 % 4) on.
//
// MXFP4 has numbers of a list in place of levels. They are looked up, and its scales are bfloat16: these have every power
// of two that the format has, and float16 has not.

#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "interface.h"
#include "numbers.h"
#include "panels.h"

namespace {

inline float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) {
    const float small = float(fraction) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -small : small;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline uint16_t half_at(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, 2);
  return half;
}

// Where everything lies in a block of a panel.
template <int BITS, int OFFSET_, int GROUPS_, bool MINIMA_, bool HALVES_, bool LISTED = false>
struct BlockPanel {
  static constexpr int OFFSET = OFFSET_;
  static constexpr int MOST = LISTED ? 24 : (1 << BITS) - 1;  // levels are at most that
  static constexpr int GROUPS = GROUPS_;       // of a block
  static constexpr bool MINIMA = MINIMA_;
  static constexpr bool HALVES = HALVES_;      // each half of a group has a scale
  static constexpr int HIGH_BITS = BITS == 8 ? 0 : BITS - 4;
  static constexpr int LOW = BITS == 8 ? PANEL * GROUP : PANEL * GROUP / 2;  // bytes of a group
  static constexpr int HIGH = HIGH_BITS * PANEL * GROUP / 8;
  static constexpr int INTEGERS = GROUPS > 1 ? 2 * PANEL : 0;
  static constexpr int FIGURES = (MINIMA ? 2 : 1) * PANEL * 2;
  static constexpr int FILLED = GROUPS * (LOW + HIGH + INTEGERS) + FIGURES;
  static constexpr int BYTES = GROUPS > 1 ? (FILLED + 63) / 64 * 64 : FILLED;  // of a block: long ones begin on a line

  static inline const uint8_t* low(const uint8_t* block, int g) { return block + g * LOW; }
  static inline const uint8_t* high(const uint8_t* block, int g) { return block + GROUPS * LOW + g * HIGH; }
  static inline const uint8_t* integers(const uint8_t* block, int g) {
    return block + GROUPS * (LOW + HIGH) + g * INTEGERS;
  }
  static inline const uint8_t* scales(const uint8_t* block) { return block + GROUPS * (LOW + HIGH + INTEGERS); }
  static inline const uint8_t* minima(const uint8_t* block) { return scales(block) + 2 * PANEL; }

  // Twice the numbers of e2m1, and OFFSET more.
  static constexpr uint8_t LIST[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

  static inline int listed(uint8_t level) { return LISTED ? LIST[level] : level; }
  static inline float number(uint16_t scale) {  // what the bits of a scale or minimum stand for
    if constexpr (LISTED) return to_float(bf16{scale});
    return from_half(scale);
  }

  static inline int level(const uint8_t* block, int g, int row, int c) {
    const int place = row * 4 + c % 4;
    if constexpr (BITS == 8) return low(block, g)[c / 4 * 64 + place];
    const uint8_t both = low(block, g)[c / 8 * 64 + place];
    int level = c % 8 < 4 ? both & 15 : both >> 4;
    if constexpr (LISTED) return LIST[level];
    if constexpr (HIGH_BITS == 1) level |= (high(block, g)[place] >> c / 4 & 1) << 4;
    if constexpr (HIGH_BITS == 2) level |= (high(block, g)[c / 16 * 64 + place] >> c / 4 % 4 * 2 & 3) << 4;
    return level;
  }
  static inline float scale(const uint8_t* block, int g, int row, int c) {
    const float of_block = number(half_at(scales(block) + 2 * row));
    if constexpr (HALVES) return of_block * float(int8_t(integers(block, g)[c / 16 * PANEL + row]));
    if constexpr (GROUPS > 1) return of_block * float(integers(block, g)[row]);
    return of_block;
  }
  static inline float minimum(const uint8_t* block, int g, int row) {
    if constexpr (!MINIMA) return 0.0f;
    const float of_block = from_half(half_at(minima(block) + 2 * row));
    return GROUPS > 1 ? of_block * float(integers(block, g)[PANEL + row]) : of_block;
  }

#if RAPID_WIDE
  template <int I>
  static inline __m512i four(const uint8_t* block, int g) {  // levels of columns 4 I to 4 I + 3, a row a lane
    if constexpr (BITS == 8) return _mm512_loadu_si512(low(block, g) + 64 * I);
    const __m512i both = _mm512_loadu_si512(low(block, g) + I / 2 * 64);
    const __m512i levels = _mm512_and_si512(I % 2 ? _mm512_srli_epi16(both, 4) : both, _mm512_set1_epi8(15));
    if constexpr (LISTED) return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)LIST)), levels);
    constexpr int OR_OF_AND = 0xf8;  // a | (b & c)
    if constexpr (HIGH_BITS == 1) {
      const __m512i bits = _mm512_loadu_si512(high(block, g));
      const __m512i moved = I < 4 ? _mm512_slli_epi16(bits, I < 4 ? 4 - I : 0) : _mm512_srli_epi16(bits, I < 4 ? 0 : I - 4);
      return _mm512_ternarylogic_epi32(levels, moved, _mm512_set1_epi8(16), OR_OF_AND);
    }
    if constexpr (HIGH_BITS == 2) {
      const __m512i bits = _mm512_loadu_si512(high(block, g) + I / 4 * 64);
      constexpr int J = I % 4;
      const __m512i moved = J < 2 ? _mm512_slli_epi16(bits, J < 2 ? 4 - 2 * J : 0) : _mm512_srli_epi16(bits, J < 2 ? 0 : 2 * J - 4);
      return _mm512_ternarylogic_epi32(levels, moved, _mm512_set1_epi8(48), OR_OF_AND);
    }
    return levels;
  }
  static inline __m512 halves_at(const uint8_t* p) {
    if constexpr (LISTED) return widen(load_256(p));
    return _mm512_cvtph_ps(load_256(p));
  }
  static inline __m512 bytes_at(const uint8_t* p) {  // integers of 16 rows
    const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
    return _mm512_cvtepi32_ps(HALVES ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
  }
  struct Figures {  // of a group, a row a lane: scales of both halves, minima
    __m512 first, second, minimum;
  };
  static inline Figures figures(const uint8_t* block, int g) {
    const __m512 of_block = halves_at(scales(block));
    Figures out{of_block, of_block, _mm512_setzero_ps()};
    if constexpr (GROUPS > 1) out.first = out.second = _mm512_mul_ps(of_block, bytes_at(integers(block, g)));
    if constexpr (HALVES) out.second = _mm512_mul_ps(of_block, bytes_at(integers(block, g) + PANEL));
    if constexpr (MINIMA) {
      out.minimum = halves_at(minima(block));
      if constexpr (GROUPS > 1) out.minimum = _mm512_mul_ps(out.minimum, bytes_at(integers(block, g) + PANEL));
    }
    return out;
  }
#endif
};

struct BlockFigures {  // of a block of one row, as in a panel
  uint16_t scale, minimum;
  uint8_t first[8], second[8];
};

// The formats: RAW is the bytes of a block in a file, `levels` writes a group's 32.

template <bool MINIMA, bool FIFTH, int OFFSET>
struct BlockOf32 : BlockPanel<FIFTH ? 5 : 4, OFFSET, 1, MINIMA, false> {
  static constexpr int BEFORE = MINIMA ? 4 : 2, RAW = BEFORE + (FIFTH ? 4 : 0) + 16;
  static inline void levels(const uint8_t* raw, int, uint8_t* out) {
    const uint8_t* low = raw + RAW - 16;
    uint32_t high = 0;
    if (FIFTH) std::memcpy(&high, raw + BEFORE, 4);
    for (int c = 0; c < 16; c++) {
      out[c] = uint8_t((low[c] & 15) | (high >> c & 1) << 4);
      out[c + 16] = uint8_t(low[c] >> 4 | (high >> (c + 16) & 1) << 4);
    }
  }
  static inline BlockFigures read(const uint8_t* raw) {
    return {half_at(raw), uint16_t(MINIMA ? half_at(raw + 2) : 0), {}, {}};
  }
};

using BlockQ4_0 = BlockOf32<false, false, 8>;
using BlockQ4_1 = BlockOf32<true, false, 0>;
using BlockQ5_0 = BlockOf32<false, true, 16>;
using BlockQ5_1 = BlockOf32<true, true, 0>;

struct BlockQ8_0 : BlockPanel<8, 128, 1, false, false> {
  static constexpr int RAW = 34;
  static inline void levels(const uint8_t* raw, int, uint8_t* out) {
    for (int c = 0; c < GROUP; c++) out[c] = raw[2 + c] ^ 128;
  }
  static inline BlockFigures read(const uint8_t* raw) { return {half_at(raw), 0, {}, {}}; }
};

template <bool FIFTH>
struct BlockOf256 : BlockPanel<FIFTH ? 5 : 4, 0, 8, true, false> {
  static constexpr int RAW = 2 + 2 + 12 + (FIFTH ? 32 : 0) + 128;
  static inline void levels(const uint8_t* raw, int g, uint8_t* out) {
    const uint8_t *low = raw + RAW - 128 + g / 2 * 32, *high = raw + 16;
    for (int c = 0; c < GROUP; c++) {
      out[c] = g % 2 ? low[c] >> 4 : low[c] & 15;
      if (FIFTH) out[c] |= uint8_t((high[c] >> g & 1) << 4);
    }
  }
  static inline BlockFigures read(const uint8_t* raw) {
    BlockFigures out{half_at(raw), uint16_t(half_at(raw + 2) ^ 0x8000), {}, {}};  // minima are taken away
    const uint8_t* six = raw + 4;  // six bits for each scale and minimum
    for (int g = 0; g < 4; g++) {
      out.first[g] = six[g] & 63;
      out.second[g] = six[4 + g] & 63;
      out.first[4 + g] = uint8_t((six[8 + g] & 15) | (six[g] >> 6) << 4);
      out.second[4 + g] = uint8_t(six[8 + g] >> 4 | (six[4 + g] >> 6) << 4);
    }
    return out;
  }
};

struct BlockMXFP4 : BlockPanel<4, 12, 1, false, false, true> {
  static constexpr int RAW = 17;
  static inline void levels(const uint8_t* raw, int, uint8_t* out) {
    for (int c = 0; c < 16; c++) out[c] = raw[1 + c] & 15, out[c + 16] = raw[1 + c] >> 4;
  }
  static inline BlockFigures read(const uint8_t* raw) {  // 2^(exponent - 128), for the numbers are doubled
    const int exponent = raw[0];
    return {uint16_t(exponent > 1 ? (exponent - 1) << 7 : 32 << exponent), 0, {}, {}};
  }
};

using BlockQ4_K = BlockOf256<false>;
using BlockQ5_K = BlockOf256<true>;

struct BlockQ6_K : BlockPanel<6, 32, 8, false, true> {
  static constexpr int RAW = 128 + 64 + 16 + 2;
  static inline void levels(const uint8_t* raw, int g, uint8_t* out) {
    const uint8_t *low = raw + g / 4 * 64 + g % 2 * 32, *high = raw + 128 + g / 4 * 32;
    const int shift = g % 4 * 2;
    for (int c = 0; c < GROUP; c++)
      out[c] = uint8_t((g % 4 < 2 ? low[c] & 15 : low[c] >> 4) | (high[c] >> shift & 3) << 4);
  }
  static inline BlockFigures read(const uint8_t* raw) {
    BlockFigures out{half_at(raw + 208), 0, {}, {}};
    for (int g = 0; g < 8; g++) {
      out.first[g] = raw[192 + 2 * g];
      out.second[g] = raw[193 + 2 * g];
    }
    return out;
  }
};

// Calls f with a format as an argument; returns what it returns, or the default for what is none of a file's formats.
template <class F>
auto with_format(int32_t kind, const F& f) -> decltype(f(BlockQ4_0{})) {
  switch (kind) {
    case Q4_0: return f(BlockQ4_0{});
    case Q4_1: return f(BlockQ4_1{});
    case Q5_0: return f(BlockQ5_0{});
    case Q5_1: return f(BlockQ5_1{});
    case Q8_0: return f(BlockQ8_0{});
    case Q4_K: return f(BlockQ4_K{});
    case Q5_K: return f(BlockQ5_K{});
    case Q6_K: return f(BlockQ6_K{});
    case MXFP4: return f(BlockMXFP4{});
    default: return decltype(f(BlockQ4_0{}))();
  }
}

// out (columns,) of a row as it lies in a file.
template <class B>
inline void raw_row(const uint8_t* raw, int columns, float* out) {
  for (int block = 0; block < columns / (GROUP * B::GROUPS); block++, raw += B::RAW) {
    const BlockFigures figures = B::read(raw);
    const float scale = B::number(figures.scale), minimum = B::number(figures.minimum);
    for (int g = 0; g < B::GROUPS; g++, out += GROUP) {
      uint8_t levels[GROUP];
      B::levels(raw, g, levels);
      for (int c = 0; c < GROUP; c++) {
        float own = scale, less = minimum;
        if constexpr (B::HALVES)
          own *= float(int8_t(c < 16 ? figures.first[g] : figures.second[g]));
        else if constexpr (B::GROUPS > 1)
          own *= float(figures.first[g]), less *= float(figures.second[g]);
        out[c] = float(B::listed(levels[c]) - B::OFFSET) * own + less;
      }
    }
  }
}

template <class F, int... I>
inline __attribute__((always_inline)) void unrolled_constants(std::integer_sequence<int, I...>, const F& f) {
  (f(std::integral_constant<int, I>{}), ...);
}

#if RAPID_WIDE

// total[t] + the products of group g of a block of a panel's rows with T inputs.
template <class B, int T>
inline __attribute__((always_inline)) void group_added(const uint8_t* p, int g, const RoundedGroup* x, __m512 (&total)[T]) {
  constexpr int FOURS = B::HALVES ? GROUP / 8 : GROUP / 4;
  LevelSum<B, FOURS> first[T], second[T];
  for (int t = 0; t < T; t++) {
    if constexpr (B::HALVES) {
      first[t] = start_sum<B, FOURS>(x[t].less_first);
      second[t] = start_sum<B, FOURS>(x[t].less_second);
    } else {
      first[t] = start_sum<B, FOURS>(x[t].less_first + x[t].less_second);
    }
  }
  unrolled_constants(std::make_integer_sequence<int, GROUP / 4>{}, [&](auto i) __attribute__((always_inline)) {
    constexpr int I = decltype(i)::value;
    const __m512i levels = B::template four<I>(p, g);
    for (int t = 0; t < T; t++) {
      int32_t inputs;
      std::memcpy(&inputs, x[t].level + 4 * I, 4);
      auto& sum = B::HALVES && I >= 4 ? second[t] : first[t];
      levels_added<B, FOURS>(sum, I % FOURS, levels, _mm512_set1_epi32(inputs));
    }
  });
  const auto figures = B::figures(p, g);
  for (int t = 0; t < T; t++) {
    const __m512 scale = _mm512_set1_ps(x[t].scale), one = _mm512_cvtepi32_ps(sum_of<B, FOURS>(first[t]));
    if constexpr (B::HALVES) {
      const __m512 other = _mm512_cvtepi32_ps(sum_of<B, FOURS>(second[t]));
      const __m512 both = _mm512_fmadd_ps(other, figures.second, _mm512_mul_ps(one, figures.first));
      total[t] = _mm512_fmadd_ps(both, scale, total[t]);
    } else {
      total[t] = _mm512_fmadd_ps(one, _mm512_mul_ps(figures.first, scale), total[t]);
    }
    if constexpr (B::MINIMA) total[t] = _mm512_fmadd_ps(figures.minimum, _mm512_set1_ps(x[t].sum), total[t]);
  }
}

#else

// out[t * PANEL + row] + the products of group g of a block of a panel's rows with T inputs.
template <class B>
inline void group_added(const uint8_t* p, int g, const RoundedGroup* x, int T, float* out) {
  for (int row = 0; row < PANEL; row++) {
    uint8_t levels[GROUP];
    for (int c = 0; c < GROUP; c++) levels[c] = uint8_t(B::level(p, g, row, c));
    const float scale[2] = {B::scale(p, g, row, 0), B::scale(p, g, row, 16)}, minimum = B::minimum(p, g, row);
    for (int t = 0; t < T; t++) {
      int32_t first = B::OFFSET * x[t].less_first, second = B::OFFSET * x[t].less_second;
      for (int c = 0; c < 16; c++) first += levels[c] * x[t].level[c];
      for (int c = 16; c < GROUP; c++) second += levels[c] * x[t].level[c];
      const float sum = B::HALVES ? float(first) * scale[0] + float(second) * scale[1] : float(first + second) * scale[0];
      out[t * PANEL + row] += sum * x[t].scale + minimum * x[t].sum;
    }
  }
}

#endif

// As `panel_dots`: out[t * PANEL + row] for the rows of a panel and T of `rows` inputs, `x` the first of these.
template <class B, int T>
inline void block_dots(const uint8_t* p, const RoundedGroup* x, int groups, int rows, float* out) {
#if RAPID_WIDE
  __m512 total[T];
  for (int t = 0; t < T; t++) total[t] = _mm512_setzero_ps();
  for (int block = 0; block < groups / B::GROUPS; block++, p += B::BYTES)
    for (int g = 0; g < B::GROUPS; g++, x += rows) {
      constexpr int SHARE = B::BYTES / B::GROUPS;
      for (int line = 0; line < SHARE; line += 64)
        _mm_prefetch((const char*)p + FAR_AHEAD + g * SHARE + line, _MM_HINT_T0);
      group_added<B, T>(p, g, x, total);
    }
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * PANEL, total[t]);
#else
  std::fill(out, out + T * PANEL, 0.0f);
  for (int block = 0; block < groups / B::GROUPS; block++, p += B::BYTES)
    for (int g = 0; g < B::GROUPS; g++, x += rows) group_added<B>(p, g, x, T, out);
#endif
}

template <class Panel>  // and not one of the formats of a file
constexpr bool IS_PLAIN = std::is_same_v<Panel, Int8Panel> || std::is_same_v<Panel, Int4Panel>;

#if RAPID_WIDE

template <class Panel, int T>
inline __attribute__((always_inline)) void any_group_added(const uint8_t* p, int g, const RoundedGroup* x,
                                                           __m512 (&total)[T]) {
  if constexpr (IS_PLAIN<Panel>)
    group_added<Panel, T>(p, x, total);
  else
    group_added<Panel, T>(p, g, x, total);
}

#endif

constexpr int RESTS_TOGETHER = 4;  // inputs that share what is unpacked for what they have left

// The sums of N inputs + what they have left of group g.
template <class Panel, int N, class F>
inline void rests_of_group(const uint8_t* p, int g, const RoundedGroup* rest, const F& sums_of) {
#if RAPID_WIDE
  __m512 total[N];
  for (int n = 0; n < N; n++) total[n] = _mm512_loadu_ps(sums_of(n));
  any_group_added<Panel, N>(p, g, rest, total);
  for (int n = 0; n < N; n++) _mm512_storeu_ps(sums_of(n), total[n]);
#else
  for (int n = 0; n < N; n++)
    if constexpr (IS_PLAIN<Panel>)
      group_added<Panel>(p, rest + n, 1, sums_of(n));
    else
      group_added<Panel>(p, g, rest + n, 1, sums_of(n));
#endif
}

// out[(t - first) * PANEL + row] + what inputs t from `first` to `last` have left in groups that stand out. An input's
// are added behind all of its groups, in their order, so that its bits do not depend on what stands out in others. Of
// the rows' own groups 3% stand out, mostly not in the other rows: only these are multiplied. The panel is still in a
// core's cache.
template <class Panel>
inline void rests_added(const uint8_t* p, const RoundedRows& x, int first, int last, float* out) {
  const Origin* origin = x.origin;
  const Origin* const end = origin + x.rests;
  const RoundedGroup* rest = x.rest;
  while (origin != end) {
    const auto belongs = [&](const Origin* o) { return o != end && o->group == origin->group && o->row < last; };
    int count = origin->row >= first && origin->row < last;
    while (count > 0 && count < RESTS_TOGETHER && belongs(origin + count)) count++;
    const int g = origin->group % Panel::GROUPS;
    const uint8_t* const at = p + size_t(origin->group / Panel::GROUPS) * Panel::BYTES;
    const auto sums_of = [&](int n) { return out + (origin[n].row - first) * PANEL; };
    switch (count) {
      case 0: count = 1; break;  // of another pass
      case 1: rests_of_group<Panel, 1>(at, g, rest, sums_of); break;
      case 2: rests_of_group<Panel, 2>(at, g, rest, sums_of); break;
      case 3: rests_of_group<Panel, 3>(at, g, rest, sums_of); break;
      default: rests_of_group<Panel, RESTS_TOGETHER>(at, g, rest, sums_of); break;
    }
    origin += count, rest += count;
  }
}

}  // namespace
