// The forward pass. Include only from cpu_kernel.cpp.
#pragma once

#include "dense.h"
#include "lanes.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// Whether the bias comes with the projection, which is of the outputs' own channels there.
inline bool projects_bias(const Problem& p) { return p.groups != 1 && !p.group_inputs; }

template <typename E>
void forward_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  made.sparse = is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(nullptr));
  made.multiplies_first = multiplies_first(p, made.sparse ? static_cast<const T*>(p.adjacency) : nullptr);
  made.weights_bytes = packed_values<E>(p, false) * static_cast<Index>(sizeof(E));
  made.edges_bytes = made.sparse ? Edges<T>::bytes(p.targets, p.partitions, entries_of(p)) : 0;
  const bool mapped = p.bias != nullptr && !projects_bias(p);
  made.bias_bytes = !mapped ? 0 : (p.per_sample ? p.batch : 1) * p.targets * p.outputs * static_cast<Index>(sizeof(T));
}

template <typename E>
void forward_pack(const Problem& p, void* weights) {
  pack_weights(p, static_cast<E*>(weights), false);
}

template <typename T>
void make_bias_map(const Problem& p, T* map) {
  const Index V = p.sources, W = p.targets, in_group = p.outputs / p.groups;
  const T* bias = static_cast<const T*>(p.bias);
  T* inflow = working<T>(Slot::kPointers, W);
  for (Index n = 0; n < (p.per_sample ? p.batch : 1); ++n) {
    T* to = map + n * W * p.outputs;
    const T* a = adjacency_of<T>(p, n);
    std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(W * p.outputs) * sizeof(T));
    for (Index block = 0; block < p.partitions * p.groups; ++block, a += V * W) {
      const Index first = block % p.groups * in_group;
      const T* factor = bias + block / p.groups * p.outputs + first;
      sum_rows(inflow, a, V, W);
      for (Index w = 0; w < W; ++w) {
        for (Index o = 0; o < in_group; ++o) to[w * p.outputs + first + o] += inflow[w] * factor[o];
      }
    }
  }
}

template <typename T>
void forward_prepare(const Problem& p, const Prepared& made) {
  if (made.sparse) list_edges<T>(p, made.edges, false, static_cast<const T*>(p.adjacency), nullptr);
  if (p.bias != nullptr && !projects_bias(p)) make_bias_map(p, static_cast<T*>(made.bias_map));
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
  (made.multiplies_first ? &graph_rows_multiplied<E> : &graph_rows<E, E>)(op, x.data, x.row, frames, y.data, y.row,
                                                                          false);
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
void forward_dense(const Problem& p, const Prepared& made, const T* bias_map, const T* adjacency,
                   const ConstMatrix& x_sample, const Matrix& out_sample, Index first, Index frames) {
  const Index V = p.sources, W = p.targets;
  const Rows<T> x = rows_of<T>(Slot::kInput, x_sample, first * V, frames * V, p.inputs);
  Target<T> y(working<T>(Slot::kOutput, frames * W * padded<T>(p.outputs)), out_sample, first * W, frames * W,
              p.outputs);
  const T* weights = static_cast<const T*>(made.weights);
  if (made.multiplies_first) {
    multiply_first(p, weights, bias_map, adjacency, x, frames, y);
  } else if (folds<T>(p)) {
    forward_folded(p, weights, bias_map, adjacency, x, frames, y);
  } else {
    if (bias_map != nullptr) start_from_bias(p, y, bias_map, frames);
    const Index row = padded<T>(p.inputs);
    T* sums = working<T>(Slot::kAggregate, p.partitions * frames * W * row);
    aggregate_dense(sums, row, p, adjacency, x, frames);
    mix_channels(p, weights, sums, row, frames * W, p.inputs, p.outputs, y, bias_map != nullptr);
  }
  y.close();
}

template <typename T>
void forward_lanes(const Problem& p, const Prepared& made, const T* bias_map, Spread<T>& lanes, Index n,
                   const ConstMatrix& x_sample, const Matrix& out_sample, Index first, Index frames) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Rows<T> x = rows_of<T>(Slot::kInput, x_sample, first * V, frames * V, p.inputs);
  Target<T> y(working<T>(Slot::kOutput, frames * W * padded<T>(p.outputs)), out_sample, first * W, frames * W,
              p.outputs);
  if (bias_map != nullptr) start_from_bias(p, y, bias_map, frames);
  if (p.group_inputs) {
    const Index row = padded<T>(p.inputs);
    T* sums = working<T>(Slot::kAggregate, K * frames * W * row);
    for (Index c = 0; c < row; c += kLanes<T>) {
      const T* spread = lanes.of(n, c / kPanel<T>) + c % kPanel<T> / kLanes<T> * lanes.step();
      for (Index k = 0; k < K; ++k) {
        aggregate_lanes(sums + k * frames * W * row + c, row, W, spread + k * V * W * kLanes<T>, lanes.source(),
                        lanes.target(), x.data + c, x.row, Index{0}, V, Index{1}, frames, false);
      }
    }
    mix_channels(p, static_cast<const T*>(made.weights), sums, row, frames * W, p.inputs, p.outputs, y,
                 bias_map != nullptr);
  } else {
    const Index most = strip_frames<T>(p);
    T* z = working<T>(Slot::kAggregate, K * most * V * kStripRow<T>);
    for (Index j = 0; j < panel_count<T>(p.outputs); ++j) {
      const T* spread = lanes.of(n, j);
      for (Index t = 0; t < frames; t += most) {
        const Index count = minimum(most, frames - t), rows = count * V;
        project_panel(p, made.weights, Rows<T>{x.data + t * V * x.row, x.row}, rows, p.inputs, p.outputs, j,
                      static_cast<const T*>(p.bias), z);
        for (Index i = 0; i < lanes.vectors(j); ++i) {
          aggregate_lanes(y.data + t * W * y.row + j * kPanel<T> + i * kLanes<T>, y.row, W, spread + i * lanes.step(),
                          lanes.source(), lanes.target(), z + i * kLanes<T>, kStripRow<T>, rows * kStripRow<T>, V, K,
                          count, bias_map != nullptr);
        }
      }
    }
  }
  y.close();
}

// Runs body(sample, bias map, x, out, first frame, frames) on the chunks of the tasks.
template <typename T, typename Body>
void for_forward(const Problem& p, const Prepared& made, Index begin, Index end, Index chunk, const Body& body) {
  for (Index task = begin; task < end; ++task) {
    for_chunks(p, task, chunk, [&](Index n, Index first, Index frames) {
      const T* map = p.bias == nullptr || projects_bias(p)
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
    if (p.groups == 1) {
      const Index per_frame = p.partitions * (made.multiplies_first ? p.sources * kPanel<T> : p.targets * p.inputs);
      for_forward<T>(p, made, begin, end, chunk_frames(p, kBlockFrames, per_frame, 2 * kBlockFrames),
                     [&](Index n, const T* map, const ConstMatrix& x, const Matrix& out, Index first, Index frames) {
                       forward_dense(p, made, map, adjacency_of<T>(p, n), x, out, first, frames);
                     });
      return;
    }
    const Index per_frame = p.partitions * p.targets * p.inputs;
    Spread<T> lanes(p, p.group_inputs ? p.inputs : p.outputs);
    for_forward<T>(p, made, begin, end,
                   p.group_inputs ? chunk_frames(p, kBlockFrames, per_frame, 2 * kBlockFrames) : kLaneFrames,
                   [&](Index n, const T* map, const ConstMatrix& x, const Matrix& out, Index first, Index frames) {
                     forward_lanes(p, made, map, lanes, n, x, out, first, frames);
                   });
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
