// One forward pass of a Llama-like decoder for a few new tokens (a decode or verify step), on a processor.
//
// A step reads every weight and every cached key and value once, for one to some thirty rows of input, of one reader or
// of several with a cache each (target and drafter of a request, or requests of several people). What PyTorch's
// operators cost beyond that is calls, thread synchronisation and kernels made for many rows. Here the whole step is
// one parallel region. Activations are float32, and rounded to bfloat16 where they enter a product, as the model does.
//
// Every row is computed in the same order of operations whatever the number of rows, of threads or of tokens behind
// it: sums over a weight's columns run in one fixed order, and attention is split at absolute positions. A token thus
// gets bit for bit the same logits alone, among the drafts that are verified with it, and in company of other readers.
// That holds for readers whose texts share a beginning, too: their queries meet its keys together, chunk by chunk. The
// chains of a tree of drafts are like such readers.
//
// `run_layers` is a step as each of the threads goes through it, and `run_layer` one layer. What they call:
//   step_ends.h           tokens' rows before the layers, and logits behind them
//   step_heads.h          from rows to queries, keys and values, and into the caches
//   step_latents.h        the same for latent attention
//   step_attention.h      attention, by chunks of keys
//   step_choice.h         attention over keys that rows choose
//   step_recurrences.h    what stands in place of an attention, or beside it
//   step_mlp.h            the MLP
//   step_experts.h        experts beside it, or in its place
//   step_shared_blocks.h  blocks that several layers share, with adapters
//   step_streams.h        several streams of states, and augmented residuals
//   step_inputs.h         what each layer adds of a token by itself
// All stand on step_worker.h, a thread and what it does everywhere, and on step_workspace.h, what all threads see. How
// the rows are divided is in step_parts.h, and where everything lies in step_places.h.
//
// Plain C interface, no PyTorch headers: it compiles in seconds. `interface.h` has the structs.

#include <cstddef>
#include <cstdint>

#include "attend.h"
#include "interface.h"
#include "product.h"
#include "step_attention.h"
#include "step_ends.h"
#include "step_experts.h"
#include "step_heads.h"
#include "step_inputs.h"
#include "step_mlp.h"
#include "step_parts.h"
#include "step_places.h"
#include "step_recurrences.h"
#include "step_shared_blocks.h"
#include "step_worker.h"
#include "step_workspace.h"
#include "threads.h"

namespace {

// Adds what the attention gives, or what stands in its place. From here on there are only the rows that go on.
inline void add_attention(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  const int rows = here.rows;
  if (rows == 0) return;
  const bool moved = layer.recurrence && layer.recurrence->out.rows;  // up, when the recurrence beside it was added
  const Input in = w.given(all.by_head, rows, layer.out.columns, layer.out);
  w.add_product(layer.out, layer.after_attention, in, layer.attention_residual, rows, moved ? nullptr : here.taken,
                layer.parallel ? all.before : nullptr);
  const Share<int> s = w.columns(all.E);
  if (layer.laurel) all.laurel.add(*layer.laurel, s, all.x, rows, here.taken);
  if (layer.alternation && here.taken) all.streams.move_up(s, rows, here.taken);
}

// All that a layer gives, times a factor.
inline void scale_rows(const Worker& w, int rows, float factor) {
  const Workspace& all = w.all;
  const int E = all.E;
  const Share<int> s = w.columns(E);
  for (int t = 0; t < rows; t++)
    for (int e = s.first; e < s.last; e++) all.x[size_t(t) * E + e] *= factor;
}

void run_layer(const Worker& w, const LayerStep& here) {
  const Workspace& all = w.all;
  const Layer& layer = here.layer;
  const int rows = here.rows;
  if (layer.alternation) all.streams.guess(*layer.alternation, all.x, w.mine, w.thread, w.team);
  keep_states(w, here.index);
  project(w, here);
  w.team.barrier();
  if (layer.attention_kept != 0) w.keep_normed(layer.attention_kept, all.T);
  if (layer.laurel) all.laurel.go_right(*layer.laurel, all.T, w.mine, w.thread, w.team);
  if (layer.recurrence) recur_layer(w, here);  // in place of an attention, or beside it
  if (!layer.recurrence || layer.recurrence->out.rows) attend_layer(w, here);
  w.team.barrier();
  if (layer.aside.rows) return give_aside(w, layer);  // the next layer adds something
  add_attention(w, here);
  w.team.barrier();
  const float* const read = layer.parallel ? all.before : all.x;
  if (layer.down.rows) add_mlp(w, here, read);
  if (layer.experts && rows > 0) add_experts(w, here, read);
  if (layer.alternation) all.streams.mend(*layer.alternation, all.x, rows, w.mine, w.thread, w.team);
  if (layer.input && rows > 0) add_input(w, here, *layer.input);
  if (layer.scale != 1) scale_rows(w, rows, layer.scale);
  w.team.barrier();
}

// All of a step behind the embedding, in each of its threads.
void run_layers(const Worker& w) {
  const Workspace& all = w.all;
  const Model& model = all.model;
  if (const LayerInputs* of = model.inputs) find_inputs(w, *of);
  if (const Streams* of = model.streams)
    all.streams.spread_out(all.x, w.normed(all.x, Norm{}, all.T, of->spread[0]), w.thread, w.team);
  for (int index = 0; index < model.layers; index++) run_layer(w, LayerStep(all, index));
  give_logits(w);
}

}  // namespace

extern "C" {

// Floats of scratch space that a step needs, whatever its `scratch` says.
int64_t rapid_step_floats(const Model* model, const Step* step) {
  const Parts parts(*step);
  return int64_t(Places(*model, parts, HeadsOfLayers(*model, parts), step->kv).all(step->threads));
}

int rapid_serves_head_dim(int head_dim) { return head_dim_served(head_dim) ? 1 : 0; }

// Returns 0; 1 if an id is no token's; 2 if a logit is no number.
int rapid_decode_step(const Model* model, const Step* step) {
  const Parts parts(*step);
  for (int t = 0; t < parts.rows; t++)
    if (const int64_t id = parts.of(t).token(t); id < 0 || id >= model->vocabulary) return 1;
  const HeadsOfLayers heads_of(*model, parts);
  const Places places(*model, parts, heads_of, step->kv);
  Workspace all(*model, *step, parts, heads_of, places);
  embed_rows(all);
  in_parallel(step->threads, [&](int thread, Team& team) { run_layers(Worker(all, thread, team)); });
  return all.not_a_number.load() ? 2 : 0;
}

}  // extern "C"
