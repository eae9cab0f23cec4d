// Gradients that share a pass, and those of the bias. Include only from cpu_kernel.cpp.
#pragma once

#include "grad_adjacency.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// One slot: sums over frames [W, O], then the weight's sums, then [K, V, W] of the adjacency.
struct SlotLayout {
  Index weight, adjacency, values;
};

template <typename E>
SlotLayout slot_layout(const Problem& p) {
  const Index weight = padded<E>(p.targets * p.outputs);
  const Index adjacency = weight + (p.by_weight == nullptr ? 0 : weight_values<E>(p, true));
  return {weight, adjacency, padded<E>(adjacency + (p.by_adjacency == nullptr ? 0 : entries_of(p)))};
}

template <typename E>
void backward_size(const Problem& p, Prepared& made) {
  using T = Acc<E>;
  const T* support = p.by_adjacency == nullptr ? nullptr : static_cast<const T*>(p.support);
  made.sparse =
      (p.by_adjacency == nullptr || support != nullptr) && is_sparse(p, static_cast<const T*>(p.adjacency), support);
  made.weights_bytes = packed_values<E>(p, true) * static_cast<Index>(sizeof(E));
  made.edges_bytes = Edges<T>::bytes(maximum(p.sources, p.targets), p.partitions, entries_of(p));
  made.partial_bytes = p.slots * slot_layout<E>(p).values * static_cast<Index>(sizeof(T));
}

template <typename T>
void backward_prepare(const Problem& p, const Prepared& made) {
  const T* support = p.by_adjacency == nullptr ? nullptr : static_cast<const T*>(p.support);
  list_edges(p, made.edges, false, static_cast<const T*>(p.adjacency), support);
}

template <typename E>
void backward_pack(const Problem& p, void* weights) {
  if (p.out.data != nullptr || p.by_adjacency != nullptr) pack_weights(p, static_cast<E*>(weights), true);
}

template <typename E>
void backward(const Problem& p, const Prepared& made, Index begin, Index end) {
  using T = Acc<E>;
  const SlotLayout layout = slot_layout<E>(p);
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * layout.values;
    std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(layout.values) * sizeof(T));
    sparse_slot<E>(p, made, i, slot, p.by_weight == nullptr ? nullptr : slot + layout.weight,
                   p.by_adjacency == nullptr ? nullptr : slot + layout.adjacency);
  }
}

// sums[i] += other slots' [i] for i in [begin, end), both multiples of a vector.
template <typename T>
void add_slots(T* sums, Index slots, Index values, Index begin, Index end) {
  for (Index i = 1; i < slots; ++i) {
    const T* other = sums + i * values;
    for (Index c = begin; c < end; c += kLanes<T>) store(sums + c, load(sums + c) + load(other + c));
  }
}

template <typename E>
void backward_finish(const Problem& p, const Prepared& made, void*, Index begin, Index end) {
  using T = Acc<E>;
  const SlotLayout layout = slot_layout<E>(p);
  T* sums = static_cast<T*>(made.partials);
  if (begin == 0) {
    add_slots(sums, p.slots, layout.values, Index{0}, layout.weight);
    add_slots(sums, p.slots, layout.values, layout.adjacency, layout.values);
    if (p.by_adjacency != nullptr) {
      std::memcpy(p.by_adjacency, sums + layout.adjacency, static_cast<std::size_t>(entries_of(p)) * sizeof(T));
    }
  }
  if (p.by_weight == nullptr) return;
  const Index per_partition = (layout.adjacency - layout.weight) / p.partitions;
  add_slots(sums, p.slots, layout.values, layout.weight + begin * per_partition, layout.weight + end * per_partition);
  graph_grad_weight(gradient_of<E>(p, Edges<T>(nullptr, 0)), sums + layout.weight, static_cast<T*>(p.by_weight), begin,
                    end);
}

// Sums over frames alone, in slots of [W, O].
template <typename T>
void joints_size(const Problem& p, Prepared& made) {
  made.partial_bytes = p.slots * padded<T>(p.targets * p.outputs) * static_cast<Index>(sizeof(T));
}

template <typename T>
void joints(const Problem& p, const Prepared& made, Index begin, Index end) {
  const Index values = padded<T>(p.targets * p.outputs);
  for (Index i = begin; i < end; ++i) {
    T* slot = static_cast<T*>(made.partials) + i * values;
    std::memset(static_cast<void*>(slot), 0, static_cast<std::size_t>(values) * sizeof(T));
    const Index total = p.batch * p.pieces;
    for (Index piece = i * total / p.slots; piece < (i + 1) * total / p.slots; ++piece) {
      for_chunks(p, piece, kTileRows, [&](Index n, Index first, Index frames) {
        const Rows<T> grad = rows_of<T>(Slot::kOutput, sample_of(p.grad, p.grad_batch, n), first * p.targets,
                                        frames * p.targets, p.outputs);
        for (Index r = 0; r < frames * p.targets; ++r) {
          T* sum = slot + r % p.targets * p.outputs;
          const T* row = grad.data + r * grad.row;
          for (Index o = 0; o < p.outputs; ++o) sum[o] += row[o];
        }
      });
    }
  }
}

template <typename T>
void joints_finish(const Problem& p, const Prepared& made, void*, Index begin, Index) {
  if (begin != 0) return;
  const Index values = padded<T>(p.targets * p.outputs), samples = p.per_sample ? p.batch : 1;
  const Index slots = p.slots / maximum(1, samples);
  T* sums = static_cast<T*>(made.partials);
  for (Index n = 0; n < samples; ++n) {
    T* first = sums + n * slots * values;
    add_slots(first, slots, values, Index{0}, values);
    std::memmove(static_cast<void*>(sums + n * p.targets * p.outputs), first,
                 static_cast<std::size_t>(p.targets * p.outputs) * sizeof(T));
  }
}

// joints [N | 1, W, O] -> by_bias [K, O] and, added to it, by_adjacency [N | 1, K, G, V, W]; either may be null.
template <typename T>
void grad_bias(const Problem& p, const void* sums, void* by_adjacency, void* by_bias) {
  const Index V = p.sources, W = p.targets, in_group = p.outputs / p.groups;
  const T* bias = static_cast<const T*>(p.bias);
  const T* support = static_cast<const T*>(p.support);
  T* out = static_cast<T*>(by_bias);
  T* inflow = working<T>(Slot::kPointers, 2 * W);
  T* brought = inflow + W;
  if (out != nullptr) std::memset(by_bias, 0, static_cast<std::size_t>(p.partitions * p.outputs) * sizeof(T));
  for (Index n = 0; n < (p.per_sample ? p.batch : 1); ++n) {
    const T* joint = static_cast<const T*>(sums) + n * W * p.outputs;
    const T* a = adjacency_of<T>(p, n);
    for (Index block = 0; block < p.partitions * p.groups; ++block) {
      const Index offset = block * V * W, at = block / p.groups * p.outputs, g = block % p.groups * in_group;
      T* to = by_adjacency == nullptr ? nullptr : static_cast<T*>(by_adjacency) + n * adjacency_values(p) + offset;
      if (out != nullptr) {
        if (p.turned) {
          for (Index w = 0; w < W; ++w) {
            inflow[w] = 0;
            for (Index v = 0; v < V; ++v) inflow[w] += a[offset + w * V + v];
          }
        } else {
          sum_rows(inflow, a + offset, V, W);
        }
        for (Index w = 0; w < W; ++w) {
          for (Index o = 0; o < in_group; ++o) out[at + g + o] += inflow[w] * joint[w * p.outputs + g + o];
        }
      }
      if (to == nullptr || bias == nullptr) continue;
      for (Index w = 0; w < W; ++w) {
        brought[w] = 0;
        for (Index o = 0; o < in_group; ++o) brought[w] += bias[at + g + o] * joint[w * p.outputs + g + o];
      }
      const T* free = support == nullptr ? nullptr : support + n * adjacency_values(p) + offset;
      for (Index v = 0; v < V; ++v) {
        for (Index w = 0; w < W; ++w) {
          if (free == nullptr || free[v * W + w] != T(0)) to[v * W + w] += brought[w];
        }
      }
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
