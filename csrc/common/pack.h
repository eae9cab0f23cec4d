// Packing into the panels that micro_kernel.h reads. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <cstring>

#include "micro_kernel.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Panels of kPanel columns that hold `columns` columns.
template <typename E>
constexpr std::int64_t panel_count(std::int64_t columns) {
  return (columns + kPanel<E> - 1) / kPanel<E>;
}

// Columns of panel `panel` that exist.
template <typename E>
constexpr int panel_columns(std::int64_t columns, std::int64_t panel) {
  const std::int64_t left = columns - panel * kPanel<E>;
  return static_cast<int>(left < kPanel<E> ? left : kPanel<E>);
}

// out[k][j] = source[k * k_stride + j * column_stride] for k < depth, j < columns; zero for columns <= j < kPanel. For
// bfloat16 out[k / 2][j][k % 2], and zero for k = depth where depth is odd.
template <typename E>
void pack_panel(E* out, const Acc<E>* source, std::int64_t k_stride, std::int64_t column_stride, std::int64_t depth,
                int columns) {
  if constexpr (kDepth<E> == 1) {
    if (columns == kPanel<E> && column_stride == 1) {
      for (std::int64_t k = 0; k < depth; ++k) {
        for (int v = 0; v < kPanelVectors; ++v) {
          store(out + k * kPanel<E> + v * kLanes<E>, load(source + k * k_stride + v * kLanes<E>));
        }
      }
      return;
    }
  }
  for (std::int64_t k = 0; k < panel_values<E>(depth) / kPanel<E>; ++k) {
    E* to = out + k / kDepth<E> * kDepth<E> * kPanel<E> + k % kDepth<E>;
    const Acc<E>* row = source + k * k_stride;
    for (int j = 0; j < kPanel<E>; ++j) {
      narrow(k < depth && j < columns ? row[j * column_stride] : Acc<E>(0), to[j * kDepth<E>]);
    }
  }
}

#if defined(__AVX512BF16__)
namespace detail {

inline void pair_row(BFloat16* out, const BFloat16* low, const BFloat16* high, std::int64_t columns) {
  std::int64_t j = 0;
  for (; j + kLanes<BFloat16> <= columns; j += kLanes<BFloat16>) {
    const Words first = __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(low + j), Words);
    const Words second =
        high == nullptr ? Words{} : __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(high + j), Words);
    store(reinterpret_cast<float*>(out + 2 * j), same_bits<Vec<float>>(first | second << 16));
  }
  for (; j < columns; ++j) {
    out[2 * j] = low[j];
    out[2 * j + 1] = high == nullptr ? BFloat16{0} : high[j];
  }
}

}  // namespace detail

// A product whose k runs over rows: out[r / 2][c][r % 2] = rows[r * row + c], and zeros after an odd last row.
inline void pair_rows(BFloat16* out, const BFloat16* rows, std::int64_t row, std::int64_t count,
                      std::int64_t channels) {
  for (std::int64_t r = 0; r < count; r += 2, out += 2 * channels) {
    const BFloat16* low = rows + r * row;
    detail::pair_row(out, low, r + 1 < count ? low + row : nullptr, channels);
  }
}

// The panel to go with it: out[r / 2][j][r % 2] = rows[r * row + j] for j < columns, zeros elsewhere.
inline void pair_panel(BFloat16* out, const BFloat16* rows, std::int64_t row, std::int64_t count, int columns) {
  for (std::int64_t r = 0; r < count; r += 2, out += 2 * kPanel<BFloat16>) {
    const BFloat16* low = rows + r * row;
    detail::pair_row(out, low, r + 1 < count ? low + row : nullptr, columns);
    for (int j = 2 * columns; j < 2 * kPanel<BFloat16>; ++j) out[j] = BFloat16{0};
  }
}
#endif

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
