// AVX-512: the compiler's own names, and for processors without instructions for bfloat16 (Ice Lake, Cascade Lake, Tiger
// Lake) what these compute.
//
// As in `avx2.h`, what is declared within the unnamed namespace comes before what the compiler's header declares.

#pragma once

#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns of its own header: https://gcc.gnu.org/PR105593
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <cstdint>

#ifndef __AVX512BF16__

namespace {

using __m512bh = __m512i;

// To the nearest, ties to even, in the lower halves of the lanes.
inline __m512i lower_as_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i no_number = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_srli_epi32(_mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), no_number), 16);
}
inline __m256i _mm512_cvtneps_pbh(__m512 x) { return _mm512_cvtepi32_epi16(lower_as_bf16(x)); }
inline __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtneps_pbh(low)), _mm512_cvtneps_pbh(high), 1);
}

// sum + products of pairs. The odd numbers come first and each product is added without rounding it before, as by the
// instruction.
inline __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const auto odd = [](__m512i x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(int32_t(0xffff0000u))));
  };
  const auto even = [](__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); };
  return _mm512_fmadd_ps(even(a), even(b), _mm512_fmadd_ps(odd(a), odd(b), sum));
}

}  // namespace

#endif
