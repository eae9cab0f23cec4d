// What CUDA kernels need to run on a CPU, for tests: the same sources, compiled by a C++ compiler.
//
// Blocks run in turn. The threads of a block are fibres on stacks of their own; each runs until it meets a barrier or a
// warp-wide operation, so every interleaving that a test sees is one of whole stretches between those. The order of the
// threads can be turned round or drawn by chance: a kernel whose result depends on it has a race. Dynamic shared memory
// is of the exact size asked for and holds NaN patterns at first.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Of the architecture played: below 800 there are no tensor cores.
#if !defined(STGCN_FAST_EMULATED_ARCH)
#define STGCN_FAST_EMULATED_ARCH 900
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};

using cudaStream_t = void*;

namespace emulation {

constexpr int kWarp = 32;

// Where the running thread is.
struct Place {
  dim3 thread, block, block_size, grid;
  int linear;
};

const Place& place();
// Dynamic shared memory of the running block.
void* shared_memory();
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);
// 0: threads in order; 1: from the last to the first; above: by chance, from this seed.
void set_order(int order);

// Ends the launch with an error.
[[noreturn]] void fail(const char* what);

// All threads of the block that have not returned must come to the same line.
void block_barrier(const char* file, int line);

// All lanes of a warp meet, each with a pointer; the last one runs `compute` on the 32 pointers for all.
void warp_meet(void* mine, const std::function<void(void**)>& compute);

// Asynchronous copies take effect at once (threads in order), or when their group is waited for and not before.
void copy_async(void* to, const void* from, int bytes);
void commit_copies();
void wait_copies(int newest_left);

template <typename T, typename Source>
T shuffle(T value, Source source_lane) {
  struct Exchange {
    T value;
    int source;
  };
  Exchange mine{value, static_cast<int>(source_lane)};
  warp_meet(&mine, [](void** lanes) {
    T values[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) values[lane] = static_cast<Exchange*>(lanes[lane])->value;
    for (int lane = 0; lane < kWarp; ++lane) {
      Exchange& to = *static_cast<Exchange*>(lanes[lane]);
      to.value = to.source < 0 || to.source >= kWarp ? values[lane] : values[to.source];
    }
  });
  return mine.value;
}

}  // namespace emulation

#define threadIdx (emulation::place().thread)
#define blockIdx (emulation::place().block)
#define blockDim (emulation::place().block_size)
#define gridDim (emulation::place().grid)
#define __syncthreads() emulation::block_barrier(__FILE__, __LINE__)

inline void __syncwarp(unsigned = 0xffffffffu) {
  emulation::warp_meet(nullptr, [](void**) {});
}

// Every mask is that of a full warp; lanes that none reads from keep their own value.
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulation::shuffle(value, lane);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  return emulation::shuffle(value, emulation::place().linear % emulation::kWarp + static_cast<int>(delta));
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  return emulation::shuffle(value, emulation::place().linear % emulation::kWarp - static_cast<int>(delta));
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::shuffle(value, (emulation::place().linear % emulation::kWarp) ^ mask);
}

inline unsigned __ballot_sync(unsigned, bool value) {
  struct Exchange {
    bool value;
    unsigned all;
  };
  Exchange mine{value, 0};
  emulation::warp_meet(&mine, [](void** lanes) {
    unsigned all = 0;
    for (int lane = 0; lane < emulation::kWarp; ++lane) {
      all |= static_cast<unsigned>(static_cast<Exchange*>(lanes[lane])->value) << lane;
    }
    for (int lane = 0; lane < emulation::kWarp; ++lane) static_cast<Exchange*>(lanes[lane])->all = all;
  });
  return mine.all;
}

// Threads run one at a time.
template <typename T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to = old + value;
  return old;
}
template <typename T>
T atomicMax(T* to, T value) {
  const T old = *to;
  if (value > old) *to = value;
  return old;
}
template <typename T>
T atomicMin(T* to, T value) {
  const T old = *to;
  if (value < old) *to = value;
  return old;
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}

// 16-bit floating point, rounded to nearest even.
struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct __half {
  std::uint16_t bits;
};

inline std::uint32_t __float_as_uint(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return __uint_as_float(static_cast<std::uint32_t>(value.bits) << 16);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  if (value != value) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  float magnitude =
      std::ldexp(static_cast<float>(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return value.bits & 0x8000 ? -magnitude : magnitude;
}
inline __half __float2half_rn(float value) {
  const std::uint16_t sign = static_cast<std::uint16_t>(__float_as_uint(value) >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (value != value) return {0x7fff};
  if (magnitude >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7c00)};
  int exponent;
  std::frexp(magnitude, &exponent);
  // Steps of 2^(exponent - 11), of 2^-24 among subnormals; std::nearbyint rounds to even.
  const int step = exponent < -13 ? -24 : exponent - 11;
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -step)));
  // A carry out of the fraction moves on into the exponent.
  const int biased = magnitude == 0 || exponent < -13 ? 0 : exponent + 14;
  return {static_cast<std::uint16_t>(sign | (biased == 0 ? steps : (biased << 10) + steps - 1024))};
}
