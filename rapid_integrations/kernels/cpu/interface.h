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

struct Layer {
  Matrix qkv, out, gate_up, down;
  const void *attention_norm, *mlp_norm;  // bf16
  const void *q_norm, *k_norm;            // bf16 (head_dim,) or null
  float attention_eps, mlp_eps, qk_eps, scale;
  int64_t window;  // keys that a query sees, its own included; 0: all
};

struct Model {
  int32_t layers, hidden, heads, kv_heads, head_dim, intermediate;
  const Layer* layer;
  const void* final_norm;
  float final_eps;
  int32_t vocabulary;
  Matrix head;
  const void* embedding;      // (vocabulary, hidden): bf16, or blocks as they lie in a file
  int32_t embedding_kind, reserved;
};

struct Segment {  // rows of a cache that lie together; it ends where the next one begins
  int64_t begin, capacity;    // position of the first row, a multiple of 64; rows of each buffer
  void* const* keys;          // a layer: bf16 (kv_heads, capacity, head_dim)
  void* const* values;
};

struct Rows {  // of one reader: a text with a cache of its own
  int32_t rows, keep;         // of the last `keep` rows the logits are wanted
  int64_t past;               // tokens before this step
  const int64_t* ids;         // (rows,): the tokens
  const int32_t* parents;     // (rows,): the row that a token follows, before its own, -1: the text; null: a chain
  const float *cos, *sin;     // (rows, head_dim), of the positions from `past` on; sin with its first half negated
  int64_t segments;
  const Segment* segment;     // other readers may have the same ones, but for the last: new rows are written there
};

struct Step {  // one pass for all readers
  int32_t readers, threads;
  const Rows* reader;
  float* logits;              // (all readers' keep, vocabulary), one reader after another
  float* scratch;             // as many as rapid_step_floats says; one step at a time may use them
};

struct Rotation {  // of a prompt's queries and keys
  int32_t rows, heads, kv_heads, head_dim, threads;
  float qk_eps;
  const void* qkv;              // bf16 (rows, heads + 2 kv_heads, head_dim)
  const void *q_norm, *k_norm;  // bf16 (head_dim,) or null
  const float *cos, *sin;       // as in Step
  void* out;                    // bf16 (rows, heads + kv_heads, head_dim)
};

struct LayerSegment {  // rows of one layer that lie together
  int64_t begin;              // as in Segment
  int64_t key_stride, value_stride;  // from one head to the next, in elements; rows follow each other
  const void *keys, *values;
};

struct Attention {  // of the last `rows` of past + rows positions
  int32_t rows, heads, kv_heads, head_dim, threads;
  float scale;
  int64_t past, window;         // window: as in Layer
  int64_t row_stride, head_stride;  // of the queries, in elements; a head's numbers lie together
  int64_t segments;
  const LayerSegment* segment;
  const void* queries;
  void* out;                    // bf16 (rows, heads, head_dim)
};

}  // extern "C"

enum Kind : int32_t {
  BF16 = 0, INT8 = 1, INT4 = 2, PARTS = 3,
  // Formats of GGUF files: 16 more than their numbers there.
  Q4_0 = 18, Q4_1 = 19, Q5_0 = 22, Q5_1 = 23, Q8_0 = 24, Q4_K = 28, Q5_K = 29, Q6_K = 30
};
