#include <torch/csrc/stable/library.h>

#include <algorithm>
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
namespace {

using st_block::Kernels;
using st_block::Operand;
using st_block::Problem;
using st_block::Residual;
using st_block::Segment;
using Index = std::int64_t;

constexpr const char* kOp = "st_block";
constexpr Index kLargest = (Index{1} << 31) - 1;

// Multiply-adds worth a thread of its own: about 30 microseconds.
constexpr double kLeastWork = 4e6;
// A copied output frame costs as much as so small a part of a computed one, for balancing only.
constexpr Index kCopiesPerFrame = 16;

std::string sizes_text(const char* names, std::initializer_list<Index> sizes) {
  std::string text = std::string(names) + " = [";
  for (const Index* size = sizes.begin(); size != sizes.end(); ++size) {
    text += (size == sizes.begin() ? "" : ", ") + std::to_string(*size);
  }
  return text + "]";
}

// Checks operands and describes them; keeps alive what the descriptions point to.
class Reader {
 public:
  explicit Reader(const Tensor& x) : x_(x) {}

  Operand read(const char* argument, const Tensor& tensor, bool fits, const std::string& rule, bool weight = false) {
    check(fits, kOp, argument, rule, shape_text(tensor));
    const Dtype dtype = dtype_of(kOp, argument, tensor), own = dtype_of(kOp, "x", x_);
    const Dtype computing = own == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
    check(dtype == own || dtype == computing, kOp, argument,
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

 private:
  static Index span(const Tensor& tensor) {
    Index last = 0;
    for (Index d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
    return last + 1;
  }

  const Tensor& x_;
  std::vector<Tensor> held_;
};

void check_residual(const Problem& p, const std::optional<Tensor>& weight, const std::optional<Tensor>& shift,
                    bool wanted) {
  check(wanted || !weight, kOp, "residual_weight", "None without a residual", "a tensor");
  check(weight || !shift, kOp, "residual_shift", "None without residual_weight", "a tensor");
  if (!wanted) return;
  check(p.sources == p.targets, kOp, "adjacency",
        "[1, K, 1, V, V] with V = " + std::to_string(p.sources) + " where there is a residual",
        "W = " + std::to_string(p.targets));
  check(weight || (p.inputs == p.outputs && p.stride == 1), kOp, "residual_weight", "given unless C = O and stride = 1",
        "None");
}

// Whether the fast temporal algorithm pays. The number of frames has no say: a clip that is cut short behind its last
// frame of interest has the same features, to the bit.
bool fast_pays(const Problem& p) {
  return temporal_fast_pays(p.outputs, p.outputs, p.kernel_size, p.stride, 1, p.group, p.group);
}

// Everything but the weights is small, and as a rule made anew for each call.
PackedSource source_of(const Operand& operand, bool named = false) {
  return {operand.data, static_cast<std::size_t>(operand.bytes), named};
}

// Which operands are there and of which dtype: three bits each.
Index dtypes_of(std::initializer_list<Operand> operands) {
  Index dtypes = 0;
  for (const Operand& operand : operands) {
    dtypes = dtypes * 8 + (operand.data == nullptr ? 0 : static_cast<Index>(operand.dtype) + 1);
  }
  return dtypes;
}

std::shared_ptr<const void> pack(const Problem& p, const Kernels& kernels, const char* kind) {
  return packed_weights(
      kind,
      {p.sources, p.targets, p.inputs, p.outputs, p.partitions, p.kernel_size, p.stride, p.fast,
       static_cast<Index>(p.residual), p.graph_weight.stride[0], p.graph_weight.stride[1], p.graph_weight.stride[2],
       p.temporal_weight.stride[0], p.temporal_weight.stride[1], p.temporal_weight.stride[2],
       p.residual_weight.stride[0], p.residual_weight.stride[1],
       dtypes_of({p.graph_weight, p.graph_bias, p.adjacency, p.scale1, p.shift1, p.temporal_weight, p.temporal_bias,
                  p.scale2, p.shift2, p.residual_weight, p.residual_shift})},
      {source_of(p.graph_weight, true), source_of(p.temporal_weight, true), source_of(p.residual_weight, true),
       source_of(p.graph_bias), source_of(p.adjacency), source_of(p.scale1), source_of(p.shift1),
       source_of(p.temporal_bias), source_of(p.scale2), source_of(p.shift2), source_of(p.residual_shift)},
      static_cast<std::size_t>(kernels.packed_bytes(p)), [&](void* to) { kernels.pack(p, to); });
}

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

double work_of(const Problem& p, Index frames) {
  const double channels = static_cast<double>(p.partitions * p.inputs * p.stride + p.kernel_size * p.outputs);
  return static_cast<double>(frames) * static_cast<double>(p.targets * p.outputs) * channels;
}

// The segments of every thread: an even share of the frames to compute and to copy, cut between groups of frames.
struct Plan {
  std::vector<Segment> segments;
  std::vector<std::size_t> begin{0};  // of each share; one more than there are shares
};

Plan make_plan(const Problem& p, const std::vector<Index>& computed) {
  Index wanted = 0;
  for (Index frames : computed) wanted += frames;
  const Index copied = p.batch * p.out_frames - wanted;
  const Index total = wanted * kCopiesPerFrame + copied;
  const double work = work_of(p, wanted) + work_of(p, copied) / kCopiesPerFrame;
  const auto worthwhile = static_cast<Index>(std::min(work / kLeastWork, 1e6));
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
  Reader reader(x);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.sources = in.joints;
  p.inputs = in.channels;
  p.stride = stride;
  check(p.sources >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  check(stride >= 1 && stride <= kLargest, kOp, "stride", "between 1 and 2147483647", stride);
  p.graph_weight = reader.read("graph_weight", graph_weight,
                               graph_weight.dim() == 3 && graph_weight.size(2) == p.inputs && graph_weight.numel() > 0,
                               "[K, O, C] with C = " + std::to_string(p.inputs), true);
  p.partitions = graph_weight.size(0);
  p.outputs = graph_weight.size(1);
  if (graph_bias) {
    const bool fits = graph_bias->dim() == 2 && graph_bias->size(0) == p.partitions && graph_bias->size(1) == p.outputs;
    p.graph_bias = reader.read("graph_bias", *graph_bias, fits, sizes_text("[K, O]", {p.partitions, p.outputs}));
  }
  const bool static_graph = adjacency.dim() == 5 && adjacency.size(0) == 1 && adjacency.size(1) == p.partitions &&
                            adjacency.size(2) == 1 && adjacency.size(3) == p.sources && adjacency.size(4) >= 1;
  p.adjacency =
      reader.read("adjacency", adjacency, static_graph,
                  "[1, K, 1, V, W] with K = " + std::to_string(p.partitions) + ", V = " + std::to_string(p.sources));
  p.targets = adjacency.size(4);
  const bool square = temporal_weight.dim() == 4 && temporal_weight.size(0) == p.outputs &&
                      temporal_weight.size(1) == p.outputs && temporal_weight.size(2) % 2 == 1 &&
                      temporal_weight.size(2) <= kLargest && temporal_weight.size(3) == 1;
  p.temporal_weight = reader.read("temporal_weight", temporal_weight, square,
                                  "[O, O, Γ, 1] with O = " + std::to_string(p.outputs) + ", Γ odd", true);
  p.kernel_size = temporal_weight.size(2);
  p.scale1 = reader.read_vector("scale1", scale1, p.outputs);
  p.shift1 = reader.read_vector("shift1", shift1, p.outputs);
  p.temporal_bias = reader.read_vector("temporal_bias", temporal_bias, p.outputs);
  p.scale2 = reader.read_vector("scale2", scale2, p.outputs);
  p.shift2 = reader.read_vector("shift2", shift2, p.outputs);
  check_residual(p, residual_weight, residual_shift, residual);
  if (residual_weight) {
    const bool fits =
        residual_weight->dim() == 2 && residual_weight->size(0) == p.outputs && residual_weight->size(1) == p.inputs;
    p.residual_weight =
        reader.read("residual_weight", *residual_weight, fits, sizes_text("[O, C]", {p.outputs, p.inputs}), true);
    p.residual_shift = reader.read_vector("residual_shift", residual_shift, p.outputs);
  }
  p.residual = !residual ? Residual::kNone : residual_weight ? Residual::kConvolution : Residual::kIdentity;
  p.out_frames = (p.frames + stride - 1) / stride;
  p.group = temporal_long_form(p.kernel_size, stride) ? kTemporalLongBlock : kTemporalBlock;

  const Result out = new_result(x, dtype, prefers_channels_last(x), p.batch, p.outputs, p.out_frames, p.targets);
  check(frames.has_value() == rest.has_value(), kOp, frames ? "rest" : "frames",
        "given where the other of frames and rest is", "None");
  std::optional<Activation> known;
  if (rest) {
    known = read_activation(kOp, "rest", *rest);
    check_same_dtype(kOp, "rest", *rest, x);
    const bool fits =
        rest->size(0) == 1 && rest->size(1) == p.outputs && rest->size(2) == p.out_frames && rest->size(3) == p.targets;
    check(fits, kOp, "rest", sizes_text("[1, O, T_out, W]", {1, p.outputs, p.out_frames, p.targets}),
          shape_text(*rest));
    p.rest = known->matrix;
  }
  const std::vector<Index> computed = computed_frames(p, frames);
  if (p.batch == 0 || p.out_frames == 0) return out.tensor;
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  p.fast = fast && fast_pays(p);

  const st_block::Table& table = STGCN_FAST_SELECT_KERNELS(st_block_kernels);
  const bool narrow = dtype == Dtype::kBFloat16 && table.bfloat16.run != nullptr;
  const Kernels& kernels = dtype == Dtype::kFloat64 ? table.float64 : narrow ? table.bfloat16 : table.float32;
  const std::shared_ptr<const void> packed = pack(p, kernels,
                                                  dtype == Dtype::kFloat64 ? "st_block.f64"
                                                  : narrow                 ? "st_block.bf16"
                                                                           : "st_block.f32");
  const Plan plan = make_plan(p, computed);
  parallel_tasks(static_cast<Index>(plan.begin.size()) - 1, [&](Index begin, Index end) {
    const Segment* segments = plan.segments.data();
    kernels.run(p, packed.get(), segments + plan.begin[static_cast<std::size_t>(begin)],
                segments + plan.begin[static_cast<std::size_t>(end)]);
  });
  return out.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("st_block", TORCH_BOX(&st_block_forward)); }

}  // namespace stgcn_fast
