// The forward pass. Include only from cpu_kernel.cpp.
#pragma once

#include "shared.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

template <typename E>
void forward_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  made.sparse = is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(nullptr));
  made.weights_bytes = packed_values<E>(p, false) * static_cast<Index>(sizeof(E));
  made.edges_bytes = made.sparse ? Edges<T>::bytes(p.targets, p.partitions, entries_of(p)) : 0;
  made.bias_bytes =
      p.bias == nullptr ? 0 : (p.per_sample ? p.batch : 1) * p.targets * p.outputs * static_cast<Index>(sizeof(T));
}

template <typename E>
void forward_pack(const Problem& p, void* weights) {
  pack_weights(p, static_cast<E*>(weights), false);
}

template <typename T>
void make_bias_map(const Problem& p, T* map) {
  const Index in_group = p.outputs / p.groups;
  const T* bias = static_cast<const T*>(p.bias);
  for (Index n = 0; n < (p.per_sample ? p.batch : 1); ++n) {
    T* to = map + n * p.targets * p.outputs;
    std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(p.targets * p.outputs) * sizeof(T));
    for (Index k = 0; k < p.partitions; ++k) {
      for (Index g = 0; g < p.groups; ++g) {
        const T* a = adjacency_of<T>(p, n) + (k * p.groups + g) * p.sources * p.targets;
        for (Index w = 0; w < p.targets; ++w) {
          T inflow = 0;
          for (Index v = 0; v < p.sources; ++v) inflow += a[v * p.targets + w];
          for (Index o = g * in_group; o < (g + 1) * in_group; ++o)
            to[w * p.outputs + o] += inflow * bias[k * p.outputs + o];
        }
      }
    }
  }
}

template <typename T>
void forward_prepare(const Problem& p, const Prepared& made) {
  if (made.sparse) list_edges<T>(p, made.edges, false, static_cast<const T*>(p.adjacency), nullptr);
  if (p.bias != nullptr) make_bias_map(p, static_cast<T*>(made.bias_map));
}

template <typename E>
void forward_sparse(const Problem& p, const Prepared& made, const Acc<E>* bias_map, const ConstMatrix& x_sample,
                    const Matrix& out_sample, Index first, Index frames) {
  const Index V = p.sources, W = p.targets;
  const Rows<E> x = rows_of<E>(Slot::kInput, x_sample, first * V, frames * V, p.inputs);
  Target<E> y(working<E>(Slot::kOutput, frames * W * padded<E>(p.outputs)), out_sample, first * W, frames * W,
              p.outputs);
  const Edges<Acc<E>> edges(made.edges, entries_of(p));
  const GraphOperand<E> op{
      V, W, p.inputs, p.outputs, p.partitions, edges.begin, edges.edge, static_cast<const E*>(made.weights), bias_map};
  graph_rows(op, x.data, x.row, frames, y.data, y.row, false);
  y.close();
}

// Every row of y starts as its joint's bias.
template <typename T>
void start_from_bias(const Problem& p, const Target<T>& y, const T* bias_map, Index frames) {
  for (Index t = 0; t < frames; ++t) {
    for (Index w = 0; w < p.targets; ++w) {
      std::memcpy(static_cast<void*>(y.data + (t * p.targets + w) * y.row), bias_map + w * p.outputs,
                  static_cast<std::size_t>(p.outputs) * sizeof(T));
    }
  }
}

template <typename T>
void forward_dense(const Problem& p, const Prepared& made, const T* bias_map, const T* adjacency, Spread<T>& lanes,
                   Index n, const ConstMatrix& x_sample, const Matrix& out_sample, Index first, Index frames) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Rows<T> x = rows_of<T>(Slot::kInput, x_sample, first * V, frames * V, p.inputs);
  Target<T> y(working<T>(Slot::kOutput, frames * W * padded<T>(p.outputs)), out_sample, first * W, frames * W,
              p.outputs);
  if (bias_map != nullptr) start_from_bias(p, y, bias_map, frames);
  const T* spread = lanes.of(n);
  if (p.groups == 1 || p.group_inputs) {
    const Index row = padded<T>(p.inputs);
    T* sums = working<T>(Slot::kAggregate, K * frames * W * row);
    if (p.groups == 1) {
      aggregate_dense(sums, row, p, adjacency, x, frames);
    } else {
      for (Index k = 0; k < K; ++k) {
        aggregate_lanes(sums + k * frames * W * row, row, W, spread + k * V * W * row, lanes.source(), lanes.target(),
                        row, x.data, x.row, Index{0}, V, Index{1}, frames, false);
      }
    }
    mix_channels(p, static_cast<const T*>(made.weights), sums, row, frames * W, p.inputs, p.outputs, y,
                 bias_map != nullptr);
  } else {
    const Index row = padded<T>(p.outputs);
    T* z = working<T>(Slot::kAggregate, K * frames * V * row);
    project(p, made.weights, x, frames * V, p.inputs, p.outputs, z, row);
    aggregate_lanes(y.data, y.row, W, spread, lanes.source(), lanes.target(), row, z, row, frames * V * row, V, K,
                    frames, bias_map != nullptr);
  }
  y.close();
}

// Runs body(sample, bias map, x, out, first frame, frames) on the chunks of the tasks.
template <typename T, typename Body>
void for_forward(const Problem& p, const Prepared& made, Index begin, Index end, Index chunk, const Body& body) {
  for (Index task = begin; task < end; ++task) {
    for_chunks(p, task, chunk, [&](Index n, Index first, Index frames) {
      const T* map = p.bias == nullptr
                         ? nullptr
                         : static_cast<const T*>(made.bias_map) + (p.per_sample ? n : 0) * p.targets * p.outputs;
      body(n, map, sample_of(p.x, p.x_batch, n), sample_of(p.out, p.out_batch, n), first, frames);
    });
  }
}

template <typename E>
void forward(const Problem& p, const Prepared& made, Index begin, Index end) {
  using T = Acc<E>;
  if (made.sparse) {
    const Index chunk = chunk_frames(p, kTileRows, p.sources * p.inputs, 2 * kTileRows);
    for_forward<T>(p, made, begin, end, chunk,
                   [&](Index, const T* map, const ConstMatrix& x, const Matrix& out, Index first, Index frames) {
                     forward_sparse<E>(p, made, map, x, out, first, frames);
                   });
    return;
  }
  if constexpr (kDepth<E> == 1) {
    const Index per_frame =
        p.partitions * maximum(p.sources * p.outputs * (p.groups > 1 && !p.group_inputs), p.targets * p.inputs);
    Spread<T> lanes(p, p.group_inputs ? p.inputs : p.outputs);
    for_forward<T>(p, made, begin, end, chunk_frames(p, kBlockFrames, per_frame, 2 * kBlockFrames),
                   [&](Index n, const T* map, const ConstMatrix& x, const Matrix& out, Index first, Index frames) {
                     forward_dense(p, made, map, adjacency_of<T>(p, n), lanes, n, x, out, first, frames);
                   });
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
