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

// A phase of the fast form: step i reads source frames i * step + offset, and on by the dilation, of which the first is
// multiplied by entry `first_tap` of the kernel.
struct FastPhase {
  std::int64_t taps, offset, first_tap;
};

struct Convolution {
  ConstMatrix source;  // of sample 0, [frames * joints, source_channels]
  Matrix target;
  std::int64_t source_batch, target_batch;  // elements between samples
  std::int64_t batch, joints;
  std::int64_t source_channels, target_channels;
  std::int64_t source_frames, target_frames;
  std::int64_t kernel_size;
  // The direct form.
  std::int64_t step;                // source frames between successive steps
  std::int64_t phases;              // phase p holds target frames p, p + phases, ...
  const TemporalTap* taps;          // by phase, offsets ascending
  const std::int64_t* phase_begin;  // [phases + 1] into taps
  // The fast form, of the same steps and phases.
  bool fast;
  const FastPhase* fast_phases;  // [phases]
  std::int64_t dilation;
  const void* weight;                                     // of the accumulating type
  std::int64_t weight_source, weight_target, weight_tap;  // elements between channels and taps of weight
  const void* packed;
  const void* bias;     // [target_channels] of the accumulating type, or null
  std::int64_t pieces;  // of each sample
};

struct WeightGradient {
  ConstMatrix x, grad;  // of sample 0
  std::int64_t x_batch, grad_batch;
  std::int64_t batch, joints, x_channels, grad_channels, x_frames, grad_frames;
  std::int64_t kernel_size, stride, padding, dilation;
  bool fast;
  std::int64_t pieces;  // of each sample
  std::int64_t parts;   // independent sums, added in order at the end
  std::int64_t groups;  // of output panels, which do not share sums
  void* partial;        // [parts][sums]
  void* out;            // [grad_channels, x_channels, kernel_size] of the accumulating type
};

// Functions over a range of tasks, by the type that products are computed in.
struct TemporalConvKernels {
  struct Typed {
    std::int64_t panel;  // columns of a packed panel
    std::int64_t (*packed_bytes)(const Convolution&);
    std::int64_t (*pack_tasks)(const Convolution&);
    void (*pack)(const Convolution&, void*, std::int64_t, std::int64_t);
    void (*convolve)(const Convolution&, std::int64_t, std::int64_t);  // tasks: batch * pieces
    std::int64_t (*sum_bytes)(const WeightGradient&);
    void (*accumulate)(const WeightGradient&, std::int64_t, std::int64_t);  // tasks: parts * groups
    void (*reduce)(const WeightGradient&, std::int64_t, std::int64_t);      // tasks: panels * x_channels
  };
  Typed float32, float64;
  Typed bfloat16;  // null functions where bfloat16 is computed as float32
};

STGCN_FAST_DECLARE_KERNELS(TemporalConvKernels, temporal_conv_kernels)

// Output frames of the fast form's block, which are the taps of a sub-filter, and the products that give them: F(3,3);
// F(5,5) and F(9,9) for fused blocks at inference. There, where outputs are rounded to bfloat16, F(10,r) has one
// sub-filter of all r taps.
inline constexpr std::int64_t kTemporalBlock = 3, kTemporalLongBlock = 5, kTemporalWholeBlock = 9;
inline constexpr std::int64_t kTemporalRoundedBlock = 10;
inline constexpr std::int64_t kTemporalPoints = 5, kTemporalLongPoints = 10, kTemporalWholePoints = 22;

// How the fast form cuts the taps phase, phase + stride, ... of a kernel into sub-filters of `size`. A filter whose
// first tap is zero has no product at the first point and, in the short form, one whose last tap is zero none at the
// last: missing taps are divided between both ends accordingly.
struct SubFilters {
  std::int64_t size, points, taps, shift, count;  // sub-filter s holds taps size * s - shift, ...

  // Inlined everywhere: files compiled for different instruction sets share this header.
  [[gnu::always_inline]] constexpr SubFilters(std::int64_t kernel_size, std::int64_t stride, std::int64_t phase,
                                              std::int64_t block = kTemporalBlock)
      : size(block == kTemporalRoundedBlock ? (kernel_size + stride - 1) / stride : block),
        points(block == kTemporalBlock        ? kTemporalPoints
               : block == kTemporalLongBlock  ? kTemporalLongPoints
               : block == kTemporalWholeBlock ? kTemporalWholePoints
                                              : size + kTemporalRoundedBlock - 1),
        taps(kernel_size > phase ? (kernel_size - phase + stride - 1) / stride : 0),
        shift((taps + size - 1) / size * size - taps > (ends_with_last_tap() ? 1 : 0) ? 1 : 0),
        count((taps + shift + size - 1) / size) {}

  // Whether the last product sees the last tap alone.
  [[gnu::always_inline]] constexpr bool ends_with_last_tap() const { return points == kTemporalPoints; }
  // The sub-filters that have a product at a point: [first, last).
  [[gnu::always_inline]] constexpr std::int64_t first(std::int64_t point) const { return point == 0 ? shift : 0; }
  [[gnu::always_inline]] constexpr std::int64_t last(std::int64_t point) const {
    return ends_with_last_tap() && point == points - 1 && size * count - shift > taps ? count - 1 : count;
  }
  [[gnu::always_inline]] constexpr std::int64_t products() const {
    return points * count - first(0) - (count - last(points - 1));
  }
};

// The block of the form for fused blocks: the longest that reads no frame beyond those that its outputs see, which one
// missing tap in front leaves so. `rounded`: the outputs are rounded to bfloat16.
inline std::int64_t temporal_longest_block(std::int64_t kernel_size, std::int64_t stride, bool rounded = false) {
  constexpr std::int64_t kBlocks[] = {kTemporalRoundedBlock, kTemporalWholeBlock, kTemporalLongBlock};
  for (const std::int64_t block : kBlocks) {
    bool fits = stride <= 2;
    if (block == kTemporalRoundedBlock) {
      const std::int64_t taps = (kernel_size + stride - 1) / stride;
      fits = fits && rounded && (taps == kTemporalWholeBlock || taps == kTemporalLongBlock);
    }
    for (std::int64_t phase = 0; fits && phase < stride; ++phase) {
      const SubFilters filters(kernel_size, stride, phase, block);
      fits = filters.taps > 0 && filters.size * filters.count - filters.shift == filters.taps;
    }
    if (fits) return block;
  }
  return kTemporalBlock;
}

// Whether the fast form of a float32 convolution exists and is worth its transforms: they cost what 16 channels'
// products save, and a block's frames that the clip lacks are computed in vain. `frames` are the output's.
inline bool temporal_fast_pays(std::int64_t inputs, std::int64_t outputs, std::int64_t kernel_size, std::int64_t stride,
                               std::int64_t dilation, std::int64_t frames, std::int64_t block = kTemporalBlock) {
  constexpr std::int64_t kLeastUneven = 5;  // taps, of which two filters of three leave one empty
  const bool uneven = block == kTemporalBlock && kernel_size % kTemporalBlock != 0 && kernel_size < kLeastUneven;
  if (stride == 1 ? uneven : (stride != 2 || dilation != 1)) return false;
  constexpr std::int64_t kLeastChannels = 32;
  if (inputs < kLeastChannels || outputs < kLeastChannels) return false;
  const std::int64_t chains = dilation < frames ? dilation : frames;
  const std::int64_t each = chains > 0 ? (frames + chains - 1) / chains : 0;
  const std::int64_t blocks = chains * ((each + block - 1) / block);
  std::int64_t products = 0;
  for (std::int64_t phase = 0; phase < stride; ++phase) {
    products += SubFilters(kernel_size, stride, phase, block).products();
  }
  // As many products for a block, beside one for every tap and frame, and a quarter of that for the transforms of a
  // short kernel.
  return 4 * products * blocks <= 3 * kernel_size * frames;
}

}  // namespace stgcn_fast
