// Output frames that are taken from a clip whose output is known.
#pragma once

#include "common/cuda/element.cuh"

namespace stgcn_fast {
namespace cuda {

struct Rest {
  const Index* frames;  // [N], frames of the input that may differ from the clip's
  Index samples, in_frames, out_frames;
  Index row;  // elements of a frame
  Index kernel_size, stride, group;
};

// out [N][out_frames][row] = rest [out_frames][row] where no frame that may differ is seen. The frames that may are
// counted as on the CPU, in whole groups.
template <typename E>
__global__ void copy_rest(Rest r, const E* rest, E* out) {
  const Index sample = r.out_frames * r.row, count = r.samples * sample;
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Index differ = r.frames[i / sample];
    const Index reached = ceil_div(differ + r.kernel_size / 2, r.stride);
    if (differ <= 0 || i % sample / r.row >= round_up(reached, r.group)) out[i] = rest[i % sample];
  }
}

}  // namespace cuda
}  // namespace stgcn_fast
