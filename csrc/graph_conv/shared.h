// What the forward pass and the gradients have in common: chunks, edges, packed weights. Include only from
// cpu_kernel.cpp.
#pragma once

#include "rows_multiplied.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// Above this share of non-zeros a matrix product is the faster sum over joints.
constexpr Index kSparseShare = 4;

inline Index minimum(Index a, Index b) { return a < b ? a : b; }
inline Index maximum(Index a, Index b) { return a > b ? a : b; }

// Frames that go through together: a multiple of `unit`, while what is kept of them stays in the second-level cache.
inline Index chunk_frames(const Problem& p, Index unit, Index values_per_frame, Index least) {
  constexpr Index kChunkValues = 96 * 1024;
  return maximum(least, minimum(p.frames, kChunkValues / maximum(1, values_per_frame) / unit * unit));
}

// Calls body(sample, first frame, frames) for the chunks of one piece.
template <typename Body>
void for_chunks(const Problem& p, Index piece, Index chunk, const Body& body) {
  const Index n = piece / p.pieces, i = piece % p.pieces;
  const Index last = (i + 1) * p.frames / p.pieces;
  for (Index t = i * p.frames / p.pieces; t < last; t += chunk) body(n, t, minimum(chunk, last - t));
}

inline ConstMatrix sample_of(const ConstMatrix& matrix, Index batch_stride, Index n) {
  const char* data = static_cast<const char*>(matrix.data) + n * batch_stride * bytes_of(matrix.dtype);
  return {data, matrix.dtype, matrix.row, matrix.channel};
}

inline Matrix sample_of(const Matrix& matrix, Index batch_stride, Index n) {
  char* data = static_cast<char*>(matrix.data) + n * batch_stride * bytes_of(matrix.dtype);
  return {data, matrix.dtype, matrix.row, matrix.channel};
}

template <typename T>
const T* adjacency_of(const Problem& p, Index n) {
  const Index size = p.partitions * p.groups * p.sources * p.targets;
  return static_cast<const T*>(p.adjacency) + (p.per_sample ? n * size : 0);
}

// sum[c] = sum over r of in[r * columns + c].
template <typename T>
void sum_rows(T* sum, const T* in, Index rows, Index columns) {
  if (columns < kLanes<T>) {
    for (Index c = 0; c < columns; ++c) {
      sum[c] = 0;
      for (Index r = 0; r < rows; ++r) sum[c] += in[r * columns + c];
    }
    return;
  }
  for (Index begin = 0; begin < columns; begin += kLanes<T>) {
    const Index c = stgcn_fast::STGCN_FAST_ISA::detail::last_block(begin, columns, kLanes<T>);
    Vec<T> total{};
    for (Index r = 0; r < rows; ++r) total += load(in + r * columns + c);
    store(sum + c, total);
  }
}

inline Index entries_of(const Problem& p) { return p.partitions * p.sources * p.targets; }

// Whether few enough entries of a shared, ungrouped adjacency (or, where given, its support) count.
template <typename T>
bool is_sparse(const Problem& p, const T* first, const T* second) {
  // Edges number their entry with 32 bits.
  if (p.groups != 1 || p.per_sample || entries_of(p) > INT32_MAX) return false;
  Index count = 0;
  for (Index i = 0; i < entries_of(p); ++i) {
    count += (first != nullptr && first[i] != T(0)) || (second != nullptr && second[i] != T(0));
  }
  return count * kSparseShare <= entries_of(p);
}

// The entries of A, those of `adjacency` [K, V, W] that are not zero or, if null, all.
template <typename T>
Order order_of(const Problem& p, const T* adjacency) {
  const Index V = p.sources, W = p.targets, K = p.partitions;
  if (adjacency == nullptr) return {K * V * W, K * W, K * V};
  Order order{};
  for (Index k = 0; k < K; ++k, adjacency += V * W) {
    for (Index v = 0; v < V; ++v) {
      Index count = 0;
      for (Index w = 0; w < W; ++w) count += adjacency[v * W + w] != T(0);
      order.entries += count;
      order.rows += count != 0;
    }
    for (Index w = 0; w < W; ++w) {
      bool any = false;
      for (Index v = 0; v < V; ++v) any = any || adjacency[v * W + w] != T(0);
      order.columns += any;
    }
  }
  return order;
}

template <typename T>
bool multiplies_first(const Problem& p, const T* adjacency) {
  return p.groups == 1 && order_of(p, adjacency).multiplies_first(p.inputs, p.outputs);
}

// Panels of W_k^T over the outputs, or of W_k over the inputs.
template <typename T>
Index packed_values(const Problem& p, bool over_inputs) {
  return graph_packed_values<T>(p.partitions, over_inputs ? p.outputs : p.inputs, over_inputs ? p.inputs : p.outputs);
}

template <typename E>
void pack_weights(const Problem& p, E* out, bool over_inputs) {
  graph_pack(out, static_cast<const Acc<E>*>(p.weight), p.weight_partition,
             over_inputs ? p.weight_input : p.weight_output, over_inputs ? p.weight_output : p.weight_input,
             p.partitions, over_inputs ? p.inputs : p.outputs, over_inputs ? p.outputs : p.inputs);
}

// Lists the edges by target joint, or by source joint.
template <typename T>
void list_edges(const Problem& p, void* memory, bool by_source, const T* values, const T* support) {
  graph_list_edges(Edges<T>(memory, entries_of(p)), by_source, values, support, p.partitions, p.sources, p.targets);
}

// taps products of [rows, depth] with panels, one per partition from `a` and `weights` on.
template <typename T>
struct Taps {
  const T** a;
  const T** b;
  Index count = 0;

  Taps(Slot slot, Index most) : a(working<const T*>(slot, 2 * most)), b(a + most) {}
};

// out (+)= sum over k of sums[k] times panels of [depth, columns], on `rows` rows.
template <typename T>
void mix_channels(const Problem& p, const T* weights, const T* sums, Index row, Index rows, Index depth, Index columns,
                  const Target<T>& out, bool accumulate) {
  const Index panels = panel_count<T>(columns), values = panel_values<T>(depth);
  const Taps<T> taps(Slot::kPointers, p.partitions);
  for (Index j = 0; j < panels; ++j) {
    for (Index k = 0; k < p.partitions; ++k) {
      taps.a[k] = sums + k * rows * row;
      taps.b[k] = weights + (k * panels + j) * values;
    }
    Product<T> q{};
    q.a = taps.a;
    q.b = taps.b;
    q.taps = p.partitions;
    q.k = depth;
    q.a_row = row;
    q.c = out.data + j * kPanel<T>;
    q.c_row = out.row;
    q.accumulate = accumulate;
    product(q, rows, panel_columns<T>(columns, j));
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
