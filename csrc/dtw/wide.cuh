// DTW of many features: costs of kTileRows rows of one x against kTileColumns columns of each of the block's y by
// register tiles, direct differences; then every warp runs its pair's recurrence through the costs in shared memory.
#pragma once

#include "common/cuda/mma.cuh"
#include "pairs.cuh"

namespace stgcn_fast {
namespace cuda {

template <typename E>
struct Tile {
  static constexpr int kRows = kWarp;                             // of x, a lane each in the recurrence
  static constexpr int kColumns = 32;                             // of each y
  static constexpr int kAll = kPairs * kColumns;                  // columns of all pairs
  static constexpr int kDepth = 64 / sizeof(E);                   // features in shared memory, 64 bytes of a frame
  static constexpr int kPitch = kAll + kVector<E>;                // columns of a row: steps to the next miss few banks
  static constexpr int kThreadRows = kRows / kPairs;              // of x, for each of the block's warps
  static constexpr int kThreadPacks = kAll / kWarp / kVector<E>;  // a lane has every 32nd pack of columns
  // Sums in one register stay as short as this, so that their rounding does.
  static constexpr int kLongest = 512;
};

template <typename E>
struct TileMemory {
  // Features in use and features on their way.
  E x[2][Tile<E>::kDepth][Tile<E>::kRows + kVector<E>];
  E y[2][Tile<E>::kDepth][Tile<E>::kPitch];
  E costs[Tile<E>::kRows][Tile<E>::kPitch];
  // Sums and cells of the rows around the strip.
  E above[2][kPairs][Tile<E>::kColumns], below[2][kPairs][Tile<E>::kColumns];
  Index y_row[kPairs];  // first row of the pair's tile in y
  int y_rows[kPairs];   // rows from there to the end of its sequence; at most 0 for no tile
  int tiles[kPairs];
};

// Features [at, at + kDepth) of the tile's rows to shared memory, zeros beyond; the lanes of a line read 64 bytes.
template <typename E>
__device__ __forceinline__ void stage(TileMemory<E>& memory, int buffer, const E* x, int rows, const E* y,
                                      Index features, Index at) {
  using T = Tile<E>;
  const int feature = static_cast<int>(threadIdx.x) % T::kDepth, first = static_cast<int>(threadIdx.x) / T::kDepth;
  const bool exists = at + feature < features;
#pragma unroll 2
  for (int line = first; line < T::kAll; line += kDtwThreads / T::kDepth) {
    const int pair = line / T::kColumns, column = line % T::kColumns;
    const bool there = exists && column < memory.y_rows[pair];
    const E* const from = there ? y + (memory.y_row[pair] + column) * features + at + feature : y;
    copy_or_zero_async(&memory.y[buffer][feature][line], from, there);
  }
  for (int line = first; line < T::kRows; line += kDtwThreads / T::kDepth) {
    const bool there = exists && line < rows;
    copy_or_zero_async(&memory.x[buffer][feature][line], there ? x + line * features + at + feature : x, there);
  }
  commit_copies();
}

// costs = the local costs of one tile of all pairs.
template <typename E>
__device__ void tile_costs(TileMemory<E>& memory, const E* x, int rows, const E* y, Index features) {
  using T = Tile<E>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  E sums[T::kThreadRows][T::kThreadPacks * kVector<E>] = {};
  bool begun = false;
  int buffer = 0;
  __syncthreads();  // where the tiles lie is known
  stage(memory, buffer, x, rows, y, features, 0);
#pragma unroll 1
  for (Index at = 0; at < features; at += T::kDepth, buffer = 1 - buffer) {
    const bool last = at + T::kDepth >= features;
    if (last) {
      wait_copies<0>();
    } else {
      stage(memory, 1 - buffer, x, rows, y, features, at + T::kDepth);
      wait_copies<1>();
    }
    __syncthreads();
#pragma unroll 2
    for (int d = 0; d < T::kDepth; ++d) {
      E left[T::kThreadRows];
#pragma unroll
      for (int r = 0; r < T::kThreadRows; r += kVector<E>) {
        const Pack<E> pack = load_pack(&memory.x[buffer][d][warp * T::kThreadRows + r]);
#pragma unroll
        for (int k = 0; k < kVector<E>; ++k) left[r + k] = pack.value[k];
      }
#pragma unroll
      for (int q = 0; q < T::kThreadPacks; ++q) {
        const Pack<E> right = load_pack(&memory.y[buffer][d][(q * kWarp + lane) * kVector<E>]);
#pragma unroll
        for (int k = 0; k < kVector<E>; ++k) {
#pragma unroll
          for (int r = 0; r < T::kThreadRows; ++r) {
            const E difference = left[r] - right.value[k];
            E& sum = sums[r][q * kVector<E> + k];
            sum += difference * difference;
          }
        }
      }
    }
    __syncthreads();  // this buffer may be filled again
    if (!last && (at + T::kDepth) % T::kLongest != 0) continue;
#pragma unroll
    for (int r = 0; r < T::kThreadRows; ++r) {
#pragma unroll
      for (int q = 0; q < T::kThreadPacks; ++q) {
        E* const to = &memory.costs[warp * T::kThreadRows + r][(q * kWarp + lane) * kVector<E>];
        Pack<E> pack;
        if (begun) pack = load_pack(to);
#pragma unroll
        for (int k = 0; k < kVector<E>; ++k) {
          E& sum = sums[r][q * kVector<E> + k];
          pack.value[k] = begun ? pack.value[k] + sum : sum;
          sum = 0;
        }
        store_pack(to, pack);
      }
    }
    begun = true;
  }
  __syncthreads();
}

template <typename E, bool kMean>
__global__ void __launch_bounds__(kDtwThreads, sizeof(E) == 8 || kMean ? 1 : 2) dtw_wide(DtwProblem<E> p) {
  using T = Tile<E>;
  using Cell = Way<E, kMean>;
  STGCN_FAST_SHARED(bytes);
  TileMemory<E>& memory = *reinterpret_cast<TileMemory<E>*>(bytes);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int group = static_cast<int>(blockIdx.x) / p.slots, slot = static_cast<int>(blockIdx.x) % p.slots;
  const int j = group * kPairs + warp;
  // No x behind the group's last y is of use where one half of the table is the other.
  const int x_end = p.symmetric && (group + 1) * kPairs < p.x.count ? (group + 1) * kPairs : p.x.count;
  const Sequence to = j < p.y.count ? p.y.sequences[j] : Sequence{0, 0};
  const int m = to.frames;

  for (int i = slot; i < x_end; i += p.slots) {
    const Sequence from = p.x.sequences[i];
    const int n = from.frames;
    const bool wanted = j < p.y.count && !(p.symmetric && i > j), possible = wanted && n > 0 && m > 0;
    RowAbove<E, kMean> above = row_above<E, kMean>(p, slot, to.start);
    Cell result = no_way<E, kMean>();
    for (int i0 = 0; i0 < n; i0 += T::kRows) {
      const int rows = n - i0 < T::kRows ? n - i0 : T::kRows;
      const Limits limits = possible && lane < rows ? limits_of(p.band, i0 + lane, n, m) : Limits{0, 0};
      const int first = of_lane(limits.low, 0), end = of_lane(limits.high, rows - 1);
      const int own = end <= first ? 0 : (end - first + T::kColumns - 1) / T::kColumns;
      if (lane == 0) memory.tiles[warp] = own;
      __syncthreads();
      int tiles = 0;
      for (int q = 0; q < kPairs; ++q) tiles = tiles < memory.tiles[q] ? memory.tiles[q] : tiles;

      Cell left = no_way<E, kMean>();
      Cell corner = possible ? above.at(first - 1) : left;  // before the tile, of the row above the strip
      for (int tile = 0; tile < tiles; ++tile) {
        const int j0 = first + tile * T::kColumns;
        if (lane == 0) {
          memory.y_row[warp] = to.start + j0;
          memory.y_rows[warp] = tile < own ? m - j0 : 0;
        }
        tile_costs(memory, p.x.frames + (from.start + i0) * p.features, rows, p.y.frames, p.features);
        if (tile >= own) continue;

        const int columns = end - j0 < T::kColumns ? end - j0 : T::kColumns;
        for (int c = lane; c < columns; c += kWarp) {
          const Cell way = above.at(j0 + c);
          memory.above[0][warp][c] = way.sum;
          if (kMean) memory.above[1][warp][c] = way.cells;
        }
        __syncwarp();
        const auto entering = [&](int c) -> Cell {
          return {memory.above[0][warp][c], kMean ? memory.above[1][warp][c] : E(0)};
        };
        Cell diagonal = from_lane_above(left);
        if (lane == 0) diagonal = corner;
        corner = entering(columns - 1);
        for (int step = 0; step < columns + rows - 1; ++step) {
          Cell up = from_lane_above(left);
          const int c = step - lane;
          if (c < 0 || c >= columns || lane >= rows) continue;
          if (lane == 0) up = entering(c);
          const Cell best = better(better(diagonal, up), left);
          diagonal = up;
          const bool inside = j0 + c >= limits.low && j0 + c < limits.high;
          const E cost = memory.costs[lane][warp * T::kColumns + c];
          left = inside ? Cell{best.sum + cost, best.cells + E(1)} : no_way<E, kMean>();
          if (lane != rows - 1) continue;
          memory.below[0][warp][c] = left.sum;
          if (kMean) memory.below[1][warp][c] = left.cells;
          if (i0 + rows == n && j0 + c == m - 1) result = left;
        }
        __syncwarp();
        if (i0 + rows < n) {
          for (int c = lane; c < columns; c += kWarp) {
            above.put(j0 + c, {memory.below[0][warp][c], kMean ? memory.below[1][warp][c] : E(0)});
          }
        }
        __syncwarp();
      }
      above.low = of_lane(limits.low, rows - 1);
      above.high = end;
      above.first = false;
      __syncthreads();
    }
    if (!wanted) continue;
    if (!possible) result = {static_cast<E>(NAN), E(1)};
    if (lane == (possible ? (n - 1) % T::kRows : 0)) put_result(p, i, j, result);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
