// DTW of few features: a lane holds kLaneRows rows of x in registers, a warp a strip of 32 * kLaneRows rows, through
// which the columns of y move one lane a step. Costs are formed where they are used.
#pragma once

#include "pairs.cuh"

namespace stgcn_fast {
namespace cuda {

constexpr int kLaneRows = 4;
constexpr int kStripRows = kWarp * kLaneRows;
constexpr int kMostNarrow = 3;

template <typename E, int kFeatures, bool kMean>
__global__ void __launch_bounds__(kDtwThreads, 2) dtw_narrow(DtwProblem<E> p) {
  using Cell = Way<E, kMean>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group = static_cast<int>(blockIdx.x) / p.slots, slot = static_cast<int>(blockIdx.x) % p.slots;
  const int j = group * kPairs + static_cast<int>(threadIdx.x) / kWarp;
  if (j >= p.y.count) return;
  const Sequence to = p.y.sequences[j];
  const int m = to.frames;
  const E* const y = p.y.frames + to.start * kFeatures;

  for (int i = slot; i < p.x.count && !(p.symmetric && i > j); i += p.slots) {
    const Sequence from = p.x.sequences[i];
    const int n = from.frames;
    if (n == 0 || m == 0) {
      if (lane == 0) put_result<E, kMean>(p, i, j, {static_cast<E>(NAN), E(1)});
      continue;
    }
    RowAbove<E, kMean> above = row_above<E, kMean>(p, slot, to.start);
    Cell result = no_way<E, kMean>();
    for (int i0 = 0; i0 < n; i0 += kStripRows) {
      const int rows = n - i0 < kStripRows ? n - i0 : kStripRows;
      E x[kLaneRows][kFeatures];
      Limits limits[kLaneRows];
      Cell left[kLaneRows];
#pragma unroll
      for (int k = 0; k < kLaneRows; ++k) {
        const int row = lane * kLaneRows + k;
        limits[k] = row < rows ? limits_of(p.band, i0 + row, n, m) : Limits{0, 0};
        left[k] = no_way<E, kMean>();
#pragma unroll
        for (int d = 0; d < kFeatures; ++d) {
          x[k][d] = row < rows ? p.x.frames[(from.start + i0 + row) * kFeatures + d] : E(0);
        }
      }
      const Limits bottom = limits_of(p.band, i0 + rows - 1, n, m);
      const int first = of_lane(limits[0].low, 0), width = bottom.high - first;
      const bool last_strip = rows == n - i0;
      Cell diagonal = lane == 0 ? above.at(first - 1) : no_way<E, kMean>();
      Cell waiting = no_way<E, kMean>();  // of the row above, one column a lane
      for (int step = 0; step < width + kWarp - 1; ++step) {
        if (step % kWarp == 0) {
          // Read before any lane of this strip writes there.
          waiting = step + lane < width ? above.at(first + step + lane) : no_way<E, kMean>();
          __syncwarp();
        }
        const Cell entering = from_lane(waiting, step % kWarp), passed = from_lane_above(left[kLaneRows - 1]);
        const int column = first + step - lane;
        if (column < first || column >= first + width) continue;
        Cell up = lane == 0 ? entering : passed, corner = diagonal;
        diagonal = up;
        E right[kFeatures];
#pragma unroll
        for (int d = 0; d < kFeatures; ++d) right[d] = __ldg(y + Index{column} * kFeatures + d);
#pragma unroll
        for (int k = 0; k < kLaneRows; ++k) {
          E cost = 0;
#pragma unroll
          for (int d = 0; d < kFeatures; ++d) cost += (x[k][d] - right[d]) * (x[k][d] - right[d]);
          const Cell best = better(better(corner, up), left[k]);
          corner = left[k];
          const bool inside = column >= limits[k].low && column < limits[k].high;
          up = inside ? Cell{best.sum + cost, best.cells + E(1)} : no_way<E, kMean>();
          left[k] = up;
          if (last_strip && column == m - 1 && lane * kLaneRows + k == rows - 1) result = up;
        }
        if (!last_strip && lane == kWarp - 1) above.put(column, up);
      }
      __syncwarp();
      above.low = bottom.low;
      above.high = bottom.high;
      above.first = false;
    }
    if (lane == (n - 1) % kStripRows / kLaneRows) put_result(p, i, j, result);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
