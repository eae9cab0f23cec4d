#include <array>
#include <tuple>

#include "st_block_train/host.h"

namespace stgcn_fast {
namespace {

using namespace st_block_train;  // NOLINT: the contract of this folder

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Forward forward(const Arguments& a) {
  Call call = describe(a);
  Block& b = call.b;
  const Kernels::Typed& k = call.kernels;
  const ScalarType type = a.x.scalar_type();
  const Result out =
      new_result(a.x, call.dtype, prefers_channels_last(a.x), b.batch, b.outputs, b.out_frames, b.joints);
  const Tensor y = new_tensor(a.x, type, {b.batch, b.frames, b.joints, b.row});
  const Tensor z = new_tensor(a.x, type, {b.batch, b.out_frames, b.joints, b.row});
  const Tensor r =
      b.convolved ? new_tensor(a.x, type, {b.batch, b.out_frames, b.joints, b.row}) : new_tensor(a.x, type, {0});
  const Tensor statistics = zeros(a.x, call.wide, {3, 2, b.outputs});
  if (out.tensor.numel() == 0) return {out.tensor, y, z, r, statistics};
  b.y = y.mutable_data_ptr();
  b.z = z.mutable_data_ptr();
  b.r = b.convolved ? r.mutable_data_ptr() : nullptr;
  b.out = out.matrix;
  b.out_batch = out.batch_stride;
  prepare(call, false);
  const Index tasks = b.batch * b.chunks;
  parallel_tasks(tasks, call.product_work(b.inputs * b.partitions), [&](Index i, Index j) { k.graph(b, i, j); });
  merge_moments(call, kGraph, 0, true, statistics);
  if (b.convolved) merge_moments(call, kResidual, 2, false, statistics);
  set_normalisation(call, a, kGraph, statistics, a.weight1, a.bias1);
  if (b.convolved) set_normalisation(call, a, kResidual, statistics, *a.weight_r, *a.bias_r);
  parallel_tasks(tasks, call.product_work(b.outputs * b.kernel_size), [&](Index i, Index j) { k.temporal(b, i, j); });
  merge_moments(call, kTemporal, 0, false, statistics);
  set_normalisation(call, a, kTemporal, statistics, a.weight2, a.bias2);
  parallel_tasks(tasks, call.elementwise_work(), [&](Index i, Index j) { k.result(b, i, j); });
  return {out.tensor, y, z, r, statistics};
}

// Gradients in the order of the schema.
using Gradients = std::array<Tensor, 12>;
enum Gradient { kX, kGraphWeight, kGraphBias, kAdjacency, kWeight1, kBias1, kTemporalWeight, kWeight2, kBias2 };
constexpr int kResidualWeight = 9, kWeightR = 10, kBiasR = 11;

Gradients backward(const Arguments& a, const Saved& s) {
  Call call = describe(a);
  Block& b = call.b;
  const Kernels::Typed& k = call.kernels;
  const ScalarType wide = call.wide, type = a.x.scalar_type();
  const auto none = [&] { return new_tensor(a.x, type, {0}); };
  const auto channels = [&] { return zeros(a.x, wide, {b.outputs}); };
  const bool empty = s.out.numel() == 0;
  std::optional<Result> by_x;
  if (s.need_x) by_x = new_result(a.x, call.dtype, prefers_channels_last(a.x), b.batch, b.inputs, b.frames, b.joints);
  Gradients g{s.need_x ? by_x->tensor : none(),
              zeros(a.x, wide, {b.partitions, b.outputs, b.inputs}),
              a.graph_bias ? zeros(a.x, wide, {b.partitions, b.outputs}) : none(),
              s.need_adjacency ? zeros(a.x, wide, {1, b.partitions, 1, b.joints, b.joints}) : none(),
              channels(),
              channels(),
              zeros(a.x, wide, {b.outputs, b.outputs, b.kernel_size, 1}),
              channels(),
              channels(),
              b.convolved ? zeros(a.x, wide, {b.outputs, b.inputs}) : none(),
              b.convolved ? channels() : none(),
              b.convolved ? channels() : none()};
  if (empty) return g;

  const Activation grad = read_activation(a.op, "grad", s.grad), out = read_activation(a.op, "out", s.out);
  b.grad = grad.matrix;
  b.grad_batch = grad.batch_stride;
  b.result = out.matrix;
  b.result_batch = out.batch_stride;
  b.y = const_cast<void*>(s.y.const_data_ptr());
  b.z = const_cast<void*>(s.z.const_data_ptr());
  b.r = b.convolved ? const_cast<void*>(s.r.const_data_ptr()) : nullptr;
  if (s.need_adjacency) {
    call.operands.support = a.support ? call.hold(*a.support) : nullptr;
    if (!a.support) {
      call.held.push_back(torch::stable::fill_(g[kAdjacency], 1.0));
      call.held.back() = torch::stable::clone(g[kAdjacency]);
      torch::stable::zero_(g[kAdjacency]);
      call.operands.support = call.held.back().const_data_ptr();
    }
  }
  b.want_edges = s.need_adjacency;
  b.want_joints = a.graph_bias.has_value();
  prepare(call, true);
  set_normalisation(call, a, kGraph, s.statistics, a.weight1, a.bias1);
  set_normalisation(call, a, kTemporal, s.statistics, a.weight2, a.bias2);
  if (b.convolved) set_normalisation(call, a, kResidual, s.statistics, *a.weight_r, *a.bias_r);

  const Index tasks = b.batch * b.chunks, size = call.wide_bytes();
  const double out_rows = static_cast<double>(b.batch * b.out_frames * b.joints);
  parallel_tasks(tasks, call.elementwise_work(), [&](Index i, Index j) { k.backward_sums(b, i, j); });
  set_gradient(call, a, kTemporal, 0, out_rows, s.statistics, a.weight2, g[kWeight2], g[kBias2]);
  if (b.convolved) set_gradient(call, a, kResidual, 2, out_rows, s.statistics, *a.weight_r, g[kWeightR], g[kBiasR]);

  // dyh goes where dx will be, if that has its shape: a chunk's is read before its dx is written.
  std::optional<Tensor> by_h;
  if (s.need_x && b.inputs == b.outputs && b.row == b.outputs && by_x->matrix.channel == 1) {
    b.by_h = by_x->tensor.mutable_data_ptr();
  } else {
    by_h = new_tensor(a.x, type, {b.batch, b.frames, b.joints, b.row});
    b.by_h = by_h->mutable_data_ptr();
  }
  b.by_h_row = b.row;
  if (s.need_x) {
    b.by_x = by_x->matrix;
    b.by_x_batch = by_x->batch_stride;
  }
  const Index temporal = k.temporal_sums(b), graph = k.graph_sums(b), other = b.convolved ? k.residual_sums(b) : 0;
  Carver sums;
  const std::size_t at_graph = sums.add(b.parts * graph * size), at_other = sums.add(b.parts * other * size);
  const std::size_t at_temporal = sums.add(b.parts * temporal * size);
  sums.allocate(Slot::kSharedPartial);
  b.temporal_sums = sums.at(at_temporal);
  b.graph_sums = sums.at(at_graph);
  b.residual_sums = sums.at(at_other);
  parallel_tasks(b.parts, 2 * call.product_work(b.outputs * b.kernel_size),
                 [&](Index i, Index j) { k.backward_temporal(b, i, j); });
  parallel_tasks(k.temporal_tasks(b), static_cast<double>(temporal * b.parts * 4),
                 [&](Index i, Index j) { k.temporal_gradient(b, g[kTemporalWeight].mutable_data_ptr(), i, j); });
  set_gradient(call, a, kGraph, 0, call.rows(), s.statistics, a.weight1, g[kWeight1], g[kBias1]);
  parallel_tasks(b.parts, 2 * call.product_work(b.inputs * b.partitions),
                 [&](Index i, Index j) { k.backward_graph(b, i, j); });
  constexpr Index kMerged = 4096;
  parallel_tasks((graph + kMerged - 1) / kMerged, static_cast<double>(graph * b.parts * 4),
                 [&](Index i, Index j) { k.merge_graph(b, i * kMerged, std::min(j * kMerged, graph)); });
  k.graph_gradients(b, call.operands, g[kGraphWeight].mutable_data_ptr(),
                    s.need_adjacency ? g[kAdjacency].mutable_data_ptr() : nullptr,
                    a.graph_bias ? g[kGraphBias].mutable_data_ptr() : nullptr);
  if (b.convolved) k.residual_gradient(b, g[kResidualWeight].mutable_data_ptr());
  return g;
}

MaybeTensor widened(const MaybeTensor& tensor) {
  return tensor ? MaybeTensor(torch::stable::to(*tensor, ScalarType::Float)) : std::nullopt;
}

// The same call with everything that has the dtype of x in float32.
Arguments widened(const Arguments& a) {
  Arguments wide = a;
  for (Tensor* t : {&wide.x, &wide.graph_weight, &wide.adjacency, &wide.temporal_weight}) {
    *t = torch::stable::to(*t, ScalarType::Float);
  }
  wide.graph_bias = widened(a.graph_bias);
  wide.residual_weight = widened(a.residual_weight);
  return wide;
}

Forward st_block_train_forward(const Tensor& x, const Tensor& graph_weight, const MaybeTensor& graph_bias,
                               const Tensor& adjacency, const Tensor& weight1, const Tensor& bias1,
                               const Tensor& temporal_weight, const MaybeTensor&, const Tensor& weight2,
                               const Tensor& bias2, const MaybeTensor& residual_weight, const MaybeTensor&,
                               const MaybeTensor& weight_r, const MaybeTensor& bias_r, const MaybeTensor& support,
                               const Tensor& seed, double eps1, double eps2, double eps_r, bool residual, Index stride,
                               double dropout, bool fast) {
  const Arguments a = arguments_of("st_block_train", x, graph_weight, graph_bias, adjacency, weight1, bias1,
                                   temporal_weight, weight2, bias2, residual_weight, weight_r, bias_r, support, seed,
                                   eps1, eps2, eps_r, residual, stride, dropout, fast);
  const ScalarType type = x.scalar_type();
  if (is_native(type)) return forward(a);
  const auto [out, y, z, r, statistics] = forward(widened(a));
  return {rounded(out, type), rounded(y, type), rounded(z, type), rounded(r, type), statistics};
}

using Backward =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Backward st_block_train_backward(const Tensor& grad, const Tensor& out, const Tensor& y, const Tensor& z,
                                 const Tensor& r, const Tensor& statistics, const Tensor& x, const Tensor& graph_weight,
                                 const MaybeTensor& graph_bias, const Tensor& adjacency, const Tensor& weight1,
                                 const Tensor& bias1, const Tensor& temporal_weight, const MaybeTensor&,
                                 const Tensor& weight2, const Tensor& bias2, const MaybeTensor& residual_weight,
                                 const MaybeTensor&, const MaybeTensor& weight_r, const MaybeTensor& bias_r,
                                 const MaybeTensor& support, const Tensor& seed, double eps1, double eps2, double eps_r,
                                 bool residual, Index stride, double dropout, bool fast, bool need_x,
                                 bool need_adjacency) {
  constexpr const char* kOp = "st_block_train_backward";
  const Arguments a = arguments_of(kOp, x, graph_weight, graph_bias, adjacency, weight1, bias1, temporal_weight,
                                   weight2, bias2, residual_weight, weight_r, bias_r, support, seed, eps1, eps2, eps_r,
                                   residual, stride, dropout, fast);
  check_saved(a, {grad, out, y, z, r, statistics, need_x, need_adjacency});
  const ScalarType type = x.scalar_type();
  const auto dense = [&](const Tensor& t) {
    const Tensor wide = is_native(type) ? t : torch::stable::to(t, ScalarType::Float);
    return wide.is_contiguous() ? wide : torch::stable::contiguous(wide);
  };
  const auto activation = [&](const Tensor& t) {
    return is_native(type) ? t : torch::stable::to(t, ScalarType::Float);
  };
  const Saved saved{activation(grad), activation(out),
                    dense(y),         dense(z),
                    dense(r),         statistics.is_contiguous() ? statistics : torch::stable::contiguous(statistics),
                    need_x,           need_adjacency};
  Gradients g = backward(is_native(type) ? a : widened(a), saved);
  const std::array<ScalarType, 12> types{type,
                                         type,
                                         type,
                                         type,
                                         weight1.scalar_type(),
                                         bias1.scalar_type(),
                                         type,
                                         weight2.scalar_type(),
                                         bias2.scalar_type(),
                                         type,
                                         weight_r ? weight_r->scalar_type() : type,
                                         bias_r ? bias_r->scalar_type() : type};
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = rounded(g[i], types[i]);
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) {
  m.impl("st_block_train", TORCH_BOX(&st_block_train_forward));
  m.impl("st_block_train_backward", TORCH_BOX(&st_block_train_backward));
}

}  // namespace stgcn_fast
