// Graph convolution whose adjacency is of low rank along channels, contract of the CPU kernels.
//
//   A[n,k,o,v,w] = sum_r mix[k,o,r] * relations[n,k,r,v,w]
//   y[n,t,w,o]   = sum_k sum_v A[n,k,o,v,w] * (b[k,o] + sum_c W[k,o,c] * x[n,t,v,c])
//
// A panel of channels of A at a time is made where it is used, in the first- and second-level cache.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace relation_graph_conv {

struct Problem {
  std::int64_t batch, frames, sources, targets, inputs, outputs, partitions, rank;
  ConstMatrix x;  // of sample 0, rows (t, v)
  std::int64_t x_batch;
  Matrix out;  // of sample 0, rows (t, w)
  std::int64_t out_batch;
  // Contiguous, in the computing dtype.
  const void* weight;     // [K, O, C]
  const void* mix;        // [K, O, R]
  const void* relations;  // [N, K, R, V, W]
  const void* bias;       // [K, O] or null
};

struct Kernels {
  std::int64_t (*packed_bytes)(std::int64_t partitions, std::int64_t outputs, std::int64_t depth);
  // [K, O, depth] as panels.
  void (*pack)(const void* weight, std::int64_t partitions, std::int64_t outputs, std::int64_t depth, void* packed);
  std::int64_t (*panels)(std::int64_t outputs);
  // Whether panels can go to different threads: their columns of the result are computed in place.
  bool (*separable)(const Problem&);
  // Panels [begin, end) of one sample.
  void (*run)(const Problem&, const void* weights, const void* mix, std::int64_t sample, std::int64_t begin,
              std::int64_t end);
};

struct Table {
  Kernels float32, float64;
};

}  // namespace relation_graph_conv

STGCN_FAST_DECLARE_KERNELS(relation_graph_conv::Table, relation_graph_conv_kernels)

}  // namespace stgcn_fast
