// Products of weights of eight or four bits, as sums of integers.
//
// 16 rows of such a weight are a panel (`interface.h` has the layouts). A row is a lane of a vector, so that nothing is
// summed across lanes, and the scales of a group's rows are one vector. What enters a product is rounded to eight bits
// first, with a scale for each 32 columns, as llama.cpp does. A processor then multiplies and adds 64 pairs of numbers in
// the time of 32 pairs of bfloat16, and a weight's levels need no conversion. The sum of a group is exact.
//
// What eight bits round off is as large as the largest number of a group. In most inputs a few columns have numbers tens
// of times as large as others, and their groups lose nearly all that is lost. So what is rounded off of groups that stand
// out in their row is rounded to eight bits as well, and multiplied, too.

#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include "interface.h"
#include "numbers.h"

constexpr int GROUP = 32;   // columns that share a scale
constexpr int PANEL = 16;   // rows of a weight that lie together
constexpr int AHEAD = 4096; // bytes of a weight that are asked for before they are needed: bfloat16 and INT8
constexpr int FAR_AHEAD = 6144;  // INT4 and blocks: with one row of Q6_K a quarter faster, of Q4_K a twelfth

struct RoundedGroup {  // 32 columns of one row of input: level * scale
  int8_t level[GROUP];
  float scale;
  float sum;      // of the rounded numbers
  // Sums of the levels of its halves, negative: times OFFSET they are taken away, since weights store their levels above
  // the true ones.
  int32_t less_first, less_second;
};

struct Origin {  // of what a group has left: its number, and its row
  int32_t group, row;
};

// Rows of inputs, as products with panels read them, in space for `rounded_floats`.
struct RoundedRows {
  RoundedGroup* group;  // (groups, rows)
  RoundedGroup* rest;   // what those have left that stand out, by group and then by row
  Origin* origin;       // of each of these
  int rests;
};

namespace {

struct Int8Panel {  // weight = (level - 128) * scale, the scale one of the whole row
  static constexpr int OFFSET = 128, MOST = 255;  // levels are at most MOST
  static constexpr int GROUPS = 1;
  static constexpr int BYTES = PANEL * GROUP;  // of a group
  static constexpr bool SCALED = false;        // each group has scales and zeros of its own
  static constexpr int ASKED = AHEAD;
  static inline int level(const uint8_t* group, int row, int c) { return group[c / 4 * 64 + row * 4 + c % 4]; }
#if RAPID_WIDE
  static inline __m512i four(const uint8_t* group, int c) {  // levels of columns c to c + 3, a row a lane
    return _mm512_loadu_si512(group + 16 * c);
  }
#endif
};

struct Int4Panel {  // weight = (level - 8) * scale + zero
  static constexpr int OFFSET = 8, MOST = 15;
  static constexpr int GROUPS = 1;
  static constexpr int BYTES = PANEL * GROUP / 2 + 2 * PANEL * 2;  // levels, scales, zeros
  static constexpr bool SCALED = true;
  static constexpr int ASKED = FAR_AHEAD;
  static inline int level(const uint8_t* group, int row, int c) {
    const uint8_t both = group[c / 8 * 64 + row * 4 + c % 4];
    return c % 8 < 4 ? both & 15 : both >> 4;
  }
  static inline const bf16* scales(const uint8_t* group) { return (const bf16*)(group + PANEL * GROUP / 2); }
  static inline const bf16* zeros(const uint8_t* group) { return scales(group) + PANEL; }
#if RAPID_WIDE
  static inline __m512i four(const uint8_t* group, int c) {
    const __m512i both = _mm512_loadu_si512(group + c / 8 * 64);
    return _mm512_and_si512(c % 8 ? _mm512_srli_epi16(both, 4) : both, _mm512_set1_epi8(15));
  }
#endif
};

constexpr float INTEGERS = 12582912.0f;  // 1.5 * 2^23, whose neighbours are 1 apart: what is added to it is rounded

// Of 32 numbers in units of `scale`, with INTEGERS added to them, and so rounded to the nearest level, ties to even. Its loops
// write to arrays of their own, since GCC vectorises none that write to `out`, whose bytes might be those of an input.
inline void take_levels(const float (&rounded)[GROUP], float scale, RoundedGroup& out) {
  int32_t levels[GROUP];
  int8_t bytes[GROUP];
  std::memcpy(levels, rounded, sizeof levels);
  for (int i = 0; i < GROUP; i++) levels[i] -= 0x4b400000;  // the bits of INTEGERS
  for (int i = 0; i < GROUP; i++) bytes[i] = int8_t(levels[i]);
  int32_t sums[2] = {};
  for (int i = 0; i < GROUP / 2; i++) sums[0] += levels[i];
  for (int i = GROUP / 2; i < GROUP; i++) sums[1] += levels[i];
  std::memcpy(out.level, bytes, sizeof bytes);
  out.scale = scale;
  out.sum = float(sums[0] + sums[1]) * scale;
  out.less_first = -sums[0];
  out.less_second = -sums[1];
}

// The largest of 32 numbers gets the level 127 or -127.
inline void round_group(const bf16* x, RoundedGroup& out) {
  uint16_t bits = 0;  // without a sign, these are ordered as the numbers are
  for (int i = 0; i < GROUP; i++) bits = std::max<uint16_t>(bits, x[i] & 0x7fff);
  const float largest = to_float(bits);
  if (!(largest > 1e-30f && largest <= std::numeric_limits<float>::max())) {
    // Smaller ones are zero. Infinity and NaN have no levels: their scale makes each product with them NaN.
    const float scale = largest <= 1e-30f ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    out = RoundedGroup{{}, scale, scale, 0, 0};
    return;
  }
  const float factor = 127.0f / largest;
  float rounded[GROUP];
  for (int i = 0; i < GROUP; i++) rounded[i] = to_float(x[i]) * factor + INTEGERS;
  take_levels(rounded, largest / 127.0f, out);
}

// A group stands out if its scale is above so many times the mean of those of its row, whatever rows are beside it. If
// what all groups have left was kept, products would take twice the time, and be little better.
constexpr float STANDS_OUT = 3.0f;

inline float most_of(double scales, int groups) { return float(double(STANDS_OUT) * scales / groups); }

// What `whole` has rounded off of 32 columns, which is at most half of its scale.
inline void round_rest(const bf16* x, const RoundedGroup& whole, RoundedGroup& out) {
  const float factor = 2 * 127 / whole.scale;
  float rounded[GROUP];
  for (int i = 0; i < GROUP; i++) rounded[i] = (to_float(x[i]) - float(whole.level[i]) * whole.scale) * factor + INTEGERS;
  take_levels(rounded, whole.scale / (2 * 127), out);
}

// At most so many groups of so many rows stand out: more than a third of a row's cannot be above three times their mean. The sum of
// scales is a double, so that rounding does not change that.
inline size_t most_rests(size_t rows, size_t columns) { return rows * (columns / GROUP / size_t(STANDS_OUT)); }

inline size_t rounded_floats(size_t rows, size_t columns) {
  static_assert(sizeof(RoundedGroup) % sizeof(float) == 0);
  const size_t all = rows * (columns / GROUP), rests = most_rests(rows, columns);
  return ((all + rests) * sizeof(RoundedGroup) + rests * sizeof(Origin)) / sizeof(float) + rows;
}

// Of rows that lie `stride` apart. A group of all rows lies together, as the products read them.
inline RoundedRows round_groups(const bf16* x, int rows, int columns, size_t stride, float* space) {
  const int groups = columns / GROUP;
  RoundedRows out{(RoundedGroup*)space, nullptr, nullptr, 0};
  out.rest = out.group + size_t(groups) * rows;
  out.origin = (Origin*)(out.rest + most_rests(rows, columns));
  float* const most = (float*)(out.origin + most_rests(rows, columns));  // that a scale of each row may be
  for (int t = 0; t < rows; t++) {
    double scales = 0;
    for (int g = 0; g < groups; g++) {
      RoundedGroup& own = out.group[size_t(g) * rows + t];
      round_group(x + t * stride + g * GROUP, own);
      scales += own.scale;
    }
    most[t] = most_of(scales, groups);
  }
  for (int g = 0; g < groups; g++)
    for (int t = 0; t < rows; t++) {
      const RoundedGroup& own = out.group[size_t(g) * rows + t];
      if (!(own.scale > most[t])) continue;  // nor does one of a row with NaN
      round_rest(x + t * stride + g * GROUP, own, out.rest[out.rests]);
      out.origin[out.rests++] = {g, t};
    }
  return out;
}

#if RAPID_WIDE

// What `start_sum`, `levels_added` and `sum_of` make of a group: sums of products of levels with inputs, a row a lane.
// FOURS: how many times four columns are added.
#if RAPID_AVX2 && !RAPID_VNNI

// AVX2 adds products of two neighbouring bytes up in 16 bits, of which several fit.
template <class Panel, int FOURS>
struct LevelSum {
  static constexpr int FITTING = 32767 / (2 * 127 * Panel::MOST);
  __m512i sum, pairs;
};

template <class Panel, int FOURS>
inline LevelSum<Panel, FOURS> start_sum(int32_t less) {
  return {_mm512_set1_epi32(Panel::MOST < 255 ? Panel::OFFSET * less : 0), _mm512_setzero_si512()};
}

// `i` is the number of these four columns. Levels of eight bits become signed ones, which have no OFFSET: the amount of one
// with the input that has its sign.
template <class Panel, int FOURS>
inline __attribute__((always_inline)) void levels_added(LevelSum<Panel, FOURS>& sums, int i, __m512i levels, __m512i inputs) {
  constexpr int FITTING = std::max(1, LevelSum<Panel, FOURS>::FITTING);
  const auto half_added = [&](int half) __attribute__((always_inline)) {
    __m256i products;
    if constexpr (Panel::MOST < 255) {
      products = _mm256_maddubs_epi16(levels.v[half], inputs.v[half]);
    } else {
      const __m256i with_sign = _mm256_xor_si256(levels.v[half], _mm256_set1_epi8(-128));
      products = _mm256_maddubs_epi16(_mm256_abs_epi8(with_sign), _mm256_sign_epi8(inputs.v[half], with_sign));
    }
    __m256i pairs = i % FITTING == 0 ? products : _mm256_add_epi16(sums.pairs.v[half], products);
    if constexpr (FITTING >= FOURS) asm("" : "+x"(pairs));  // GCC would keep all products, and sum them at the end
    sums.pairs.v[half] = pairs;
    if (i % FITTING == FITTING - 1 || i == FOURS - 1)
      sums.sum.v[half] = _mm256_add_epi32(sums.sum.v[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  };
  half_added(0);
  half_added(1);
}

template <class Panel, int FOURS>
inline __m512i sum_of(const LevelSum<Panel, FOURS>& sums) {
  return sums.sum;
}

#else

template <class, int>
using LevelSum = __m512i;

template <class Panel, int>
inline __m512i start_sum(int32_t less) {
  if constexpr (Panel::OFFSET == 32)  // of Q6_K: 3 to 15% faster than a product before the broadcast
    return _mm512_slli_epi32(_mm512_set1_epi32(less), 5);
  return _mm512_set1_epi32(Panel::OFFSET * less);
}

// NEON's product of signed bytes is there on more processors than the one of unsigned bytes with signed ones; levels of
// fewer than eight bits are the same as either.
template <class Panel, int>
inline void levels_added(__m512i& sum, int, __m512i levels, __m512i inputs) {
#if !RAPID_AVX512 && !RAPID_AVX2
  if constexpr (Panel::MOST < 128) {
    sum = signed_bytes_added(sum, levels, inputs);
    return;
  }
#endif
  sum = _mm512_dpbusd_epi32(sum, levels, inputs);
}

template <class, int>
inline __m512i sum_of(__m512i sum) {
  return sum;
}

#endif

#endif

template <class F, int... I>  // f(0), f(1), ... without a loop, which GCC keeps where its body is long
inline __attribute__((always_inline)) void unrolled(std::integer_sequence<int, I...>, const F& f) {
  (f(I), ...);
}

#if RAPID_WIDE

// total[t] + the products of a group of a panel's rows with T inputs.
template <class Panel, int T>
inline __attribute__((always_inline)) void group_added(const uint8_t* p, const RoundedGroup* x, __m512 (&total)[T]) {
  constexpr int FOURS = GROUP / 4;
  LevelSum<Panel, FOURS> sum[T];
  for (int t = 0; t < T; t++) sum[t] = start_sum<Panel, FOURS>(x[t].less_first + x[t].less_second);
  unrolled(std::make_integer_sequence<int, FOURS>{}, [&](int i) __attribute__((always_inline)) {
    const __m512i levels = Panel::four(p, 4 * i);
    for (int t = 0; t < T; t++) {
      int32_t inputs;
      std::memcpy(&inputs, x[t].level + 4 * i, 4);
      levels_added<Panel, FOURS>(sum[t], i, levels, _mm512_set1_epi32(inputs));
    }
  });
  auto total_of = [&](int t) { return _mm512_cvtepi32_ps(sum_of<Panel, FOURS>(sum[t])); };
  if constexpr (Panel::SCALED) {
    const __m512 scale = widen(load_256(Panel::scales(p))), zero = widen(load_256(Panel::zeros(p)));
    for (int t = 0; t < T; t++) {
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x[t].scale));
      total[t] = _mm512_fmadd_ps(total_of(t), both, total[t]);
      total[t] = _mm512_fmadd_ps(zero, _mm512_set1_ps(x[t].sum), total[t]);
    }
  } else {
    for (int t = 0; t < T; t++)
      total[t] = _mm512_fmadd_ps(total_of(t), _mm512_set1_ps(x[t].scale), total[t]);
  }
}

#endif

#if !RAPID_WIDE

// out[t * PANEL + row] + the products of a group of a panel's rows with T inputs.
template <class Panel>
inline void group_added(const uint8_t* p, const RoundedGroup* x, int T, float* out) {
  for (int row = 0; row < PANEL; row++) {
    uint8_t levels[GROUP];
    for (int c = 0; c < GROUP; c++) levels[c] = uint8_t(Panel::level(p, row, c));
    for (int t = 0; t < T; t++) {
      int32_t sum = Panel::OFFSET * (x[t].less_first + x[t].less_second);
      for (int c = 0; c < GROUP; c++) sum += levels[c] * x[t].level[c];
      float scale = x[t].scale, more = 0.0f;
      if constexpr (Panel::SCALED) {
        scale *= to_float(Panel::scales(p)[row]);
        more = to_float(Panel::zeros(p)[row]) * x[t].sum;
      }
      out[t * PANEL + row] += float(sum) * scale + more;
    }
  }
}

#endif

// out[t * PANEL + row] for the rows of a panel and T of `rows` inputs, `x` the first of these. A weight is unpacked once
// for T inputs. The sums of an input run in the same order whatever T is.
template <class Panel, int T>
inline void panel_dots(const uint8_t* p, const RoundedGroup* x, int groups, int rows, float* out) {
#if RAPID_WIDE
  __m512 total[T];
  for (int t = 0; t < T; t++) total[t] = _mm512_setzero_ps();
  for (int g = 0; g < groups; g++, p += Panel::BYTES, x += rows) {
    for (int line = 0; line < Panel::BYTES; line += 64) _mm_prefetch((const char*)p + Panel::ASKED + line, _MM_HINT_T0);
    group_added<Panel, T>(p, x, total);
  }
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * PANEL, total[t]);
#else
  std::fill(out, out + T * PANEL, 0.0f);
  for (int g = 0; g < groups; g++, p += Panel::BYTES, x += rows) group_added<Panel>(p, x, T, out);
#endif
}

}  // namespace
