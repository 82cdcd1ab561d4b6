// Weights in panels as numbers again, for the products of a prefill, which are formed with whole matrices.

#include <cstdint>

#include "attention.h"
#include "numbers.h"
#include "panels.h"
#include "threads.h"

namespace {

#if RAPID_WIDE

template <class Panel>
void unpack(const uint8_t* group, bf16* out, size_t stride) {  // 16 rows, `stride` apart, of 32 columns
  const __m512 offset = _mm512_set1_ps(Panel::OFFSET);
  auto rounded = [&](__m512i four, int byte) {  // one column as bfloat16, a row a lane
    const __m512i level = _mm512_and_si512(_mm512_srl_epi32(four, _mm_cvtsi32_si128(8 * byte)), _mm512_set1_epi32(255));
    __m512 weight = _mm512_sub_ps(_mm512_cvtepi32_ps(level), offset);
    if constexpr (Panel::SCALED)
      weight = _mm512_fmadd_ps(weight, widen(load_256(Panel::scales(group))), widen(load_256(Panel::zeros(group))));
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(weight));
  };
  __m512i r[16];  // pairs of columns
  for (int pair = 0; pair < 16; pair++) {
    const __m512i four = Panel::four(group, pair / 2 * 4);
    const __m512i even = rounded(four, pair % 2 * 2), odd = rounded(four, pair % 2 * 2 + 1);
    r[pair] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
  }
  transpose16(r);
  for (int row = 0; row < PANEL; row++) _mm512_storeu_si512(out + row * stride, r[row]);
}

#else

template <class Panel>
void unpack(const uint8_t* group, bf16* out, size_t stride) {
  for (int row = 0; row < PANEL; row++)
    for (int c = 0; c < GROUP; c++) {
      float weight = float(Panel::level(group, row, c) - Panel::OFFSET);
      if constexpr (Panel::SCALED)
        weight = weight * to_float(Panel::scales(group)[row]) + to_float(Panel::zeros(group)[row]);
      out[row * stride + c] = to_bf16(weight);
    }
}

#endif

template <class Panel>
void unpack_all(const uint8_t* data, int rows, int columns, int threads, bf16* out) {
  const int groups = columns / GROUP;
  for_each(threads, rows / PANEL, [&](int64_t panel) {
    for (int g = 0; g < groups; g++)
      unpack<Panel>(data + (size_t(panel) * groups + g) * Panel::BYTES,
                    out + size_t(panel) * PANEL * columns + g * GROUP, columns);
  });
}

}  // namespace

// out (rows, columns) bf16, rows in order, a multiple of 16 of them; `kind` and `data` as in a Matrix. Of INT8 it is the
// levels alone, each less 128: their scales are for the whole row, and apply to a product.
extern "C" void rapid_unpack(int32_t kind, const void* data, int32_t rows, int32_t columns, int32_t threads, void* out) {
  const auto unpack_kind = kind == INT4 ? unpack_all<Int4Panel> : unpack_all<Int8Panel>;
  unpack_kind((const uint8_t*)data, rows, columns, threads, (bf16*)out);
}
