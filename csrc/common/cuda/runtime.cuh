// Launching kernels, for nvcc and for the emulation of tests/cuda_emulation alike.
#pragma once

#if defined(STGCN_FAST_EMULATION)
#include "emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

// Dynamic shared memory of a kernel, aligned for 16-byte accesses.
#if defined(STGCN_FAST_EMULATION)
#define STGCN_FAST_SHARED(name) unsigned char* const name = static_cast<unsigned char*>(emulation::shared_memory())
#else
#define STGCN_FAST_SHARED(name)                                  \
  extern __shared__ __align__(128) unsigned char name##_bytes[]; \
  unsigned char* const name = name##_bytes
#endif

// Whether the code being compiled has tensor cores; the launching side asks `Device::tensor_cores`.
#if defined(STGCN_FAST_EMULATION)
#define STGCN_FAST_TENSOR_CORES (STGCN_FAST_EMULATED_ARCH >= 800)
#elif defined(__CUDA_ARCH__)
#define STGCN_FAST_TENSOR_CORES (__CUDA_ARCH__ >= 800)
#else
#define STGCN_FAST_TENSOR_CORES 0
#endif

namespace stgcn_fast {
namespace cuda {

using Index = std::int64_t;

constexpr int kWarp = 32;

struct Device {
  int shared_bytes;  // most that a block can have
  bool tensor_cores;

  // Most that each of two blocks of a multiprocessor can have: the system keeps 1 KB of a block's for itself.
  int half_shared_bytes() const { return (shared_bytes - 1024) / 2; }
};

// A kernel's parameters decide, not what is passed for them.
template <typename T>
struct Same {
  using Type = T;
};

#if defined(STGCN_FAST_EMULATION)

inline Device device_of(int) { return {227 << 10, STGCN_FAST_EMULATED_ARCH >= 800}; }

template <typename... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t,
            typename Same<Parameters>::Type... values) {
  emulation::launch(grid, dim3(static_cast<unsigned>(threads)), shared_bytes, [&] { kernel(values...); });
}

#else

inline void check_call(cudaError_t error, const char* what) {
  // Which of the two depends on whether a launch or an attribute asks first.
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    throw std::runtime_error(
        "stgcn_fast: the CUDA kernels must be built for this device's architecture, got others; build them with "
        "TORCH_CUDA_ARCH_LIST, or leave them out with STGCN_FAST_CUDA=0");
  }
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("stgcn_fast: ") + what + " failed: " + cudaGetErrorString(error));
  }
}

inline Device device_of(int index) {
  int shared = 0, major = 0;
  check_call(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index), "asking for a limit");
  check_call(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "asking for the capability");
  return {shared, major >= 8};
}

// Never waits for the device: errors inside a kernel come up at the user's next synchronisation, as for torch's own.
template <typename... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared_bytes, cudaStream_t stream,
            typename Same<Parameters>::Type... values) {
  constexpr std::size_t kGranted = 48 << 10;  // more must be asked for
  const void* const function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kGranted) {
    check_call(
        cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "asking for shared memory");
  }
  void* pointers[] = {static_cast<void*>(&values)...};
  const dim3 block(static_cast<unsigned>(threads));
  check_call(cudaLaunchKernel(function, grid, block, pointers, shared_bytes, stream), "a kernel launch");
}

#endif

__host__ __device__ inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
__host__ __device__ inline Index round_up(Index a, Index b) { return ceil_div(a, b) * b; }

}  // namespace cuda
}  // namespace stgcn_fast
