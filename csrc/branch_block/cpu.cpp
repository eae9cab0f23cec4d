#include "branch_block/branch_block.h"

#include <torch/csrc/stable/library.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/packed.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace {

using branch_block::Branch;
using branch_block::Convolution;
using branch_block::Problem;
using branch_block::Segment;
using Index = std::int64_t;

constexpr const char* kOp = "branch_block";
constexpr Index kLargest = (Index{1} << 31) - 1;
// Fewer output frames are not worth a thread of their own: each piece computes the frames around it again.
constexpr Index kLeastFrames = 16;

std::string sizes_text(const char* names, std::initializer_list<Index> sizes) {
  std::string text = std::string(names) + " = [";
  for (const Index* size = sizes.begin(); size != sizes.end(); ++size) {
    text += (size == sizes.begin() ? "" : ", ") + std::to_string(*size);
  }
  return text + "]";
}

// Checks operands, packs weights, and keeps alive what the problem points to.
class Reader {
 public:
  Reader(const Tensor& x, Dtype dtype, bool fast)
      : x_(x),
        type_(compute_type(dtype)),
        wide_(dtype == Dtype::kFloat64),
        fast_(fast),
        table_(STGCN_FAST_SELECT_KERNELS(branch_block_kernels)),
        kernels_(wide_ ? table_.float64 : table_.float32) {}

  const branch_block::Kernels& kernels() const { return kernels_; }

  const void* vector(const char* argument, const Tensor& tensor, Index size) {
    return small(argument, tensor, tensor.dim() == 1 && tensor.size(0) == size,
                 "[" + std::to_string(size) + "], one value a channel");
  }

  const void* small(const char* argument, const Tensor& tensor, bool fits, const std::string& rule) {
    check(fits, kOp, argument, rule, shape_text(tensor));
    return hold(argument, tensor).const_data_ptr();
  }

  // A kernel over frames, as a problem needs it but for its packed weights.
  Convolution convolution(const void* weight, const void* bias, Index outputs, Index inputs, Index taps, Index stride,
                          Index dilation, Index joints) {
    Convolution c{};
    c.inputs = inputs;
    c.outputs = outputs;
    c.kernel_size = taps;
    c.stride = stride;
    c.dilation = dilation;
    c.joints = joints;
    c.weight = weight;
    c.bias = bias;
    c.block = taps > 1 && dilation == 1 ? temporal_longest_block(taps, stride) : 1;
    c.fast = fast_ && !wide_ && c.block > 1 && temporal_fast_pays(inputs, outputs, taps, stride, 1, c.block, c.block);
    if (!c.fast) c.block = 1;
    return c;
  }

  Convolution pointwise(const char* argument, const Tensor& weight, const Tensor& bias, Index inputs, Index stride,
                        Index joints) {
    const bool fits = weight.dim() == 2 && weight.size(1) == inputs && weight.size(0) >= 1;
    const void* data = small(argument, weight, fits, "[O, C] with C = " + std::to_string(inputs));
    const void* shift = vector(argument, bias, weight.size(0));
    return convolution(data, shift, weight.size(0), inputs, 1, stride, 1, joints);
  }

  void pack(Convolution& c) {
    const auto bytes = static_cast<std::size_t>(c.outputs * c.inputs * c.kernel_size) * (wide_ ? 8 : 4);
    packed_.push_back(
        packed_weights(wide_ ? "branch_block.f64" : "branch_block.f32",
                       {c.inputs, c.outputs, c.kernel_size, c.stride, c.dilation, c.block, c.fast},
                       {{c.weight, bytes}, {c.bias, static_cast<std::size_t>(c.outputs) * (wide_ ? 8 : 4)}},
                       static_cast<std::size_t>(kernels_.packed_bytes(c)), [&](void* to) { kernels_.pack(c, to); }));
    c.packed = packed_.back().get();
  }

  // An operand in the computing dtype, contiguous.
  const Tensor& hold(const char* argument, const Tensor& tensor) {
    const ScalarType own = tensor.scalar_type();
    check(own == x_.scalar_type() || own == type_, kOp, argument,
          std::string("of x's dtype ") + dtype_name(x_.scalar_type()) + " or " + dtype_name(type_), dtype_name(own));
    held_.push_back(as_operand(tensor, type_));
    return held_.back();
  }

 private:
  const Tensor& x_;
  ScalarType type_;
  bool wide_, fast_;
  const branch_block::Table& table_;
  const branch_block::Kernels& kernels_;
  std::vector<Tensor> held_;
  std::vector<std::shared_ptr<const void>> packed_;
};

// The branches in order, each on its own channels of e and of z.
std::vector<Branch> read_branches(Reader& reader, Problem& p, const std::vector<Tensor>& weights,
                                  const std::vector<Tensor>& biases, const std::vector<Index>& spans, Index rectified) {
  check(!weights.empty() && biases.size() == weights.size() && spans.size() == weights.size(), kOp, "weights",
        "one or more, as many as biases and spans",
        std::to_string(weights.size()) + ", " + std::to_string(biases.size()) + " and " + std::to_string(spans.size()));
  std::vector<Branch> branches(weights.size());
  Index first = 0, to = 0, inside = 0;
  p.padding = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Tensor& weight = weights[i];
    Branch& branch = branches[i];
    branch.span = spans[i];
    branch.first = first;
    branch.to = to;
    check(spans[i] >= 1 && spans[i] <= kLargest, kOp, "spans", "between 1 and 2147483647", spans[i]);
    Index reach;
    if (weight.dim() == 1) {
      const void* scale = reader.vector("weights", weight, weight.size(0));
      branch.conv.weight = scale;
      branch.conv.bias = reader.vector("biases", biases[i], weight.size(0));
      branch.conv.inputs = branch.conv.outputs = weight.size(0);
      check(spans[i] % 2 == 1, kOp, "spans", "odd for a maximum", spans[i]);
      check(spans[i] == 1 || first + weight.size(0) <= rectified, kOp, "rectified",
            "as many channels as a maximum of several frames reads", rectified);
      reach = spans[i] / 2;
    } else {
      const bool fits = weight.dim() == 4 && weight.size(2) % 2 == 1 && weight.size(3) == 1 && weight.numel() > 0 &&
                        weight.size(2) <= kLargest;
      const void* data = reader.small("weights", weight, fits, "[O, C, Γ, 1] with Γ odd, or [C]");
      branch.conv = reader.convolution(data, reader.vector("biases", biases[i], weight.size(0)), weight.size(0),
                                       weight.size(1), weight.size(2), p.stride, spans[i], p.joints);
      reach = spans[i] * (weight.size(2) / 2);
    }
    p.padding = reach > p.padding ? reach : p.padding;
    first += branch.conv.inputs;
    to += branch.conv.outputs;
    if (first == rectified) inside = rectified;
  }
  check(first == p.entered, kOp, "weights", "of " + std::to_string(p.entered) + " input channels together", first);
  check(inside == rectified, kOp, "rectified", "where a branch ends", rectified);
  p.branched = to;
  return branches;
}

void run_all(const Problem& p, const branch_block::Kernels& kernels) {
  const double channels = static_cast<double>(p.inputs * p.entered + p.branched * (p.mix.outputs + 3 * p.entered));
  const double work = static_cast<double>(p.batch * p.out_frames * p.joints) * channels;
  Index pieces = 1;
  if (work >= 2.0 * static_cast<double>(least_work())) {
    pieces = pieces_per_sample(p.batch, p.out_frames, p.out_frames, kLeastFrames);
  }
  const Index groups = (p.out_frames + p.group - 1) / p.group;
  parallel_tasks(p.batch * pieces, work, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) {
      const Index piece = task % pieces;
      const Index first = piece * groups / pieces * p.group, last = (piece + 1) * groups / pieces * p.group;
      const Segment segment{task / pieces, first, last < p.out_frames ? last : p.out_frames};
      if (segment.first < segment.last) kernels.run(p, segment);
    }
  });
}

// x, add [N, C, T, V], shift [C] or [V, C], row_gate [N, T, V], channel_gate [N, C], entry [E, C], weights [O_i, C_i,
// Γ, 1] or [C_i], mix [O, Z], residual [N, R, T, V], projection [O, R] -> [N, O, ceil(T / stride), V]
Tensor branch_block_forward(const Tensor& x, const std::optional<Tensor>& shift, const std::optional<Tensor>& add,
                            bool rectify_input, const std::optional<Tensor>& row_gate,
                            const std::optional<Tensor>& channel_gate, const std::optional<Tensor>& entry_weight,
                            const std::optional<Tensor>& entry_bias, Index rectified, std::vector<Tensor> weights,
                            std::vector<Tensor> biases, std::vector<Index> spans,
                            const std::optional<Tensor>& mix_weight, const std::optional<Tensor>& mix_bias,
                            bool rectify_branches, const std::optional<Tensor>& residual,
                            const std::optional<Tensor>& residual_weight, const std::optional<Tensor>& residual_bias,
                            bool rectify, Index stride, bool fast) {
  const Activation in = read_activation(kOp, "x", x);
  const Dtype dtype = in.matrix.dtype;
  Reader reader(x, dtype, fast);
  Problem p{};
  p.batch = in.batch;
  p.frames = in.frames;
  p.joints = in.joints;
  p.inputs = in.channels;
  check(p.joints >= 1 && p.inputs >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  check(stride >= 1 && stride <= kLargest, kOp, "stride", "between 1 and 2147483647", stride);
  p.stride = stride;
  p.out_frames = (p.frames + stride - 1) / stride;
  p.rectify_input = rectify_input;
  p.rectify_branches = rectify_branches;
  p.rectify = rectify;
  if (shift) {
    const bool joints = shift->dim() == 2;
    const bool fits = joints ? shift->size(0) == p.joints && shift->size(1) == p.inputs
                             : shift->dim() == 1 && shift->size(0) == p.inputs;
    p.shift = reader.small("shift", *shift, fits, sizes_text("[C] or [V, C] with V, C", {p.joints, p.inputs}));
    p.shift_joint = joints ? p.inputs : 0;
  }
  if (row_gate) {
    const bool fits = row_gate->dim() == 3 && row_gate->size(0) == p.batch && row_gate->size(1) == p.frames &&
                      row_gate->size(2) == p.joints;
    p.row_gate = reader.small("row_gate", *row_gate, fits, sizes_text("[N, T, V]", {p.batch, p.frames, p.joints}));
  }
  if (channel_gate) {
    const bool fits = channel_gate->dim() == 2 && channel_gate->size(0) == p.batch && channel_gate->size(1) == p.inputs;
    p.channel_gate = reader.small("channel_gate", *channel_gate, fits, sizes_text("[N, C]", {p.batch, p.inputs}));
  }
  std::optional<Activation> added, rest;
  if (add) {
    check(add->dim() == 4 && add->size(0) == p.batch && add->size(1) == p.inputs && add->size(2) == p.frames &&
              add->size(3) == p.joints,
          kOp, "add", "of x's shape " + shape_text(x), shape_text(*add));
    check_same_dtype(kOp, "add", *add, x);
    added = read_activation(kOp, "add", *add);
    p.add = added->matrix;
    p.add_batch = added->batch_stride;
  }

  check(entry_weight.has_value() == entry_bias.has_value(), kOp, "entry_bias", "given where entry_weight is",
        entry_bias ? "a tensor" : "None");
  p.entered = p.inputs;
  if (entry_weight) {
    const Convolution whole = reader.pointwise("entry_weight", *entry_weight, *entry_bias, p.inputs, 1, p.joints);
    p.entered = whole.outputs;
    check(rectified >= 0 && rectified <= p.entered, kOp, "rectified", "between 0 and " + std::to_string(p.entered),
          rectified);
    const Index size = element_bytes(dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32);
    p.entry = p.bare = whole;
    p.entry.outputs = rectified;
    p.bare.outputs = p.entered - rectified;
    p.bare.weight = static_cast<const char*>(whole.weight) + rectified * p.inputs * size;
    p.bare.bias = static_cast<const char*>(whole.bias) + rectified * size;
  } else {
    check(rectified == 0 || (rectified == p.inputs && rectify_input), kOp, "rectified",
          "0, or C with rectify_input, without entry_weight", rectified);
  }
  std::vector<Branch> branches = read_branches(reader, p, weights, biases, spans, rectified);

  p.outputs = p.branched;
  check(mix_weight.has_value() == mix_bias.has_value(), kOp, "mix_bias", "given where mix_weight is",
        mix_bias ? "a tensor" : "None");
  check(mix_weight || !rectify_branches, kOp, "rectify_branches", "False without mix_weight", "True");
  if (mix_weight) {
    p.mix = reader.pointwise("mix_weight", *mix_weight, *mix_bias, p.branched, 1, p.joints);
    p.outputs = p.mix.outputs;
  }
  check(residual_weight.has_value() == residual_bias.has_value(), kOp, "residual_bias",
        "given where residual_weight is", residual_bias ? "a tensor" : "None");
  check(residual || !residual_weight, kOp, "residual_weight", "None without residual", "a tensor");
  if (residual) {
    check(residual->dim() == 4 && residual->size(0) == p.batch && residual->size(2) == p.frames &&
              residual->size(3) == p.joints && residual->size(1) >= 1,
          kOp, "residual", "[N, R, T, V] with N, T, V of x " + shape_text(x), shape_text(*residual));
    check_same_dtype(kOp, "residual", *residual, x);
    rest = read_activation(kOp, "residual", *residual);
    p.residual = rest->matrix;
    p.residual_batch = rest->batch_stride;
    if (residual_weight) {
      p.projection =
          reader.pointwise("residual_weight", *residual_weight, *residual_bias, rest->channels, stride, p.joints);
      check(p.projection.outputs == p.outputs, kOp, "residual_weight", "[O, R] with O = " + std::to_string(p.outputs),
            shape_text(*residual_weight));
    } else {
      check(rest->channels == p.outputs && stride == 1, kOp, "residual_weight", "given unless R = O and stride = 1",
            "None");
    }
  }

  const Result out = new_result(x, dtype, prefers_channels_last(x), p.batch, p.outputs, p.out_frames, p.joints);
  if (p.batch == 0 || p.out_frames == 0) return out.tensor;
  p.group = 1;
  for (Branch& branch : branches) {
    if (branch.conv.kernel_size == 0) continue;
    reader.pack(branch.conv);
    if (p.group % branch.conv.block != 0) p.group *= branch.conv.block;
  }
  for (Convolution* c : {&p.entry, &p.bare, &p.mix, &p.projection}) {
    if (c->outputs > 0) reader.pack(*c);
  }
  p.branches = branches.data();
  p.count = static_cast<Index>(branches.size());
  p.x = in.matrix;
  p.x_batch = in.batch_stride;
  p.out = out.matrix;
  p.out_batch = out.batch_stride;
  run_all(p, reader.kernels());
  return out.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("branch_block", TORCH_BOX(&branch_block_forward)); }

}  // namespace stgcn_fast
