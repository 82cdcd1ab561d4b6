// Weights in panels as numbers again, for the products of a prefill, which are formed with whole matrices.

#include <cstdint>

#include "numbers.h"
#include "panels.h"
#include "threads.h"
#include "weight_pairs.h"

namespace {

#if RAPID_WIDE

template <class Panel>
void unpack(const uint8_t* group, bf16* out, size_t stride) {  // 16 rows, `stride` apart, of 32 columns
  __m512i r[16];
  group_pairs<Panel>(group, 0, r);
  transpose16(r);
  for (int row = 0; row < PANEL; row++) _mm512_storeu_si512(out + row * stride, r[row]);
}

#else

template <class Panel>
void unpack(const uint8_t* group, bf16* out, size_t stride) {
  for (int row = 0; row < PANEL; row++)
    for (int c = 0; c < GROUP; c++) {
      float weight = float(Panel::level(group, row, c) - Panel::OFFSET);
      if constexpr (Panel::SCALED)
        weight = weight * to_float(Panel::scales(group)[row]) + to_float(Panel::zeros(group)[row]);
      out[row * stride + c] = to_bf16(weight);
    }
}

#endif

template <class Panel>
void unpack_all(const uint8_t* data, int rows, int columns, int threads, bf16* out) {
  const int groups = columns / GROUP;
  for_each(threads, rows / PANEL, [&](int64_t panel) {
    for (int g = 0; g < groups; g++)
      unpack<Panel>(data + (size_t(panel) * groups + g) * Panel::BYTES,
                    out + size_t(panel) * PANEL * columns + g * GROUP, columns);
  });
}

}  // namespace

// out (rows, columns) bf16, rows in order, a multiple of 16 of them; `kind` and `data` as in a Matrix. Of INT8 it is the
// levels alone, each less 128: their scales are for the whole row, and apply to a product.
extern "C" void rapid_unpack(int32_t kind, const void* data, int32_t rows, int32_t columns, int32_t threads, void* out) {
  const auto unpack_kind = kind == INT4 ? unpack_all<Int4Panel> : unpack_all<Int8Panel>;
  unpack_kind((const uint8_t*)data, rows, columns, threads, (bf16*)out);
}
