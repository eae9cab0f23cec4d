// The graph convolution in one kernel: a tile is a run of frames by some output channels. x is read once for each tile
// of output channels, y written once, and nothing lies between them in device memory.
#pragma once

#include "../common/cuda/epilogue.cuh"
#include "adjacency.cuh"

namespace stgcn_fast {
namespace cuda {

// How frames are cut: `tile_frames` of them fill a tile, and runs share none. A run is a sample, or all of them.
struct FrameTiles {
  Index samples, frames;  // runs, and frames of one
  int tile_frames;
  Index tiles;             // per run
  Index adjacency_frames;  // frames that share an adjacency; 0: all do

  // Of the adjacency, for a frame of the whole batch.
  __device__ Index adjacency_of(Index frame) const { return adjacency_frames == 0 ? 0 : frame / adjacency_frames; }
  __device__ Index sample_of(Index tile) const { return tile / tiles; }
  __device__ Index first_of(Index tile) const { return tile % tiles * tile_frames; }
  __device__ int frames_of(Index tile) const {
    const Index left = frames - first_of(tile);
    return static_cast<int>(left < tile_frames ? left : tile_frames);
  }
  // Frame in the whole batch.
  __device__ Index frame_of(Index tile) const { return sample_of(tile) * frames + first_of(tile); }
};

template <typename E>
struct GraphForward {
  Rows<E> x;  // [samples][frames][V]
  FrameTiles cut;
  Adjacency<E> adjacency;
  const E* weights;  // packed [K][padded outputs][padded inputs]
  int padded_outputs, padded_inputs;
  Normalise<E> norm;  // of x
};

template <typename S, typename E>
constexpr int graph_forward_bytes(bool multiply_first) {
  constexpr int kRow = S::kStride * static_cast<int>(sizeof(E));
  constexpr int kSums = S::kRows * S::kStaging * static_cast<int>(sizeof(Acc<E>));
  constexpr int kAggregated = (2 * S::kRows + 2 * S::kColumns) * kRow;
  if (multiply_first) return (S::kRows + S::kColumns) * kRow + 2 * kSums;
  return kAggregated > kSums ? kAggregated : kSums;
}

// Joints are summed before the multiplication (G = 1, or groups of input channels).
template <typename E, bool kTensor, bool kTall>
__global__ void __launch_bounds__(Shape<E, kTensor, kTall>::kThreads, 2)
    graph_forward_before(const GraphForward<E> p, const Epilogue<E> e) {
  using S = Shape<E, kTensor, kTall>;
  STGCN_FAST_SHARED(shared);
  E* const xs = reinterpret_cast<E*>(shared);
  E* const zs = xs + S::kRows * S::kStride;
  E* const ws = zs + S::kRows * S::kStride;
  const int column_tiles = p.padded_outputs / S::kColumns;
  const int first = static_cast<int>(blockIdx.x % static_cast<unsigned>(column_tiles)) * S::kColumns;
  const Index tile = blockIdx.x / static_cast<unsigned>(column_tiles);
  const int frames = p.cut.frames_of(tile), partitions = p.adjacency.partitions;
  const Index frame = p.cut.frame_of(tile), row0 = frame * p.adjacency.sources;
  const int row_of_warp = warp_row<S>(), column_of_warp = warp_column<S>();

  Product<E, kTensor, S::kM, S::kN> product;
  product.clear();
  int at[2 * S::kM];
  product.place(at, [&](int row) { return (row_of_warp + row) * S::kStride; });

  const int steps = p.padded_inputs / S::kDepth * partitions;
  const auto copy_weights = [&](int step) {
    const int chunk = step / partitions, k = step % partitions;
    const E* from =
        p.weights + (static_cast<Index>(k) * p.padded_outputs + first) * p.padded_inputs + chunk * S::kDepth;
    copy_tile<S::kColumns, S::kDepth, S::kThreads>(ws + step % 2 * S::kColumns * S::kStride, S::kStride, from,
                                                   p.padded_inputs);
    commit_copies();
  };
  copy_weights(0);
  for (int step = 0; step < steps; ++step) {
    const int chunk = step / partitions * S::kDepth, k = step % partitions;
    const int left = static_cast<int>(round_up(p.x.channels - chunk, S::kStep));
    const int depth = left < S::kDepth ? left : S::kDepth;
    if (k == 0) {
      load_rows<S::kDepth, S::kThreads>(
          xs, S::kStride, p.x, frames * p.adjacency.sources, chunk, depth, [&](int i) { return row0 + i; }, p.norm);
    }
    __syncthreads();  // x is there, and z is no longer read
    aggregate<S::kThreads>(
        p.adjacency, [&](int f) { return p.cut.adjacency_of(frame + f); }, k, xs, zs, S::kStride, frames, chunk, depth);
    if (step + 1 < steps) {
      copy_weights(step + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    product.add(zs, at, ws + (step % 2 * S::kColumns + column_of_warp) * S::kStride, S::kStride, depth);
  }
  __syncthreads();
  Acc<E>* const staging = reinterpret_cast<Acc<E>*>(shared);
  stage(product, staging + row_of_warp * S::kStaging + column_of_warp, S::kStaging);
  __syncthreads();
  const int targets = p.adjacency.targets;
  store_rows<S::kColumns, S::kThreads>(staging, S::kStaging, e, frames * targets, first, tile, [&](int i) {
    return Target{frame * targets + i, p.cut.adjacency_of(frame + i / targets), i % targets};
  });
}

// Joints are summed after the multiplication (G = 1, or groups of output channels).
template <typename E, bool kTensor>
__global__ void __launch_bounds__(Shape<E, kTensor>::kThreads, 2)
    graph_forward_after(const GraphForward<E> p, const Epilogue<E> e) {
  using S = Shape<E, kTensor>;
  STGCN_FAST_SHARED(shared);
  E* const xs = reinterpret_cast<E*>(shared);
  E* const ws = xs + S::kRows * S::kStride;
  Acc<E>* const us = reinterpret_cast<Acc<E>*>(ws + S::kColumns * S::kStride);
  Acc<E>* const ys = us + S::kRows * S::kStaging;
  const int column_tiles = p.padded_outputs / S::kColumns;
  const int first = static_cast<int>(blockIdx.x % static_cast<unsigned>(column_tiles)) * S::kColumns;
  const Index tile = blockIdx.x / static_cast<unsigned>(column_tiles),
              sample = p.cut.adjacency_of(p.cut.frame_of(tile));
  const int frames = p.cut.frames_of(tile), partitions = p.adjacency.partitions;
  const Index frame = p.cut.frame_of(tile), row0 = frame * p.adjacency.sources;
  const int row_of_warp = warp_row<S>(), column_of_warp = warp_column<S>();

  Product<E, kTensor, S::kM, S::kN> product;
  product.clear();
  int at[2 * S::kM];
  product.place(at, [&](int row) { return (row_of_warp + row) * S::kStride; });

  const int chunks = p.padded_inputs / S::kDepth, steps = chunks * partitions;
  for (int step = 0; step < steps; ++step) {
    const int k = step / chunks, chunk = step % chunks * S::kDepth;
    const int left = static_cast<int>(round_up(p.x.channels - chunk, S::kStep));
    const int depth = left < S::kDepth ? left : S::kDepth;
    __syncthreads();  // the product before has read x and its weights
    copy_tile<S::kColumns, S::kDepth, S::kThreads>(
        ws, S::kStride, p.weights + (static_cast<Index>(k) * p.padded_outputs + first) * p.padded_inputs + chunk,
        p.padded_inputs);
    commit_copies();
    if (step == 0 || chunks > 1) {
      load_rows<S::kDepth, S::kThreads>(
          xs, S::kStride, p.x, frames * p.adjacency.sources, chunk, depth, [&](int i) { return row0 + i; }, p.norm);
    }
    wait_copies<0>();
    __syncthreads();
    product.add(xs, at, ws + column_of_warp * S::kStride, S::kStride, depth);
    if (step % chunks != chunks - 1) continue;
    // The barriers above lie between two partitions: the sums that were staged have been read.
    stage(product, us + row_of_warp * S::kStaging + column_of_warp, S::kStaging);
    product.clear();
    __syncthreads();
    aggregate_sums<S::kColumns, S::kThreads>(p.adjacency, sample, k, us, ys, S::kStaging, frames, first);
  }
  __syncthreads();
  const int targets = p.adjacency.targets;
  store_rows<S::kColumns, S::kThreads>(ys, S::kStaging, e, frames * targets, first, tile,
                                       [&](int i) { return Target{frame * targets + i, sample, i % targets}; });
}

}  // namespace cuda
}  // namespace stgcn_fast
