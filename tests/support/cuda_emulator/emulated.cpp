// The kernels of MAIN_SOURCE, which EACH_KERNEL names, compiled for the host, with one entry that takes
// what cuLaunchKernel takes.
#include "emulator.h"

#include <cstring>
#include <utility>

#include MAIN_SOURCE

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

template <class... A>
int size_of(void (*)(A...), int index) {
  const size_t sizes[] = {sizeof(A)...};
  return static_cast<int>(sizes[index]);
}

}  // namespace

// Returns 0, or 1 for a kernel that does not exist.
extern "C" int launch(const char* name, const unsigned* grid, unsigned threads, void** parameters,
                      uint64_t seed) {
  void (*kernel)() = nullptr;
#define FIND(known) \
  if (!std::strcmp(name, #known)) kernel = entry<known>;
  EACH_KERNEL(FIND)
#undef FIND
  if (!kernel) return 1;
  arguments = parameters;
  emulator::run(kernel, {grid[0], grid[1], grid[2]}, threads, seed);
  return 0;
}

// How many parameters a kernel takes.
extern "C" int num_parameters(const char* name) {
#define COUNT(known) \
  if (!std::strcmp(name, #known)) return count(known);
  EACH_KERNEL(COUNT)
#undef COUNT
  return -1;
}

// How many bytes a parameter of a kernel has.
extern "C" int parameter_bytes(const char* name, int index) {
#define SIZE(known) \
  if (!std::strcmp(name, #known)) return size_of(known, index);
  EACH_KERNEL(SIZE)
#undef SIZE
  return -1;
}
