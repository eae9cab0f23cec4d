// The register-tiled product every op is built from:
//
//   C[r][j] (+)= bias[j] + sum over taps p, sum over k of A_p[r * a_row + k * a_step] * B_p[k * kPanel + j]
//
// and, on the way out, another matrix added (a residual) and negatives cut off (ReLU).
//
// A_p are plain rows in memory (temporal taps: row offsets; graph partitions: pointers into an aggregation buffer) read
// with any row and k stride, so the same code computes weight gradients with k running over rows (a_row = 1). B_p are
// panels of kPanel columns (pack.h).
//
// bfloat16 is multiplied in pairs (kDepth = 2): what is above one k is there a pair of neighbouring k, in A and in B,
// and a_step leads from pair to pair. Rows of A with the channels innermost are so already. A depth that is odd ends in
// a pair whose second row of B is zero (pack_panel) and whose second element of A must be finite: pad rows of A with
// zeros. Where k runs over rows, pack.h's pair_rows and pair_panel bring row pairs together, for a_row = 2 and
// a_step = 2 * channels.
//
// Include only from cpu_kernel.cpp files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "convert.h"

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
// Rows of a tile of one vector of columns: up to 12, which fit in any registers, or 24 at once where they fit.
inline constexpr int kNarrowRows = 12;
inline constexpr int kTallRows = kTileRows == 12 ? 24 : 0;

// Columns of one packed panel.
template <typename E>
inline constexpr int kPanel = kPanelVectors * kLanes<E>;

// Values of k that are multiplied at once.
template <typename E>
inline constexpr int kDepth = 1;
template <>
inline constexpr int kDepth<BFloat16> = 2;

// Elements of one packed panel.
template <typename E>
constexpr std::int64_t panel_values(std::int64_t depth) {
  return (depth + kDepth<E> - 1) / kDepth<E> * kDepth<E> * kPanel<E>;
}

template <typename E, typename Out = E>
struct Product {
  const E* const* a;  // [taps] first row of each tap
  const E* const* b;  // [taps] panel of each tap, [k / kDepth][kPanel][kDepth]
  std::int64_t taps = 0;
  std::int64_t k = 0;               // depth of each tap
  std::int64_t a_row = 0;           // elements between rows of A
  std::int64_t a_step = kDepth<E>;  // elements between successive k (pairs of k) of A
  const Acc<E>* bias = nullptr;     // [columns] or null; not read when accumulating
  const Out* add = nullptr;         // [rows][columns] or null: added to the sums
  std::int64_t add_row = 0;
  bool relu = false;  // negative results become zero, a NaN stays one
  Out* c = nullptr;
  std::int64_t c_row = 0;   // elements between rows of C
  bool accumulate = false;  // add to C instead of overwriting it
};

namespace detail {

// One vector of B and one broadcast of A, whatever a lane holds: one value, or a pair.
template <typename E>
[[gnu::always_inline]] inline Vec<Acc<E>> load_column(const E* p) {
  return load(reinterpret_cast<const Acc<E>*>(p));
}

[[gnu::always_inline]] inline Vec<float> repeat(const float* p) { return broadcast(*p); }
[[gnu::always_inline]] inline Vec<double> repeat(const double* p) { return broadcast(*p); }

[[gnu::always_inline]] inline Vec<float> repeat(const BFloat16* p) {
  std::uint32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return same_bits<Vec<float>>(pair - Words{});
}

template <typename E>
[[gnu::always_inline]] inline void multiply_add(Vec<Acc<E>>& sum, Vec<Acc<E>> a, Vec<Acc<E>> b) {
#if defined(__AVX512BF16__)
  if constexpr (kDepth<E> == 2) {
    sum = reinterpret_cast<Vec<float>>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), same_bits<__m512bh>(a), same_bits<__m512bh>(b)));
    return;
  }
#endif
  static_assert(kDepth<E> == 1 || kComputesBFloat16, "this instruction set does not multiply bfloat16");
  sum += a * b;
}

// Rows are addressed as one of three bases (six for 24 rows) plus 0..3 strides: a handful of integer registers whatever
// the strides are.
template <typename E, typename Out, int kRows, int kVectors>
[[gnu::noinline]] void tile(const Product<E, Out>& q, std::int64_t a_offset, Out* c, const Out* add) {
  constexpr int kN = kLanes<E>, kBases = (kRows + 3) / 4;
  using Sum = Vec<Acc<E>>;
  Sum acc[kRows][kVectors];
#pragma GCC unroll 24
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = q.accumulate ? load_row(c + r * q.c_row + v * kN) : q.bias ? load(q.bias + v * kN) : Sum{};
    }
  }
  const std::int64_t row = q.a_row, row3 = 3 * q.a_row, step = q.a_step, depth = (q.k + kDepth<E> - 1) / kDepth<E>;
  for (std::int64_t p = 0; p < q.taps; ++p) {
    const E* base[kBases];
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) base[i] = q.a[p] + a_offset + 4 * i * row;
    const E* b = q.b[p];
    for (std::int64_t k = 0; k < depth; ++k) {
      Sum column[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        column[v] = load_column(b + v * kN * kDepth<E>);
        pin(column[v]);
      }
#pragma GCC unroll 24
      for (int r = 0; r < kRows; ++r) {
        const E* a = base[r / 4];
        Sum x = repeat(a + (r % 4 == 0 ? 0 : r % 4 == 1 ? row : r % 4 == 2 ? 2 * row : row3));
        if constexpr (kVectors > 1) pin(x);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) multiply_add<E>(acc[r][v], x, column[v]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kBases; ++i) base[i] += step;
      b += kPanel<E> * kDepth<E>;
    }
  }
  if (add != nullptr) {
#pragma GCC unroll 24
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) acc[r][v] += load_row(add + r * q.add_row + v * kN);
    }
  }
  if (q.relu) {
#pragma GCC unroll 24
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) acc[r][v] = rectified<Acc<E>>(acc[r][v]);
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store_row(c + r * q.c_row + v * kN, acc[r][v]);
  }
}

template <typename E, typename Out>
using TileFunction = void (*)(const Product<E, Out>&, std::int64_t, Out*, const Out*);

template <typename E, typename Out, int kVectors, std::size_t... kIndex>
[[gnu::always_inline]] inline TileFunction<E, Out> tile_function(int rows, std::index_sequence<kIndex...>) {
  static constexpr TileFunction<E, Out> kTiles[] = {&tile<E, Out, static_cast<int>(kIndex) + 1, kVectors>...};
  return kTiles[rows - 1];
}

// A tile of `columns` columns, one vector of them or two, whole.
template <typename E, typename Out>
[[gnu::always_inline]] inline TileFunction<E, Out> tile_function(int rows, int columns) {
  if (columns > kLanes<E>) return tile_function<E, Out, kPanelVectors>(rows, std::make_index_sequence<kTileRows>{});
  if constexpr (kTallRows > 0) {
    if (rows == kTallRows) return &tile<E, Out, kTallRows, 1>;
  }
  return tile_function<E, Out, 1>(rows, std::make_index_sequence<kNarrowRows>{});
}

// Columns that end within a vector: the tile goes to a buffer, the columns that exist are added from there.
template <typename E, typename Out>
[[gnu::noinline]] void ragged_tile(const Product<E, Out>& q, std::int64_t a_offset, Out* c, const Out* add, int rows,
                                   int columns) {
  constexpr int kN = kLanes<E>;
  using T = Acc<E>;
  alignas(64) T buffer[(kTallRows > 0 ? kTallRows : kNarrowRows) * kPanel<E>];
  Product<E, T> whole{q.a, q.b, q.taps, q.k, q.a_row, q.a_step};
  whole.c_row = kPanel<E>;
  tile_function<E, T>(rows, columns)(whole, a_offset, buffer, nullptr);
  const auto read = [](const auto* p, int count) { return count == kN ? load_row(p) : load_part(p, count); };
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; j += kN) {
      const int count = columns - j < kN ? columns - j : kN;
      Out* out = c + r * q.c_row + j;
      Vec<T> sum = load(buffer + r * kPanel<E> + j);
      if (q.accumulate) {
        sum += read(out, count);
      } else if (q.bias != nullptr) {
        sum += read(q.bias + j, count);
      }
      if (add != nullptr) sum += read(add + r * q.add_row + j, count);
      if (q.relu) sum = rectified<T>(sum);
      if (count == kN) {
        store_row(out, sum);
      } else {
        store_part(out, sum, count);
      }
    }
  }
}

}  // namespace detail

// Rows of the next tile of at most `most`. The last two tiles share what is left evenly: a sliver of one or two rows
// would wait for the multipliers' latency.
inline int tile_rows(std::int64_t left, int most = kTileRows) {
  if (left <= most) return static_cast<int>(left);
  return left >= 2 * most ? most : static_cast<int>((left + 1) / 2);
}

// Computes `rows` rows and `columns` <= kPanel<E> columns of C.
template <typename E, typename Out>
inline void product(const Product<E, Out>& q, std::int64_t rows, int columns) {
  const bool narrow = columns <= kLanes<E>;
  for (std::int64_t r = 0; r < rows;) {
    const int n = narrow && kTallRows > 0 && rows - r >= kTallRows
                      ? kTallRows
                      : tile_rows(rows - r, narrow ? kNarrowRows : kTileRows);
    Out* c = q.c + r * q.c_row;
    const Out* add = q.add == nullptr ? nullptr : q.add + r * q.add_row;
    if (columns % kLanes<E> == 0) {
      detail::tile_function<E, Out>(n, columns)(q, r * q.a_row, c, add);
    } else {
      detail::ragged_tile(q, r * q.a_row, c, add, n, columns);
    }
    r += n;
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
