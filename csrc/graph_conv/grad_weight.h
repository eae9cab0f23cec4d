// The gradient by the weight, in slots of [K][panel of O][C][kPanel]. Include only from cpu_kernel.cpp.
#pragma once

#include "rows_grad.h"
#include "shared.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// What the sparse form sums; its edges and destinations are left for later.
template <typename T>
GraphGradient<T> gradient_of(const Problem& p, const Edges<T>& edges) {
  GraphGradient<T> op{};
  op.sources = p.sources;
  op.targets = p.targets;
  op.inputs = p.inputs;
  op.outputs = p.outputs;
  op.partitions = p.partitions;
  op.begin = edges.begin;
  op.edge = edges.edge;
  return op;
}

template <typename T>
Index weight_values(const Problem& p, bool sparse) {
  const Index dense = p.partitions * panel_count<T>(p.outputs) * p.inputs * kPanel<T>;
  return sparse ? graph_weight_sums(gradient_of<T>(p, Edges<T>(nullptr, 0))) : dense;
}

template <typename T>
void weight_size(const Problem& p, Prepared& made) {
  made.sparse = is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(nullptr));
  made.edges_bytes = made.sparse ? Edges<T>::bytes(p.targets, p.partitions, entries_of(p)) : 0;
  made.partial_bytes = p.slots * weight_values<T>(p, made.sparse) * static_cast<Index>(sizeof(T));
}

template <typename T>
void weight_prepare(const Problem& p, const Prepared& made, Index begin, Index) {
  if (begin == 0 && made.sparse) list_edges<T>(p, made.edges, false, static_cast<const T*>(p.adjacency), nullptr);
}

// sums (+)= a^T b over all rows of the taps; a [rows, C], b panels [rows][kPanel].
template <typename T>
void add_products(const Problem& p, const Taps<T>& taps, Index row, Index rows, T* sums) {
  Product<T> q;
  q.a = taps.a;
  q.b = taps.b;
  q.taps = taps.count;
  q.k = rows;
  q.a_row = 1;
  q.a_step = row;
  q.c = sums;
  q.c_row = kPanel<T>;
  q.accumulate = true;
  product(q, p.inputs, kPanel<T>);
}

template <typename T>
void weight_dense(const Problem& p, const T* adjacency, Spread<T>& lanes, Index n, const Rows<T>& x,
                  const Rows<T>& grad, Index frames, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Index panels = panel_count<T>(p.outputs), panel_values = p.inputs * kPanel<T>;
  const bool by_output = p.groups != 1 && !p.group_inputs;
  const Index rows = frames * (by_output ? V : W), row = padded<T>(by_output ? p.outputs : p.inputs);
  T* sums = working<T>(Slot::kAggregate, K * rows * row);
  if (p.groups == 1) {
    aggregate_dense(sums, row, p, adjacency, x, frames);
  } else {
    const T* spread = lanes.of(n);
    for (Index k = 0; k < K; ++k) {
      const Rows<T>& from = by_output ? grad : x;
      aggregate_lanes(sums + k * rows * row, row, by_output ? V : W, spread + k * V * W * row,
                      by_output ? lanes.target() : lanes.source(), by_output ? lanes.source() : lanes.target(), row,
                      from.data, from.row, Index{0}, by_output ? W : V, Index{1}, frames, false);
    }
  }
  T* panel = working<T>(Slot::kPanel, rows * kPanel<T>);
  const T* a = nullptr;
  const T* b = panel;
  Taps<T> taps(Slot::kPointers, 1);
  taps.count = 1;
  for (Index j = 0; j < panels; ++j) {
    const int columns = panel_columns<T>(p.outputs, j);
    if (!by_output) pack_panel(panel, grad.data + j * kPanel<T>, grad.row, 1, rows, columns);
    for (Index k = 0; k < K; ++k) {
      const T* sum = sums + k * rows * row;
      if (by_output) pack_panel(panel, sum + j * kPanel<T>, row, 1, rows, columns);
      a = by_output ? x.data : sum;
      taps.a[0] = a;
      taps.b[0] = b;
      add_products(p, taps, by_output ? x.row : row, rows, slot + (k * panels + j) * panel_values);
    }
  }
}

template <typename T>
void grad_weight(const Problem& p, const Prepared& made, Index begin, Index end) {
  const Index chunk =
      made.sparse
          ? detail::kGradFrames
          : chunk_frames(p, kBlockFrames, p.partitions * maximum(p.sources, p.targets) * maximum(p.inputs, p.outputs),
                         2 * kBlockFrames);
  const bool by_output = p.groups != 1 && !p.group_inputs;
  Spread<T> lanes(p, by_output ? p.outputs : p.inputs);
  const Index total = p.batch * p.pieces;
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * weight_values<T>(p, made.sparse);
    std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(weight_values<T>(p, made.sparse)) * sizeof(T));
    for (Index piece = i * total / p.slots; piece < (i + 1) * total / p.slots; ++piece) {
      for_chunks(p, piece, chunk, [&](Index n, Index first, Index frames) {
        const Rows<T> x =
            rows_of<T>(Slot::kInput, sample_of(p.x, p.x_batch, n), first * p.sources, frames * p.sources, p.inputs);
        const Rows<T> grad = rows_of<T>(Slot::kOutput, sample_of(p.grad, p.grad_batch, n), first * p.targets,
                                        frames * p.targets, p.outputs);
        if (made.sparse) {
          GraphGradient<T> op = gradient_of(p, Edges<T>(made.edges, entries_of(p)));
          op.weight_sums = slot;
          graph_grad_rows<T>(op, x.data, x.row, grad.data, grad.row, frames, nullptr, 0);
        } else {
          weight_dense(p, adjacency_of<T>(p, n), lanes, n, x, grad, frames, slot);
        }
      });
    }
  }
}

template <typename T>
void weight_finish(const Problem& p, const Prepared& made, void* out, Index begin, Index end) {
  const Index panels = panel_count<T>(p.outputs), panel_values = p.inputs * kPanel<T>;
  const Index values = weight_values<T>(p, made.sparse), per_partition = values / p.partitions;
  T* sums = static_cast<T*>(made.partials);
  for (Index i = 1; i < p.slots; ++i) {
    const T* other = sums + i * values;
    for (Index c = begin * per_partition; c < end * per_partition; c += kLanes<T>)
      store(sums + c, load(sums + c) + load(other + c));
  }
  if (made.sparse) {
    graph_grad_weight(gradient_of<T>(p, Edges<T>(nullptr, 0)), sums, static_cast<T*>(out), begin, end);
    return;
  }
  for (Index k = begin; k < end; ++k) {
    for (Index j = 0; j < panels; ++j) {
      const int columns = panel_columns<T>(p.outputs, j);
      T* to = static_cast<T*>(out) + (k * p.outputs + j * kPanel<T>)*p.inputs;
      // [C][kPanel] -> [O][C]
      gather(to, p.inputs, ConstMatrix{sums + (k * panels + j) * panel_values, kComputed<T>, 1, kPanel<T>}, columns,
             p.inputs);
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
