// Whether a process may use the processor's matrix units: see amx.h.

#include "amx.h"

#if RAPID_AMX

#include <atomic>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

std::atomic<bool> wanted{true};

bool permitted() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned BF16 = 1u << 22, TILES = 1u << 24;
  if ((d & BF16) == 0 || (d & TILES) == 0) return false;
  // Their state is large, so Linux gives it to a process that asks for it; to ask again is harmless.
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

}  // namespace

bool amx_usable() {
  static const bool usable = permitted();
  return usable && wanted.load(std::memory_order_relaxed);
}

#endif

extern "C" {

// Whether products of prompts, and attention, are computed on matrix units.
int rapid_uses_amx() {
#if RAPID_AMX
  return amx_usable();
#else
  return 0;
#endif
}

// Does without them, or with them again if the processor has them: to compare, and not while another thread computes.
void rapid_use_amx(int32_t used) {
#if RAPID_AMX
  wanted.store(used != 0, std::memory_order_relaxed);
#else
  (void)used;
#endif
}

}  // extern "C"
