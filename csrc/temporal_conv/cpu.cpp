#include <torch/csrc/stable/library.h>

#include <array>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace {

using Index = std::int64_t;

// Rows of one piece of work: large enough that the packed weights, read once per piece, are not what is waited for,
// small enough that the piece's rows stay in the second-level cache.
constexpr Index kPieceRows = 750;
// The fast form cuts a piece to the cache's measure itself and transforms a few frames more than it has for each.
constexpr Index kFastPieceRows = 6000;
// Fewest rows worth a piece of its own.
constexpr Index kLeastRows = 96;
// A piece of the weight gradient: the longer, the less often sums are fetched, as long as x's rows stay in that cache.
constexpr Index kGradWeightRows = 1200;
constexpr Index kGradWeightBytes = 320 * 1024;
// Rows that outweigh zeroing and adding a partial sum (the fast form has more sums, and less work a row), and what all
// partial sums may occupy.
constexpr Index kPartRows = 2048;
constexpr Index kFastPartRows = 6144;
constexpr Index kPartBytes = Index{64} << 20;
// Rows below which a weight gradient is direct: zeroing and adding up the fast form's sums costs more than it saves.
constexpr Index kFastGradRows = 1024;
constexpr Index kMostParts = 64;

// Largest stride, padding, dilation and kernel: sums and products of two stay within 64 bits.
constexpr Index kLargest = (Index{1} << 31) - 1;

struct Geometry {
  Index stride, padding, dilation;
};

Index floor_div(Index a, Index b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Index output_frames(Index frames, Index kernel_size, const Geometry& g) {
  if (frames == 0) return 0;
  return floor_div(frames + 2 * g.padding - g.dilation * (kernel_size - 1) - 1, g.stride) + 1;
}

void check_number(const char* op, const char* argument, Index value, Index least) {
  check(value >= least, op, argument, "at least " + std::to_string(least), value);
  check(value <= kLargest, op, argument, "at most " + std::to_string(kLargest), value);
}

void check_geometry(const char* op, const Geometry& g) {
  check_number(op, "stride", g.stride, 1);
  check_number(op, "padding", g.padding, 0);
  check_number(op, "dilation", g.dilation, 1);
}

Index ceil_div(Index a, Index b) { return -floor_div(-a, b); }

TemporalTap tap_of(Index q, Index offset, Index step, Index source_frames) {
  return {q, offset, std::max<Index>(0, ceil_div(-offset, step)), ceil_div(source_frames - offset, step)};
}

// Output frame t reads input frame t * stride + q * dilation - padding.
std::vector<TemporalTap> forward_taps(Index kernel_size, const Geometry& g, Index frames) {
  std::vector<TemporalTap> taps;
  for (Index q = 0; q < kernel_size; ++q) taps.push_back(tap_of(q, q * g.dilation - g.padding, g.stride, frames));
  return taps;
}

using Typed = TemporalConvKernels::Typed;

// The kernels for a dtype: bfloat16 and float16 are computed in float32 where they have no kernels of their own.
const Typed& kernels_for(Dtype dtype) {
  const TemporalConvKernels& kernels = STGCN_FAST_SELECT_KERNELS(temporal_conv_kernels);
  if (dtype == Dtype::kFloat64) return kernels.float64;
  return dtype == Dtype::kBFloat16 && kernels.bfloat16.convolve != nullptr ? kernels.bfloat16 : kernels.float32;
}

bool computes_float32(Dtype dtype) {
  const TemporalConvKernels& kernels = STGCN_FAST_SELECT_KERNELS(temporal_conv_kernels);
  return &kernels_for(dtype) == &kernels.float32;
}

// The convolution with `weight` [O, C, Γ, 1], of which dimension `target` belongs to q's target; successive taps of a
// phase of the fast form are `tap_step` entries apart.
void run(Convolution& q, const Tensor& weight, int target, Index tap_step) {
  if (q.batch == 0 || q.joints == 0 || q.target_channels == 0 || q.target_frames == 0) return;
  const Dtype dtype = q.source.dtype;
  const Typed& kernels = kernels_for(dtype);
  const double weights = static_cast<double>(q.source_channels) * q.target_channels * q.kernel_size;
  const bool named = weight.is_contiguous();
  const Tensor held = named ? weight : torch::stable::contiguous(weight);
  const auto pack = [&](void* to) {
    const Tensor kernel = as_operand(held, compute_type(dtype));
    Convolution p = q;
    p.weight_target = target == 0 ? q.source_channels * q.kernel_size : q.kernel_size;
    p.weight_source = target == 0 ? q.kernel_size : q.target_channels * q.kernel_size;
    p.weight_tap = q.fast ? tap_step : 1;
    p.weight = kernel.const_data_ptr();
    // A packed weight takes about as long as this many multiply-adds in the tile.
    constexpr double kPacking = 64;
    parallel_tasks(kernels.pack_tasks(q), kPacking * weights,
                   [&](Index begin, Index end) { kernels.pack(p, to, begin, end); });
  };
  const auto packed =
      packed_weights("temporal_conv",
                     {q.target_channels, q.source_channels, q.kernel_size, static_cast<Index>(dtype), q.fast, target,
                      q.fast ? tap_step : 0, q.fast ? q.phases : 0, q.fast ? q.fast_phases[0].first_tap : 0},
                     {{held.const_data_ptr(), static_cast<std::size_t>(held.numel() * element_bytes(dtype)), named}},
                     static_cast<std::size_t>(kernels.packed_bytes(q)), pack);
  q.packed = packed.get();
  const Index block = q.fast ? kTemporalBlock * q.dilation * q.phases : 1, step = q.step;
  const Index blocks = (q.target_frames + block - 1) / block, rows = block * q.joints;
  q.pieces = pieces_per_sample(
      q.batch, blocks, std::max<Index>(1, (q.fast ? kFastPieceRows : kPieceRows) / step / rows), kLeastRows / rows + 1);
  const double work = weights * static_cast<double>(q.batch * q.target_frames * q.joints) / q.phases;
  parallel_tasks(q.batch * q.pieces, work, [&](Index begin, Index end) { kernels.convolve(q, begin, end); });
}

void check_weight(const char* op, const Tensor& weight, Index channels, int dim) {
  const bool fits = weight.dim() == 4 && weight.size(3) == 1 && weight.size(2) >= 1 && weight.size(2) <= kLargest &&
                    weight.size(dim) == channels;
  check(fits, op, "weight",
        std::string("[O, C, Γ, 1] with ") + (dim == 1 ? "C" : "O") + " = " + std::to_string(channels),
        shape_text(weight));
}

// x [N, C, T, V], weight [O, C, Γ, 1], bias [O] or none -> [N, O, T_out, V]
Tensor temporal_conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, Index stride,
                     Index padding, Index dilation, bool fast) {
  constexpr const char* kOp = "temporal_conv";
  const Geometry g{stride, padding, dilation};
  check_geometry(kOp, g);
  const Activation in = read_activation(kOp, "x", x);
  const Dtype dtype = in.matrix.dtype;
  check_weight(kOp, weight, in.channels, 1);
  check_same_dtype(kOp, "weight", weight, x);
  const Index kernel_size = weight.size(2), channels = weight.size(0);
  const Index extent = dilation * (kernel_size - 1) + 1;
  check(in.frames == 0 || in.frames + 2 * padding >= extent, kOp, "x",
        "at least " + std::to_string(extent - 2 * padding) + " frames long for this kernel, padding and dilation",
        in.frames);
  const ScalarType type = compute_type(dtype);
  std::optional<Tensor> added;
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == channels, kOp, "bias", "[O] with O = " + std::to_string(channels),
          shape_text(*bias));
    check_same_dtype(kOp, "bias", *bias, x);
    added = as_operand(*bias, type);
  }
  const Index frames = output_frames(in.frames, kernel_size, g);
  Result out = new_result(x, dtype, prefers_channels_last(x), in.batch, channels, frames, in.joints);

  const std::vector<TemporalTap> taps = forward_taps(kernel_size, g, in.frames);
  const std::array<Index, 2> phase_begin{0, kernel_size};
  Convolution q{};
  q.source = in.matrix;
  q.target = out.matrix;
  q.source_batch = in.batch_stride;
  q.target_batch = out.batch_stride;
  q.batch = in.batch;
  q.joints = in.joints;
  q.source_channels = in.channels;
  q.target_channels = channels;
  q.source_frames = in.frames;
  q.target_frames = frames;
  q.step = stride;
  q.phases = 1;
  q.taps = taps.data();
  q.phase_begin = phase_begin.data();
  q.kernel_size = kernel_size;
  q.fast = fast && computes_float32(dtype) &&
           temporal_fast_pays(in.channels, channels, kernel_size, stride, dilation, frames);
  const FastPhase whole{kernel_size, -padding, 0};
  q.fast_phases = &whole;
  q.dilation = dilation;
  q.bias = added ? added->const_data_ptr() : nullptr;
  run(q, weight, 0, 1);
  return out.tensor;
}

// grad [N, O, T_out, V], weight [O, C, Γ, 1] -> [N, C, frames, V]
Tensor temporal_conv_grad_input(const Tensor& grad, const Tensor& weight, Index frames, Index stride, Index padding,
                                Index dilation, bool fast) {
  constexpr const char* kOp = "temporal_conv_grad_input";
  const Geometry g{stride, padding, dilation};
  check_geometry(kOp, g);
  const Activation in = read_activation(kOp, "grad", grad);
  const Dtype dtype = in.matrix.dtype;
  check_weight(kOp, weight, in.channels, 0);
  check_same_dtype(kOp, "weight", weight, grad, "grad");
  const Index kernel_size = weight.size(2), channels = weight.size(1);
  constexpr Index kMost = Index{1} << 61;
  check(frames >= 0 && frames <= kMost && output_frames(frames, kernel_size, g) == in.frames, kOp, "frames",
        "such that the convolution returns " + std::to_string(in.frames) + " frames", frames);
  Result out = new_result(grad, dtype, prefers_channels_last(grad), in.batch, channels, frames, in.joints);
  if (out.tensor.numel() == 0) return out.tensor;

  // Frame phase + stride * i gets from output frame t when t * stride = phase + stride * i + padding - q * dilation.
  std::vector<TemporalTap> taps;
  std::vector<Index> phase_begin{0};
  const Index phases = std::max<Index>(1, std::min(stride, frames));
  for (Index phase = 0; phase < phases; ++phase) {
    // The last entry reads the earliest frame: this order walks forward in memory.
    for (Index q = kernel_size - 1; q >= 0; --q) {
      const Index offset = phase + padding - q * dilation, frame = floor_div(offset, stride);
      if (frame * stride == offset) taps.push_back(tap_of(q, frame, 1, in.frames));
    }
    phase_begin.push_back(static_cast<Index>(taps.size()));
  }
  Convolution q{};
  q.source = in.matrix;
  q.target = out.matrix;
  q.source_batch = in.batch_stride;
  q.target_batch = out.batch_stride;
  q.batch = in.batch;
  q.joints = in.joints;
  q.source_channels = in.channels;
  q.target_channels = channels;
  q.source_frames = in.frames;
  q.target_frames = frames;
  q.step = 1;
  q.phases = phases;
  q.taps = taps.data();
  q.phase_begin = phase_begin.data();
  q.kernel_size = kernel_size;
  q.fast = fast && computes_float32(dtype) &&
           temporal_fast_pays(in.channels, channels, kernel_size, stride, dilation, in.frames);
  // The fast form: convolutions of stride 1 whose taps run backwards. There is either a stride or a dilation.
  std::vector<FastPhase> fast_phases;
  for (Index phase = 0; q.fast && phase < phases; ++phase) {
    const Index first = (phase + padding) % stride, others = (kernel_size - 1 - first) / stride;
    fast_phases.push_back(
        {others + 1, (phase + padding - first) / stride - others * dilation, first + others * stride});
  }
  q.fast_phases = fast_phases.data();
  q.dilation = dilation;
  run(q, weight, 1, -stride);
  return out.tensor;
}

// Everything that decides the order of sums follows from shapes: results do not depend on the number of threads.
void run(WeightGradient& q, Dtype dtype) {
  const Typed& kernels = kernels_for(dtype);
  const Index panels = (q.grad_channels + kernels.panel - 1) / kernels.panel, joints = std::max<Index>(1, q.joints);
  const Index block = q.fast ? kTemporalBlock * q.dilation : 1, blocks = (q.grad_frames + block - 1) / block;
  // Of a block, a third of the frames' rows are read at a time.
  const Index bytes = joints * q.x_channels * element_bytes(Dtype::kFloat32) / (q.fast ? kTemporalBlock : 1) * q.stride;
  const Index frames = std::min(kGradWeightRows / joints, kGradWeightBytes / std::max<Index>(1, bytes));
  const Index least = std::max<Index>(frames, kLeastRows / joints + 1);
  q.pieces = std::max<Index>(1, blocks / std::max<Index>(1, least / block));
  const Index size = kernels.sum_bytes(q), rows = q.batch * q.grad_frames * joints;
  q.parts = 1;
  while (2 * q.parts <=
         std::min({kMostParts, rows / (q.fast ? kFastPartRows : kPartRows), q.batch * q.pieces, kPartBytes / size}))
    q.parts *= 2;
  q.groups = std::max<Index>(1, std::min(panels, thread_count() / q.parts));
  q.partial = scratch_bytes(Slot::kSharedPartial, static_cast<std::size_t>(q.parts * size));
  const double weights = static_cast<double>(q.x_channels) * q.grad_channels * q.kernel_size;
  parallel_tasks(q.parts * q.groups, weights * static_cast<double>(rows),
                 [&](Index begin, Index end) { kernels.accumulate(q, begin, end); });
  constexpr double kAdding = 32;
  parallel_tasks(panels * q.x_channels, weights * kAdding * static_cast<double>(q.parts),
                 [&](Index begin, Index end) { kernels.reduce(q, begin, end); });
}

// x [N, C, T, V], grad [N, O, T_out, V] -> [O, C, kernel_size, 1]
Tensor temporal_conv_grad_weight(const Tensor& x, const Tensor& grad, Index kernel_size, Index stride, Index padding,
                                 Index dilation, bool fast) {
  constexpr const char* kOp = "temporal_conv_grad_weight";
  const Geometry g{stride, padding, dilation};
  check_geometry(kOp, g);
  check_number(kOp, "kernel_size", kernel_size, 1);
  const Activation in = read_activation(kOp, "x", x), out_grad = read_activation(kOp, "grad", grad);
  const Dtype dtype = in.matrix.dtype;
  check_same_dtype(kOp, "grad", grad, x);
  const Index frames = output_frames(in.frames, kernel_size, g);
  check(out_grad.batch == in.batch && out_grad.frames == frames && out_grad.joints == in.joints, kOp, "grad",
        "[N, O, T_out, V] with N = " + std::to_string(in.batch) + ", T_out = " + std::to_string(frames) +
            ", V = " + std::to_string(in.joints),
        shape_text(grad));
  const std::array<Index, 4> sizes{out_grad.channels, in.channels, kernel_size, 1};
  const Tensor out = torch::stable::empty({sizes.data(), sizes.size()}, compute_type(dtype), std::nullopt, x.device());

  WeightGradient q{};
  q.x = in.matrix;
  q.grad = out_grad.matrix;
  q.x_batch = in.batch_stride;
  q.grad_batch = out_grad.batch_stride;
  q.batch = in.batch;
  q.joints = in.joints;
  q.x_channels = in.channels;
  q.grad_channels = out_grad.channels;
  q.x_frames = in.frames;
  q.grad_frames = frames;
  q.kernel_size = kernel_size;
  q.stride = stride;
  q.padding = padding;
  q.dilation = dilation;
  q.fast = fast && computes_float32(dtype) && in.batch * frames * in.joints >= kFastGradRows &&
           temporal_fast_pays(in.channels, out_grad.channels, kernel_size, stride, dilation, frames);
  q.out = out.mutable_data_ptr();
  if (out.numel() > 0) run(q, dtype);
  return x.scalar_type() == out.scalar_type() ? out : torch::stable::to(out, x.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_grad_input", TORCH_BOX(&temporal_conv_grad_input));
  m.impl("temporal_conv_grad_weight", TORCH_BOX(&temporal_conv_grad_weight));
}

}  // namespace stgcn_fast
