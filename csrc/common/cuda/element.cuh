// Element types of activations, and 16 bytes of them at a time.
#pragma once

#include "runtime.cuh"

namespace stgcn_fast {
namespace cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;

// What an element type is summed in.
template <typename E>
struct Accumulator {
  using Type = float;
};
template <>
struct Accumulator<double> {
  using Type = double;
};
template <typename E>
using Acc = typename Accumulator<E>::Type;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(Half value) { return __half2float(value); }
__device__ __forceinline__ float widen(BFloat16 value) { return __bfloat162float(value); }

template <typename E>
__device__ __forceinline__ E narrow(Acc<E> value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ double narrow<double>(double value) {
  return value;
}
template <>
__device__ __forceinline__ Half narrow<Half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ BFloat16 narrow<BFloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// NaN stays NaN, as in torch.
template <typename T>
__device__ __forceinline__ T rectified(T value) {
  return value < T(0) ? T(0) : value;
}

// Elements of 16 bytes.
template <typename E>
constexpr int kVector = 16 / static_cast<int>(sizeof(E));

template <typename E>
struct alignas(16) Pack {
  E value[kVector<E>];
};

template <typename E>
__device__ __forceinline__ Pack<E> load_pack(const E* from) {
  union Bits {
    uint4 raw;
    Pack<E> pack;
    __device__ Bits() {}
  } bits;
  bits.raw = *reinterpret_cast<const uint4*>(from);
  return bits.pack;
}

template <typename E>
__device__ __forceinline__ void store_pack(E* to, const Pack<E>& pack) {
  union Bits {
    uint4 raw;
    Pack<E> pack;
    __device__ Bits() {}
  } bits;
  bits.pack = pack;
  *reinterpret_cast<uint4*>(to) = bits.raw;
}

// Up to 16 bytes: `count` elements from memory, zeros after them. `whole`: 16 bytes lie there, aligned.
template <typename E>
__device__ __forceinline__ Pack<E> load_some(const E* from, int count, bool whole) {
  if (whole && count >= kVector<E>) return load_pack(from);
  Pack<E> pack;
#pragma unroll
  for (int i = 0; i < kVector<E>; ++i) pack.value[i] = i < count ? from[i] : narrow<E>(Acc<E>(0));
  return pack;
}

template <typename E>
__device__ __forceinline__ void store_some(E* to, const Pack<E>& pack, int count, bool whole) {
  if (whole && count >= kVector<E>) {
    store_pack(to, pack);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVector<E>; ++i) {
    if (i < count) to[i] = pack.value[i];
  }
}

// A matrix of activations in device memory: rows (n, t, v), channels innermost.
template <typename E>
struct Rows {
  const E* data;
  int channels;
  bool whole;  // every 16 bytes of a row are aligned and there
  int stride;  // elements between rows

  __device__ const E* row(Index r) const { return data + r * stride; }
};

}  // namespace cuda
}  // namespace stgcn_fast
