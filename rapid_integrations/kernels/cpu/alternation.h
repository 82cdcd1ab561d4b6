// Alternating updates (AltUp, Baykal et al. 2023, "Alternating Updates for Efficient Transformers"): of several streams of
// states a layer guesses all, computes the active one from its guess, and corrects all guesses by what that gave. And gates
// of which a share becomes 0, which the same models have (Gemma 3n). `alternating.py` has the same as operators.
//
// Streams are float32 in steps and bfloat16 in prompts. A row is computed by itself, in one order of operations.

#pragma once

#include <algorithm>
#include <cmath>

#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"

namespace {

constexpr int MAX_STREAMS = 8;
constexpr float LEAST_SQUARE = 1e-5f;  // of a stream's mean square

inline float wide(float x) { return x; }
inline float wide(bf16 x) { return to_float(x); }
inline void put(float x, float* to) { *to = x; }
inline void put(float x, bf16* to) { *to = to_bf16(x); }

inline float mean_square(const float* x, int n) {
  float squares[16] = {}, total = 0;
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
  for (; i < n; i++) total += x[i] * x[i];
  for (int j = 0; j < 16; j++) total += squares[j];
  return total / n;
}

// What a row x (n,) is multiplied with to get the mean square of the row `like`.
inline float as_large(const float* x, const float* like, int n) {
  return std::sqrt(mean_square(like, n)) / std::sqrt(std::max(mean_square(x, n), LEAST_SQUARE));
}

// What of a gate (n,) is below it becomes 0: a quantile of a normal distribution with the gate's mean and deviation.
inline float cutoff(const float* gate, int n, float quantile) {
  const Norm centred{LAYER_NORM, EVERY_HEAD, 0, 0, nullptr, nullptr};
  const Spread of = spread(centred, gate, n);
  return of.mean + quantile / of.factor;
}

inline float above(float gate, float cut) {
  const float x = gate - cut;
  return x < 0 ? 0.0f : x;  // no number stays none
}

// out (streams,) = what the router says of a row x (E,); `room` is for as many numbers.
inline void modalities(const Alternation& a, const float* x, int E, bf16* room, float* out) {
  const int n = a.router.rows;
  normalise(a.norm, x, E, room);
  product(a.router, 0, n, {room, {}, E, size_t(E)}, 1, {out, size_t(n), 0});
  for (int i = 0; i < n; i++) out[i] = std::tanh(out[i] * a.scale);
}

inline float row_times(const bf16* row, const float* x, int n) {
  float sum = 0;
  for (int i = 0; i < n; i++) sum += to_float(row[i]) * x[i];
  return sum;
}

// The numbers of a row's streams (E,) become what a layer guesses of them. `active` (E,) are those of the active one, and
// become its guess; `from` and `to` may be the same.
template <class N>
OUT_OF_LINE void predict(const Alternation& a, int which, const N* const* from, N* const* to, float* active, int E, bf16* room) {
  const int n = a.router.rows;
  float said[MAX_STREAMS], factors[MAX_STREAMS][MAX_STREAMS];
  modalities(a, active, E, room, said);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      factors[i][j] = row_times((const bf16*)a.prediction + (i * n + j) * n, said, n) + (i == j ? 1.0f : 0.0f);
  constexpr int BLOCK = 32;
  for (int start = 0; start < E; start += BLOCK) {
    float x[MAX_STREAMS][BLOCK];
    for (int j = 0; j < n; j++)
      for (int e = 0; e < BLOCK; e++) x[j][e] = wide(from[j][start + e]);
    for (int i = 0; i < n; i++) {
      float y[BLOCK] = {};
      for (int j = 0; j < n; j++)
        for (int e = 0; e < BLOCK; e++) y[e] += factors[i][j] * x[j][e];
      for (int e = 0; e < BLOCK; e++) put(y[e], to[i] + start + e);
    }
  }
  for (int e = 0; e < E; e++) active[e] = wide(to[which][e]);
}

// The guesses of a row's streams are corrected by what the layer computed of the active one, x (E,), which becomes what the
// layer's own input meets: the active stream with its factors. `from` and `to` may be the same.
template <class N>
OUT_OF_LINE void correct(const Alternation& a, int which, const N* const* from, N* const* to, float* x, int E, bf16* room) {
  const int n = a.router.rows;
  float said[MAX_STREAMS], factors[MAX_STREAMS];
  modalities(a, x, E, room, said);
  for (int i = 0; i < n; i++) factors[i] = row_times((const bf16*)a.correction + i * n, said, n) + 1.0f;
  const N* const guess = from[which];
  for (int e = 0; e < E; e++) x[e] -= wide(guess[e]);
  for (int i = 0; i < n; i++)
    for (int e = 0; e < E; e++) put(wide(from[i][e]) + x[e] * factors[i], to[i] + e);
  for (int e = 0; e < E; e++) x[e] = wide(to[which][e]);
  if (const bf16* output = (const bf16*)a.output)
    for (int e = 0; e < E; e++) x[e] *= to_float(output[e]);
}

}  // namespace
