// Element types as kernels see them: no torch header may reach a file compiled for a particular instruction set, or the
// linker could keep that copy of a torch inline function for every machine.
#pragma once

#include <cstdint>

namespace stgcn_fast {

enum class Dtype { kFloat32, kFloat64, kBFloat16, kFloat16 };

// A matrix [rows, channels] in memory; strides in elements.
struct ConstMatrix {
  const void* data;
  Dtype dtype;
  std::int64_t row;
  std::int64_t channel;
};

struct Matrix {
  void* data;
  Dtype dtype;
  std::int64_t row;
  std::int64_t channel;
};

}  // namespace stgcn_fast
