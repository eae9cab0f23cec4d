#include <torch/csrc/stable/library.h>

#include <memory>
#include <optional>
#include <string>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "relation_graph_conv/relation_graph_conv.h"

namespace stgcn_fast {
namespace {

using Index = std::int64_t;
using relation_graph_conv::Problem;

constexpr const char* kOp = "relation_graph_conv";

std::string rule_text(const char* names, const char* sizes, std::initializer_list<Index> values) {
  std::string text = std::string(names) + " with " + sizes + " = ";
  for (const Index* value = values.begin(); value != values.end(); ++value) {
    text += (value == values.begin() ? "" : ", ") + std::to_string(*value);
  }
  return text;
}

// x [N, C, T, V], weight [K, O, C], mix [K, O, R], relations [N, K, R, V, W], bias [K, O] -> [N, O, T, W]
Tensor relation_graph_conv_forward(const Tensor& x, const Tensor& weight, const Tensor& mix, const Tensor& relations,
                                   const std::optional<Tensor>& bias) {
  const Activation in = read_activation(kOp, "x", x);
  const Dtype dtype = in.matrix.dtype;
  const ScalarType type = compute_type(dtype);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.sources = in.joints;
  p.inputs = in.channels;
  check(p.sources >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  check(weight.dim() == 3 && weight.size(2) == p.inputs && weight.numel() > 0, kOp, "weight",
        rule_text("[K, O, C]", "C", {p.inputs}), shape_text(weight));
  p.partitions = weight.size(0);
  p.outputs = weight.size(1);
  check(mix.dim() == 3 && mix.size(0) == p.partitions && mix.size(1) == p.outputs && mix.size(2) >= 1, kOp, "mix",
        rule_text("[K, O, R]", "K, O", {p.partitions, p.outputs}), shape_text(mix));
  p.rank = mix.size(2);
  check(relations.dim() == 5 && relations.size(0) == p.batch && relations.size(1) == p.partitions &&
            relations.size(2) == p.rank && relations.size(3) == p.sources && relations.size(4) >= 1,
        kOp, "relations", rule_text("[N, K, R, V, W]", "N, K, R, V", {p.batch, p.partitions, p.rank, p.sources}),
        shape_text(relations));
  p.targets = relations.size(4);
  if (bias) {
    check(bias->dim() == 2 && bias->size(0) == p.partitions && bias->size(1) == p.outputs, kOp, "bias",
          rule_text("[K, O]", "K, O", {p.partitions, p.outputs}), shape_text(*bias));
    check_same_dtype(kOp, "bias", *bias, x);
  }
  check_same_dtype(kOp, "weight", weight, x);
  check_same_dtype(kOp, "mix", mix, x);
  check_same_dtype(kOp, "relations", relations, x);
  const Tensor own_weight = as_operand(weight, type), own_mix = as_operand(mix, type);
  const Tensor own_relations = as_operand(relations, type);
  std::optional<Tensor> own_bias;
  if (bias) own_bias = as_operand(*bias, type);
  p.weight = own_weight.const_data_ptr();
  p.mix = own_mix.const_data_ptr();
  p.relations = own_relations.const_data_ptr();
  p.bias = own_bias ? own_bias->const_data_ptr() : nullptr;

  const Result out = new_result(x, dtype, prefers_channels_last(x), p.batch, p.outputs, p.frames, p.targets);
  if (p.batch == 0 || p.frames == 0) return out.tensor;
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  const relation_graph_conv::Table& table = STGCN_FAST_SELECT_KERNELS(relation_graph_conv_kernels);
  const bool wide = dtype == Dtype::kFloat64;
  const relation_graph_conv::Kernels& kernels = wide ? table.float64 : table.float32;
  const auto packed = [&](const void* source, Index depth) {
    const auto bytes = static_cast<std::size_t>(p.partitions * p.outputs * depth * (wide ? 8 : 4));
    return packed_weights(wide ? "relation_graph_conv.f64" : "relation_graph_conv.f32",
                          {p.partitions, p.outputs, depth}, {{source, bytes}},
                          static_cast<std::size_t>(kernels.packed_bytes(p.partitions, p.outputs, depth)),
                          [&](void* to) { kernels.pack(source, p.partitions, p.outputs, depth, to); });
  };
  const std::shared_ptr<const void> weights = packed(p.weight, p.inputs), mixed = packed(p.mix, p.rank);
  const Index panels = kernels.panels(p.outputs), pieces = kernels.separable(p) ? panels : 1;
  const double each = static_cast<double>(p.frames * (p.inputs + p.targets) + p.targets * p.rank);
  const double work = static_cast<double>(p.batch * p.partitions * p.outputs * p.sources) * each;
  parallel_tasks(p.batch * pieces, work, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index sample = task / pieces, first = task % pieces;
      kernels.run(p, weights.get(), mixed.get(), sample, first, pieces == 1 ? panels : first + 1);
    }
  });
  return out.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) {
  m.impl("relation_graph_conv", TORCH_BOX(&relation_graph_conv_forward));
}

}  // namespace stgcn_fast
