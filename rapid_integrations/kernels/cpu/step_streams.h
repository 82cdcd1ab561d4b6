// What a decode step does with several streams of states, beside what it does with one.

#pragma once

#include <algorithm>

#include "alternation.h"
#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "product.h"
#include "threads.h"

namespace {

constexpr float OF_TWO = 0.70710678f;  // 1 over the root of 2: of a sum with a learned augmented residual

struct StreamRows {  // (streams, rows, E)
  const Streams* of;
  float* data;
  int rows, E;

  float* row(int stream, int t) const { return data + (size_t(stream) * rows + t) * E; }

  // Where row t of every stream lies.
  void places(int t, float** to) const {
    for (int i = 0; i < of->count; i++) to[i] = row(i, t);
  }

  // Makes the streams of embedded rows x (rows, E), which enter products as `in`.
  void spread_out(const float* x, const Input& in, int thread, Team& team) const {
    const Share<int> s = share(E, PANEL, thread, team.threads);
    for (int t = 0; t < rows; t++) std::copy(x + size_t(t) * E + s.first, x + size_t(t) * E + s.last, row(0, t) + s.first);
    for (int i = 1; i < of->count; i++) product(of->spread[i - 1], s.first, s.last, in, rows, {row(i, 0), size_t(E), 0});
    team.barrier();
    for (int i = rows + thread; i < of->count * rows; i += team.threads) {
      float* const own = row(i / rows, i % rows);
      const float factor = as_large(own, x + size_t(i % rows) * E, E);
      for (int e = 0; e < E; e++) own[e] *= factor;
    }
    team.barrier();
  }

  // x (rows, E) = what the layer guesses of the active stream; the streams become guesses.
  void guess(const Alternation& a, float* x, bf16* room, int thread, Team& team) const {
    float* at[MAX_STREAMS];
    for (int t = thread; t < rows; t += team.threads) {
      places(t, at);
      float* const own = x + size_t(t) * E;
      std::copy_n(at[of->active], E, own);
      predict(a, of->active, (const float* const*)at, at, own, E, room);
    }
    team.barrier();
  }

  // The first `count` rows of the streams are corrected by those of x, which become what the layer's own input meets.
  void mend(const Alternation& a, float* x, int count, bf16* room, int thread, Team& team) const {
    float* at[MAX_STREAMS];
    team.barrier();
    for (int t = thread; t < count; t += team.threads) {
      places(t, at);
      correct(a, of->active, (const float* const*)at, at, x + size_t(t) * E, E, room);
    }
  }

  // Only the rows `taken` go on, and move up; of this thread's columns s.
  void move_up(Share<int> s, int count, const int* taken) const {
    for (int i = 0; i < of->count; i++)
      for (int t = 0; t < count; t++) {
        const float* old = row(i, taken[t]);
        std::copy(old + s.first, old + s.last, row(i, t) + s.first);
      }
  }

  // All streams but the first get y, whose row t begins at y + t * apart with column s.first.
  void add(Share<int> s, int count, const float* y, size_t apart) const {
    for (int i = 1; i < of->count; i++)
      for (int t = 0; t < count; t++) {
        float* const own = row(i, t);
        for (int e = s.first; e < s.last; e++) own[e] += y[t * apart + e - s.first];
      }
  }

  // x = the mean of the first `count` rows' streams, each multiplied with its matrix, as large as the first one.
  void merge(float* x, int count, bf16* room, int thread, Team& team) const {
    const Share<int> s = share(E, PANEL, thread, team.threads);
    for (int i = 1; i < of->count; i++) {
      for (int t = 0; t < count; t++) normalise(Norm{}, row(i, t), E, room + t * padded(E));
      team.barrier();  // the product is written over what all have read
      product(of->merged[i - 1], s.first, s.last, {room, {}, E, padded(E)}, count, {row(i, 0), size_t(E), 0});
    }
    team.barrier();
    for (int t = thread; t < count; t += team.threads) {
      float *const sum = x + size_t(t) * E, *const first = row(0, t);
      std::copy_n(first, E, sum);
      for (int i = 1; i < of->count; i++) {
        const float *own = row(i, t), factor = as_large(own, first, E);
        for (int e = 0; e < E; e++) sum[e] += own[e] * factor;
      }
      for (int e = 0; e < E; e++) sum[e] *= 1.0f / of->count;
    }
    team.barrier();
  }
};

// A learned augmented residual (LAuReL, arXiv 2411.07501) beside an attention: of what that reads, y, it is
// y + norm(right(left(y))). Its sum with all else is divided by the root of 2.
struct LaurelRows {
  float *read, *right, *left;  // (rows, E), (rows, E) and (rows, numbers in between)
  int E;

  static size_t floats(const Laurel& l, int E) { return 2 * size_t(E) + size_t(l.left.rows); }

  LaurelRows(float* space, int rows, int E)
      : read(space), right(space + size_t(rows) * E), left(space + 2 * size_t(rows) * E), E(E) {}

  // Of the rows `in`, of which this thread's columns are kept.
  void go_left(const Laurel& l, const Input& in, int rows, int thread, Team& team) const {
    const Share<int> s = share(E, PANEL, thread, team.threads), narrow = share(l.left.rows, PANEL, thread, team.threads);
    for (int t = 0; t < rows; t++)
      for (int e = s.first; e < s.last; e++) read[size_t(t) * E + e] = to_float(in.x[t * in.stride + e]);
    product(l.left, narrow.first, narrow.last, in, rows, {left, size_t(l.left.rows), 0});
  }

  // When all threads have done that.
  void go_right(const Laurel& l, int rows, bf16* room, int thread, Team& team) const {
    const int R = l.left.rows;
    const Share<int> s = share(E, PANEL, thread, team.threads);
    for (int t = 0; t < rows; t++) normalise(Norm{}, left + size_t(t) * R, R, room + t * padded(R));
    product(l.right, s.first, s.last, {room, {}, R, padded(R)}, rows, {right, size_t(E), 0});
  }

  // And then that. x (count, E) are the rows to which all else was added; `taken` says which they are, null: all.
  void add(const Laurel& l, Share<int> s, float* x, int count, const int* taken) const {
    for (int place = 0; place < count; place++) {
      const size_t t = size_t(taken ? taken[place] : place);
      const float *y = read + t * E, *more = right + t * E;
      const Spread of = spread(l.norm, more, E);
      float* const own = x + size_t(place) * E;
      for (int e = s.first; e < s.last; e++)
        own[e] = (own[e] + y[e] + (more[e] - of.mean) * of.factor * weight_of(l.norm, e) + bias_of(l.norm, e)) * OF_TWO;
    }
  }
};

}  // namespace
