// Which keys the rows of indexed attention see: see `Indexer` in interface.h.
//
// A row's scores and its choice depend on its own text alone, so that it has the same bits alone and in company.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "attention.h"
#include "interface.h"
#include "latents.h"
#include "levels.h"
#include "numbers.h"
#include "scratch.h"
#include "step_parts.h"

namespace {

// Which of a part's rows choose: those from this one on. The others see all keys.
inline int first_choosing(const Part& part, int chosen) {
  return int(std::clamp<int64_t>(chosen - part.position(), 0, part.rows));
}

// Finds the rows of a reader's text in its cache; positions are asked for in ascending order.
class TextRows {
 public:
  TextRows(const Part& part, int slot, size_t key_bytes, size_t value_bytes)
      : part_(part), segment_(part.asked->segment), slot_(slot), key_bytes_(key_bytes), value_bytes_(value_bytes) {}

  // Whether `count` rows from this position on, a multiple of TILE, lie behind each other: a tree's new rows do not.
  bool together(int64_t position, int count) const {
    return part_.path.empty() || position + count <= part_.asked->past;
  }
  const uint8_t* key(int64_t position) { return row(position, 0); }
  const uint8_t* value(int64_t position) { return row(position, 1); }
  void copy(int64_t position, uint8_t* key_to, uint8_t* value_to) {
    std::memcpy(key_to, key(position), key_bytes_);
    std::memcpy(value_to, value(position), value_bytes_);
  }

 private:
  const uint8_t* row(int64_t position, int values) {
    const int64_t past = part_.asked->past;
    const bool moved = position >= past && !part_.path.empty();
    const int64_t held = moved ? past + part_.path[size_t(position - past)] : position;
    const Segment* const last = &part_.tail();
    while (segment_ != last && segment_[1].begin <= held) segment_++;
    const void* const rows = (values ? segment_->values : segment_->keys)[slot_];
    return (const uint8_t*)rows + size_t(held - segment_->begin) * (values ? value_bytes_ : key_bytes_);
  }

  const Part& part_;
  const Segment* segment_;
  const int slot_;
  const size_t key_bytes_, value_bytes_;
};

inline size_t index_floats(const Indexer& i, int kv) {  // of scratch space for one call of `index_scores`
  return size_t(i.dim) / 2 * TILE + size_t(i.heads) * TILE + 2 * TILE + size_t(i.dim) +
         whole_lines(2 * TILE * row_bytes(kv, i.dim / 2) / sizeof(float)) + 4 * LINE;
}

// scores (rows, `apart`): of the keys at the positions [begin, end) for rows of a part from `from` on. `q` has of each row
// (heads, dim), and `weights` of each row its heads' weights, `weights_apart` from row to row.
template <int KV>
void index_scores(const Indexer& i, const Part& part, int from, const bf16* q, const float* weights, size_t weights_apart,
                  int64_t begin, int64_t end, float* scores, size_t apart, float* scratch) {
  const int H = i.heads, half = i.dim / 2;
  const size_t bytes = row_bytes(KV, half);
  const float scale = 1.0f / std::sqrt(float(i.dim)), of_heads = 1.0f / std::sqrt(float(H));
  [[maybe_unused]] uint32_t* const packed = (uint32_t*)scratch;  // (dim / 2, 64)
  float* const met = scratch + size_t(half) * TILE;  // (H, 64)
  float* const scales = met + size_t(H) * TILE;
  [[maybe_unused]] float* const query = scales + 2 * TILE;
  uint8_t* const gathered = (uint8_t*)align(query + i.dim);
  TextRows text(part, i.slot, bytes, bytes);
  for (int64_t j0 = begin; j0 < end; j0 += TILE) {
    const int present = int(std::min<int64_t>(TILE, end - j0));
    const uint8_t *first, *second;  // the two halves of keys
    if (text.together(j0, present)) {
      first = text.key(j0), second = text.value(j0);
    } else {
      for (int j = 0; j < present; j++) text.copy(j0 + j, gathered + size_t(j) * bytes, gathered + size_t(TILE + j) * bytes);
      first = gathered, second = gathered + TILE * bytes;
    }
#if RAPID_WIDE
    pack_dimensions<KV>(first, half, present, packed);
    pack_dimensions<KV>(second, half, present, packed + size_t(half / 2) * TILE);
    if constexpr (KV == KV_INT8)
      for (int j = 0; j < TILE; j++) {
        scales[j] = j < present ? scale_of(first + size_t(j) * bytes, half) : 0.0f;
        scales[TILE + j] = j < present ? scale_of(second + size_t(j) * bytes, half) : 0.0f;
      }
#endif
    for (int r = from; r < part.rows; r++) {
      const bf16* const own = q + size_t(r) * H * i.dim;
#if RAPID_WIDE
      in_groups<PAIR_ROWS>(H, [&](auto count, int h) {
        latent_scores<KV, count>(own + size_t(h) * i.dim, half, half, packed, scales, met + size_t(h) * TILE);
      });
#else
      for (int h = 0; h < H; h++) {
        for (int d = 0; d < i.dim; d++) query[d] = to_float(own[size_t(h) * i.dim + d]);
        for (int j = 0; j < present; j++)
          met[size_t(h) * TILE + j] =
              dot_of<KV>(query, first + size_t(j) * bytes, half) + dot_of<KV>(query + half, second + size_t(j) * bytes, half);
      }
#endif
      float sum[TILE] = {};
      for (int h = 0; h < H; h++) {
        const float weight = weights[size_t(r) * weights_apart + h] * of_heads;
        for (int j = 0; j < TILE; j++) {
          const float x = met[size_t(h) * TILE + j] * scale;
          sum[j] += weight * (x < 0 ? 0.0f : x);  // NaN stays one
        }
      }
      std::memcpy(scores + size_t(r) * apart + size_t(j0), sum, size_t(present) * sizeof(float));
    }
  }
}

// Of n scores the `chosen` best ones, n > chosen: their numbers, ascending. Of equal ones those are taken that `torch.topk`
// takes, which asks the same functions of the standard library for the same. `space` has room for n floats.
inline void choose(const float* scores, int64_t n, int chosen, float* space, int32_t* out) {
  const auto known = [&](int64_t j) {  // a NaN counts as the best, as PyTorch has it
    return scores[j] != scores[j] ? std::numeric_limits<float>::infinity() : scores[j];
  };
  for (int64_t j = 0; j < n; j++) space[j] = known(j);
  std::nth_element(space, space + chosen - 1, space + n, std::greater<float>());
  const float least = space[chosen - 1];
  int64_t better = 0, equal = 0;
  for (int64_t j = 0; j < n; j++) better += known(j) > least, equal += known(j) == least;
  if (better + equal > chosen) {
    using Scored = std::pair<float, int64_t>;
    const std::unique_ptr<Scored[]> all(new (std::nothrow) Scored[size_t(n)]);
    if (all) {
      Scored *const first = all.get(), *const last = first + n;
      for (int64_t j = 0; j < n; j++) first[j] = {known(j), j};
      const auto before = [](const Scored& a, const Scored& b) { return a.first > b.first; };
      if (int64_t(chosen) * 64 <= n)
        std::partial_sort(first, first + chosen, last, before);
      else
        std::nth_element(first, first + chosen - 1, last, before);
      for (int c = 0; c < chosen; c++) out[c] = int32_t(first[c].second);
      std::sort(out, out + chosen);
      return;
    }
  }
  int64_t left = chosen - better;
  for (int64_t j = 0; j < n; j++)
    if (known(j) > least || (known(j) == least && left-- > 0)) *out++ = int32_t(j);
}

// Where a layer's choice of keys lies in the scratch space of a step, in floats from its beginning. It stays there for the
// layers that take the choice of another one.
struct ChoicePlaces {
  size_t queries = 0, turned = 0;  // float (T, H D) and bf16 (T, H, D) of an indexer
  size_t scores = 0, keys = 0;     // float (T, longest) and int32 (T, chosen)
  size_t space = 0;                // of each thread
  size_t longest = 0;              // positions of a text, or 0 if no row chooses
};

// Whether there are rows that choose.
inline bool any_choosing(const Parts& parts, int chosen) {
  return chosen && std::any_of(parts.part.begin(), parts.part.end(),
                               [&](const Part& each) { return first_choosing(each, chosen) < each.rows; });
}

}  // namespace
