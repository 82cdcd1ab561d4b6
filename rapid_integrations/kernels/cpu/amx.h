// Matrix units of Intel's server processors (AMX): an instruction multiplies 16 rows of bfloat16 by 16 others, 32 columns
// at a time, in the time of sixteen vector products.
//
// What it computes is not bit for bit what vectors compute: it adds the products of even and of odd columns apart. So
// whatever rows have to be equal, however many are computed together, all go through here.

#pragma once

#include <cstdint>
#include <cstring>

#include "numbers.h"

#if RAPID_AVX512 && RAPID_BF16_DOTS && defined(__linux__) && defined(__x86_64__)
#define RAPID_AMX 1
// Functions that use tiles are compiled for them; they are called only if `amx_usable`.
#define WITH_AMX __attribute__((target("amx-tile,amx-bf16,amx-int8")))

// Whether the processor has the units and the system lets this process use them.
bool amx_usable();

namespace {

constexpr int SIDE = 16;               // rows of a tile; each has 64 bytes
constexpr int TILE_BYTES = SIDE * 64;  // 16 rows of 32 numbers, or 16 pairs of columns of 16 rows

// Every one of these is a step that the compiler may not move memory accesses across.
#define AMX_LOAD(tile, from, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"(int64_t(stride)) : "memory")
#define AMX_STORE(tile, to, stride) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"(int64_t(stride)) : "memory")
#define AMX_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::: "memory")
#define AMX_DOT(sums, rows, columns) /* sums += rows x columns, of bfloat16 */ \
  asm volatile("tdpbf16ps %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sums ::: "memory")

// All eight tiles have 16 rows of 64 bytes as long as this lives. Others' use of the tiles of this thread goes on behind
// it as before, but for the tiles' contents: oneDNN sets them up once for several of its products.
class AmxTiles {
 public:
  WITH_AMX AmxTiles() {
    asm volatile("sttilecfg %0" : "=m"(before_) : : "memory");
    Shape shape{};
    shape.palette = 1;
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = SIDE;
    asm volatile("ldtilecfg %0" : : "m"(shape) : "memory");
  }
  WITH_AMX ~AmxTiles() {
    if (before_.palette)
      asm volatile("ldtilecfg %0" : : "m"(before_) : "memory");
    else
      asm volatile("tilerelease" ::: "memory");
  }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

 private:
  struct alignas(64) Shape {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Shape) == 64, "as the processor reads it");
  Shape before_;
};

}  // namespace

#endif
