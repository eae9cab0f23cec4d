// Sums over joints, and what carries frames in and out of them. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/layout.h"
#include "../common/pack.h"
#include "../common/scratch.h"
#include "graph_conv.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

using ::stgcn_fast::graph_conv::Kernels;
using ::stgcn_fast::graph_conv::Order;
using ::stgcn_fast::graph_conv::Prepared;
using ::stgcn_fast::graph_conv::Problem;

template <typename T>
T* working(Slot slot, std::int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, static_cast<std::size_t>(count) * sizeof(T)));
}

// Channels rounded up to whole vectors.
template <typename T>
constexpr std::int64_t padded(std::int64_t channels) {
  return (channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

inline std::int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

template <typename E>
constexpr Dtype kComputed = sizeof(E) == 8   ? Dtype::kFloat64
                            : sizeof(E) == 4 ? Dtype::kFloat32
                                             : Dtype::kBFloat16;

// Rows of channels in the computing type, channels innermost.
template <typename E>
struct Rows {
  const E* data;
  std::int64_t row;  // elements between rows
};

// Rows that gather and scatter carry at a time to and from bfloat16.
constexpr std::int64_t kConvertedRows = 64;

// out[r][c] in whole vectors, the last one filled up with zeros.
template <typename E>
void gather_rows(E* out, const ConstMatrix& matrix, std::int64_t rows, std::int64_t channels) {
  const std::int64_t row = padded<E>(channels);
  if (row != channels) std::memset(static_cast<void*>(out), 0, static_cast<std::size_t>(rows * row) * sizeof(E));
  if constexpr (sizeof(E) != sizeof(Acc<E>)) {
    Acc<E>* wide = working<Acc<E>>(Slot::kGraph, kConvertedRows * row);
    for (std::int64_t r = 0; r < rows; r += kConvertedRows) {
      const std::int64_t n = rows - r < kConvertedRows ? rows - r : kConvertedRows;
      const char* from = static_cast<const char*>(matrix.data) + r * matrix.row * bytes_of(matrix.dtype);
      if (row != channels) std::memset(static_cast<void*>(wide), 0, static_cast<std::size_t>(n * row) * sizeof(Acc<E>));
      gather(wide, row, ConstMatrix{from, matrix.dtype, matrix.row, matrix.channel}, n, channels);
      for (std::int64_t i = 0; i < n * row; i += kLanes<E>) store_row(out + r * row + i, load(wide + i));
    }
  } else {
    gather(out, row, matrix, rows, channels);
  }
}

template <typename E>
void scatter_rows(const Matrix& matrix, const E* in, std::int64_t rows, std::int64_t channels) {
  const std::int64_t row = padded<E>(channels);
  if constexpr (sizeof(E) != sizeof(Acc<E>)) {
    Acc<E>* wide = working<Acc<E>>(Slot::kGraph, kConvertedRows * row);
    for (std::int64_t r = 0; r < rows; r += kConvertedRows) {
      const std::int64_t n = rows - r < kConvertedRows ? rows - r : kConvertedRows;
      char* to = static_cast<char*>(matrix.data) + r * matrix.row * bytes_of(matrix.dtype);
      for (std::int64_t i = 0; i < n * row; i += kLanes<E>) store(wide + i, load_row(in + r * row + i));
      scatter<Acc<E>>(Matrix{to, matrix.dtype, matrix.row, matrix.channel}, wide, row, n, channels);
    }
  } else {
    scatter<E>(matrix, in, row, rows, channels);
  }
}

// Rows [first, first + rows) of a matrix: where they are if they can be computed on, else a copy in `slot` of whole
// vectors, the last one filled up with zeros.
template <typename T>
Rows<T> rows_of(Slot slot, const ConstMatrix& matrix, std::int64_t first, std::int64_t rows, std::int64_t channels) {
  const char* from = static_cast<const char*>(matrix.data) + first * matrix.row * bytes_of(matrix.dtype);
  if (matrix.dtype == kComputed<T> && matrix.channel == 1 && channels % kLanes<T> == 0) {
    return {reinterpret_cast<const T*>(from), matrix.row};
  }
  T* copy = working<T>(slot, rows * padded<T>(channels));
  gather_rows(copy, ConstMatrix{from, matrix.dtype, matrix.row, matrix.channel}, rows, channels);
  return {copy, padded<T>(channels)};
}

// Rows to write: the result's own, or those of `buffer`, whole vectors each, that `close` carries there.
template <typename T>
struct Target {
  T* data;
  std::int64_t row;
  Matrix matrix;
  std::int64_t rows, channels;
  bool direct;

  Target(T* buffer, const Matrix& whole, std::int64_t first, std::int64_t rows_, std::int64_t channels_)
      : matrix(whole), rows(rows_), channels(channels_) {
    matrix.data = static_cast<char*>(whole.data) + first * whole.row * bytes_of(whole.dtype);
    direct = whole.dtype == kComputed<T> && whole.channel == 1 && channels % kLanes<T> == 0;
    row = direct ? whole.row : padded<T>(channels);
    data = direct ? static_cast<T*>(matrix.data) : buffer;
  }

  void zero() {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < padded<T>(channels); c += kLanes<T>) store_row(data + r * row + c, Vec<Acc<T>>{});
    }
  }

  void close() {
    if (!direct) scatter_rows(matrix, data, rows, channels);
  }
};

// A non-zero of the adjacency.
template <typename T>
struct Edge {
  std::int32_t joint;  // at the other end
  std::int32_t entry;  // k * V * W + v * W + w
  T value;
  bool free;  // its gradient is wanted
};

// Edges by (joint, partition): those of joint j in partition k are [begin[j * K + k], begin[j * K + k + 1]).
template <typename T>
struct Edges {
  std::int32_t* begin;
  Edge<T>* edge;

  static std::int64_t bytes(std::int64_t joints, std::int64_t partitions, std::int64_t entries) {
    return entries * static_cast<std::int64_t>(sizeof(Edge<T>)) + (joints * partitions + 1) * 4;
  }
  Edges(void* memory, std::int64_t entries)
      : begin(reinterpret_cast<std::int32_t*>(static_cast<Edge<T>*>(memory) + entries)),
        edge(static_cast<Edge<T>*>(memory)) {}
};

// out[t * row + c] = sum of the edges' values times their joints' rows, in whole vectors.
template <typename E, int kEdges>
[[gnu::noinline]] void aggregate_edges(E* out, std::int64_t out_row, const Rows<E>& x, std::int64_t joints,
                                       std::int64_t frames, std::int64_t channels, const Edge<Acc<E>>* first,
                                       const Edge<Acc<E>>* last) {
  const E* from[kEdges];
  Vec<Acc<E>> value[kEdges];
  for (int i = 0; i < kEdges; ++i) {
    from[i] = x.data + first[i].joint * x.row;
    value[i] = broadcast(first[i].value);
  }
  for (std::int64_t t = 0; t < frames; ++t) {
    const std::int64_t frame = t * joints * x.row;
    for (std::int64_t c = 0; c < channels; c += kLanes<E>) {
      Vec<Acc<E>> sum = value[0] * load_row(from[0] + frame + c);
#pragma GCC unroll 4
      for (int i = 1; i < kEdges; ++i) sum += value[i] * load_row(from[i] + frame + c);
      if (kEdges == 4) {
        for (const auto* e = first + kEdges; e < last; ++e) {
          sum += broadcast(e->value) * load_row(x.data + e->joint * x.row + frame + c);
        }
      }
      store_row(out + t * out_row + c, sum);
    }
  }
}

// A skeleton's joint has one edge in most partitions. There is at least one.
template <typename E>
void aggregate(E* out, std::int64_t out_row, const Rows<E>& x, std::int64_t joints, std::int64_t frames,
               std::int64_t channels, const Edge<Acc<E>>* first, const Edge<Acc<E>>* last) {
  const auto run = last - first == 1   ? &aggregate_edges<E, 1>
                   : last - first == 2 ? &aggregate_edges<E, 2>
                   : last - first == 3 ? &aggregate_edges<E, 3>
                                       : &aggregate_edges<E, 4>;
  run(out, out_row, x, joints, frames, channels, first, last);
}

// agg[k][t * W + w][c] = sum_v A[k,v,w] x[t,v,c] as a matrix product, A dense [K, V, W].
template <typename T>
void aggregate_dense(T* agg, std::int64_t agg_row, const Problem& p, const T* adjacency, const Rows<T>& x,
                     std::int64_t frames) {
  const std::int64_t V = p.sources, W = p.targets;
  T* panel = working<T>(Slot::kPanel, V * kPanel<T>);
  for (std::int64_t t = 0; t < frames; ++t) {
    for (std::int64_t j = 0; j < panel_count<T>(p.inputs); ++j) {
      const int columns = panel_columns<T>(p.inputs, j);
      pack_panel(panel, x.data + t * V * x.row + j * kPanel<T>, x.row, 1, V, columns);
      for (std::int64_t k = 0; k < p.partitions; ++k) {
        const T* a = adjacency + k * V * W;
        const T* b = panel;
        Product<T> q;
        q.a = &a;
        q.b = &b;
        q.taps = 1;
        q.k = V;
        q.a_row = 1;
        q.a_step = W;
        q.c = agg + ((k * frames + t) * W) * agg_row + j * kPanel<T>;
        q.c_row = agg_row;
        product(q, W, columns);
      }
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
