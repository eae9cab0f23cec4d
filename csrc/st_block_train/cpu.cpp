#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "st_block_train/st_block_train.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace {

using st_block_train::Block;
using st_block_train::Kernels;
using st_block_train::Operands;
using Index = std::int64_t;
using MaybeTensor = std::optional<Tensor>;

constexpr Index kLargest = (Index{1} << 31) - 1;
// Values of one chunk of an activation: with its neighbours in a pass it stays in the second-level cache.
constexpr Index kChunkValues = 160 * 1024;
// Chunks begin at multiples of this many output frames, the step of the fast temporal algorithm.
constexpr Index kChunkStep = 3;
// Rows below which another sum of a weight's gradient costs more than it brings, and the most sums.
constexpr Index kPartRows = 2048, kMostParts = 32;

struct Arguments {
  const char* op;
  Tensor x, graph_weight, adjacency, weight1, bias1, temporal_weight, weight2, bias2, seed;
  MaybeTensor graph_bias, residual_weight, weight_r, bias_r, support;
  double eps[st_block_train::kNormalisations];
  bool residual;
  Index stride;
  double dropout;
  bool fast;
};

const Kernels::Typed& kernels_of(Dtype dtype) {
  const Kernels& table = STGCN_FAST_SELECT_KERNELS(st_block_train_kernels);
  return dtype == Dtype::kFloat64 ? *table.float64 : dtype == Dtype::kBFloat16 ? *table.bfloat16 : *table.float32;
}

// Whether activations of the dtype are computed on as they are; if not, they are widened to float32.
bool is_native(ScalarType type) {
  const Kernels& table = STGCN_FAST_SELECT_KERNELS(st_block_train_kernels);
  return type == ScalarType::Float || type == ScalarType::Double ||
         (type == ScalarType::BFloat16 && table.bfloat16 != nullptr);
}

void check_shape(const Arguments& a, const char* argument, const Tensor& tensor, const std::string& axes,
                 const std::vector<Index>& sizes) {
  bool fits = tensor.dim() == static_cast<Index>(sizes.size());
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = tensor.size(static_cast<Index>(i)) == sizes[i];
  std::string rule = axes + " = [";
  for (std::size_t i = 0; i < sizes.size(); ++i) rule += (i ? ", " : "") + std::to_string(sizes[i]);
  check(fits, a.op, argument, rule + "]", shape_text(tensor));
}

void check_arguments(const Arguments& a) {
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

// A carver of one block of memory: first the sizes, then the addresses.
class Carver {
 public:
  std::size_t add(Index bytes) {
    const std::size_t at = size_;
    size_ += static_cast<std::size_t>((bytes + 63) / 64 * 64);
    return at;
  }
  void allocate(Slot slot) { base_ = static_cast<char*>(scratch_bytes(slot, size_)); }
  void* at(std::size_t offset) const { return base_ + offset; }

 private:
  std::size_t size_ = 0;
  char* base_ = nullptr;
};

// What a call holds: the block, its operands in the accumulating type, working memory.
struct Call {
  Block b{};
  Dtype dtype;
  ScalarType wide;  // of sums and statistics
  const Kernels::Typed& kernels;
  Operands operands{};
  std::vector<Tensor> held;
  std::optional<Activation> x;
  Carver shared;

  explicit Call(Dtype type)
      : dtype(type),
        wide(type == Dtype::kFloat64 ? ScalarType::Double : ScalarType::Float),
        kernels(kernels_of(type)) {}

  Index wide_bytes() const { return wide == ScalarType::Double ? 8 : 4; }

  const void* hold(const Tensor& tensor) {
    held.push_back(as_operand(tensor, wide));
    return held.back().const_data_ptr();
  }

  // Multiply-adds of a pass.
  double rows() const { return static_cast<double>(b.batch * b.frames * b.joints); }
  double elementwise_work() const { return rows() * static_cast<double>(b.outputs) * 8; }
  double product_work(Index depth) const {
    return rows() * static_cast<double>(depth) * static_cast<double>(b.outputs);
  }
};

Call describe(const Arguments& a) {
  Call call(dtype_of(a.op, "x", a.x));
  Block& b = call.b;
  call.x = read_activation(a.op, "x", a.x);
  b.batch = call.x->batch;
  b.inputs = call.x->channels;
  b.frames = call.x->frames;
  b.joints = call.x->joints;
  b.partitions = a.graph_weight.size(0);
  b.outputs = a.graph_weight.size(1);
  b.kernel_size = a.temporal_weight.size(2);
  b.stride = a.stride;
  b.out_frames = (b.frames + b.stride - 1) / b.stride;
  b.row = (b.outputs + st_block_train::kAligned - 1) / st_block_train::kAligned * st_block_train::kAligned;
  b.convolved = a.residual_weight.has_value();
  b.identity = a.residual && !b.convolved;
  const Index widest = std::max(b.row, b.inputs) * b.joints * b.stride;
  const Index wanted = std::max(kChunkStep, kChunkValues / widest / kChunkStep * kChunkStep);
  const Index count = std::max<Index>(1, (b.out_frames + wanted - 1) / wanted);
  const Index even = (b.out_frames + count - 1) / count;
  b.chunk = std::max(kChunkStep, (even + kChunkStep - 1) / kChunkStep * kChunkStep);
  b.chunks = (b.out_frames + b.chunk - 1) / b.chunk;
  b.parts = 1;
  const Index rows = b.batch * b.out_frames * b.joints;
  while (b.parts < kMostParts && b.parts * 2 <= b.batch * b.chunks && b.parts * kPartRows < rows) b.parts *= 2;
  b.fast = a.fast && call.kernels.has_fast_form(b) &&
           temporal_fast_pays(b.outputs, b.outputs, b.kernel_size, b.stride, 1, b.frames);
  constexpr double kResolution = 65536;
  b.seed = static_cast<std::uint64_t>(*static_cast<const std::int64_t*>(a.seed.const_data_ptr()));
  b.threshold = static_cast<std::int32_t>(std::nearbyint(a.dropout * kResolution));
  b.scale = b.threshold < kResolution ? kResolution / (kResolution - b.threshold) : 0.0;
  b.x = call.x->matrix;
  b.x_batch = call.x->batch_stride;
  call.operands.graph_weight = call.hold(a.graph_weight);
  call.operands.temporal_weight = call.hold(a.temporal_weight);
  call.operands.adjacency = call.hold(a.adjacency);
  if (a.residual_weight) call.operands.residual_weight = call.hold(*a.residual_weight);
  if (a.graph_bias) call.operands.bias = call.hold(*a.graph_bias);
  return call;
}

// Packs the weights and lists the edges; `reported` and coefficients get their memory.
void prepare(Call& call, bool backward) {
  Block& b = call.b;
  const Kernels::Typed& k = call.kernels;
  const Index element = element_bytes(call.dtype), wide = call.wide_bytes();
  const std::size_t graph = call.shared.add(k.graph_values(b, backward) * element);
  const std::size_t temporal = call.shared.add(k.temporal_values(b, backward) * element);
  const std::size_t residual = call.shared.add(k.residual_values(b, backward) * element);
  const std::size_t edges = call.shared.add(k.edge_bytes(b));
  const std::size_t map = call.shared.add(b.joints * b.outputs * wide);
  const std::size_t coefficients =
      call.shared.add(st_block_train::kNormalisations * st_block_train::kCoefficients * b.row * wide);
  const std::size_t reported = call.shared.add(b.batch * b.chunks * st_block_train::kReported * b.row * 8);
  call.shared.allocate(Slot::kSharedWeight);
  b.graph_weight = call.shared.at(graph);
  b.temporal_weight = call.shared.at(temporal);
  b.residual_weight = call.shared.at(residual);
  b.edge = call.shared.at(edges);
  b.coefficients = call.shared.at(coefficients);
  b.reported = static_cast<double*>(call.shared.at(reported));
  b.begin = k.list_edges(b, call.operands, call.shared.at(edges));
  if (call.operands.bias != nullptr && !backward) {
    k.bias_map(b, call.operands, call.shared.at(map));
    b.bias_map = call.shared.at(map);
  }
  const double values =
      static_cast<double>(b.outputs) * static_cast<double>(b.outputs * b.kernel_size + b.inputs * b.partitions);
  parallel_tasks(k.pack_tasks(b, backward), 8 * values,
                 [&](Index begin, Index end) { k.pack(b, call.operands, backward, begin, end); });
}

std::vector<double> values_of(const Tensor& tensor) {
  if (tensor.scalar_type() == ScalarType::Float && tensor.is_contiguous()) {
    const auto* data = static_cast<const float*>(tensor.const_data_ptr());
    return {data, data + tensor.numel()};
  }
  const Tensor wide = as_operand(tensor, ScalarType::Double);
  const auto* data = static_cast<const double*>(wide.const_data_ptr());
  return {data, data + wide.numel()};
}

void set_coefficient(const Call& call, int which, int kind, Index channel, double value) {
  const Index at = (which * st_block_train::kCoefficients + kind) * call.b.row + channel;
  void* memory = const_cast<void*>(call.b.coefficients);
  if (call.wide == ScalarType::Double) {
    static_cast<double*>(memory)[at] = value;
  } else {
    static_cast<float*>(memory)[at] = static_cast<float>(value);
  }
}

double read(const Tensor& tensor, Index at) {
  return tensor.scalar_type() == ScalarType::Double ? static_cast<const double*>(tensor.const_data_ptr())[at]
                                                    : static_cast<const float*>(tensor.const_data_ptr())[at];
}

void write(const Tensor& tensor, Index at, double value) {
  if (tensor.scalar_type() == ScalarType::Double) {
    static_cast<double*>(tensor.mutable_data_ptr())[at] = value;
  } else {
    static_cast<float*>(tensor.mutable_data_ptr())[at] = static_cast<float>(value);
  }
}

// Merges what the chunks reported from `first` on into mean and biased variance (Chan, Golub and LeVeque 1979), in the
// order of the chunks; `step` rows a frame of output.
void merge_moments(const Call& call, int which, Index first, bool of_inputs, const Tensor& statistics) {
  const Block& b = call.b;
  std::vector<double> mean(static_cast<std::size_t>(b.outputs)), squares(mean.size());
  double count = 0;
  for (Index task = 0; task < b.batch * b.chunks; ++task) {
    const Index o0 = task % b.chunks * b.chunk, o1 = std::min(o0 + b.chunk, b.out_frames);
    const Index frames = of_inputs ? std::min(o1 * b.stride, b.frames) - o0 * b.stride : o1 - o0;
    const double n = static_cast<double>(frames * b.joints), total = count + n;
    const double* from = b.reported + (task * st_block_train::kReported + first) * b.row;
    for (std::size_t c = 0; c < mean.size(); ++c) {
      const double delta = from[c] - mean[c];
      mean[c] += delta * (n / total);
      squares[c] += from[static_cast<Index>(c) + b.row] + delta * delta * (count * n / total);
    }
    count = total;
  }
  for (Index c = 0; c < b.outputs; ++c) {
    write(statistics, (2 * which) * b.outputs + c, mean[static_cast<std::size_t>(c)]);
    write(statistics, (2 * which + 1) * b.outputs + c, squares[static_cast<std::size_t>(c)] / count);
  }
}

// Scale, shift and mean of a normalisation.
void set_normalisation(const Call& call, const Arguments& a, int which, const Tensor& statistics, const Tensor& weight,
                       const Tensor& bias) {
  const Block& b = call.b;
  const std::vector<double> scales = values_of(weight), shifts = values_of(bias);
  for (Index c = 0; c < b.row; ++c) {
    double scale = 0, shift = 0, mean = 0;
    if (c < b.outputs) {
      mean = read(statistics, 2 * which * b.outputs + c);
      scale = scales[static_cast<std::size_t>(c)] /
              std::sqrt(read(statistics, (2 * which + 1) * b.outputs + c) + a.eps[which]);
      shift = shifts[static_cast<std::size_t>(c)] - scale * mean;
    }
    set_coefficient(call, which, st_block_train::kScale, c, scale);
    set_coefficient(call, which, st_block_train::kShift, c, shift);
    set_coefficient(call, which, st_block_train::kMean, c, mean);
  }
}

// Adds up reported sums of g and g (x - mean): the gradients by weight and bias, and the coefficients of that by x.
void set_gradient(const Call& call, const Arguments& a, int which, Index first, double count, const Tensor& statistics,
                  const Tensor& weight, const Tensor& by_weight, const Tensor& by_bias) {
  const Block& b = call.b;
  const std::vector<double> scales = values_of(weight);
  for (Index c = 0; c < b.row; ++c) {
    double by_grad = 0, by_value = 0, constant = 0;
    if (c < b.outputs) {
      double sum = 0, product = 0;
      for (Index task = 0; task < b.batch * b.chunks; ++task) {
        const double* from = b.reported + (task * st_block_train::kReported + first) * b.row + c;
        sum += from[0];
        product += from[b.row];
      }
      const double mean = read(statistics, 2 * which * b.outputs + c);
      const double inverse = 1 / std::sqrt(read(statistics, (2 * which + 1) * b.outputs + c) + a.eps[which]);
      by_grad = scales[static_cast<std::size_t>(c)] * inverse;
      by_value = -by_grad * inverse * inverse * product / count;
      constant = -by_grad * sum / count - by_value * mean;
      write(by_weight, c, product * inverse);
      write(by_bias, c, sum);
    }
    set_coefficient(call, which, st_block_train::kByGrad, c, by_grad);
    set_coefficient(call, which, st_block_train::kByValue, c, by_value);
    set_coefficient(call, which, st_block_train::kConstant, c, constant);
  }
}

Tensor new_tensor(const Tensor& like, ScalarType type, const std::vector<Index>& sizes) {
  return torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, like.device());
}

Tensor zeros(const Tensor& like, ScalarType type, const std::vector<Index>& sizes) {
  Tensor out = new_tensor(like, type, sizes);
  return torch::stable::zero_(out);
}

Tensor rounded(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

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
  using st_block_train::kGraph;
  using st_block_train::kResidual;
  using st_block_train::kTemporal;
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

struct Saved {
  Tensor grad, out, y, z, r, statistics;
  bool need_x, need_adjacency;
};

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
  std::vector<char> ones;
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
  using st_block_train::kGraph;
  using st_block_train::kResidual;
  using st_block_train::kTemporal;
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

Arguments arguments_of(const char* op, const Tensor& x, const Tensor& graph_weight, const MaybeTensor& graph_bias,
                       const Tensor& adjacency, const Tensor& weight1, const Tensor& bias1,
                       const Tensor& temporal_weight, const Tensor& weight2, const Tensor& bias2,
                       const MaybeTensor& residual_weight, const MaybeTensor& weight_r, const MaybeTensor& bias_r,
                       const MaybeTensor& support, const Tensor& seed, double eps1, double eps2, double eps_r,
                       bool residual, Index stride, double dropout, bool fast) {
  Arguments a{op,      x,          graph_weight,    adjacency, weight1, bias1,   temporal_weight,     weight2,  bias2,
              seed,    graph_bias, residual_weight, weight_r,  bias_r,  support, {eps1, eps2, eps_r}, residual, stride,
              dropout, fast};
  check_arguments(a);
  return a;
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
  const Index frames = (x.size(2) + stride - 1) / stride, outputs = graph_weight.size(1), joints = x.size(3);
  const Index row = (outputs + st_block_train::kAligned - 1) / st_block_train::kAligned * st_block_train::kAligned;
  for (const Tensor* t : {&grad, &out}) {
    check_shape(a, "grad and out", *t, "[N, O, T_out, V]", {x.size(0), outputs, frames, joints});
    check_same_dtype(kOp, "grad and out", *t, x);
  }
  check_shape(a, "y", y, "[N, T, V, O rounded up]", {x.size(0), x.size(2), joints, row});
  check_shape(a, "z", z, "[N, T_out, V, O rounded up]", {x.size(0), frames, joints, row});
  if (residual_weight) check_shape(a, "r", r, "[N, T_out, V, O rounded up]", {x.size(0), frames, joints, row});
  check_shape(a, "statistics", statistics, "[3, 2, O]", {3, 2, outputs});
  const ScalarType type = x.scalar_type(), sums = type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check(statistics.scalar_type() == sums, kOp, "statistics", std::string("of dtype ") + dtype_name(sums),
        dtype_name(statistics.scalar_type()));
  const auto dense = [&](const Tensor& t) {
    check_same_dtype(kOp, "y, z and r", t, x);
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
