// What the passes need of torch: arguments, shapes, memory, statistics. Include only from cpu.cpp.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensor.h"
#include "st_block_train/arguments.h"
#include "st_block_train/st_block_train.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace st_block_train {

// Values of one chunk of an activation: with its neighbours in a pass it stays in the second-level cache.
inline constexpr Index kChunkValues = 160 * 1024;
// Chunks begin at multiples of this many output frames, the step of the fast temporal algorithm.
inline constexpr Index kChunkStep = 3;
// Rows below which another sum of a weight's gradient costs more than it brings, and the most sums.
inline constexpr Index kPartRows = 2048, kMostParts = 32;

inline const Kernels::Typed& kernels_of(Dtype dtype) {
  const Kernels& table = STGCN_FAST_SELECT_KERNELS(st_block_train_kernels);
  return dtype == Dtype::kFloat64 ? *table.float64 : dtype == Dtype::kBFloat16 ? *table.bfloat16 : *table.float32;
}

// Whether activations of the dtype are computed on as they are; if not, they are widened to float32.
inline bool is_native(ScalarType type) {
  const Kernels& table = STGCN_FAST_SELECT_KERNELS(st_block_train_kernels);
  return type == ScalarType::Float || type == ScalarType::Double ||
         (type == ScalarType::BFloat16 && table.bfloat16 != nullptr);
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

inline Call describe(const Arguments& a) {
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
  b.row = row_of(b.outputs);
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
           temporal_fast_pays(b.outputs, b.outputs, b.kernel_size, b.stride, 1, b.out_frames);
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
inline void prepare(Call& call, bool backward) {
  Block& b = call.b;
  const Kernels::Typed& k = call.kernels;
  const Index element = element_bytes(call.dtype), wide = call.wide_bytes();
  const std::size_t graph = call.shared.add(k.graph_values(b, backward) * element);
  const std::size_t temporal = call.shared.add(k.temporal_values(b, backward) * element);
  const std::size_t residual = call.shared.add(k.residual_values(b, backward) * element);
  const std::size_t edges = call.shared.add(k.edge_bytes(b));
  const std::size_t map = call.shared.add(b.joints * b.outputs * wide);
  const std::size_t coefficients = call.shared.add(kNormalisations * kCoefficients * b.row * wide);
  const std::size_t reported = call.shared.add(b.batch * b.chunks * kReported * b.row * 8);
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

inline std::vector<double> values_of(const Tensor& tensor) {
  if (tensor.scalar_type() == ScalarType::Float && tensor.is_contiguous()) {
    const auto* data = static_cast<const float*>(tensor.const_data_ptr());
    return {data, data + tensor.numel()};
  }
  const Tensor wide = as_operand(tensor, ScalarType::Double);
  const auto* data = static_cast<const double*>(wide.const_data_ptr());
  return {data, data + wide.numel()};
}

inline void set_coefficient(const Call& call, int which, int kind, Index channel, double value) {
  const Index at = (which * kCoefficients + kind) * call.b.row + channel;
  void* memory = const_cast<void*>(call.b.coefficients);
  if (call.wide == ScalarType::Double) {
    static_cast<double*>(memory)[at] = value;
  } else {
    static_cast<float*>(memory)[at] = static_cast<float>(value);
  }
}

inline double read(const Tensor& tensor, Index at) {
  return tensor.scalar_type() == ScalarType::Double ? static_cast<const double*>(tensor.const_data_ptr())[at]
                                                    : static_cast<const float*>(tensor.const_data_ptr())[at];
}

inline void write(const Tensor& tensor, Index at, double value) {
  if (tensor.scalar_type() == ScalarType::Double) {
    static_cast<double*>(tensor.mutable_data_ptr())[at] = value;
  } else {
    static_cast<float*>(tensor.mutable_data_ptr())[at] = static_cast<float>(value);
  }
}

// Merges what the chunks reported from `first` on into mean and biased variance (Chan, Golub and LeVeque 1979), in the
// order of the chunks; `step` rows a frame of output.
inline void merge_moments(const Call& call, int which, Index first, bool of_inputs, const Tensor& statistics) {
  const Block& b = call.b;
  std::vector<double> mean(static_cast<std::size_t>(b.outputs)), squares(mean.size());
  double count = 0;
  for (Index task = 0; task < b.batch * b.chunks; ++task) {
    const Index o0 = task % b.chunks * b.chunk, o1 = std::min(o0 + b.chunk, b.out_frames);
    const Index frames = of_inputs ? std::min(o1 * b.stride, b.frames) - o0 * b.stride : o1 - o0;
    const double n = static_cast<double>(frames * b.joints), total = count + n;
    const double* from = b.reported + (task * kReported + first) * b.row;
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
inline void set_normalisation(const Call& call, const Arguments& a, int which, const Tensor& statistics,
                              const Tensor& weight, const Tensor& bias) {
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
    set_coefficient(call, which, kScale, c, scale);
    set_coefficient(call, which, kShift, c, shift);
    set_coefficient(call, which, kMean, c, mean);
  }
}

// Adds up reported sums of g and g (x - mean): the gradients by weight and bias, and the coefficients of that by x.
inline void set_gradient(const Call& call, const Arguments& a, int which, Index first, double count,
                         const Tensor& statistics, const Tensor& weight, const Tensor& by_weight,
                         const Tensor& by_bias) {
  const Block& b = call.b;
  const std::vector<double> scales = values_of(weight);
  for (Index c = 0; c < b.row; ++c) {
    double by_grad = 0, by_value = 0, constant = 0;
    if (c < b.outputs) {
      double sum = 0, product = 0;
      for (Index task = 0; task < b.batch * b.chunks; ++task) {
        const double* from = b.reported + (task * kReported + first) * b.row + c;
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
    set_coefficient(call, which, kByGrad, c, by_grad);
    set_coefficient(call, which, kByValue, c, by_value);
    set_coefficient(call, which, kConstant, c, constant);
  }
}

}  // namespace st_block_train
}  // namespace stgcn_fast
