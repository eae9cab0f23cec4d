// The temporal convolution, and its gradient by the input, as one kernel: a tile is a run of rows (frame, joint) of one
// sample by some target channels. A window of source frames lies in shared memory and serves all taps: a tap is a row
// offset. x is read once for each tile of target channels but for the window's overlap, y written once.
#pragma once

#include "../common/cuda/epilogue.cuh"

namespace stgcn_fast {
namespace cuda {

// Taps of a phase: target frame phase + i * target_step reads, by weight tap first + j * step, source frame
// i * source_step + base + j * frame_step. A convolution has one phase; its gradient by the input one for each frame
// that the stride passes over.
struct Phase {
  int count;
  Index first, step, base, frame_step;
};

struct TemporalGeometry {
  Index samples, source_frames, target_frames;
  int joints, kernel_size;
  Index stride, padding, dilation;
  bool backward;  // the target is the convolution's input

  __host__ __device__ Index target_step() const { return backward ? stride : 1; }
  __host__ __device__ Index source_step() const { return backward ? 1 : stride; }
  __host__ __device__ Index target_frames_of(Index phase) const {
    return ceil_div(target_frames - phase, target_step());
  }
  __host__ __device__ Phase phase_of(Index phase) const {
    if (!backward) return {kernel_size, 0, 1, -padding, dilation};
    int first = 0;
    while (first < kernel_size && (phase + padding - first * dilation) % stride != 0) ++first;
    if (first == kernel_size) return {0, 0, 1, 0, 0};
    Index step = stride;
    for (Index a = dilation % stride, b = stride; a != 0;) {
      const Index rest = b % a;
      b = a;
      a = rest;
      step = stride / b;
    }
    if (dilation % stride == 0) step = 1;
    const Index others = (kernel_size - 1 - first) / step, last = first + others * step;
    // From the last tap on: frames then ascend.
    return {static_cast<int>(others) + 1, last, -step, (phase + padding - last * dilation) / stride,
            step * dilation / stride};
  }
};

template <typename E>
struct TemporalForward {
  Rows<E> x;  // [samples][source frames][joints]
  TemporalGeometry geometry;
  Index tiles;        // per sample and phase
  Index first_phase;  // of this launch
  const E* weights;   // packed [taps][padded targets][padded sources]
  int padded_targets, padded_sources;
  int window_taps;  // how many taps a window serves
  int window_rows;
  bool gather;  // the window holds a tile's own rows for one tap, whatever lies between them
  Normalise<E> norm;
};

constexpr int kTemporalBuffers = 3;  // of weights

template <typename S, typename E>
int temporal_forward_bytes(int window_rows) {
  const int tiles = (window_rows + kTemporalBuffers * S::kColumns) * S::kStride * static_cast<int>(sizeof(E));
  const int sums = S::kRows * S::kStaging * static_cast<int>(sizeof(Acc<E>));
  return tiles > sums ? tiles : sums;
}

// Rows of a window that serves `taps` taps of a phase, whichever rows the tile begins with.
template <typename S>
Index temporal_window_rows(const TemporalGeometry& g, const Phase& phase, int taps) {
  const Index rows = S::kRows, reach = (taps - 1) * phase.frame_step;
  if (g.source_step() == 1) return rows + reach * g.joints;
  const Index frames = (rows + g.joints - 2) / g.joints + 1;  // that so many rows can touch
  return ((frames - 1) * g.source_step() + reach + 1) * g.joints;
}

template <typename E, bool kTensor, bool kTall>
__global__ void __launch_bounds__(Shape<E, kTensor, kTall>::kThreads, 2)
    temporal_forward(const TemporalForward<E> p, const Epilogue<E> e) {
  using S = Shape<E, kTensor, kTall>;
  constexpr int kBuffers = kTemporalBuffers;
  STGCN_FAST_SHARED(shared);
  E* const window = reinterpret_cast<E*>(shared);
  E* const ws = window + p.window_rows * S::kStride;
  const TemporalGeometry& g = p.geometry;
  const int column_tiles = p.padded_targets / S::kColumns;
  const int first = static_cast<int>(blockIdx.x % static_cast<unsigned>(column_tiles)) * S::kColumns;
  const Index tile = blockIdx.x / static_cast<unsigned>(column_tiles);
  const Index sample = tile / p.tiles, row0 = tile % p.tiles * S::kRows, phase_index = p.first_phase + blockIdx.y;
  const Index target_rows = g.target_frames_of(phase_index) * g.joints;
  if (row0 >= target_rows) return;
  const Phase phase = g.phase_of(phase_index);
  const Index frame0 = row0 / g.joints;  // counted in steps of the target
  const int joint0 = static_cast<int>(row0 % g.joints);
  const int rows = static_cast<int>(target_rows - row0 < S::kRows ? target_rows - row0 : S::kRows);
  const int row_of_warp = warp_row<S>(), column_of_warp = warp_column<S>();
  const Index source_step = g.source_step();
  const bool dense = source_step == 1;
  // Of the window's first row, for the first tap: within the sample.
  const Index start = dense ? row0 + phase.base * g.joints : (frame0 * source_step + phase.base) * g.joints;

  Product<E, kTensor, S::kM, S::kN> product;
  product.clear();
  int at[2 * S::kM];
  product.place(at, [&](int row) {
    const int r = row_of_warp + row;
    if (p.gather || dense) return r * S::kStride;
    const int kept = r < rows ? r : 0, frame = (joint0 + kept) / g.joints, joint = (joint0 + kept) % g.joints;
    return (frame * static_cast<int>(source_step) * g.joints + joint) * S::kStride;
  });

  const int steps = p.padded_sources / S::kDepth * phase.count;
  const auto copy_weights = [&](int step) {
    const int chunk = step / phase.count * S::kDepth;
    const Index tap = phase.first + step % phase.count * phase.step;
    copy_tile<S::kColumns, S::kDepth, S::kThreads>(
        ws + step % kBuffers * S::kColumns * S::kStride, S::kStride,
        p.weights + (tap * p.padded_targets + first) * p.padded_sources + chunk, p.padded_sources);
    commit_copies();
  };
  if (steps > 0) copy_weights(0);
  for (int step = 0; step < steps; ++step) {
    const int chunk = step / phase.count * S::kDepth, tap = step % phase.count, within = tap % p.window_taps;
    const int left = static_cast<int>(round_up(p.x.channels - chunk, S::kStep));
    const int depth = left < S::kDepth ? left : S::kDepth;
    if (within == 0) {
      __syncthreads();  // the window is no longer read
      const int served = phase.count - tap < p.window_taps ? phase.count - tap : p.window_taps;
      const Index shift = tap * phase.frame_step * g.joints, sample_rows = g.source_frames * g.joints;
      int loaded = rows;
      if (!p.gather) {
        const int frames = (joint0 + rows - 1) / g.joints + 1;
        const Index reach = (served - 1) * phase.frame_step;
        loaded =
            static_cast<int>(dense ? rows + reach * g.joints : ((frames - 1) * source_step + reach + 1) * g.joints);
      }
      load_rows<S::kDepth, S::kThreads>(
          window, S::kStride, p.x, loaded, chunk, depth,
          [&](int i) {
            Index row = start + shift + i;
            if (p.gather && !dense) {
              const int frame = (joint0 + i) / g.joints, joint = (joint0 + i) % g.joints;
              row = start + shift + frame * source_step * g.joints + joint;
            }
            return row >= 0 && row < sample_rows ? sample * sample_rows + row : Index(-1);
          },
          p.norm);
    }
    if (step + 1 < steps) {
      copy_weights(step + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();  // with three buffers the only barrier of a tap: no warp is more than one product ahead
    const E* from = window + static_cast<int>(within * phase.frame_step) * g.joints * S::kStride;
    product.add(p.gather ? window : from, at, ws + (step % kBuffers * S::kColumns + column_of_warp) * S::kStride,
                S::kStride, depth);
  }
  __syncthreads();
  Acc<E>* const staging = reinterpret_cast<Acc<E>*>(shared);
  stage(product, staging + row_of_warp * S::kStaging + column_of_warp, S::kStaging);
  __syncthreads();
  const Index entry = phase_index * g.samples * p.tiles + tile;
  store_rows<S::kColumns, S::kThreads>(staging, S::kStaging, e, rows, first, entry, [&](int i) {
    const int frame = (joint0 + i) / g.joints, joint = (joint0 + i) % g.joints;
    const Index target = phase_index + (frame0 + frame) * g.target_step();
    return Target{(sample * g.target_frames + target) * g.joints + joint, sample, joint};
  });
}

}  // namespace cuda
}  // namespace stgcn_fast
