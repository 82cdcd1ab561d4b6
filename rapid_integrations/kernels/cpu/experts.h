// Which experts the rows of a step take, and with what weights.
//
// Experts are read one after another, each once for all rows that take it. A row adds up what its own experts give in the
// order of their numbers, so that its bits do not depend on what other rows take.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "interface.h"

namespace {

constexpr int MOST_EXPERTS = 1024;

inline int experts_of(const Experts& e) { return e.count + (e.shared ? 1 : 0); }

inline int pairs_of_row(const Experts& e) { return e.taken + (e.shared ? 1 : 0); }

// Floats of a row's scores (the gate of a shared expert behind them), weights, and the numbers of its experts.
inline size_t routed_floats(const Experts& e) { return size_t(e.count) + 1 + 2 * size_t(pairs_of_row(e)); }

struct Routed {  // rows whose routes all threads see
  const Experts& e;
  float* base;

  float* scores(int t) const { return base + size_t(t) * routed_floats(e); }
  float* weights(int t) const { return scores(t) + e.count + 1; }
  int32_t* taken(int t) const { return (int32_t*)(weights(t) + pairs_of_row(e)); }
};

// Leaves only the experts of the groups whose best scores have the largest sums.
inline void keep_groups(const Experts& e, float* choice) {
  const int size = e.count / e.groups;
  float best[MOST_EXPERTS];
  for (int g = 0; g < e.groups; g++) {
    float first = -std::numeric_limits<float>::infinity(), second = first;
    for (int i = g * size; i < (g + 1) * size; i++)
      if (choice[i] > first)
        second = first, first = choice[i];
      else
        second = std::max(second, choice[i]);
    best[g] = size > 1 && e.group_best > 1 ? first + second : first;
  }
  bool kept[MOST_EXPERTS] = {};
  for (int n = 0; n < e.groups_taken; n++) {
    int top = -1;
    for (int g = 0; g < e.groups; g++)
      if (!kept[g] && (top < 0 || best[g] > best[top])) top = g;
    kept[top] = true;
  }
  for (int i = 0; i < size * e.groups; i++)
    if (!kept[i / size]) choice[i] = -std::numeric_limits<float>::infinity();
}

// Experts one after another (SparseMixer, arXiv 2409.12136): the weight of each is its softmax among the scores of those that
// are left and near the best. What is taken is in the order of the numbers.
inline void route_sparsely(const Experts& e, const float* scores, float* weights, int32_t* taken) {
  bool used[MOST_EXPERTS] = {};
  float of[MOST_EXPERTS];
  for (int n = 0; n < e.taken; n++) {
    int best = -1;
    for (int i = 0; i < e.count; i++)
      if (!used[i] && (best < 0 || scores[i] > scores[best])) best = i;
    float all = 0;
    for (int i = 0; i < e.count; i++)
      if (!used[i] && !((scores[best] - scores[i]) / std::max(std::abs(scores[i]), scores[best]) > e.near))
        all += std::exp(scores[i] - scores[best]);
    used[best] = true, of[best] = 1.0f / all;
  }
  for (int i = 0, n = 0; i < e.count; i++)
    if (used[i]) taken[n] = i, weights[n++] = of[i] * e.scale;
}

// From a row's scores, (count,) and the shared expert's, which are overwritten.
inline void route(const Experts& e, float* scores, float* weights, int32_t* taken) {
  if (e.routing == SPARSE_MIXER) return route_sparsely(e, scores, weights, taken);
  float choice[MOST_EXPERTS], all = 0;
  float top = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < e.count; i++) scores[i] *= e.logit_scale;
  for (int i = 0; e.logit_softcap != 0 && i < e.count; i++) scores[i] = e.logit_softcap * std::tanh(scores[i] / e.logit_softcap);
  for (int i = 0; i < e.count; i++) top = std::max(top, scores[i]);
  for (int i = 0; i < e.count; i++) {
    const float output = scores[i];
    scores[i] = e.routing == SIGMOID ? 1.0f / (1.0f + std::exp(-output)) : std::exp(output - top);
    choice[i] = (e.by_outputs ? output : scores[i]) + (e.correction ? ((const float*)e.correction)[i] : 0.0f);
    all += scores[i];
  }
  if (e.groups > 1) keep_groups(e, choice);
  bool used[MOST_EXPERTS] = {};
  for (int n = 0; n < e.taken; n++) {
    int best = -1;
    for (int i = 0; i < e.count; i++)
      if (!used[i] && (best < 0 || choice[i] > choice[best])) best = i;
    used[best] = true;
  }
  float chosen = 0;
  int n = 0;
  for (int i = 0; i < e.count; i++)
    if (used[i]) taken[n++] = i, chosen += scores[i];
  const float sum = e.normalised ? chosen : e.routing == SIGMOID ? 1.0f : all;
  for (n = 0; n < e.taken; n++) weights[n] = scores[taken[n]] / sum * e.scale;
  if (const float* factors = (const float*)e.factors)
    for (int i = 0; i < n; i++) weights[i] *= factors[taken[i]];
  if (e.shared) {
    taken[n] = e.count;
    weights[n] = e.shared == 2 ? e.shared_scale / (1.0f + std::exp(-scores[e.count])) : e.shared_scale;
  }
}

struct Order {  // pairs of a row and an expert, by expert and then by row
  int32_t *begin, *row, *slot;  // begin (experts + 1,): the first pair of each

  Order(const Routed& routed, int rows, int32_t* space) : begin(space) {
    const int experts = experts_of(routed.e), each = pairs_of_row(routed.e);
    row = begin + experts + 1, slot = row + size_t(rows) * each;
    std::fill(begin, row, 0);
    for (int t = 0; t < rows; t++)
      for (int n = 0; n < each; n++) begin[routed.taken(t)[n] + 1]++;
    for (int i = 0; i < experts; i++) begin[i + 1] += begin[i];
    for (int t = 0; t < rows; t++)
      for (int n = 0; n < each; n++) {
        const int32_t place = begin[routed.taken(t)[n]]++;
        row[place] = t, slot[place] = n;
      }
    for (int i = experts; i > 0; i--) begin[i] = begin[i - 1];
    begin[0] = 0;
  }
};

}  // namespace
