// Passes over rows that cost memory traffic, not arithmetic: normalisation, rectification, dropout, sums over rows. A
// thread keeps 16 bytes of channels, so that sums over rows stay in its registers.
#pragma once

#include "../common/cuda/philox.cuh"
#include "../common/cuda/tile.cuh"
#include "st_block_train.h"

namespace stgcn_fast {
namespace cuda {

using namespace ::stgcn_fast::st_block_train;  // NOLINT: the contract of this folder

constexpr int kFewestPassThreads = 256, kMostPassThreads = 512;

// How blocks go over [rows][channels]: in steps of `slots` rows of `columns` times 16 bytes.
struct Walk {
  Index rows;
  int channels, row;  // `row`: elements between rows of what is saved, whose channels are filled up
  int columns, column_tiles, slots, threads;
  Index parts;  // runs of steps, a block each for every tile of columns
  bool whole;   // rows that are not filled up are whole 16 bytes, aligned
  bool shared;  // a warp has successive elements: it shares dropout's counters
};

// Shapes alone decide, also how many partial sums there are.
template <typename E>
Walk walk_of(Index rows, int channels, int row, bool aligned) {
  constexpr Index kMostParts = 2048, kMostValues = Index(1) << 19;
  Walk w{rows, channels, row, 0, 1, 1, kFewestPassThreads, 1, aligned && channels % kVector<E> == 0, false};
  const int packs = static_cast<int>(ceil_div(channels, kVector<E>));
  for (int threads = kFewestPassThreads; threads <= kMostPassThreads && channels % kVector<E> == 0; threads += kWarp) {
    if (threads % packs != 0) continue;
    w.threads = threads;
    w.shared = true;
    break;
  }
  w.columns = packs < w.threads ? packs : w.threads;
  w.column_tiles = static_cast<int>(ceil_div(packs, w.columns));
  w.slots = w.threads / w.columns;
  const Index steps = ceil_div(rows, w.slots), most = kMostValues / row;
  w.parts = most < 1 ? 1 : most < kMostParts ? most : kMostParts;
  if (w.parts > steps) w.parts = steps;
  return w;
}

// What a thread has of every step.
template <typename E>
struct Walker {
  const Walk& w;
  int slot, channel, count;  // `count` channels, none or fewer where the thread is idle
  Index part, begin, end;    // steps

  __device__ explicit Walker(const Walk& walk) : w(walk) {
    const int thread = static_cast<int>(threadIdx.x), tiles = w.column_tiles;
    const int tile = static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles));
    slot = thread / w.columns;
    channel = (tile * w.columns + thread % w.columns) * kVector<E>;
    count = slot < w.slots ? w.channels - channel : 0;
    part = blockIdx.x / static_cast<unsigned>(tiles);
    const Index steps = ceil_div(w.rows, w.slots);
    begin = steps * part / w.parts;
    end = steps * (part + 1) / w.parts;
  }

  // Whole warps come here.
  __device__ Index row_of(Index step) const { return step * w.slots + slot; }
  __device__ bool inside(Index row) const { return count > 0 && row < w.rows; }
  __device__ Pack<E> load(const E* from, Index row) const {
    return load_some(from + row * w.channels + channel, count, w.whole);
  }
  __device__ Pack<E> load_saved(const E* from, Index row) const {
    return load_some(from + row * w.row + channel, count, true);
  }
  __device__ void store(E* to, Index row, const Pack<E>& pack) const {
    store_some(to + row * w.channels + channel, pack, count, w.whole);
  }
  // Bits of the elements that dropout drops; asked by the whole warp, for rows outside too.
  __device__ unsigned dropped_of(const Dropout& dropout, std::uint64_t seed, Index row) const {
    if (dropout.threshold == 0 || (!w.shared && !inside(row))) return 0;
    return dropped<E>(dropout, seed, row * w.channels + channel, w.shared);
  }
  // This thread's part of a row of coefficients.
  template <typename A>
  __device__ void take(A (&values)[kVector<E>], const A* from) const {
#pragma unroll
    for (int c = 0; c < kVector<E>; ++c) values[c] = c < count ? from[channel + c] : A(0);
  }
};

__device__ __forceinline__ std::uint64_t seed_of(const Dropout& dropout) {
  return dropout.threshold == 0 ? 0 : static_cast<std::uint64_t>(*dropout.seed);
}

template <typename A>
__host__ __device__ const A* coefficient(const A* all, int row, Normalisation which, Coefficient kind) {
  return all + (which * kCoefficients + kind) * row;
}

template <typename E>
struct Passes {
  Walk walk;
  const Acc<E>* coefficients;
  Dropout dropout;
  const E* z;     // [rows][row]
  const E* r;     // [rows][row], or null
  const E* x;     // [rows][channels]: the residual, or null
  const E* grad;  // [rows][channels]: of out
  E* out;         // [rows][channels]
  E* by_z;        // [rows][channels]
  E* by_r;        // [rows][channels], or null

  __device__ const Acc<E>* at(Normalisation which, Coefficient kind) const {
    return coefficient(coefficients, walk.row, which, kind);
  }
};

// out = relu(D * (s2 z + t2) + residual)
template <typename E, bool kConvolved>
__global__ void __launch_bounds__(kMostPassThreads) block_result(const Passes<E> p) {
  constexpr int kCount = kVector<E>;
  const Walker<E> walker(p.walk);
  const std::uint64_t seed = seed_of(p.dropout);
  const Acc<E> kept = static_cast<Acc<E>>(p.dropout.threshold == 0 ? 1 : p.dropout.scale);
  Acc<E> scale[kCount], shift[kCount], scale_r[kCount] = {}, shift_r[kCount] = {};
  walker.take(scale, p.at(kTemporal, kScale));
  walker.take(shift, p.at(kTemporal, kShift));
  if constexpr (kConvolved) {
    walker.take(scale_r, p.at(kResidual, kScale));
    walker.take(shift_r, p.at(kResidual, kShift));
  }
  for (Index step = walker.begin; step < walker.end; ++step) {
    const Index row = walker.row_of(step);
    const unsigned drop = walker.dropped_of(p.dropout, seed, row);
    if (!walker.inside(row)) continue;
    const Pack<E> z = walker.load_saved(p.z, row);
    Pack<E> added = z, out;
    if constexpr (kConvolved) {
      added = walker.load_saved(p.r, row);
    } else if (p.x != nullptr) {
      added = walker.load(p.x, row);
    }
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      Acc<E> value = scale[c] * widen(z.value[c]) + shift[c];
      value *= drop >> c & 1 ? Acc<E>(0) : kept;
      if constexpr (kConvolved) {
        value += scale_r[c] * widen(added.value[c]) + shift_r[c];
      } else if (p.x != nullptr) {
        value += widen(added.value[c]);
      }
      out.value[c] = narrow<E>(rectified(value));
    }
    walker.store(p.out, row, out);
  }
}

// This thread's gradient behind the last rectifier, 16 bytes of it.
template <typename E>
struct Passed {
  Acc<E> value[kVector<E>];    // of the residual
  Acc<E> dropped[kVector<E>];  // of the second normalisation

  __device__ Passed(const Passes<E>& p, const Walker<E>& walker, Index row, unsigned drop, Acc<E> kept) {
    const Pack<E> grad = walker.load(p.grad, row), out = walker.load(p.out, row);
#pragma unroll
    for (int c = 0; c < kVector<E>; ++c) {
      value[c] = widen(out.value[c]) <= Acc<E>(0) ? Acc<E>(0) : widen(grad.value[c]);
      dropped[c] = value[c] * (drop >> c & 1 ? Acc<E>(0) : kept);
    }
  }
};

template <typename E>
constexpr int block_sums_bytes(int threads) {
  return threads * kVector<E> * static_cast<int>(sizeof(Acc<E>));
}

// partial[part][kinds][row] = sums of gz and gz (z - mean2) and, with r, of g and g (r - mean_r).
template <typename E, bool kConvolved>
__global__ void __launch_bounds__(kMostPassThreads) block_sums(const Passes<E> p, Acc<E>* partial) {
  constexpr int kCount = kVector<E>, kKinds = kConvolved ? 4 : 2;
  STGCN_FAST_SHARED(memory);
  Acc<E>* const shared = reinterpret_cast<Acc<E>*>(memory);
  const Walker<E> walker(p.walk);
  const std::uint64_t seed = seed_of(p.dropout);
  const Acc<E> kept = static_cast<Acc<E>>(p.dropout.threshold == 0 ? 1 : p.dropout.scale);
  Acc<E> mean[kCount], mean_r[kCount] = {}, sum[kKinds][kCount] = {};
  walker.take(mean, p.at(kTemporal, kMean));
  if (kConvolved) walker.take(mean_r, p.at(kResidual, kMean));
  for (Index step = walker.begin; step < walker.end; ++step) {
    const Index row = walker.row_of(step);
    const unsigned drop = walker.dropped_of(p.dropout, seed, row);
    if (!walker.inside(row)) continue;
    const Passed<E> passed(p, walker, row, drop, kept);
    const Pack<E> z = walker.load_saved(p.z, row);
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      sum[0][c] += passed.dropped[c];
      sum[1][c] += passed.dropped[c] * (widen(z.value[c]) - mean[c]);
    }
    if constexpr (kConvolved) {
      const Pack<E> r = walker.load_saved(p.r, row);
#pragma unroll
      for (int c = 0; c < kCount; ++c) {
        sum[2][c] += passed.value[c];
        sum[3][c] += passed.value[c] * (widen(r.value[c]) - mean_r[c]);
      }
    }
  }
  const int thread = static_cast<int>(threadIdx.x), width = p.walk.columns * kCount;
  const int first = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.walk.column_tiles)) * width;
#pragma unroll
  for (int kind = 0; kind < kKinds; ++kind) {
    __syncthreads();  // the kind before has been added up
#pragma unroll
    for (int c = 0; c < kCount; ++c) shared[thread * kCount + c] = sum[kind][c];
    __syncthreads();
    for (int i = thread; i < width && first + i < p.walk.channels; i += p.walk.threads) {
      Acc<E> total = 0;
      for (int slot = 0; slot < p.walk.slots; ++slot) total += shared[slot * width + i];
      partial[(walker.part * kKinds + kind) * p.walk.row + first + i] = total;
    }
  }
}

// by_z = a gz + b z + c, the gradient through the second normalisation, and by_r likewise.
template <typename E, bool kConvolved>
__global__ void __launch_bounds__(kMostPassThreads) block_gradients(const Passes<E> p) {
  constexpr int kCount = kVector<E>;
  const Walker<E> walker(p.walk);
  const std::uint64_t seed = seed_of(p.dropout);
  const Acc<E> kept = static_cast<Acc<E>>(p.dropout.threshold == 0 ? 1 : p.dropout.scale);
  Acc<E> a[kCount], b[kCount], constant[kCount];
  Acc<E> a_r[kCount] = {}, b_r[kCount] = {}, constant_r[kCount] = {};
  walker.take(a, p.at(kTemporal, kByGrad));
  walker.take(b, p.at(kTemporal, kByValue));
  walker.take(constant, p.at(kTemporal, kConstant));
  if constexpr (kConvolved) {
    walker.take(a_r, p.at(kResidual, kByGrad));
    walker.take(b_r, p.at(kResidual, kByValue));
    walker.take(constant_r, p.at(kResidual, kConstant));
  }
  for (Index step = walker.begin; step < walker.end; ++step) {
    const Index row = walker.row_of(step);
    const unsigned drop = walker.dropped_of(p.dropout, seed, row);
    if (!walker.inside(row)) continue;
    const Passed<E> passed(p, walker, row, drop, kept);
    Pack<E> pack = walker.load_saved(p.z, row);
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      pack.value[c] = narrow<E>(a[c] * passed.dropped[c] + b[c] * widen(pack.value[c]) + constant[c]);
    }
    walker.store(p.by_z, row, pack);
    if constexpr (kConvolved) {
      pack = walker.load_saved(p.r, row);
#pragma unroll
      for (int c = 0; c < kCount; ++c) {
        pack.value[c] = narrow<E>(a_r[c] * passed.value[c] + b_r[c] * widen(pack.value[c]) + constant_r[c]);
      }
      walker.store(p.by_r, row, pack);
    }
  }
}

// grad = a grad + b y + c where it lies: the gradient through the first normalisation.
template <typename E>
__global__ void __launch_bounds__(kMostPassThreads)
    through_graph_norm(const Walk walk, const Acc<E>* coefficients, const E* y, E* grad) {
  constexpr int kCount = kVector<E>;
  const Walker<E> walker(walk);
  Acc<E> a[kCount], b[kCount], constant[kCount];
  walker.take(a, coefficient(coefficients, walk.row, kGraph, kByGrad));
  walker.take(b, coefficient(coefficients, walk.row, kGraph, kByValue));
  walker.take(constant, coefficient(coefficients, walk.row, kGraph, kConstant));
  for (Index step = walker.begin; step < walker.end; ++step) {
    const Index row = walker.row_of(step);
    if (!walker.inside(row)) continue;
    const Pack<E> value = walker.load_saved(y, row);
    Pack<E> pack = walker.load(grad, row);
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      pack.value[c] = narrow<E>(a[c] * widen(pack.value[c]) + b[c] * widen(value.value[c]) + constant[c]);
    }
    walker.store(grad, row, pack);
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
