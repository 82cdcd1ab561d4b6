// One forward pass of a Llama-like decoder for a few new tokens (a decode or verify step), on a processor.
//
// A step reads every weight and every cached key and value once, for one to some thirty rows of input. What PyTorch's
// operators cost beyond that is calls, thread synchronisation and kernels made for many rows. Here the whole step is
// one parallel region. Activations are float32, and rounded to bfloat16 where they enter a product, as the model does.
//
// Every row is computed in the same order of operations whatever the number of rows, of threads or of tokens behind
// it: sums over a weight's columns run in one fixed order, and attention is split at absolute positions. A token thus
// gets bit for bit the same logits alone and among the drafts that are verified with it.
//
// Plain C interface, no PyTorch headers: it compiles in seconds. `native/__init__.py` mirrors the structs.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include <omp.h>

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    !defined(RAPID_PORTABLE)
#define RAPID_AVX512 1
#include <immintrin.h>
#endif

namespace {

using bf16 = uint16_t;

constexpr int GROUP = 32;   // int4 weights that share a scale and an offset
constexpr int CHUNK = 512;  // keys of one attention task; chunks begin at absolute positions
constexpr int TILE = 64;    // keys whose scores are formed together
constexpr int AHEAD = 1024; // bytes of a weight that are asked for before they are needed

inline float to_float(bf16 x) {
  uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline bf16 to_bf16(float x) {  // round to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return bf16((bits >> 16) | 0x40);  // NaN
  return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

enum Kind : int32_t { BF16 = 0, INT8 = 1, INT4 = 2 };

}  // namespace

extern "C" {

struct Matrix {  // (rows, columns), x -> x W^T + bias
  int32_t kind, rows, columns, reserved;
  const void* data;   // BF16: bf16; INT8: int8; INT4: per group of 32, byte i has element i low and 16 + i high
  const void* scale;  // INT8: bf16 (rows,); INT4: bf16 (rows, columns / 32)
  const void* zero;   // INT4: bf16 (rows, columns / 32): weight = (level - 8) * scale + zero
  const void* bias;   // bf16 (rows,) or null
};

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
  int32_t reserved;
  Matrix head;
};

struct Step {
  int32_t rows, keep, threads, reserved;
  int64_t past, capacity;     // tokens before this step; rows of each cache buffer
  float* x;                   // (rows, hidden): the embedded tokens; overwritten
  const float *cos, *sin;     // (rows, head_dim); sin with its first half negated
  void* const* keys;          // a layer: bf16 (kv_heads, capacity, head_dim)
  void* const* values;
  float* logits;              // (keep, vocabulary)
};

}  // extern "C"

namespace {

// ---------------------------------------------------------------- products of a weight's rows with a few inputs

struct Input {  // rows of bfloat16, `stride` apart, and the sums of their groups for int4
  const bf16* x;
  const float* group_sums;
  int columns;
  size_t stride;
};

// Rows whose distance is a power of two would fall on the same lines of a cache.
inline size_t padded(int columns) { return size_t(columns) + 32; }

#if RAPID_AVX512

inline float sum16(__m512 v) { return _mm512_reduce_add_ps(v); }

inline __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

inline __m512bh load_bf16(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

// Sums of the lanes of N <= 16 vectors, all in the order of additions that one vector's sum has.
template <int N>
inline void sums(const __m512* v, float* out) {
  constexpr int quads = (N + 3) / 4;
  __m512 quad[4];
  for (int k = 0; k < 4; k++) {
    if (k >= quads) {
      quad[k] = _mm512_setzero_ps();
      continue;
    }
    auto at = [&](int i) { return 4 * k + i < N ? v[4 * k + i] : _mm512_setzero_ps(); };
    auto halves = [](__m512 a, __m512 b) {  // lane i and i + 8
      return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    };
    const __m512 ab = halves(at(0), at(1)), cd = halves(at(2), at(3));
    quad[k] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));  // i and i + 4
  }
  auto pairs = [](__m512 a, __m512 b) {  // i and i + 2
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  };
  const __m512 p = pairs(quad[0], quad[1]), q = pairs(quad[2], quad[3]);
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, _mm512_add_ps(_mm512_shuffle_ps(p, q, 0x88), _mm512_shuffle_ps(p, q, 0xdd)));
  for (int i = 0; i < N; i++) out[i] = lanes[i % 4 * 4 + i / 4];
}

struct LoadBf16 {
  static constexpr int bytes_per_32 = 64;
  static inline __m512bh get(const uint8_t* p) { return load_bf16(p); }
};

struct LoadInt8 {
  static constexpr int bytes_per_32 = 32;
  static inline __m512bh get(const uint8_t* p) {
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(p + 16))));
    return _mm512_cvtne2ps_pbh(high, low);
  }
};

alignas(64) const bf16 LEVELS[32] = {  // level - 8 as bfloat16; twice, so that the fifth bit of an index is ignored
    0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80, 0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0,
    0x40C0, 0x40E0, 0xC100, 0xC0E0, 0xC0C0, 0xC0A0, 0xC080, 0xC040, 0xC000, 0xBF80, 0x0000, 0x3F80, 0x4000, 0x4040,
    0x4080, 0x40A0, 0x40C0, 0x40E0};

struct LoadInt4 {
  static constexpr int bytes_per_32 = 16;
  static inline __m512bh get(const uint8_t* p) {
    __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(pairs), _mm256_srli_epi16(pairs, 4), 1);
    return (__m512bh)_mm512_permutexvar_epi16(both, _mm512_load_si512(LEVELS));
  }
};

// out[r * T + t] for R rows of the weight and T rows of input; every sum is one chain over the columns. The weight is
// read strictly in the order in which it lies in memory, once for all inputs: that is what the processor fetches ahead
// best (two rows at a time ran at less than half the speed).
template <class Load, int R, int T>
inline void dots(const uint8_t* w, const bf16* scale, const Input& in, float* out) {
  __m512 all[R][T];
  for (int r = 0; r < R; r++) {
    __m512 acc[T];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      _mm_prefetch((const char*)w + AHEAD, _MM_HINT_T0);
      const __m512bh weights = Load::get(w);
      const bf16* x = in.x + k;
      if constexpr (std::is_same_v<Load, LoadInt4>) {
        const __m512 s = _mm512_set1_ps(to_float(*scale++)), zero = _mm512_setzero_ps();
        for (int t = 0; t < T; t++)
          acc[t] = _mm512_fmadd_ps(_mm512_dpbf16_ps(zero, weights, load_bf16(x + t * in.stride)), s, acc[t]);
      } else {
        for (int t = 0; t < T; t++) acc[t] = _mm512_dpbf16_ps(acc[t], weights, load_bf16(x + t * in.stride));
      }
    }
    for (int t = 0; t < T; t++) all[r][t] = acc[t];
  }
  sums<R * T>(&all[0][0], out);
}

inline float dot_zero(const bf16* zero, const float* sums, int groups) {
  __m512 acc = _mm512_setzero_ps();
  for (int g = 0; g < groups; g += 16) {
    __mmask16 mask = groups - g >= 16 ? 0xffff : __mmask16((1u << (groups - g)) - 1);
    acc = _mm512_fmadd_ps(widen(_mm256_maskz_loadu_epi16(mask, zero + g)), _mm512_maskz_loadu_ps(mask, sums + g), acc);
  }
  return sum16(acc);
}

#else

struct LoadBf16 {
  static constexpr int bytes_per_32 = 64;
  static inline float get(const uint8_t* p, int i) { return to_float(((const bf16*)p)[i]); }
};
struct LoadInt8 {
  static constexpr int bytes_per_32 = 32;
  static inline float get(const uint8_t* p, int i) { return float(((const int8_t*)p)[i]); }
};
struct LoadInt4 {
  static constexpr int bytes_per_32 = 16;
  static inline float get(const uint8_t* p, int i) { return float((i < 16 ? p[i] & 15 : p[i - 16] >> 4) - 8); }
};

template <class Load, int R, int T>
inline void dots(const uint8_t* w, const bf16* scale, const Input& in, float* out) {
  for (int r = 0; r < R; r++) {
    float acc[T][GROUP] = {};  // the lanes of a vector of 32
    for (int k = 0; k < in.columns; k += 32, w += Load::bytes_per_32) {
      float weights[GROUP];
      const float s = std::is_same_v<Load, LoadInt4> ? to_float(*scale++) : 1.0f;
      for (int i = 0; i < GROUP; i++) weights[i] = Load::get(w, i) * s;
      for (int t = 0; t < T; t++) {
        const bf16* x = in.x + t * in.stride + k;
        for (int i = 0; i < GROUP; i++) acc[t][i] += weights[i] * to_float(x[i]);
      }
    }
    for (int t = 0; t < T; t++) {
      float total = 0;
      for (int i = 0; i < GROUP; i++) total += acc[t][i];
      out[r * T + t] = total;
    }
  }
}

inline float dot_zero(const bf16* zero, const float* sums, int groups) {
  float total = 0;
  for (int g = 0; g < groups; g++) total += to_float(zero[g]) * sums[g];
  return total;
}

#endif

struct Output {  // element (t, row) of a product goes to data[t * stride + row - first]
  float* data;
  size_t stride;
  int first;
};

template <class Load, int T>
void product_rows(const Matrix& m, int first, int last, const Input& in, int t0, const Output& to) {
  constexpr int R = T <= 4 ? 4 : 2;  // weight rows whose sums are formed together
  constexpr bool int4 = std::is_same_v<Load, LoadInt4>;
  const int groups = m.columns / GROUP;
  const size_t stride = size_t(m.columns / 32) * Load::bytes_per_32;
  const uint8_t* data = (const uint8_t*)m.data;
  const bf16 *scale = (const bf16*)m.scale, *zero = (const bf16*)m.zero, *bias = (const bf16*)m.bias;
  const Input part{in.x + t0 * in.stride, in.group_sums + size_t(t0) * groups, in.columns, in.stride};
  float out[R * T];
  for (int row = first; row < last;) {
    const bool whole = row + R <= last;
    const int count = whole ? R : 1;
    const bf16* scales = int4 ? scale + size_t(row) * groups : nullptr;
    if (whole)
      dots<Load, R, T>(data + row * stride, scales, part, out);
    else
      dots<Load, 1, T>(data + row * stride, scales, part, out);
    for (int r = 0; r < count; r++, row++)
      for (int t = 0; t < T; t++) {
        float value = out[r * T + t];
        if constexpr (int4) value += dot_zero(zero + size_t(row) * groups, part.group_sums + size_t(t) * groups, groups);
        if constexpr (std::is_same_v<Load, LoadInt8>) value *= to_float(scale[row]);
        if (bias) value += to_float(bias[row]);
        to.data[size_t(t0 + t) * to.stride + row - to.first] = value;
      }
  }
}

template <class Load>
void product_of(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  constexpr int BLOCK = 32;  // weight rows that stay in the nearest caches while the inputs pass by
  for (int start = first; start < last; start += BLOCK) {
    const int end = std::min(last, start + BLOCK);
    for (int t = 0; t < rows;) {
      switch (std::min(rows - t, 8)) {
        case 1: product_rows<Load, 1>(m, start, end, in, t, to); t += 1; break;
        case 2: product_rows<Load, 2>(m, start, end, in, t, to); t += 2; break;
        case 3: product_rows<Load, 3>(m, start, end, in, t, to); t += 3; break;
        case 4: product_rows<Load, 4>(m, start, end, in, t, to); t += 4; break;
        case 5: product_rows<Load, 5>(m, start, end, in, t, to); t += 5; break;
        case 6: product_rows<Load, 6>(m, start, end, in, t, to); t += 6; break;
        case 7: product_rows<Load, 7>(m, start, end, in, t, to); t += 7; break;
        default: product_rows<Load, 8>(m, start, end, in, t, to); t += 8; break;
      }
    }
  }
}

// Products of weight rows [first, last) with `rows` inputs.
void product(const Matrix& m, int first, int last, const Input& in, int rows, const Output& to) {
  switch (m.kind) {
    case INT8: return product_of<LoadInt8>(m, first, last, in, rows, to);
    case INT4: return product_of<LoadInt4>(m, first, last, in, rows, to);
    default: return product_of<LoadBf16>(m, first, last, in, rows, to);
  }
}

// ---------------------------------------------------------------- attention

struct Partial {  // of one chunk: running maximum and sum of exp for each row, and the weighted values
  float* max;   // (tasks, G * T)
  float* sum;
  float* mixed;  // (tasks, G * T, D)
};

struct Span {  // keys that a query sees: [begin, end)
  int64_t begin, end;
};

inline Span seen_by(int64_t past, int t, int64_t window) {
  const int64_t end = past + t + 1;
  return {window ? std::max<int64_t>(0, end - window) : 0, end};
}

#if RAPID_AVX512

inline __m512 exp512(__m512 x) {  // relative error about 2e-7; for x <= 0
  x = _mm512_max_ps(x, _mm512_set1_ps(-104.0f));
  __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
  __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.9875691e-4f);
  for (float c : {1.3981999e-3f, 8.3334519e-3f, 4.1665796e-2f, 1.6666665e-1f, 5.0000001e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

inline void transpose16(__m512i r[16]) {  // 16 x 16 of 32 bits
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Scores of N rows with a tile of 64 keys; `packed` (D / 2, 64) has pairs of dimensions, a key a lane.
template <int D, int N>
inline void tile_scores(const bf16* q, const uint32_t* packed, float scale, float* scores, const bf16* ahead) {
  __m512 acc[N][4];
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++) acc[n][i] = _mm512_setzero_ps();
  for (int d = 0; d < D / 2; d++) {
    for (int i = 0; i < 4; i++) _mm_prefetch((const char*)(ahead + size_t(4 * d + i) * 32), _MM_HINT_T1);
    __m512bh k[4];
    for (int i = 0; i < 4; i++) k[i] = load_bf16(packed + d * TILE + 16 * i);
    for (int n = 0; n < N; n++) {
      int32_t pair;
      std::memcpy(&pair, q + n * D + 2 * d, 4);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int i = 0; i < 4; i++) acc[n][i] = _mm512_dpbf16_ps(acc[n][i], k[i], both);
    }
  }
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 4; i++)
      _mm512_storeu_ps(scores + n * TILE + 16 * i, _mm512_mul_ps(acc[n][i], _mm512_set1_ps(scale)));
}

// mixed (N, D) += weights (N, 64) x values; `packed` (32, D) has pairs of keys, a dimension a lane.
template <int N>
inline void tile_mix(const bf16* weights, const uint32_t* packed, int D, float* mixed, const bf16* ahead) {
  for (int d = 0; d < D; d += 32) {
    __m512 acc[N][2];
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 2; i++) acc[n][i] = _mm512_loadu_ps(mixed + n * D + d + 16 * i);
    for (int j = 0; j < TILE / 2; j++) {
      for (int i = 0; i < 2; i++, ahead += 32) _mm_prefetch((const char*)ahead, _MM_HINT_T1);
      const __m512bh v0 = load_bf16(packed + j * D + d), v1 = load_bf16(packed + j * D + d + 16);
      for (int n = 0; n < N; n++) {
        int32_t pair;
        std::memcpy(&pair, weights + n * TILE + 2 * j, 4);
        const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
        acc[n][0] = _mm512_dpbf16_ps(acc[n][0], v0, both);
        acc[n][1] = _mm512_dpbf16_ps(acc[n][1], v1, both);
      }
    }
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 2; i++) _mm512_storeu_ps(mixed + n * D + d + 16 * i, acc[n][i]);
  }
}

template <int D>
void attend_chunk(const bf16* q, int rows, int T, const bf16* keys, const bf16* values, int64_t begin, int64_t end,
                  int64_t past, int64_t window, float scale, float* row_max, float* row_sum, float* mixed,
                  std::vector<float>& scratch) {
  scratch.resize(size_t(D / 2) * TILE + size_t(TILE / 2) * D + size_t(rows) * TILE * 2 + 64);
  uint32_t* packed_keys = (uint32_t*)scratch.data();
  uint32_t* packed_values = packed_keys + size_t(D / 2) * TILE;
  float* scores = (float*)(packed_values + size_t(TILE / 2) * D);
  bf16* weights = (bf16*)(scores + size_t(rows) * TILE);
  std::fill(row_max, row_max + rows, -std::numeric_limits<float>::infinity());
  std::fill(row_sum, row_sum + rows, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * D, 0.0f);
  const __m512i order0 = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i order1 = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int64_t j0 = begin; j0 < end; j0 += TILE) {
    const int present = int(std::min<int64_t>(TILE, end - j0));
    for (int i = 0; i < TILE; i += 16)
      for (int d = 0; d < D; d += 32) {
        __m512i r[16];
        for (int j = 0; j < 16; j++)
          r[j] = i + j < present ? _mm512_loadu_si512(keys + (j0 + i + j) * D + d) : _mm512_setzero_si512();
        transpose16(r);
        for (int j = 0; j < 16; j++) _mm512_storeu_si512(packed_keys + (d / 2 + j) * TILE + i, r[j]);
      }
    for (int j = 0; j < TILE; j += 2)
      for (int d = 0; d < D; d += 32) {
        const __m512i zero = _mm512_setzero_si512();
        const __m512i a = j < present ? _mm512_loadu_si512(values + (j0 + j) * D + d) : zero;
        const __m512i b = j + 1 < present ? _mm512_loadu_si512(values + (j0 + j + 1) * D + d) : zero;
        const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
        _mm512_storeu_si512(packed_values + (j / 2) * D + d, _mm512_permutex2var_epi32(low, order0, high));
        _mm512_storeu_si512(packed_values + (j / 2) * D + d + 16, _mm512_permutex2var_epi32(low, order1, high));
      }
    int r = 0;
    for (; r + 4 <= rows; r += 4) tile_scores<D, 4>(q + r * D, packed_keys, scale, scores + r * TILE, keys + (j0 + TILE) * D);
    switch (rows - r) {
      case 3: tile_scores<D, 3>(q + r * D, packed_keys, scale, scores + r * TILE, keys + (j0 + TILE) * D); break;
      case 2: tile_scores<D, 2>(q + r * D, packed_keys, scale, scores + r * TILE, keys + (j0 + TILE) * D); break;
      case 1: tile_scores<D, 1>(q + r * D, packed_keys, scale, scores + r * TILE, keys + (j0 + TILE) * D); break;
    }
    for (r = 0; r < rows; r++) {
      const Span span = seen_by(past, r % T, window);
      const int64_t from = std::max<int64_t>(0, span.begin - j0), to = std::min<int64_t>(TILE, span.end - j0);
      bf16* w = weights + r * TILE;
      if (to <= from) {
        std::memset(w, 0, TILE * sizeof(bf16));
        continue;
      }
      const uint64_t visible = (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
      __m512 s[4], top = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
      for (int i = 0; i < 4; i++) {
        s[i] = _mm512_loadu_ps(scores + r * TILE + 16 * i);
        top = _mm512_mask_max_ps(top, __mmask16(visible >> (16 * i)), top, s[i]);
      }
      const float highest = std::max(row_max[r], _mm512_reduce_max_ps(top));
      if (highest > row_max[r]) {
        const float shrink = std::exp(row_max[r] - highest);  // 0 for the first tile
        row_sum[r] *= shrink;
        for (int d = 0; d < D; d += 16)
          _mm512_storeu_ps(mixed + r * D + d, _mm512_mul_ps(_mm512_loadu_ps(mixed + r * D + d), _mm512_set1_ps(shrink)));
        row_max[r] = highest;
      }
      __m512 total = _mm512_setzero_ps();
      for (int i = 0; i < 4; i++) {
        __m512 e = _mm512_maskz_mov_ps(__mmask16(visible >> (16 * i)), exp512(_mm512_sub_ps(s[i], _mm512_set1_ps(highest))));
        total = _mm512_add_ps(total, e);
        _mm256_storeu_si256((__m256i*)(w + 16 * i), (__m256i)_mm512_cvtneps_pbh(e));
      }
      row_sum[r] += sum16(total);
    }
    for (r = 0; r + 4 <= rows; r += 4) tile_mix<4>(weights + r * TILE, packed_values, D, mixed + r * D, values + (j0 + TILE) * D);
    switch (rows - r) {
      case 3: tile_mix<3>(weights + r * TILE, packed_values, D, mixed + r * D, values + (j0 + TILE) * D); break;
      case 2: tile_mix<2>(weights + r * TILE, packed_values, D, mixed + r * D, values + (j0 + TILE) * D); break;
      case 1: tile_mix<1>(weights + r * TILE, packed_values, D, mixed + r * D, values + (j0 + TILE) * D); break;
    }
  }
}

inline bool head_dim_served(int d) { return d == 32 || d == 64 || d == 96 || d == 128 || d == 256; }

void attend(int D, const bf16* q, int rows, int T, const bf16* keys, const bf16* values, int64_t begin, int64_t end,
            int64_t past, int64_t window, float scale, float* m, float* l, float* mixed, std::vector<float>& scratch) {
  switch (D) {
    case 32: return attend_chunk<32>(q, rows, T, keys, values, begin, end, past, window, scale, m, l, mixed, scratch);
    case 64: return attend_chunk<64>(q, rows, T, keys, values, begin, end, past, window, scale, m, l, mixed, scratch);
    case 96: return attend_chunk<96>(q, rows, T, keys, values, begin, end, past, window, scale, m, l, mixed, scratch);
    case 128: return attend_chunk<128>(q, rows, T, keys, values, begin, end, past, window, scale, m, l, mixed, scratch);
    default: return attend_chunk<256>(q, rows, T, keys, values, begin, end, past, window, scale, m, l, mixed, scratch);
  }
}

#else

inline bool head_dim_served(int) { return true; }

void attend(int D, const bf16* q, int rows, int T, const bf16* keys, const bf16* values, int64_t begin, int64_t end,
            int64_t past, int64_t window, float scale, float* m, float* l, float* mixed, std::vector<float>& scratch) {
  scratch.resize(size_t(TILE) * (D + 1) + D);
  float *wide = scratch.data(), *weights = wide + size_t(TILE) * D, *query = weights + TILE;
  std::fill(m, m + rows, -std::numeric_limits<float>::infinity());
  std::fill(l, l + rows, 0.0f);
  std::fill(mixed, mixed + size_t(rows) * D, 0.0f);
  for (int64_t j0 = begin; j0 < end; j0 += TILE) {
    for (int r = 0; r < rows; r++) {
      const Span span = seen_by(past, r % T, window);
      const int from = int(std::max<int64_t>(0, span.begin - j0)), to = int(std::min<int64_t>(TILE, span.end - j0));
      if (to <= from) continue;
      for (int d = 0; d < D; d++) query[d] = to_float(q[r * D + d]);
      float highest = m[r];
      for (int j = from; j < to; j++) {
        float lanes[16] = {};
        const bf16* key = keys + (j0 + j) * D;
        for (int d = 0; d + 16 <= D; d += 16)
          for (int i = 0; i < 16; i++) lanes[i] += query[d + i] * to_float(key[d + i]);
        float dot = 0;
        for (int d = D / 16 * 16; d < D; d++) dot += query[d] * to_float(key[d]);
        for (int i = 0; i < 16; i++) dot += lanes[i];
        weights[j] = dot * scale;
        highest = std::max(highest, weights[j]);
      }
      float* mix = mixed + size_t(r) * D;
      const float shrink = std::exp(m[r] - highest);
      l[r] *= shrink;
      for (int d = 0; d < D; d++) mix[d] *= shrink;
      m[r] = highest;
      for (int j = from; j < to; j++) {
        const float e = std::exp(weights[j] - highest);
        l[r] += e;
        const float rounded = to_float(to_bf16(e));
        const bf16* value = values + (j0 + j) * D;
        for (int d = 0; d < D; d++) mix[d] += rounded * to_float(value[d]);
      }
    }
  }
}

#endif

// ---------------------------------------------------------------- the step

void norm(const float* x, const bf16* weight, float eps, int n, bf16* out) {
  float squares[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) squares[j] += x[i + j] * x[i + j];
  float total = 0;
  for (; i < n; i++) total += x[i] * x[i];
  for (int j = 0; j < 16; j++) total += squares[j];
  const float factor = 1.0f / std::sqrt(total / n + eps);
  for (i = 0; i < n; i++) out[i] = to_bf16(x[i] * factor * to_float(weight[i]));
}

void sum_groups(const bf16* x, int rows, int columns, float* sums) {
  for (int t = 0; t < rows; t++, x += padded(columns))
    for (int g = 0; g < columns / GROUP; g++) {
      float total = 0;
      for (int i = 0; i < GROUP; i++) total += to_float(x[g * GROUP + i]);
      *sums++ = total;
    }
}

// out = silu(gate) * up
void silu_times(const float* gate, const float* up, int n, bf16* out) {
  int i = 0;
#if RAPID_AVX512
  for (; i + 16 <= n; i += 16) {  // silu(x) = x / (1 + exp(-x)); exp(-|x|) is what exp512 computes
    const __m512 g = _mm512_loadu_ps(gate + i), one = _mm512_set1_ps(1.0f);
    const __m512 e = exp512(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(g)));
    const __m512 top = _mm512_mask_mov_ps(one, _mm512_cmp_ps_mask(g, _mm512_setzero_ps(), _CMP_LT_OQ), e);
    const __m512 silu = _mm512_div_ps(_mm512_mul_ps(g, top), _mm512_add_ps(one, e));
    _mm256_storeu_si256((__m256i*)(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(silu, _mm512_loadu_ps(up + i))));
  }
#endif
  for (; i < n; i++) out[i] = to_bf16(gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
}

// Waits by spinning for some microseconds, which is what the others need, and then lets other processes run: OpenMP's own
// barrier either sleeps at once or, beside a busy process, spins for milliseconds on a thread that is not scheduled.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  void wait() {
    const int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) {
      if (spins < 2000)
        relax();
      else
        std::this_thread::yield();
    }
  }

 private:
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const int threads_;
  std::atomic<int> arrived_{0}, phase_{0};
};

struct Share {  // of `count` things, in whole blocks, for one of the threads
  int first, last;
};

Share share(int count, int block, int thread, int threads) {
  const int blocks = (count + block - 1) / block;
  const int first = int(int64_t(blocks) * thread / threads), last = int(int64_t(blocks) * (thread + 1) / threads);
  return {std::min(count, first * block), std::min(count, last * block)};
}

float* align(float* p) { return (float*)((uintptr_t(p) + 63) / 64 * 64); }

thread_local std::vector<float> buffers;          // of the calling thread: what the threads share
thread_local std::vector<float> own_space;  // of each thread: attention's tiles, results on their way
thread_local std::vector<float> own_input;        // of each thread: normalised rows and their group sums

}  // namespace

extern "C" {

int rapid_abi() { return 1; }

int rapid_fast_path() {
#if RAPID_AVX512
  return 1;
#else
  return 0;
#endif
}

int rapid_serves_head_dim(int head_dim) { return head_dim_served(head_dim) ? 1 : 0; }

void rapid_decode_step(const Model* model, const Step* step) {
  const int T = step->rows, E = model->hidden, H = model->heads, KV = model->kv_heads, D = model->head_dim;
  const int I = model->intermediate, G = H / KV, wide = (H + 2 * KV) * D;
  const int64_t total = step->past + T;
  const int chunks = int((total + CHUNK - 1) / CHUNK), tasks = KV * chunks, attention_rows = G * T;
  const int widest = std::max({E, I, H * D});

  size_t floats = 0;
  auto reserve = [&](size_t n) { size_t at = floats; floats += (n + 15) / 16 * 16; return at; };
  const size_t at_qkv = reserve(size_t(T) * wide), at_q = reserve(size_t(T) * H * D / 2 + 16);
  const size_t at_max = reserve(size_t(tasks) * attention_rows), at_sum = reserve(size_t(tasks) * attention_rows);
  const size_t at_mixed = reserve(size_t(tasks) * attention_rows * D);
  const size_t at_heads = reserve(T * padded(H * D) / 2), at_hidden = reserve(T * padded(I) / 2);
  if (buffers.size() < floats + 16) buffers.resize(floats + 16);
  float* base = align(buffers.data());
  float* qkv = base + at_qkv;
  bf16* q = (bf16*)(base + at_q);            // (KV, G * T, D)
  const Partial partial{base + at_max, base + at_sum, base + at_mixed};
  bf16* by_head = (bf16*)(base + at_heads);  // (T, H * D), padded
  bf16* hidden = (bf16*)(base + at_hidden);  // (T, I), padded
  float* x = step->x;
  std::atomic<int> next{0};
  std::unique_ptr<Barrier> team;

#pragma omp parallel num_threads(step->threads)
  {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
#pragma omp single
    team = std::make_unique<Barrier>(threads);  // the system may give fewer threads than were asked for
    Barrier& barrier = *team;
    own_input.resize(T * padded(widest) / 2 + T * (widest / GROUP + 1) + 32);
    float* aligned = align(own_input.data());
    bf16* mine = (bf16*)aligned;
    std::vector<float>& space = own_space;
    float* sums = aligned + T * padded(widest) / 2;

    auto normed = [&](const bf16* weight, float eps, int from, const Matrix& m) {
      for (int t = from; t < T; t++) norm(x + size_t(t) * E, weight, eps, E, mine + (t - from) * padded(E));
      if (m.kind == INT4) sum_groups(mine, T - from, E, sums);
      return Input{mine, sums, E, padded(E)};
    };
    auto given = [&](const bf16* rows, int from, int columns, const Matrix& m) {
      const bf16* first = rows + from * padded(columns);
      if (m.kind == INT4) sum_groups(first, T - from, columns, sums);
      return Input{first, sums, columns, padded(columns)};
    };

    auto add_product = [&](const Matrix& m, Share s, const Input& in, int from) {
      const int count = s.last - s.first;
      space.resize(std::max(space.size(), size_t(T) * count));
      product(m, s.first, s.last, in, T - from, {space.data(), size_t(count), s.first});
      for (int t = from; t < T; t++)
        for (int o = 0; o < count; o++) x[size_t(t) * E + s.first + o] += space[size_t(t - from) * count + o];
    };

    for (int index = 0; index < model->layers; index++) {
      const Layer& layer = model->layer[index];
      const int from = index == model->layers - 1 ? T - step->keep : 0;  // of the last layer only what is asked for
      bf16 *keys = (bf16*)step->keys[index], *values = (bf16*)step->values[index];

      {
        const Input in = normed((const bf16*)layer.attention_norm, layer.attention_eps, 0, layer.qkv);
        const Share s = share(wide, 8, thread, threads);
        product(layer.qkv, s.first, s.last, in, T, {qkv, size_t(wide), 0});
      }
      barrier.wait();
      for (int i = thread; i < T * (H + 2 * KV); i += threads) {
        const int t = i / (H + 2 * KV), head = i % (H + 2 * KV);
        float* v = qkv + size_t(t) * wide + size_t(head) * D;
        if (head >= H + KV) {
          bf16* row = values + (size_t(head - H - KV) * step->capacity + step->past + t) * D;
          for (int d = 0; d < D; d++) row[d] = to_bf16(v[d]);
          continue;
        }
        const bool key = head >= H;
        if (const bf16* weight = (const bf16*)(key ? layer.k_norm : layer.q_norm)) {
          float squares = 0;
          for (int d = 0; d < D; d++) squares += v[d] * v[d];
          const float factor = 1.0f / std::sqrt(squares / D + layer.qk_eps);
          for (int d = 0; d < D; d++) v[d] *= factor * to_float(weight[d]);
        }
        const float *cos = step->cos + size_t(t) * D, *sin = step->sin + size_t(t) * D;
        bf16* row = key ? keys + (size_t(head - H) * step->capacity + step->past + t) * D
                        : q + ((size_t(head / G) * G + head % G) * T + t) * D;
        for (int d = 0; d < D; d++) row[d] = to_bf16(v[d] * cos[d] + v[(d + D / 2) % D] * sin[d]);
      }
      if (thread == 0) next.store(0);
      barrier.wait();
      const int64_t oldest = seen_by(step->past, 0, layer.window).begin;
      for (int task = next++; task < tasks; task = next++) {
        const int kv = task / chunks;
        const int64_t begin = int64_t(task % chunks) * CHUNK, end = std::min(total, begin + CHUNK);
        const int64_t first = begin >= oldest ? begin : begin + std::min<int64_t>(oldest - begin, CHUNK) / TILE * TILE;
        attend(D, q + size_t(kv) * attention_rows * D, attention_rows, T, keys + size_t(kv) * step->capacity * D,
               values + size_t(kv) * step->capacity * D, first, end, step->past, layer.window, layer.scale,
               partial.max + size_t(task) * attention_rows, partial.sum + size_t(task) * attention_rows,
               partial.mixed + size_t(task) * attention_rows * D, space);
      }
      barrier.wait();
      for (int i = thread; i < H * (T - from); i += threads) {
        const int head = i % H, t = from + i / H, row = (head % G) * T + t;
        float highest = -std::numeric_limits<float>::infinity(), sum = 0;
        auto at = [&](int c) { return (size_t(head / G) * chunks + c) * attention_rows + row; };
        for (int c = 0; c < chunks; c++) highest = std::max(highest, partial.max[at(c)]);
        float out[512] = {};
        for (int c = 0; c < chunks; c++) {
          if (partial.sum[at(c)] == 0) continue;
          const float weight = std::exp(partial.max[at(c)] - highest);
          sum += weight * partial.sum[at(c)];
          const float* mixed = partial.mixed + at(c) * D;
          for (int d = 0; d < D; d++) out[d] += weight * mixed[d];
        }
        for (int d = 0; d < D; d++) by_head[t * padded(H * D) + head * D + d] = to_bf16(out[d] / sum);
      }
      barrier.wait();
      if (from < T) {
        const Input in = given(by_head, from, H * D, layer.out);
        const Share s = share(E, 8, thread, threads);
        add_product(layer.out, s, in, from);
      }
      barrier.wait();
      if (from < T) {
        const Input in = normed((const bf16*)layer.mlp_norm, layer.mlp_eps, from, layer.gate_up);
        const Share s = share(I, 32, thread, threads);
        constexpr int BLOCK = 32;
        space.resize(std::max(space.size(), size_t(T) * BLOCK * 2));
        float *gate = space.data(), *up = gate + size_t(T) * BLOCK;
        for (int start = s.first; start < s.last; start += BLOCK) {
          const int end = std::min(s.last, start + BLOCK);
          product(layer.gate_up, start, end, in, T - from, {gate, BLOCK, start});
          product(layer.gate_up, I + start, I + end, in, T - from, {up, BLOCK, I + start});
          for (int t = from; t < T; t++)
            silu_times(gate + size_t(t - from) * BLOCK, up + size_t(t - from) * BLOCK, end - start,
                       hidden + t * padded(I) + start);
        }
      }
      barrier.wait();
      if (from < T) {
        const Input in = given(hidden, from, I, layer.down);
        const Share s = share(E, 8, thread, threads);
        add_product(layer.down, s, in, from);
      }
      barrier.wait();
    }
    if (step->keep > 0) {
      const int from = T - step->keep, V = model->head.rows;
      const Input in = normed((const bf16*)model->final_norm, model->final_eps, from, model->head);
      const Share s = share(V, 32, thread, threads);
      product(model->head, s.first, s.last, in, step->keep, {step->logits, size_t(V), 0});
    }
  }
}

}  // extern "C"
