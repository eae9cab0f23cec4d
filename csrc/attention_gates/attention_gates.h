// A graph layer's end and the gates of joints, frames and channels behind it, contract of the CPU kernels.
//
//   h[n,t,v]  = relu(x + shift + add)
//   g[n,v]    = gate of joints_weight over v of the mean over t of h[n]
//   f[n,t]    = mean over v of g[n,v] h[n,t,v]
//   k[n,t]    = gate of frames_weight over t of f[n]
//   channels  = gate of up relu(down m + down_bias) + up_bias, m[n] = mean over t of k[n,t] f[n,t]
//   rows[t,v] = k[n,t] g[n,v]
//
// A gate is 1 + sigmoid; its kernel of an odd number of taps is centred and sees zeros beyond the ends.
#pragma once

#include <cstdint>

#include "common/capability.h"
#include "common/dtype.h"

namespace stgcn_fast {
namespace attention_gates {

struct Problem {
  std::int64_t batch, frames, joints, channels, joint_taps, frame_taps, hidden;
  ConstMatrix x, add;  // of sample 0, rows (t, v); add's data null where there is none
  std::int64_t x_batch, add_batch;
  Matrix out;  // h of sample 0
  std::int64_t out_batch;
  // Contiguous, in the computing dtype.
  const void* shift;          // [C] or null
  const void* joints_weight;  // [joint_taps, C]
  const void* joints_bias;    // [1]
  const void* frames_weight;  // [frame_taps, C]
  const void* frames_bias;    // [1]
  const void* down_weight;    // [H, C]
  const void* down_bias;      // [H]
  const void* up_weight;      // [C, H]
  const void* up_bias;        // [C]
  void* row_gate;             // [N, T, V]
  void* channel_gate;         // [N, C]
};

struct Kernels {
  void (*run)(const Problem&, std::int64_t sample);
};

struct Table {
  Kernels float32, float64;
};

}  // namespace attention_gates

STGCN_FAST_DECLARE_KERNELS(attention_gates::Table, attention_gates_kernels)

}  // namespace stgcn_fast
