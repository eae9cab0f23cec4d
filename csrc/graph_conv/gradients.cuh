// Gradients of the graph convolution by weight, adjacency and bias. Partial sums go to slots and are added in order, so
// that results do not depend on timing; nothing is atomic.
#pragma once

#include "../common/cuda/outer.cuh"
#include "forward.cuh"

namespace stgcn_fast {
namespace cuda {

// partial[slot][k][d][s] = sum over rows of direct[row][d] * (sum over joints by the adjacency of summed)[row][s].
template <typename E>
struct GraphGradWeight {
  Rows<E> summed, direct;  // [samples][frames][sources], [samples][frames][targets]
  FrameTiles cut;
  Adjacency<E> adjacency;
  int slots;
  Acc<E>* partial;
};

template <typename E, bool kTensor>
int graph_grad_weight_bytes(int tile_frames, int sources, int targets) {
  using S = OuterShape<E, kTensor>;
  const int rows = tile_frames * sources + 2 * ((tile_frames * targets + 15) / 16 * 16);
  return rows * S::kStride * static_cast<int>(sizeof(E));
}

template <typename E, bool kTensor>
__global__ void __launch_bounds__(OuterShape<E, kTensor>::kThreads, 2) graph_grad_weight(const GraphGradWeight<E> p) {
  using S = OuterShape<E, kTensor>;
  STGCN_FAST_SHARED(shared);
  const Adjacency<E>& a = p.adjacency;
  const int most = (p.cut.tile_frames * a.targets + 15) / 16 * 16;
  E* const ds = reinterpret_cast<E*>(shared);
  E* const zs = ds + most * S::kStride;
  E* const ss = zs + most * S::kStride;
  const int lefts = p.direct.channels, rights = p.summed.channels;
  const OuterPlace place = outer_place<S>((a.partitions + S::kCount - 1) / S::kCount, lefts, rights);
  const int k0 = place.group * S::kCount, count = a.partitions - k0 < S::kCount ? a.partitions - k0 : S::kCount;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warp_left = warp % (S::kSide / 32) * 32, warp_right = warp / (S::kSide / 32) * 32;

  typename S::Sums sums[S::kCount];
#pragma unroll
  for (int j = 0; j < S::kCount; ++j) sums[j].clear();
  const Index all = p.cut.samples * p.cut.tiles;
  const Index begin = all * place.slot / p.slots, end = all * (place.slot + 1) / p.slots;
  for (Index tile = begin; tile < end; ++tile) {
    const int frames = p.cut.frames_of(tile), rows = frames * a.targets, padded = (rows + 15) / 16 * 16;
    const Index frame = p.cut.frame_of(tile);
    __syncthreads();  // the tiles before are no longer read
    load_rows<S::kSide, S::kThreads>(ds, S::kStride, p.direct, padded, place.left, S::kSide,
                                     [&](int i) { return i < rows ? frame * a.targets + i : Index(-1); });
    load_rows<S::kSide, S::kThreads>(ss, S::kStride, p.summed, frames * a.sources, place.right, S::kSide,
                                     [&](int i) { return frame * a.sources + i; });
    for (int i = static_cast<int>(threadIdx.x); i < (padded - rows) * S::kSide; i += S::kThreads) {
      zs[(rows + i / S::kSide) * S::kStride + i % S::kSide] = narrow<E>(Acc<E>(0));
    }
#pragma unroll
    for (int j = 0; j < S::kCount; ++j) {
      if (j >= count) continue;
      __syncthreads();  // the source is there; the partition before has been multiplied
      aggregate<S::kThreads>(
          a, [&](int f) { return p.cut.adjacency_of(frame + f); }, k0 + j, ss, zs, S::kStride, frames, place.right,
          S::kSide);
      __syncthreads();
      S::Sums::template add_rows<1>(sums + j, 1, ds + warp_left, S::kStride, zs + warp_right, 0, S::kStride, padded);
    }
  }
#pragma unroll
  for (int j = 0; j < S::kCount; ++j) {
    if (j >= count) continue;
    Acc<E>* to = p.partial + (static_cast<Index>(place.slot) * a.partitions + k0 + j) * lefts * rights;
    store_outer<S>(sums[j], to, place.left, place.right, lefts, rights);
  }
}

// Gradient by the adjacency: of every pair of joints (i, j), the sum over frames and channels of (W_k x)[i] * y[j].
// With groups the channels stay apart until the partial sums are added.
template <typename E>
struct GraphGradAdjacency {
  Rows<E> multiplied, direct;  // [samples][frames][firsts], [samples][frames][seconds]
  FrameTiles cut;
  int partitions, firsts, seconds;
  const E* weights;  // packed [K][padded outputs][padded inputs]
  int padded_outputs, padded_inputs;
  int slots;        // per sample
  Acc<E>* partial;  // [samples][slots][K][firsts][seconds] or, with groups, [samples][slots][K][firsts][seconds][O]
};

constexpr int kPairFrames = 4, kPairJoints = 32;  // one 32 x 32 square of joints for each of four frames

template <typename E, bool kTensor>
constexpr int graph_grad_adjacency_bytes(bool grouped) {
  using S = Shape<E, kTensor>;
  constexpr int kTiles = (S::kRows + S::kColumns) * S::kStride * static_cast<int>(sizeof(E));
  return kTiles + (grouped ? 2 * S::kRows * S::kStaging * static_cast<int>(sizeof(Acc<E>))
                           : 2 * S::kRows * (S::kColumns + S::kPad) * static_cast<int>(sizeof(E)));
}

// product = rows of `multiplied` times the weights of partition k for 64 output channels, through xs and ws.
template <typename E, bool kTensor, typename P, typename RowOf>
__device__ __forceinline__ void multiply_rows(P& product, const GraphGradAdjacency<E>& p, int k, int first, E* xs,
                                              E* ws, const int (&at)[2 * Shape<E, kTensor>::kM], int column_of_warp,
                                              RowOf row_of) {
  using S = Shape<E, kTensor>;
  product.clear();
  for (int chunk = 0; chunk < p.padded_inputs; chunk += S::kDepth) {
    const int left = static_cast<int>(round_up(p.multiplied.channels - chunk, S::kStep));
    const int depth = left < S::kDepth ? left : S::kDepth;
    __syncthreads();
    copy_tile<S::kColumns, S::kDepth, S::kThreads>(
        ws, S::kStride, p.weights + (static_cast<Index>(k) * p.padded_outputs + first) * p.padded_inputs + chunk,
        p.padded_inputs);
    commit_copies();
    load_rows<S::kDepth, S::kThreads>(xs, S::kStride, p.multiplied, S::kRows, chunk, depth, row_of);
    wait_copies<0>();
    __syncthreads();
    product.add(xs, at, ws + column_of_warp * S::kStride, S::kStride, depth);
  }
}

// One group: a warp multiplies the channels of a frame's joints, again on tensor cores.
template <typename E, bool kTensor>
__global__ void __launch_bounds__(Shape<E, kTensor>::kThreads, 2) graph_grad_adjacency(const GraphGradAdjacency<E> p) {
  using S = Shape<E, kTensor>;
  constexpr int kPairStride = S::kColumns + S::kPad, kWarps = S::kThreads / kWarp;
  STGCN_FAST_SHARED(shared);
  E* const xs = reinterpret_cast<E*>(shared);
  E* const ws = xs + S::kRows * S::kStride;
  E* const us = ws + S::kColumns * S::kStride;
  E* const gs = us + S::kRows * kPairStride;
  const int first_tiles = (p.firsts + kPairJoints - 1) / kPairJoints;
  const int second_tiles = (p.seconds + kPairJoints - 1) / kPairJoints;
  Index i = blockIdx.x;
  const int k = static_cast<int>(i % p.partitions);
  i /= p.partitions;
  const int first0 = static_cast<int>(i % first_tiles) * kPairJoints;
  i /= first_tiles;
  const int second0 = static_cast<int>(i % second_tiles) * kPairJoints;
  i /= second_tiles;
  const Index slot = i % p.slots, sample = i / p.slots;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row_of_warp = warp_row<S>(), column_of_warp = warp_column<S>();

  Product<E, kTensor, 2, 4> pairs;
  pairs.clear();
  Product<E, kTensor, S::kM, S::kN> product;
  int at[2 * S::kM], pair_at[4];
  product.place(at, [&](int row) { return (row_of_warp + row) * S::kStride; });
  pairs.place(pair_at, [&](int row) { return row * kPairStride; });
  const Index begin = p.cut.tiles * slot / p.slots, end = p.cut.tiles * (slot + 1) / p.slots;
  for (Index t = begin; t < end; ++t) {
    const Index tile = sample * p.cut.tiles + t, frame = p.cut.frame_of(tile);
    const int frames = p.cut.frames_of(tile);
    const auto row_of = [&](int r, int joint0, int joints) {
      const int f = r / kPairJoints, joint = joint0 + r % kPairJoints;
      return f < frames && joint < joints ? (frame + f) * joints + joint : Index(-1);
    };
    for (int first = 0; first < p.padded_outputs; first += S::kColumns) {
      multiply_rows<E, kTensor>(product, p, k, first, xs, ws, at, column_of_warp,
                                [&](int r) { return row_of(r, first0, p.firsts); });
      // Barriers of the next product lie between these tiles' use and their being written again.
      product.each([&](int row, int column, Acc<E> one, Acc<E> two) {
        E* to = us + (row_of_warp + row) * kPairStride + column_of_warp + column;
        to[0] = narrow<E>(one);
        to[1] = narrow<E>(two);
      });
      load_rows<S::kColumns, S::kThreads>(gs, kPairStride, p.direct, S::kRows, first, S::kColumns,
                                          [&](int r) { return row_of(r, second0, p.seconds); });
      __syncthreads();
      for (int f = warp; f < kPairFrames; f += kWarps) {
        const int from = f * kPairJoints * kPairStride;
        pairs.add(us + from, pair_at, gs + from, kPairStride, S::kColumns);
      }
    }
  }
  __syncthreads();
  // The warps' sums, added in order.
  Acc<E>* const staging = reinterpret_cast<Acc<E>*>(shared);
  constexpr int kSquare = kPairJoints * (kPairJoints + 1);
  stage(pairs, staging + warp * kSquare, kPairJoints + 1);
  __syncthreads();
  Acc<E>* const partial = p.partial + ((sample * p.slots + slot) * p.partitions + k) * p.firsts * p.seconds;
  for (int n = static_cast<int>(threadIdx.x); n < kPairJoints * kPairJoints; n += S::kThreads) {
    const int one = n / kPairJoints, two = n % kPairJoints;
    if (first0 + one >= p.firsts || second0 + two >= p.seconds) continue;
    Acc<E> sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += staging[w * kSquare + one * (kPairJoints + 1) + two];
    partial[static_cast<Index>(first0 + one) * p.seconds + second0 + two] = sum;
  }
}

// Groups: a thread keeps a channel, whose partial sums lie next to its neighbours'.
template <typename E, bool kTensor>
__global__ void __launch_bounds__(Shape<E, kTensor>::kThreads, 2)
    graph_grad_adjacency_grouped(const GraphGradAdjacency<E> p) {
  using S = Shape<E, kTensor>;
  constexpr int kAtOnce = 8;
  STGCN_FAST_SHARED(shared);
  E* const xs = reinterpret_cast<E*>(shared);
  E* const ws = xs + S::kRows * S::kStride;
  Acc<E>* const us = reinterpret_cast<Acc<E>*>(ws + S::kColumns * S::kStride);
  Acc<E>* const gs = us + S::kRows * S::kStaging;
  const int column_tiles = p.padded_outputs / S::kColumns, outputs = p.direct.channels;
  Index i = blockIdx.x;
  const int first = static_cast<int>(i % column_tiles) * S::kColumns;
  i /= column_tiles;
  const int k = static_cast<int>(i % p.partitions);
  i /= p.partitions;
  const Index slot = i % p.slots, sample = i / p.slots;
  const int row_of_warp = warp_row<S>(), column_of_warp = warp_column<S>();
  Product<E, kTensor, S::kM, S::kN> product;
  int at[2 * S::kM];
  product.place(at, [&](int row) { return (row_of_warp + row) * S::kStride; });
  const int c = static_cast<int>(threadIdx.x) % S::kColumns, part = static_cast<int>(threadIdx.x) / S::kColumns;
  Acc<E>* const partial =
      p.partial + ((sample * p.slots + slot) * p.partitions + k) * p.firsts * p.seconds * outputs + first + c;
  const Index begin = p.cut.tiles * slot / p.slots, end = p.cut.tiles * (slot + 1) / p.slots;
  for (Index t = begin; t < end; ++t) {
    const Index tile = sample * p.cut.tiles + t, frame = p.cut.frame_of(tile);
    const int frames = p.cut.frames_of(tile), rows = frames * p.firsts;
    multiply_rows<E, kTensor>(product, p, k, first, xs, ws, at, column_of_warp,
                              [&](int r) { return r < rows ? frame * p.firsts + r : Index(-1); });
    stage(product, us + row_of_warp * S::kStaging + column_of_warp, S::kStaging);
    for (int r = part; r < frames * p.seconds; r += S::kThreads / S::kColumns) {
      const E* from = p.direct.row(frame * p.seconds + r) + first;
      gs[r * S::kStaging + c] = first + c < outputs ? widen(from[c]) : Acc<E>(0);
    }
    __syncthreads();
    for (int one = part; one < p.firsts && first + c < outputs; one += S::kThreads / S::kColumns) {
      for (int two = 0; two < p.seconds; two += kAtOnce) {
        Acc<E> sum[kAtOnce];
        Acc<E>* to = partial + (static_cast<Index>(one) * p.seconds + two) * outputs;
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          sum[j] = t > begin && two + j < p.seconds ? to[static_cast<Index>(j) * outputs] : Acc<E>(0);
        }
        for (int f = 0; f < frames; ++f) {
          const Acc<E> u = us[(f * p.firsts + one) * S::kStaging + c];
#pragma unroll
          for (int j = 0; j < kAtOnce; ++j) {
            if (two + j < p.seconds) sum[j] += u * gs[(f * p.seconds + two + j) * S::kStaging + c];
          }
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          if (two + j < p.seconds) to[static_cast<Index>(j) * outputs] = sum[j];
        }
      }
    }
  }
}

// The partial sums of an adjacency's gradient, what the bias brings to it, and the support.
template <typename E>
struct FinishAdjacency {
  const Acc<E>* partial;  // as above
  Index samples;
  int slots, partitions, groups, sources, targets, channels;  // the groups split so many channels
  bool grouped;                                               // channels lie apart
  bool turned;                                                // the first joint is the target
  const Acc<E>* joints;  // [samples][targets][channels]: sums over frames of the output's gradient, or null
  const Acc<E>* bias;    // [K][channels]
  Adjacency<E> support;  // data null for none
  E* out;                // [samples][K][G][sources][targets]
};

template <typename E>
__global__ void finish_adjacency(const FinishAdjacency<E> p) {
  const Index count = p.samples * p.partitions * p.groups * p.sources * p.targets;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int w = static_cast<int>(i % p.targets), v = static_cast<int>(i / p.targets % p.sources);
    const int g = static_cast<int>(i / p.targets / p.sources % p.groups);
    const int k = static_cast<int>(i / p.targets / p.sources / p.groups % p.partitions);
    const Index s = i / p.targets / p.sources / p.groups / p.partitions;
    const int width = p.channels / p.groups, first = g * width;
    Acc<E> sum = 0;
    if (p.support.data == nullptr || p.support.at(s, k, first, v, w) != Acc<E>(0)) {
      const Index pair = p.turned ? static_cast<Index>(w) * p.sources + v : static_cast<Index>(v) * p.targets + w;
      for (int slot = 0; slot < p.slots; ++slot) {
        const Index at = ((s * p.slots + slot) * p.partitions + k) * p.sources * p.targets + pair;
        if (!p.grouped) {
          sum += p.partial[at];
          continue;
        }
        for (int c = first; c < first + width; ++c) sum += p.partial[at * p.channels + c];
      }
      if (p.joints != nullptr) {
        for (int c = first; c < first + width; ++c) {
          sum += p.joints[(s * p.targets + w) * p.channels + c] * p.bias[k * p.channels + c];
        }
      }
    }
    p.out[i] = narrow<E>(sum);
  }
}

// partial[sample][slot][joint * channels + c] = sum over the slot's frames of x.
template <typename E>
__global__ void sum_frames(Rows<E> x, Index samples, Index frames, int joints, int slots, Acc<E>* partial) {
  const Index width = static_cast<Index>(joints) * x.channels, count = samples * slots * width;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index at = i % width, slot = i / width % slots, sample = i / width / slots;
    const Index begin = frames * slot / slots, end = frames * (slot + 1) / slots;
    Acc<E> sum = 0;
    for (Index t = begin; t < end; ++t) sum += widen(x.data[(sample * frames + t) * width + at]);
    partial[i] = sum;
  }
}

// out[sample][at] = sum over slots of partial[sample][slot][at].
template <typename A>
__global__ void add_sample_slots(A* out, const A* partial, Index samples, int slots, Index width) {
  const Index count = samples * width, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index sample = i / width, at = i % width;
    A sum = 0;
    for (int slot = 0; slot < slots; ++slot) sum += partial[(sample * slots + slot) * width + at];
    out[i] = sum;
  }
}

// out[k][o] = sum over samples and joints of joints[sample][w][o] * inflow[sample][k][g][w].
template <typename E>
__global__ void grad_bias(E* out, const Acc<E>* joints, const Acc<E>* inflow, Index samples, int partitions, int groups,
                          int targets, int outputs) {
  const Index count = static_cast<Index>(partitions) * outputs, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int o = static_cast<int>(i % outputs), k = static_cast<int>(i / outputs), g = o / (outputs / groups);
    Acc<E> sum = 0;
    for (Index s = 0; s < samples; ++s) {
      const Acc<E>* flow = inflow + ((s * partitions + k) * groups + g) * targets;
      for (int w = 0; w < targets; ++w) sum += joints[(s * targets + w) * outputs + o] * flow[w];
    }
    out[i] = narrow<E>(sum);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
