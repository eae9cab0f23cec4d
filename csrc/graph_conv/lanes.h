// Sums over joints where every channel, or group of channels, has an adjacency of its own: a vector of channels at a
// time, its adjacency spread over the lanes. Vectors lie apart, each in one run of memory: rows of all the channels are
// a power of two apart as a rule, and would share a few sets of the first-level cache. Include only from
// cpu_kernel.cpp.
#pragma once

#include "shared.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// Frames that go through while one panel's adjacency is spread.
constexpr Index kLaneFrames = 64;

// Elements between rows of a projected panel: an odd number of vectors, so that rows use every set of the cache.
template <typename T>
constexpr Index kStripRow = (kPanelVectors + 1 - kPanelVectors % 2) * kLanes<T>;

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

// out[t,w] (+)= sum_k sum_v spread[k][v][w] * z[k][t,v], one vector of channels. Either joint may be the outer one in
// `spread`; its partitions follow each other.
template <typename T>
void aggregate_lanes(T* out, std::int64_t out_row, std::int64_t targets, const T* spread, std::int64_t spread_source,
                     std::int64_t spread_target, const T* z, std::int64_t z_row, std::int64_t z_partition,
                     std::int64_t sources, std::int64_t partitions, std::int64_t frames, bool accumulate) {
  for (std::int64_t t = 0; t < frames;) {
    const bool many_frames = frames - t >= kBlockFrames;
    for (std::int64_t w = 0; w < targets;) {
      const bool many_joints = targets - w >= kBlockJoints;
      const auto run =
          many_frames ? (many_joints ? &lane_block<T, kBlockFrames, kBlockJoints> : &lane_block<T, kBlockFrames, 1>)
                      : (many_joints ? &lane_block<T, 1, kBlockJoints> : &lane_block<T, 1, 1>);
      run(out + (t * targets + w) * out_row, out_row, targets, spread + w * spread_target,
          sources * targets * kLanes<T>, spread_source, spread_target, z + t * sources * z_row, z_row, z_partition,
          sources, partitions, accumulate);
      w += many_joints ? kBlockJoints : 1;
    }
    t += many_frames ? kBlockFrames : 1;
  }
}

// sums[v][w] += sum_t source[t,v] * target[t,w] for kFrom sources and kTo targets, one vector of channels.
template <typename T, int kFrom, int kTo>
[[gnu::noinline]] void outer_block(T* sums, std::int64_t targets, const Rows<T>& source, std::int64_t source_frame,
                                   const Rows<T>& target, std::int64_t frames) {
  Vec<T> sum[kFrom][kTo];
#pragma GCC unroll 8
  for (int v = 0; v < kFrom; ++v) {
#pragma GCC unroll 8
    for (int w = 0; w < kTo; ++w) sum[v][w] = load(sums + (v * targets + w) * kLanes<T>);
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
    for (int w = 0; w < kTo; ++w) store(sums + (v * targets + w) * kLanes<T>, sum[v][w]);
  }
}

template <typename T>
void outer_lanes(T* sums, std::int64_t sources, std::int64_t targets, const Rows<T>& source, const Rows<T>& target,
                 std::int64_t frames) {
  for (std::int64_t v = 0; v < sources;) {
    const bool many_from = sources - v >= kBlockFrames;
    for (std::int64_t w = 0; w < targets;) {
      const bool many_to = targets - w >= kBlockJoints;
      const auto run = many_from
                           ? (many_to ? &outer_block<T, kBlockFrames, kBlockJoints> : &outer_block<T, kBlockFrames, 1>)
                           : (many_to ? &outer_block<T, 1, kBlockJoints> : &outer_block<T, 1, 1>);
      run(sums + (v * targets + w) * kLanes<T>, targets, Rows<T>{source.data + v * source.row, source.row},
          sources * source.row, Rows<T>{target.data + w * target.row, target.row}, frames);
      w += many_to ? kBlockJoints : 1;
    }
    v += many_from ? kBlockFrames : 1;
  }
}

// spread[e][lane] = group[e] for the lanes in [begin, end).
template <typename T>
void spread_run(T* spread, const T* group, std::int64_t size, std::int64_t begin, std::int64_t end) {
  if (end < kLanes<T>) {
    for (std::int64_t e = 0; e < size; ++e) {
      for (std::int64_t c = begin; c < end; ++c) spread[e * kLanes<T> + c] = group[e];
    }
  } else if (begin == 0) {
    for (std::int64_t e = 0; e < size; ++e) store(spread + e * kLanes<T>, broadcast(group[e]));
  } else {
    Vec<T> kept{};
    for (std::int64_t c = 0; c < begin; ++c) kept[c] = 1;
    for (std::int64_t e = 0; e < size; ++e) {
      T* to = spread + e * kLanes<T>;
      store(to, kept != 0 ? load(to) : broadcast(group[e]));
    }
  }
}

// spread[k][e][lane] = A[k, group of channel first + lane, e], zero from `channels` on, for the entries e of a
// partition in their order in memory.
template <typename T>
void spread_vector(T* spread, const T* adjacency, const Problem& p, std::int64_t first, std::int64_t channels) {
  const std::int64_t size = p.sources * p.targets, in_group = channels / p.groups;
  const std::int64_t count = channels - first < kLanes<T> ? channels - first : kLanes<T>;
  for (std::int64_t k = 0; k < p.partitions; ++k, spread += size * kLanes<T>) {
    const T* from = adjacency + k * p.groups * size;
    if (count < kLanes<T>) {
      std::memset(static_cast<void*>(spread), 0, static_cast<std::size_t>(size * kLanes<T>) * sizeof(T));
    }
    if (in_group == 1) {
      gather(spread, kLanes<T>, ConstMatrix{from + first * size, kComputed<T>, 1, size}, size, count);
      continue;
    }
    // Runs of lanes that share a group, each written over the end of the one before.
    for (std::int64_t c = 0; c < count; c += in_group - (first + c) % in_group) {
      const T* group = from + (first + c) / in_group * size;
      spread_run(spread, group, size, c, count);
    }
  }
}

// The adjacency spread over lanes: all of it, once per thread, where samples share it, else a panel of channels.
template <typename T>
class Spread {
 public:
  Spread(const Problem& p, Index channels) : p_(p), channels_(channels) {
    const Index vectors = p.per_sample ? kPanelVectors : padded<T>(channels) / kLanes<T>;
    data_ = working<T>(Slot::kExtra, entries_of(p) * vectors * kLanes<T>);
  }
  // Vector i of panel `panel` starts at i * step().
  const T* of(Index n, Index panel) {
    if (!p_.per_sample) {
      for (; made_ < panel_count<T>(channels_); ++made_) make(data_ + made_ * kPanelVectors * step(), n, made_);
      return data_ + panel * kPanelVectors * step();
    }
    const Index wanted = n * panel_count<T>(channels_) + panel + 1;
    if (made_ != wanted) make(data_, n, panel);
    made_ = wanted;
    return data_;
  }
  Index vectors(Index panel) const { return padded<T>(panel_columns<T>(channels_, panel)) / kLanes<T>; }
  Index step() const { return entries_of(p_) * kLanes<T>; }
  // From one source, or target, to the next.
  Index source() const { return (p_.turned ? 1 : p_.targets) * kLanes<T>; }
  Index target() const { return (p_.turned ? p_.sources : 1) * kLanes<T>; }

 private:
  void make(T* to, Index n, Index panel) const {
    for (Index i = 0; i < vectors(panel); ++i) {
      spread_vector(to + i * step(), adjacency_of<T>(p_, n), p_, panel * kPanel<T> + i * kLanes<T>, channels_);
    }
  }
  const Problem& p_;
  Index channels_;
  Index made_ = 0;
  T* data_;
};

// z[k][r][kStripRow] = panel j of x W_k^T (or x W_k) on `rows` rows, in whole vectors, and of the bias [K, columns],
// which may be null; panels over `columns` channels.
template <typename T>
void project_panel(const Problem& p, const void* weights, const Rows<T>& x, Index rows, Index depth, Index columns,
                   Index j, const T* bias, T* z) {
  const Index panels = panel_count<T>(columns), values = panel_values<T>(depth);
  const int width = panel_columns<T>(columns, j);
  if (width % kLanes<T> != 0) {
    std::memset(static_cast<void*>(z), 0, static_cast<std::size_t>(p.partitions * rows * kStripRow<T>) * sizeof(T));
  }
  for (Index k = 0; k < p.partitions; ++k) {
    const T* b = static_cast<const T*>(weights) + (k * panels + j) * values;
    Product<T> q{};
    q.a = &x.data;
    q.b = &b;
    q.taps = 1;
    q.k = depth;
    q.a_row = x.row;
    q.bias = bias == nullptr ? nullptr : bias + k * columns + j * kPanel<T>;
    q.c = z + k * rows * kStripRow<T>;
    q.c_row = kStripRow<T>;
    product(q, rows, width);
  }
}

// Frames whose projected panel shares the second-level cache with a panel's adjacency.
template <typename T>
Index strip_frames(const Problem& p) {
  constexpr Index kValues = 48 * 1024;
  const Index per_frame = p.partitions * maximum(p.sources, p.targets) * kStripRow<T>;
  return maximum(kBlockFrames, kValues / per_frame / kBlockFrames * kBlockFrames);
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
