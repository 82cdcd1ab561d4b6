// What the library says of itself, so that Python can refuse it before the first call that could do harm: what it was
// built from, and how its structs lie in memory.

#include <cstddef>
#include <string>

#include "interface.h"
#include "numbers.h"

#ifndef RAPID_SOURCES
#error "RAPID_SOURCES is the hash of the sources, as sources_key in interface.py computes it"
#endif

#define FIELD(type, name) line(#type "." #name, offsetof(type, name), sizeof(type::name))
#define WHOLE(type) line(#type, 0, sizeof(type))

namespace {

std::string line(const char* name, size_t offset, size_t size) {
  return name + (" " + std::to_string(offset)) + " " + std::to_string(size) + "\n";
}

std::string layouts() {
  return WHOLE(Matrix) + FIELD(Matrix, kind) + FIELD(Matrix, rows) + FIELD(Matrix, columns) + FIELD(Matrix, parts) +
         FIELD(Matrix, data) + FIELD(Matrix, scale) + FIELD(Matrix, bias) +

         WHOLE(Norm) + FIELD(Norm, kind) + FIELD(Norm, scope) + FIELD(Norm, eps) + FIELD(Norm, offset) +
         FIELD(Norm, weight) + FIELD(Norm, bias) +

         WHOLE(Rope) + FIELD(Rope, first) + FIELD(Rope, pairs) + FIELD(Rope, interleaved) + FIELD(Rope,
         norm_behind) +

         WHOLE(Sight) + FIELD(Sight, window) + FIELD(Sight, chunk) + FIELD(Sight, scale) + FIELD(Sight,
         softcap) +

         WHOLE(Branches) + FIELD(Branches, router) + FIELD(Branches, before) + FIELD(Branches, after) +
         FIELD(Branches, after_mlp) +

         WHOLE(Experts) + FIELD(Experts, count) + FIELD(Experts, taken) + FIELD(Experts, routing) +
         FIELD(Experts, normalised) + FIELD(Experts, groups) + FIELD(Experts, groups_taken) + FIELD(Experts, widest) +
         FIELD(Experts, shared) + FIELD(Experts, scale) + FIELD(Experts, scales_inputs) + FIELD(Experts, group_best) +
         FIELD(Experts, router) + FIELD(Experts, correction) + FIELD(Experts, gate_up) + FIELD(Experts, down) +
         FIELD(Experts, logit_scale) + FIELD(Experts, factors) + FIELD(Experts, branches) +
         FIELD(Experts, logit_softcap) + FIELD(Experts, by_outputs) + FIELD(Experts, shared_scale) + FIELD(Experts, near) +

         WHOLE(Latent) + FIELD(Latent, rank) + FIELD(Latent, plain) + FIELD(Latent, rotated) + FIELD(Latent, value) +
         FIELD(Latent, query) + FIELD(Latent, latent) + FIELD(Latent, query_up) + FIELD(Latent, keys) + FIELD(Latent, values) +

         WHOLE(Indexer) + FIELD(Indexer, heads) + FIELD(Indexer, dim) + FIELD(Indexer, slot) + FIELD(Indexer, query) +
         FIELD(Indexer, key) + FIELD(Indexer, weights) + FIELD(Indexer, norm) + FIELD(Indexer, rope) +

         WHOLE(Recurrence) + FIELD(Recurrence, key_heads) + FIELD(Recurrence, value_heads) + FIELD(Recurrence, key_dim) +
         FIELD(Recurrence, value_dim) + FIELD(Recurrence, channels) + FIELD(Recurrence, taps) + FIELD(Recurrence, together) +
         FIELD(Recurrence, tiled) + FIELD(Recurrence, gates_behind) + FIELD(Recurrence, first) +
         FIELD(Recurrence, sigmoid_gates) + FIELD(Recurrence, rate_scale) +
         FIELD(Recurrence, gate_factor) + FIELD(Recurrence, rate_factor) + FIELD(Recurrence, least_rate) +
         FIELD(Recurrence, factor) + FIELD(Recurrence, rates) + FIELD(Recurrence, decay_up) +
         FIELD(Recurrence, gate_up) + FIELD(Recurrence, selected) + FIELD(Recurrence, step_up) +
         FIELD(Recurrence, step_norm) + FIELD(Recurrence, key_norm) + FIELD(Recurrence, query_norm) + FIELD(Recurrence, gates) +
         FIELD(Recurrence, gelu_gates) + FIELD(Recurrence, blocks) + FIELD(Recurrence, out) +
         FIELD(Recurrence, norm) + FIELD(Recurrence, tap) + FIELD(Recurrence, tap_bias) + FIELD(Recurrence, decay) +
         FIELD(Recurrence, bias) + FIELD(Recurrence, skip) +

         WHOLE(Adapter) + FIELD(Adapter, down) + FIELD(Adapter, up) + FIELD(Adapter, parts) +

         WHOLE(Act) + FIELD(Act, kind) + FIELD(Act, positive) + FIELD(Act, negative) + FIELD(Act, slope) + FIELD(Act, least) +

         WHOLE(LayerInput) + FIELD(LayerInput, gate) + FIELD(LayerInput, projection) + FIELD(LayerInput, norm) +
         FIELD(LayerInput, activation) +

         WHOLE(LayerInputs) + FIELD(LayerInputs, width) + FIELD(LayerInputs, tokens) + FIELD(LayerInputs, table) +
         FIELD(LayerInputs, projection) + FIELD(LayerInputs, norm) + FIELD(LayerInputs, scale) +
         FIELD(LayerInputs, projection_scale) + FIELD(LayerInputs, factor) +

         WHOLE(Laurel) + FIELD(Laurel, left) + FIELD(Laurel, right) + FIELD(Laurel, norm) +

         WHOLE(Alternation) + FIELD(Alternation, router) + FIELD(Alternation, norm) + FIELD(Alternation, scale) +
         FIELD(Alternation, prediction) + FIELD(Alternation, correction) + FIELD(Alternation, output) +

         WHOLE(Streams) + FIELD(Streams, count) + FIELD(Streams, active) + FIELD(Streams, spread) + FIELD(Streams, merged) +

         WHOLE(Layer) + FIELD(Layer, qkv) + FIELD(Layer, out) + FIELD(Layer, gate_up) + FIELD(Layer, down) +
         FIELD(Layer, before_attention) + FIELD(Layer, after_attention) + FIELD(Layer, before_mlp) +
         FIELD(Layer, after_mlp) + FIELD(Layer, query) + FIELD(Layer, key) + FIELD(Layer, value) + FIELD(Layer, rope) +
         FIELD(Layer, sight) + FIELD(Layer, sinks) + FIELD(Layer, balance) + FIELD(Layer, experts) +
         FIELD(Layer, latent) + FIELD(Layer, input) + FIELD(Layer, recurrence) + FIELD(Layer, laurel) +
         FIELD(Layer, alternation) + FIELD(Layer, heads) + FIELD(Layer, kv_heads) + FIELD(Layer, head_dim) +
         FIELD(Layer, slot) + FIELD(Layer, state) + FIELD(Layer, shares) + FIELD(Layer, growth_every) +
         FIELD(Layer, growth_ahead) + FIELD(Layer, growth_scale) + FIELD(Layer, scale) + FIELD(Layer, activation) + FIELD(Layer, gated) +
         FIELD(Layer, parallel) + FIELD(Layer, output_gates) + FIELD(Layer, softplus_gates) + FIELD(Layer, attention_residual) + FIELD(Layer, mlp_residual) +
         FIELD(Layer, gate_factor) + FIELD(Layer, sparse) + FIELD(Layer, quantile) +
         FIELD(Layer, aside) + FIELD(Layer, qkv_adapter) + FIELD(Layer, gate_up_adapter) + FIELD(Layer, indexer) + FIELD(Layer, chosen) + FIELD(Layer, with_embedding) +
         FIELD(Layer, attention_kept) + FIELD(Layer, mlp_kept) +

         WHOLE(Model) + FIELD(Model, layers) + FIELD(Model, hidden) + FIELD(Model, heads) +
         FIELD(Model, intermediate) + FIELD(Model, vocabulary) + FIELD(Model, turned) + FIELD(Model, layer) +
         FIELD(Model, final_norm) + FIELD(Model, head) + FIELD(Model, embedding) + FIELD(Model, embedding_scale) +
         FIELD(Model, logit_scale) + FIELD(Model, logit_softcap) + FIELD(Model, embedding_kind) +
         FIELD(Model, inputs) + FIELD(Model, streams) + FIELD(Model, embedding_norm) +

         WHOLE(Segment) + FIELD(Segment, begin) + FIELD(Segment, capacity) + FIELD(Segment, keys) +
         FIELD(Segment, values) +

         WHOLE(Rows) + FIELD(Rows, rows) + FIELD(Rows, keep) + FIELD(Rows, past) + FIELD(Rows, ids) +
         FIELD(Rows, parents) + FIELD(Rows, cos) + FIELD(Rows, sin) + FIELD(Rows, learned) + FIELD(Rows, segments) + FIELD(Rows, segment) +
         FIELD(Rows, state) + FIELD(Rows, inputs) + FIELD(Rows, state_into) + FIELD(Rows, inputs_into) +
         FIELD(Rows, record) + FIELD(Rows, record_apart) + FIELD(Rows, recorded) + FIELD(Rows, settled) +

         WHOLE(Step) + FIELD(Step, readers) + FIELD(Step, threads) + FIELD(Step, levels) + FIELD(Step, kv) +
         FIELD(Step, reader) + FIELD(Step, logits) + FIELD(Step, level) + FIELD(Step, states) + FIELD(Step, scratch) +

         WHOLE(Rotation) + FIELD(Rotation, rows) + FIELD(Rotation, heads) + FIELD(Rotation, kv_heads) +
         FIELD(Rotation, head_dim) + FIELD(Rotation, threads) + FIELD(Rotation, turned) + FIELD(Rotation,
         query) + FIELD(Rotation, key) + FIELD(Rotation, rope) + FIELD(Rotation, qkv) + FIELD(Rotation, cos) +
         FIELD(Rotation, sin) + FIELD(Rotation, out) +

         WHOLE(Recurring) + FIELD(Recurring, recurrence) + FIELD(Recurring, rows) + FIELD(Recurring, threads) +
         FIELD(Recurring, record) + FIELD(Recurring, state) + FIELD(Recurring, inputs) + FIELD(Recurring, state_into) +
         FIELD(Recurring, out) +

         WHOLE(Alternating) + FIELD(Alternating, alternation) + FIELD(Alternating, rows) + FIELD(Alternating, columns) +
         FIELD(Alternating, threads) + FIELD(Alternating, active) + FIELD(Alternating, streams) +
         FIELD(Alternating, computed) + FIELD(Alternating, out) + FIELD(Alternating, scaled) +

         WHOLE(LayerSegment) + FIELD(LayerSegment, begin) + FIELD(LayerSegment, key_stride) +
         FIELD(LayerSegment, value_stride) + FIELD(LayerSegment, keys) + FIELD(LayerSegment, values) +

         WHOLE(Attention) + FIELD(Attention, rows) + FIELD(Attention, heads) + FIELD(Attention, kv_heads) +
         FIELD(Attention, head_dim) + FIELD(Attention, threads) + FIELD(Attention, kv) +
         FIELD(Attention, sight) + FIELD(Attention, sinks) + FIELD(Attention, past) + FIELD(Attention,
         row_stride) + FIELD(Attention, head_stride) + FIELD(Attention, segments) + FIELD(Attention, segment)
         + FIELD(Attention, queries) + FIELD(Attention, out) + FIELD(Attention, taken);
}

}  // namespace

extern "C" {

const char* rapid_sources() { return RAPID_SOURCES; }

// A line "Struct.field offset size" for every field, and "Struct 0 size" before them.
const char* rapid_layouts() {
  static const std::string lines = layouts();
  return lines.c_str();
}

// Whether the library has the paths that are written for vectors with bfloat16 products.
int rapid_fast_path() {
#if RAPID_WIDE
  return 1;
#else
  return 0;
#endif
}

}  // extern "C"
