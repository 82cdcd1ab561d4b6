// Products of weights of eight or four bits, as sums of integers.
//
// 16 rows of such a weight are a panel (`interface.h` has the layouts). A row is a lane of a vector, so that nothing is
// summed across lanes, and the scales of a group's rows are one vector. What enters a product is rounded to eight bits
// first, with a scale for each 32 columns, as llama.cpp does. A processor then multiplies and adds 64 pairs of numbers in
// the time of 32 pairs of bfloat16, and a weight's levels need no conversion. The sum of a group is exact.

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

namespace {

struct Int8Panel {  // weight = (level - 128) * scale, the scale one of the whole row
  static constexpr int OFFSET = 128;
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
  static constexpr int OFFSET = 8;
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

// The largest of 32 numbers gets the level 127 or -127; the others are rounded to the nearest level, ties to even. Its
// loops write to arrays of their own, since GCC vectorises none that write to `out`, whose bytes might be those of `x`.
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
  constexpr float whole = 12582912.0f;  // 1.5 * 2^23, whose neighbours are 1 apart: what is added to it is rounded
  float rounded[GROUP];
  int32_t levels[GROUP];
  int8_t bytes[GROUP];
  for (int i = 0; i < GROUP; i++) rounded[i] = to_float(x[i]) * factor + whole;
  std::memcpy(levels, rounded, sizeof levels);
  for (int i = 0; i < GROUP; i++) levels[i] -= 0x4b400000;  // the bits of `whole`
  for (int i = 0; i < GROUP; i++) bytes[i] = int8_t(levels[i]);
  int32_t sums[2] = {};
  for (int i = 0; i < GROUP / 2; i++) sums[0] += levels[i];
  for (int i = GROUP / 2; i < GROUP; i++) sums[1] += levels[i];
  std::memcpy(out.level, bytes, sizeof bytes);
  out.scale = largest / 127.0f;
  out.sum = float(sums[0] + sums[1]) * out.scale;
  out.less_first = -sums[0];
  out.less_second = -sums[1];
}

// out[g * rows + t] of rows that lie `stride` apart: a group of all rows lies together, as the products read them.
inline void round_groups(const bf16* x, int rows, int columns, size_t stride, RoundedGroup* out) {
  for (int g = 0; g < columns / GROUP; g++)
    for (int t = 0; t < rows; t++) round_group(x + t * stride + g * GROUP, *out++);
}

#if RAPID_WIDE
// sum + products of four levels a lane with four inputs. NEON's product of signed bytes is there on more processors than
// the one of unsigned bytes with signed ones; levels of fewer than eight bits are the same as either.
template <class Panel>
inline __m512i levels_added(__m512i sum, __m512i levels, __m512i inputs) {
#if !RAPID_AVX512
  if constexpr (Panel::OFFSET < 128) return signed_bytes_added(sum, levels, inputs);
#endif
  return _mm512_dpbusd_epi32(sum, levels, inputs);
}
#endif

template <class F, int... I>  // f(0), f(1), ... without a loop, which GCC keeps where its body is long
inline void unrolled(std::integer_sequence<int, I...>, const F& f) {
  (f(I), ...);
}

// out[t * PANEL + row] for the rows of a panel and T of `rows` inputs, `x` the first of these. A weight is unpacked once
// for T inputs. The sums of an input run in the same order whatever T is.
template <class Panel, int T>
inline void panel_dots(const uint8_t* p, const RoundedGroup* x, int groups, int rows, float* out) {
#if RAPID_WIDE
  __m512 total[T];
  for (int t = 0; t < T; t++) total[t] = _mm512_setzero_ps();
  for (int g = 0; g < groups; g++, p += Panel::BYTES, x += rows) {
    for (int line = 0; line < Panel::BYTES; line += 64) _mm_prefetch((const char*)p + Panel::ASKED + line, _MM_HINT_T0);
    __m512i sum[T];
    for (int t = 0; t < T; t++) sum[t] = _mm512_set1_epi32(Panel::OFFSET * (x[t].less_first + x[t].less_second));
    unrolled(std::make_integer_sequence<int, GROUP / 4>{}, [&](int i) __attribute__((always_inline)) {
      const __m512i levels = Panel::four(p, 4 * i);
      for (int t = 0; t < T; t++) {
        int32_t inputs;
        std::memcpy(&inputs, x[t].level + 4 * i, 4);
        sum[t] = levels_added<Panel>(sum[t], levels, _mm512_set1_epi32(inputs));
      }
    });
    if constexpr (Panel::SCALED) {
      const __m512 scale = widen(load_256(Panel::scales(p))), zero = widen(load_256(Panel::zeros(p)));
      for (int t = 0; t < T; t++) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x[t].scale));
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), both, total[t]);
        total[t] = _mm512_fmadd_ps(zero, _mm512_set1_ps(x[t].sum), total[t]);
      }
    } else {
      for (int t = 0; t < T; t++)
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), _mm512_set1_ps(x[t].scale), total[t]);
    }
  }
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * PANEL, total[t]);
#else
  std::fill(out, out + T * PANEL, 0.0f);
  for (int g = 0; g < groups; g++, p += Panel::BYTES, x += rows)
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
#endif
}

}  // namespace
