// What packed.cpp needs of the instruction set in use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "capability.h"

namespace stgcn_fast {

struct PackedKernels {
  void (*add_to_hash)(std::uint64_t* state, const void* data, std::size_t bytes);  // see hash.h
};

STGCN_FAST_DECLARE_KERNELS(PackedKernels, packed_kernels)

}  // namespace stgcn_fast
