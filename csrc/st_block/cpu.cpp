#include <torch/csrc/stable/library.h>

#include "st_block/host.h"

namespace stgcn_fast {
namespace {

using st_block::Index;
using st_block::Problem;

constexpr const char* kOp = "st_block";

// The first output frames of every sample that may differ from the known clip's, from the input frames that may.
std::vector<Index> computed_frames(const Problem& p, const std::optional<Tensor>& frames) {
  std::vector<Index> computed(static_cast<std::size_t>(p.batch), p.out_frames);
  if (!frames) return computed;
  check(frames->scalar_type() == ScalarType::Long && frames->dim() == 1 && frames->size(0) == p.batch, kOp, "frames",
        "int64 [N] with N = " + std::to_string(p.batch), shape_text(*frames));
  const auto* first = static_cast<const Index*>(frames->const_data_ptr());
  for (Index n = 0; n < p.batch; ++n) {
    const Index differ = first[n * frames->stride(0)];
    check(differ >= 0 && differ <= p.frames, kOp, "frames", "in [0, T] with T = " + std::to_string(p.frames), differ);
    const Index reached = (differ + p.kernel_size / 2 + p.stride - 1) / p.stride;
    const Index whole = (reached + p.group - 1) / p.group * p.group;
    computed[static_cast<std::size_t>(n)] = differ == 0 ? 0 : std::min(whole, p.out_frames);
  }
  return computed;
}

// x [N, C, T, V], graph_weight [K, O, C], graph_bias [K, O], adjacency [1, K, 1, V, W], temporal_weight [O, O, Γ, 1],
// residual_weight [O, C], scales, shifts and temporal_bias [O], frames int64 [N], rest [1, O, T_out, W]
//   -> [N, O, T_out, W]
Tensor st_block_forward(const Tensor& x, const Tensor& graph_weight, const std::optional<Tensor>& graph_bias,
                        const Tensor& adjacency, const std::optional<Tensor>& scale1,
                        const std::optional<Tensor>& shift1, const Tensor& temporal_weight,
                        const std::optional<Tensor>& temporal_bias, const std::optional<Tensor>& scale2,
                        const std::optional<Tensor>& shift2, const std::optional<Tensor>& residual_weight,
                        const std::optional<Tensor>& residual_shift, bool residual, Index stride, bool fast,
                        const std::optional<Tensor>& frames, const std::optional<Tensor>& rest) {
  const Activation in = read_activation(kOp, "x", x);
  const Dtype dtype = in.matrix.dtype;
  st_block::Reader reader(kOp, x);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.sources = in.joints;
  p.inputs = in.channels;
  check(p.sources >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  reader.read_block(p,
                    {graph_weight, graph_bias, adjacency, scale1, shift1, temporal_weight, temporal_bias, scale2,
                     shift2, residual_weight, residual_shift},
                    residual, stride);

  const Result out = new_result(x, dtype, prefers_channels_last(x), p.batch, p.outputs, p.out_frames, p.targets);
  check(frames.has_value() == rest.has_value(), kOp, frames ? "rest" : "frames",
        "given where the other of frames and rest is", "None");
  std::optional<Activation> known;
  if (rest) {
    known = read_activation(kOp, "rest", *rest);
    check_same_dtype(kOp, "rest", *rest, x);
    const bool fits =
        rest->size(0) == 1 && rest->size(1) == p.outputs && rest->size(2) == p.out_frames && rest->size(3) == p.targets;
    check(fits, kOp, "rest", st_block::sizes_text("[1, O, T_out, W]", {1, p.outputs, p.out_frames, p.targets}),
          shape_text(*rest));
    p.rest = known->matrix;
  }
  const std::vector<Index> computed = computed_frames(p, frames);
  if (p.batch == 0 || p.out_frames == 0) return out.tensor;
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  p.fast = fast && st_block::fast_pays(p);

  const st_block::Chosen chosen = st_block::choose_kernels(dtype);
  const std::shared_ptr<const void> packed = st_block::pack(p, chosen);
  st_block::run_block(p, chosen.kernels, packed.get(), computed);
  return out.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("st_block", TORCH_BOX(&st_block_forward)); }

}  // namespace stgcn_fast
