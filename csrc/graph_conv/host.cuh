// How a graph convolution is cut into tiles, its adjacency as kernels read it, and its launch.
#pragma once

#include <tuple>

#include "../common/cuda/host.cuh"
#include "forward.cuh"

namespace stgcn_fast {
namespace cuda {

inline int frames_in(int rows, int joints) { return rows < joints ? 1 : rows / joints; }

// `apart`: tiles do not reach from one sample to the next.
inline FrameTiles cut_frames(bool per_sample, bool apart, Index samples, Index frames, int tile_frames) {
  const Index runs = apart ? samples : 1, length = apart ? frames : samples * frames;
  return {runs, length, tile_frames, ceil_div(length, tile_frames), per_sample ? frames : 0};
}

// [N | 1, K, G, V, W] as it lies, or with its joints exchanged.
template <typename E>
Adjacency<E> view_adjacency(const Tensor& a, int channels, bool turned) {
  const int source = turned ? 4 : 3, target = turned ? 3 : 4;
  return {static_cast<const E*>(a.const_data_ptr()),
          static_cast<int>(a.size(1)),
          static_cast<int>(a.size(2)),
          static_cast<int>(a.size(source)),
          static_cast<int>(a.size(target)),
          channels,
          a.size(0) == 1 ? 0 : a.stride(0),
          a.stride(1),
          a.stride(2),
          a.stride(source),
          a.stride(target),
          nullptr,
          nullptr};
}

// The adjacency, with its non-zeros listed where all samples share one group: others are mostly dense, and read once.
template <typename E>
struct Listed {
  Adjacency<E> adjacency;
  std::optional<Workspace<Edge<Acc<E>>>> edges;
  std::optional<Workspace<int>> counts;

  Listed(const Call& call, const Tensor& a, int channels, bool turned)
      : adjacency(view_adjacency<E>(a, channels, turned)) {
    if (adjacency.groups != 1 || adjacency.sample != 0) return;
    const Index lists = static_cast<Index>(adjacency.partitions) * adjacency.targets;
    edges.emplace(a, lists * adjacency.sources);
    counts.emplace(a, lists);
    call.run_small(list_edges<E>, lists, adjacency, edges->get(), counts->get());
    adjacency.edges = edges->get();
    adjacency.counts = counts->get();
  }
};

// [N | 1, K, G, W]: what flows into each joint.
template <typename E>
Workspace<Acc<E>> inflow_of(const Call& call, const Tensor& a, int channels) {
  const Index count = a.size(0) * a.size(1) * a.size(2) * a.size(4);
  Workspace<Acc<E>> inflow(a, count);
  call.run_small(sum_sources<E>, count, view_adjacency<E>(a, channels, false), a.size(0), inflow.get());
  return inflow;
}

// [N | 1, W, row]: what a bias [K, O] adds to each joint, zeros beyond O.
template <typename E>
Workspace<Acc<E>> map_of_bias(const Call& call, const Tensor& a, const Values<E>& bias, int outputs, int row) {
  const Workspace<Acc<E>> inflow = inflow_of<E>(call, a, outputs);
  const Index samples = a.size(0), count = samples * a.size(4) * row;
  Workspace<Acc<E>> map(a, count);
  call.run_small(map_bias<Acc<E>>, count, map.get(), static_cast<const Acc<E>*>(inflow.get()), bias.data, samples,
                 static_cast<int>(a.size(1)), static_cast<int>(a.size(2)), static_cast<int>(a.size(4)), outputs, row);
  return map;
}

// [K, O, C] as packed, or with its channels exchanged.
inline WeightView view_weight(const Tensor& w, bool turned) {
  const int target = turned ? 2 : 1, source = turned ? 1 : 2;
  return {w.const_data_ptr(),
          static_cast<int>(w.size(0)),
          static_cast<int>(w.size(target)),
          static_cast<int>(w.size(source)),
          w.stride(0),
          w.stride(target),
          w.stride(source)};
}

// Statistics of an epilogue have one entry for each of cut.samples * cut.tiles, of tile_frames frames but for the last.
struct GraphPlan {
  bool multiply_first, tall;
  FrameTiles cut;
};

template <typename E, bool kTensor>
GraphPlan plan_graph(const Call& call, bool per_sample, Index samples, Index frames, int sources, int targets,
                     int inputs, int outputs, int groups, bool group_inputs) {
  using S = Shape<E, kTensor>;
  const int joints = sources > targets ? sources : targets;
  const Index column_tiles = ceil_div(outputs, S::kColumns);
  // Channels are summed over joints either as inputs, once for each tile of outputs, or as outputs.
  const bool after = groups == 1 ? inputs > 2 * column_tiles * S::kColumns : !group_inputs;
  if constexpr (sizeof(E) < 8) {
    using Tall = Shape<E, kTensor, true>;
    const FrameTiles cut = cut_frames(per_sample, false, samples, frames, frames_in(Tall::kRows, joints));
    const bool fits = graph_forward_bytes<Tall, E>(false) <= call.device().half_shared_bytes();
    if (!after && fits && cut.samples * cut.tiles * column_tiles >= kManyBlocks) return {false, true, cut};
  }
  return {after, false, cut_frames(per_sample, after && per_sample, samples, frames, frames_in(S::kRows, joints))};
}

// p needs x, adjacency and norm.
template <typename E, bool kTensor>
void launch_graph(const Call& call, const GraphPlan& plan, GraphForward<E> p, const PackedWeights<E, kTensor>& weights,
                  const Epilogue<E>& e) {
  using S = Shape<E, kTensor>;
  p.cut = plan.cut;
  p.weights = weights.memory.get();
  p.padded_outputs = weights.targets;
  p.padded_inputs = weights.sources;
  const Index blocks = p.cut.samples * p.cut.tiles * (weights.targets / S::kColumns);
  if constexpr (sizeof(E) < 8) {
    using Tall = Shape<E, kTensor, true>;
    if (plan.tall) {
      call.run(graph_forward_before<E, kTensor, true>, blocks, Tall::kThreads, graph_forward_bytes<Tall, E>(false), p,
               e);
      return;
    }
  }
  call.run(plan.multiply_first ? graph_forward_after<E, kTensor> : graph_forward_before<E, kTensor, false>, blocks,
           S::kThreads, graph_forward_bytes<S, E>(plan.multiply_first), p, e);
}

using GraphGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The operator's kernel, for other operators: gradients by x, weight, adjacency and bias.
GraphGradients graph_conv_backward(const Tensor& x, const Tensor& grad, const Tensor& weight, const Tensor& adjacency,
                                   const std::optional<Tensor>& bias, bool group_inputs,
                                   const std::optional<Tensor>& support, bool want_x, bool want_weight,
                                   bool want_adjacency, bool want_bias);

// The kernels are compiled once, with graph_conv/cuda.cu.
#define STGCN_FAST_GRAPH(E, kTensor)                                                            \
  extern template void launch_graph<E, kTensor>(const Call&, const GraphPlan&, GraphForward<E>, \
                                                const PackedWeights<E, kTensor>&, const Epilogue<E>&);
STGCN_FAST_ELEMENTS(STGCN_FAST_GRAPH)
#undef STGCN_FAST_GRAPH

}  // namespace cuda
}  // namespace stgcn_fast
