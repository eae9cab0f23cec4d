// Small kernels around the large ones: packed weights, sums of partial sums.
#pragma once

#include "element.cuh"

namespace stgcn_fast {
namespace cuda {

constexpr int kSmallThreads = 256;

// [taps][targets][sources] of any strides, in elements.
struct WeightView {
  const void* data;
  int taps, targets, sources;
  Index tap, target, source;
};

// -> [taps][padded_targets][padded_sources], zeros in the padding.
template <typename E>
__global__ void pack_weights(E* out, WeightView w, int padded_targets, int padded_sources) {
  const Index count = static_cast<Index>(w.taps) * padded_targets * padded_sources;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index source = i % padded_sources, target = i / padded_sources % padded_targets;
    const Index tap = i / padded_sources / padded_targets;
    const bool there = source < w.sources && target < w.targets;
    out[i] = there ? static_cast<const E*>(w.data)[tap * w.tap + target * w.target + source * w.source]
                   : narrow<E>(Acc<E>(0));
  }
}

// out[i, j, k] (any strides) = sum over slots of partial[slot][i][j][k], always in the same order.
template <typename E>
__global__ void add_slots(E* out, const Acc<E>* partial, int slots, Index first, Index second, Index third,
                          Index first_stride, Index second_stride, Index third_stride) {
  const Index count = first * second * third, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    Acc<E> sum = 0;
    for (int slot = 0; slot < slots; ++slot) sum += partial[slot * count + i];
    const Index c = i % third, b = i / third % second, a = i / third / second;
    out[a * first_stride + b * second_stride + c * third_stride] = narrow<E>(sum);
  }
}

// Blocks for `count` items of a small kernel, whose threads go round.
inline dim3 small_grid(Index count) {
  constexpr Index kMost = 4096;
  const Index blocks = ceil_div(count, kSmallThreads);
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks > kMost ? kMost : blocks));
}

}  // namespace cuda
}  // namespace stgcn_fast
