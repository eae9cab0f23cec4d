#include "common/cuda/host.cuh"
#include "graph_conv/gradients.cuh"
#include "graph_conv/host.cuh"

namespace stgcn_fast {
namespace cuda {
namespace {

// The operands of a call, checked.
struct Operands {
  Operand x;
  std::optional<Operand> grad;
  const Tensor* weight = nullptr;
  const Tensor* adjacency = nullptr;
  bool group_inputs = false;
  int outputs = 0, targets = 0, partitions = 0, groups = 0;

  bool per_sample() const { return adjacency->size(0) != 1; }
  Index adjacencies() const { return adjacency->size(0); }
  int grouped_channels() const { return group_inputs ? x.channels : outputs; }
};

void check_adjacency(const Call& call, const char* argument, const Tensor& a, const Operands& o) {
  const bool fits = a.dim() == 5 && (a.size(0) == 1 || a.size(0) == o.x.samples) && a.size(1) == o.partitions &&
                    a.size(3) == o.x.joints && (o.targets == 0 || a.size(4) == o.targets) && a.size(2) >= 1 &&
                    a.size(4) >= 1;
  check(fits, call.op(), argument,
        "[N or 1, K, G, V, W] with N = " + std::to_string(o.x.samples) + ", K = " + std::to_string(o.partitions) +
            ", V = " + std::to_string(o.x.joints),
        shape_text(a));
  check(a.size(4) <= kMostJoints, call.op(), argument, "[N or 1, K, G, V, W] with W <= 128 on CUDA", shape_text(a));
  call.check_device(argument, a);
}

Operands read(const Call& call, const Tensor& x, const Tensor* grad, const Tensor& weight, const Tensor& adjacency,
              const std::optional<Tensor>& bias, bool group_inputs) {
  Operands o{read_operand(call, "x", x), std::nullopt};
  check(o.x.joints >= 1 && o.x.channels >= 1, call.op(), "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  if (grad != nullptr) {
    o.grad.emplace(read_operand(call, "grad", *grad));
    check_same_dtype(call.op(), "grad", *grad, x);
    check(
        o.grad->samples == o.x.samples && o.grad->frames == o.x.frames && o.grad->joints >= 1 && o.grad->channels >= 1,
        call.op(), "grad",
        "[N, O, T, W] with N = " + std::to_string(o.x.samples) + ", T = " + std::to_string(o.x.frames),
        shape_text(*grad));
    o.targets = o.grad->joints;
    o.outputs = o.grad->channels;
  }
  const bool fits = weight.dim() == 3 && weight.size(2) == o.x.channels && weight.numel() > 0 &&
                    (grad == nullptr || weight.size(1) == o.outputs);
  check(fits, call.op(), "weight", "[K, O, C] with C = " + std::to_string(o.x.channels), shape_text(weight));
  check_same_dtype(call.op(), "weight", weight, x);
  call.check_device("weight", weight);
  o.weight = &weight;
  o.partitions = static_cast<int>(weight.size(0));
  o.outputs = static_cast<int>(weight.size(1));
  check_adjacency(call, "adjacency", adjacency, o);
  check_same_dtype(call.op(), "adjacency", adjacency, x);
  o.adjacency = &adjacency;
  o.group_inputs = group_inputs;
  o.groups = static_cast<int>(adjacency.size(2));
  o.targets = static_cast<int>(adjacency.size(4));
  check(o.grouped_channels() % o.groups == 0, call.op(), "groups",
        "a divisor of " + std::to_string(o.grouped_channels()), o.groups);
  if (bias) {
    check(bias->dim() == 2 && bias->size(0) == o.partitions && bias->size(1) == o.outputs, call.op(), "bias",
          "[K, O] with K = " + std::to_string(o.partitions) + ", O = " + std::to_string(o.outputs), shape_text(*bias));
    check(!group_inputs || o.groups == 1, call.op(), "bias", "none when the groups split the inputs",
          shape_text(*bias));
    check_same_dtype(call.op(), "bias", *bias, x);
    call.check_device("bias", *bias);
  }
  return o;
}

FrameTiles cut(const Operands& o, bool apart, int tile_frames) {
  return cut_frames(o.per_sample(), apart, o.x.samples, o.x.frames, tile_frames);
}

template <typename E, bool kTensor>
void convolve(const Call& call, const Operands& o, const std::optional<Tensor>& bias, const Tensor& out) {
  const PackedWeights<E, kTensor> weights(call, o.x.tensor, view_weight(*o.weight, false));
  const Listed<E> listed(call, *o.adjacency, o.grouped_channels(), false);
  GraphForward<E> p{};
  p.x = o.x.rows<E>();
  p.adjacency = listed.adjacency;
  Epilogue<E> e{};
  e.out = static_cast<E*>(out.mutable_data_ptr());
  e.channels = o.outputs;
  e.whole = is_whole<E>(e.out, e.channels);
  const Values<E> values(bias);
  std::optional<Workspace<Acc<E>>> map;
  if (bias) {
    map.emplace(map_of_bias<E>(call, *o.adjacency, values, o.outputs, o.outputs));
    e.bias = map->get();
    e.bias_joint = o.outputs;
    e.bias_sample = o.per_sample() ? static_cast<Index>(o.targets) * o.outputs : 0;
  }
  const GraphPlan plan = plan_graph<E, kTensor>(call, o.per_sample(), o.x.samples, o.x.frames, o.x.joints, o.targets,
                                                o.x.channels, o.outputs, o.groups, o.group_inputs);
  launch_graph<E, kTensor>(call, plan, p, weights, e);
}

Tensor forward(const Call& call, const Operands& o, const std::optional<Tensor>& bias, const Tensor& like) {
  const Tensor out = new_output(o.x.tensor, o.x.samples, o.outputs, o.x.frames, o.targets);
  if (out.numel() > 0) {
    with_element(dtype_of(call.op(), "x", like), call, [&](auto element, auto tensor) {
      convolve<decltype(element), decltype(tensor)::value>(call, o, bias, out);
    });
  }
  return in_format_of(like, out);
}

// x [N, C, T, V], weight [K, O, C], adjacency [N | 1, K, G, V, W], bias [K, O] or none -> [N, O, T, W]
Tensor graph_conv(const Tensor& x, const Tensor& weight, const Tensor& adjacency, const std::optional<Tensor>& bias,
                  bool group_inputs, const std::optional<Tensor>&) {
  const Call call("graph_conv", x);
  return forward(call, read(call, x, nullptr, weight, adjacency, bias, group_inputs), bias, x);
}

template <typename E, bool kTensor>
void by_weight(const Call& call, const Operands& o, const Tensor& out) {
  using S = OuterShape<E, kTensor>;
  // Where the groups split the outputs, the output's gradient is summed over targets instead of x over sources.
  const bool turned = o.groups != 1 && !o.group_inputs;
  const Listed<E> listed(call, *o.adjacency, o.grouped_channels(), turned);
  GraphGradWeight<E> p{};
  p.summed = turned ? o.grad->rows<E>() : o.x.rows<E>();
  p.direct = turned ? o.x.rows<E>() : o.grad->rows<E>();
  p.cut = cut(o, false, frames_in(S::kRows, o.x.joints > o.targets ? o.x.joints : o.targets));
  p.adjacency = listed.adjacency;
  const Index lefts = p.direct.channels, rights = p.summed.channels;
  const int squares =
      outer_squares<S>(static_cast<int>(ceil_div(o.partitions, S::kCount)), p.direct.channels, p.summed.channels);
  p.slots = slots_for(p.cut.samples * p.cut.tiles, squares, out.numel());
  const Workspace<Acc<E>> partial(o.x.tensor, p.slots * out.numel());
  p.partial = partial.get();
  call.run(graph_grad_weight<E, kTensor>, static_cast<Index>(squares) * p.slots, S::kThreads,
           graph_grad_weight_bytes<E, kTensor>(p.cut.tile_frames, p.adjacency.sources, p.adjacency.targets), p);
  call.run_small(add_slots<E>, out.numel(), static_cast<E*>(out.mutable_data_ptr()),
                 static_cast<const Acc<E>*>(partial.get()), p.slots, static_cast<Index>(o.partitions), lefts, rights,
                 lefts * rights, turned ? Index(1) : rights, turned ? lefts : Index(1));
}

// Sums over frames of the output's gradient: [N or 1][W][O].
template <typename E>
Workspace<Acc<E>> sum_joints(const Call& call, const Operands& o) {
  const Index samples = o.adjacencies(), frames = o.x.samples * o.x.frames / samples;
  const Index width = static_cast<Index>(o.targets) * o.outputs;
  const int slots = slots_for(frames, ceil_div(samples * width, kSmallThreads), samples * width);
  const Workspace<Acc<E>> partial(o.x.tensor, samples * slots * width);
  call.run_small(sum_frames<E>, samples * slots * width, o.grad->rows<E>(), samples, frames, o.targets, slots,
                 partial.get());
  Workspace<Acc<E>> joints(o.x.tensor, samples * width);
  call.run_small(add_sample_slots<Acc<E>>, samples * width, joints.get(), static_cast<const Acc<E>*>(partial.get()),
                 samples, slots, width);
  return joints;
}

template <typename E, bool kTensor>
void by_adjacency(const Call& call, const Operands& o, const std::optional<Tensor>& support, const Acc<E>* joints,
                  const Acc<E>* bias, const Tensor& out) {
  using S = Shape<E, kTensor>;
  const bool grouped = o.groups != 1, turned = grouped && o.group_inputs;
  const PackedWeights<E, kTensor> weights(call, o.x.tensor, view_weight(*o.weight, turned));
  GraphGradAdjacency<E> p{};
  p.multiplied = turned ? o.grad->rows<E>() : o.x.rows<E>();
  p.direct = turned ? o.x.rows<E>() : o.grad->rows<E>();
  p.firsts = turned ? o.targets : o.x.joints;
  p.seconds = turned ? o.x.joints : o.targets;
  p.cut =
      cut(o, o.per_sample(), grouped ? frames_in(S::kRows, p.firsts > p.seconds ? p.firsts : p.seconds) : kPairFrames);
  p.partitions = o.partitions;
  p.weights = weights.memory.get();
  p.padded_outputs = weights.targets;
  p.padded_inputs = weights.sources;
  const Index pairs = static_cast<Index>(o.partitions) * p.firsts * p.seconds;
  const Index squares = grouped ? static_cast<Index>(o.partitions) * (weights.targets / S::kColumns)
                                : o.partitions * ceil_div(p.firsts, kPairJoints) * ceil_div(p.seconds, kPairJoints);
  const Index values = p.cut.samples * pairs * (grouped ? p.direct.channels : 1);
  const Index slots = slots_for(p.cut.tiles, p.cut.samples * squares, values);
  p.slots = static_cast<int>(slots);
  const Workspace<Acc<E>> partial(o.x.tensor, slots * values);
  p.partial = partial.get();
  call.run(grouped ? graph_grad_adjacency_grouped<E, kTensor> : graph_grad_adjacency<E, kTensor>,
           p.cut.samples * squares * slots, S::kThreads, graph_grad_adjacency_bytes<E, kTensor>(grouped), p);
  FinishAdjacency<E> f{};
  f.partial = partial.get();
  f.samples = o.adjacencies();
  f.slots = p.slots;
  f.partitions = o.partitions;
  f.groups = o.groups;
  f.sources = o.x.joints;
  f.targets = o.targets;
  f.channels = o.grouped_channels();
  f.grouped = grouped;
  f.turned = turned;
  // One group's bias is of the outputs, whichever channels a group would split.
  if (joints != nullptr) f.channels = o.outputs;
  f.joints = joints;
  f.bias = bias;
  if (support) f.support = view_adjacency<E>(*support, f.channels, false);
  f.out = static_cast<E*>(out.mutable_data_ptr());
  call.run_small(finish_adjacency<E>, out.numel(), f);
}

}  // namespace

// x [N, C, T, V], grad [N, O, T, W], weight [K, O, C], adjacency [N | 1, K, G, V, W], bias [K, O] or none
//   -> gradients by x, weight, adjacency and bias, those that are wanted; [0] for the others
GraphGradients graph_conv_backward(const Tensor& x, const Tensor& grad, const Tensor& weight, const Tensor& adjacency,
                                   const std::optional<Tensor>& bias, bool group_inputs,
                                   const std::optional<Tensor>& support, bool want_x, bool want_weight,
                                   bool want_adjacency, bool want_bias) {
  const Call call("graph_conv_backward", x);
  const Operands o = read(call, x, &grad, weight, adjacency, bias, group_inputs);
  check(!want_bias || bias, call.op(), "by_bias", "false without a bias", "true");
  if (support) {
    check_adjacency(call, "support", *support, o);
    check(support->size(0) == adjacency.size(0) && support->size(2) == o.groups, call.op(), "support",
          "of the adjacency's shape", shape_text(*support));
    check_same_dtype(call.op(), "support", *support, x);
  }
  const auto tensor_of = [&](bool wanted, const std::vector<Index>& sizes) {
    return new_tensor(x, wanted ? sizes : std::vector<Index>{0});
  };
  Tensor to_x = tensor_of(false, {});
  Tensor to_weight = tensor_of(want_weight, {o.partitions, o.outputs, o.x.channels});
  Tensor to_adjacency = tensor_of(want_adjacency, {o.adjacencies(), o.partitions, o.groups, o.x.joints, o.targets});
  Tensor to_bias = tensor_of(want_bias, {o.partitions, o.outputs});
  if (want_x) {
    // The same convolution, backwards along every edge.
    const Tensor turned_weight = torch::stable::transpose(weight, 1, 2);
    const Tensor turned = torch::stable::transpose(adjacency, 3, 4);
    to_x = forward(call, read(call, grad, nullptr, turned_weight, turned, std::nullopt, !group_inputs), std::nullopt,
                   grad);
  }
  if (o.x.samples * o.x.frames == 0) {
    for (Tensor* tensor : {&to_weight, &to_adjacency, &to_bias}) torch::stable::zero_(*tensor);
    return {to_x, to_weight, to_adjacency, to_bias};
  }
  with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
    using E = decltype(element);
    constexpr bool kTensor = decltype(tensor)::value;
    const Values<E> values(bias);
    std::optional<Workspace<Acc<E>>> joints;
    if (want_bias || (want_adjacency && bias)) joints.emplace(sum_joints<E>(call, o));
    const Acc<E>* sums = joints ? joints->get() : nullptr;
    if (want_weight) by_weight<E, kTensor>(call, o, to_weight);
    if (want_adjacency) by_adjacency<E, kTensor>(call, o, support, bias ? sums : nullptr, values.data, to_adjacency);
    if (want_bias) {
      const Workspace<Acc<E>> inflow = inflow_of<E>(call, adjacency, o.outputs);
      call.run_small(grad_bias<E>, to_bias.numel(), static_cast<E*>(to_bias.mutable_data_ptr()), sums,
                     static_cast<const Acc<E>*>(inflow.get()), o.adjacencies(), o.partitions, o.groups, o.targets,
                     o.outputs);
    }
  });
  return {to_x, to_weight, to_adjacency, to_bias};
}

#define STGCN_FAST_GRAPH(E, kTensor)                                                     \
  template void launch_graph<E, kTensor>(const Call&, const GraphPlan&, GraphForward<E>, \
                                         const PackedWeights<E, kTensor>&, const Epilogue<E>&);
STGCN_FAST_ELEMENTS(STGCN_FAST_GRAPH)
#undef STGCN_FAST_GRAPH

STGCN_FAST_CUDA_LIBRARY(m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}

}  // namespace cuda
}  // namespace stgcn_fast
