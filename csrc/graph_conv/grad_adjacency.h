// The gradient by the adjacency, in slots of [K, G, V, W], and with it the one by x. Include only from cpu_kernel.cpp.
#pragma once

#include "grad_weight.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

inline Index adjacency_values(const Problem& p) { return p.groups * entries_of(p); }

// Whether x is multiplied rather than the output's gradient. With one group the gradient's product also serves that by
// x.
inline bool projects_x(const Problem& p) {
  if (p.groups != 1) return !p.group_inputs;
  return p.out.data == nullptr && p.support == nullptr && multiplies_first<float>(p, nullptr);
}

template <typename E>
void adjacency_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  made.sparse =
      p.support != nullptr && is_sparse(p, static_cast<const T*>(p.adjacency), static_cast<const T*>(p.support));
  made.weights_bytes = packed_values<E>(p, !projects_x(p)) * static_cast<Index>(sizeof(E));
  const Index joints = maximum(p.sources, p.targets);
  made.edges_bytes = made.sparse ? Edges<T>::bytes(joints, p.partitions, entries_of(p)) : 0;
  made.partial_bytes = p.slots * adjacency_values(p) * static_cast<Index>(sizeof(T));
}

template <typename E>
void adjacency_pack(const Problem& p, void* weights) {
  pack_weights(p, static_cast<E*>(weights), !projects_x(p));
}

template <typename T>
void adjacency_prepare(const Problem& p, const Prepared& made) {
  if (!made.sparse) return;
  list_edges(p, made.edges, false, static_cast<const T*>(p.adjacency), static_cast<const T*>(p.support));
}

// q[t][panel][k * W + w][kPanel] = grad[t, w] W_k, met with the transposed frames of x; or x W_k^T with those of the
// gradient. sums [k][joint of the one][joint of the other].
template <typename T>
void adjacency_dense(const Problem& p, const Prepared& made, const T* adjacency, const Rows<T>& x, const Rows<T>& grad,
                     Index frames, const Target<T>* out, T* sums) {
  const bool swapped = projects_x(p);
  const Rows<T>& one = swapped ? x : grad;
  const Rows<T>& other = swapped ? grad : x;
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const Index from = swapped ? V : W, to = swapped ? W : V;
  const Index depth = swapped ? p.inputs : p.outputs, channels = swapped ? p.outputs : p.inputs;
  const Index panels = panel_count<T>(channels), joint_panels = panel_count<T>(to);
  const Index sums_row = joint_panels * kPanel<T>, block = K * from * kPanel<T>;  // block of one frame and panel
  T* projected = working<T>(Slot::kAggregate, frames * panels * block);
  if (channels % kPanel<T> != 0) {
    std::memset(static_cast<void*>(projected), 0, static_cast<std::size_t>(frames * panels * block) * sizeof(T));
  }
  for (Index k = 0; k < K; ++k) {
    for (Index j = 0; j < panels; ++j) {
      const T* b = static_cast<const T*>(made.weights) + (k * panels + j) * depth * kPanel<T>;
      for (Index t = 0; t < frames; ++t) {
        const T* a = one.data + t * from * one.row;
        Product<T> q{};
        q.a = &a;
        q.b = &b;
        q.taps = 1;
        q.k = depth;
        q.a_row = one.row;
        q.c = projected + (t * panels + j) * block + k * from * kPanel<T>;
        q.c_row = kPanel<T>;
        product(q, from, panel_columns<T>(channels, j));
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
        const T* rows = other.data + (t * to + i * kPanel<T>)*other.row + j * kPanel<T>;
        T* panel = turned + (t * panels + j) * turned_block + i * kPanel<T> * kPanel<T>;
        gather(panel, kPanel<T>, ConstMatrix{rows, kComputed<T>, 1, other.row}, panel_columns<T>(channels, j),
               panel_columns<T>(to, i));
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
    Product<T> q{};
    q.a = taps.a;
    q.b = taps.b;
    q.taps = taps.count;
    q.k = kPanel<T>;
    q.a_row = kPanel<T>;
    q.c = sums + i * kPanel<T>;
    q.c_row = sums_row;
    q.accumulate = true;
    product(q, K * from, kPanel<T>);
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

// [K, G, V, W] += sums[k][e][lane] of one vector of channels from `first` on.
template <typename T>
void add_lanes(const Problem& p, const T* sums, Index first, Index channels, T* slot) {
  const Index size = p.sources * p.targets, in_group = channels / p.groups;
  const Index count = minimum(kLanes<T>, channels - first);
  for (Index k = 0; k < p.partitions; ++k, sums += size * kLanes<T>, slot += p.groups * size) {
    if (in_group == 1) {
      scatter<T>(Matrix{slot + first * size, kComputed<T>, 1, size}, sums, kLanes<T>, size, count);
      continue;
    }
    for (Index c = 0; c < count; ++c) {
      T* to = slot + (first + c) / in_group * size;
      for (Index e = 0; e < size; ++e) to[e] += sums[e * kLanes<T> + c];
    }
  }
}

// A panel of channels at a time: the side that carries the weights is projected, and met with the other's frames. With
// `bias`, so is the bias' part of the gradient.
template <typename T>
void lanes_slot(const Problem& p, const Prepared& made, Index i, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions, channels = p.group_inputs ? p.inputs : p.outputs;
  const Index from = p.group_inputs ? W : V, to = p.group_inputs ? V : W;
  const Index depth = p.group_inputs ? p.outputs : p.inputs, step = entries_of(p) * kLanes<T>;
  T* sums = working<T>(Slot::kExtra, kPanelVectors * step);
  const Index most = strip_frames<T>(p);
  T* projected = working<T>(Slot::kAggregate, K * most * from * kStripRow<T>);
  T* strip = working<T>(Slot::kPanel, most * to * kLanes<T>);
  const T* bias = p.group_inputs ? nullptr : static_cast<const T*>(p.bias);
  const Index total = p.batch * p.pieces, begin = i * total / p.slots, end = (i + 1) * total / p.slots;
  Rows<T> x{}, grad{};
  Index held = -1;
  for (Index j = 0; j < panel_count<T>(channels); ++j) {
    const Index vectors = padded<T>(panel_columns<T>(channels, j)) / kLanes<T>;
    std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(vectors * step) * sizeof(T));
    for (Index piece = begin; piece < end; ++piece) {
      for_chunks(p, piece, kLaneFrames, [&](Index n, Index first, Index frames) {
        if (held != n * p.frames + first) {
          x = rows_of<T>(Slot::kInput, sample_of(p.x, p.x_batch, n), first * V, frames * V, p.inputs);
          grad = rows_of<T>(Slot::kOutput, sample_of(p.grad, p.grad_batch, n), first * W, frames * W, p.outputs);
          held = n * p.frames + first;
        }
        const Rows<T>& one = p.group_inputs ? grad : x;
        const Rows<T>& other = p.group_inputs ? x : grad;
        for (Index t = 0; t < frames; t += most) {
          const Index count = minimum(most, frames - t), rows = count * from;
          project_panel(p, made.weights, Rows<T>{one.data + t * from * one.row, one.row}, rows, depth, channels, j,
                        bias, projected);
          for (Index v = 0; v < vectors; ++v) {
            const T* met = other.data + t * to * other.row + j * kPanel<T> + v * kLanes<T>;
            for (Index r = 0; r < count * to; ++r) store(strip + r * kLanes<T>, load(met + r * other.row));
            for (Index k = 0; k < K; ++k) {
              const Rows<T> mixed{projected + k * rows * kStripRow<T> + v * kLanes<T>, kStripRow<T>};
              const Rows<T> plain{strip, kLanes<T>};
              outer_lanes(sums + v * step + k * V * W * kLanes<T>, V, W, p.group_inputs ? plain : mixed,
                          p.group_inputs ? mixed : plain, count);
            }
          }
        }
      });
    }
    for (Index v = 0; v < vectors; ++v) add_lanes(p, sums + v * step, j * kPanel<T> + v * kLanes<T>, channels, slot);
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

template <typename T>
void dense_slot(const Problem& p, const Prepared& made, Index i, T* slot) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  const bool swapped = projects_x(p), folded = !swapped && p.out.data == nullptr && folds<T>(p);
  const Index from = swapped ? V : W, to = swapped ? W : V, sums_row = panel_count<T>(to) * kPanel<T>;
  const Index values = K * from * sums_row;
  const Index per_frame = (K * from + to) * (folded ? folded_channels(p) : swapped ? p.outputs : p.inputs);
  const Index chunk = chunk_frames(p, kTileRows, per_frame, 4);
  T* sums = working<T>(Slot::kExtra, values + (p.out.data == nullptr ? 0 : chunk * V * padded<T>(p.inputs)));
  std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(values) * sizeof(T));
  for_slot<T>(p, i, chunk, [&](Index n, const Rows<T>& x, const Rows<T>& grad, Index first, Index frames) {
    if (folded) {
      adjacency_folded(p, static_cast<const T*>(made.weights), x, grad, frames, sums);
    } else if (p.out.data == nullptr) {
      adjacency_dense<T>(p, made, nullptr, x, grad, frames, nullptr, sums);
    } else {
      Target<T> out(sums + values, sample_of(p.out, p.out_batch, n), first * V, frames * V, p.inputs);
      adjacency_dense(p, made, adjacency_of<T>(p, n), x, grad, frames, &out, sums);
      out.close();
    }
  });
  for (Index k = 0; k < K; ++k) {
    for (Index v = 0; v < V; ++v) {
      for (Index w = 0; w < W; ++w) {
        slot[(k * V + v) * W + w] = swapped ? sums[(k * V + v) * sums_row + w] : sums[(k * W + w) * sums_row + v];
      }
    }
  }
}

template <typename E>
void grad_adjacency(const Problem& p, const Prepared& made, Index begin, Index end) {
  using T = Acc<E>;
  const Index size = adjacency_values(p);
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * size;
    if (made.sparse || p.groups != (p.group_inputs ? p.inputs : p.outputs)) {  // else written whole
      std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(size) * sizeof(T));
    }
    if (made.sparse) {
      sparse_slot<E>(p, made, i, nullptr, nullptr, slot);
    } else if constexpr (kDepth<E> == 1) {
      p.groups == 1 ? dense_slot<T>(p, made, i, slot) : lanes_slot<T>(p, made, i, slot);
    }
  }
}

// Adds up the slots of each sample, or of all.
template <typename T>
void adjacency_finish(const Problem& p, const Prepared& made, void* out, Index begin, Index end) {
  const Index size = adjacency_values(p), per_partition = size / p.partitions;
  const Index samples = p.per_sample ? p.batch : 1, slots = p.slots / maximum(1, samples);
  const T* support = static_cast<const T*>(p.support);
  for (Index n = 0; n < samples; ++n) {
    T* to = static_cast<T*>(out) + n * size;
    const T* from = static_cast<const T*>(made.partials) + n * slots * size;
    Index e = begin * per_partition;
    for (; e + kLanes<T> <= end * per_partition; e += kLanes<T>) {
      Vec<T> sum{};
      for (Index i = 0; i < slots; ++i) sum += load(from + i * size + e);
      store(to + e, sum);
    }
    for (; e < end * per_partition; ++e) {
      to[e] = 0;
      for (Index i = 0; i < slots; ++i) to[e] += from[i * size + e];
    }
    if (support == nullptr) continue;
    for (e = begin * per_partition; e < end * per_partition; ++e) {
      if (support[n * size + e] == T(0)) to[e] = 0;
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
