// Which of the compiled kernels run here.

#include "program.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nemotrt {
namespace {

// Whether this CPU has tiles of int8 and bf16, the system saves their registers, and lets this process use them.
bool has_matrix_units() {
#if defined(NEMOTRT_AMX_EMULATION)
  return true;
#elif defined(__x86_64__) && defined(__linux__)
  constexpr unsigned TILE = 1u << 24, INT8 = 1u << 25, BF16 = 1u << 22, SAVES_STATES = 1u << 27, TILE_STATES = 3u << 17;
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & SAVES_STATES)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (TILE | INT8 | BF16)) != (TILE | INT8 | BF16)) return false;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & TILE_STATES) != TILE_STATES) return false;
  static const bool is_permitted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  return is_permitted;
#else
  return false;
#endif
}

// The best instruction set that this CPU and the library have.
int best_isa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return ISA_PORTABLE;
  bool is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512vnni");
#if defined(NEMOTRT_AMX_EMULATION)
  return ISA_AMX;
#endif
  if (!is_wide) return ISA_AVX2;
  return avx512::has_matrix_linear() && has_matrix_units() ? ISA_AMX : ISA_AVX512;
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long DOT_PRODUCTS = 1ul << 20, MATRICES = 1ul << 13;  // Source: Linux, asm/hwcap.h
  if (!(getauxval(AT_HWCAP) & DOT_PRODUCTS)) return ISA_PORTABLE;
  return getauxval(AT_HWCAP2) & MATRICES ? ISA_I8MM : ISA_NEON;
#else
  return ISA_PORTABLE;
#endif
}

}  // namespace

Kernels choose(int isa) {
  int best = best_isa();
  if (isa == ISA_AUTO) isa = best;
  if (isa > best) return {};
#if defined(__x86_64__)
#if defined(NEMOTRT_AMX_EMULATION)
  if (isa == ISA_AMX) return {avx2::run, avx2::accept, avx2::probe, avx2::sample, avx2::matrix_linear};
#endif
  if (isa == ISA_AMX) return {avx512::run, avx512::accept, avx512::probe, avx512::sample, avx512::matrix_linear};
  if (isa == ISA_AVX512) return {avx512::run, avx512::accept, avx512::probe, avx512::sample, nullptr};
  if (isa == ISA_AVX2) return {avx2::run, avx2::accept, avx2::probe, avx2::sample, nullptr};
#elif defined(__aarch64__)
  if (isa == ISA_I8MM) return {i8mm::run, i8mm::accept, i8mm::probe, i8mm::sample, nullptr};
  if (isa == ISA_NEON) return {neon::run, neon::accept, neon::probe, neon::sample, nullptr};
#endif
  if (isa != ISA_PORTABLE) return {};  // another kind of CPU's
  return {portable::run, portable::accept, portable::probe, portable::sample, nullptr};
}

}  // namespace nemotrt

#pragma GCC visibility push(default)
extern "C" {

int nemotrt_best_isa() { return nemotrt::best_isa(); }
int nemotrt_has_isa(int isa) { return isa != nemotrt::ISA_AUTO && nemotrt::choose(isa).run != nullptr; }
}
#pragma GCC visibility pop
