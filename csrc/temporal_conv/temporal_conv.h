// Temporal convolution, contract of the CPU kernels.
//
//   y[n,o,t,v] = bias[o] + sum over c, q of weight[o,c,q] * x[n, c, t * stride + q * dilation - padding, v]
//
// The gradient to x is the same sum with source and target exchanged; there the target's frames fall into `stride`
// phases, each with its own taps. Both are a Convolution.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {

// Step i of a phase reads source frame i * step + offset; that frame exists for first <= i < last.
struct TemporalTap {
  std::int64_t kernel;  // q
  std::int64_t offset;
  std::int64_t first, last;
};

struct Convolution {
  ConstMatrix source;  // of sample 0, [frames * joints, source_channels]
  Matrix target;
  std::int64_t source_batch, target_batch;  // elements between samples
  std::int64_t batch, joints;
  std::int64_t source_channels, target_channels;
  std::int64_t source_frames, target_frames;
  std::int64_t step;                // source frames between successive steps
  std::int64_t phases;              // phase p holds target frames p, p + phases, ...
  const TemporalTap* taps;          // by phase, offsets ascending
  const std::int64_t* phase_begin;  // [phases + 1] into taps
  std::int64_t kernel_size;
  const void* weight;                         // of the computing type
  std::int64_t weight_source, weight_target;  // elements between channels of weight; entries q are adjacent
  void* packed;                               // [panel][kernel_size][source_channels][panel width]
  const void* bias;                           // [target_channels] or null
  std::int64_t pieces;                        // of each sample
};

struct WeightGradient {
  ConstMatrix x, grad;  // of sample 0
  std::int64_t x_batch, grad_batch;
  std::int64_t batch, joints, x_channels, grad_channels, x_frames, grad_frames;
  std::int64_t step;
  const TemporalTap* taps;  // [kernel_size] in order of q
  std::int64_t kernel_size;
  std::int64_t pieces;  // of each sample
  std::int64_t parts;   // independent sums, added in order at the end
  void* partial;        // [parts][kernel_size][panel][x_channels][panel width]
  void* out;            // [grad_channels, x_channels, kernel_size]
};

// Functions over a range of tasks, for float and double.
struct TemporalConvKernels {
  struct Typed {
    std::int64_t panel;                                                     // columns of a packed panel
    void (*pack)(const Convolution&, std::int64_t, std::int64_t);           // tasks: panels * kernel_size
    void (*convolve)(const Convolution&, std::int64_t, std::int64_t);       // tasks: batch * pieces
    void (*accumulate)(const WeightGradient&, std::int64_t, std::int64_t);  // tasks: parts
    void (*reduce)(const WeightGradient&, std::int64_t, std::int64_t);      // tasks: panels * x_channels
  };
  Typed float32, float64;
};

STGCN_FAST_DECLARE_KERNELS(TemporalConvKernels, temporal_conv_kernels)

}  // namespace stgcn_fast
