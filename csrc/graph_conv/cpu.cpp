#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "graph_conv/graph_conv.h"

namespace stgcn_fast {
namespace {

using graph_conv::Kernels;
using graph_conv::Prepared;
using graph_conv::Problem;
using graph_conv::Steps;
using Index = std::int64_t;

using Member = Steps Kernels::*;

// Fewest frames worth a piece of a sample.
constexpr Index kLeastFrames = 8;

Index aligned(Index bytes) { return (bytes + 63) / 64 * 64; }

// Multiply-adds of the product, which outweighs the rest.
double work_of(const Problem& p) {
  return static_cast<double>(p.batch * p.frames) * static_cast<double>(p.partitions * p.targets) *
         static_cast<double>(p.inputs * (p.outputs + p.sources));
}

// The kernels for a dtype, and what they need: bfloat16 and float16 are computed in float32 where they have none.
const Steps& choose(Member member, Dtype dtype, const Problem& p, Prepared& made) {
  const auto& table = STGCN_FAST_SELECT_KERNELS(graph_conv_kernels);
  const Steps& native = table.bfloat16.*member;
  if (dtype == Dtype::kBFloat16 && native.run != nullptr) {
    native.size(p, made);
    if (made.sparse) return native;
  }
  const Steps& steps = dtype == Dtype::kFloat64 ? table.float64.*member : table.float32.*member;
  steps.size(p, made);
  return steps;
}

// `weight`, where its memory outlives the call, lets its panels be kept. `finished` is where a gradient goes; null for
// the forward pass, whose tasks are the pieces. Returns the partial sums.
const void* run(Member member, Dtype dtype, const Problem& p, const Tensor* weight, void* finished) {
  Prepared made{};
  const Steps& steps = choose(member, dtype, p, made);
  std::shared_ptr<const void> kept;
  if (weight != nullptr) {
    Index span = 1;
    for (int d = 0; d < 3; ++d) span += (weight->size(d) - 1) * weight->stride(d);
    const std::size_t bytes = static_cast<std::size_t>(span * element_bytes(dtype));
    kept = packed_weights("graph_conv",
                          {static_cast<Index>(dtype), made.weights_bytes, p.partitions, p.outputs, p.inputs,
                           p.weight_partition, p.weight_output, p.weight_input},
                          {{weight->const_data_ptr(), bytes}}, static_cast<std::size_t>(made.weights_bytes),
                          [&](void* to) { steps.pack(p, to); });
  }
  const Index own = weight == nullptr ? aligned(made.weights_bytes) : 0;
  char* shared = static_cast<char*>(
      scratch_bytes(Slot::kSharedWeight, static_cast<std::size_t>(own + aligned(made.edges_bytes) + made.bias_bytes)));
  if (own != 0) steps.pack(p, shared);
  made.weights = kept != nullptr ? kept.get() : shared;
  made.edges = shared + own;
  made.bias_map = shared + own + aligned(made.edges_bytes);
  // A sample in one piece has one slot, and that is its result.
  const bool in_place = finished != nullptr && p.in_place;
  made.partials =
      in_place ? finished : scratch_bytes(Slot::kSharedPartial, static_cast<std::size_t>(made.partial_bytes));
  if (steps.prepare != nullptr) steps.prepare(p, made);
  const Index tasks = finished == nullptr ? p.batch * p.pieces : p.slots;
  parallel_tasks(tasks, work_of(p), [&](Index begin, Index end) { steps.run(p, made, begin, end); });
  if (finished == nullptr || in_place) return made.partials;
  constexpr double kAdding = 8;
  parallel_tasks(p.partitions, kAdding * static_cast<double>(made.partial_bytes),
                 [&](Index begin, Index end) { steps.finish(p, made, finished, begin, end); });
  return made.partials;
}

// Keeps what a problem points to alive.
struct Operands {
  Dtype dtype;
  ScalarType type;  // computing
  std::optional<Activation> x, grad;
  std::optional<Tensor> adjacency, weight, bias, support;
};

void read_x(const char* op, const Tensor& x, Problem& p, Operands& held) {
  held.x = read_activation(op, "x", x);
  held.dtype = held.x->matrix.dtype;
  held.type = compute_type(held.dtype);
  check(held.x->joints >= 1 && held.x->channels >= 1, op, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  p.batch = held.x->batch;
  p.frames = held.x->frames;
  p.sources = held.x->joints;
  p.inputs = held.x->channels;
  p.x = held.x->matrix;
  p.x_batch = held.x->batch_stride;
}

void read_grad(const char* op, const Tensor& grad, const Tensor& x, Problem& p, Operands& held) {
  held.grad = read_activation(op, "grad", grad);
  check_same_dtype(op, "grad", grad, x);
  const bool fits = held.grad->batch == p.batch && held.grad->frames == p.frames && held.grad->joints >= 1 &&
                    held.grad->channels >= 1;
  check(fits, op, "grad", "[N, O, T, W] with N = " + std::to_string(p.batch) + ", T = " + std::to_string(p.frames),
        shape_text(grad));
  p.targets = held.grad->joints;
  p.outputs = held.grad->channels;
  p.grad = held.grad->matrix;
  p.grad_batch = held.grad->batch_stride;
}

// Needs p.inputs and, unless `outputs_from_weight`, p.outputs.
void read_weight(const char* op, const Tensor& weight, const Tensor& x, bool outputs_from_weight, Problem& p,
                 Operands& held) {
  const bool fits = weight.dim() == 3 && weight.size(2) == p.inputs && weight.numel() > 0 &&
                    (outputs_from_weight || weight.size(1) == p.outputs);
  check(fits, op, "weight", "[K, O, C] with C = " + std::to_string(p.inputs), shape_text(weight));
  check_same_dtype(op, "weight", weight, x);
  held.weight = weight.scalar_type() == held.type ? weight : torch::stable::to(weight, held.type);
  p.partitions = weight.size(0);
  p.outputs = weight.size(1);
  p.weight = held.weight->const_data_ptr();
  p.weight_partition = held.weight->stride(0);
  p.weight_output = held.weight->stride(1);
  p.weight_input = held.weight->stride(2);
}

void check_adjacency(const char* op, const char* argument, const Tensor& a, Index partitions, const Problem& p) {
  const bool fits = a.dim() == 5 && (a.size(0) == 1 || a.size(0) == p.batch) && a.size(1) == partitions &&
                    a.size(3) == p.sources && (p.targets == 0 || a.size(4) == p.targets) && a.size(2) >= 1 &&
                    a.size(4) >= 1;
  check(fits, op, argument,
        "[N or 1, K, G, V, W] with N = " + std::to_string(p.batch) + ", K = " + std::to_string(partitions) +
            ", V = " + std::to_string(p.sources),
        shape_text(a));
}

void check_groups(const char* op, Index groups, const Problem& p) {
  const Index channels = p.group_inputs ? p.inputs : p.outputs;
  check(groups >= 1 && channels % groups == 0, op, "groups", "a divisor of " + std::to_string(channels), groups);
}

void read_adjacency(const char* op, const Tensor& adjacency, const Tensor& x, bool group_inputs, Problem& p,
                    Operands& held) {
  check_adjacency(op, "adjacency", adjacency, p.partitions, p);
  check_same_dtype(op, "adjacency", adjacency, x);
  const Tensor turned = torch::stable::transpose(adjacency, 3, 4);
  p.turned = adjacency.size(2) != 1 && !adjacency.is_contiguous() && turned.is_contiguous();
  held.adjacency = as_operand(p.turned ? turned : adjacency, held.type);
  p.groups = adjacency.size(2);
  p.targets = adjacency.size(4);
  p.per_sample = adjacency.size(0) != 1;
  p.group_inputs = group_inputs;
  check_groups(op, p.groups, p);
  p.adjacency = held.adjacency->const_data_ptr();
}

void read_bias(const char* op, const Tensor& bias, const Tensor& x, Problem& p, Operands& held) {
  check(bias.dim() == 2 && bias.size(0) == p.partitions && bias.size(1) == p.outputs, op, "bias",
        "[K, O] with K = " + std::to_string(p.partitions) + ", O = " + std::to_string(p.outputs), shape_text(bias));
  check(!p.group_inputs || p.groups == 1, op, "bias", "none when the groups split the inputs", shape_text(bias));
  check_same_dtype(op, "bias", bias, x);
  held.bias = as_operand(bias, held.type);
  p.bias = held.bias->const_data_ptr();
}

void read_support(const char* op, const Tensor& support, Problem& p, Operands& held) {
  check_adjacency(op, "support", support, p.partitions, p);
  check(support.size(0) == (p.per_sample ? p.batch : 1) && support.size(2) == p.groups, op, "support",
        "of the adjacency's shape", shape_text(support));
  held.support = as_operand(support, held.type);
  p.support = held.support->const_data_ptr();
}

Tensor new_operand(const Tensor& like, ScalarType type, const std::vector<Index>& sizes) {
  return torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, like.device());
}

Tensor rounded(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// A gradient by what samples share is summed in slots, each an even run of pieces. Shapes alone decide how many, so it
// does not depend on the number of threads: enough for many of them, few enough that adding up costs little.
void choose_slots(Problem& p) {
  constexpr Index kMostSlots = 32, kSlotFrames = 60, kFewSlots = 4, kLeastSlotFrames = 24, kSlotValues = 4 << 20;
  const Index frames = p.batch * p.frames, values = p.partitions * p.outputs * p.inputs;
  const auto fits = [&](Index slots, Index least) { return slots * least <= frames && slots * values <= kSlotValues; };
  p.slots = 1;
  while (2 * p.slots <= kMostSlots &&
         (fits(2 * p.slots, kSlotFrames) || (2 * p.slots <= kFewSlots && fits(2 * p.slots, kLeastSlotFrames)))) {
    p.slots *= 2;
  }
  p.pieces = std::max<Index>(1, std::min(p.slots / std::gcd(p.slots, p.batch), p.frames));
}

// x [N, C, T, V], weight [K, O, C], adjacency [N | 1, K, G, V, W], bias [K, O] or none -> [N, O, T, W]
Tensor graph_conv_forward(const Tensor& x, const Tensor& weight, const Tensor& adjacency,
                          const std::optional<Tensor>& bias, bool group_inputs, const std::optional<Tensor>&) {
  constexpr const char* kOp = "graph_conv";
  Problem p{};
  Operands held{};
  read_x(kOp, x, p, held);
  read_weight(kOp, weight, x, true, p, held);
  read_adjacency(kOp, adjacency, x, group_inputs, p, held);
  if (bias) {
    read_bias(kOp, *bias, x, p, held);
    if (p.turned) {
      p.turned = false;
      held.adjacency = as_operand(adjacency, held.type);
      p.adjacency = held.adjacency->const_data_ptr();
    }
  }
  const Result out = new_result(x, held.dtype, prefers_channels_last(x), p.batch, p.outputs, p.frames, p.targets);
  if (p.batch == 0 || p.frames == 0) return out.tensor;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  p.pieces = pieces_per_sample(p.batch, p.frames, p.frames, kLeastFrames);
  const bool kept = held.weight->const_data_ptr() == weight.const_data_ptr();
  run(&Kernels::forward, held.dtype, p, kept ? &weight : nullptr, nullptr);
  return out.tensor;
}

// The gradient by the adjacency and, where p.out has memory, that by x.
void run_grad_adjacency(Problem& p, Dtype dtype, void* out) {
  choose_slots(p);
  if (p.per_sample) p.slots = p.batch * p.pieces;
  p.in_place = p.per_sample && p.pieces == 1 && p.support == nullptr;
  run(&Kernels::grad_adjacency, dtype, p, nullptr, out);
  p.in_place = false;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// x [N, C, T, V], grad [N, O, T, W], weight [K, O, C], adjacency [N | 1, K, G, V, W], bias [K, O] or none
//   -> gradients by x, weight, adjacency and bias, those that are wanted; [0] for the others
Gradients graph_conv_backward(const Tensor& x, const Tensor& grad, const Tensor& weight, const Tensor& adjacency,
                              const std::optional<Tensor>& bias, bool group_inputs,
                              const std::optional<Tensor>& support, bool by_x, bool by_weight, bool by_adjacency,
                              bool by_bias) {
  constexpr const char* kOp = "graph_conv_backward";
  Problem p{};
  Operands held{};
  read_x(kOp, x, p, held);
  read_grad(kOp, grad, x, p, held);
  read_weight(kOp, weight, x, false, p, held);
  read_adjacency(kOp, adjacency, x, group_inputs, p, held);
  if (bias) read_bias(kOp, *bias, x, p, held);
  check(!by_bias || bias, kOp, "by_bias", "false without a bias", "true");
  if (support) read_support(kOp, *support, p, held);

  const auto operand = [&](bool wanted, const std::vector<Index>& sizes) {
    return new_operand(x, wanted ? held.type : x.scalar_type(), wanted ? sizes : std::vector<Index>{0});
  };
  Tensor to_weight = operand(by_weight, {p.partitions, p.outputs, p.inputs});
  Tensor to_adjacency =
      operand(by_adjacency, {p.per_sample ? p.batch : 1, p.partitions, p.groups, p.sources, p.targets});
  Tensor to_bias = operand(by_bias, {p.partitions, p.outputs});
  Tensor to_x = operand(false, {});
  const auto result = [&] {
    return Gradients{to_x, rounded(to_weight, x.scalar_type()), rounded(to_adjacency, x.scalar_type()),
                     rounded(to_bias, x.scalar_type())};
  };
  // Only what shares its pass with another gradient writes the one by x there; else it is a convolution of its own.
  const auto write_x = [&] {
    const Result out =
        new_result(grad, held.dtype, prefers_channels_last(grad), p.batch, p.inputs, p.frames, p.sources);
    to_x = out.tensor;
    p.out = out.matrix;
    p.out_batch = out.batch_stride;
  };
  const auto convolve_x = [&] {
    to_x = graph_conv_forward(grad, torch::stable::transpose(weight, 1, 2), torch::stable::transpose(adjacency, 3, 4),
                              std::nullopt, !group_inputs, std::nullopt);
  };
  if (p.batch == 0 || p.frames == 0) {
    if (by_x) write_x();
    for (Tensor* tensor : {&to_weight, &to_adjacency, &to_bias}) torch::stable::zero_(*tensor);
    return result();
  }
  choose_slots(p);
  p.by_weight = by_weight ? to_weight.mutable_data_ptr() : nullptr;
  p.by_adjacency = by_adjacency ? to_adjacency.mutable_data_ptr() : nullptr;
  // Where channels have adjacencies of their own, the bias' part of their gradient comes with the product.
  const bool brings = by_adjacency && bias && (p.groups == 1 || group_inputs);
  const bool needs_joints = by_bias || brings;
  const void* joints = nullptr;
  Prepared form{};
  choose(&Kernels::backward, held.dtype, p, form);
  if (form.sparse && (by_weight || by_adjacency)) {
    if (by_x) write_x();
    joints = run(&Kernels::backward, held.dtype, p, nullptr, &p);
  } else {
    const graph_conv::Order dense{p.partitions * p.sources * p.targets, p.partitions * p.targets,
                                  p.partitions * p.sources};
    const bool shares =
        by_x && by_weight && (p.groups == 1 ? !by_adjacency && dense.shares(p.inputs, p.outputs) : !group_inputs);
    if (shares) write_x();
    if (by_weight) run(&Kernels::grad_weight, held.dtype, p, nullptr, p.by_weight);
    p.out.data = nullptr;
    if (by_x && by_adjacency && p.groups == 1) write_x();
    if (by_adjacency) run_grad_adjacency(p, held.dtype, p.by_adjacency);
    if (by_x && p.out.data == nullptr && !shares) convolve_x();
    if (needs_joints) {
      choose_slots(p);
      if (p.per_sample) p.slots = p.batch * p.pieces;
      joints = run(&Kernels::joints, held.dtype, p, nullptr, &p);
    }
  }
  if (needs_joints) {
    const auto& table = STGCN_FAST_SELECT_KERNELS(graph_conv_kernels);
    const Kernels& kernels = held.dtype == Dtype::kFloat64 ? table.float64 : table.float32;
    kernels.by_bias(p, joints, brings ? p.by_adjacency : nullptr, by_bias ? to_bias.mutable_data_ptr() : nullptr);
  }
  return result();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv_forward));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}

}  // namespace stgcn_fast
