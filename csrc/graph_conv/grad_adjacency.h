// The gradient by the adjacency, in slots of [K, G, V, W], and with it the one by x. Include only from cpu_kernel.cpp.
#pragma once

#include "grad_weight.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

inline Index adjacency_values(const Problem& p) { return p.groups * entries_of(p); }

// Whether the panels are those of W_k, over the inputs, rather than of W_k^T.
inline bool packs_inputs(const Problem& p) { return p.groups == 1 || p.group_inputs; }

template <typename E>
void adjacency_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  made.sparse =
      p.support != nullptr && is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(p.support));
  made.weights_bytes = packed_values<E>(p, packs_inputs(p)) * static_cast<Index>(sizeof(E));
  const Index joints = maximum(p.sources, p.targets);
  made.edges_bytes = made.sparse ? Edges<T>::bytes(joints, p.partitions, entries_of(p)) : 0;
  made.partial_bytes = p.slots * adjacency_values(p) * static_cast<Index>(sizeof(T));
}

template <typename E>
void adjacency_pack(const Problem& p, void* weights) {
  pack_weights(p, static_cast<E*>(weights), packs_inputs(p));
}

template <typename T>
void adjacency_prepare(const Problem& p, const Prepared& made) {
  if (!made.sparse) return;
  list_edges(p, made.edges, false, static_cast<const T*>(p.adjacency), static_cast<const T*>(p.support));
}

// q[t][panel][k * W + w][kPanel] = grad[t, w] W_k, met with the transposed frames of x.
template <typename T>
void adjacency_dense(const Problem& p, const Prepared& made, const T* adjacency, const Rows<T>& x, const Rows<T>& grad,
                     Index frames, const Target<T>* out, T* sums) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Index panels = panel_count<T>(p.inputs), joint_panels = panel_count<T>(V), sums_row = joint_panels * kPanel<T>;
  const Index block = K * W * kPanel<T>;  // of one frame and panel
  T* projected = working<T>(Slot::kAggregate, frames * panels * block);
  if (p.inputs % kPanel<T> != 0) {
    std::memset(static_cast<void*>(projected), 0, static_cast<std::size_t>(frames * panels * block) * sizeof(T));
  }
  for (Index k = 0; k < K; ++k) {
    for (Index j = 0; j < panels; ++j) {
      const T* b = static_cast<const T*>(made.weights) + (k * panels + j) * p.outputs * kPanel<T>;
      for (Index t = 0; t < frames; ++t) {
        const T* a = grad.data + t * W * grad.row;
        Product<T> q;
        q.a = &a;
        q.b = &b;
        q.taps = 1;
        q.k = p.outputs;
        q.a_row = grad.row;
        q.c = projected + (t * panels + j) * block + k * W * kPanel<T>;
        q.c_row = kPanel<T>;
        product(q, W, panel_columns<T>(p.inputs, j));
      }
    }
  }
  // [frame][panel of channels][panel of joints][channel][joint]
  const Index turned_block = joint_panels * kPanel<T> * kPanel<T>;
  T* turned = working<T>(Slot::kPanel, frames * panels * turned_block);
  std::memset(static_cast<void*>(turned), 0, static_cast<std::size_t>(frames * panels * turned_block) * sizeof(T));
  for (Index t = 0; t < frames; ++t) {
    for (Index j = 0; j < panels; ++j) {
      for (Index i = 0; i < joint_panels; ++i) {
        const T* from = x.data + (t * V + i * kPanel<T>)*x.row + j * kPanel<T>;
        T* to = turned + (t * panels + j) * turned_block + i * kPanel<T> * kPanel<T>;
        gather(to, kPanel<T>, ConstMatrix{from, kComputed<T>, 1, x.row}, panel_columns<T>(p.inputs, j),
               panel_columns<T>(V, i));
      }
    }
  }
  Taps<T> taps(Slot::kPointers, maximum(K, frames * panels));
  taps.count = frames * panels;
  for (Index i = 0; i < joint_panels; ++i) {
    for (Index tap = 0; tap < taps.count; ++tap) {
      taps.a[tap] = projected + tap * block;
      taps.b[tap] = turned + tap * turned_block + i * kPanel<T> * kPanel<T>;
    }
    Product<T> q;
    q.a = taps.a;
    q.b = taps.b;
    q.taps = taps.count;
    q.k = kPanel<T>;
    q.a_row = kPanel<T>;
    q.c = sums + i * kPanel<T>;
    q.c_row = sums_row;
    q.accumulate = true;
    product(q, K * W, kPanel<T>);
  }
  if (out == nullptr) return;
  for (Index t = 0; t < frames; ++t) {
    for (Index j = 0; j < panels; ++j) {
      for (Index k = 0; k < K; ++k) {
        taps.a[k] = adjacency + k * V * W;
        taps.b[k] = projected + (t * panels + j) * block + k * W * kPanel<T>;
      }
      Product<T> q;
      q.a = taps.a;
      q.b = taps.b;
      q.taps = K;
      q.k = W;
      q.a_row = W;
      q.c = out->data + t * V * out->row + j * kPanel<T>;
      q.c_row = out->row;
      product(q, V, panel_columns<T>(p.inputs, j));
    }
  }
}

// sums[k][v][w][c] += sum_t source[k][t,v,c] target[k][t,w,c]; the side that carries the weights is projected.
template <typename T>
void adjacency_lanes(const Problem& p, const Prepared& made, const Rows<T>& x, const Rows<T>& grad, Index frames,
                     T* sums) {
  const Index V = p.sources, W = p.targets, channels = p.group_inputs ? p.inputs : p.outputs, row = padded<T>(channels);
  const Index joints = p.group_inputs ? W : V, depth = p.group_inputs ? p.outputs : p.inputs;
  T* projected = working<T>(Slot::kAggregate, p.partitions * frames * joints * row);
  project(p, made.weights, p.group_inputs ? grad : x, frames * joints, depth, channels, projected, row);
  for (Index k = 0; k < p.partitions; ++k) {
    const Rows<T> mixed{projected + k * frames * joints * row, row};
    outer_lanes(sums + k * V * W * row, V, W, row, p.group_inputs ? x : mixed, p.group_inputs ? mixed : grad, frames);
  }
}

// The sums of one slot, those that are not null, and with them the gradient by x of its frames.
template <typename E>
void sparse_slot(const Problem& p, const Prepared& made, Index i, Acc<E>* joints, Acc<E>* weight, Acc<E>* adjacency) {
  using T = Acc<E>;
  const Index V = p.sources, most = detail::kGradFrames;
  GraphGradient<E> op = gradient_of<E>(p, Edges<T>(made.edges, entries_of(p)));
  const Index values = adjacency == nullptr ? 0 : graph_adjacency_sums(op);
  T* sums = working<T>(Slot::kExtra, values + (p.out.data == nullptr ? 0 : most * V * padded<E>(p.inputs)));
  std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(values) * sizeof(T));
  op.weights = static_cast<const E*>(made.weights);
  op.joint_sums = joints;
  op.weight_sums = weight;
  op.adjacency_sums = adjacency == nullptr ? nullptr : sums;
  for_slot<E>(p, i, most, [&](Index n, const Rows<E>& x, const Rows<E>& grad, Index first, Index frames) {
    if (p.out.data == nullptr) {
      graph_grad_rows<E>(op, x.data, x.row, grad.data, grad.row, frames, nullptr, 0);
      return;
    }
    Target<E> out(reinterpret_cast<E*>(sums + values), sample_of(p.out, p.out_batch, n), first * V, frames * V,
                  p.inputs);
    out.zero();
    graph_grad_rows(op, x.data, x.row, grad.data, grad.row, frames, out.data, out.row);
    out.close();
  });
  if (adjacency != nullptr) graph_grad_adjacency<E>(op, sums, nullptr, nullptr, adjacency);
}

// Sums [k][e][lane] of channels in groups -> [K, G, V, W].
template <typename T>
void add_lanes(const Problem& p, const T* sums, Index channels, T* slot) {
  const Index lanes = padded<T>(channels), size = p.sources * p.targets, in_group = channels / p.groups;
  for (Index k = 0; k < p.partitions; ++k, sums += size * lanes, slot += p.groups * size) {
    if (in_group == 1) {
      scatter<T>(Matrix{slot, kComputed<T>, 1, size}, sums, lanes, size, channels);
      continue;
    }
    for (Index g = 0; g < p.groups; ++g) {
      for (Index e = 0; e < size; ++e) {
        const T* lane = sums + e * lanes + g * in_group;
        T sum = 0;
        for (Index c = 0; c < in_group; ++c) sum += lane[c];
        slot[g * size + e] = sum;
      }
    }
  }
}

template <typename T>
void dense_slot(const Problem& p, const Prepared& made, Index i, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions, channels = p.group_inputs ? p.inputs : p.outputs;
  const bool grouped = p.groups != 1;
  const Index sums_row = panel_count<T>(V) * kPanel<T>;
  const Index values = grouped ? entries_of(p) * padded<T>(channels) : K * W * sums_row;
  const Index per_frame = grouped ? K * maximum(V, W) * channels : (K * W + V) * p.inputs;
  const Index chunk = chunk_frames(p, kTileRows, per_frame, 4);
  T* sums = working<T>(Slot::kExtra, values + (p.out.data == nullptr ? 0 : chunk * V * padded<T>(p.inputs)));
  std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(values) * sizeof(T));
  for_slot<T>(p, i, chunk, [&](Index n, const Rows<T>& x, const Rows<T>& grad, Index first, Index frames) {
    if (grouped) {
      adjacency_lanes(p, made, x, grad, frames, sums);
    } else if (p.out.data == nullptr) {
      adjacency_dense<T>(p, made, nullptr, x, grad, frames, nullptr, sums);
    } else {
      Target<T> out(sums + values, sample_of(p.out, p.out_batch, n), first * V, frames * V, p.inputs);
      adjacency_dense(p, made, adjacency_of<T>(p, n), x, grad, frames, &out, sums);
      out.close();
    }
  });
  if (grouped) {
    add_lanes(p, sums, channels, slot);
    return;
  }
  for (Index k = 0; k < K; ++k) {
    for (Index v = 0; v < V; ++v) {
      for (Index w = 0; w < W; ++w) slot[(k * V + v) * W + w] = sums[(k * W + w) * sums_row + v];
    }
  }
}

template <typename E>
void grad_adjacency(const Problem& p, const Prepared& made, Index begin, Index end) {
  using T = Acc<E>;
  const Index size = adjacency_values(p);
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * size;
    std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(size) * sizeof(T));
    if (made.sparse) {
      sparse_slot<E>(p, made, i, nullptr, nullptr, slot);
    } else if constexpr (kDepth<E> == 1) {
      dense_slot<T>(p, made, i, slot);
    }
  }
}

// Adds up the slots of each sample, or of all.
template <typename T>
void adjacency_finish(const Problem& p, const Prepared& made, void* out, Index begin, Index end) {
  const Index size = adjacency_values(p), per_partition = size / p.partitions;
  const Index samples = p.per_sample ? p.batch : 1, slots = p.slots / maximum(1, samples);
  for (Index n = 0; n < samples; ++n) {
    for (Index e = begin * per_partition; e < end * per_partition; ++e) {
      T sum = 0;
      for (Index i = 0; i < slots; ++i) sum += static_cast<const T*>(made.partials)[(n * slots + i) * size + e];
      const bool free = p.support == nullptr || static_cast<const T*>(p.support)[n * size + e] != T(0);
      static_cast<T*>(out)[n * size + e] = free ? sum : T(0);
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
