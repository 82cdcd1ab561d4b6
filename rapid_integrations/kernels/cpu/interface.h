// What passes between Python and the kernels. `interface.py` mirrors these structs, and `layouts.cpp` lists their fields:
// a library whose list differs from Python's is not used.

#pragma once

#include <cstdint>

extern "C" {

struct Matrix {  // (rows, columns), x -> x W^T + bias
  int32_t kind, rows, columns, parts;
  const void* data;   // BF16: bf16; PARTS: so many `parts` (Matrix), one below the other; else panels, see below
  const void* scale;  // INT8: bf16 (rows,)
  const void* bias;   // bf16 (rows,) or null; of PARTS each has its own
};

// INT8: weight = (level - 128) * scale. INT4: weight = (level - 8) * scale + zero, in groups of 32 columns. 16 rows are a
// panel (of INT8 the last one is filled up), and a panel is one group of columns after another. Of a group of INT8, the 64
// bytes number c / 4 have the levels of columns c = 4 q to 4 q + 3: byte 4 row + c % 4. Of a group of INT4, the 64 bytes
// number c / 8 have columns c = 8 q to 8 q + 7: byte 4 row + c % 4, its low half if c % 8 < 4. Behind these 256 bytes are
// the rows' scales (bf16) and their zeros (bf16). The formats of GGUF files are in `blocks.h`; like INT8's, their last panel is
// filled up. The first row of a part is a multiple of 16.

struct Norm {  // of some numbers: (x - mean) / sqrt(mean square + eps) * (weight + offset) + bias
  int32_t kind;               // see NormKind; only LAYER_NORM takes the mean away
  int32_t scope;              // of queries and keys: see NormScope
  float eps, offset;
  const void *weight, *bias;  // bf16; null stands for ones and for zeros
};

struct Rope {  // how the heads of a layer are rotated
  int32_t first, pairs;       // columns of the tables; no pairs: not at all
  int32_t interleaved;        // a pair lies together, and not half of the rotated numbers apart
  int32_t norm_behind;        // queries and keys are normalised behind the rotation, and not before it
};

struct Sight {  // which keys a query sees, and what becomes of its scores
  int64_t window;             // keys, its own included; 0: all
  int64_t chunk;              // keys of the chunk of so many positions that it lies in; 0: all
  float scale;                // score = scale * q k
  float softcap;              // and then softcap * tanh(score / softcap); 0: not so
};

struct Branches {  // norms where experts stand beside an MLP: the layer adds after_mlp(MLP) + after(experts), normalised
  Norm router, before;        // of what the router and the experts read: the same rows as the MLP
  Norm after, after_mlp;      // of what the experts and the MLP give
};

struct Experts {  // matrices of which each row takes a few
  int32_t count, taken;       // how many there are, and how many a row takes
  int32_t routing;            // see Routing
  int32_t normalised;         // the weights of those taken are divided by their sum
  int32_t groups, groups_taken;  // only experts of the best groups are taken
  int32_t widest;             // intermediate numbers of one expert, at most
  int32_t shared;             // 1: one more expert, the last one, is taken by every row, 2: with a gate of its own
  float scale;                // of the weights
  int32_t scales_inputs;      // the weights are factors on what experts read, and not on what they give
  int32_t group_best;         // best scores of a group that are summed, 1 or 2
  Matrix router;              // BF16 (count, hidden); the last row is the shared expert's gate if it has one
  const void* correction;     // float (count,), added to scores for the choice alone, or null
  const Matrix *gate_up, *down;  // one after another
  float logit_scale;          // factor on the router's outputs for experts
  const void* factors;        // float (count,), of each expert, on its weight after all else, or null
  const Branches* branches;   // null: they stand in place of an MLP
  float logit_softcap;        // the router's outputs become softcap * tanh(output / softcap) before all else; 0: not so
  int32_t by_outputs;         // experts are chosen by the router's outputs and the correction, and not by scores
  float shared_scale;         // the shared expert's weight, or a factor on it
  float near;                 // SPARSE_MIXER: scores that are further below the best, relative to the larger one, count as none
};

struct Latent {  // of multi-head latent attention; see `latents.h`
  int32_t rank, plain, rotated, value;
  Norm query, latent;         // of compressed queries, and of latents
  Matrix query_up;            // (heads (plain + rotated), ...), behind compressed queries; of no rows: they are not
  const Matrix *keys, *values;  // of each head (rank, plain), which a query is multiplied with, and (value, rank)
};

// By which a row of latent attention chooses the keys that it sees; see `indexer.h`. Of head h, q_h and w_h are a query and a
// weight of the row, and a key k has the score sum_h w_h relu(q_h k / sqrt(dim)) / sqrt(heads).
struct Indexer {
  int32_t heads, dim;
  int32_t slot;               // which of a cache's keys and values it has: halves of its own keys
  Matrix query, key;          // (heads dim, ...), behind compressed queries, and (dim, hidden)
  Matrix weights;             // BF16 (heads, hidden)
  Norm norm;                  // of keys
  Rope rope;
};

struct Recurrence {  // in place of an attention or beside it; see `recurrence.h`
  int32_t key_heads, value_heads, key_dim, value_dim;  // no heads: a short convolution between two gates
  int32_t channels, taps;     // numbers of a row that are convolved, and rows that a convolution reads
  int32_t together;           // numbers that the norm of a Mamba2 takes together
  int32_t tiled;              // value head h has the key head h % key_heads; else those of a key head lie together
  int32_t gates_behind;       // the gates of a Mamba2 come behind the norm, and not before it
  int32_t first;              // of the layer's qkv, the first row that is not the attention's
  int32_t sigmoid_gates, gelu_gates;  // a gate's factor is its sigmoid or its GELU (tanh), and not its SiLU
  int32_t blocks;             // of channels of an RG-LRU; none: it is another one
  float gate_factor, rate_factor;  // on what the products give of gates, and of what a Mamba2's rates are computed from
  float least_rate;           // a Mamba2's rates are at least so large
  float rate_scale;           // on the rates of a delta net
  float factor;               // on what `out` gives
  Matrix rates;               // BF16 (2 value_heads, hidden): rates, and behind them what decays are computed from; of a
                              // Mamba2 (value_heads, hidden); with `decay_up` rates, and what that and `gate_up` read
  Matrix decay_up, gate_up;   // BF16 (value_heads key_dim, ...) and (value_heads value_dim, ...): of a delta net of which each
                              // number of a key has a decay of its own, and in place of gates among the layer's qkv; of no
                              // rows: it is another one
  Matrix selected, step_up;   // BF16 (R + 2 key_dim, channels) and (channels, R, or more with zeros): of a Mamba, behind convolved
                              // values: what steps are computed from, the key and the query. There are no `rates` then.
                              // Of no rows: it is another one
  Norm step_norm, key_norm, query_norm;  // of what `selected` gives
  const Matrix* gates;        // BF16 (2 W, W), of each block of W channels of an RG-LRU: gates of convolved values, and then of
                              // decays; there are no `rates` then
  Matrix out;                 // beside an attention: behind what heads give; of no rows: in place of one, and the layer has it
  Norm norm;                  // of what heads give; of a Mamba2 with weights of its own for each number of a row
  const float* tap;           // (taps, channels), factors of a row's numbers and of those before it, its own last
  const float* tap_bias;      // (channels,), or null
  const float *decay, *bias;  // (value_heads,): the logarithm of a decay is decay * softplus(x + bias); with `decay_up` there
                              // is a bias for each of its rows. Of a Mamba decays are (value_heads, key_dim, value_dim),
                              // below 0, and there is a bias for each channel. Of an RG-LRU they are (channels,), logarithms
                              // where the gate is open, and there are no biases
  const float* skip;          // (value_heads,), multiples of the values of a Mamba2, of a Mamba (channels,); null: it is a
                              // gated delta net
};

struct Adapter {  // of low rank, beside a matrix of which several layers share the weights: up (down x)
  Matrix down;                // BF16 (parts rank, columns)
  const Matrix* up;           // BF16 (rows, rank), of each part of `down`; what they give lies one behind the other
  int32_t parts;
};

struct Act {  // what is done to the gate of an MLP
  int32_t kind;               // see Activation
  float positive, negative;   // of XIELU: x above 0 becomes positive x^2 + slope x, and others negative (exp(min(x, least)) -
  float slope, least;         // 1 - x) + slope x (arXiv 2411.13010)
};

struct LayerInput {  // what a layer adds at its end: norm(projection(activation(gate(x)) * its input))
  Matrix gate, projection;    // (width, hidden) and (hidden, width)
  Norm norm;
  Act activation;
};

struct LayerInputs {  // of every layer: (norm(projection_scale * projection(x)) + scale * row of table) * factor
  int32_t width, tokens;      // numbers of a layer's input; rows of the table: other tokens have row 0
  const void* table;          // bf16 (tokens, layers width)
  Matrix projection;          // (layers width, hidden), of the rows of the decoder's own table
  Norm norm;                  // of (width,)
  float scale, projection_scale, factor;
};

struct Laurel {  // a learned augmented residual beside an attention: of what that reads, y + norm(right(left(y)))
  Matrix left, right;         // BF16 (numbers in between, hidden) and the other way round
  Norm norm;
};

struct Alternation {  // how a layer guesses and corrects n streams of states; see `alternation.h`
  Matrix router;              // BF16 (n, hidden), of the active stream, normalised
  Norm norm;
  float scale;                // of what the router says, before its tanh
  const void *prediction, *correction;  // bf16 (n n, n) and (n, n), of what the router says
  const void* output;         // bf16 (hidden,), factors on the active stream where the layer's own input meets it, or null
};

struct Streams {  // of states: how they are made of embedded rows, and become one before the final norm
  int32_t count, active;      // how many there are, and which one the layers compute
  const Matrix *spread, *merged;  // BF16 (hidden, hidden), of each one but the first
};

struct Layer {
  Matrix qkv, out, gate_up, down;  // the last two of no rows: there is no MLP
  Matrix aside;               // of rows: attention and MLP give nothing to the sum. The MLP reads what the attention gives, and
                              // the next layer reads this of what the MLP gives, added to the rows; it adds to the rows alone
  Norm before_attention, after_attention, before_mlp, after_mlp, query, key, value;
  Rope rope;
  Sight sight;
  const void* sinks;          // float (heads,), scores of a key without a value, or null
  const void* balance;        // float (heads + kv_heads, head_dim), factors of queries and keys as they are stored, or null
  const Experts* experts;     // in place of gate_up and down, or beside them, or null
  const Latent* latent;       // null: another attention; of all layers or of none, with the same numbers
  const LayerInput* input;    // null: there is none
  const Recurrence* recurrence;  // null: there is none; qkv has rows of its channels, and of gates behind them, or of a
                              // short convolution's gate before it, of that behind it, and of its values
  const Laurel* laurel;       // null: there is none
  const Alternation* alternation;  // of the model's streams: of all layers or of none
  const Adapter *qkv_adapter, *gate_up_adapter;  // beside these matrices, or null
  const Indexer* indexer;     // null: there is none
  int32_t heads, kv_heads, head_dim;  // of this layer; latent attention has one head of keys, of its rotated numbers
  int32_t slot, state;        // which of a cache's keys and values it has, and which of its states
  int32_t shares;             // an earlier layer has written them, and qkv has queries alone
  int32_t growth_every;       // queries are multiplied with 1 + growth_scale log(1 + floor((position + growth_ahead) /
  int32_t growth_ahead;       // growth_every)); growth_every is 0: they are not
  float growth_scale;
  float scale;                // factor on all that the layer gives
  Act activation;
  int32_t gated;              // gate_up has rows of the gate, and then those of what it is multiplied with
  int32_t parallel;           // attention and MLP read the same rows
  int32_t output_gates;       // qkv has behind the values so many gates for each head, one or head_dim; 0: none
  int32_t softplus_gates;     // a factor on what heads give is a gate's softplus, and not its sigmoid
  float attention_residual, mlp_residual;  // factors on what they add
  float gate_factor;          // on the gate of an MLP before its activation
  int32_t sparse;             // of which that is above a quantile of a normal distribution is taken, less the quantile
  float quantile;             // of the standard one
  int32_t chosen;             // keys that a row of latent attention sees: what `indexer` chooses, or has chosen in the
                              // newest layer before that has one; 0: all
  int32_t with_embedding;     // before_attention and qkv read rows (2 hidden,): the layer's, and behind them the embedded one
  float attention_kept;       // what attention and MLP give is added to so many times what their norms gave, and not to the
  float mlp_kept;             // rows before these; 0: it is not
};

struct Model {
  int32_t layers, hidden, heads, intermediate;  // heads: the most that a layer has
  int32_t vocabulary, turned; // turned: columns of the tables of cosines and sines
  const Layer* layer;
  Norm final_norm;
  Matrix head;
  const void* embedding;      // (vocabulary, hidden): bf16, or blocks as they lie in a file
  float embedding_scale, logit_scale, logit_softcap;  // softcap 0: none
  int32_t embedding_kind;
  const LayerInputs* inputs;  // null: there are none
  const Streams* streams;     // of states; null: there is one
  Norm embedding_norm;        // of embedded rows, and positions with them
};

struct Segment {  // rows of a cache that lie together; it ends where the next one begins
  int64_t begin, capacity;    // position of the first row, a multiple of 64; rows of each buffer
  void* const* keys;          // a slot: (kv_heads, capacity) rows, see KvKind
  void* const* values;
};

struct Rows {  // of one reader: a text with a cache of its own
  int32_t rows, keep;         // of the last `keep` rows the logits are wanted
  int64_t past;               // tokens before this step
  const int64_t* ids;         // (rows,): the tokens
  const int32_t* parents;     // (rows,): the row that a token follows, before its own, -1: the text; null: a chain
  const float *cos, *sin;     // (rows, turned): of one pair of numbers a column
  const void* learned;        // bf16 (rows, hidden): learned positions, which are added to embedded rows, or null
  int64_t segments;
  const Segment* segment;     // other readers may have the same ones, but for the last: new rows are written there
  // Of layers with recurrences, R of them; a text with a state is no tree.
  const float *state, *inputs;  // (R, value_heads, key_dim, value_dim) and (R, taps - 1, channels), before the recorded rows
  float *state_into, *inputs_into;  // the same behind the first `settled` of those, if there are any
  float* record;              // of each layer `recorded` rows of its channels and rates, and room for the new ones
  int64_t record_apart;       // numbers from one layer's rows to the next one's
  int32_t recorded, settled;
};

struct Step {  // one pass for all readers
  int32_t readers, threads;
  int32_t levels;             // of hidden states that are wanted, too
  int32_t kv;                 // how the rows of all caches are stored: see KvKind
  const Rows* reader;
  float* logits;              // (all readers' keep, vocabulary), one reader after another
  const int32_t* level;       // (levels,): what layer so and so reads; -1: what the head reads, of rows with logits
  float* states;              // (levels, all rows, hidden), in the order of the rows
  float* scratch;             // as many as rapid_step_floats says; one step at a time may use them
};

struct Rotation {  // of a prompt's queries and keys
  int32_t rows, heads, kv_heads, head_dim, threads, turned;
  Norm query, key;
  Rope rope;
  const void* qkv;              // bf16 (rows, heads + 2 kv_heads, head_dim)
  const float *cos, *sin;       // as in Rows
  void* out;                    // bf16 (rows, heads + kv_heads, head_dim)
};

struct Recurring {  // one recurrence over rows of a prompt
  const Recurrence* recurrence;
  int32_t rows, threads;
  const float* record;          // (rows, channels + rates)
  const float *state, *inputs;  // (value_heads, key_dim, value_dim) and (taps - 1, channels)
  float* state_into;            // the state behind them, or null
  float* out;                   // (rows, value_heads, value_dim)
};

struct Alternating {  // a prompt's rows where streams are guessed or corrected; all bf16
  const Alternation* alternation;
  int32_t rows, columns, threads, active;
  const void *streams, *computed;  // (streams, rows, columns), guesses where they are corrected, and (rows, columns)
  void *out, *scaled;           // as `streams`; the active one with its factors
};

struct LayerSegment {  // rows of one layer that lie together
  int64_t begin;              // as in Segment
  int64_t key_stride, value_stride;  // from one head to the next, in bytes; rows follow each other
  const void *keys, *values;
};

struct Attention {  // of the last `rows` of past + rows positions
  int32_t rows, heads, kv_heads, head_dim, threads;
  int32_t kv;                   // see KvKind
  Sight sight;
  const void* sinks;            // as in Layer
  int64_t past;
  int64_t row_stride, head_stride;  // of the queries, in elements; a head's numbers lie together
  int64_t segments;
  const LayerSegment* segment;
  const void* queries;
  void* out;                    // bf16 (rows, heads, head_dim)
  const void* taken;            // uint8 (kv_heads, rows / 64, (past + rows) / 64): which blocks of 64 keys a block of 64
                                // queries reads; past and rows are multiples of 64. Null: all
};

}  // extern "C"

enum Kind : int32_t {
  BF16 = 0, INT8 = 1, INT4 = 2, PARTS = 3,
  // Formats of GGUF files: 16 more than their numbers there.
  Q4_0 = 18, Q4_1 = 19, Q5_0 = 22, Q5_1 = 23, Q8_0 = 24, Q4_K = 28, Q5_K = 29, Q6_K = 30,
  MXFP4 = 55
};
enum NormKind : int32_t { NO_NORM = 0, RMS_NORM = 1, LAYER_NORM = 2 };
// Of queries and keys: each head with the same weights, each with its own, or all heads as one row.
enum NormScope : int32_t { EVERY_HEAD = 0, OWN_HEAD = 1, ALL_HEADS = 2 };
// CLIPPED_SWIGLU is GPT-OSS's: both are clipped at 7, and one is added to what the gate is multiplied with.
enum Activation : int32_t { SILU = 0, GELU_TANH = 1, GELU = 2, RELU_SQUARED = 3, CLIPPED_SWIGLU = 4, RELU = 5, XIELU = 6 };
// SPARSE_MIXER takes experts one after another: a weight is a softmax of the scores near the best one of those that are left.
enum Routing : int32_t { SOFTMAX = 0, SIGMOID = 1, SPARSE_MIXER = 2 };
// A cache's row of head_dim numbers: bf16, or int8 levels and behind them their scale (float).
enum KvKind : int32_t { KV_BF16 = 0, KV_INT8 = 1 };
