// Switches of the emulated kernels, for ctypes.
#include "common/cuda/host.cuh"

namespace {
bool always() { return true; }
}  // namespace

extern "C" __attribute__((visibility("default"))) void stgcn_fast_emulation_tf32(bool allowed) {
  stgcn_fast::cuda::tf32_query = allowed ? &always : nullptr;
}
