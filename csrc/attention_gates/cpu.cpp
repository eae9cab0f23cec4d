#include <torch/csrc/stable/library.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "attention_gates/attention_gates.h"
#include "common/check.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace stgcn_fast {
namespace {

using Index = std::int64_t;
using attention_gates::Problem;

constexpr const char* kOp = "attention_gates";

// x, add [N, C, T, V], shift [C], joints_weight [taps, C], joints_bias [1], frames_weight [taps, C], frames_bias [1],
// down_weight [H, C], down_bias [H], up_weight [C, H], up_bias [C] -> [N, C, T, V], [N, T, V], [N, C]
std::tuple<Tensor, Tensor, Tensor> attention_gates_forward(const Tensor& x, const std::optional<Tensor>& shift,
                                                           const std::optional<Tensor>& add,
                                                           const Tensor& joints_weight, const Tensor& joints_bias,
                                                           const Tensor& frames_weight, const Tensor& frames_bias,
                                                           const Tensor& down_weight, const Tensor& down_bias,
                                                           const Tensor& up_weight, const Tensor& up_bias) {
  const Activation in = read_activation(kOp, "x", x);
  const Dtype dtype = in.matrix.dtype;
  const ScalarType type = compute_type(dtype);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.joints = in.joints;
  p.channels = in.channels;
  check(p.joints >= 1 && p.channels >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  std::vector<Tensor> held;
  const auto operand = [&](const char* name, const Tensor& tensor, bool fits, const std::string& rule) {
    check(fits, kOp, name, rule, shape_text(tensor));
    const ScalarType own = tensor.scalar_type();
    check(own == x.scalar_type() || own == type, kOp, name,
          std::string("of x's dtype ") + dtype_name(x.scalar_type()) + " or " + dtype_name(type), dtype_name(own));
    held.push_back(as_operand(tensor, type));
    return held.back().const_data_ptr();
  };
  const auto vector = [&](const char* name, const Tensor& tensor, Index size) {
    return operand(name, tensor, tensor.dim() == 1 && tensor.size(0) == size, "[" + std::to_string(size) + "]");
  };
  const auto taps = [&](const char* name, const Tensor& tensor) {
    const bool fits = tensor.dim() == 2 && tensor.size(0) % 2 == 1 && tensor.size(1) == p.channels;
    return operand(name, tensor, fits, "[taps, C] with an odd number of taps and C = " + std::to_string(p.channels));
  };
  if (shift) p.shift = vector("shift", *shift, p.channels);
  p.joints_weight = taps("joints_weight", joints_weight);
  p.joints_bias = vector("joints_bias", joints_bias, 1);
  p.frames_weight = taps("frames_weight", frames_weight);
  p.frames_bias = vector("frames_bias", frames_bias, 1);
  const bool down = down_weight.dim() == 2 && down_weight.size(0) >= 1 && down_weight.size(1) == p.channels;
  p.down_weight = operand("down_weight", down_weight, down, "[H, C] with H >= 1 and C = " + std::to_string(p.channels));
  p.hidden = down_weight.size(0);
  p.down_bias = vector("down_bias", down_bias, p.hidden);
  const bool up = up_weight.dim() == 2 && up_weight.size(0) == p.channels && up_weight.size(1) == p.hidden;
  p.up_weight = operand("up_weight", up_weight, up,
                        "[C, H] with C, H = " + std::to_string(p.channels) + ", " + std::to_string(p.hidden));
  p.up_bias = vector("up_bias", up_bias, p.channels);
  p.joint_taps = joints_weight.size(0);
  p.frame_taps = frames_weight.size(0);
  std::optional<Activation> added;
  if (add) {
    check(add->dim() == 4 && add->size(0) == p.batch && add->size(1) == p.channels && add->size(2) == p.frames &&
              add->size(3) == p.joints,
          kOp, "add", "of x's shape " + shape_text(x), shape_text(*add));
    check_same_dtype(kOp, "add", *add, x);
    added = read_activation(kOp, "add", *add);
    p.add = added->matrix;
    p.add_batch = added->batch_stride;
  }
  const Result out = new_result(x, dtype, prefers_channels_last(x), p.batch, p.channels, p.frames, p.joints);
  const std::array<Index, 3> row_sizes{p.batch, p.frames, p.joints};
  const std::array<Index, 2> channel_sizes{p.batch, p.channels};
  const Tensor row_gate = torch::stable::empty({row_sizes.data(), row_sizes.size()}, type, std::nullopt, x.device(),
                                               std::nullopt, std::nullopt);
  const Tensor channel_gate = torch::stable::empty({channel_sizes.data(), channel_sizes.size()}, type, std::nullopt,
                                                   x.device(), std::nullopt, std::nullopt);
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  p.row_gate = row_gate.mutable_data_ptr();
  p.channel_gate = channel_gate.mutable_data_ptr();
  const attention_gates::Table& table = STGCN_FAST_SELECT_KERNELS(attention_gates_kernels);
  const attention_gates::Kernels& kernels = dtype == Dtype::kFloat64 ? table.float64 : table.float32;
  constexpr double kPasses = 4;
  const double work = kPasses * static_cast<double>(p.batch * p.frames) * static_cast<double>(p.joints * p.channels);
  parallel_tasks(p.batch, work, [&](Index begin, Index end) {
    for (Index sample = begin; sample < end; ++sample) kernels.run(p, sample);
  });
  return {out.tensor, row_gate, channel_gate};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("attention_gates", TORCH_BOX(&attention_gates_forward)); }

}  // namespace stgcn_fast
