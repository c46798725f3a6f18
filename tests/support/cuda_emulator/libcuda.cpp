// A stand-in for the driver's library, libcuda.so.1, whose kernels run in the emulator: as much of
// it as loading and launching take, so that the real cuda-python can be put before it.
#include "emulated.cpp"

#include <string>

namespace {

constexpr int SUCCESS = 0, NOT_FOUND = 500;
#define NAME(known) #known,
const char* const KERNELS[] = {EACH_KERNEL(NAME)};
#undef NAME
const uintptr_t LIBRARY = 77;

}  // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }

int cuLibraryLoadData(uintptr_t* library, const void* code, void*, void*, unsigned, void*, void*,
                      unsigned) {
  if (std::memcmp(code, "an image", 8)) return 200;  // CUDA_ERROR_INVALID_IMAGE
  *library = LIBRARY;
  return SUCCESS;
}

int cuLibraryGetKernel(const char* const** kernel, uintptr_t library, const char* name) {
  for (const char* const& known : KERNELS) {
    if (library == LIBRARY && !std::strcmp(known, name)) {
      *kernel = &known;
      return SUCCESS;
    }
  }
  return NOT_FOUND;
}

int cuLaunchKernel(const char* const* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned threads, unsigned block_y, unsigned block_z, unsigned shared,
                   uintptr_t stream, void** parameters, void** extra) {
  if (block_y != 1 || block_z != 1 || shared || stream != 7 || extra) return 1;
  const unsigned grid[] = {grid_x, grid_y, grid_z};
  return launch(*kernel, grid, threads, parameters, 0);
}

int cuGetProcAddress_v2(const char* symbol, void** function, int, uint64_t, int* status) {
  const std::string name = symbol;
  *function = nullptr;
  if (name == "cuInit") *function = reinterpret_cast<void*>(cuInit);
  if (name == "cuLibraryLoadData") *function = reinterpret_cast<void*>(cuLibraryLoadData);
  if (name == "cuLibraryGetKernel") *function = reinterpret_cast<void*>(cuLibraryGetKernel);
  if (name == "cuLaunchKernel") *function = reinterpret_cast<void*>(cuLaunchKernel);
  if (name == "cuGetProcAddress") *function = reinterpret_cast<void*>(cuGetProcAddress_v2);
  if (status) *status = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}
}
