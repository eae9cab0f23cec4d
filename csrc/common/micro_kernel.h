// The register-tiled product every op is built from:
//
//   C[r][j] (+)= bias[j] + sum over taps p, sum over k of A_p[r * a_row + k * a_step] * B_p[k * kPanel + j]
//
// and, on the way out, another matrix added (a residual) and negatives cut off (ReLU).
//
// A_p are plain rows in memory (temporal taps: row offsets; graph partitions: pointers into an aggregation buffer) read
// with any row and k stride, so the same code computes weight gradients with k running over rows (a_row = 1). B_p are
// panels of kPanel columns (pack.h). Include only from cpu_kernel.cpp files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "simd.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Two vectors of columns; as many rows as leave registers for the two B vectors and one broadcast: 12 * 2 + 3 of 32,
// 6 * 2 + 3 of 16.
inline constexpr int kPanelVectors = 2;
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kTileRows = 12;
#else
inline constexpr int kTileRows = 6;
#endif

// Columns of one packed panel.
template <typename T>
inline constexpr int kPanel = kPanelVectors * kLanes<T>;

template <typename T>
struct Product {
  const T* const* a;  // [taps] first row of each tap
  const T* const* b;  // [taps] panel of each tap, [k][kPanel]
  std::int64_t taps = 0;
  std::int64_t k = 0;       // depth of each tap
  std::int64_t a_row = 0;   // elements between rows of A
  std::int64_t a_step = 1;  // elements between successive k of A
  const T* bias = nullptr;  // [columns] or null; not read when accumulating
  const T* add = nullptr;   // [rows][columns] or null: added to the sums
  std::int64_t add_row = 0;
  bool relu = false;  // negative results become zero, a NaN stays one
  T* c = nullptr;
  std::int64_t c_row = 0;   // elements between rows of C
  bool accumulate = false;  // add to C instead of overwriting it
};

namespace detail {

// Rows are addressed as one of three bases plus 0..3 strides: a handful of integer registers whatever the strides are.
template <typename T, int kRows>
[[gnu::noinline]] void tile(const Product<T>& q, std::int64_t a_offset, T* c, const T* add) {
  Vec<T> acc[kRows][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      acc[r][v] = q.accumulate ? load(c + r * q.c_row + v * kLanes<T>)
                  : q.bias     ? load(q.bias + v * kLanes<T>)
                               : Vec<T>{};
    }
  }
  const std::int64_t row = q.a_row, row3 = 3 * q.a_row, step = q.a_step, depth = q.k;
  for (std::int64_t p = 0; p < q.taps; ++p) {
    const T* base[3];
    base[0] = q.a[p] + a_offset;
    base[1] = base[0] + 4 * row;
    base[2] = base[0] + 8 * row;
    const T* b = q.b[p];
    for (std::int64_t k = 0; k < depth; ++k) {
      Vec<T> column[kPanelVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) {
        column[v] = load(b + v * kLanes<T>);
        pin(column[v]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const T* a = base[r / 4];
        Vec<T> x = broadcast(r % 4 == 0 ? a[0] : r % 4 == 1 ? a[row] : r % 4 == 2 ? a[2 * row] : a[row3]);
        pin(x);
#pragma GCC unroll 2
        for (int v = 0; v < kPanelVectors; ++v) acc[r][v] += x * column[v];
      }
      base[0] += step;
      if (kRows > 4) base[1] += step;
      if (kRows > 8) base[2] += step;
      b += kPanel<T>;
    }
  }
  if (add != nullptr) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) acc[r][v] += load(add + r * q.add_row + v * kLanes<T>);
    }
  }
  if (q.relu) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) acc[r][v] = rectified<T>(acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) store(c + r * q.c_row + v * kLanes<T>, acc[r][v]);
  }
}

template <typename T>
using TileFunction = void (*)(const Product<T>&, std::int64_t, T*, const T*);

template <typename T, std::size_t... kIndex>
[[gnu::always_inline]] inline TileFunction<T> tile_function(int rows, std::index_sequence<kIndex...>) {
  static constexpr TileFunction<T> kTiles[] = {&tile<T, static_cast<int>(kIndex) + 1>...};
  return kTiles[rows - 1];
}

// A narrow last panel: the tile goes to a buffer of full width, the columns that exist are added from there.
template <typename T>
[[gnu::noinline]] void narrow_tile(const Product<T>& q, TileFunction<T> run, std::int64_t a_offset, T* c, const T* add,
                                   int rows, int columns) {
  alignas(64) T buffer[kTileRows * kPanel<T>];
  Product<T> full = q;
  full.bias = nullptr;
  full.accumulate = false;
  full.relu = false;
  full.c_row = kPanel<T>;
  run(full, a_offset, buffer, nullptr);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; ++j) {
      T& out = c[r * q.c_row + j];
      T sum = (q.accumulate ? out : q.bias ? q.bias[j] : T(0)) + buffer[r * kPanel<T> + j];
      if (add != nullptr) sum += add[r * q.add_row + j];
      out = q.relu && sum < T(0) ? T(0) : sum;
    }
  }
}

}  // namespace detail

// Rows of the next tile. The last two tiles share what is left evenly: a sliver of one or two rows would wait for the
// multipliers' latency.
inline int tile_rows(std::int64_t left) {
  if (left <= kTileRows) return static_cast<int>(left);
  return left >= 2 * kTileRows ? kTileRows : static_cast<int>((left + 1) / 2);
}

// Computes `rows` rows and `columns` <= kPanel<T> columns of C.
template <typename T>
inline void product(const Product<T>& q, std::int64_t rows, int columns) {
  for (std::int64_t r = 0; r < rows;) {
    const int n = tile_rows(rows - r);
    const auto run = detail::tile_function<T>(n, std::make_index_sequence<kTileRows>{});
    T* c = q.c + r * q.c_row;
    const T* add = q.add == nullptr ? nullptr : q.add + r * q.add_row;
    if (columns == kPanel<T>) {
      run(q, r * q.a_row, c, add);
    } else {
      detail::narrow_tile(q, run, r * q.a_row, c, add, n, columns);
    }
    r += n;
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
