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

template <typename T>
constexpr Dtype kComputed = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;

// Rows of channels in the computing type, channels innermost.
template <typename T>
struct Rows {
  const T* data;
  std::int64_t row;  // elements between rows
};

// Rows [first, first + rows) of a matrix: where they are if they can be computed on, else a copy in `slot` of whole
// vectors, the last one filled up with zeros.
template <typename T>
Rows<T> rows_of(Slot slot, const ConstMatrix& matrix, std::int64_t first, std::int64_t rows, std::int64_t channels) {
  const char* from = static_cast<const char*>(matrix.data) + first * matrix.row * bytes_of(matrix.dtype);
  if (matrix.dtype == kComputed<T> && matrix.channel == 1 && channels % kLanes<T> == 0) {
    return {reinterpret_cast<const T*>(from), matrix.row};
  }
  const std::int64_t row = padded<T>(channels);
  T* copy = working<T>(slot, rows * row);
  if (row != channels) std::memset(static_cast<void*>(copy), 0, static_cast<std::size_t>(rows * row) * sizeof(T));
  gather(copy, row, ConstMatrix{from, matrix.dtype, matrix.row, matrix.channel}, rows, channels);
  return {copy, row};
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
      for (std::int64_t c = 0; c < padded<T>(channels); c += kLanes<T>) store(data + r * row + c, Vec<T>{});
    }
  }

  void close() {
    if (!direct) scatter<T>(matrix, data, row, rows, channels);
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

// out[t * row + c] = sum of the edges' values times their joints' rows.
template <typename T>
[[gnu::noinline]] void aggregate(T* out, std::int64_t out_row, const Rows<T>& x, std::int64_t joints,
                                 std::int64_t frames, std::int64_t channels, const Edge<T>* first,
                                 const Edge<T>* last) {
  constexpr int kWide = 4;
  for (std::int64_t t = 0; t < frames; ++t) {
    const T* frame = x.data + t * joints * x.row;
    T* to = out + t * out_row;
    std::int64_t c = 0;
    for (; c + kWide * kLanes<T> <= channels; c += kWide * kLanes<T>) {
      Vec<T> sum[kWide] = {};
      for (const Edge<T>* e = first; e != last; ++e) {
        const T* from = frame + e->joint * x.row + c;
        const Vec<T> value = broadcast(e->value);
        for (int i = 0; i < kWide; ++i) sum[i] += value * load(from + i * kLanes<T>);
      }
      for (int i = 0; i < kWide; ++i) store(to + c + i * kLanes<T>, sum[i]);
    }
    for (; c < channels; c += kLanes<T>) {
      Vec<T> sum{};
      for (const Edge<T>* e = first; e != last; ++e) {
        sum += broadcast(e->value) * load(frame + e->joint * x.row + c);
      }
      store(to + c, sum);
    }
  }
}

// Sum over frames and channels of x[t, joint] * q[t]; where `out` is given, out[t, joint] += value * q[t] on the way.
template <typename T>
[[gnu::noinline]] T correlate(const Rows<T>& x, std::int64_t joint, std::int64_t joints, std::int64_t frames,
                              std::int64_t channels, const T* q, std::int64_t q_row, T value, T* out,
                              std::int64_t out_row) {
  constexpr int kWide = 4;
  Vec<T> sum[kWide] = {};
  const Vec<T> factor = broadcast(value);
  for (std::int64_t t = 0; t < frames; ++t) {
    const T* row = x.data + (t * joints + joint) * x.row;
    const T* projected = q + t * q_row;
    T* to = out == nullptr ? nullptr : out + (t * joints + joint) * out_row;
    std::int64_t c = 0;
    for (; c + kWide * kLanes<T> <= channels; c += kWide * kLanes<T>) {
      for (int i = 0; i < kWide; ++i) {
        const Vec<T> p = load(projected + c + i * kLanes<T>);
        sum[i] += p * load(row + c + i * kLanes<T>);
        if (to != nullptr) store(to + c + i * kLanes<T>, load(to + c + i * kLanes<T>) + factor * p);
      }
    }
    for (; c < channels; c += kLanes<T>) {
      const Vec<T> p = load(projected + c);
      sum[0] += p * load(row + c);
      if (to != nullptr) store(to + c, load(to + c) + factor * p);
    }
  }
  const Vec<T> all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  T total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += all[i];
  return total;
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
