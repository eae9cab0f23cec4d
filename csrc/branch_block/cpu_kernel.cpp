#include <cstring>

#include "branch_block.h"
#include "graph_conv/aggregate.h"
#include "temporal_conv/rows.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace branch_block {
namespace {

using Index = std::int64_t;
using ::stgcn_fast::branch_block::Branch;
using ::stgcn_fast::branch_block::Convolution;
using ::stgcn_fast::branch_block::Kernels;
using ::stgcn_fast::branch_block::Problem;
using ::stgcn_fast::branch_block::Segment;

inline Index smaller(Index a, Index b) { return a < b ? a : b; }
inline Index larger(Index a, Index b) { return a > b ? a : b; }

template <typename M>
M sample_of(M matrix, Index batch_stride, Index n) {
  matrix.data =
      const_cast<char*>(static_cast<const char*>(matrix.data)) + n * batch_stride * graph_conv::bytes_of(matrix.dtype);
  return matrix;
}

// Packed: the weights, and the bias in whole vectors. `whole` computes whole vectors of outputs: beyond the last one
// what stands there is written over.
template <typename E>
TemporalOperand<E> operand_of(const Convolution& c, bool whole = false) {
  TemporalOperand<E> op{};
  op.inputs = c.inputs;
  op.outputs = c.outputs;
  op.kernel_size = c.kernel_size;
  op.joints = c.joints;
  op.stride = c.stride;
  op.dilation = c.dilation;
  op.block = c.block;
  op.fast = c.fast && temporal_has_fast_form(op);
  op.weights = static_cast<const E*>(c.packed);
  op.bias = op.weights + temporal_packed_values(op);
  if (whole) op.outputs = graph_conv::padded<E>(c.outputs);
  return op;
}

template <typename E>
Index packed_bytes(const Convolution& c) {
  return (temporal_packed_values(operand_of<E>(c)) + graph_conv::padded<E>(c.outputs)) * static_cast<Index>(sizeof(E));
}

template <typename E>
void pack(const Convolution& c, void* packed) {
  const TemporalOperand<E> op = operand_of<E>(c);
  temporal_pack(op, static_cast<const E*>(c.weight), TemporalWeight{c.inputs * c.kernel_size, c.kernel_size, 1},
                static_cast<E*>(packed), Index{0}, temporal_pack_tasks(op));
  E* bias = static_cast<E*>(packed) + temporal_packed_values(op);
  for (Index o = 0; o < graph_conv::padded<E>(c.outputs); ++o) {
    bias[o] = o < c.outputs ? static_cast<const E*>(c.bias)[o] : E(0);
  }
}

// Calls run(c, count) for every vector of channels, the last of which may be a part.
template <typename E, typename Run>
inline void vectors(Index channels, const Run& run) {
  Index c = 0;
  for (; c + kLanes<E> <= channels; c += kLanes<E>) run(c, kLanes<E>);
  if (c < channels) run(c, static_cast<int>(channels - c));
}

template <typename E>
inline Vec<E> read(const E* p, int count) {
  return count == kLanes<E> ? load(p) : load_part(p, count);
}

template <typename E>
inline void write(E* p, Vec<E> v, int count) {
  if (count == kLanes<E>) {
    store(p, v);
  } else {
    store_part(p, v, count);
  }
}

// Rows of h for frames [first, first + frames): x itself where nothing is done to it.
template <typename E>
graph_conv::Rows<E> entered_rows(const Problem& p, Index sample, Index first, Index frames) {
  const Index begin = first * p.joints, rows = frames * p.joints, C = p.inputs;
  const graph_conv::Rows<E> x = graph_conv::rows_of<E>(Slot::kInput, sample_of(p.x, p.x_batch, sample), begin, rows, C);
  const bool gated = p.row_gate != nullptr || p.channel_gate != nullptr;
  if (!p.rectify_input && !gated && p.shift == nullptr && p.add.data == nullptr) return x;
  graph_conv::Rows<E> add{nullptr, 0};
  if (p.add.data != nullptr) {
    add = graph_conv::rows_of<E>(Slot::kExtra, sample_of(p.add, p.add_batch, sample), begin, rows, C);
  }
  const auto* shifts = static_cast<const E*>(p.shift);
  const E* row_gate =
      p.row_gate == nullptr ? nullptr : static_cast<const E*>(p.row_gate) + sample * p.frames * p.joints + begin;
  const E* channel_gate = p.channel_gate == nullptr ? nullptr : static_cast<const E*>(p.channel_gate) + sample * C;
  E* out = scratch<E>(Slot::kProjected, rows * C);
  for (Index r = 0; r < rows; ++r) {
    const E* from = x.data + r * x.row;
    const E* more = add.data == nullptr ? nullptr : add.data + r * add.row;
    E* to = out + r * C;
    const E* shift = shifts == nullptr ? nullptr : shifts + r % p.joints * p.shift_joint;
    const Vec<E> gate = broadcast(row_gate == nullptr ? E(1) : row_gate[r]);
    vectors<E>(C, [&](Index c, int count) {
      Vec<E> value = read(from + c, count);
      if (shift != nullptr) value += read(shift + c, count);
      if (more != nullptr) value += read(more + c, count);
      if (p.rectify_input) value = rectified<E>(value);
      if (row_gate != nullptr) value *= gate;
      if (channel_gate != nullptr) value *= read(channel_gate + c, count);
      write(to + c, value, count);
    });
  }
  return {out, C};
}

// Frames of e that successive output frames read: a window that slides along one sample. Beyond the clip it holds
// zeros.
template <typename E>
class Window {
 public:
  Window(const Problem& p, Index sample, Index capacity) : p_(p), sample_(sample), frame_(p.joints * p.entered) {
    // The fast form reads whole vectors of channels.
    data_ = scratch<E>(Slot::kAggregate, capacity * frame_ + kLanes<E>);
  }

  void open(Index first) { base_ = filled_ = first; }

  // Makes frames [first, last) available and returns the first; frames from `end` on are not wanted later either.
  const E* slide(Index first, Index last, Index end) {
    if (first > base_) {
      const Index kept = larger(0, filled_ - first);
      if (kept > 0) {
        std::memmove(static_cast<void*>(data_), data_ + (first - base_) * frame_,
                     static_cast<std::size_t>(kept * frame_) * sizeof(E));
      }
      base_ = first;
      filled_ = larger(filled_, first);
    }
    if (filled_ < 0) zero_to(smaller(last, 0));
    const Index stop = smaller(smaller(last, p_.frames), end);
    if (filled_ < stop) {
      fill(stop - filled_);
      filled_ = stop;
    }
    zero_to(last);
    return data_;
  }

 private:
  void fill(Index frames) {
    E* to = data_ + (filled_ - base_) * frame_;
    const graph_conv::Rows<E> rows = entered_rows<E>(p_, sample_, filled_, frames);
    const E* none = nullptr;
    if (p_.entry.outputs + p_.bare.outputs == 0) {
      for (Index r = 0; r < frames * p_.joints; ++r) {
        std::memcpy(to + r * p_.entered, rows.data + r * rows.row, static_cast<std::size_t>(p_.entered) * sizeof(E));
      }
      return;
    }
    if (p_.entry.outputs > 0) {
      temporal_rows(operand_of<E>(p_.entry), rows.data, rows.row, frames, none, Index{0}, true, to, p_.entered);
    }
    if (p_.bare.outputs > 0) {
      temporal_rows(operand_of<E>(p_.bare), rows.data, rows.row, frames, none, Index{0}, false, to + p_.entry.outputs,
                    p_.entered);
    }
  }

  void zero_to(Index last) {
    if (filled_ >= last) return;
    std::memset(static_cast<void*>(data_ + (filled_ - base_) * frame_), 0,
                static_cast<std::size_t>((last - filled_) * frame_) * sizeof(E));
    filled_ = last;
  }

  const Problem& p_;
  Index sample_, frame_;
  E* data_;
  Index base_ = 0, filled_ = 0;
};

// The larger of two, NaN if one is.
template <typename E>
inline Vec<E> higher(Vec<E> a, Vec<E> b) {
  return (a > b) | (a != a) ? a : b;
}

// The largest of `span` frames around every stride-th, scaled and shifted.
template <typename E>
void maximum(const Problem& p, const Branch& branch, const E* window, Index frames, const E* add, Index add_row,
             bool relu, E* out, Index out_row) {
  const auto* scale = static_cast<const E*>(branch.conv.weight);
  const auto* shift = static_cast<const E*>(branch.conv.bias);
  const Index frame = p.joints * p.entered;
  for (Index i = 0; i < frames; ++i) {
    for (Index v = 0; v < p.joints; ++v) {
      const E* from = window + i * p.stride * frame + v * p.entered;
      const Index row = i * p.joints + v;
      vectors<E>(branch.conv.outputs, [&](Index c, int count) {
        Vec<E> value = read(from + c, count);
        for (Index s = 1; s < branch.span; ++s) value = higher<E>(read(from + s * frame + c, count), value);
        value = value * read(scale + c, count) + read(shift + c, count);
        if (add != nullptr) value += read(add + row * add_row + c, count);
        if (relu) value = rectified<E>(value);
        write(out + row * out_row + c, value, count);
      });
    }
  }
}

// Output frames that go through together. Whole groups.
template <typename E>
Index chunk_frames(const Problem& p, Index frames) {
  constexpr Index kBytes = Index{512} << 10;
  constexpr Index kLeast = 12;
  const Index frame = p.joints * (p.inputs + p.entered + p.branched) * static_cast<Index>(sizeof(E));
  const Index held = (kBytes / frame - 2 * p.padding) / p.stride;
  const Index most = larger(p.group, larger(kLeast, held) / p.group * p.group);
  const Index groups = (frames + p.group - 1) / p.group, pieces = (frames + most - 1) / most;
  return (groups + pieces - 1) / pieces * p.group;
}

// What is added to output frames [first, last); a projection goes into `buffer`.
template <typename E>
graph_conv::Rows<E> residual_rows(const Problem& p, Index sample, Index first, Index last, E* buffer, Index row) {
  if (p.residual.data == nullptr) return {nullptr, 0};
  const ConstMatrix from = sample_of(p.residual, p.residual_batch, sample);
  const bool projected = p.projection.outputs > 0;
  const Index begin = first * p.stride, frames = (last - 1) * p.stride + 1 - begin;
  const graph_conv::Rows<E> rows = graph_conv::rows_of<E>(Slot::kExtra, from, begin * p.joints, frames * p.joints,
                                                          projected ? p.projection.inputs : p.outputs);
  if (!projected) return rows;
  temporal_rows(operand_of<E>(p.projection), rows.data, rows.row, last - first, static_cast<const E*>(nullptr),
                Index{0}, false, buffer, row);
  return {buffer, row};
}

template <typename E>
void run(const Problem& p, const Segment& segment) {
  const Index chunk = chunk_frames<E>(p, segment.last - segment.first), V = p.joints;
  const Index end = (segment.last - 1) * p.stride + p.padding + 1;
  Window<E> window(p, segment.sample, (chunk - 1) * p.stride + 2 * p.padding + 1);
  window.open(segment.first * p.stride - p.padding);
  const bool mixed = p.mix.outputs > 0;
  // Branches in front of the mix write whole vectors, over each other's first columns and behind the last.
  Index mixed_row = graph_conv::padded<E>(p.branched);
  for (Index i = 0; i < p.count; ++i) {
    mixed_row =
        larger(mixed_row, graph_conv::padded<E>(p.branches[i].to + graph_conv::padded<E>(p.branches[i].conv.outputs)));
  }
  E* buffer = scratch<E>(Slot::kOutput, chunk * V * graph_conv::padded<E>(p.outputs));
  for (Index first = segment.first; first < segment.last; first += chunk) {
    const Index last = smaller(first + chunk, segment.last), frames = last - first;
    const E* e = window.slide(first * p.stride - p.padding, (last - 1) * p.stride + p.padding + 1, end);
    graph_conv::Target<E> target(buffer, sample_of(p.out, p.out_batch, segment.sample), first * V, frames * V,
                                 p.outputs);
    const graph_conv::Rows<E> add = residual_rows<E>(p, segment.sample, first, last, target.data, target.row);
    E* z = mixed ? scratch<E>(Slot::kPanel, chunk * V * mixed_row) : target.data;
    const Index z_row = mixed ? mixed_row : target.row;
    for (Index i = 0; i < p.count; ++i) {
      const Branch& branch = p.branches[i];
      const bool kernel = branch.conv.kernel_size > 0;
      const Index reach = kernel ? branch.span * (branch.conv.kernel_size / 2) : branch.span / 2;
      const E* from = e + (p.padding - reach) * V * p.entered + branch.first;
      const E* more = mixed || add.data == nullptr ? nullptr : add.data + branch.to;
      const bool relu = mixed ? p.rectify_branches : p.rectify;
      if (kernel) {
        temporal_rows(operand_of<E>(branch.conv, mixed), from, p.entered, frames, more, add.row, relu, z + branch.to,
                      z_row);
      } else {
        maximum(p, branch, from, frames, more, add.row, relu, z + branch.to, z_row);
      }
    }
    if (mixed) {
      temporal_rows(operand_of<E>(p.mix), static_cast<const E*>(z), z_row, frames, add.data, add.row, p.rectify,
                    target.data, target.row);
    }
    target.close();
  }
}

template <typename E>
constexpr Kernels kernels() {
  return {&packed_bytes<E>, &pack<E>, &run<E>};
}

}  // namespace
}  // namespace branch_block

const ::stgcn_fast::branch_block::Table& branch_block_kernels() {
  static constexpr ::stgcn_fast::branch_block::Table table{branch_block::kernels<float>(),
                                                           branch_block::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
