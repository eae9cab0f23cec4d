// Relations between joints, from means over frames, contract of the CPU kernels.
//
//   m[n,v]         = mean over t of x[n,t,v]
//   q[n,k,r,v]     = W[0,k,r] m[n,v] + b[0,k,r],  p[n,k,r,v] = W[1,k,r] m[n,v] + b[1,k,r]
//   out[n,k,r,v,w] = tanh(q[n,k,r,v] - p[n,k,r,w]), or tanh(q[n,k,r,w] - p[n,k,r,v]) if turned, and then fixed[k]
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace joint_relations {

struct Problem {
  std::int64_t batch, frames, joints, inputs, partitions, rank, fixed_rank;
  bool turned;
  ConstMatrix x;  // of sample 0, rows (t, v)
  std::int64_t x_batch;
  // Contiguous, in the computing dtype.
  const void* weight;  // [2, K, R, C]
  const void* bias;    // [2, K, R]
  const void* fixed;   // [K, F, V, V]
  void* out;           // [N, K, R + F, V, V]
};

struct Kernels {
  std::int64_t (*packed_bytes)(const Problem&);
  void (*pack)(const Problem&, void* packed);
  void (*run)(const Problem&, const void* packed, std::int64_t sample);
};

struct Table {
  Kernels float32, float64;
};

}  // namespace joint_relations

STGCN_FAST_DECLARE_KERNELS(joint_relations::Table, joint_relations_kernels)

}  // namespace stgcn_fast
