#include "joint_attention/joint_attention.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace stgcn_fast {
namespace {

using Index = std::int64_t;
using joint_attention::Problem;

constexpr const char* kOp = "joint_attention";

// x [N, C, T, V], weight [2, K, R, C], bias [2, K, R], fixed [K, V, V], alpha [1] -> [N, K, V, V]
Tensor joint_attention_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& fixed,
                               const std::optional<Tensor>& alpha) {
  const Activation in = read_activation(kOp, "x", x);
  const ScalarType type = compute_type(in.matrix.dtype);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.joints = in.joints;
  p.inputs = in.channels;
  check(p.joints >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  check(weight.dim() == 4 && weight.size(0) == 2 && weight.size(3) == p.inputs && weight.numel() > 0, kOp, "weight",
        "[2, K, R, C] with C = " + std::to_string(p.inputs), shape_text(weight));
  p.partitions = weight.size(1);
  p.rank = weight.size(2);
  check(bias.dim() == 3 && bias.size(0) == 2 && bias.size(1) == p.partitions && bias.size(2) == p.rank, kOp, "bias",
        "[2, K, R] with K, R = " + std::to_string(p.partitions) + ", " + std::to_string(p.rank), shape_text(bias));
  check(fixed.dim() == 3 && fixed.size(0) == p.partitions && fixed.size(1) == p.joints && fixed.size(2) == p.joints,
        kOp, "fixed", "[K, V, V] with K, V = " + std::to_string(p.partitions) + ", " + std::to_string(p.joints),
        shape_text(fixed));
  check_same_dtype(kOp, "weight", weight, x);
  check_same_dtype(kOp, "bias", bias, x);
  check_same_dtype(kOp, "fixed", fixed, x);
  if (alpha) {
    check(alpha->numel() == 1, kOp, "alpha", "[1]", shape_text(*alpha));
    check_same_dtype(kOp, "alpha", *alpha, x);
  }
  const Tensor own_weight = as_operand(weight, type), own_bias = as_operand(bias, type);
  const Tensor own_fixed = as_operand(fixed, type);
  std::optional<Tensor> own_alpha;
  if (alpha) own_alpha = as_operand(*alpha, type);
  const std::array<Index, 4> sizes{p.batch, p.partitions, p.joints, p.joints};
  const Tensor out =
      torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, x.device(), std::nullopt, std::nullopt);
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.weight = own_weight.const_data_ptr();
  p.bias = own_bias.const_data_ptr();
  p.fixed = own_fixed.const_data_ptr();
  p.alpha = own_alpha ? own_alpha->const_data_ptr() : nullptr;
  p.out = out.mutable_data_ptr();
  const joint_attention::Table& table = STGCN_FAST_SELECT_KERNELS(joint_attention_kernels);
  const bool wide = type == ScalarType::Double;
  const joint_attention::Kernels& kernels = wide ? table.float64 : table.float32;
  const auto bytes = static_cast<std::size_t>(own_bias.numel()) * (wide ? 8 : 4);
  const std::shared_ptr<const void> packed =
      packed_weights(wide ? "joint_attention.f64" : "joint_attention.f32", {p.partitions, p.rank, p.inputs},
                     {{p.weight, bytes * static_cast<std::size_t>(p.inputs)}, {p.bias, bytes}},
                     static_cast<std::size_t>(kernels.packed_bytes(p)), [&](void* to) { kernels.pack(p, to); });
  const double work = static_cast<double>(p.batch * p.frames * p.joints) *
                      static_cast<double>(p.partitions * p.rank * (2 * p.inputs + p.joints));
  parallel_tasks(p.batch * p.partitions, work, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      kernels.run(p, packed.get(), task / p.partitions, task % p.partitions);
    }
  });
  return x.scalar_type() == type ? out : torch::stable::to(out, x.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("joint_attention", TORCH_BOX(&joint_attention_forward)); }

}  // namespace stgcn_fast
