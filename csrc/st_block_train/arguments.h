// The arguments of a call and their checks, and new tensors, for every device.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "common/check.h"
#include "common/tensor.h"
#include "st_block_train/st_block_train.h"

namespace stgcn_fast {
namespace st_block_train {

using Index = std::int64_t;
using MaybeTensor = std::optional<Tensor>;

inline constexpr Index kLargest = (Index{1} << 31) - 1;

struct Arguments {
  const char* op;
  Tensor x, graph_weight, adjacency, weight1, bias1, temporal_weight, weight2, bias2, seed;
  MaybeTensor graph_bias, residual_weight, weight_r, bias_r, support;
  double eps[kNormalisations];
  bool residual;
  Index stride;
  double dropout;
  bool fast;
};

inline void check_shape(const Arguments& a, const char* argument, const Tensor& tensor, const std::string& axes,
                        const std::vector<Index>& sizes) {
  bool fits = tensor.dim() == static_cast<Index>(sizes.size());
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = tensor.size(static_cast<Index>(i)) == sizes[i];
  std::string rule = axes + " = [";
  for (std::size_t i = 0; i < sizes.size(); ++i) rule += (i ? ", " : "") + std::to_string(sizes[i]);
  check(fits, a.op, argument, rule + "]", shape_text(tensor));
}

inline void check_arguments(const Arguments& a) {
  check(a.x.dim() == 4 && a.x.size(3) >= 1 && a.x.size(1) >= 1, a.op, "x", "[N, C, T, V] with C, V >= 1",
        shape_text(a.x));
  const Tensor& w = a.graph_weight;
  check(w.dim() == 3 && w.size(2) == a.x.size(1) && w.numel() > 0, a.op, "graph_weight",
        "[K, O, C] with C = " + std::to_string(a.x.size(1)), shape_text(w));
  const Index partitions = w.size(0), outputs = w.size(1), joints = a.x.size(3);
  const Tensor& kernel = a.temporal_weight;
  check(kernel.dim() == 4 && kernel.size(2) % 2 == 1, a.op, "temporal_weight", "[O, O, Γ, 1] with Γ odd",
        shape_text(kernel));
  check_shape(a, "temporal_weight", kernel, "[O, O, Γ, 1]", {outputs, outputs, kernel.size(2), 1});
  check_shape(a, "adjacency", a.adjacency, "[1, K, 1, V, V]", {1, partitions, 1, joints, joints});
  if (a.support) check_shape(a, "support", *a.support, "[1, K, 1, V, V]", {1, partitions, 1, joints, joints});
  if (a.graph_bias) check_shape(a, "graph_bias", *a.graph_bias, "[K, O]", {partitions, outputs});
  check_shape(a, "weight1", a.weight1, "[O]", {outputs});
  check_shape(a, "bias1", a.bias1, "[O]", {outputs});
  check_shape(a, "weight2", a.weight2, "[O]", {outputs});
  check_shape(a, "bias2", a.bias2, "[O]", {outputs});
  if (a.residual_weight) {
    check_shape(a, "residual_weight", *a.residual_weight, "[O, C]", {outputs, a.x.size(1)});
    check(a.residual && a.weight_r && a.bias_r, a.op, "weight_r and bias_r", "given beside residual_weight", "none");
    check_shape(a, "weight_r", *a.weight_r, "[O]", {outputs});
    check_shape(a, "bias_r", *a.bias_r, "[O]", {outputs});
  } else {
    check(!a.residual || (outputs == a.x.size(1) && a.stride == 1), a.op, "residual_weight",
          "given where C != O or stride != 1", "none");
  }
  for (const Tensor* t : {&a.graph_weight, &a.adjacency, &a.temporal_weight}) {
    check_same_dtype(a.op, "graph_weight, adjacency and temporal_weight", *t, a.x);
  }
  if (a.graph_bias) check_same_dtype(a.op, "graph_bias", *a.graph_bias, a.x);
  if (a.residual_weight) check_same_dtype(a.op, "residual_weight", *a.residual_weight, a.x);
  check(a.stride >= 1 && a.stride <= kLargest, a.op, "stride", "at least 1", a.stride);
  check(a.dropout >= 0 && a.dropout <= 1, a.op, "dropout", "in [0, 1]", a.dropout);
  check(a.seed.scalar_type() == ScalarType::Long && a.seed.numel() == 1, a.op, "seed", "an int64 scalar",
        shape_text(a.seed));
}

inline Arguments arguments_of(const char* op, const Tensor& x, const Tensor& graph_weight,
                              const MaybeTensor& graph_bias, const Tensor& adjacency, const Tensor& weight1,
                              const Tensor& bias1, const Tensor& temporal_weight, const Tensor& weight2,
                              const Tensor& bias2, const MaybeTensor& residual_weight, const MaybeTensor& weight_r,
                              const MaybeTensor& bias_r, const MaybeTensor& support, const Tensor& seed, double eps1,
                              double eps2, double eps_r, bool residual, Index stride, double dropout, bool fast) {
  Arguments a{op,      x,          graph_weight,    adjacency, weight1, bias1,   temporal_weight,     weight2,  bias2,
              seed,    graph_bias, residual_weight, weight_r,  bias_r,  support, {eps1, eps2, eps_r}, residual, stride,
              dropout, fast};
  check_arguments(a);
  return a;
}

// Elements between rows of y, z and r.
inline Index row_of(Index outputs) { return (outputs + kAligned - 1) / kAligned * kAligned; }

// What the derivative reads of the forward pass, and the gradient of its result.
struct Saved {
  Tensor grad, out, y, z, r, statistics;
  bool need_x, need_adjacency;
};

inline void check_saved(const Arguments& a, const Saved& s) {
  const Tensor& x = a.x;
  const Index outputs = a.graph_weight.size(1), joints = x.size(3), row = row_of(outputs);
  const Index frames = (x.size(2) + a.stride - 1) / a.stride;
  for (const Tensor* t : {&s.grad, &s.out}) {
    check_shape(a, "grad and out", *t, "[N, O, T_out, V]", {x.size(0), outputs, frames, joints});
    check_same_dtype(a.op, "grad and out", *t, x);
  }
  check_shape(a, "y", s.y, "[N, T, V, O rounded up]", {x.size(0), x.size(2), joints, row});
  check_shape(a, "z", s.z, "[N, T_out, V, O rounded up]", {x.size(0), frames, joints, row});
  if (a.residual_weight) {
    check_shape(a, "r", s.r, "[N, T_out, V, O rounded up]", {x.size(0), frames, joints, row});
  }
  for (const Tensor* t : {&s.y, &s.z, &s.r}) check_same_dtype(a.op, "y, z and r", *t, x);
  check_shape(a, "statistics", s.statistics, "[3, 2, O]", {3, 2, outputs});
  const ScalarType sums = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check(s.statistics.scalar_type() == sums, a.op, "statistics", std::string("of dtype ") + dtype_name(sums),
        dtype_name(s.statistics.scalar_type()));
}

inline Tensor new_tensor(const Tensor& like, ScalarType type, const std::vector<Index>& sizes) {
  return torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, like.device());
}

inline Tensor zeros(const Tensor& like, ScalarType type, const std::vector<Index>& sizes) {
  Tensor out = new_tensor(like, type, sizes);
  return torch::stable::zero_(out);
}

inline Tensor rounded(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

}  // namespace st_block_train
}  // namespace stgcn_fast
