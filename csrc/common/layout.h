// Moves blocks [rows, channels] between any dtype and stride and the computing layout: float or double, channels
// innermost. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "convert.h"
#include "dtype.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

namespace detail {

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define STGCN_FAST_HAS_SHUFFLE 1
#endif
#endif

#ifdef STGCN_FAST_HAS_SHUFFLE
// One stage of a transpose in registers: exchanges the off-diagonal blocks of size kBlock of two rows.
template <int kBlock, typename T, std::size_t... kLane>
[[gnu::always_inline]] inline void exchange(Vec<T>& a, Vec<T>& b, std::index_sequence<kLane...>) {
  constexpr int kN = kLanes<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, ((kLane & kBlock) ? kN + kLane - kBlock : kLane)...);
  const Vec<T> high = __builtin_shufflevector(a, b, ((kLane & kBlock) ? kN + kLane : kLane + kBlock)...);
  a = low;
  b = high;
}

template <int kBlock, typename T>
[[gnu::always_inline]] inline void transpose_stages(Vec<T>* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) {
    if (!(i & kBlock)) exchange<kBlock, T>(rows[i], rows[i + kBlock], std::make_index_sequence<kLanes<T>>{});
  }
  if constexpr (kBlock > 1) transpose_stages<kBlock / 2, T>(rows);
}

template <typename T>
[[gnu::always_inline]] inline void transpose(Vec<T>* rows) {
  transpose_stages<kLanes<T> / 2, T>(rows);
}
#else
template <typename T>
inline void transpose(Vec<T>* rows) {
  T in[kLanes<T>][kLanes<T>], out[kLanes<T>][kLanes<T>];
  std::memcpy(in, rows, sizeof(in));
  for (int i = 0; i < kLanes<T>; ++i) {
    for (int j = 0; j < kLanes<T>; ++j) out[j][i] = in[i][j];
  }
  std::memcpy(rows, out, sizeof(out));
}
#endif

// Elements by which a transpose runs ahead of itself: one stream per channel is more than the hardware follows.
inline constexpr int kAhead = 64;

// The last block of a ragged edge overlaps the one before: what it writes twice is the same both times.
inline std::int64_t last_block(std::int64_t begin, std::int64_t size, std::int64_t block) {
  return begin + block <= size ? begin : size - block;
}

template <typename T, typename S>
[[gnu::noinline]] void gather_as(T* out, std::int64_t out_row, const S* in, std::int64_t row, std::int64_t channel,
                                 std::int64_t rows, std::int64_t channels) {
  constexpr int kN = kLanes<T>;
  if (channel == 1) {
    for (std::int64_t r = 0; r < rows; ++r) {
      T* to = out + r * out_row;
      const S* from = in + r * row;
      std::int64_t c = 0;
      for (; c + kN <= channels; c += kN) store(to + c, load_row(from + c));
      for (; c < channels; ++c) to[c] = widen(from[c]);
    }
    return;
  }
  if (row == 1 && rows >= kN && channels >= kN) {
    for (std::int64_t c0 = 0; c0 < channels; c0 += kN) {
      const std::int64_t c = last_block(c0, channels, kN);
      for (std::int64_t r0 = 0; r0 < rows; r0 += kN) {
        const std::int64_t r = last_block(r0, rows, kN);
        Vec<T> block[kN];
#pragma GCC unroll 16
        for (int i = 0; i < kN; ++i) {
          __builtin_prefetch(in + r + kAhead + (c + i) * channel);
          block[i] = load_row(in + r + (c + i) * channel);
        }
        transpose<T>(block);
#pragma GCC unroll 16
        for (int i = 0; i < kN; ++i) store(out + (r + i) * out_row + c, block[i]);
      }
    }
    return;
  }
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out[r * out_row + c] = widen(in[r * row + c * channel]);
  }
}

template <typename T, typename S>
[[gnu::noinline]] void scatter_as(S* out, std::int64_t row, std::int64_t channel, const T* in, std::int64_t in_row,
                                  std::int64_t rows, std::int64_t channels) {
  constexpr int kN = kLanes<T>;
  if (channel == 1) {
    for (std::int64_t r = 0; r < rows; ++r) {
      S* to = out + r * row;
      const T* from = in + r * in_row;
      std::int64_t c = 0;
      for (; c + kN <= channels; c += kN) store_row(to + c, load(from + c));
      for (; c < channels; ++c) narrow(from[c], to[c]);
    }
    return;
  }
  if (row == 1 && rows >= kN && channels >= kN) {
    for (std::int64_t c0 = 0; c0 < channels; c0 += kN) {
      const std::int64_t c = last_block(c0, channels, kN);
      for (std::int64_t r0 = 0; r0 < rows; r0 += kN) {
        const std::int64_t r = last_block(r0, rows, kN);
        Vec<T> block[kN];
#pragma GCC unroll 16
        for (int i = 0; i < kN; ++i) block[i] = load(in + (r + i) * in_row + c);
        transpose<T>(block);
#pragma GCC unroll 16
        for (int i = 0; i < kN; ++i) {
          __builtin_prefetch(out + r + kAhead + (c + i) * channel, 1);
          store_row(out + r + (c + i) * channel, block[i]);
        }
      }
    }
    return;
  }
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) narrow(in[r * in_row + c], out[r * row + c * channel]);
  }
}

}  // namespace detail

// out[r * out_row + c] = matrix[r][c]. T is double for float64 and float for the other three.
template <typename T>
void gather(T* out, std::int64_t out_row, const ConstMatrix& matrix, std::int64_t rows, std::int64_t channels) {
  if constexpr (std::is_same_v<T, double>) {
    detail::gather_as(out, out_row, static_cast<const double*>(matrix.data), matrix.row, matrix.channel, rows,
                      channels);
  } else if (matrix.dtype == Dtype::kFloat32) {
    detail::gather_as(out, out_row, static_cast<const float*>(matrix.data), matrix.row, matrix.channel, rows, channels);
  } else if (matrix.dtype == Dtype::kBFloat16) {
    detail::gather_as(out, out_row, static_cast<const BFloat16*>(matrix.data), matrix.row, matrix.channel, rows,
                      channels);
  } else {
    detail::gather_as(out, out_row, static_cast<const Float16*>(matrix.data), matrix.row, matrix.channel, rows,
                      channels);
  }
}

// matrix[r][c] = in[r * in_row + c], rounded to the matrix's dtype.
template <typename T>
void scatter(const Matrix& matrix, const T* in, std::int64_t in_row, std::int64_t rows, std::int64_t channels) {
  if constexpr (std::is_same_v<T, double>) {
    detail::scatter_as(static_cast<double*>(matrix.data), matrix.row, matrix.channel, in, in_row, rows, channels);
  } else if (matrix.dtype == Dtype::kFloat32) {
    detail::scatter_as(static_cast<float*>(matrix.data), matrix.row, matrix.channel, in, in_row, rows, channels);
  } else if (matrix.dtype == Dtype::kBFloat16) {
    detail::scatter_as(static_cast<BFloat16*>(matrix.data), matrix.row, matrix.channel, in, in_row, rows, channels);
  } else {
    detail::scatter_as(static_cast<Float16*>(matrix.data), matrix.row, matrix.channel, in, in_row, rows, channels);
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
