// The ST-GCN block in training, as cpu.cpp asks for it and cpu_kernel.cpp computes it.
//
//   forward                                                 backward
//   graph:     y = gcn(x), r = Wr x; their statistics       sums:      of gz and gz (z - mean2), and for r
//   temporal:  z = tcn(relu(s1 y + t1)); its statistics     temporal:  dyh = tcn^T(dz) where h > 0, dWt; sums for y
//   result:    out = relu(D (s2 z + t2) + res)              graph:     dx, dWg, dA, bias and dWr from dy
//
// with gz = D g where out > 0, and dz = a gz + b z + c the gradient through a normalisation. Everything between y, z, r
// and out is computed again where it is needed: a pass reads and writes every activation once.
//
// Work comes in chunks of frames that stay in the second-level cache. Chunks, and the runs of chunks that share the
// sums of a weight's gradient, depend on shapes only; so do results.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace st_block_train {

// Rows of coefficients, [row] each, zero where no channel is: three normalisations (of y, z and r) of six.
enum Coefficient { kScale, kShift, kMean, kByGrad, kByValue, kConstant, kCoefficients };
enum Normalisation { kGraph, kTemporal, kResidual, kNormalisations };

// Values that a chunk reports, [row] each. Forward graph: mean and squared deviation of y, then of r; temporal: of z.
// Backward sums: gz, gz (z - mean2), gm, gm (r - mean_r); temporal: dyh, dyh (y - mean1).
constexpr std::int64_t kReported = 4;

// Channels of y, z and r are filled up to a multiple of this.
constexpr std::int64_t kAligned = 16;

struct Block {
  std::int64_t batch, inputs, outputs, partitions, joints;  // N, C, O, K, V
  std::int64_t frames, out_frames, kernel_size, stride;     // T, ceil(T / stride), Γ
  std::int64_t row;                                         // elements between rows of y, z and r
  std::int64_t chunk, chunks;                               // output frames of a chunk, chunks of a sample
  std::int64_t parts;                                       // sums of a weight's gradient
  bool fast, identity, convolved;                           // the temporal algorithm; which residual
  std::uint64_t seed;
  std::int32_t threshold;  // of dropout, 0 for none
  double scale;

  ConstMatrix x;  // of sample 0
  std::int64_t x_batch;
  void *y, *z, *r;           // [N, T | T_out, V, row]; r null unless `convolved`
  const void* coefficients;  // [kNormalisations][kCoefficients][row]
  double* reported;          // [N * chunks][kReported][row]

  const std::int32_t* begin;  // edges by target joint
  const void* edge;
  const void* graph_weight;     // packed, over the outputs; over the inputs in the backward pass
  const void* bias_map;         // [V, O] or null
  const void* temporal_weight;  // packed; backward: one after another for the frames of each phase of the stride
  const void* residual_weight;  // packed; transposed in the backward pass
  Matrix out;                   // of sample 0
  std::int64_t out_batch;

  ConstMatrix grad, result;  // of sample 0: gradient of out, and out
  std::int64_t grad_batch, result_batch;
  void* by_h;  // [N, T, V, by_h_row]: dyh; may be the memory of `by_x`
  std::int64_t by_h_row;
  Matrix by_x;  // of sample 0; null data: not wanted
  std::int64_t by_x_batch;
  void* temporal_sums;  // [parts][...]
  void* graph_sums;     // [parts][weights, edges, joints]
  void* residual_sums;  // [parts][...]
  bool want_edges, want_joints;
};

// What cpu.cpp packs once per call.
struct Operands {
  const void *graph_weight, *temporal_weight, *residual_weight;  // [K, O, C], [O, O, Γ], [O, C] contiguous
  const void *adjacency, *support, *bias;                        // [K, V, V], the same or null, [K, O] or null
};

struct Kernels {
  struct Typed {
    // Whether the fast temporal algorithm exists for the block.
    bool (*has_fast_form)(const Block&);
    // Elements of the packed operands, and packing, in the forward and in the backward pass.
    std::int64_t (*graph_values)(const Block&, bool backward);
    std::int64_t (*temporal_values)(const Block&, bool backward);
    std::int64_t (*residual_values)(const Block&, bool backward);
    std::int64_t (*edge_bytes)(const Block&);
    const std::int32_t* (*list_edges)(const Block&, const Operands&, void* memory);
    void (*bias_map)(const Block&, const Operands&, void* out);
    std::int64_t (*pack_tasks)(const Block&, bool backward);
    void (*pack)(const Block&, const Operands&, bool backward, std::int64_t begin, std::int64_t end);
    // Tasks: batch * chunks.
    void (*graph)(const Block&, std::int64_t, std::int64_t);
    void (*temporal)(const Block&, std::int64_t, std::int64_t);
    void (*result)(const Block&, std::int64_t, std::int64_t);
    void (*backward_sums)(const Block&, std::int64_t, std::int64_t);
    // Elements of one part's sums.
    std::int64_t (*temporal_sums)(const Block&);
    std::int64_t (*graph_sums)(const Block&);
    std::int64_t (*residual_sums)(const Block&);
    // Tasks: parts.
    void (*backward_temporal)(const Block&, std::int64_t, std::int64_t);
    void (*backward_graph)(const Block&, std::int64_t, std::int64_t);
    // Adds up the parts' sums in order, values [begin, end) of the graph's.
    void (*merge_graph)(const Block&, std::int64_t, std::int64_t);
    // Gradients from the sums, contiguous and of the accumulating type.
    std::int64_t (*temporal_tasks)(const Block&);
    void (*temporal_gradient)(const Block&, void* out, std::int64_t, std::int64_t);
    void (*residual_gradient)(const Block&, void* out);
    void (*graph_gradients)(const Block&, const Operands&, void* weight, void* adjacency, void* bias);
  };
  const Typed *float32, *float64, *bfloat16;  // the last null where bfloat16 is not multiplied as such
};

}  // namespace st_block_train

STGCN_FAST_DECLARE_KERNELS(st_block_train::Kernels, st_block_train_kernels)

}  // namespace stgcn_fast
