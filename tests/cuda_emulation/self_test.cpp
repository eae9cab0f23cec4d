// Kernels that tell whether the emulation does what a GPU does, and sees what it should see. For ctypes.
#include <exception>
#include <string>

#include "common/cuda/mma.cuh"

namespace {

using stgcn_fast::cuda::launch;

// Sums 128 values by shuffles in each warp and static shared memory between them.
__global__ void sum_block(const float* in, float* out) {
  __shared__ float partial[4];
  const int thread = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  float value = in[block * 128 + thread];
  for (unsigned delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(0xffffffffu, value, delta);
  if (thread % 32 == 0) partial[thread / 32] = value;
  __syncthreads();
  if (thread == 0) out[block] = partial[0] + partial[1] + partial[2] + partial[3];
}

// Every thread reads its neighbour's word; without the barrier the order of threads shows.
template <bool kBarrier>
__global__ void rotate(float* out) {
  STGCN_FAST_SHARED(shared);
  float* words = reinterpret_cast<float*>(shared);
  const unsigned thread = threadIdx.x;
  words[thread] = 0;
  __syncthreads();
  words[thread] = static_cast<float>(thread + 1);
  if (kBarrier) __syncthreads();
  out[thread] = words[(thread + 1) % 64];
}

__global__ void part_at_barriers(float* out) {
  if (threadIdx.x < 32) {
    out[0] = 1;
    __syncthreads();
  } else {
    out[1] = 1;
    __syncthreads();
  }
}

__global__ void leave_the_warp(float* out) {
  if (threadIdx.x == 0) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ void read_uninitialised(float* out) {
  STGCN_FAST_SHARED(shared);
  out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x];
}

__global__ void overrun(float* out) {
  STGCN_FAST_SHARED(shared);
  out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x + 1];
}

// The copy is there only after it has been waited for.
template <bool kWait>
__global__ void copy_async(const float* in, float* out) {
  STGCN_FAST_SHARED(shared);
  float* words = reinterpret_cast<float*>(shared);
  stgcn_fast::cuda::copy16_async(words + threadIdx.x * 4, in + threadIdx.x * 4);
  stgcn_fast::cuda::commit_copies();
  if (kWait) stgcn_fast::cuda::wait_copies<0>();
  __syncthreads();
  out[threadIdx.x] = words[threadIdx.x];
}

std::string message;

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// The error's text, or null.
EXPORT const char* run_self_test(const char* name, const float* in, float* out) {
  const std::string test = name;
  try {
    if (test == "sum") launch(sum_block, dim3(3), 128, 0, nullptr, in, out);
    if (test == "rotate") launch(rotate<true>, dim3(1), 64, 256, nullptr, out);
    if (test == "race") launch(rotate<false>, dim3(1), 64, 256, nullptr, out);
    if (test == "barriers") launch(part_at_barriers, dim3(1), 64, 0, nullptr, out);
    if (test == "leave") launch(leave_the_warp, dim3(1), 32, 0, nullptr, out);
    if (test == "uninitialised") launch(read_uninitialised, dim3(1), 32, 128, nullptr, out);
    if (test == "overrun") launch(overrun, dim3(1), 32, 128, nullptr, out);
    if (test == "copy") launch(copy_async<true>, dim3(1), 32, 512, nullptr, in, out);
    if (test == "copy_unawaited") launch(copy_async<false>, dim3(1), 32, 512, nullptr, in, out);
    if (test == "partial_warp") launch(read_uninitialised, dim3(1), 33, 256, nullptr, out);
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
  return nullptr;
}

EXPORT float half_to_float(unsigned bits) { return __half2float(__half{static_cast<std::uint16_t>(bits)}); }
EXPORT unsigned float_to_half(float value) { return __float2half_rn(value).bits; }
EXPORT unsigned float_to_bfloat16(float value) { return __float2bfloat16_rn(value).bits; }
EXPORT unsigned float_to_tf32(float value) { return stgcn_fast::cuda::tf32(value); }
