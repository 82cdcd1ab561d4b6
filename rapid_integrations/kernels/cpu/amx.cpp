// Whether a process may use the processor's matrix units: see amx.h.

#include "amx.h"

#if RAPID_AMX

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

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
  return usable;
}

#endif
