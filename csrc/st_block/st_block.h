// One block at inference, contract of the CPU kernels.
//
//   h[n,o,t,w] = relu(scale1[o] * graph_conv(x) + shift1[o])
//   y[n,o,t,w] = relu(scale2[o] * temporal_conv(h) + shift2[o] + residual(x))
//
// Scales and shifts are folded into the packed weights. A few frames of h at a time stand in a window that stays in
// the second-level cache; each goes there just before the first output frame that reads it.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace st_block {

enum class Residual { kNone, kIdentity, kConvolution };

// A weight or vector in any dtype; data null where there is none.
struct Operand {
  const void* data;
  Dtype dtype;
  std::int64_t stride[5];  // elements
  std::int64_t bytes;      // from data to the end of its last element
};

struct Problem {
  std::int64_t batch, frames, out_frames;
  std::int64_t sources, targets, inputs, outputs, partitions;  // V, W, C, O, K
  std::int64_t kernel_size, stride;
  bool fast;
  std::int64_t group;  // output frames are computed in groups at multiples of this, as the fast form does, however cut
  Residual residual;

  Operand graph_weight;     // [K, O, C]
  Operand graph_bias;       // [K, O]
  Operand adjacency;        // [1, K, 1, V, W]
  Operand scale1, shift1;   // [O]
  Operand temporal_weight;  // [O, O, Γ, 1]
  Operand temporal_bias;    // [O]
  Operand scale2, shift2;   // [O]
  Operand residual_weight;  // [O, C]
  Operand residual_shift;   // [O]

  ConstMatrix x;  // of sample 0, rows (t, v)
  std::int64_t x_batch;
  Matrix out;  // of sample 0, rows (t, w)
  std::int64_t out_batch;
  ConstMatrix rest;  // what frames of kKnown segments are copied from
};

// Output frames [first, last) of one sample: computed, or copied from `rest`.
struct Segment {
  std::int64_t sample, first, last;
  bool known;
};

struct Kernels {
  std::int64_t (*packed_bytes)(const Problem&);
  void (*pack)(const Problem&, void* packed);
  void (*run)(const Problem&, const void* packed, const Segment* begin, const Segment* end);
};

// What computes activations of each type; bfloat16 where the instruction set multiplies it, else null functions.
struct Table {
  Kernels float32, float64, bfloat16;
};

}  // namespace st_block

STGCN_FAST_DECLARE_KERNELS(st_block::Table, st_block_kernels)

}  // namespace stgcn_fast
