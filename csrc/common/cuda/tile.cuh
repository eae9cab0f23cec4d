// Tiles in shared memory and their products in registers, the core that the kernels share.
//
// A tile holds rows of activations (or of packed weights) with their channels innermost, 16 bytes longer than the data
// so that neither matrix loads nor 16-byte loads of eight successive rows meet in a bank.
#pragma once

#include <type_traits>

#include "mma.cuh"

namespace stgcn_fast {
namespace cuda {

// kTensor: on tensor cores, for float in tf32. 16-bit types always say so and still run below sm_80, by plain
// multiply-adds.
//
// kTall: twice the rows by as many warps. Weights and the left operand's shared memory are then read half as often, for
// which there must be enough tiles to fill the device.
template <typename E, bool kTensor, bool kTall = false>
struct Shape {
  static_assert(!kTall || sizeof(E) < 8, "double's sums fill the registers already");
  static constexpr int kRows = kTall ? 256 : 128;            // of a product
  static constexpr int kColumns = sizeof(E) == 8 ? 32 : 64;  // of a product
  static constexpr int kDepth = 128 / sizeof(E);             // channels of a tile
  static constexpr int kPad = 16 / sizeof(E);
  static constexpr int kStride = kDepth + kPad;
  static constexpr int kStep = (kTensor ? 32 : 16) / sizeof(E);  // channels of one product instruction
  static constexpr int kM = 4, kN = kTall ? 8 : 4;               // 16 x 8 sums of a warp
  static constexpr int kWarpRows = 16 * kM, kWarpColumns = 8 * kN;
  static constexpr int kRowWarps = kRows / kWarpRows;
  static constexpr int kThreads = kWarp * kRowWarps * (kColumns / kWarpColumns);
  static constexpr int kStaging = kColumns + 4;  // stride of staged sums
};

// Where a warp's sums lie in its block's product.
template <typename S>
__device__ __forceinline__ int warp_row() {
  return static_cast<int>(threadIdx.x) / kWarp % S::kRowWarps * S::kWarpRows;
}
template <typename S>
__device__ __forceinline__ int warp_column() {
  return static_cast<int>(threadIdx.x) / kWarp / S::kRowWarps * S::kWarpColumns;
}

// Sums of a warp: (16 kM) x (8 kN), as fragments of 16 x 8 (mma.cuh says who holds what).
template <typename E, bool kTensor, int kM, int kN>
struct Product {
  static constexpr bool kFragments = kTensor && STGCN_FAST_TENSOR_CORES;
  static constexpr int kStep = (kTensor ? 32 : 16) / static_cast<int>(sizeof(E));
  Acc<E> sum[kM][kN][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
      }
    }
  }

  // Where this lane's parts of the left operand begin; `offset(row)` is where a row of the product starts.
  template <typename Offset>
  __device__ __forceinline__ static void place(int (&at)[2 * kM], Offset offset) {
    const int lane = lane_of_thread();
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      if constexpr (kFragments && sizeof(E) == 2) {
        at[m] = offset(m * 16 + lane % 16) + lane / 16 * 8;
        at[m + kM] = 0;
      } else {
        at[2 * m] = offset(m * 16 + lane / 4);
        at[2 * m + 1] = offset(m * 16 + lane / 4 + 8);
      }
    }
  }

  // sum[r][c] += sum over k < depth of a[at(r) + k] * b[c * b_stride + k]; depth is a multiple of kStep.
  __device__ __forceinline__ void add(const E* a, const int (&at)[2 * kM], const E* b, int b_stride, int depth) {
    const int lane = lane_of_thread();
    if constexpr (kFragments) {
#if STGCN_FAST_TENSOR_CORES
      const int b_at =
          sizeof(E) == 2 ? (lane / 16 * 8 + lane % 8) * b_stride + lane / 8 % 2 * 8 : lane / 4 * b_stride + lane % 4;
#pragma unroll 2
      for (int k = 0; k < depth; k += kStep) {
        Bits left[kM][4], right[kN][2];
        if constexpr (sizeof(E) == 2) {
          const void* row[kM + kN / 2];
          Bits loaded[kM + kN / 2][4];
#pragma unroll
          for (int m = 0; m < kM; ++m) row[m] = a + at[m] + k;
#pragma unroll
          for (int n = 0; n < kN / 2; ++n) row[kM + n] = b + b_at + n * 16 * b_stride + k;
          load_matrices<false>(loaded, row);
#pragma unroll
          for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) left[m][i] = loaded[m][i];
          }
#pragma unroll
          for (int n = 0; n < kN; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) right[n][i] = loaded[kM + n / 2][n % 2 * 2 + i];
          }
        } else {
#pragma unroll
          for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) left[m][i] = tf32(a[at[2 * m + i % 2] + k + i / 2 * 4 + lane % 4]);
          }
#pragma unroll
          for (int n = 0; n < kN; ++n) {
#pragma unroll
            for (int i = 0; i < 2; ++i) right[n][i] = tf32(b[b_at + n * 8 * b_stride + k + i * 4]);
          }
        }
        multiply_add<E>(sum, left, right);
      }
#endif
    } else {
      // Where fragments were placed for matrix loads, the rows are not this lane's: see place().
#pragma unroll 1
      for (int k = 0; k < depth; k += kVector<E>) {
        Pack<E> left[2 * kM];
#pragma unroll
        for (int r = 0; r < 2 * kM; ++r) left[r] = load_pack(a + at[r] + k);
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const Pack<E> right = load_pack(b + (n * 8 + lane % 4 * 2 + e) * b_stride + k);
#pragma unroll
            for (int i = 0; i < kVector<E>; ++i) {
              const Acc<E> factor = widen(right.value[i]);
#pragma unroll
              for (int r = 0; r < 2 * kM; ++r) {
                sum[r / 2][n][r % 2 * 2 + e] += widen(left[r].value[i]) * factor;
              }
            }
          }
        }
      }
    }
  }

  // sums[n][i][j] += sum over r < rows of a[r * a_stride + i] * b[n * apart + r * b_stride + j] for n < count of up to
  // kCount; rows is a multiple of 16. The left operand is read once for all.
  template <int kCount>
  __device__ __forceinline__ static void add_rows(Product* sums, int count, const E* a, int a_stride, const E* b,
                                                  int apart, int b_stride, int rows) {
    const int lane = lane_of_thread();
    if constexpr (kFragments) {
#if STGCN_FAST_TENSOR_CORES
#pragma unroll 2
      for (int r = 0; r < rows; r += kStep) {
        Bits left[kM][4];
        if constexpr (sizeof(E) == 2) {
          const void* row[kM];
#pragma unroll
          for (int m = 0; m < kM; ++m) {
            row[m] = a + (r + lane / 16 * 8 + lane % 8) * a_stride + m * 16 + lane / 8 % 2 * 8;
          }
          load_matrices<true>(left, row);
        } else {
          const E* from = a + (r + lane % 4) * a_stride + lane / 4;
#pragma unroll
          for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) left[m][i] = tf32(from[i / 2 * 4 * a_stride + m * 16 + i % 2 * 8]);
          }
        }
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          if (n < count) sums[n].add_right(left, b + n * apart + r * b_stride, b_stride);
        }
      }
#endif
    } else {
#pragma unroll 2
      for (int r = 0; r < rows; ++r) {
        Acc<E> left[2 * kM];
#pragma unroll
        for (int i = 0; i < 2 * kM; ++i) left[i] = widen(a[r * a_stride + i * 8 + lane / 4]);
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          if (n >= count) continue;
#pragma unroll
          for (int j = 0; j < 2 * kN; ++j) {
            const Acc<E> factor = widen(b[n * apart + r * b_stride + j / 2 * 8 + lane % 4 * 2 + j % 2]);
#pragma unroll
            for (int i = 0; i < 2 * kM; ++i) sums[n].sum[i / 2][j / 2][i % 2 * 2 + j % 2] += left[i] * factor;
          }
        }
      }
    }
  }

#if STGCN_FAST_TENSOR_CORES
  // sum += left * b, whose rows are the depth, kStep of them.
  __device__ __forceinline__ void add_right(const Bits (&left)[kM][4], const E* b, int b_stride) {
    const int lane = lane_of_thread();
    Bits right[kN][2];
    if constexpr (sizeof(E) == 2) {
      const void* row[kN / 2];
      Bits loaded[kN / 2][4];
#pragma unroll
      for (int n = 0; n < kN / 2; ++n) {
        row[n] = b + (lane / 8 % 2 * 8 + lane % 8) * b_stride + n * 16 + lane / 16 * 8;
      }
      load_matrices<true>(loaded, row);
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) right[n][i] = loaded[n / 2][n % 2 * 2 + i];
      }
    } else {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) right[n][i] = tf32(b[(lane % 4 + i * 4) * b_stride + lane / 4 + n * 8]);
      }
    }
    multiply_add<E>(sum, left, right);
  }
#endif

  // Calls put(row, column, first, second) for two neighbouring columns at a time.
  template <typename Put>
  __device__ __forceinline__ void each(Put put) const {
    const int lane = lane_of_thread();
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          put(m * 16 + h * 8 + lane / 4, n * 8 + lane % 4 * 2, sum[m][n][2 * h], sum[m][n][2 * h + 1]);
        }
      }
    }
  }
};

// scale * x + shift, then ReLU; null scale: x as it is.
template <typename E>
struct Normalise {
  const Acc<E>* scale = nullptr;  // [channels]
  const Acc<E>* shift = nullptr;
  bool relu = false;
};

// tile[i * stride + c] = x[row_of(i)][first + c] for i < rows, c < depth; zeros where row_of(i) < 0 and beyond the
// channels. depth is a multiple of 16 bytes and at most kWidth. Four loads are under way before the first is stored.
template <int kWidth, int kThreads, typename E, typename RowOf>
__device__ __forceinline__ void load_rows(E* tile, int stride, const Rows<E>& x, int rows, int first, int depth,
                                          RowOf row_of, const Normalise<E>& norm = {}) {
  constexpr int kPacks = kWidth / kVector<E>, kRowsAtOnce = kThreads / kPacks, kUnroll = 4;
  static_assert(kThreads % kPacks == 0, "a thread keeps its channels");
  const int column = static_cast<int>(threadIdx.x) % kPacks * kVector<E>;
  if (column >= depth) return;
  const int channel = first + column, count = x.channels - channel;
  Pack<E> zeros;
  Acc<E> scale[kVector<E>], shift[kVector<E>];
#pragma unroll
  for (int i = 0; i < kVector<E>; ++i) {
    zeros.value[i] = narrow<E>(Acc<E>(0));
    const bool there = norm.scale != nullptr && i < count;
    scale[i] = there ? norm.scale[channel + i] : Acc<E>(1);
    shift[i] = there ? norm.shift[channel + i] : Acc<E>(0);
  }
  for (int start = static_cast<int>(threadIdx.x) / kPacks; start < rows; start += kUnroll * kRowsAtOnce) {
    Pack<E> held[kUnroll];
    bool inside[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = start + u * kRowsAtOnce;
      const Index row = i < rows ? row_of(i) : Index(-1);
      inside[u] = row >= 0;
      held[u] = inside[u] ? load_some(x.row(row) + channel, count, x.whole) : zeros;
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = start + u * kRowsAtOnce;
      if (i >= rows) continue;
      if ((norm.scale != nullptr || norm.relu) && inside[u]) {
#pragma unroll
        for (int e = 0; e < kVector<E>; ++e) {
          const Acc<E> value = scale[e] * widen(held[u].value[e]) + shift[e];
          held[u].value[e] = narrow<E>(norm.relu ? rectified(value) : value);
        }
      }
      store_pack(tile + i * stride + column, held[u]);
    }
  }
}

// kRows rows of kWidth packed elements, asynchronously.
template <int kRows, int kWidth, int kThreads, typename E>
__device__ __forceinline__ void copy_tile(E* tile, int stride, const E* from, Index from_stride) {
  constexpr int kPacks = kWidth / kVector<E>;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
    const int row = i / kPacks, column = i % kPacks * kVector<E>;
    copy16_async(tile + row * stride + column, from + row * from_stride + column);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
