// The half of a block that runs over frames, at inference, contract of the CPU kernels.
//
//   h = relu(x + shift + add) * row_gate * channel_gate          each part optional, shift [C] or [V, C]
//   e = entry(h)                                                 1x1; the first `rectified` channels through ReLU
//   z = branch_i(channels of e that are its own), side by side   a dilated kernel, or a scaled maximum over frames
//   y = relu(mix(relu(z)) + residual)                            mix 1x1, or z itself
//
// A few frames of e at a time stand in a window that stays in the second-level cache.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace branch_block {

// Weights [O, C, Γ] and bias [O], contiguous, in the computing dtype.
struct Convolution {
  std::int64_t inputs, outputs, kernel_size, stride, dilation, joints;
  std::int64_t block;  // output frames of the fast form
  bool fast;
  const void* weight;
  const void* bias;
  const void* packed;
};

// Reads channels [first, first + inputs) of e and writes channels [to, to + outputs) of z.
struct Branch {
  Convolution conv;  // kernel_size 0: the largest of `span` frames, times `weight`, plus `bias`
  std::int64_t span, first, to;
};

struct Problem {
  std::int64_t batch, frames, out_frames, joints, inputs, entered, branched, outputs, stride;
  std::int64_t padding;  // the most of any branch
  std::int64_t group;    // output frames are cut at multiples of this
  const Branch* branches;
  std::int64_t count;
  Convolution entry, bare;  // channels with ReLU and without; outputs 0 where there are none
  Convolution mix;          // outputs 0 without
  Convolution projection;   // of the residual; outputs 0 without
  bool rectify_input, rectify_branches, rectify;

  ConstMatrix x, add, residual;  // of sample 0, rows (t, v); data null where there is none
  std::int64_t x_batch, add_batch, residual_batch, shift_joint;
  const void* shift;         // [C], or [V, C] with shift_joint = C
  const void* row_gate;      // [N, T * V]
  const void* channel_gate;  // [N, C]
  Matrix out;
  std::int64_t out_batch;
};

// Output frames [first, last) of one sample.
struct Segment {
  std::int64_t sample, first, last;
};

struct Kernels {
  std::int64_t (*packed_bytes)(const Convolution&);
  void (*pack)(const Convolution&, void* packed);
  void (*run)(const Problem&, const Segment&);
};

struct Table {
  Kernels float32, float64;
};

}  // namespace branch_block

STGCN_FAST_DECLARE_KERNELS(branch_block::Table, branch_block_kernels)

}  // namespace stgcn_fast
