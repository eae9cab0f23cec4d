// Gradient of a temporal convolution by its weight: [taps][O][C], the sum over rows of grad[r][o] * x[row of the
// tap][c].
#pragma once

#include "../common/cuda/outer.cuh"
#include "forward.cuh"

namespace stgcn_fast {
namespace cuda {

template <typename E>
struct TemporalGradWeight {
  Rows<E> x, grad;  // [samples][source frames][joints], [samples][target frames][joints]
  TemporalGeometry geometry;
  Index tiles;  // runs of rows in a sample
  int slots;
  Acc<E>* partial;    // [slots][taps][O][C]
  Normalise<E> norm;  // of x
};

template <typename E, bool kTensor>
constexpr int temporal_grad_weight_bytes() {
  using S = OuterShape<E, kTensor>;
  return (S::kCount + 1) * S::kRows * S::kStride * static_cast<int>(sizeof(E));
}

template <typename E, bool kTensor>
__global__ void __launch_bounds__(OuterShape<E, kTensor>::kThreads, 2)
    temporal_grad_weight(const TemporalGradWeight<E> p) {
  using S = OuterShape<E, kTensor>;
  STGCN_FAST_SHARED(shared);
  E* const gs = reinterpret_cast<E*>(shared);
  E* const xs = gs + S::kRows * S::kStride;
  const TemporalGeometry& g = p.geometry;
  const int outputs = p.grad.channels, inputs = p.x.channels, groups = (g.kernel_size + S::kCount - 1) / S::kCount;
  const OuterPlace place = outer_place<S>(groups, outputs, inputs);
  const int tap0 = place.group * S::kCount, taps = g.kernel_size - tap0 < S::kCount ? g.kernel_size - tap0 : S::kCount;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_left = warp % (S::kSide / 32) * 32, warp_right = warp / (S::kSide / 32) * 32;
  // One window for the taps, or a tile of its own for each.
  const Index apart = g.dilation * g.joints;
  const bool windowed = g.stride == 1 && (taps - 1) * apart <= (S::kCount - 1) * S::kRows;
  const Index target_rows = g.target_frames * g.joints, source_rows = g.source_frames * g.joints;

  typename S::Sums sums[S::kCount];
#pragma unroll
  for (int j = 0; j < S::kCount; ++j) sums[j].clear();
  const Index all = g.samples * p.tiles, begin = all * place.slot / p.slots, end = all * (place.slot + 1) / p.slots;
  for (Index tile = begin; tile < end; ++tile) {
    const Index sample = tile / p.tiles, row0 = tile % p.tiles * S::kRows;
    const int rows = static_cast<int>(target_rows - row0 < S::kRows ? target_rows - row0 : S::kRows);
    const int padded = (rows + 15) / 16 * 16;
    const Index frame0 = row0 / g.joints;
    const int joint0 = static_cast<int>(row0 % g.joints);
    __syncthreads();  // the tiles before are no longer read
    load_rows<S::kSide, S::kThreads>(gs, S::kStride, p.grad, padded, place.left, S::kSide,
                                     [&](int i) { return i < rows ? sample * target_rows + row0 + i : Index(-1); });
    const auto load_x = [&](E* to, int count, int tap) {
      load_rows<S::kSide, S::kThreads>(
          to, S::kStride, p.x, count, place.right, S::kSide,
          [&](int i) {
            const int frame = (joint0 + i) / g.joints, joint = (joint0 + i) % g.joints;
            const Index row = g.stride == 1
                                  ? row0 + i + (tap * g.dilation - g.padding) * g.joints
                                  : ((frame0 + frame) * g.stride + tap * g.dilation - g.padding) * g.joints + joint;
            return row >= 0 && row < source_rows ? sample * source_rows + row : Index(-1);
          },
          p.norm);
    };
    if (windowed) {
      load_x(xs, padded + static_cast<int>((taps - 1) * apart), tap0);
    } else {
      for (int j = 0; j < taps; ++j) load_x(xs + j * S::kRows * S::kStride, padded, tap0 + j);
    }
    __syncthreads();
    const int rows_apart = windowed ? static_cast<int>(apart) : S::kRows;
    S::Sums::template add_rows<S::kCount>(sums, taps, gs + warp_left, S::kStride, xs + warp_right,
                                          rows_apart * S::kStride, S::kStride, padded);
  }
#pragma unroll
  for (int j = 0; j < S::kCount; ++j) {
    if (j >= taps) continue;
    Acc<E>* to = p.partial + (static_cast<Index>(place.slot) * g.kernel_size + tap0 + j) * outputs * inputs;
    store_outer<S>(sums[j], to, place.left, place.right, outputs, inputs);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
