#include "joint_relations/joint_relations.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <memory>
#include <string>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace stgcn_fast {
namespace {

using Index = std::int64_t;
using joint_relations::Problem;

constexpr const char* kOp = "joint_relations";

// x [N, C, T, V], weight [2, K, R, C], bias [2, K, R], fixed [K, F, V, V] -> [N, K, R + F, V, V]
Tensor joint_relations_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& fixed,
                               bool turned) {
  const Activation in = read_activation(kOp, "x", x);
  const ScalarType type = compute_type(in.matrix.dtype);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.joints = in.joints;
  p.inputs = in.channels;
  p.turned = turned;
  check(p.joints >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  check(weight.dim() == 4 && weight.size(0) == 2 && weight.size(3) == p.inputs && weight.numel() > 0, kOp, "weight",
        "[2, K, R, C] with C = " + std::to_string(p.inputs), shape_text(weight));
  p.partitions = weight.size(1);
  p.rank = weight.size(2);
  check(bias.dim() == 3 && bias.size(0) == 2 && bias.size(1) == p.partitions && bias.size(2) == p.rank, kOp, "bias",
        "[2, K, R] with K, R = " + std::to_string(p.partitions) + ", " + std::to_string(p.rank), shape_text(bias));
  check(fixed.dim() == 4 && fixed.size(0) == p.partitions && fixed.size(2) == p.joints && fixed.size(3) == p.joints,
        kOp, "fixed", "[K, F, V, V] with K, V = " + std::to_string(p.partitions) + ", " + std::to_string(p.joints),
        shape_text(fixed));
  p.fixed_rank = fixed.size(1);
  check_same_dtype(kOp, "weight", weight, x);
  check_same_dtype(kOp, "bias", bias, x);
  check_same_dtype(kOp, "fixed", fixed, x);
  const Tensor own_weight = as_operand(weight, type), own_bias = as_operand(bias, type);
  const Tensor own_fixed = as_operand(fixed, type);
  const std::array<Index, 5> sizes{p.batch, p.partitions, p.rank + p.fixed_rank, p.joints, p.joints};
  const Tensor out =
      torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, x.device(), std::nullopt, std::nullopt);
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.weight = own_weight.const_data_ptr();
  p.bias = own_bias.const_data_ptr();
  p.fixed = own_fixed.const_data_ptr();
  p.out = out.mutable_data_ptr();
  const joint_relations::Table& table = STGCN_FAST_SELECT_KERNELS(joint_relations_kernels);
  const bool wide = type == ScalarType::Double;
  const joint_relations::Kernels& kernels = wide ? table.float64 : table.float32;
  const auto bytes = static_cast<std::size_t>(own_bias.numel()) * (wide ? 8 : 4);
  const std::shared_ptr<const void> packed =
      packed_weights(wide ? "joint_relations.f64" : "joint_relations.f32", {p.partitions, p.rank, p.inputs},
                     {{p.weight, bytes * static_cast<std::size_t>(p.inputs)}, {p.bias, bytes}},
                     static_cast<std::size_t>(kernels.packed_bytes(p)), [&](void* to) { kernels.pack(p, to); });
  constexpr double kTangent = 16;  // multiply-adds
  const double work = static_cast<double>(p.batch * p.joints) *
                          static_cast<double>(p.frames * p.inputs + p.partitions * p.rank * (2 * p.inputs)) +
                      kTangent * static_cast<double>(p.batch * p.partitions * p.rank * p.joints * p.joints);
  parallel_tasks(p.batch, work, [&](Index begin, Index end) {
    for (Index sample = begin; sample < end; ++sample) kernels.run(p, packed.get(), sample);
  });
  return x.scalar_type() == type ? out : torch::stable::to(out, x.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("joint_relations", TORCH_BOX(&joint_relations_forward)); }

}  // namespace stgcn_fast
