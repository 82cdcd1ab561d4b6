// Distributions over a vocabulary at one position: `sampling` has the mathematics, this does it in one call.
//
// A vocabulary has 50,000 to 250,000 entries. PyTorch's operators need a dozen passes over them, each with its call and
// its memory, between two steps of a model that have just emptied the caches.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "numbers.h"

namespace {

constexpr double ETA_MOST = 50.0, SLOPE_LEFT = 0.01, CLOSE = 1e-9;  // see sampling/adaptive_eta.py
constexpr size_t SEEN = 64;                                         // tokens that its line search sees one by one
constexpr double LEAST_WHOLE = 1e-12;                               // of p, to be scaled up to 1
constexpr int64_t BLOCK = 256;                                      // entries that are summed in single precision

struct Best {
  float value;
  int64_t index;  // the first of several
};

Best best_of(const float* x, int64_t first, int64_t last) {
  float highest = -std::numeric_limits<float>::infinity();
  int64_t i = first;
#if RAPID_WIDE
  __m512 top[4];
  for (auto& lane : top) lane = _mm512_set1_ps(highest);
  for (; i + 64 <= last; i += 64)
    for (int j = 0; j < 4; j++) top[j] = _mm512_max_ps(_mm512_loadu_ps(x + i + 16 * j), top[j]);
  highest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3])));
#endif
  for (; i < last; i++) highest = std::max(highest, x[i]);
  i = first;
#if RAPID_WIDE
  for (; i + 16 <= last; i += 16)
    if (_mm512_cmp_ps_mask(_mm512_loadu_ps(x + i), _mm512_set1_ps(highest), _CMP_EQ_OQ)) break;
#endif
  while (i < last && x[i] != highest) i++;
  return {highest, i < last ? i : first};
}

// out = exp((x - highest) * factor); returns its sum.
double exps(const float* x, int64_t n, float highest, float factor, float* out) {
  double total = 0;
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t end = std::min(n, start + BLOCK);
    int64_t i = start;
    float sum = 0;
#if RAPID_WIDE
    __m512 sums = _mm512_setzero_ps();
    for (; i + 16 <= end; i += 16) {
      const __m512 below = _mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(highest));
      const __m512 e = exp512(_mm512_mul_ps(below, _mm512_set1_ps(factor)));
      _mm512_storeu_ps(out + i, e);
      sums = _mm512_add_ps(sums, e);
    }
    sum = sum16(sums);
#endif
    for (; i < end; i++) sum += out[i] = std::exp((x[i] - highest) * factor);
    total += sum;
  }
  return total;
}

// Sum of term(i): sixteen at a time in single precision, blocks in double.
template <class Term>
double sum_in_blocks(int64_t n, Term term) {
  double total = 0;
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t end = std::min(n, start + BLOCK);
    float lanes[16] = {};
    int64_t i = start;
    for (; i + 16 <= end; i += 16)
      for (int j = 0; j < 16; j++) lanes[j] += term(i + j);
    float sum = 0;
    for (; i < end; i++) sum += term(i);
    for (float lane : lanes) sum += lane;
    total += sum;
  }
  return total;
}

double sum_of(const float* x, int64_t n) {
  return sum_in_blocks(n, [&](int64_t i) { return x[i]; });
}

// In double precision: improbable entries behind probable ones count, too.
double exact_sum(const float* x, int64_t n) {
  double lanes[8] = {}, total = 0;
  const int64_t whole = n / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8)
    for (int j = 0; j < 8; j++) lanes[j] += x[i + j];
  for (int64_t i = whole; i < n; i++) total += x[i];
  for (double lane : lanes) total += lane;
  return total;
}

// Sum of the smaller of x * a and y * b: what two distributions have in common.
double overlap(const float* x, float a, const float* y, float b, int64_t n) {
  return sum_in_blocks(n, [&](int64_t i) {
    const float p = x[i] * a, q = y[i] * b;
    return p < q ? p : q;
  });
}

struct Moved {  // a token that the tail rule lets move, and where it gets
  int64_t index;
  double p = 0, q = 0, log_p = 0, raised = 0;
  float weight = 0;
  double direction() const { return q - p; }
};

// Adds the indices of (n,) entries of at least `least`.
template <class Found>
void find(const float* x, int64_t n, float least, std::vector<Found>& found) {
  int64_t i = 0;
#if RAPID_WIDE
  for (; i + 16 <= n; i += 16)
    for (uint32_t hits = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + i), _mm512_set1_ps(least), _CMP_GE_OQ); hits; hits &= hits - 1)
      found.push_back(Found{i + __builtin_ctz(hits)});
#endif
  for (; i < n; i++)
    if (x[i] >= least) found.push_back(Found{i});
}

struct Likely {
  int64_t index;
  float p;
};

// A heap's order: the most likely one comes first, of several the first.
bool comes_later(const Likely& a, const Likely& b) { return a.p < b.p || (a.p == b.p && a.index > b.index); }

// The entries of at least `least`, which is lowered until they are `enough`.
template <class Enough>
void find_likely(const float* p, int64_t n, float least, Enough enough, std::vector<Likely>& found) {
  std::vector<int64_t> indices;
  do {
    least = std::max(least / 32, FLT_TRUE_MIN);
    indices.clear();
    find(p, n, least, indices);
    found.clear();
    for (int64_t i : indices) found.push_back({i, p[i]});
  } while (least > FLT_TRUE_MIN && !enough(found, least));
}

double sum_of(const std::vector<Likely>& entries) {
  double sum = 0;
  for (const Likely& each : entries) sum += each.p;
  return sum;
}

// eta*: where the slope of KL(q || p_hat) along q - p has fallen to a hundredth of what it was at 0.
//
// weights (n,): p times `whole`; what it leaves for tokens that do not move is summed by itself, since 1 less the others
// would be rounding and nothing else where a token that moves has nearly all.
double line_search(std::vector<Moved> seen, float* weights, int64_t n, double whole) {
  if (seen.size() > SEEN) {
    std::nth_element(seen.begin(), seen.begin() + SEEN, seen.end(), [](const Moved& a, const Moved& b) {
      return std::abs(a.direction()) > std::abs(b.direction());
    });
    seen.resize(SEEN);
  }
  double under_p = 0, under_q = 0;
  for (Moved& m : seen) {
    under_p += m.p * m.direction();
    under_q += m.q * m.direction();
    std::swap(m.weight, weights[m.index]);
  }
  const double rest = sum_of(weights, n) / whole;
  for (Moved& m : seen) std::swap(m.weight, weights[m.index]);
  const double wanted = under_q + SLOPE_LEFT * (under_p - under_q);
  double rise = 0;
  auto slope = [&](double eta) {
    double top = 0, total = 0, mean = 0, square = 0;
    for (const Moved& m : seen) top = std::max(top, m.log_p + eta * m.direction());
    for (const Moved& m : seen) {
      const double d = m.direction(), weight = std::exp(m.log_p + eta * d - top);
      total += weight;
      mean += weight * d;
      square += weight * d * d;
    }
    total += rest * std::exp(-top);  // tokens that do not move share one weight
    mean /= total;
    rise = square / total - mean * mean;
    return mean - wanted;
  };
  double low = 0, high = ETA_MOST, eta = 0;
  if (!(slope(low) < 0)) return low;
  if (slope(high) < 0) return high;
  while (high - low > CLOSE) {
    const double value = slope(eta);
    (value < 0 ? low : high) = eta;
    const double step = rise > 0 ? value / rise : std::numeric_limits<double>::infinity();
    if (std::abs(step) < CLOSE) break;
    eta = low < eta - step && eta - step < high ? eta - step : (low + high) / 2;
  }
  return eta;
}

// The best of the entries that do not move; `moved` is in the order of its indices.
Best best_unmoved(const float* x, int64_t n, const std::vector<Moved>& moved) {
  Best best{-std::numeric_limits<float>::infinity(), n};
  int64_t start = 0;
  for (size_t k = 0; k <= moved.size(); k++) {
    const int64_t end = k < moved.size() ? moved[k].index : n;
    if (start < end)
      if (const Best found = best_of(x, start, end); best.index == n || found.value > best.value) best = found;
    start = end + 1;
  }
  return best;
}

}  // namespace

extern "C" {

// out = softmax(x * factor)
void rapid_softmax(const float* x, int64_t n, double factor, float* out) {
  const float scale = float(1.0 / exps(x, n, best_of(x, 0, n).value, float(factor), out));
  for (int64_t i = 0; i < n; i++) out[i] *= scale;
}

// The entry in which `share` of the sum of p (not negative) is reached; never one of 0.
int64_t rapid_draw(const float* p, int64_t n, double share) {
  double total = 0, before = 0;
  for (int64_t start = 0; start < n; start += BLOCK) total += exact_sum(p + start, std::min(BLOCK, n - start));
  const double wanted = share * total;
  int64_t i = 0, drawn = -1;
  for (double sum; i + BLOCK < n; i += BLOCK, before += sum)  // past the blocks before it
    if ((sum = exact_sum(p + i, BLOCK)) + before > wanted) break;
  for (; i < n; i++) {  // past the end of its block only where rounding has it so
    if (p[i] <= 0) continue;
    drawn = i;
    before += p[i];
    if (before > wanted) break;
  }
  for (i = n - 1; drawn < 0 && i > 0 && p[i] <= 0;) i--;  // nothing but zeros was left
  return drawn < 0 ? i : drawn;
}

// Drops improbable entries of p, which is not negative and sums to 1, as `truncate` in sampling/truncation.py does; what is
// left sums to 1. Returns 0, or 1 where there was no memory.
int rapid_truncate(float* p, int64_t n, int64_t top_k, double top_p, double min_p) try {
  std::vector<Likely> kept;
  const float highest = best_of(p, 0, n).value, lowest = float(min_p) * highest;
  const bool cut = 0 < top_k && top_k < n;
  auto enough = [&](const std::vector<Likely>& found, float least) {
    if (cut) return int64_t(found.size()) >= top_k;
    return top_p < 1 ? sum_of(found) >= top_p : least <= lowest;
  };
  find_likely(p, n, highest, enough, kept);
  if (kept.empty()) return 0;  // NaN, or nothing at all
  double whole = 1;
  if (cut && int64_t(kept.size()) > top_k) {
    auto edge = kept.begin() + top_k - 1;
    std::nth_element(kept.begin(), edge, kept.end(), [](auto& a, auto& b) { return a.p > b.p; });
    kept.erase(std::remove_if(edge + 1, kept.end(), [=, last = edge->p](auto& each) { return each.p < last; }), kept.end());
  }
  if (cut) whole = sum_of(kept);
  if (top_p < 1) {
    std::make_heap(kept.begin(), kept.end(), comes_later);
    double better = 0;
    auto end = kept.end();
    do {  // the first always stays
      std::pop_heap(kept.begin(), end--, comes_later);
      better += end->p;
    } while (end != kept.begin() && better < top_p * whole);
    kept.erase(kept.begin(), end);
  }
  kept.erase(std::remove_if(kept.begin(), kept.end(), [=](auto& each) { return each.p < lowest; }), kept.end());
  const double sum = sum_of(kept);
  std::memset(p, 0, n * sizeof(float));
  for (const Likely& each : kept) p[each.index] = float(each.p / sum);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// out = max(p * factor - q, 0), scaled to a sum of 1 where anything is left; returns the sum that it had.
double rapid_residual(const float* p, double factor, const float* q, int64_t n, float* out) {
  const float f = float(factor);
  const double left = sum_in_blocks(n, [&](int64_t i) { return std::max(p[i] * f - q[i], 0.0f); });
  const float scale = left > 0 ? float(1 / left) : 0.0f;
  for (int64_t i = 0; i < n; i++) out[i] = std::max(p[i] * f - q[i], 0.0f) * scale;
  return left;
}

// p_hat of `augmented_target` with the tail rule "mask", from both models' logits times `factor`.
//
// eta: negative where it is chosen at each position, by relevance and trust; see sampling/adaptive_eta.py. greedy: only
// the best token is wanted, and returned; `out` is left with nothing of use.
// Otherwise -1 is returned, and `out` is p_hat; -2: there was no memory. scratch: (n,).
int64_t rapid_p_hat(const float* z, const float* y, int64_t n, double factor, double eta, double relevance, double trust,
                    double alpha, int32_t greedy, float* out, float* scratch) try {
  std::vector<Moved> moved;
  const Best z_best = best_of(z, 0, n), y_best = best_of(y, 0, n);
  const double z_sum = exps(z, n, z_best.value, float(factor), out), log_sum = std::log(z_sum);
  const double y_sum = exps(y, n, y_best.value, float(factor), scratch);
  find(scratch, n, float(alpha), moved);  // the best is 1 there
  auto log_p = [&](int64_t i) { return (double(z[i]) - z_best.value) * factor - log_sum; };
  for (Moved& m : moved) {
    m.log_p = log_p(m.index);
    m.p = std::exp(m.log_p);
    m.q = scratch[m.index] / y_sum;
  }
  if (eta < 0) {
    const double in_common = trust < 1 ? overlap(out, float(1 / z_sum), scratch, float(1 / y_sum), n) : 1;
    eta = relevance * (trust + (1 - trust) * in_common) * line_search(moved, out, n, z_sum);
  }
  double top = 0;
  const Moved* highest = nullptr;
  for (Moved& m : moved) {
    m.raised = m.log_p + eta * m.direction();
    top = std::max(top, m.raised);
    if (!highest || m.raised > highest->raised) highest = &m;
  }
  if (greedy) {
    const Best rest = best_unmoved(z, n, moved);
    if (!highest || rest.index == n) return highest ? highest->index : rest.index;
    const double unmoved = log_p(rest.index);
    if (unmoved == highest->raised) return std::min(rest.index, highest->index);
    return unmoved > highest->raised ? rest.index : highest->index;
  }
  double weights = 0;
  for (const Moved& m : moved) {
    weights += std::exp(m.raised - top);
    out[m.index] = 0;
  }
  double whole = sum_of(out, n) / z_sum * std::exp(-top) + weights, scale = std::exp(-top) / z_sum;
  if (whole < LEAST_WHOLE) {  // what is left is of those whose p may have underflown: begin with the best of them
    const Best rest = best_unmoved(z, n, moved);
    exps(z, n, rest.index < n ? rest.value : z_best.value, float(factor), out);
    const double best_rest = rest.index < n ? log_p(rest.index) : -std::numeric_limits<double>::infinity();
    top = std::max(best_rest, highest ? highest->raised : best_rest);
    weights = 0;
    for (const Moved& m : moved) {
      weights += std::exp(m.raised - top);
      out[m.index] = 0;
    }
    scale = std::exp(best_rest - top);
    whole = sum_of(out, n) * scale + weights;
  }
  const float factor_of_rest = float(scale / whole);
  for (int64_t i = 0; i < n; i++) out[i] *= factor_of_rest;
  for (const Moved& m : moved) out[m.index] = float(std::exp(m.raised - top) / whole);
  return -1;
} catch (const std::bad_alloc&) {
  return -2;
}

}  // extern "C"
