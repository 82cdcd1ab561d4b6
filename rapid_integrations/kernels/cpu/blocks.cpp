// What is done with the blocks of GGUF files beside a decode step: they are put into panels when a model is loaded, and
// turned into numbers for the products of a prefill and for embeddings.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "blocks.h"
#include "numbers.h"
#include "threads.h"
#include "weight_pairs.h"

namespace {

// Levels in rows become levels of four columns, a row a lane.
template <int PAIR>
void turn(const uint8_t (&levels)[PANEL][PAIR * GROUP], uint8_t (&fours)[PAIR][GROUP / 4][4 * PANEL]) {
#if RAPID_WIDE
  if constexpr (PAIR == 2) {
    __m512i r[16];
    for (int row = 0; row < PANEL; row++) r[row] = _mm512_load_si512(levels[row]);
    transpose16(r);
    for (int i = 0; i < 16; i++) _mm512_store_si512(fours[i / 8][i % 8], r[i]);
    return;
  }
#endif
  for (int row = 0; row < PANEL; row++)
    for (int i = 0; i < PAIR * GROUP / 4; i++) std::memcpy(fours[i / 8][i % 8] + 4 * row, levels[row] + 4 * i, 4);
}

// One block of a panel, from the blocks of its rows; null for a row that is not there.
template <class B>
void pack(const uint8_t* const* raw, uint8_t* out) {
  std::memset(out + B::FILLED, 0, B::BYTES - B::FILLED);
  uint8_t* scales = (uint8_t*)B::scales(out);
  BlockFigures figures[PANEL] = {};
  for (int row = 0; row < PANEL; row++) {
    if (raw[row]) figures[row] = B::read(raw[row]);
    std::memcpy(scales + 2 * row, &figures[row].scale, 2);
    if (B::MINIMA) std::memcpy(scales + 2 * PANEL + 2 * row, &figures[row].minimum, 2);
  }
  constexpr int PAIR = B::GROUPS > 1 ? 2 : 1;  // groups whose levels change places together
  alignas(64) uint8_t fours[PAIR][GROUP / 4][4 * PANEL];  // of four columns of all rows
  for (int g = 0; g < B::GROUPS; g++) {
    if constexpr (B::GROUPS > 1) {
      uint8_t* integers = (uint8_t*)B::integers(out, g);
      for (int row = 0; row < PANEL; row++) {
        integers[row] = figures[row].first[g];
        integers[PANEL + row] = figures[row].second[g];
      }
    }
    if (g % PAIR == 0) {
      alignas(64) uint8_t levels[PANEL][PAIR * GROUP];
      for (int row = 0; row < PANEL; row++) {
        if (raw[row])
          for (int i = 0; i < PAIR; i++) B::levels(raw[row], g + i, levels[row] + i * GROUP);
        else
          std::memset(levels[row], 0, sizeof levels[row]);
      }
      turn<PAIR>(levels, fours);
    }
    const auto& four = fours[g % PAIR];
    uint8_t *low = (uint8_t*)B::low(out, g), *high = (uint8_t*)B::high(out, g);
    if constexpr (B::LOW == PANEL * GROUP) {
      std::memcpy(low, four, sizeof four);
    } else {
      for (int i = 0; i < GROUP / 8; i++)
        for (int j = 0; j < 64; j++) low[64 * i + j] = uint8_t((four[2 * i][j] & 15) | four[2 * i + 1][j] << 4);
    }
    if constexpr (constexpr int EACH = B::HIGH_BITS, MASK = (1 << EACH) - 1; EACH > 0)
      for (int part = 0; part < EACH; part++)
        for (int j = 0; j < 64; j++) {
          uint8_t bits = 0;
          for (int i = 0; i < 8 / EACH; i++) bits |= uint8_t((four[8 / EACH * part + i][j] >> 4 & MASK) << EACH * i);
          high[64 * part + j] = bits;
        }
  }
}

template <class B>
void pack_all(const uint8_t* raw, const int64_t* order, int rows, int columns, int threads, uint8_t* out) {
  const int blocks = columns / (GROUP * B::GROUPS);
  for_each(threads, (rows + PANEL - 1) / PANEL, [&](int64_t panel) {
    for (int block = 0; block < blocks; block++) {
      const uint8_t* from[PANEL];
      for (int i = 0; i < PANEL; i++) {
        const int64_t row = panel * PANEL + i;
        from[i] = row < rows ? raw + (size_t(order ? order[row] : row) * blocks + block) * B::RAW : nullptr;
      }
      pack<B>(from, out + (size_t(panel) * blocks + block) * B::BYTES);
    }
  });
}

#if RAPID_WIDE

template <class B>
void unpack(const uint8_t* block, int g, bf16* out, size_t stride) {  // 16 rows, `stride` apart, of 32 columns
  __m512i r[16];
  group_pairs<B>(block, g, r);
  transpose16(r);
  for (int row = 0; row < PANEL; row++) _mm512_storeu_si512(out + row * stride, r[row]);
}

#else

template <class B>
void unpack(const uint8_t* block, int g, bf16* out, size_t stride) {
  for (int row = 0; row < PANEL; row++) {
    const float scale[2] = {B::scale(block, g, row, 0), B::scale(block, g, row, 16)}, minimum = B::minimum(block, g, row);
    for (int c = 0; c < GROUP; c++)
      out[row * stride + c] = to_bf16(float(B::level(block, g, row, c) - B::OFFSET) * scale[c / 16] + minimum);
  }
}

#endif

template <class B>
void unpack_all(const uint8_t* data, int panels, int columns, int threads, bf16* out) {
  const int blocks = columns / (GROUP * B::GROUPS);
  for_each(threads, panels, [&](int64_t panel) {
    for (int block = 0; block < blocks; block++)
      for (int g = 0; g < B::GROUPS; g++)
        unpack<B>(data + (size_t(panel) * blocks + block) * B::BYTES, g,
                  out + size_t(panel) * PANEL * columns + (block * B::GROUPS + g) * GROUP, columns);
  });
}

}  // namespace

extern "C" {

// Bytes of a block in a panel, of a format in a file; 0 if it is none of the formats.
int32_t rapid_block_bytes(int32_t kind) {
  return with_format(kind, [](auto format) { return int32_t(decltype(format)::BYTES); });
}

// Puts a weight of a file into panels. raw: its rows, one behind the other. order: which of them is row 0, 1, ...; null:
// they are in order. The last panel is filled up with zeros.
void rapid_pack_blocks(int32_t kind, const void* raw, const int64_t* order, int32_t rows, int32_t columns,
                       int32_t threads, void* out) {
  with_format(kind, [&](auto format) {
    pack_all<decltype(format)>((const uint8_t*)raw, order, rows, columns, threads, (uint8_t*)out);
    return 0;
  });
}

// out (16 panels, columns) bf16, rows in order, of that many panels.
void rapid_unpack_blocks(int32_t kind, const void* data, int32_t panels, int32_t columns, int32_t threads, void* out) {
  with_format(kind, [&](auto format) {
    unpack_all<decltype(format)>((const uint8_t*)data, panels, columns, threads, (bf16*)out);
    return 0;
  });
}

// out (count, columns) bf16: rows of a weight as it lies in a file, by their numbers.
void rapid_block_rows(int32_t kind, const void* raw, const int64_t* ids, int64_t count, int32_t columns, int32_t threads,
                      void* out) {
  with_format(kind, [&](auto format) {
    using B = decltype(format);
    const size_t bytes = size_t(columns) / (GROUP * B::GROUPS) * B::RAW;
    for_each(threads, count, [&](int64_t i) {
      std::vector<float> row(columns);
      raw_row<B>((const uint8_t*)raw + size_t(ids[i]) * bytes, columns, row.data());
      for (int c = 0; c < columns; c++) ((bf16*)out)[size_t(i) * columns + c] = to_bf16(row[c]);
    });
    return 0;
  });
}

}  // extern "C"
