// The gradient by the weight, in slots of [K][panel of O][C][kPanel]. Include only from cpu_kernel.cpp.
#pragma once

#include "dense.h"
#include "lanes.h"
#include "rows_grad.h"

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
  made.multiplies_first =
      p.groups == 1 ? !made.sparse && (p.out.data != nullptr || multiplies_first<T>(p, nullptr)) : !p.group_inputs;
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

// x is aggregated, and met with the output's gradient.
template <typename T>
void weight_by_target(const Problem& p, const T* adjacency, Spread<T>* lanes, Index n, const Rows<T>& x,
                      const Rows<T>& grad, Index frames, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Index panels = panel_count<T>(p.outputs), panel_values = p.inputs * kPanel<T>;
  const Index rows = frames * W, row = padded<T>(p.inputs);
  T* sums = working<T>(Slot::kAggregate, K * rows * row);
  if (p.groups == 1) {
    aggregate_dense(sums, row, p, adjacency, x, frames);
  } else {
    for (Index c = 0; c < row; c += kLanes<T>) {
      const T* spread = lanes->of(n, c / kPanel<T>) + c % kPanel<T> / kLanes<T> * lanes->step();
      for (Index k = 0; k < K; ++k) {
        aggregate_lanes(sums + k * rows * row + c, row, W, spread + k * V * W * kLanes<T>, lanes->source(),
                        lanes->target(), x.data + c, x.row, Index{0}, V, Index{1}, frames, false);
      }
    }
  }
  T* panel = working<T>(Slot::kPanel, rows * kPanel<T>);
  Taps<T> taps(Slot::kPointers, 1);
  taps.count = 1;
  for (Index j = 0; j < panels; ++j) {
    pack_panel(panel, grad.data + j * kPanel<T>, grad.row, 1, rows, panel_columns<T>(p.outputs, j));
    for (Index k = 0; k < K; ++k) {
      taps.a[0] = sums + k * rows * row;
      taps.b[0] = panel;
      add_products(p, taps, row, rows, slot + (k * panels + j) * panel_values);
    }
  }
}

// The output's gradient is aggregated, a panel of outputs at a time, and met with x; what is aggregated is also what
// the gradient by x is mixed from: `out`, or null.
template <typename T>
void weight_by_source(const Problem& p, const Prepared& made, const T* adjacency, Spread<T>* lanes, Index n,
                      const Rows<T>& x, const Rows<T>& grad, Index frames, const Target<T>* out, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions, most = minimum(frames, strip_frames<T>(p));
  const Index panels = panel_count<T>(p.outputs), panel_values = p.inputs * kPanel<T>;
  T* sums = working<T>(Slot::kAggregate, K * most * V * kPanel<T>);
  T* strip = working<T>(Slot::kPanel, most * W * kStripRow<T>);
  Taps<T> taps(Slot::kPointers, K);
  taps.count = 1;
  for (Index j = 0; j < panels; ++j) {
    const int columns = panel_columns<T>(p.outputs, j);
    const T* spread = lanes == nullptr ? nullptr : lanes->of(n, j);
    for (Index t = 0; t < frames; t += most) {
      const Index count = minimum(most, frames - t), rows = count * V;
      const T* from = grad.data + t * W * grad.row + j * kPanel<T>;
      if (columns < kPanel<T>) {
        std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(K * rows * kPanel<T>) * sizeof(T));
      }
      if (lanes == nullptr) {
        for (Index i = 0; i < count; ++i) {
          pack_panel(strip, from + i * W * grad.row, grad.row, 1, W, columns);
          for (Index k = 0; k < K; ++k) {
            const T* a = adjacency + k * V * W;
            const T* b = strip;
            Product<T> q{};
            q.a = &a;
            q.b = &b;
            q.taps = 1;
            q.k = W;
            q.a_row = W;
            q.c = sums + (k * rows + i * V) * kPanel<T>;
            q.c_row = kPanel<T>;
            product(q, V, columns);
          }
        }
      } else {
        for (Index i = 0; i < lanes->vectors(j); ++i) {
          for (Index r = 0; r < count * W; ++r) {
            store(strip + r * kLanes<T>, load(from + r * grad.row + i * kLanes<T>));
          }
          for (Index k = 0; k < K; ++k) {
            aggregate_lanes(sums + k * rows * kPanel<T> + i * kLanes<T>, kPanel<T>, V,
                            spread + i * lanes->step() + k * V * W * kLanes<T>, lanes->target(), lanes->source(), strip,
                            kLanes<T>, Index{0}, W, Index{1}, count, false);
          }
        }
      }
      for (Index k = 0; k < K; ++k) {
        taps.a[0] = x.data + t * V * x.row;
        taps.b[0] = sums + k * rows * kPanel<T>;
        add_products(p, taps, x.row, rows, slot + (k * panels + j) * panel_values);
      }
      if (out == nullptr) continue;
      const Index inputs = panel_count<T>(p.inputs), values = p.outputs * kPanel<T>;
      for (Index i = 0; i < inputs; ++i) {
        for (Index k = 0; k < K; ++k) {
          taps.a[k] = sums + k * rows * kPanel<T>;
          taps.b[k] = static_cast<const T*>(made.weights) + (k * inputs + i) * values + j * kPanel<T> * kPanel<T>;
        }
        Product<T> q{};
        q.a = taps.a;
        q.b = taps.b;
        q.taps = K;
        q.k = columns;
        q.a_row = kPanel<T>;
        q.c = out->data + t * V * out->row + i * kPanel<T>;
        q.c_row = out->row;
        q.accumulate = j != 0;
        product(q, rows, panel_columns<T>(p.inputs, i));
      }
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

template <typename T>
void weight_slot(const Problem& p, const Prepared& made, Index i, T* slot) {
  const bool by_source = made.multiplies_first;
  if (!by_source && folds<T>(p)) {
    const Index values = folded_weight_values<T>(p), step = folded_frames<T>(p);
    T* sums = working<T>(Slot::kExtra, values);
    std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(values) * sizeof(T));
    for_slot<T>(p, i, 8 * step, [&](Index n, const Rows<T>& x, const Rows<T>& grad, Index, Index frames) {
      weight_folded(p, adjacency_of<T>(p, n), x, grad, frames, sums);
    });
    add_folded(p, sums, slot);
    return;
  }
  const Index per_frame = p.partitions * maximum(p.sources, p.targets) * maximum(p.inputs, p.outputs);
  const Index chunk = by_source ? kLaneFrames : chunk_frames(p, kBlockFrames, per_frame, 2 * kBlockFrames);
  T* buffer = p.out.data == nullptr ? nullptr : working<T>(Slot::kProjected, chunk * p.sources * padded<T>(p.inputs));
  const auto run = [&](Spread<T>* lanes) {
    for_slot<T>(p, i, chunk, [&](Index n, const Rows<T>& x, const Rows<T>& grad, Index first, Index frames) {
      const T* adjacency = adjacency_of<T>(p, n);
      if (!by_source) {
        weight_by_target(p, adjacency, lanes, n, x, grad, frames, slot);
      } else if (buffer == nullptr) {
        weight_by_source<T>(p, made, adjacency, lanes, n, x, grad, frames, nullptr, slot);
      } else {
        Target<T> out(buffer, sample_of(p.out, p.out_batch, n), first * p.sources, frames * p.sources, p.inputs);
        weight_by_source(p, made, adjacency, lanes, n, x, grad, frames, &out, slot);
        out.close();
      }
    });
  };
  if (p.groups == 1) {
    run(nullptr);
  } else {
    Spread<T> lanes(p, by_source ? p.outputs : p.inputs);
    run(&lanes);
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
      weight_slot<T>(p, made, i, slot);
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
