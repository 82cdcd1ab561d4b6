// Four-bit weights as numbers again, for the products of a prefill, which are formed with whole matrices.

#include <cstdint>

#include "attention.h"
#include "numbers.h"
#include "product.h"
#include "threads.h"

namespace {

#if RAPID_AVX512

void unpack(const uint8_t* group, size_t stride, bf16* out) {  // 16 rows, `stride` apart, of 32 columns
  const __m512i levels = _mm512_load_si512(LEVELS);
  const __m512 scale = widen(_mm256_loadu_si256((const __m256i*)(group + 256)));
  const __m512 zero = widen(_mm256_loadu_si256((const __m256i*)(group + 288)));
  auto rounded = [&](__m512i bits) {  // a level as float, a row a lane
    const __m512 weight = _mm512_fmadd_ps(_mm512_castsi512_ps(bits), scale, zero);
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(weight));
  };
  __m512i r[16];
  for (int pair = 0; pair < 16; pair++) {
    const __m512i packed = _mm512_loadu_si512(group + pair / 4 * 64);
    const __m512i both = _mm512_permutexvar_epi16(_mm512_srl_epi16(packed, _mm_cvtsi32_si128(pair % 4 * 4)), levels);
    const __m512i even = rounded(_mm512_slli_epi32(both, 16));
    const __m512i odd = rounded(_mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000))));
    r[pair] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
  }
  transpose16(r);
  for (int row = 0; row < PANEL; row++) _mm512_storeu_si512(out + row * stride, r[row]);
}

#else

void unpack(const uint8_t* group, size_t stride, bf16* out) {
  const bf16 *scale = (const bf16*)(group + 256), *zero = (const bf16*)(group + 288);
  for (int row = 0; row < PANEL; row++)
    for (int c = 0; c < GROUP; c++)
      out[row * stride + c] = to_bf16(panel_level(group, row, c) * to_float(scale[row]) + to_float(zero[row]));
}

#endif

}  // namespace

// out (rows, columns) bf16, rows in order; `data` as in a Matrix of kind INT4.
extern "C" void rapid_unpack(const void* data, int32_t rows, int32_t columns, int32_t threads, void* out) {
  const int groups = columns / GROUP;
  for_each(threads, rows / PANEL, [&](int64_t panel) {
    for (int g = 0; g < groups; g++)
      unpack((const uint8_t*)data + (size_t(panel) * groups + g) * PANEL_BYTES, columns,
             (bf16*)out + size_t(panel) * PANEL * columns + g * GROUP);
  });
}
