// Which of the compiled kernels run here.

#include "program.h"

namespace nemotrt {
namespace {

// The best instruction set that this CPU and the library have.
int best_isa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return ISA_PORTABLE;
  bool is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512vnni");
  return is_wide ? ISA_AVX512 : ISA_AVX2;
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
  if (isa == ISA_AVX512) return {avx512::run, avx512::accept, avx512::probe, avx512::sample};
  if (isa == ISA_AVX2) return {avx2::run, avx2::accept, avx2::probe, avx2::sample};
#endif
  return {portable::run, portable::accept, portable::probe, portable::sample};
}

}  // namespace nemotrt

#pragma GCC visibility push(default)
extern "C" {

int nemotrt_best_isa() { return nemotrt::best_isa(); }
}
#pragma GCC visibility pop
