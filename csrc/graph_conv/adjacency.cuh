// The adjacency as kernels read it, and sums over joints by it.
#pragma once

#include "../common/cuda/pack.cuh"
#include "../common/cuda/tile.cuh"

namespace stgcn_fast {
namespace cuda {

template <typename A>
struct Edge {
  A value;
  int source;
};

// [samples][partitions][groups][sources][targets] of any strides; from source joint to target joint.
template <typename E>
struct Adjacency {
  const E* data;
  int partitions, groups, sources, targets, channels;  // the groups split so many channels
  Index sample, partition, group, source, target;      // strides; sample is 0 where all share one
  // Non-zeros by target, where all samples share one group: [partition][target], `sources` places each; else null.
  const Edge<Acc<E>>* edges;
  const int* counts;

  __device__ Index list(int k, int w) const { return static_cast<Index>(k) * targets + w; }
  __device__ Acc<E> at(Index s, int k, int channel, int v, int w) const {
    const int g = groups == 1 ? 0 : channel / (channels / groups);
    return widen(data[s * sample + k * partition + g * group + v * source + w * target]);
  }
};

// One thread a target: the device alone knows which entries are zero, and no one waits for it to say.
template <typename E>
__global__ void list_edges(Adjacency<E> a, Edge<Acc<E>>* edges, int* counts) {
  const Index lists = static_cast<Index>(a.partitions) * a.targets, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < lists; i += step) {
    const int w = static_cast<int>(i % a.targets), k = static_cast<int>(i / a.targets);
    int count = 0;
    for (int v = 0; v < a.sources; ++v) {
      const Acc<E> value = a.at(0, k, 0, v, w);
      if (value != Acc<E>(0)) edges[i * a.sources + count++] = {value, v};
    }
    counts[i] = count;
  }
}

// inflow[s][k][g][w] = sum over v of A.
template <typename E>
__global__ void sum_sources(Adjacency<E> a, Index samples, Acc<E>* inflow) {
  const Index count = samples * a.partitions * a.groups * a.targets, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int w = static_cast<int>(i % a.targets), g = static_cast<int>(i / a.targets % a.groups);
    const int k = static_cast<int>(i / a.targets / a.groups % a.partitions);
    const Index s = i / a.targets / a.groups / a.partitions;
    Acc<E> sum = 0;
    for (int v = 0; v < a.sources; ++v) sum += a.at(s, k, g * (a.channels / a.groups), v, w);
    inflow[i] = sum;
  }
}

// What a joint's inflow makes of the bias: map[sample][w][o] = sum over k of inflow[sample][k][g][w] * bias[k][o], in
// rows of `row` values, zeros beyond the outputs.
template <typename A>
__global__ void map_bias(A* map, const A* inflow, const A* bias, Index samples, int partitions, int groups, int targets,
                         int outputs, int row) {
  const Index count = samples * targets * row, step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int o = static_cast<int>(i % row), w = static_cast<int>(i / row % targets);
    const Index s = i / row / targets;
    const int g = o / (outputs / groups);
    A sum = 0;
    for (int k = 0; k < partitions && o < outputs; ++k) {
      sum += inflow[((s * partitions + k) * groups + g) * targets + w] * bias[k * outputs + o];
    }
    map[i] = sum;
  }
}

// out[(f, w)][c] = sum over v of A[v, w] * in[(f, v)][c] for `frames` frames in shared memory, c < depth: channels
// [first, first + depth) of the adjacency's. sample_of(f) is the adjacency's sample. Zeros let nothing through.
template <int kThreads, typename E, typename SampleOf>
__device__ __forceinline__ void aggregate(const Adjacency<E>& a, SampleOf sample_of, int k, const E* in, E* out,
                                          int stride, int frames, int first, int depth) {
  const int packs = depth / kVector<E>, tasks = frames * a.targets * packs;
  for (int i = static_cast<int>(threadIdx.x); i < tasks; i += kThreads) {
    const int row = i / packs, c = i % packs * kVector<E>, f = row / a.targets, w = row % a.targets;
    const E* from = in + f * a.sources * stride + c;
    Acc<E> sum[kVector<E>];
#pragma unroll
    for (int j = 0; j < kVector<E>; ++j) sum[j] = 0;
    const auto add = [&](int v, Acc<E> value) {
      const Pack<E> x = load_pack(from + v * stride);
#pragma unroll
      for (int j = 0; j < kVector<E>; ++j) sum[j] += value * widen(x.value[j]);
    };
    if (a.edges != nullptr) {
      const Index list = a.list(k, w);
      const Edge<Acc<E>>* edge = a.edges + list * a.sources;
      for (int n = a.counts[list]; n > 0; --n, ++edge) add(edge->source, edge->value);
    } else if (a.groups == 1) {
      const E* value = a.data + sample_of(f) * a.sample + k * a.partition + w * a.target;
      for (int v = 0; v < a.sources; ++v, value += a.source) {
        const Acc<E> wide = widen(*value);
        if (wide != Acc<E>(0)) add(v, wide);
      }
    } else {
      const Index sample = sample_of(f);
      for (int v = 0; v < a.sources; ++v) {
        const Pack<E> x = load_pack(from + v * stride);
#pragma unroll
        for (int j = 0; j < kVector<E>; ++j) {
          if (first + c + j >= a.channels) continue;
          sum[j] += a.at(sample, k, first + c + j, v, w) * widen(x.value[j]);
        }
      }
    }
    Pack<E> packed;
#pragma unroll
    for (int j = 0; j < kVector<E>; ++j) packed.value[j] = narrow<E>(sum[j]);
    store_pack(out + row * stride + c, packed);
  }
}

// The same for unrounded sums of one sample, added to `out` but for the first partition; a thread keeps one channel of
// one joint.
template <int kColumns, int kThreads, typename E>
__device__ __forceinline__ void aggregate_sums(const Adjacency<E>& a, Index sample, int k, const Acc<E>* in,
                                               Acc<E>* out, int stride, int frames, int first) {
  constexpr int kAtOnce = 8;
  for (int i = static_cast<int>(threadIdx.x); i < a.targets * kColumns; i += kThreads) {
    const int c = i % kColumns, w = i / kColumns;
    if (first + c >= a.channels) continue;
    const bool listed = a.edges != nullptr;
    const Index list = listed ? a.list(k, w) : 0;
    const int entries = listed ? a.counts[list] : a.sources;
    for (int f = 0; f < frames; f += kAtOnce) {
      Acc<E> sum[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        sum[j] = k > 0 && f + j < frames ? out[((f + j) * a.targets + w) * stride + c] : Acc<E>(0);
      }
      for (int n = 0; n < entries; ++n) {
        int v = n;
        Acc<E> value;
        if (listed) {
          const Edge<Acc<E>> e = a.edges[list * a.sources + n];
          v = e.source;
          value = e.value;
        } else {
          value = a.at(sample, k, first + c, v, w);
          if (a.groups == 1 && value == Acc<E>(0)) continue;
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          if (f + j < frames) sum[j] += value * in[((f + j) * a.sources + v) * stride + c];
        }
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (f + j < frames) out[((f + j) * a.targets + w) * stride + c] = sum[j];
      }
    }
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
