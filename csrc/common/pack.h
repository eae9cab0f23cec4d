// Packing into the panels that micro_kernel.h reads. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <cstring>

#include "micro_kernel.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Panels of kPanel columns that hold `columns` columns.
template <typename T>
constexpr std::int64_t panel_count(std::int64_t columns) {
  return (columns + kPanel<T> - 1) / kPanel<T>;
}

// Columns of panel `panel` that exist.
template <typename T>
constexpr int panel_columns(std::int64_t columns, std::int64_t panel) {
  const std::int64_t left = columns - panel * kPanel<T>;
  return static_cast<int>(left < kPanel<T> ? left : kPanel<T>);
}

// Elements of one packed panel of `depth` rows.
template <typename T>
constexpr std::int64_t panel_values(std::int64_t depth) {
  return depth * kPanel<T>;
}

// out[k][j] = source[k * k_stride + j * column_stride] for k < depth, j < columns; zero for columns <= j < kPanel.
template <typename T>
void pack_panel(T* out, const T* source, std::int64_t k_stride, std::int64_t column_stride, std::int64_t depth,
                int columns) {
  if (columns == kPanel<T> && column_stride == 1) {
    for (std::int64_t k = 0; k < depth; ++k) {
      for (int v = 0; v < kPanelVectors; ++v) {
        store(out + k * kPanel<T> + v * kLanes<T>, load(source + k * k_stride + v * kLanes<T>));
      }
    }
    return;
  }
  for (std::int64_t k = 0; k < depth; ++k, out += kPanel<T>) {
    const T* row = source + k * k_stride;
    for (int j = 0; j < columns; ++j) out[j] = row[j * column_stride];
    for (int j = columns; j < kPanel<T>; ++j) out[j] = T(0);
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
