// Sums over rows of outer products, for gradients by weights: the rows are the depth of the product.
#pragma once

#include "tile.cuh"

namespace stgcn_fast {
namespace cuda {

template <typename E, bool kTensor>
struct OuterShape {
  static constexpr int kSide = sizeof(E) == 8 ? 32 : 64;   // of the square of sums that a block makes
  static constexpr int kRows = sizeof(E) == 2 ? 128 : 64;  // at a time
  static constexpr int kStride = kSide + 16 / static_cast<int>(sizeof(E));
  static constexpr int kWarps = kSide / 32 * (kSide / 32), kThreads = kWarp * kWarps;
  static constexpr int kM = 2, kN = 4;
  // Sums that share one operand: it is read once for all of them.
  static constexpr int kCount = sizeof(E) == 8 ? 2 : 3;
  using Sums = Product<E, kTensor, kM, kN>;
};

// A block's place: which square of [groups of kCount][left][right] and which run of tiles.
struct OuterPlace {
  int group, left, right, slot;
};

template <typename S>
__device__ __forceinline__ OuterPlace outer_place(int groups, int lefts, int rights) {
  const int left_tiles = (lefts + S::kSide - 1) / S::kSide, right_tiles = (rights + S::kSide - 1) / S::kSide;
  const int i = static_cast<int>(blockIdx.x), squares = groups * left_tiles * right_tiles;
  return {i % groups, i / groups % left_tiles * S::kSide, i / groups / left_tiles % right_tiles * S::kSide,
          i / squares};
}

template <typename S>
int outer_squares(int groups, int lefts, int rights) {
  return groups * static_cast<int>(ceil_div(lefts, S::kSide) * ceil_div(rights, S::kSide));
}

// Partial sums: enough blocks for any device, few enough that adding up costs little. Shapes alone decide.
inline int slots_for(Index tiles, Index squares, Index values) {
  constexpr Index kBlocks = 1024, kMostValues = Index(1) << 24;
  Index slots = ceil_div(kBlocks, squares);
  if (slots > tiles) slots = tiles;
  if (slots * values > kMostValues) slots = kMostValues / values;
  return static_cast<int>(slots < 1 ? 1 : slots);
}

// This warp's sums -> partial[left][right], where they are inside.
template <typename S, typename A, typename P>
__device__ __forceinline__ void store_outer(const P& sums, A* partial, int left, int right, int lefts, int rights) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row0 = left + warp % (S::kSide / 32) * 32, column0 = right + warp / (S::kSide / 32) * 32;
  sums.each([&](int row, int column, A first, A second) {
    if (row0 + row >= lefts) return;
    A* to = partial + static_cast<Index>(row0 + row) * rights + column0 + column;
    if (column0 + column < rights) to[0] = first;
    if (column0 + column + 1 < rights) to[1] = second;
  });
}

}  // namespace cuda
}  // namespace stgcn_fast
