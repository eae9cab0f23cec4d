#include "common/cuda/host.cuh"
#include "temporal_conv/host.cuh"

namespace stgcn_fast {
namespace cuda {
namespace {

// Largest stride, padding, dilation and kernel: sums and products of two stay within 64 bits.
constexpr Index kLargest = (Index{1} << 31) - 1;

Index floor_div(Index a, Index b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Index output_frames(Index frames, Index kernel_size, Index stride, Index padding, Index dilation) {
  if (frames == 0) return 0;
  return floor_div(frames + 2 * padding - dilation * (kernel_size - 1) - 1, stride) + 1;
}

void check_geometry(const char* op, Index stride, Index padding, Index dilation) {
  const auto within = [&](const char* argument, Index value, Index least) {
    check(value >= least, op, argument, "at least " + std::to_string(least), value);
    check(value <= kLargest, op, argument, "at most " + std::to_string(kLargest), value);
  };
  within("stride", stride, 1);
  within("padding", padding, 0);
  within("dilation", dilation, 1);
}

void check_weight(const Call& call, const Tensor& weight, Index channels, int dim, const Tensor& x, const char* first) {
  const bool fits = weight.dim() == 4 && weight.size(3) == 1 && weight.size(2) >= 1 && weight.size(2) <= kLargest &&
                    weight.size(dim) == channels;
  check(fits, call.op(), "weight",
        std::string("[O, C, Γ, 1] with ") + (dim == 1 ? "C" : "O") + " = " + std::to_string(channels),
        shape_text(weight));
  check_same_dtype(call.op(), "weight", weight, x, first);
  call.check_device("weight", weight);
}

// y = convolution of x with the weight's taps, of which `view` says where targets and sources lie.
Tensor convolve(const Call& call, const Operand& x, const WeightView& view, const TemporalGeometry& geometry,
                const std::optional<Tensor>& bias) {
  const TemporalGeometry& g = geometry;
  const Tensor out = new_output(x.tensor, g.samples, view.targets, g.target_frames, g.joints);
  if (out.numel() == 0) return out;
  with_element(dtype_of(call.op(), "x", x.tensor), call, [&](auto element, auto tensor) {
    using E = decltype(element);
    constexpr bool kTensor = decltype(tensor)::value;
    const PackedWeights<E, kTensor> weights(call, x.tensor, view);
    const Values<E> added(bias);
    TemporalForward<E> p{};
    p.x = x.rows<E>();
    p.geometry = g;
    Epilogue<E> e{};
    e.out = static_cast<E*>(out.mutable_data_ptr());
    e.channels = view.targets;
    e.whole = is_whole<E>(e.out, e.channels);
    e.bias = added.data;
    launch_temporal<E, kTensor>(call, plan_temporal<E, kTensor>(call, g, view.targets), p, weights, e);
  });
  return out;
}

// x [N, C, T, V], weight [O, C, Γ, 1], bias [O] or none -> [N, O, T_out, V]
Tensor temporal_conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, Index stride,
                     Index padding, Index dilation, bool) {
  const Call call("temporal_conv", x);
  check_geometry(call.op(), stride, padding, dilation);
  const Operand in = read_operand(call, "x", x);
  check_weight(call, weight, in.channels, 1, x, "x");
  const Index kernel_size = weight.size(2), extent = dilation * (kernel_size - 1) + 1;
  check(in.frames == 0 || in.frames + 2 * padding >= extent, call.op(), "x",
        "at least " + std::to_string(extent - 2 * padding) + " frames long for this kernel, padding and dilation",
        in.frames);
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == weight.size(0), call.op(), "bias",
          "[O] with O = " + std::to_string(weight.size(0)), shape_text(*bias));
    check_same_dtype(call.op(), "bias", *bias, x);
    call.check_device("bias", *bias);
  }
  const TemporalGeometry geometry{in.samples,
                                  in.frames,
                                  output_frames(in.frames, kernel_size, stride, padding, dilation),
                                  in.joints,
                                  static_cast<int>(kernel_size),
                                  stride,
                                  padding,
                                  dilation,
                                  false};
  const WeightView view{weight.const_data_ptr(),
                        static_cast<int>(kernel_size),
                        static_cast<int>(weight.size(0)),
                        in.channels,
                        weight.stride(2),
                        weight.stride(0),
                        weight.stride(1)};
  return in_format_of(x, convolve(call, in, view, geometry, bias));
}

// grad [N, O, T_out, V], weight [O, C, Γ, 1] -> [N, C, frames, V]
Tensor temporal_conv_grad_input(const Tensor& grad, const Tensor& weight, Index frames, Index stride, Index padding,
                                Index dilation, bool) {
  const Call call("temporal_conv_grad_input", grad);
  check_geometry(call.op(), stride, padding, dilation);
  const Operand in = read_operand(call, "grad", grad);
  check_weight(call, weight, in.channels, 0, grad, "grad");
  const Index kernel_size = weight.size(2);
  constexpr Index kMost = Index{1} << 61;
  check(frames >= 0 && frames <= kMost && output_frames(frames, kernel_size, stride, padding, dilation) == in.frames,
        call.op(), "frames", "such that the convolution returns " + std::to_string(in.frames) + " frames", frames);
  const TemporalGeometry geometry{in.samples, in.frames, frames,   in.joints, static_cast<int>(kernel_size),
                                  stride,     padding,   dilation, true};
  const WeightView view{weight.const_data_ptr(),
                        static_cast<int>(kernel_size),
                        static_cast<int>(weight.size(1)),
                        in.channels,
                        weight.stride(2),
                        weight.stride(1),
                        weight.stride(0)};
  return in_format_of(grad, convolve(call, in, view, geometry, std::nullopt));
}

// x [N, C, T, V], grad [N, O, T_out, V] -> [O, C, kernel_size, 1]
Tensor temporal_conv_grad_weight(const Tensor& x, const Tensor& grad, Index kernel_size, Index stride, Index padding,
                                 Index dilation, bool) {
  const Call call("temporal_conv_grad_weight", x);
  check_geometry(call.op(), stride, padding, dilation);
  check(kernel_size >= 1 && kernel_size <= kLargest, call.op(), "kernel_size", "at least 1", kernel_size);
  const Operand in = read_operand(call, "x", x), by = read_operand(call, "grad", grad);
  check_same_dtype(call.op(), "grad", grad, x);
  const Index frames = output_frames(in.frames, kernel_size, stride, padding, dilation);
  check(by.samples == in.samples && by.frames == frames && by.joints == in.joints, call.op(), "grad",
        "[N, O, T_out, V] with N = " + std::to_string(in.samples) + ", T_out = " + std::to_string(frames) +
            ", V = " + std::to_string(in.joints),
        shape_text(grad));
  Tensor out = new_tensor(x, {by.channels, in.channels, kernel_size, 1});
  if (out.numel() == 0) return out;
  if (in.samples == 0 || frames == 0 || in.joints == 0) return torch::stable::zero_(out);
  with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
    using E = decltype(element);
    constexpr bool kTensor = decltype(tensor)::value;
    TemporalGradWeight<E> p{};
    p.x = in.rows<E>();
    p.grad = by.rows<E>();
    p.geometry = {in.samples, in.frames, frames,   in.joints, static_cast<int>(kernel_size),
                  stride,     padding,   dilation, false};
    launch_grad_weight<E, kTensor>(call, p, out);
  });
  return out;
}

}  // namespace

#define STGCN_FAST_TEMPORAL(E, kTensor)                                                            \
  template void launch_temporal<E, kTensor>(const Call&, const TemporalPlan&, TemporalForward<E>,  \
                                            const PackedWeights<E, kTensor>&, const Epilogue<E>&); \
  template void launch_grad_weight<E, kTensor>(const Call&, TemporalGradWeight<E>, const Tensor&);
STGCN_FAST_ELEMENTS(STGCN_FAST_TEMPORAL)
#undef STGCN_FAST_TEMPORAL

STGCN_FAST_CUDA_LIBRARY(m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_grad_input", TORCH_BOX(&temporal_conv_grad_input));
  m.impl("temporal_conv_grad_weight", TORCH_BOX(&temporal_conv_grad_weight));
}

}  // namespace cuda
}  // namespace stgcn_fast
