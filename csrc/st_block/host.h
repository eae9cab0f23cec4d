// Blocks on the host: operands as the kernels read them, packed weights, work shared among threads. For the operators
// that run whole blocks; `op` is the name of theirs that errors begin with.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "st_block/st_block.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace st_block {

using Index = std::int64_t;

inline constexpr Index kLargest = (Index{1} << 31) - 1;

// A copied output frame costs as much as so small a part of a computed one, for balancing only.
inline constexpr Index kCopiesPerFrame = 16;

// The tensors of one block, as in the operator's schema.
struct Tensors {
  const Tensor& graph_weight;               // [K, O, C]
  const std::optional<Tensor>& graph_bias;  // [K, O]
  const Tensor& adjacency;                  // [1, K, 1, V, W]
  const std::optional<Tensor>& scale1;      // [O], as all vectors
  const std::optional<Tensor>& shift1;
  const Tensor& temporal_weight;  // [O, O, Γ, 1]
  const std::optional<Tensor>& temporal_bias;
  const std::optional<Tensor>& scale2;
  const std::optional<Tensor>& shift2;
  const std::optional<Tensor>& residual_weight;  // [O, C]
  const std::optional<Tensor>& residual_shift;
};

inline std::string sizes_text(const char* names, std::initializer_list<Index> sizes) {
  std::string text = std::string(names) + " = [";
  for (const Index* size = sizes.begin(); size != sizes.end(); ++size) {
    text += (size == sizes.begin() ? "" : ", ") + std::to_string(*size);
  }
  return text + "]";
}

// Checks operands and describes them; keeps alive what the descriptions point to.
class Reader {
 public:
  Reader(const char* op, const Tensor& x) : op_(op), x_(x) {}

  // What `problem` says of x, and the number of joints of its graph, must be there already.
  void read_block(Problem& p, const Tensors& tensors, bool residual, Index stride) {
    check(stride >= 1 && stride <= kLargest, op_, "stride", "between 1 and 2147483647", stride);
    p.stride = stride;
    p.out_frames = (p.frames + stride - 1) / stride;
    const Tensor& graph_weight = tensors.graph_weight;
    p.graph_weight = read("graph_weight", graph_weight,
                          graph_weight.dim() == 3 && graph_weight.size(2) == p.inputs && graph_weight.numel() > 0,
                          "[K, O, C] with C = " + std::to_string(p.inputs), true);
    p.partitions = graph_weight.size(0);
    p.outputs = graph_weight.size(1);
    if (tensors.graph_bias) {
      const Tensor& bias = *tensors.graph_bias;
      const bool fits = bias.dim() == 2 && bias.size(0) == p.partitions && bias.size(1) == p.outputs;
      p.graph_bias = read("graph_bias", bias, fits, sizes_text("[K, O]", {p.partitions, p.outputs}));
    }
    const Tensor& adjacency = tensors.adjacency;
    const bool static_graph = adjacency.dim() == 5 && adjacency.size(0) == 1 && adjacency.size(1) == p.partitions &&
                              adjacency.size(2) == 1 && adjacency.size(3) == p.sources && adjacency.size(4) >= 1;
    p.adjacency =
        read("adjacency", adjacency, static_graph,
             "[1, K, 1, V, W] with K = " + std::to_string(p.partitions) + ", V = " + std::to_string(p.sources));
    p.targets = adjacency.size(4);
    const Tensor& temporal_weight = tensors.temporal_weight;
    const bool square = temporal_weight.dim() == 4 && temporal_weight.size(0) == p.outputs &&
                        temporal_weight.size(1) == p.outputs && temporal_weight.size(2) % 2 == 1 &&
                        temporal_weight.size(2) <= kLargest && temporal_weight.size(3) == 1;
    p.temporal_weight = read("temporal_weight", temporal_weight, square,
                             "[O, O, Γ, 1] with O = " + std::to_string(p.outputs) + ", Γ odd", true);
    p.kernel_size = temporal_weight.size(2);
    p.group = temporal_longest_block(p.kernel_size, stride, dtype_of(op_, "x", x_) == Dtype::kBFloat16);
    p.scale1 = read_vector("scale1", tensors.scale1, p.outputs);
    p.shift1 = read_vector("shift1", tensors.shift1, p.outputs);
    p.temporal_bias = read_vector("temporal_bias", tensors.temporal_bias, p.outputs);
    p.scale2 = read_vector("scale2", tensors.scale2, p.outputs);
    p.shift2 = read_vector("shift2", tensors.shift2, p.outputs);
    read_residual(p, tensors.residual_weight, tensors.residual_shift, residual);
  }

 private:
  void read_residual(Problem& p, const std::optional<Tensor>& weight, const std::optional<Tensor>& shift, bool wanted) {
    p.residual = !wanted ? Residual::kNone : weight ? Residual::kConvolution : Residual::kIdentity;
    check(wanted || !weight, op_, "residual_weight", "None without a residual", "a tensor");
    check(weight || !shift, op_, "residual_shift", "None without residual_weight", "a tensor");
    if (!wanted) return;
    check(p.sources == p.targets, op_, "adjacency",
          "[1, K, 1, V, V] with V = " + std::to_string(p.sources) + " where there is a residual",
          "W = " + std::to_string(p.targets));
    check(weight || (p.inputs == p.outputs && p.stride == 1), op_, "residual_weight",
          "given unless C = O and stride = 1", "None");
    if (!weight) return;
    const bool fits = weight->dim() == 2 && weight->size(0) == p.outputs && weight->size(1) == p.inputs;
    p.residual_weight = read("residual_weight", *weight, fits, sizes_text("[O, C]", {p.outputs, p.inputs}), true);
    p.residual_shift = read_vector("residual_shift", shift, p.outputs);
  }

  Operand read(const char* argument, const Tensor& tensor, bool fits, const std::string& rule, bool weight = false) {
    check(fits, op_, argument, rule, shape_text(tensor));
    const Dtype dtype = dtype_of(op_, argument, tensor), own = dtype_of(op_, "x", x_);
    const Dtype computing = own == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
    check(dtype == own || dtype == computing, op_, argument,
          std::string("of x's dtype ") + dtype_name(x_.scalar_type()) + (own == computing ? "" : " or Float"),
          dtype_name(tensor.scalar_type()));
    // Weights are read as they lie, unless thinly spread over their memory: all of that is read to see whether it
    // changed. What is small is contiguous.
    constexpr Index kThin = 2;
    const bool as_it_lies = tensor.is_contiguous() || (weight && span(tensor) <= kThin * tensor.numel());
    held_.push_back(as_it_lies ? tensor : torch::stable::contiguous(tensor));
    const Tensor& dense = held_.back();
    Operand operand{dense.const_data_ptr(), dtype, {}, span(dense) * element_bytes(dtype)};
    for (Index d = 0; d < dense.dim(); ++d) operand.stride[d] = dense.stride(d);
    return operand;
  }

  Operand read_vector(const char* argument, const std::optional<Tensor>& tensor, Index outputs) {
    if (!tensor) return {};
    return read(argument, *tensor, tensor->dim() == 1 && tensor->size(0) == outputs,
                "[O] with O = " + std::to_string(outputs));
  }

  static Index span(const Tensor& tensor) {
    Index last = 0;
    for (Index d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
    return last + 1;
  }

  const char* op_;
  const Tensor& x_;
  std::vector<Tensor> held_;
};

// The kernels for activations of a dtype, under their name among packed weights.
struct Chosen {
  const Kernels& kernels;
  const char* kind;
};

inline Chosen choose_kernels(Dtype dtype) {
  const Table& table = STGCN_FAST_SELECT_KERNELS(st_block_kernels);
  if (dtype == Dtype::kFloat64) return {table.float64, "st_block.f64"};
  if (dtype == Dtype::kBFloat16 && table.bfloat16.run != nullptr) return {table.bfloat16, "st_block.bf16"};
  return {table.float32, "st_block.f32"};
}

// Whether the fast temporal algorithm pays. The number of frames has no say: a clip that is cut short behind its last
// frame of interest has the same features, to the bit.
inline bool fast_pays(const Problem& p) {
  // A panel whose last vector of outputs is not whole is written value by value: where the direct form multiplies
  // bfloat16, that pays only for a small part of the outputs.
  constexpr Index kVector = 16, kPanel = 32, kSmallPart = 8;
  const Index ragged = p.outputs % kVector == 0 ? 0 : p.outputs % kPanel;
  if (p.group == kTemporalRoundedBlock && computes_bfloat16() && ragged * kSmallPart > p.outputs) return false;
  return temporal_fast_pays(p.outputs, p.outputs, p.kernel_size, p.stride, 1, p.group, p.group);
}

// Everything but the weights is small, and as a rule made anew for each call.
inline PackedSource source_of(const Operand& operand, bool named = false) {
  return {operand.data, static_cast<std::size_t>(operand.bytes), named};
}

// Which operands are there and of which dtype: three bits each.
inline Index dtypes_of(std::initializer_list<Operand> operands) {
  Index dtypes = 0;
  for (const Operand& operand : operands) {
    dtypes = dtypes * 8 + (operand.data == nullptr ? 0 : static_cast<Index>(operand.dtype) + 1);
  }
  return dtypes;
}

inline std::shared_ptr<const void> pack(const Problem& p, const Chosen& chosen) {
  return packed_weights(
      chosen.kind,
      {p.sources, p.targets, p.inputs, p.outputs, p.partitions, p.kernel_size, p.stride, p.fast, p.group,
       static_cast<Index>(p.residual), p.graph_weight.stride[0], p.graph_weight.stride[1], p.graph_weight.stride[2],
       p.temporal_weight.stride[0], p.temporal_weight.stride[1], p.temporal_weight.stride[2],
       p.residual_weight.stride[0], p.residual_weight.stride[1],
       dtypes_of({p.graph_weight, p.graph_bias, p.adjacency, p.scale1, p.shift1, p.temporal_weight, p.temporal_bias,
                  p.scale2, p.shift2, p.residual_weight, p.residual_shift})},
      {source_of(p.graph_weight, true), source_of(p.temporal_weight, true), source_of(p.residual_weight, true),
       source_of(p.graph_bias), source_of(p.adjacency), source_of(p.scale1), source_of(p.shift1),
       source_of(p.temporal_bias), source_of(p.scale2), source_of(p.shift2), source_of(p.residual_shift)},
      static_cast<std::size_t>(chosen.kernels.packed_bytes(p)), [&](void* to) { chosen.kernels.pack(p, to); });
}

// Multiply-adds of `frames` output frames.
inline double work_of(const Problem& p, Index frames) {
  const double channels = static_cast<double>(p.partitions * p.inputs * p.stride + p.kernel_size * p.outputs);
  return static_cast<double>(frames) * static_cast<double>(p.targets * p.outputs) * channels;
}

// The segments of every thread: an even share of the frames to compute and to copy, cut between groups of frames.
struct Plan {
  std::vector<Segment> segments;
  std::vector<std::size_t> begin{0};  // of each share; one more than there are shares
};

inline Plan make_plan(const Problem& p, const std::vector<Index>& computed) {
  Index wanted = 0;
  for (Index frames : computed) wanted += frames;
  const Index copied = p.batch * p.out_frames - wanted;
  const Index total = wanted * kCopiesPerFrame + copied;
  const double work = work_of(p, wanted) + work_of(p, copied) / kCopiesPerFrame;
  const auto worthwhile = static_cast<Index>(std::min(work / static_cast<double>(least_work()), 1e6));
  const Index shares = std::max<Index>(1, std::min(thread_count(), worthwhile));
  Plan plan;
  Index share = 0, done = 0;  // of the total
  const auto add = [&](Index n, Index first, Index last, bool known) {
    const Index cost = known ? 1 : kCopiesPerFrame;
    while (first < last) {
      const Index limit = (share + 1) * total / shares;
      Index cut = last;
      if (share + 1 < shares && done + (last - first) * cost > limit) {
        const Index room = std::max<Index>(0, limit - done) / cost;
        cut = std::min(last, (first + room + p.group / 2) / p.group * p.group);
      }
      if (cut > first) {
        plan.segments.push_back({n, first, cut, known});
        done += (cut - first) * cost;
      }
      if (cut < last) {
        plan.begin.push_back(plan.segments.size());
        ++share;
      }
      first = std::max(first, cut);
    }
  };
  for (Index n = 0; n < p.batch; ++n) {
    const Index frames = computed[static_cast<std::size_t>(n)];
    add(n, 0, frames, false);
    add(n, frames, p.out_frames, true);
  }
  plan.begin.push_back(plan.segments.size());
  return plan;
}

// One block on all threads: the first `computed[n]` output frames of sample n are computed, the others copied.
inline void run_block(const Problem& p, const Kernels& kernels, const void* packed,
                      const std::vector<Index>& computed) {
  const Plan plan = make_plan(p, computed);
  parallel_tasks(static_cast<Index>(plan.begin.size()) - 1, [&](Index begin, Index end) {
    const Segment* segments = plan.segments.data();
    kernels.run(p, packed, segments + plan.begin[static_cast<std::size_t>(begin)],
                segments + plan.begin[static_cast<std::size_t>(end)]);
  });
}

}  // namespace st_block
}  // namespace stgcn_fast
