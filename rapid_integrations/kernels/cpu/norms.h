// What is done to rows of numbers between products: norms, rotations, activations.

#pragma once

#include <algorithm>
#include <cmath>

#include "interface.h"
#include "numbers.h"

namespace {

// Called from many places of a step, whose code a processor would otherwise not hold: 8% of a step of SmolLM2.
#if defined(__GNUC__) || defined(__clang__)
#define NOT_INLINED __attribute__((noinline))
#else
#define NOT_INLINED
#endif
#define OUT_OF_LINE NOT_INLINED inline

constexpr int WIDEST = 32768;  // numbers of a row: they lie on a thread's stack

inline float weight_of(const Norm& norm, int i) {
  return norm.weight ? to_float(((const bf16*)norm.weight)[i]) + norm.offset : 1.0f;
}

inline float bias_of(const Norm& norm, int i) { return norm.bias ? to_float(((const bf16*)norm.bias)[i]) : 0.0f; }

struct Spread {  // of a row: what is taken away from its numbers, and what they are then multiplied with
  float mean, factor;
};

inline Spread spread(const Norm& norm, const float* x, int n) {
  if (norm.kind == NO_NORM) return {0.0f, 1.0f};
  float mean = 0;
  if (norm.kind == LAYER_NORM) {
    float lanes[16] = {};
    int i = 0;
    for (; i + 16 <= n; i += 16)
      for (int j = 0; j < 16; j++) lanes[j] += x[i + j];
    for (; i < n; i++) mean += x[i];
    for (int j = 0; j < 16; j++) mean += lanes[j];
    mean /= n;
  }
  float squares[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) squares[j] += (x[i + j] - mean) * (x[i + j] - mean);
  float total = 0;
  for (; i < n; i++) total += (x[i] - mean) * (x[i] - mean);
  for (int j = 0; j < 16; j++) total += squares[j];
  return {mean, 1.0f / std::sqrt(total / n + norm.eps)};
}

OUT_OF_LINE void normalise(const Norm& norm, const float* x, int n, bf16* out) {
  const Spread s = spread(norm, x, n);
  const bf16 *weight = (const bf16*)norm.weight, *bias = (const bf16*)norm.bias;
  if (weight && !bias && norm.kind == RMS_NORM && norm.offset == 0) {  // what most models have
    for (int i = 0; i < n; i++) out[i] = to_bf16(x[i] * s.factor * to_float(weight[i]));
    return;
  }
  for (int i = 0; i < n; i++)
    out[i] = to_bf16((x[i] - s.mean) * s.factor * weight_of(norm, i) + bias_of(norm, i));
}

// x (D,), one of `heads` heads of one token's queries or keys, whose numbers all lie in `all`.
inline void normalise_head(const Norm& norm, const float* all, int heads, int head, int D, float* x) {
  const int first = norm.scope == EVERY_HEAD ? 0 : head * D;
  Spread s{0.0f, 1.0f};
  if (norm.scope == ALL_HEADS) {
    s = spread(norm, all, heads * D);
  } else if (norm.kind == RMS_NORM) {
    float squares = 0;
    for (int d = 0; d < D; d++) squares += x[d] * x[d];
    s.factor = 1.0f / std::sqrt(squares / D + norm.eps);
  } else {
    s = spread(norm, x, D);
  }
  for (int d = 0; d < D; d++)
    x[d] = (x[d] - s.mean) * (s.factor * weight_of(norm, first + d)) + bias_of(norm, first + d);
}

// out (D,) = a head's numbers, normalised and rotated; `cos` and `sin` are the token's rows of the tables.
OUT_OF_LINE void turn(const Norm& norm, const Rope& rope, const float* all, int heads, int head, const float* cos,
                 const float* sin, int D, bf16* out) {
  float x[512];
  std::copy(all + size_t(head) * D, all + size_t(head + 1) * D, x);
  if (norm.kind != NO_NORM && !rope.norm_behind) normalise_head(norm, all, heads, head, D, x);
  cos += rope.first, sin += rope.first;
  const int apart = rope.interleaved ? 1 : rope.pairs, step = rope.interleaved ? 2 : 1;
  for (int p = 0; p < rope.pairs; p++) {
    const float a = x[p * step], b = x[p * step + apart];
    x[p * step] = a * cos[p] - b * sin[p];
    x[p * step + apart] = b * cos[p] + a * sin[p];
  }
  if (norm.kind != NO_NORM && rope.norm_behind) normalise_head(norm, all, heads, head, D, x);
  for (int d = 0; d < D; d++) out[d] = to_bf16(x[d]);
}

constexpr float CLIP = 7.0f, STEEPNESS = 1.702f;  // of GPT-OSS

// out = activation(gate) * up, or activation(gate) if `up` is null.
inline float activated(const Act& activation, float gate, const float* up) {
  const float x = gate, times = up ? *up : 1.0f;
  switch (activation.kind) {
    case GELU_TANH: {
      const float inner = 1.5957691216f * (x + 0.044715f * x * x * x);  // twice that of the tanh
      return x / (1.0f + std::exp(-inner)) * times;
    }
    case GELU: return 0.5f * x * (1.0f + std::erf(x * 0.70710678f)) * times;
    case RELU_SQUARED: {
      const float positive = x < 0 ? 0.0f : x;
      return positive * positive * times;
    }
    case RELU: return (x < 0 ? 0.0f : x) * times;
    case CLIPPED_SWIGLU: {
      const float clipped = std::min(x, CLIP), more = std::max(std::min(times, CLIP), -CLIP) + 1.0f;
      return clipped / (1.0f + std::exp(-STEEPNESS * clipped)) * more;
    }
    case XIELU: {
      const float line = activation.slope * x;
      if (x > 0) return (activation.positive * x * x + line) * times;
      return (activation.negative * (std::expm1(std::min(x, activation.least)) - x) + line) * times;
    }
    default: return x / (1.0f + std::exp(-x)) * times;
  }
}

#if RAPID_WIDE
inline __m512 sigmoid512(__m512 x) {  // by exp(-|x|), which is what exp512 computes
  const __m512 one = _mm512_set1_ps(1.0f), e = exp512(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
  const __m512 top = _mm512_mask_mov_ps(one, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), e);
  return _mm512_div_ps(top, _mm512_add_ps(one, e));
}

inline __m512 gelu_tanh512(__m512 x) {
  const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(x, _mm512_set1_ps(0.044715f)));
  return _mm512_mul_ps(x, sigmoid512(_mm512_mul_ps(_mm512_set1_ps(1.5957691216f), _mm512_add_ps(x, cube))));
}

inline __m512 xielu512(const Act& a, __m512 x) {
  const __m512 least = _mm512_set1_ps(a.least), line = _mm512_mul_ps(_mm512_set1_ps(a.slope), x);
  const __m512 above = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(a.positive), x), x, line);
  const __m512 low = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, least, _CMP_GT_OQ), least);
  const __m512 bent = _mm512_sub_ps(_mm512_sub_ps(exp512(low), _mm512_set1_ps(1.0f)), x);
  const __m512 below = _mm512_fmadd_ps(_mm512_set1_ps(a.negative), bent, line);
  return _mm512_mask_mov_ps(below, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), above);
}
#endif

OUT_OF_LINE void activate(const Act& activation, const float* gate, const float* up, int n, bf16* out) {
  int i = 0;
#if RAPID_WIDE
  const int32_t kind = activation.kind;
  if (kind == SILU || kind == GELU_TANH || kind == XIELU)
    for (; i + 16 <= n; i += 16) {
      const __m512 x = _mm512_loadu_ps(gate + i);
      __m512 y = kind == SILU ? silu512(x) : kind == XIELU ? xielu512(activation, x) : gelu_tanh512(x);
      if (up) y = _mm512_mul_ps(y, _mm512_loadu_ps(up + i));
      _mm256_storeu_si256((__m256i*)(out + i), (__m256i)_mm512_cvtneps_pbh(y));
    }
#endif
  for (; i < n; i++) out[i] = to_bf16(activated(activation, gate[i], up ? up + i : nullptr));
}

// The factor on queries at a position; see `Layer`.
inline float growth_of(const Layer& layer, int64_t position) {
  if (!layer.growth_every) return 1.0f;
  const float many = float((position + layer.growth_ahead) / layer.growth_every);
  return 1.0f + layer.growth_scale * std::log1p(many);
}

// x = what a head gives, (D,), times its gates, of which `gate` has those of all heads.
OUT_OF_LINE void gate_head(const Layer& layer, const float* gate, int head, int D, float* x) {
  const int each = layer.output_gates;  // one for all numbers, or one for each
  gate += size_t(head) * each;
  for (int d = 0; d < D; d++) {
    const float g = gate[each == 1 ? 0 : d];
    if (layer.softplus_gates)
      x[d] *= g > 20.0f ? g : std::log1p(std::exp(g));
    else
      x[d] /= 1.0f + std::exp(-g);
  }
}

}  // namespace
