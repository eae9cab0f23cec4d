// What both CUDA kernels of DTW share: collections, bands, and cells of the recurrence.
//
// A block serves one group of kPairs sequences y, a warp each, and goes through every `slots`-th sequence x. The row
// above a strip of rows lies in device memory at [slot][row of y]: groups do not share it, and it needs no length that
// only the device knows. Nothing is added by atomics, and nothing depends on the order of blocks.
#pragma once

#include <cmath>

#include "common/cuda/element.cuh"

namespace stgcn_fast {
namespace cuda {

constexpr int kPairs = 8;
constexpr int kDtwThreads = kPairs * kWarp;

// Where a sequence lies. No frames: it holds a number that is not finite, or offsets are out of order.
struct Sequence {
  Index start;
  int frames;
};

// Packed sequences: frames [rows, features]; offsets [count + 1], null for a single sequence of all rows.
template <typename E>
struct Collection {
  const E* frames;
  const Index* offsets;
  const Sequence* sequences;
  Index rows;
  int count;
};

enum BandKind { kSakoeChiba = 0, kSlanted = 1, kItakura = 2 };

// As `Band` of stgcn_fast/dtw/sequences.py.
struct Band {
  Index radius;
  double share;
  int kind;
  double slope;
};

template <typename E>
struct DtwProblem {
  Collection<E> x, y;
  Band band;
  E* above;  // [mean ? 2 : 1][slots][rows of y]
  E* out;    // [count of x, count of y]
  Index features;
  int slots;
  bool symmetric, squared;
};

// A product that is not fused with what follows, so that bands have the cells they have on the CPU.
__device__ __forceinline__ double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

struct Limits {
  int low, high;  // columns low..high-1
};

__device__ inline int clamped(double value, int most) {
  return value <= 0 ? 0 : value >= most ? most : static_cast<int>(value);
}

// Where the diagonal of the shorter axis stands at a step along the longer one.
__device__ inline int centre_of(int step, int longer, int shorter) {
  return static_cast<int>(floor(rounded_product((step + 1.0) / (longer + 1.0), shorter)));
}

// First column, of m >= n, where the diagonal has reached `row`; m if it never does.
__device__ inline int first_column(Index row, int n, int m) {
  if (row <= 0) return 0;
  const Index guess = row * (m + 1) / n - 2;
  int column = guess < 0 ? 0 : guess < m ? static_cast<int>(guess) : m;
  while (column < m && centre_of(column, m, n) < row) ++column;
  return column;
}

// Columns of row i of an n x m table that are in the band; neither limit decreases with i.
__device__ inline Limits limits_of(const Band& band, int i, int n, int m) {
  const int longer = n > m ? n : m, shorter = n > m ? m : n;
  if (band.kind == kItakura) {
    constexpr double kNear = 1e-6;  // as near to an integer as this is one
    const double steep = rounded_product(band.slope, m) / n, flat = m / rounded_product(band.slope, n);
    const int left = n - 1 - i;
    const double low_a = ceil(rounded_product(i, flat) - kNear);
    const double low_b = m - 1 - floor(rounded_product(left, steep) + kNear);
    const double high_a = floor(rounded_product(i, steep) + kNear);
    const double high_b = m - 1 - ceil(rounded_product(left, flat) - kNear);
    return {clamped(low_a > low_b ? low_a : low_b, m), clamped(1 + (high_a < high_b ? high_a : high_b), m)};
  }
  const Index most = Index{n} + m;  // wider than any table
  const Index radius = band.radius < most ? band.radius : most;
  if (band.kind == kSlanted) {
    const Index cells = radius + static_cast<Index>(rounded_product(band.share, shorter));
    if (n > m) {
      const Index centre = centre_of(i, n, m);
      const Index low = centre - cells, high = centre + cells + 1;
      return {low < 0 ? 0 : static_cast<int>(low), high < m ? static_cast<int>(high) : m};
    }
    return {first_column(i - cells, n, m), first_column(i + cells + 1, n, m)};
  }
  const Index cells = radius + static_cast<Index>(rounded_product(band.share, longer) + 0.5);
  const Index low = i - cells - (n > m ? n - m : 0), high = i + cells + (m > n ? m - n : 0) + 1;
  return {low < 0 ? 0 : low < m ? static_cast<int>(low) : m, high < m ? static_cast<int>(high) : m};
}

// The best way into a cell: its sum and, where means along paths are asked for, its cells. Of ways with equal sums the
// one with fewer cells counts.
template <typename E, bool kMean>
struct Way {
  E sum, cells;
};

template <typename E, bool kMean>
__device__ __forceinline__ Way<E, kMean> no_way() {
  return {static_cast<E>(INFINITY), E(0)};
}

template <typename E, bool kMean>
__device__ __forceinline__ Way<E, kMean> better(const Way<E, kMean>& a, const Way<E, kMean>& b) {
  if (!kMean) return {a.sum < b.sum ? a.sum : b.sum, E(0)};
  return b.sum < a.sum || (b.sum == a.sum && b.cells < a.cells) ? b : a;
}

__device__ __forceinline__ int of_lane(int value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }

template <typename E, bool kMean>
__device__ __forceinline__ Way<E, kMean> from_lane_above(const Way<E, kMean>& way) {
  constexpr unsigned kAll = 0xffffffffu;
  return {__shfl_up_sync(kAll, way.sum, 1), kMean ? __shfl_up_sync(kAll, way.cells, 1) : E(0)};
}

template <typename E, bool kMean>
__device__ __forceinline__ Way<E, kMean> from_lane(const Way<E, kMean>& way, int lane) {
  constexpr unsigned kAll = 0xffffffffu;
  return {__shfl_sync(kAll, way.sum, lane), kMean ? __shfl_sync(kAll, way.cells, lane) : E(0)};
}

// The row above a strip of one pair: columns low..high-1 of it are in the band.
template <typename E, bool kMean>
struct RowAbove {
  E* sums;  // at the pair's first column
  Index cells_at;
  int low, high;
  bool first;  // there is none: only the corner before the table leads anywhere

  __device__ Way<E, kMean> at(int column) const {
    if (first) return {column == -1 ? E(0) : static_cast<E>(INFINITY), E(0)};
    if (column < low || column >= high) return no_way<E, kMean>();
    return {sums[column], kMean ? sums[cells_at + column] : E(0)};
  }
  __device__ void put(int column, const Way<E, kMean>& way) const {
    sums[column] = way.sum;
    if (kMean) sums[cells_at + column] = way.cells;
  }
};

template <typename E, bool kMean>
__device__ RowAbove<E, kMean> row_above(const DtwProblem<E>& p, Index slot, Index start) {
  return {p.above + slot * p.y.rows + start, Index{p.slots} * p.y.rows, 0, 0, true};
}

template <typename E, bool kMean>
__device__ void put_result(const DtwProblem<E>& p, Index i, Index j, const Way<E, kMean>& way) {
  E value = kMean ? way.sum / way.cells : way.sum;
  if (kMean && !(way.sum < static_cast<E>(INFINITY))) value = way.sum;
  value = p.squared ? value : static_cast<E>(sqrt(value));
  p.out[i * p.y.count + j] = value;
  if (p.symmetric) p.out[j * p.y.count + i] = value;
}

// One block a sequence: where it lies, and no frames if they cannot be used.
template <typename E>
__global__ void find_sequences(Collection<E> c, Index features, Sequence* out) {
  __shared__ int bad;
  for (int i = static_cast<int>(blockIdx.x); i < c.count; i += static_cast<int>(gridDim.x)) {
    const Index start = c.offsets ? c.offsets[i] : 0, end = c.offsets ? c.offsets[i + 1] : c.rows;
    const bool fits = start >= 0 && start < end && end <= c.rows && end - start <= (Index{1} << 30);
    __syncthreads();
    if (threadIdx.x == 0) bad = fits ? 0 : 1;
    __syncthreads();
    bool finite = true;
    if (fits) {
      for (Index at = start * features + threadIdx.x; at < end * features; at += blockDim.x) {
        const E value = c.frames[at];
        finite = finite && value - value == E(0);
      }
    }
    if (!finite) bad = 1;
    __syncthreads();
    if (threadIdx.x == 0) out[i] = {start, bad ? 0 : static_cast<int>(end - start)};
  }
}

// Offsets that do not rise from 0 to the last row would let sequences share frames: then there is no collection.
template <typename E>
__global__ void check_offsets(Collection<E> c, Sequence* sequences) {
  __shared__ int bad;
  if (threadIdx.x == 0) bad = c.offsets[0] != 0 || c.offsets[c.count] != c.rows;
  __syncthreads();
  const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  for (int i = first; i < c.count; i += step) {
    if (c.offsets[i] >= c.offsets[i + 1]) bad = 1;
  }
  __syncthreads();
  if (!bad) return;
  for (int i = first; i < c.count; i += step) sequences[i].frames = 0;
}

}  // namespace cuda
}  // namespace stgcn_fast
