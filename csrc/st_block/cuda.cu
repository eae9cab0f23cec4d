#include "common/cuda/host.cuh"
#include "graph_conv/host.cuh"
#include "st_block/host.h"
#include "st_block/rest.cuh"
#include "temporal_conv/host.cuh"

namespace stgcn_fast {
namespace cuda {
namespace {

constexpr const char* kOp = "st_block";

using st_block::Problem;
using st_block::Residual;
using st_block::Tensors;

template <typename E>
Epilogue<E> epilogue_of(const Tensor& out) {
  Epilogue<E> e{};
  e.out = static_cast<E*>(out.mutable_data_ptr());
  e.channels = static_cast<int>(out.size(1));
  e.whole = is_whole<E>(e.out, e.channels);
  return e;
}

Operand whole_operand(const Tensor& x) {
  return {x, x.size(0), x.size(2), static_cast<int>(x.size(1)), static_cast<int>(x.size(3))};
}

// h = relu(scale1 * graph_conv(x) + shift1)
template <typename E, bool kTensor>
void graph_part(const Call& call, const Problem& p, const Operand& x, const Tensors& t, const Tensor& h) {
  const ScalarType type = x.tensor.scalar_type();
  const Tensor weight = as_operand(t.graph_weight, type), adjacency = as_operand(t.adjacency, type);
  const int outputs = static_cast<int>(p.outputs);
  const PackedWeights<E, kTensor> weights(call, x.tensor, view_weight(weight, false));
  const Listed<E> listed(call, adjacency, outputs, false);
  const Values<E> bias(t.graph_bias), scale(t.scale1), shift(t.shift1);
  std::optional<Workspace<Acc<E>>> map;
  GraphForward<E> g{};
  g.x = x.rows<E>();
  g.adjacency = listed.adjacency;
  Epilogue<E> e = epilogue_of<E>(h);
  if (bias.data != nullptr) {
    map.emplace(map_of_bias<E>(call, adjacency, bias, outputs, outputs));
    e.bias = map->get();
    e.bias_joint = outputs;
  }
  e.scale = scale.data;
  e.shift = shift.data;
  e.relu = true;
  const GraphPlan plan = plan_graph<E, kTensor>(call, false, x.samples, x.frames, x.joints, static_cast<int>(p.targets),
                                                x.channels, outputs, 1, false);
  launch_graph<E, kTensor>(call, plan, g, weights, e);
}

// out = epilogue(convolution of x with weight [O, C, Γ, 1] or [O, C])
template <typename E, bool kTensor>
void temporal_part(const Call& call, const Operand& x, const Tensor& weight, Index kernel_size, Index stride,
                   Index out_frames, const Epilogue<E>& e) {
  const Tensor same = as_operand(weight, x.tensor.scalar_type());
  const int taps = static_cast<int>(kernel_size);
  const WeightView view{same.const_data_ptr(), taps, e.channels, x.channels, 1, x.channels * kernel_size, kernel_size};
  const PackedWeights<E, kTensor> weights(call, x.tensor, view);
  TemporalForward<E> f{};
  f.x = x.rows<E>();
  f.geometry = {x.samples, x.frames, out_frames, x.joints, taps, stride, kernel_size / 2, 1, false};
  launch_temporal<E, kTensor>(call, plan_temporal<E, kTensor>(call, f.geometry, e.channels), f, weights, e);
}

// Two passes over memory; one more for a residual that is a convolution.
template <typename E, bool kTensor>
void run(const Call& call, const Problem& p, const Operand& x, const Tensors& t, const Tensor& out) {
  const Tensor h = new_output(x.tensor, p.batch, p.outputs, p.frames, p.targets);
  graph_part<E, kTensor>(call, p, x, t, h);
  const Values<E> bias(t.temporal_bias), scale(t.scale2), shift(t.shift2), residual_shift(t.residual_shift);
  Epilogue<E> e = epilogue_of<E>(out);
  e.bias = bias.data;
  e.scale = scale.data;
  e.shift = shift.data;
  e.relu = true;
  std::optional<Tensor> added;
  if (p.residual == Residual::kIdentity) added.emplace(x.tensor);
  if (p.residual == Residual::kConvolution) {
    added.emplace(new_output(x.tensor, p.batch, p.outputs, p.out_frames, p.targets));
    Epilogue<E> r = epilogue_of<E>(*added);
    r.bias = residual_shift.data;
    temporal_part<E, kTensor>(call, x, *t.residual_weight, 1, p.stride, p.out_frames, r);
  }
  if (added) {
    e.residual = static_cast<const E*>(added->const_data_ptr());
    e.whole = e.whole && is_whole<E>(e.residual, e.channels);
  }
  temporal_part<E, kTensor>(call, whole_operand(h), t.temporal_weight, p.kernel_size, p.stride, p.out_frames, e);
}

void take_rest(const Call& call, const Problem& p, const Tensor& x, const Tensor& frames, const Tensor& rest,
               const Tensor& out) {
  check(frames.scalar_type() == ScalarType::Long && frames.dim() == 1 && frames.size(0) == p.batch, kOp, "frames",
        "int64 [N] with N = " + std::to_string(p.batch), shape_text(frames));
  check_same_dtype(kOp, "rest", rest, x);
  const bool fits = rest.dim() == 4 && rest.size(0) == 1 && rest.size(1) == p.outputs && rest.size(2) == p.out_frames &&
                    rest.size(3) == p.targets;
  check(fits, kOp, "rest", st_block::sizes_text("[1, O, T_out, W]", {1, p.outputs, p.out_frames, p.targets}),
        shape_text(rest));
  call.check_device("frames", frames);
  call.check_device("rest", rest);
  if (out.numel() == 0) return;
  const Tensor counts = torch::stable::contiguous(frames);
  const Tensor known = torch::stable::contiguous(rest, MemoryFormat::ChannelsLast);
  const Rest r{static_cast<const Index*>(counts.const_data_ptr()),
               p.batch,
               p.frames,
               p.out_frames,
               p.targets * p.outputs,
               p.kernel_size,
               p.stride,
               p.group};
  with_element(dtype_of(kOp, "x", x), call, [&](auto element, auto) {
    using E = decltype(element);
    call.run_small(copy_rest<E>, out.numel(), r, static_cast<const E*>(known.const_data_ptr()),
                   static_cast<E*>(out.mutable_data_ptr()));
  });
}

// As on the CPU, see cpu.cpp; `fast` has no effect.
Tensor st_block_forward(const Tensor& x, const Tensor& graph_weight, const std::optional<Tensor>& graph_bias,
                        const Tensor& adjacency, const std::optional<Tensor>& scale1,
                        const std::optional<Tensor>& shift1, const Tensor& temporal_weight,
                        const std::optional<Tensor>& temporal_bias, const std::optional<Tensor>& scale2,
                        const std::optional<Tensor>& shift2, const std::optional<Tensor>& residual_weight,
                        const std::optional<Tensor>& residual_shift, bool residual, Index stride, bool,
                        const std::optional<Tensor>& frames, const std::optional<Tensor>& rest) {
  const Call call(kOp, x);
  const Operand in = read_operand(call, "x", x);
  const Tensors tensors{graph_weight,  graph_bias, adjacency, scale1,          shift1,        temporal_weight,
                        temporal_bias, scale2,     shift2,    residual_weight, residual_shift};
  Problem p{};
  p.batch = in.samples;
  p.frames = in.frames;
  p.sources = in.joints;
  p.inputs = in.channels;
  check(p.sources >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  st_block::Reader(kOp, x).read_block(p, tensors, residual, stride);
  check(p.targets <= kMostJoints, kOp, "adjacency", "[1, K, 1, V, W] with W <= 128 on CUDA", shape_text(adjacency));
  call.check_device("graph_weight", graph_weight);
  call.check_device("adjacency", adjacency);
  call.check_device("temporal_weight", temporal_weight);
  const std::initializer_list<std::pair<const char*, const std::optional<Tensor>&>> others{
      {"graph_bias", graph_bias},
      {"scale1", scale1},
      {"shift1", shift1},
      {"temporal_bias", temporal_bias},
      {"scale2", scale2},
      {"shift2", shift2},
      {"residual_weight", residual_weight},
      {"residual_shift", residual_shift}};
  for (const auto& [name, tensor] : others) {
    if (tensor) call.check_device(name, *tensor);
  }
  check(frames.has_value() == rest.has_value(), kOp, frames ? "rest" : "frames",
        "given where the other of frames and rest is", "None");
  const Tensor out = new_output(in.tensor, p.batch, p.outputs, p.out_frames, p.targets);
  if (out.numel() > 0) {
    with_element(dtype_of(kOp, "x", x), call, [&](auto element, auto tensor) {
      run<decltype(element), decltype(tensor)::value>(call, p, in, tensors, out);
    });
  }
  if (frames) take_rest(call, p, x, *frames, *rest, out);
  return in_format_of(x, out);
}

}  // namespace

STGCN_FAST_CUDA_LIBRARY(m) { m.impl("st_block", TORCH_BOX(&st_block_forward)); }

}  // namespace cuda
}  // namespace stgcn_fast
