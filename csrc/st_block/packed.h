// The block's operands as the row kernels read them, scales and shifts folded in. Include only from cpu_kernel.cpp.
#pragma once

#include "graph_conv/rows.h"
#include "st_block.h"
#include "temporal_conv/rows.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block {

using ::stgcn_fast::st_block::Kernels;
using ::stgcn_fast::st_block::Operand;
using ::stgcn_fast::st_block::Problem;
using ::stgcn_fast::st_block::Residual;
using ::stgcn_fast::st_block::Segment;

// Operands that point into one block of memory.
template <typename E>
struct Block {
  GraphOperand<E> graph;
  bool fast;
  TemporalOperand<E> direct, residual;
  TemporalOperand<Acc<E>> transformed;  // in place of `direct` where the fast form is computed
  Index bytes;                          // of the memory
  E* graph_weights;
  E* direct_weights;
  Acc<E>* transformed_weights;
  E* residual_weights;
  Edge<Acc<E>>* edges;
  Acc<E>* bias_map;       // [W, O]
  Acc<E>* temporal_bias;  // [O]
};

template <typename E>
Block<E> block_in(const Problem& p, void* memory) {
  Block<E> made{};
  char* next = static_cast<char*>(memory);
  const auto take = [&](auto* typed, Index bytes) {
    typed = reinterpret_cast<decltype(typed)>(next);
    next += (bytes + 63) / 64 * 64;
    return typed;
  };
  constexpr Index kE = sizeof(E), kA = sizeof(Acc<E>);
  made.direct.inputs = made.direct.outputs = p.outputs;
  made.direct.kernel_size = p.kernel_size;
  made.direct.joints = p.targets;
  made.direct.stride = p.stride;
  made.direct.dilation = 1;
  made.transformed = {p.outputs, p.outputs, p.kernel_size, p.targets, p.stride, 1, true, nullptr, nullptr, p.group};
  // Where bfloat16 is multiplied, only the form with the fewest products is faster in float32.
  made.fast =
      p.fast && temporal_has_fast_form(made.transformed) && (kHasFastForm<E> || p.group == kTemporalRoundedBlock);
  made.residual.inputs = p.inputs;
  made.residual.outputs = p.outputs;
  made.residual.kernel_size = 1;
  made.residual.joints = p.targets;
  made.residual.stride = p.stride;
  made.residual.dilation = 1;

  made.graph_weights = take(made.graph_weights, graph_packed_values<E>(p.partitions, p.inputs, p.outputs) * kE);
  if (made.fast) {
    made.transformed_weights = take(made.transformed_weights, temporal_packed_values(made.transformed) * kA);
  } else {
    made.direct_weights = take(made.direct_weights, temporal_packed_values(made.direct) * kE);
  }
  if (p.residual == Residual::kConvolution) {
    made.residual_weights = take(made.residual_weights, temporal_packed_values(made.residual) * kE);
  }
  made.bias_map = take(made.bias_map, p.targets * p.outputs * kA);
  made.temporal_bias = take(made.temporal_bias, p.outputs * kA);
  made.edges = take(made.edges, graph_edge_bytes<Acc<E>>(p.partitions, p.sources, p.targets));
  made.bytes = next - static_cast<char*>(memory);

  const Edges<Acc<E>> edges(made.edges, p.partitions * p.sources * p.targets);
  made.graph.sources = p.sources;
  made.graph.targets = p.targets;
  made.graph.inputs = p.inputs;
  made.graph.outputs = p.outputs;
  made.graph.partitions = p.partitions;
  made.graph.begin = edges.begin;
  made.graph.edge = edges.edge;
  made.graph.weights = made.graph_weights;
  made.graph.bias_map = made.bias_map;
  made.direct.weights = made.direct_weights;
  made.transformed.weights = made.transformed_weights;
  made.direct.bias = made.transformed.bias = made.temporal_bias;
  made.residual.weights = made.residual_weights;
  return made;
}

template <typename E>
Index packed_bytes(const Problem& p) {
  return block_in<E>(p, nullptr).bytes;
}

// out[i][j] = operand[i * outer + j * inner], whatever its dtype; operand read from element `first` on.
template <typename A>
void read(A* out, const Operand& operand, Index first, Index rows, Index row_stride, Index columns,
          Index column_stride) {
  const char* from = static_cast<const char*>(operand.data) + first * graph_conv::bytes_of(operand.dtype);
  gather(out, columns, ConstMatrix{from, operand.dtype, row_stride, column_stride}, rows, columns);
}

// values[o] of a vector, or `missing` in its place.
template <typename A>
void read_vector(A* out, const Operand& operand, Index size, A missing) {
  if (operand.data == nullptr) {
    for (Index o = 0; o < size; ++o) out[o] = missing;
  } else {
    read(out, operand, 0, 1, 0, size, operand.stride[0]);
  }
}

template <typename E>
void pack(const Problem& p, void* memory) {
  using A = Acc<E>;
  const Block<E> made = block_in<E>(p, memory);
  const Index O = p.outputs, C = p.inputs, K = p.partitions, taps = p.kernel_size, entries = K * p.sources * p.targets;
  const Index widest = O * (K * C > O * taps ? K * C : O * taps);
  A* weights = scratch<A>(Slot::kPanel, (widest > entries ? widest : entries) + K * O + 2 * O);
  A* bias = weights + (widest > entries ? widest : entries);
  A* scale = bias + K * O;
  A* shift = scale + O;

  // The adjacency and, from its inflow, what each target joint receives of the bias.
  for (Index k = 0; k < K; ++k) {
    read(weights + k * p.sources * p.targets, p.adjacency, k * p.adjacency.stride[1], p.sources, p.adjacency.stride[3],
         p.targets, p.adjacency.stride[4]);
  }
  graph_list_edges(Edges<A>(made.edges, entries), false, weights, static_cast<const A*>(nullptr), K, p.sources,
                   p.targets);
  read_vector(scale, p.scale1, O, A(1));
  read_vector(shift, p.shift1, O, A(0));
  if (p.graph_bias.data == nullptr) {
    for (Index i = 0; i < K * O; ++i) bias[i] = A(0);
  } else {
    read(bias, p.graph_bias, 0, K, p.graph_bias.stride[0], O, p.graph_bias.stride[1]);
  }
  graph_bias_map(made.bias_map, bias, weights, K, p.sources, p.targets, O);
  for (Index w = 0; w < p.targets; ++w) {
    for (Index o = 0; o < O; ++o) made.bias_map[w * O + o] = made.bias_map[w * O + o] * scale[o] + shift[o];
  }

  for (Index k = 0; k < K; ++k) {
    read(weights + k * O * C, p.graph_weight, k * p.graph_weight.stride[0], O, p.graph_weight.stride[1], C,
         p.graph_weight.stride[2]);
    for (Index o = 0; o < O; ++o) {
      for (Index c = 0; c < C; ++c) weights[(k * O + o) * C + c] *= scale[o];
    }
  }
  graph_pack(made.graph_weights, weights, O * C, C, Index{1}, K, O, C);

  read_vector(scale, p.scale2, O, A(1));
  for (Index o = 0; o < O; ++o) {
    read(weights + o * O * taps, p.temporal_weight, o * p.temporal_weight.stride[0], O, p.temporal_weight.stride[1],
         taps, p.temporal_weight.stride[2]);
    for (Index i = 0; i < O * taps; ++i) weights[o * O * taps + i] *= scale[o];
  }
  const TemporalWeight strides{O * taps, taps, 1};
  if (made.fast) {
    temporal_pack(made.transformed, weights, strides, made.transformed_weights, Index{0},
                  temporal_pack_tasks(made.transformed));
  } else {
    temporal_pack(made.direct, weights, strides, made.direct_weights, Index{0}, temporal_pack_tasks(made.direct));
  }
  read_vector(made.temporal_bias, p.temporal_bias, O, A(0));
  read_vector(shift, p.shift2, O, A(0));
  for (Index o = 0; o < O; ++o) made.temporal_bias[o] = made.temporal_bias[o] * scale[o] + shift[o];
  if (p.residual != Residual::kConvolution) return;
  read_vector(shift, p.residual_shift, O, A(0));
  for (Index o = 0; o < O; ++o) made.temporal_bias[o] += shift[o];
  read(weights, p.residual_weight, 0, O, p.residual_weight.stride[0], C, p.residual_weight.stride[1]);
  temporal_pack(made.residual, weights, TemporalWeight{C, 1, 1}, made.residual_weights, Index{0},
                temporal_pack_tasks(made.residual));
}

}  // namespace st_block
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
