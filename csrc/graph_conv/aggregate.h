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

// Registers of one block of lane-by-lane sums.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kBlockFrames = 5, kBlockJoints = 5;
#else
inline constexpr int kBlockFrames = 2, kBlockJoints = 5;
#endif

// out[t, w] = sum over partitions and v of spread[k][v][w] * z[k][t, v], for kFrames frames and kJoints targets from
// `out` on, one vector of channels.
template <typename T, int kFrames, int kJoints>
[[gnu::noinline]] void lane_block(T* out, std::int64_t out_row, std::int64_t targets, const T* spread,
                                  std::int64_t spread_partition, std::int64_t spread_source, std::int64_t spread_target,
                                  const T* z, std::int64_t z_row, std::int64_t z_partition, std::int64_t sources,
                                  std::int64_t partitions, bool accumulate) {
  Vec<T> sum[kFrames][kJoints];
#pragma GCC unroll 8
  for (int t = 0; t < kFrames; ++t) {
#pragma GCC unroll 8
    for (int w = 0; w < kJoints; ++w) sum[t][w] = accumulate ? load(out + (t * targets + w) * out_row) : Vec<T>{};
  }
  for (std::int64_t k = 0; k < partitions; ++k) {
    const T* from = z + k * z_partition;
    const T* edge = spread + k * spread_partition;
    for (std::int64_t v = 0; v < sources; ++v, from += z_row, edge += spread_source) {
      Vec<T> a[kJoints];
#pragma GCC unroll 8
      for (int w = 0; w < kJoints; ++w) a[w] = load(edge + w * spread_target);
#pragma GCC unroll 8
      for (int t = 0; t < kFrames; ++t) {
        const Vec<T> value = load(from + t * sources * z_row);
#pragma GCC unroll 8
        for (int w = 0; w < kJoints; ++w) sum[t][w] += a[w] * value;
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kFrames; ++t) {
#pragma GCC unroll 8
    for (int w = 0; w < kJoints; ++w) store(out + (t * targets + w) * out_row, sum[t][w]);
  }
}

// out[t,w,c] (+)= sum_k sum_v spread[k][v][w][c] * z[k][t,v,c]; everything in whole vectors. Either joint may be the
// outer one in `spread`; its partitions follow each other.
template <typename T>
void aggregate_lanes(T* out, std::int64_t out_row, std::int64_t targets, const T* spread, std::int64_t spread_source,
                     std::int64_t spread_target, std::int64_t channels, const T* z, std::int64_t z_row,
                     std::int64_t z_partition, std::int64_t sources, std::int64_t partitions, std::int64_t frames,
                     bool accumulate) {
  for (std::int64_t c = 0; c < channels; c += kLanes<T>) {
    for (std::int64_t t = 0; t < frames;) {
      const bool many_frames = frames - t >= kBlockFrames;
      for (std::int64_t w = 0; w < targets;) {
        const bool many_joints = targets - w >= kBlockJoints;
        const auto run =
            many_frames ? (many_joints ? &lane_block<T, kBlockFrames, kBlockJoints> : &lane_block<T, kBlockFrames, 1>)
                        : (many_joints ? &lane_block<T, 1, kBlockJoints> : &lane_block<T, 1, 1>);
        run(out + (t * targets + w) * out_row + c, out_row, targets, spread + w * spread_target + c,
            sources * targets * channels, spread_source, spread_target, z + t * sources * z_row + c, z_row, z_partition,
            sources, partitions, accumulate);
        w += many_joints ? kBlockJoints : 1;
      }
      t += many_frames ? kBlockFrames : 1;
    }
  }
}

// sums[v][w][c] += sum_t source[t,v,c] * target[t,w,c] for kFrom sources and kTo targets, one vector of channels.
template <typename T, int kFrom, int kTo>
[[gnu::noinline]] void outer_block(T* sums, std::int64_t targets, std::int64_t channels, const Rows<T>& source,
                                   std::int64_t source_frame, const Rows<T>& target, std::int64_t frames) {
  Vec<T> sum[kFrom][kTo];
#pragma GCC unroll 8
  for (int v = 0; v < kFrom; ++v) {
#pragma GCC unroll 8
    for (int w = 0; w < kTo; ++w) sum[v][w] = load(sums + (v * targets + w) * channels);
  }
  const T* from = source.data;
  const T* to = target.data;
  for (std::int64_t t = 0; t < frames; ++t, from += source_frame, to += targets * target.row) {
    Vec<T> b[kTo];
#pragma GCC unroll 8
    for (int w = 0; w < kTo; ++w) b[w] = load(to + w * target.row);
#pragma GCC unroll 8
    for (int v = 0; v < kFrom; ++v) {
      const Vec<T> a = load(from + v * source.row);
#pragma GCC unroll 8
      for (int w = 0; w < kTo; ++w) sum[v][w] += a * b[w];
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kFrom; ++v) {
#pragma GCC unroll 8
    for (int w = 0; w < kTo; ++w) store(sums + (v * targets + w) * channels, sum[v][w]);
  }
}

template <typename T>
void outer_lanes(T* sums, std::int64_t sources, std::int64_t targets, std::int64_t channels, const Rows<T>& source,
                 const Rows<T>& target, std::int64_t frames) {
  for (std::int64_t c = 0; c < channels; c += kLanes<T>) {
    for (std::int64_t v = 0; v < sources;) {
      const bool many_from = sources - v >= kBlockFrames;
      for (std::int64_t w = 0; w < targets;) {
        const bool many_to = targets - w >= kBlockJoints;
        const auto run =
            many_from ? (many_to ? &outer_block<T, kBlockFrames, kBlockJoints> : &outer_block<T, kBlockFrames, 1>)
                      : (many_to ? &outer_block<T, 1, kBlockJoints> : &outer_block<T, 1, 1>);
        run(sums + (v * targets + w) * channels + c, targets, channels,
            Rows<T>{source.data + v * source.row + c, source.row}, sources * source.row,
            Rows<T>{target.data + w * target.row + c, target.row}, frames);
        w += many_to ? kBlockJoints : 1;
      }
      v += many_from ? kBlockFrames : 1;
    }
  }
}

// spread[k][e][c] = A[k, group of c, e], c in whole vectors, for the entries e of a partition in their order in memory.
template <typename T>
void spread_groups(T* spread, const T* adjacency, const Problem& p, std::int64_t channels) {
  const std::int64_t size = p.sources * p.targets, row = padded<T>(channels), in_group = channels / p.groups;
  for (std::int64_t k = 0; k < p.partitions; ++k) {
    const T* from = adjacency + k * p.groups * size;
    T* to = spread + k * size * row;
    if (in_group == 1) {
      if (row != channels) std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(size * row) * sizeof(T));
      gather(to, row, ConstMatrix{from, kComputed<T>, 1, size}, size, channels);
      continue;
    }
    for (std::int64_t e = 0; e < size; ++e) {
      T* lane = to + e * row;
      for (std::int64_t g = 0; g < p.groups; ++g) {
        const T value = from[g * size + e];
        for (std::int64_t c = 0; c < in_group; ++c) lane[g * in_group + c] = value;
      }
      for (std::int64_t c = channels; c < row; ++c) lane[c] = T(0);
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
