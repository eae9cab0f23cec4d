// Between torch tensors and what kernels read: [N, C, T, V] tensors as one matrix [T * V, C] per sample.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <optional>

#include "check.h"
#include "dtype.h"

namespace stgcn_fast {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline const char* dtype_name(ScalarType type) { return torch::headeronly::toString(type); }

inline Dtype dtype_of(const char* op, const char* argument, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::kFloat32;
    case ScalarType::Double:
      return Dtype::kFloat64;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Half:
      return Dtype::kFloat16;
    default:
      check(false, op, argument, "float32, float64, bfloat16 or float16", dtype_name(tensor.scalar_type()));
      return Dtype::kFloat32;
  }
}

// The dtype that kernels compute in: double for float64, else float.
inline ScalarType compute_type(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? ScalarType::Double : ScalarType::Float;
}

inline std::int64_t element_bytes(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

inline void check_same_dtype(const char* op, const char* argument, const Tensor& tensor, const Tensor& x,
                             const char* first = "x") {
  check(tensor.scalar_type() == x.scalar_type(), op, argument,
        std::string("of ") + first + "'s dtype " + dtype_name(x.scalar_type()), dtype_name(tensor.scalar_type()));
}

// Small operands (weights, biases, adjacencies) as a contiguous tensor of the computing dtype.
inline Tensor as_operand(const Tensor& tensor, ScalarType type) {
  const Tensor same = tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  return same.is_contiguous() ? same : torch::stable::contiguous(same);
}

// Contiguous as channels_last and not as plain: what decides an output's memory format.
inline bool prefers_channels_last(const Tensor& x) {
  if (x.is_contiguous()) return false;
  std::int64_t expected = 1;
  for (int d : {1, 3, 2, 0}) {
    if (x.size(d) == 1) continue;
    if (x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// x [N, C, T, V], any strides, as matrices [T * V, C].
struct Activation {
  Tensor tensor;  // keeps the memory alive
  std::int64_t batch, channels, frames, joints;
  std::int64_t batch_stride;  // elements
  ConstMatrix matrix;         // of sample 0

  ConstMatrix sample(std::int64_t n) const {
    ConstMatrix m = matrix;
    m.data = static_cast<const char*>(m.data) + n * batch_stride * element_bytes(m.dtype);
    return m;
  }
};

inline Activation read_activation(const char* op, const char* argument, const Tensor& x) {
  check(x.dim() == 4, op, argument, "[N, C, T, V]", shape_text(x));
  const Dtype dtype = dtype_of(op, argument, x);
  // Frames and joints fold into one row index when a frame's stride is V joints'.
  const bool folds = x.size(2) <= 1 || x.size(3) == 0 || x.stride(2) == x.size(3) * x.stride(3);
  const bool dense = x.stride(1) == 1 || x.stride(3) == 1;
  const Tensor held = folds && dense ? x : torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
  const std::int64_t row = held.size(3) == 1 ? held.stride(2) : held.stride(3);
  // A single channel or a single row may carry any stride: say the one that reads straight through.
  const std::int64_t channel = held.size(1) == 1 ? 1 : held.stride(1);
  return {held,
          held.size(0),
          held.size(1),
          held.size(2),
          held.size(3),
          held.stride(0),
          {held.const_data_ptr(), dtype, row, channel}};
}

// A new [N, C, T, V] tensor like x in dtype, written sample by sample.
struct Result {
  Tensor tensor;
  std::int64_t batch_stride;
  Matrix matrix;  // of sample 0

  Matrix sample(std::int64_t n) const {
    Matrix m = matrix;
    m.data = static_cast<char*>(m.data) + n * batch_stride * element_bytes(m.dtype);
    return m;
  }
};

inline Result new_result(const Tensor& like, Dtype dtype, bool channels_last, std::int64_t batch, std::int64_t channels,
                         std::int64_t frames, std::int64_t joints) {
  const std::array<std::int64_t, 4> sizes{batch, channels, frames, joints};
  const Tensor out =
      torch::stable::empty({sizes.data(), sizes.size()}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                           channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const std::int64_t rows = frames * joints;
  return {
      out, channels * rows, {out.mutable_data_ptr(), dtype, channels_last ? channels : 1, channels_last ? 1 : rows}};
}

}  // namespace stgcn_fast
