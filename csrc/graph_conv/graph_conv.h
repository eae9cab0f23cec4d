// Partitioned graph convolution and its derivatives, as cpu.cpp asks for them and cpu_kernel.cpp computes them.
//
//   y[n,t,w,o] = sum_k sum_v A[n|0,k,g,v,w] * sum_c W[k,o,c] * x[n,t,v,c]  +  bias_map[n|0,w,o]
//
// g is the group of o, or of c with `group_inputs`. With G = 1 the sum over v is formed from the non-zeros of A when it
// is sparse (a skeleton's adjacency), else as a matrix product, before or after the multiplication: whichever takes
// fewer multiply-adds (`Order`). With G > 1 the channels that carry the group are aggregated lane by lane. [N, K, O, T,
// V] is never formed: a chunk of frames goes through at a time.
#pragma once

#include <cstdint>

#include "../common/capability.h"
#include "../common/dtype.h"

namespace stgcn_fast {
namespace graph_conv {

struct Problem {
  std::int64_t batch, frames;       // N, T
  std::int64_t sources, targets;    // V, W
  std::int64_t inputs, outputs;     // C, O
  std::int64_t partitions, groups;  // K, G
  bool per_sample, group_inputs;
  std::int64_t pieces;                       // runs of frames that a sample is cut into; a task is one of them
  std::int64_t slots = 1;                    // partial sums of a gradient by a shared operand
  bool in_place = false;                     // the slots are the result
  ConstMatrix x{}, grad{};                   // [T * V, C], [T * W, O] of sample 0
  std::int64_t x_batch = 0, grad_batch = 0;  // elements between samples
  Matrix out{};                              // of sample 0: [T * W, O], or [T * V, C] as a gradient by x
  std::int64_t out_batch = 0;
  // Of the computing type; contiguous but for the weight.
  bool turned = false;              // A is [N | 1, K, G, W, V] in memory; only with G > 1, without bias
  const void* adjacency = nullptr;  // [N | 1, K, G, V, W]
  const void* weight = nullptr;     // [K, O, C]
  std::int64_t weight_partition = 0, weight_output = 0, weight_input = 0;  // strides
  const void* bias = nullptr;                                              // [K, O]
  const void* support = nullptr;                                           // like adjacency
  // Where `backward` puts the gradients by weight [K, O, C] and adjacency [K, V, W], or null.
  void* by_weight = nullptr;
  void* by_adjacency = nullptr;
};

// Multiply-adds of one frame in either order. Of A count the entries summed over, the (partition, target) pairs with an
// entry and the (partition, source) pairs with one; a dense A has K * V * W, K * W and K * V.
//
// The gradients are the same two sums: by the weight, x is summed over sources (`before`) or the output's gradient over
// targets (`after`); by the adjacency, the gradient (`before`) or x (`after`) is multiplied by the weight.
struct Order {
  std::int64_t entries, columns, rows;

  std::int64_t before(std::int64_t inputs, std::int64_t outputs) const {
    return entries * inputs + columns * inputs * outputs;
  }
  std::int64_t after(std::int64_t inputs, std::int64_t outputs) const {
    return entries * outputs + rows * inputs * outputs;
  }
  bool multiplies_first(std::int64_t inputs, std::int64_t outputs) const {
    return after(inputs, outputs) < before(inputs, outputs);
  }
  // Whether the gradients by x and by the weight are best made from one sum of the output's gradient over targets.
  bool shares(std::int64_t inputs, std::int64_t outputs) const {
    const std::int64_t first = before(inputs, outputs), last = after(inputs, outputs);
    return last + rows * inputs * outputs < first + (first < last ? first : last);
  }
};

// What the tasks of a call share: made by `prepare`, in memory that the caller provides.
struct Prepared {
  bool sparse;
  bool multiplies_first;
  std::int64_t weights_bytes, edges_bytes, bias_bytes, partial_bytes;
  const void* weights;  // panels
  void* edges;          // non-zeros of A, in the sparse form
  void* bias_map;       // [N | 1, W, O]
  void* partials;       // [slots, ...] sums of a gradient
};

// `size` chooses the form and says how much memory it takes; `pack` makes the weights' panels; `prepare` makes the rest
// of what the tasks share; tasks run in any order; `finish` runs over the partitions once all tasks are done.
struct Steps {
  void (*size)(const Problem&, Prepared&);
  void (*pack)(const Problem&, void* weights);
  void (*prepare)(const Problem&, const Prepared&);
  void (*run)(const Problem&, const Prepared&, std::int64_t begin, std::int64_t end);
  void (*finish)(const Problem&, const Prepared&, void* out, std::int64_t begin, std::int64_t end);
};

// `backward` is the sparse form's gradients in one pass; `joints` sums the output's gradient over frames, [N | 1, W,
// O]. Both leave those sums at the start of the partials, from where `by_bias` makes the gradient by the bias, [K, O],
// and adds what the bias brings to the adjacency's.
//
// For one computing type. Tasks of `forward` are [0, batch * pieces); those of the gradients are [0, slots), each an
// even run of the pieces. `grad_adjacency` also writes `out`, the gradient by x, if it has memory.
struct Kernels {
  Steps forward, grad_weight, grad_adjacency, backward, joints;
  void (*by_bias)(const Problem&, const void* joints, void* by_adjacency, void* by_bias);
};

// Those for bfloat16 hold the sparse form, and are null where bfloat16 is not multiplied as such; else it is widened.
struct Table {
  Kernels float32, float64, bfloat16;
};

}  // namespace graph_conv

STGCN_FAST_DECLARE_KERNELS(graph_conv::Table, graph_conv_kernels)

}  // namespace stgcn_fast
