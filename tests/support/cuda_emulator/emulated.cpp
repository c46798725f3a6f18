// The kernels, compiled for the host, with one entry that takes what cuLaunchKernel takes.
#include "emulator.h"

#include <cstring>
#include <utility>

#include "mamba.cu"

namespace {

void** arguments;

template <auto kernel, class... A, size_t... i>
void call(void (*)(A...), std::index_sequence<i...>) {
  kernel(*static_cast<A*>(arguments[i])...);
}

template <auto kernel>
void entry() {
  [&]<class... A>(void (*pointer)(A...)) {
    call<kernel>(pointer, std::index_sequence_for<A...>{});
  }(kernel);
}

template <class... A>
int count(void (*)(A...)) {
  return sizeof...(A);
}

}  // namespace

// Returns 0, or 1 for a kernel that does not exist.
extern "C" int launch(const char* name, const unsigned* grid, unsigned threads, void** parameters,
                      uint64_t seed) {
  void (*kernel)() = nullptr;
  if (!std::strcmp(name, "causal_conv")) kernel = entry<causal_conv>;
  if (!std::strcmp(name, "ssd_decode")) kernel = entry<ssd_decode>;
  if (!std::strcmp(name, "ssd_prefill")) kernel = entry<ssd_prefill>;
  if (!kernel) return 1;
  arguments = parameters;
  emulator::run(kernel, {grid[0], grid[1], grid[2]}, threads, seed);
  return 0;
}

// How many parameters a kernel takes.
extern "C" int num_parameters(const char* name) {
  if (!std::strcmp(name, "causal_conv")) return count(causal_conv);
  if (!std::strcmp(name, "ssd_decode")) return count(ssd_decode);
  if (!std::strcmp(name, "ssd_prefill")) return count(ssd_prefill);
  return -1;
}
