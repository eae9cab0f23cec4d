#include "common/hash.h"
#include "common/packed_kernels.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

const PackedKernels& packed_kernels() {
  static constexpr PackedKernels kKernels{&add_to_hash};
  return kKernels;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
