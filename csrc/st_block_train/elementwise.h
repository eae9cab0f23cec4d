// Passes over rows that cost memory traffic, not arithmetic: normalisation, rectification, dropout, sums over rows.
// Include only from cpu_kernel.cpp.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../common/philox.h"
#include "../graph_conv/rows_grad.h"
#include "../temporal_conv/rows.h"
#include "st_block_train.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block_train {

using namespace ::stgcn_fast::st_block_train;  // NOLINT: the contract of this folder
using graph_conv::padded;
using graph_conv::Rows;
using graph_conv::rows_of;

// Values that go through together: a few arrays of them stay in the first-level cache.
constexpr Index kBatchValues = 2048;

inline Index batch_rows(Index width) { return width >= kBatchValues ? 1 : kBatchValues / width; }

template <typename E>
const Acc<E>* coefficient(const Block& b, Normalisation which, Coefficient kind) {
  return static_cast<const Acc<E>*>(b.coefficients) + (which * kCoefficients + kind) * b.row;
}

// a * x + b, as a scale and a shift in memory.
template <typename E>
[[gnu::always_inline]] inline Vec<Acc<E>> affine(const E* x, const Acc<E>* scale, const Acc<E>* shift) {
  return load(scale) * load_row(x) + load(shift);
}

// `value` where `gate` passed a rectifier: like torch's, a NaN passes.
template <typename T>
[[gnu::always_inline]] inline Vec<T> passed(Vec<T> gate, Vec<T> value) {
  return gate <= Vec<T>{} ? Vec<T>{} : value;
}

// Adds sums over rows to sums[i * stride + c]: body(r, c, v) computes kSums vectors of row r from column c on.
template <typename E, int kSums, int kWide, typename Body>
[[gnu::always_inline]] inline void sum_columns(Index rows, Index c, Acc<E>* sums, Index stride, const Body& body) {
  Vec<Acc<E>> sum[kSums][kWide] = {};
  for (Index r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kWide; ++i) {
      Vec<Acc<E>> v[kSums];
      body(r, c + i * kLanes<E>, v);
#pragma GCC unroll 4
      for (int s = 0; s < kSums; ++s) sum[s][i] += v[s];
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < kSums; ++s) {
#pragma GCC unroll 4
    for (int i = 0; i < kWide; ++i) {
      Acc<E>* to = sums + s * stride + c + i * kLanes<E>;
      store(to, load(to) + sum[s][i]);
    }
  }
}

template <typename E, int kSums, typename Body>
[[gnu::always_inline]] inline void sum_rows(Index rows, Index width, Acc<E>* sums, Index stride, const Body& body) {
  Index c = 0;
  for (; c + 4 * kLanes<E> <= width; c += 4 * kLanes<E>) sum_columns<E, kSums, 4>(rows, c, sums, stride, body);
  for (; c < width; c += kLanes<E>) sum_columns<E, kSums, 1>(rows, c, sums, stride, body);
}

// Calls body(first row, rows) on batches that stay in the first-level cache.
template <typename Body>
[[gnu::always_inline]] inline void for_batches(Index rows, Index width, const Body& body) {
  const Index step = batch_rows(width);
  for (Index r = 0; r < rows; r += step) body(r, rows - r < step ? rows - r : step);
}

template <typename T>
void report(double* to, const T* from, Index values) {
  for (Index i = 0; i < values; ++i) to[i] = static_cast<double>(from[i]);
}

// Mean and squared deviation of `rows` rows of channels, around the first row: exact where the mean is large.
template <typename E>
[[gnu::noinline]] void report_moments(const Block& b, const E* x, Index rows, double* mean) {
  using T = Acc<E>;
  const Index row = b.row, width = padded<E>(b.outputs);
  T* sums = graph_conv::working<T>(Slot::kPanel, 3 * row);
  T* pivot = sums + 2 * row;
  std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(2 * row) * sizeof(T));
  for (Index c = 0; c < width; c += kLanes<E>) store(pivot + c, load_row(x + c));
  for_batches(rows, width, [&](Index first, Index n) {
    const E* from = x + first * row;
    sum_rows<E, 2>(n, width, sums, row, [&](Index r, Index c, Vec<T>* v) {
      v[0] = load_row(from + r * row + c) - load(pivot + c);
      v[1] = v[0] * v[0];
    });
  });
  for (Index c = 0; c < row; ++c) {
    const bool exists = c < b.outputs;
    const double sum = exists ? static_cast<double>(sums[c]) : 0.0, count = static_cast<double>(rows);
    mean[c] = exists ? static_cast<double>(pivot[c]) + sum / count : 0.0;
    mean[row + c] = exists ? static_cast<double>(sums[row + c]) - sum * sum / count : 0.0;
  }
}

// Zeros in the columns of saved rows that are no channels.
template <typename E>
void clear_padding(const Block& b, E* rows, Index count) {
  if (b.row == b.outputs) return;
  const auto bytes = static_cast<std::size_t>(b.row - b.outputs) * sizeof(E);
  for (Index r = 0; r < count; ++r) std::memset(static_cast<void*>(rows + r * b.row + b.outputs), 0, bytes);
}

// Factors of dropout for rows [first, first + rows) of the whole output, a row every b.outputs.
template <typename T>
const T* draw(const Block& b, Index first, Index rows) {
  const Index begin = first * b.outputs, end = begin + rows * b.outputs;
  const Index group = begin / kDropoutGroup, groups = (end + kDropoutGroup - 1) / kDropoutGroup - group;
  const Index values = groups * kDropoutGroup, slack = kLanes<T>;
  char* memory = graph_conv::working<char>(
      Slot::kPointers, (values + slack) * static_cast<Index>(sizeof(float) + (sizeof(T) == 8 ? sizeof(T) : 0)));
  float* factors = reinterpret_cast<float*>(memory);
  dropout_factors(Dropout{b.seed, b.threshold, static_cast<float>(b.scale)}, group, groups, factors);
  if constexpr (std::is_same_v<T, float>) {
    return factors + (begin - group * kDropoutGroup);
  } else {
    T* wide = reinterpret_cast<T*>(factors + values + slack);
    for (Index i = 0; i < values; ++i) wide[i] = factors[i] == 0.0f ? T(0) : static_cast<T>(b.scale);
    return wide + (begin - group * kDropoutGroup);
  }
}

// A constant for the compiler where there is no dropout.
template <bool kDrop, typename T>
[[gnu::always_inline]] inline Vec<T> dropped(Vec<T> value, const T* factors) {
  if constexpr (kDrop) return value * load(factors);
  return value;
}

// h = relu(scale * y + shift)
template <typename E>
[[gnu::noinline]] void rectify_rows(const Block& b, const E* y, Index rows, E* h, Index h_row) {
  const Acc<E>*scale = coefficient<E>(b, kGraph, kScale), *shift = coefficient<E>(b, kGraph, kShift);
  const Index width = padded<E>(b.outputs);
  for (Index r = 0; r < rows; ++r, y += b.row, h += h_row) {
    for (Index c = 0; c < width; c += kLanes<E>) {
      store_row(h + c, rectified<Acc<E>>(affine(y + c, scale + c, shift + c)));
    }
  }
}

// out = relu(D (s2 z + t2) + res); `first` is the first row's number in the whole output.
template <typename E, bool kDrop>
[[gnu::noinline]] void result_rows(const Block& b, Index first, Index rows, const E* z, const Rows<E>& x, const E* r,
                                   E* out, Index out_row) {
  using T = Acc<E>;
  const T *scale = coefficient<E>(b, kTemporal, kScale), *shift = coefficient<E>(b, kTemporal, kShift);
  const T *scale_r = coefficient<E>(b, kResidual, kScale), *shift_r = coefficient<E>(b, kResidual, kShift);
  const Index width = padded<E>(b.outputs);
  for_batches(rows, width, [&](Index begin, Index n) {
    const T* factors = kDrop ? draw<T>(b, first + begin, n) : nullptr;
    for (Index i = begin; i < begin + n; ++i, factors += kDrop ? b.outputs : 0) {
      for (Index c = 0; c < width; c += kLanes<E>) {
        Vec<T> sum = dropped<kDrop, T>(affine(z + i * b.row + c, scale + c, shift + c), factors + c);
        if (b.identity) sum += load_row(x.data + i * x.row + c);
        if (b.convolved) sum += affine(r + i * b.row + c, scale_r + c, shift_r + c);
        store_row(out + i * out_row + c, rectified<T>(sum));
      }
    }
  });
}

// Sums of gz, gz (z - mean2) and, with a residual convolution, gm, gm (r - mean_r).
template <typename E, bool kDrop, bool kConvolved>
[[gnu::noinline]] void sum_gradients(const Block& b, Index first, Index rows, const Rows<E>& grad,
                                     const Rows<E>& result, const E* z, const E* r, Acc<E>* sums) {
  using T = Acc<E>;
  const T *mean = coefficient<E>(b, kTemporal, kMean), *mean_r = coefficient<E>(b, kResidual, kMean);
  const Index width = padded<E>(b.outputs);
  for_batches(rows, width, [&](Index begin, Index n) {
    const T* factors = kDrop ? draw<T>(b, first + begin, n) : nullptr;
    sum_rows<E, kConvolved ? 4 : 2>(n, width, sums, b.row, [&](Index i, Index c, Vec<T>* v) {
      const Index at = begin + i;
      const Vec<T> gm = passed<T>(load_row(result.data + at * result.row + c), load_row(grad.data + at * grad.row + c));
      v[0] = dropped<kDrop, T>(gm, factors + i * b.outputs + c);
      v[1] = v[0] * (load_row(z + at * b.row + c) - load(mean + c));
      if constexpr (kConvolved) {
        v[2] = gm;
        v[3] = gm * (load_row(r + at * b.row + c) - load(mean_r + c));
      }
    });
  });
}

// dz = a gz + (b z + c)
template <typename E, bool kDrop>
[[gnu::noinline]] void gradient_rows(const Block& b, Index first, Index rows, const Rows<E>& grad,
                                     const Rows<E>& result, const E* z, E* dz, Index dz_row) {
  using T = Acc<E>;
  const T* by_grad = coefficient<E>(b, kTemporal, kByGrad);
  const T *by_value = coefficient<E>(b, kTemporal, kByValue), *constant = coefficient<E>(b, kTemporal, kConstant);
  const Index width = padded<E>(b.outputs);
  for_batches(rows, width, [&](Index begin, Index n) {
    const T* factors = kDrop ? draw<T>(b, first + begin, n) : nullptr;
    for (Index i = begin; i < begin + n; ++i, factors += kDrop ? b.outputs : 0) {
      for (Index c = 0; c < width; c += kLanes<E>) {
        const Vec<T> gm = passed<T>(load_row(result.data + i * result.row + c), load_row(grad.data + i * grad.row + c));
        const Vec<T> gz = dropped<kDrop, T>(gm, factors + c);
        store_row(dz + i * dz_row + c, load(by_grad + c) * gz + affine(z + i * b.row + c, by_value + c, constant + c));
      }
    }
  });
}

// to = from where h passed; sums of that and of that times (y - mean1).
template <typename E>
[[gnu::noinline]] void mask_rows(const Block& b, const E* from, Index from_row, const E* h, Index h_row, const E* y,
                                 Index rows, E* to, Index to_row, Acc<E>* sums) {
  using T = Acc<E>;
  const T* mean = coefficient<E>(b, kGraph, kMean);
  const Index width = padded<E>(b.outputs);
  for_batches(rows, width, [&](Index begin, Index n) {
    sum_rows<E, 2>(n, width, sums, b.row, [&](Index i, Index c, Vec<T>* v) {
      const Index at = begin + i;
      v[0] = passed<T>(load_row(h + at * h_row + c), load_row(from + at * from_row + c));
      store_row(to + at * to_row + c, v[0]);
      v[1] = v[0] * (load_row(y + at * b.row + c) - load(mean + c));
    });
  });
}

// to = a g + (b x + c) with the coefficients of a normalisation, g where `gate` passed if there is one.
template <typename E>
[[gnu::noinline]] void normalised_gradient(const Block& b, Normalisation which, const E* g, Index g_row, const E* gate,
                                           Index gate_row, const E* x, Index rows, E* to, Index to_row) {
  using T = Acc<E>;
  const T* by_grad = coefficient<E>(b, which, kByGrad);
  const T *by_value = coefficient<E>(b, which, kByValue), *constant = coefficient<E>(b, which, kConstant);
  const Index width = padded<E>(b.outputs);
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < width; c += kLanes<E>) {
      Vec<T> grad = load_row(g + r * g_row + c);
      if (gate != nullptr) grad = passed<T>(load_row(gate + r * gate_row + c), grad);
      store_row(to + r * to_row + c, load(by_grad + c) * grad + affine(x + r * b.row + c, by_value + c, constant + c));
    }
  }
}

// to = g where `gate` passed
template <typename E>
[[gnu::noinline]] void gated_rows(const Rows<E>& g, const Rows<E>& gate, Index rows, Index width, E* to, Index to_row) {
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < width; c += kLanes<E>) {
      store_row(to + r * to_row + c,
                passed<Acc<E>>(load_row(gate.data + r * gate.row + c), load_row(g.data + r * g.row + c)));
    }
  }
}

}  // namespace st_block_train
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
