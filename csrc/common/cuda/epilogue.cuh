// What becomes of a tile of sums before it is stored.
#pragma once

#include "tile.cuh"

namespace stgcn_fast {
namespace cuda {

//   y = sum + bias;  y = scale * y + shift;  y += residual (itself scaled and shifted);  ReLU
// Each is skipped where its pointer is null. Statistics are of y before the residual, as rounded for storing.
//
// Gradients of what was normalised and rectified have a mask instead of statistics, which is what was normalised: y is
// zero where the rectifier let nothing through, and its sums are those that the normalisation's gradient needs.
template <typename E>
struct Epilogue {
  E* out = nullptr;  // [rows][channels]
  int channels = 0;
  bool whole = false;                      // rows of out and residual are whole 16 bytes, aligned
  const Acc<E>* bias = nullptr;            // [sample][joint][channels]
  Index bias_sample = 0;                   // elements between samples; 0: one for all
  Index bias_joint = 0;                    // elements between joints; 0: one for all
  const Acc<E>* scale = nullptr;           // [channels]
  const Acc<E>* shift = nullptr;           // [channels]
  const E* residual = nullptr;             // like out
  const Acc<E>* residual_scale = nullptr;  // [channels], or null for 1 and 0
  const Acc<E>* residual_shift = nullptr;
  const E* gate = nullptr;  // like residual, which counts where the gate is above zero; null: everywhere
  bool relu = false;
  Acc<E>* statistics = nullptr;  // [tiles][2][channels]: mean, and sum of squared distances from it
  Rows<E> mask{};                // null data for none; its first `channels` count
  const Acc<E>* mask_scale = nullptr;
  const Acc<E>* mask_shift = nullptr;
  const Acc<E>* mask_mean = nullptr;
  Acc<E>* mask_sums = nullptr;  // [tiles][2][channels]: sums of y and of y * (mask - mean)
};

// Where a row of a tile goes.
struct Target {
  Index row;  // of out
  Index sample;
  int joint;
};

// A warp's sums into staging [rows][stride].
template <typename P, typename A>
__device__ __forceinline__ void stage(const P& product, A* staging, int stride) {
  product.each([&](int row, int column, A first, A second) {
    staging[row * stride + column] = first;
    staging[row * stride + column + 1] = second;
  });
}

// Stores staged sums [rows][kColumns] as channels [first, first + kColumns) of the rows that target_of(i) names. The
// whole block comes here, with the staging complete; it wants another barrier before the staging is used again.
template <int kColumns, int kThreads, typename E, typename TargetOf>
__device__ __forceinline__ void store_rows(Acc<E>* staging, int stride, const Epilogue<E>& e, int rows, int first,
                                           Index tile, TargetOf target_of) {
  constexpr int kPacks = kColumns / kVector<E>, kRowsAtOnce = kThreads / kPacks;
  static_assert(kThreads % kPacks == 0, "a thread keeps its channels");
  const int column = static_cast<int>(threadIdx.x) % kPacks * kVector<E>;
  const int channel = first + column, count = e.channels - channel;
  Acc<E> sums[2][kVector<E>] = {};
  if (count > 0) {
    for (int i = static_cast<int>(threadIdx.x) / kPacks; i < rows; i += kRowsAtOnce) {
      const Target target = target_of(i);
      Acc<E>* staged = staging + i * stride + column;
      const Index at = target.row * e.channels + channel;
      Acc<E> y[kVector<E>];
#pragma unroll
      for (int c = 0; c < kVector<E>; ++c) {
        y[c] = staged[c];
        if (c >= count) continue;
        if (e.bias != nullptr)
          y[c] += e.bias[target.sample * e.bias_sample + target.joint * e.bias_joint + channel + c];
        if (e.scale != nullptr) y[c] *= e.scale[channel + c];
        if (e.shift != nullptr) y[c] += e.shift[channel + c];
        if (e.statistics != nullptr) sums[0][c] += staged[c] = y[c] = widen(narrow<E>(y[c]));
      }
      if (e.mask.data != nullptr) {
        const Pack<E> mask = load_some(e.mask.row(target.row) + channel, count, e.mask.whole);
#pragma unroll
        for (int c = 0; c < kVector<E>; ++c) {
          if (c >= count) continue;
          const Acc<E> value = widen(mask.value[c]);
          if (e.mask_scale[channel + c] * value + e.mask_shift[channel + c] <= Acc<E>(0)) y[c] = 0;
          y[c] = widen(narrow<E>(y[c]));
          sums[0][c] += y[c];
          sums[1][c] += y[c] * (value - e.mask_mean[channel + c]);
        }
      }
      if (e.residual != nullptr) {
        const Pack<E> added = load_some(e.residual + at, count, e.whole);
        Pack<E> gate = added;
        if (e.gate != nullptr) gate = load_some(e.gate + at, count, e.whole);
#pragma unroll
        for (int c = 0; c < kVector<E>; ++c) {
          Acc<E> r = widen(added.value[c]);
          if (e.gate != nullptr && widen(gate.value[c]) <= Acc<E>(0)) r = 0;
          if (e.residual_scale != nullptr && c < count) {
            r = e.residual_scale[channel + c] * r + e.residual_shift[channel + c];
          }
          y[c] += r;
        }
      }
      Pack<E> out;
#pragma unroll
      for (int c = 0; c < kVector<E>; ++c) out.value[c] = narrow<E>(e.relu ? rectified(y[c]) : y[c]);
      store_some(e.out + at, out, count, e.whole);
    }
  }
  if (e.statistics == nullptr && e.mask_sums == nullptr) return;
  const int slot = static_cast<int>(threadIdx.x) / kPacks;
  const auto rows_of = [&](int which) { return rows > which ? (rows - which - 1) / kRowsAtOnce + 1 : 0; };
  if (e.statistics != nullptr && count > 0 && slot < rows) {
    // Around the thread's own mean, so that nothing cancels.
    const Acc<E> share = Acc<E>(1) / static_cast<Acc<E>>(rows_of(slot));
    for (int i = slot; i < rows; i += kRowsAtOnce) {
#pragma unroll
      for (int c = 0; c < kVector<E>; ++c) {
        const Acc<E> apart = staging[i * stride + column + c] - sums[0][c] * share;
        sums[1][c] += apart * apart;
      }
    }
  }
  __syncthreads();  // the staging has been read: it takes the threads' sums, which are merged in order
#pragma unroll
  for (int which = 0; which < 2; ++which) {
#pragma unroll
    for (int c = 0; c < kVector<E>; ++c) staging[(2 * slot + which) * stride + column + c] = sums[which][c];
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < kColumns && first + c < e.channels; c += kThreads) {
    Acc<E> sum = 0, second = 0;
    for (int from = 0; from < kRowsAtOnce; ++from) {
      sum += staging[2 * from * stride + c];
      second += staging[(2 * from + 1) * stride + c];
    }
    if (e.statistics != nullptr) {
      sum /= static_cast<Acc<E>>(rows);
      for (int from = 0; from < kRowsAtOnce && from < rows; ++from) {
        const Acc<E> n = static_cast<Acc<E>>(rows_of(from)), apart = staging[2 * from * stride + c] / n - sum;
        second += n * apart * apart;
      }
    }
    Acc<E>* const to = (e.statistics != nullptr ? e.statistics : e.mask_sums) + tile * 2 * e.channels + first + c;
    to[0] = sum;
    to[e.channels] = second;
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
