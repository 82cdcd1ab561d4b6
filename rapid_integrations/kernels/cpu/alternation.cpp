// What a prompt's rows meet between streams of states; `alternation.h` has what is computed.

#include "alternation.h"

#include "interface.h"
#include "threads.h"

namespace {

// Calls f(from, to, x, room) for each row: where its numbers lie in streams (streams, rows, E), and space for E numbers twice.
template <class F>
void for_rows(const Alternating* call, const F& f) {
  const int E = call->columns, n = call->alternation->router.rows;
  const size_t apart = size_t(call->rows) * E;
  for_each(call->threads, call->rows, [&](int64_t t) {
    const bf16* from[MAX_STREAMS];
    bf16 *to[MAX_STREAMS], room[WIDEST];
    float x[WIDEST];
    for (int i = 0; i < n; i++) {
      from[i] = (const bf16*)call->streams + i * apart + size_t(t) * E;
      to[i] = (bf16*)call->out + i * apart + size_t(t) * E;
    }
    f(size_t(t) * E, from, to, x, room);
  });
}

}  // namespace

extern "C" {

// What a layer guesses of all streams.
void rapid_predict(const Alternating* call) {
  const int E = call->columns;
  for_rows(call, [&](size_t, const bf16* const* from, bf16* const* to, float* x, bf16* room) {
    for (int e = 0; e < E; e++) x[e] = to_float(from[call->active][e]);
    predict(*call->alternation, call->active, from, to, x, E, room);
  });
}

// The guesses, corrected by what the layer computed; and the active stream with its factors.
void rapid_correct(const Alternating* call) {
  const int E = call->columns;
  for_rows(call, [&](size_t first, const bf16* const* from, bf16* const* to, float* x, bf16* room) {
    for (int e = 0; e < E; e++) x[e] = to_float(((const bf16*)call->computed)[first + e]);
    correct(*call->alternation, call->active, from, to, x, E, room);
    for (int e = 0; e < E; e++) ((bf16*)call->scaled)[first + e] = to_bf16(x[e]);
  });
}

}  // extern "C"
