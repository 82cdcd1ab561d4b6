// What all threads of a decode step see: its rows in the scratch space, and which of them a layer takes and gives.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "indexer.h"
#include "interface.h"
#include "numbers.h"
#include "scratch.h"
#include "step_parts.h"
#include "step_places.h"
#include "step_streams.h"

namespace {

struct Partial {  // of a row and a chunk: the highest score, the sum of the weights, and the values mixed with them
  float* max;
  float* sum;
  float* mixed;  // of each of them so many numbers as a value has
};

// T rows of E numbers and H heads. Pointers to what no layer has are those of what lies behind it.
struct Workspace {
  const Model& model;
  const Step& step;
  const Parts& parts;
  const HeadsOfLayers& heads_of;
  const Places& places;
  const int T, E, H, kv;
  float* const base;
  float* const x;                       // (T, E): the rows, to which layers add
  float *const embedded, *const aside;  // (T, E): rows as they were embedded; what a layer reads beside the sum
  float *const before, *const added;    // (T, E): rows before attention; what a norm stands behind
  float *const of_mlp, *const of_experts;  // (T, E): what both give before it is joined
  float *const qkv, *const queries;     // (T, Widths::qkv), and (T, Widths::queries) of a second product
  bf16* const q;                        // of each part (KV, G * its rows, numbers of a query)
  const Partial partial;
  bf16 *const by_head, *const hidden, *const low;  // (T, of all heads), (T, I) and (T, of adapters), padded
  float* const recurred;                // (T, what the heads of a recurrence give)
  float* const inputs;                  // (T, layers, numbers of an input)
  float *const gates, *const cutoffs;   // (T, I) and (T,), of sparse MLPs
  float* const index_queries;           // (T, heads D) of an indexer
  bf16* const index_turned;             // the same, rotated
  float* const index_scores;            // (T, places.choice.longest)
  int32_t* const chosen_keys;           // (T, chosen), until another layer chooses
  const StreamRows streams;
  const LaurelRows laurel;
  // The next task, see Worker::share_tasks: on a line of its own, since all threads change it.
  alignas(LINE * sizeof(float)) std::atomic<int> next{0};
  std::atomic<bool> not_a_number{false};

  Workspace(const Model& model, const Step& step, const Parts& parts, const HeadsOfLayers& heads_of,
            const Places& places)
      : model(model),
        step(step),
        parts(parts),
        heads_of(heads_of),
        places(places),
        T(parts.rows),
        E(model.hidden),
        H(model.heads),
        kv(step.kv),
        base(align(step.scratch)),
        x(base + places.x),
        embedded(base + places.embedded),
        aside(base + places.aside),
        before(base + places.before),
        added(base + places.added),
        of_mlp(base + places.branches),
        of_experts(of_mlp + size_t(T) * E),
        qkv(base + places.qkv),
        queries(base + places.queries),
        q((bf16*)(base + places.q)),
        partial{base + places.max, base + places.sum, base + places.mixed},
        by_head((bf16*)(base + places.heads)),
        hidden((bf16*)(base + places.hidden)),
        low((bf16*)(base + places.low)),
        recurred(base + places.recurred),
        inputs(base + places.inputs),
        gates(base + places.gates),
        cutoffs(gates + size_t(T) * model.intermediate),
        index_queries(base + places.choice.queries),
        index_turned((bf16*)(base + places.choice.turned)),
        index_scores(base + places.choice.scores),
        chosen_keys((int32_t*)(base + places.choice.keys)),
        streams{model.streams, base + places.streams, T, E},
        laurel(base + places.laurel, T, E) {}
};

// A layer of a step, and what all of its parts ask for.
struct LayerStep {
  const Layer& layer;
  const int index;
  const Heads& heads;
  const Widths widths;
  const int rows;          // that go on behind the attention: of the last layer only those whose logits are wanted
  const int* const taken;  // which they are, null: all
  const bool choosing;     // whether some see only keys that they choose
  const bool reads_aside;  // what the layer before gives beside the sum

  LayerStep(const Workspace& all, int index)
      : layer(all.model.layer[index]),
        index(index),
        heads(all.heads_of.of(index)),
        widths(layer, all.kv),
        rows(index == all.model.layers - 1 ? int(all.parts.kept.size()) : all.T),
        taken(index == all.model.layers - 1 ? all.parts.kept.data() : nullptr),
        choosing(any_choosing(all.parts, layer.chosen)),
        reads_aside(index && all.model.layer[index - 1].aside.rows) {}

  // Which row of the step lies at a place among those that go on.
  int row_at(int place) const { return taken ? taken[place] : place; }
};

}  // namespace
