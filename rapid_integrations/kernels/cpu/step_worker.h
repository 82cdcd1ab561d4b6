// One of the threads of a decode step, and what every part of a step does: rows enter products, and what those give is
// added to the rows.

#pragma once

#include <algorithm>
#include <cstddef>

#include "interface.h"
#include "norms.h"
#include "numbers.h"
#include "panels.h"
#include "product.h"
#include "step_workspace.h"
#include "threads.h"

namespace {

struct Worker {
  Workspace& all;
  const int thread, threads;
  Team& team;
  float* const space;    // of this thread alone: results on their way
  bf16* const mine;      // normalised rows
  float* const rounded;  // rows in rounded groups

  Worker(Workspace& all, int thread, Team& team)
      : all(all),
        thread(thread),
        threads(team.threads),
        team(team),
        space(all.base + all.places.own + size_t(thread) * (all.places.space + all.places.input)),
        mine((bf16*)(space + all.places.space)),
        rounded(space + all.places.space + all.T * padded(int(all.places.widest)) / 2) {}

  // This thread's part of `count` columns.
  Share<int> columns(int count, int block = PANEL) const { return share(count, block, thread, threads); }

  // Tasks of unlike length are taken one by one: `for (int task = all.next++; ...)`. All threads come here when they
  // are done with those of before.
  void share_tasks() const {
    if (thread == 0) all.next.store(0);
    team.barrier();
  }

  // Rows of bfloat16 as a matrix takes them.
  Input given(const bf16* first, int rows, int columns, const Matrix& m, size_t stride = 0) const {
    if (!stride) stride = padded(columns);
    if (m.kind == BF16) return Input{first, {}, columns, stride};
    return Input{first, round_groups(first, rows, columns, stride, rounded), columns, stride};
  }

  // The same for rows (rows, E), normalised.
  Input normed(const float* from, const Norm& norm, int rows, const Matrix& m) const {
    const int E = all.E;
    for (int t = 0; t < rows; t++) normalise(norm, from + size_t(t) * E, E, mine + t * padded(E));
    return given(mine, rows, E, m);
  }

  // Rows that have entered a product with `before` as `m` takes them: they are rounded anew only if need be.
  Input given_again(const Input& in, int rows, const Matrix& before, const Matrix& m) const {
    return m.kind == BF16 || before.kind != BF16 ? in : given(in.x, rows, in.columns, m, in.stride);
  }

  // out (rows, `stride` apart) = this thread's columns of a product, which are returned.
  Share<int> multiply(const Matrix& m, const Input& in, int rows, float* out, size_t stride, int block = PANEL) const {
    const Share<int> s = columns(m.rows, block);
    product(m, s.first, s.last, in, rows, {out, stride, 0});
    return s;
  }

  // x = x + factor * y for this thread's columns s, where row t of y begins at y + t * stride. If only some rows go on,
  // `taken` says which, and they move up. Rows as they were are kept in `kept` if it is not null.
  void add(Share<int> s, const float* y, size_t stride, float factor, int rows, const int* taken, float* kept) const {
    float* const x = all.x;
    const int E = all.E;
    for (int t = 0; t < rows; t++) {
      // Columns of this thread alone, and never a row above t.
      const float* old = x + size_t(taken ? taken[t] : t) * E;
      if (kept) std::copy(old + s.first, old + s.last, kept + size_t(t) * E + s.first);
      for (int e = s.first; e < s.last; e++) x[size_t(t) * E + e] = old[e] + factor * y[t * stride + e - s.first];
    }
  }

  // x = so many times what a norm has left in `mine`, which all threads have read the rows for.
  void keep_normed(float factor, int rows) const {
    const int E = all.E;
    const Share<int> s = columns(E);
    for (int t = 0; t < rows; t++)
      for (int e = s.first; e < s.last; e++) all.x[size_t(t) * E + e] = factor * to_float(mine[t * padded(E) + e]);
  }

  // space (rows, columns s) = what a norm leaves of `added` (rows, E), of which this thread has written its columns.
  void norm_added(const Norm& norm, Share<int> s, int rows) const {
    team.barrier();
    const int E = all.E;
    const size_t count = size_t(s.last - s.first);
    for (int t = 0; t < rows; t++) {
      const float* y = all.added + size_t(t) * E;
      const Spread of = spread(norm, y, E);
      for (int e = s.first; e < s.last; e++)
        space[t * count + e - s.first] = (y[e] - of.mean) * of.factor * weight_of(norm, e) + bias_of(norm, e);
    }
  }

  // The same as `add` for what a norm stands behind.
  void add_normed(const Norm& norm, Share<int> s, float factor, int rows, const int* taken, float* kept) const {
    norm_added(norm, s, rows);
    add(s, space, size_t(s.last - s.first), factor, rows, taken, kept);
  }

  // x = x + factor * norm(product).
  void add_product(const Matrix& m, const Norm& norm, const Input& in, float factor, int rows, const int* taken,
                   float* kept) const {
    const Share<int> s = columns(all.E);
    const size_t count = size_t(s.last - s.first);
    if (norm.kind == NO_NORM) {
      product(m, s.first, s.last, in, rows, {space, count, s.first});
      return add(s, space, count, factor, rows, taken, kept);
    }
    product(m, s.first, s.last, in, rows, {all.added, size_t(all.E), 0});
    add_normed(norm, s, factor, rows, taken, kept);
  }
};

}  // namespace
