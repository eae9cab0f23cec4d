// The convolution over one static adjacency whose non-zeros are listed, on rows (frame, joint) with channels innermost:
//
//   y[t,w,o] = sum over partitions k of sum_c W[k,o,c] * (sum over edges v -> w of A[k,v,w] * x[t,v,c]) + bias_map[w,o]
//
// A tile of frames of one target joint is aggregated into a buffer of the first-level cache and multiplied from there.
// Include only from cpu_kernel.cpp files.
#pragma once

#include "aggregate.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

using Index = std::int64_t;

using graph_conv::Edge;
using graph_conv::Edges;

template <typename E>
struct GraphOperand {
  Index sources, targets, inputs, outputs, partitions;  // V, W, C, O, K
  const std::int32_t* begin;  // edges of target w in partition k: edge[begin[w * K + k]] .. edge[begin[w * K + k + 1]]
  const Edge<Acc<E>>* edge;
  const E* weights;        // graph_pack's panels over the outputs
  const Acc<E>* bias_map;  // [W][O] or null
};

// Elements of `graph_pack`'s result.
template <typename E>
Index graph_packed_values(Index partitions, Index depth, Index columns) {
  return partitions * panel_count<E>(columns) * panel_values<E>(depth);
}

// Panels [k][panel over columns][panel_values(depth)] of weight[k * partition + column * by_column + d * by_depth]. The
// forward pass wants outputs as columns and inputs as depth, the gradient by x the other way round.
template <typename E>
void graph_pack(E* out, const Acc<E>* weight, Index partition, Index by_column, Index by_depth, Index partitions,
                Index columns, Index depth) {
  using S = Acc<E>;
  const Index panels = panel_count<E>(columns);
  for (Index k = 0; k < partitions; ++k) {
    for (Index j = 0; j < panels; ++j, out += panel_values<E>(depth)) {
      const int width = panel_columns<E>(columns, j);
      const ConstMatrix from{weight + k * partition + j * kPanel<E> * by_column, graph_conv::kComputed<S>, by_depth,
                             by_column};
#if defined(__AVX512BF16__)
      if constexpr (kDepth<E> == 2) {
        S* wide = graph_conv::working<S>(Slot::kGraph, 2 * depth * kPanel<E>);
        E* narrowed = reinterpret_cast<E*>(wide + depth * kPanel<E>);
        gather(wide, kPanel<E>, from, depth, width);
        for (Index i = 0; i < depth * kPanel<E>; i += kLanes<E>) store_row(narrowed + i, load(wide + i));
        pair_panel(out, narrowed, kPanel<E>, depth, width);
        continue;
      }
#endif
      if constexpr (kDepth<E> == 1) {
        if (width < kPanel<E>)
          std::memset(static_cast<void*>(out), 0, static_cast<std::size_t>(depth * kPanel<E>) * sizeof(E));
        gather(out, kPanel<E>, from, depth, width);
      }
    }
  }
}

// Memory for the edges of [K, V, W], were all its entries to count.
template <typename T>
Index graph_edge_bytes(Index partitions, Index sources, Index targets) {
  const Index joints = sources > targets ? sources : targets;
  return Edges<T>::bytes(joints, partitions, partitions * sources * targets);
}

// Lists by target joint (or by source joint) the entries of values [K, V, W] that are not zero and those that `support`
// says are free to change. Either may be null. Returns their number.
template <typename T>
std::int32_t graph_list_edges(Edges<T> edges, bool by_source, const T* values, const T* support, Index partitions,
                              Index sources, Index targets) {
  const Index joints = by_source ? sources : targets, others = by_source ? targets : sources;
  std::int32_t count = 0;
  for (Index joint = 0; joint < joints; ++joint) {
    for (Index k = 0; k < partitions; ++k) {
      edges.begin[joint * partitions + k] = count;
      for (Index other = 0; other < others; ++other) {
        const Index v = by_source ? joint : other, w = by_source ? other : joint;
        const Index entry = (k * sources + v) * targets + w;
        const T value = values == nullptr ? T(0) : values[entry];
        const bool free = support != nullptr && support[entry] != T(0);
        if (value == T(0) && !free) continue;
        edges.edge[count++] = {static_cast<std::int32_t>(other), static_cast<std::int32_t>(entry), value, free};
      }
    }
  }
  edges.begin[joints * partitions] = count;
  return count;
}

// map[w][o] = sum_k inflow of w in k * bias[k][o], from bias [K, O] and adjacency [K, V, W].
template <typename T>
void graph_bias_map(T* map, const T* bias, const T* adjacency, Index partitions, Index sources, Index targets,
                    Index outputs) {
  std::memset(static_cast<void*>(map), 0, static_cast<std::size_t>(targets * outputs) * sizeof(T));
  for (Index k = 0; k < partitions; ++k) {
    for (Index w = 0; w < targets; ++w) {
      T inflow = 0;
      for (Index v = 0; v < sources; ++v) inflow += adjacency[(k * sources + v) * targets + w];
      for (Index o = 0; o < outputs; ++o) map[w * outputs + o] += inflow * bias[k * outputs + o];
    }
  }
}

namespace detail {

// Reads ahead one joint's rows of the next frames: in steps of a whole frame the hardware does not see them coming.
template <typename E>
void prefetch_rows(const E* rows, Index step, Index count, Index channels) {
  constexpr Index kLine = 64 / static_cast<Index>(sizeof(E));
  for (Index r = 0; r < count; ++r) {
    for (Index c = 0; c < channels; c += kLine) __builtin_prefetch(rows + r * step + c);
  }
}

}  // namespace detail

// y[(t * W + w) * y_row + o] from x[(t * V + v) * x_row + c]. Rows of x hold whole vectors, zeros beyond C.
template <typename E, typename Out>
void graph_rows(const GraphOperand<E>& op, const E* x, Index x_row, Index frames, Out* y, Index y_row, bool relu) {
  const Index V = op.sources, W = op.targets, K = op.partitions, row = graph_conv::padded<E>(op.inputs);
  const Index panels = panel_count<E>(op.outputs), values = panel_values<E>(op.inputs);
  // The pointers first: they are whole cache lines, so the sums stay aligned.
  const Index pointers = (2 * K * static_cast<Index>(sizeof(E*)) + 63) / 64 * 64;
  char* memory =
      graph_conv::working<char>(Slot::kGraph, pointers + K * kTileRows * row * static_cast<Index>(sizeof(E)));
  const E** a = reinterpret_cast<const E**>(memory);
  const E** b = a + K;
  E* sums = reinterpret_cast<E*>(memory + pointers);
  for (Index t = 0; t < frames;) {
    const Index rows = tile_rows(frames - t);
    const graph_conv::Rows<E> tile{x + t * V * x_row, x_row};
    const Index ahead = frames - t - rows < rows ? frames - t - rows : rows;
    for (Index w = 0; w < W; ++w) {
      for (Index v = w * V / W; v < (w + 1) * V / W; ++v) {
        detail::prefetch_rows(x + ((t + rows) * V + v) * x_row, V * x_row, ahead, op.inputs);
      }
      Index taps = 0;
      for (Index k = 0; k < K; ++k) {
        const std::int32_t* begin = op.begin + w * K + k;
        if (begin[0] == begin[1]) continue;
        E* sum = sums + taps * kTileRows * row;
        graph_conv::aggregate(sum, row, tile, V, rows, op.inputs, op.edge + begin[0], op.edge + begin[1]);
        a[taps] = sum;
        b[taps++] = op.weights + k * panels * values;
      }
      for (Index j = 0; j < panels; ++j) {
        Product<E, Out> q{};
        q.a = a;
        q.b = b;
        q.taps = taps;
        q.k = op.inputs;
        q.a_row = row;
        q.bias = op.bias_map == nullptr ? nullptr : op.bias_map + w * op.outputs + j * kPanel<E>;
        q.c = y + (t * W + w) * y_row + j * kPanel<E>;
        q.c_row = W * y_row;
        q.relu = relu;
        product(q, rows, panel_columns<E>(op.outputs, j));
        for (Index i = 0; i < taps; ++i) b[i] += values;
      }
    }
    t += rows;
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
