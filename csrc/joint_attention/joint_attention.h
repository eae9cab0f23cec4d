// Adjacencies from products of joints' embeddings, contract of the CPU kernels.
//
//   a[n,k,t,v] = W[0,k] x[n,t,v] + b[0,k],  c[n,k,t,w] = W[1,k] x[n,t,w] + b[1,k]        R channels each
//   s[n,k,v,w] = sum over t, r of a[n,k,t,v,r] c[n,k,t,w,r] / (R T)
//   out        = alpha tanh(s) + fixed[k], or the softmax of s over v, + fixed[k]
//
// The embeddings of a few frames at a time stay in the second-level cache.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace joint_attention {

struct Problem {
  std::int64_t batch, frames, joints, inputs, partitions, rank;
  ConstMatrix x;  // of sample 0, rows (t, v)
  std::int64_t x_batch;
  // Contiguous, in the computing dtype.
  const void* weight;  // [2, K, R, C]
  const void* bias;    // [2, K, R]
  const void* fixed;   // [K, V, V]
  const void* alpha;   // [1], or null for the softmax
  void* out;           // [N, K, V, V]
};

struct Kernels {
  std::int64_t (*packed_bytes)(const Problem&);
  void (*pack)(const Problem&, void* packed);
  void (*run)(const Problem&, const void* packed, std::int64_t sample, std::int64_t partition);
};

struct Table {
  Kernels float32, float64;
};

}  // namespace joint_attention

STGCN_FAST_DECLARE_KERNELS(joint_attention::Table, joint_attention_kernels)

}  // namespace stgcn_fast
