#include "backward.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block_train {

template <typename E>
bool has_fast_form(const Block& b) {
  return temporal_has_fast_form(temporal_operand<E>(b));
}

template <typename E>
Index graph_values(const Block& b, bool backward) {
  return backward ? graph_packed_values<E>(b.partitions, b.outputs, b.inputs)
                  : graph_packed_values<E>(b.partitions, b.inputs, b.outputs);
}

template <typename E>
Index temporal_values(const Block& b, bool backward) {
  if (!backward) return temporal_packed_values(temporal_operand<E>(b));
  Index values = 0;
  for (Index p = 0; p < b.stride; ++p) {
    const Phase phase(b, p);
    if (phase.taps > 0) values += temporal_packed_values(phase_operand<E>(b, phase, nullptr));
  }
  return values;
}

template <typename E>
TemporalOperand<E> packed_residual(const Block& b, bool backward) {
  return {backward ? b.outputs : b.inputs, backward ? b.inputs : b.outputs, 1, b.joints, 1, 1, false, nullptr, nullptr};
}

template <typename E>
Index residual_values(const Block& b, bool backward) {
  return b.convolved ? temporal_packed_values(packed_residual<E>(b, backward)) : 0;
}

template <typename E>
Index edge_bytes(const Block& b) {
  return graph_edge_bytes<Acc<E>>(b.partitions, b.joints, b.joints);
}

template <typename E>
const std::int32_t* list_edges(const Block& b, const Operands& from, void* memory) {
  using T = Acc<E>;
  const Edges<T> edges(memory, b.partitions * b.joints * b.joints);
  graph_list_edges<T>(edges, false, static_cast<const T*>(from.adjacency), static_cast<const T*>(from.support),
                      b.partitions, b.joints, b.joints);
  return edges.begin;
}

template <typename E>
void bias_map(const Block& b, const Operands& from, void* out) {
  using T = Acc<E>;
  graph_bias_map<T>(static_cast<T*>(out), static_cast<const T*>(from.bias), static_cast<const T*>(from.adjacency),
                    b.partitions, b.joints, b.joints, b.outputs);
}

// Tasks: the partitions, the temporal kernel's (of each phase in the backward pass), the residual's.
template <typename E>
Index pack_tasks(const Block& b, bool backward) {
  Index tasks = b.partitions + (b.convolved ? 1 : 0);
  if (!backward) return tasks + temporal_pack_tasks(temporal_operand<E>(b));
  for (Index p = 0; p < b.stride; ++p) {
    const Phase phase(b, p);
    if (phase.taps > 0) tasks += temporal_pack_tasks(phase_operand<E>(b, phase, nullptr));
  }
  return tasks;
}

template <typename E>
void pack_graph(const Block& b, const Operands& from, bool backward, Index k) {
  const Index size = b.outputs * b.inputs;
  const Acc<E>* weight = static_cast<const Acc<E>*>(from.graph_weight) + k * size;
  E* out = static_cast<E*>(const_cast<void*>(b.graph_weight)) + k * graph_values<E>(b, backward) / b.partitions;
  if (backward) {
    graph_pack<E>(out, weight, size, 1, b.inputs, 1, b.inputs, b.outputs);
  } else {
    graph_pack<E>(out, weight, size, b.inputs, 1, 1, b.outputs, b.inputs);
  }
}

template <typename E>
void pack(const Block& b, const Operands& from, bool backward, Index begin, Index end) {
  const Acc<E>* kernel = static_cast<const Acc<E>*>(from.temporal_weight);
  for (Index task = begin; task < end; ++task) {
    Index left = task;
    if (left < b.partitions) {
      pack_graph<E>(b, from, backward, left);
      continue;
    }
    left -= b.partitions;
    E* out = static_cast<E*>(const_cast<void*>(b.temporal_weight));
    const Index output = b.outputs * b.kernel_size, input = b.kernel_size;
    if (!backward) {
      const TemporalOperand<E> op = temporal_operand<E>(b);
      if (left < temporal_pack_tasks(op)) {
        temporal_pack<E>(op, kernel, TemporalWeight{output, input, 1}, out, left, left + 1);
        continue;
      }
      left -= temporal_pack_tasks(op);
    }
    bool done = false;
    for (Index p = 0; backward && !done && p < b.stride; ++p) {
      const Phase phase(b, p);
      if (phase.taps == 0) continue;
      const TemporalOperand<E> op = phase_operand<E>(b, phase, nullptr);
      done = left < temporal_pack_tasks(op);
      if (done) {
        temporal_pack<E>(op, kernel + phase.last_tap, TemporalWeight{input, output, -b.stride}, out, left, left + 1);
      } else {
        left -= temporal_pack_tasks(op);
        out += temporal_packed_values(op);
      }
    }
    if (done) continue;
    const TemporalOperand<E> op = packed_residual<E>(b, backward);
    const TemporalWeight strides = backward ? TemporalWeight{1, b.inputs, 1} : TemporalWeight{b.inputs, 1, 1};
    temporal_pack<E>(op, static_cast<const Acc<E>*>(from.residual_weight), strides,
                     static_cast<E*>(const_cast<void*>(b.residual_weight)), 0, temporal_pack_tasks(op));
  }
}

template <typename E>
void merge_graph(const Block& b, Index begin, Index end) {
  using T = Acc<E>;
  const Index values = graph_sums<E>(b);
  T* sums = static_cast<T*>(b.graph_sums);
  for (Index part = 1; part < b.parts; ++part) {
    const T* other = sums + part * values;
    Index i = begin;
    for (; i + kLanes<T> <= end; i += kLanes<T>) store(sums + i, load(sums + i) + load(other + i));
    for (; i < end; ++i) sums[i] += other[i];
  }
}

template <typename E>
Index temporal_tasks(const Block& b) {
  return temporal_grad_weight_tasks(temporal_gradient_of<E>(b));
}

template <typename E>
void temporal_gradient(const Block& b, void* out, Index begin, Index end) {
  temporal_grad_weight_finish(temporal_gradient_of<E>(b), static_cast<const Acc<E>*>(b.temporal_sums), b.parts,
                              static_cast<Acc<E>*>(out), begin, end);
}

template <typename E>
void residual_gradient(const Block& b, void* out) {
  const TemporalGradient<E> op = residual_gradient_of<E>(b);
  temporal_grad_weight_finish(op, static_cast<const Acc<E>*>(b.residual_sums), b.parts, static_cast<Acc<E>*>(out), 0,
                              temporal_grad_weight_tasks(op));
}

template <typename E>
void graph_gradients(const Block& b, const Operands& from, void* weight, void* adjacency, void* bias) {
  using T = Acc<E>;
  const GraphGradient<E> op = graph_gradient_of<E>(b, 0);
  graph_grad_weight(op, op.weight_sums, static_cast<T*>(weight), 0, b.partitions);
  if (adjacency != nullptr) {
    graph_grad_adjacency(op, op.adjacency_sums, static_cast<const T*>(from.bias), op.joint_sums,
                         static_cast<T*>(adjacency));
  }
  if (bias != nullptr) graph_grad_bias(op, op.joint_sums, static_cast<T*>(bias));
}

template <typename E>
constexpr Kernels::Typed kTyped{
    &has_fast_form<E>,
    &graph_values<E>,
    &temporal_values<E>,
    &residual_values<E>,
    &edge_bytes<E>,
    &list_edges<E>,
    &bias_map<E>,
    &pack_tasks<E>,
    &pack<E>,
    &graph<E>,
    &temporal<E>,
    &result<E>,
    &backward_sums<E>,
    &temporal_sums<E>,
    &graph_sums<E>,
    &residual_sums<E>,
    &backward_temporal<E>,
    &backward_graph<E>,
    &merge_graph<E>,
    &temporal_tasks<E>,
    &temporal_gradient<E>,
    &residual_gradient<E>,
    &graph_gradients<E>,
};

}  // namespace st_block_train

const ::stgcn_fast::st_block_train::Kernels& st_block_train_kernels() {
  using st_block_train::kTyped;
#if defined(__AVX512BF16__)
  static constexpr ::stgcn_fast::st_block_train::Kernels kKernels{&kTyped<float>, &kTyped<double>, &kTyped<BFloat16>};
#else
  static constexpr ::stgcn_fast::st_block_train::Kernels kKernels{&kTyped<float>, &kTyped<double>, nullptr};
#endif
  return kKernels;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
