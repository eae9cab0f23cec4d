// The gradient by the weight, in slots of [K][panel of O][C][kPanel]. Include only from cpu_kernel.cpp.
#pragma once

#include "rows_grad.h"
#include "shared.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// What the sparse form sums; its edges and destinations are left for later.
template <typename E>
GraphGradient<E> gradient_of(const Problem& p, const Edges<Acc<E>>& edges) {
  GraphGradient<E> op{};
  op.sources = p.sources;
  op.targets = p.targets;
  op.inputs = p.inputs;
  op.outputs = p.outputs;
  op.partitions = p.partitions;
  op.begin = edges.begin;
  op.edge = edges.edge;
  return op;
}

template <typename E>
Index weight_values(const Problem& p, bool sparse) {
  using T = Acc<E>;
  const Index dense = p.partitions * panel_count<T>(p.outputs) * p.inputs * kPanel<T>;
  return sparse ? graph_weight_sums(gradient_of<E>(p, Edges<T>(nullptr, 0))) : dense;
}

template <typename E>
void weight_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  made.sparse = is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(nullptr));
  made.edges_bytes = made.sparse ? Edges<T>::bytes(p.targets, p.partitions, entries_of(p)) : 0;
  made.partial_bytes = p.slots * weight_values<E>(p, made.sparse) * static_cast<Index>(sizeof(T));
  made.weights_bytes = p.out.data == nullptr ? 0 : packed_values<E>(p, true) * static_cast<Index>(sizeof(E));
}

template <typename E>
void weight_pack(const Problem& p, void* weights) {
  pack_weights(p, static_cast<E*>(weights), true);
}

template <typename T>
void weight_prepare(const Problem& p, const Prepared& made) {
  if (made.sparse) list_edges<T>(p, made.edges, false, static_cast<const T*>(p.adjacency), nullptr);
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

// With groups of outputs, what is aggregated for the weight is what the gradient by x is mixed from: `out`, or null.
template <typename T>
void weight_dense(const Problem& p, const Prepared& made, const T* adjacency, Spread<T>& lanes, Index n,
                  const Rows<T>& x, const Rows<T>& grad, Index frames, const Target<T>* out, T* slot) {
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
  if (out != nullptr) {
    mix_channels(p, static_cast<const T*>(made.weights), sums, row, rows, p.outputs, p.inputs, *out, false);
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

// Runs body(sample, x, grad, first frame, frames) on the chunks of one slot, an even run of the pieces.
template <typename T, typename Body>
void for_slot(const Problem& p, Index slot, Index chunk, const Body& body) {
  const Index total = p.batch * p.pieces;
  for (Index piece = slot * total / p.slots; piece < (slot + 1) * total / p.slots; ++piece) {
    for_chunks(p, piece, chunk, [&](Index n, Index first, Index frames) {
      body(n, rows_of<T>(Slot::kInput, sample_of(p.x, p.x_batch, n), first * p.sources, frames * p.sources, p.inputs),
           rows_of<T>(Slot::kOutput, sample_of(p.grad, p.grad_batch, n), first * p.targets, frames * p.targets,
                      p.outputs),
           first, frames);
    });
  }
}

template <typename E>
void grad_weight(const Problem& p, const Prepared& made, Index begin, Index end) {
  using T = Acc<E>;
  const Index values = weight_values<E>(p, made.sparse);
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * values;
    std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(values) * sizeof(T));
    if (made.sparse) {
      GraphGradient<E> op = gradient_of<E>(p, Edges<T>(made.edges, entries_of(p)));
      op.weight_sums = slot;
      for_slot<E>(p, i, detail::kGradFrames, [&](Index, const Rows<E>& x, const Rows<E>& grad, Index, Index frames) {
        graph_grad_rows<E>(op, x.data, x.row, grad.data, grad.row, frames, nullptr, 0);
      });
    } else if constexpr (kDepth<E> == 1) {
      const bool by_output = p.groups != 1 && !p.group_inputs;
      const Index per_frame = p.partitions * maximum(p.sources, p.targets) * maximum(p.inputs, p.outputs);
      const Index chunk = chunk_frames(p, kBlockFrames, per_frame, 2 * kBlockFrames);
      Spread<T> lanes(p, by_output ? p.outputs : p.inputs);
      T* buffer =
          p.out.data == nullptr ? nullptr : working<T>(Slot::kProjected, chunk * p.sources * padded<T>(p.inputs));
      for_slot<E>(p, i, chunk, [&](Index n, const Rows<E>& x, const Rows<E>& grad, Index first, Index frames) {
        if (buffer == nullptr) {
          weight_dense<T>(p, made, adjacency_of<T>(p, n), lanes, n, x, grad, frames, nullptr, slot);
          return;
        }
        Target<T> out(buffer, sample_of(p.out, p.out_batch, n), first * p.sources, frames * p.sources, p.inputs);
        weight_dense(p, made, adjacency_of<T>(p, n), lanes, n, x, grad, frames, &out, slot);
        out.close();
      });
    }
  }
}

template <typename E>
void weight_finish(const Problem& p, const Prepared& made, void* out, Index begin, Index end) {
  using T = Acc<E>;
  const Index panels = panel_count<T>(p.outputs), panel_values = p.inputs * kPanel<T>;
  const Index values = weight_values<E>(p, made.sparse), per_partition = values / p.partitions;
  T* sums = static_cast<T*>(made.partials);
  for (Index i = 1; i < p.slots; ++i) {
    const T* other = sums + i * values;
    for (Index c = begin * per_partition; c < end * per_partition; c += kLanes<T>)
      store(sums + c, load(sums + c) + load(other + c));
  }
  if (made.sparse) {
    graph_grad_weight(gradient_of<E>(p, Edges<T>(nullptr, 0)), sums, static_cast<T*>(out), begin, end);
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
