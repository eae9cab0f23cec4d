// The fast form of the temporal convolution: Toom-Cook's F(3,3) nested over Γ = 3 m taps, 5 multiplications for 9.
//
// A block of three output frames sees, for each of the m sub-filters of three taps, five input frames a0..a4. With the
// points 0, 1, -1, 2 and infinity
//
//   sub-filter w: u = (w0/2, -(w0 + w1 + w2)/2, -(w0 - w1 + w2)/6, (w0 + 2 w1 + 4 w2)/6, w2)
//   input:        d = (2 a0 - a1 - 2 a2 + a3, -2 a1 - a2 + a3, 2 a1 - 3 a2 + a3, a3 - a1, 2 a1 - a2 - 2 a3 + a4)
//   output:       y = (p0 + p1 + p2 + p3, p1 - p2 + 2 p3, p1 + p2 + 4 p3 + p4)   with p = sum over c, sub-filters of u
//   d
//
// (Winograd, Arithmetic Complexity of Computations, 1980). The input's transform serves all sub-filters: sub-filter s
// of block j reads d of block j + s. With stride 2 the even and the odd frames are two clips of stride 1, whose
// products add up; a sub-filter whose first or last tap is missing lacks a product (SubFilters): 17 for 27 where Γ = 9.
// The gradient of the weights is the same sum read the other way: sums over blocks
// of the outputs' transposed transform times d, and the weights' transposed transform at the end. Include only from
// cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/micro_kernel.h"
#include "common/pack.h"
#include "common/scratch.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Output frames of a block, and the products that give them.
inline constexpr int kBlockFrames = static_cast<int>(kTemporalBlock);
inline constexpr int kBlockPoints = static_cast<int>(kTemporalPoints);
// Phases of the input: the largest stride.
inline constexpr int kMostPhases = 2;

// Types that the fast form exists for: in bfloat16 its error would be twice the rounding, and double is for checking.
template <typename E>
inline constexpr bool kHasFastForm = std::is_same_v<E, float>;

// Frames of rows; those before `first` and from `last` on are zeros.
template <typename E>
struct TemporalFrames {
  const E* data;       // frame `first`
  std::int64_t frame;  // elements between frames
  std::int64_t row;    // elements between joints
  std::int64_t first, last;
};

// Panels [begin, end) of the outputs.
struct Panels {
  std::int64_t begin, end;
};

namespace detail {

// Frames r, r + step, ... of `in`.
template <typename E>
TemporalFrames<E> every(const TemporalFrames<E>& in, std::int64_t r, std::int64_t step) {
  const std::int64_t first = in.first <= r ? 0 : (in.first - r + step - 1) / step;
  const std::int64_t last = in.last <= r ? first : (in.last - r + step - 1) / step;
  return {in.data + (first * step + r - in.first) * in.frame, step * in.frame, in.row, first,
          last > first ? last : first};
}

// Frames of a phase as the blocks of its sub-filters count them.
template <typename E>
TemporalFrames<E> phase_frames(const TemporalFrames<E>& in, std::int64_t phase, std::int64_t stride,
                               std::int64_t shift) {
  TemporalFrames<E> frames = every(in, phase, stride);
  frames.first += shift;
  frames.last += shift;
  return frames;
}

// Bytes of transformed input that stay in the second-level cache beside the weights of one panel and point.
inline constexpr std::int64_t kPlaneBytes = 448 * 1024;
// Fewest rows for which reading those weights again is not what is waited for.
inline constexpr std::int64_t kFastRows = 72;

// Blocks that are transformed together, of `blocks` that share the work evenly.
inline std::int64_t fast_blocks(std::int64_t blocks, std::int64_t frame_bytes, std::int64_t joints, std::int64_t points,
                                std::int64_t halo) {
  const std::int64_t fit = kPlaneBytes / (points * frame_bytes + 1) - halo;
  const std::int64_t least = (kFastRows + joints - 1) / joints;
  const std::int64_t most = fit > least ? fit : least;
  const std::int64_t pieces = (blocks + most - 1) / most;
  return (blocks + pieces - 1) / pieces;
}

template <int kPoint, typename V>
[[gnu::always_inline]] inline V input_point(V a0, V a1, V a2, V a3, V a4) {
  if constexpr (kPoint == 0) return (a0 - a2) + (a0 - a2) + (a3 - a1);
  if constexpr (kPoint == 1) return (a3 - a2) - (a1 + a1);
  if constexpr (kPoint == 2) return (a3 - a2) + ((a1 - a2) + (a1 - a2));
  if constexpr (kPoint == 3) return a3 - a1;
  if constexpr (kPoint == 4) return (a4 - a2) - ((a3 - a1) + (a3 - a1));
}

// Reads up to `channels` of each of five rows that move by `step`, writes rows of `channels` to each plane.
template <typename E, int kFirst, int kLast>
[[gnu::noinline]] void transform_rows(const E* const* from, const std::int64_t* step, std::int64_t rows,
                                      std::int64_t channels, E* out, std::int64_t plane) {
  const E *a0 = from[0], *a1 = from[1], *a2 = from[2], *a3 = from[3], *a4 = from[4];
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto run = [&](auto v0, auto v1, auto v2, auto v3, auto v4, auto put) {
      if constexpr (kFirst <= 0 && 0 < kLast) put(0 - kFirst, input_point<0>(v0, v1, v2, v3, v4));
      if constexpr (kFirst <= 1 && 1 < kLast) put(1 - kFirst, input_point<1>(v0, v1, v2, v3, v4));
      if constexpr (kFirst <= 2 && 2 < kLast) put(2 - kFirst, input_point<2>(v0, v1, v2, v3, v4));
      if constexpr (kFirst <= 3 && 3 < kLast) put(3 - kFirst, input_point<3>(v0, v1, v2, v3, v4));
      if constexpr (kFirst <= 4 && 4 < kLast) put(4 - kFirst, input_point<4>(v0, v1, v2, v3, v4));
    };
    std::int64_t c = 0;
    for (; c + kLanes<E> <= channels; c += kLanes<E>) {
      run(load(a0 + c), load(a1 + c), load(a2 + c), load(a3 + c), load(a4 + c),
          [&](int p, Vec<E> value) { store(out + p * plane + c, value); });
    }
    for (; c < channels; ++c) {
      run(a0[c], a1[c], a2[c], a3[c], a4[c], [&](int p, E value) { out[p * plane + c] = value; });
    }
    a0 += step[0];
    a1 += step[1];
    a2 += step[2];
    a3 += step[3];
    a4 += step[4];
    out += channels;
  }
}

// Columns that a product computes for `columns` of a panel where sums of whole vectors have room.
template <typename E>
constexpr int whole_vectors(int columns) {
  return (columns + kLanes<E> - 1) / kLanes<E> * kLanes<E>;
}

// Points [kFirst, kLast) of blocks [begin, end): out [point][block][joint][channel], planes `plane` elements apart.
template <typename E, int kFirst, int kLast>
void transform_input(const TemporalFrames<E>& in, std::int64_t joints, std::int64_t channels, std::int64_t begin,
                     std::int64_t end, E* out, std::int64_t plane) {
  const E* zeros = nullptr;
  for (std::int64_t block = begin; block < end; ++block, out += joints * channels) {
    const E* from[5];
    std::int64_t step[5];
    bool whole = in.row == channels;
    for (int i = 0; i < 5; ++i) {
      const std::int64_t t = block * kBlockFrames + i;
      if (t >= in.first && t < in.last) {
        from[i] = in.data + (t - in.first) * in.frame;
        step[i] = in.row;
        continue;
      }
      if (zeros == nullptr) {
        E* fresh = scratch<E>(Slot::kTemporalZeros, channels);
        for (std::int64_t c = 0; c < channels; ++c) fresh[c] = E(0);
        zeros = fresh;
      }
      from[i] = zeros;
      step[i] = 0;
      whole = false;
    }
    if (whole) {
      transform_rows<E, kFirst, kLast>(from, step, 1, joints * channels, out, plane);
    } else {
      transform_rows<E, kFirst, kLast>(from, step, joints, channels, out, plane);
    }
  }
}

// Where the outputs of fast_rows go and what is added to them.
template <typename E>
struct FastTarget {
  E* out;
  std::int64_t frame, row;
  const E* add;  // or null
  std::int64_t add_frame, add_row;
  bool relu;
};

// What the five products of one vector of columns give.
template <typename E>
[[gnu::always_inline]] inline void output_frames(const E* m, std::int64_t plane, Vec<E>* y) {
  const Vec<E> p1 = load(m + plane), p2 = load(m + 2 * plane), p3 = load(m + 3 * plane);
  const Vec<E> sum = p1 + p2, twice = p3 + p3;
  y[0] = (load(m) + p3) + sum;
  y[1] = (p1 - p2) + twice;
  y[2] = (load(m + 4 * plane) + (twice + twice)) + sum;
}

// One panel of `blocks` blocks from products [point][block][joint][kPanel]; `left` output frames exist. `bias` is null
// where the products have it already. kVectors vectors of columns, or `columns` of them where that is 0.
template <typename E, int kVectors>
[[gnu::noinline]] void transform_output(const E* products, std::int64_t plane, std::int64_t blocks, std::int64_t joints,
                                        std::int64_t left, const E* bias, int columns, const FastTarget<E>& to) {
  for (std::int64_t block = 0; block < blocks; ++block, left -= kBlockFrames) {
    const int frames = left < kBlockFrames ? static_cast<int>(left) : kBlockFrames;
    E* out = to.out + block * kBlockFrames * to.frame;
    const E* add = to.add == nullptr ? nullptr : to.add + block * kBlockFrames * to.add_frame;
    for (std::int64_t v = 0; v < joints; ++v, products += kPanel<E>, out += to.row) {
      if constexpr (kVectors > 0) {
        Vec<E> y[kVectors][kBlockFrames];
#pragma GCC unroll 2
        for (int i = 0; i < kVectors; ++i) output_frames<E>(products + i * kLanes<E>, plane, y[i]);
#pragma GCC unroll 3
        for (int f = 0; f < kBlockFrames; ++f) {
          if (f >= frames) break;
#pragma GCC unroll 2
          for (int i = 0; i < kVectors; ++i) {
            Vec<E> value = y[i][f];
            if (add != nullptr) value += load(add + f * to.add_frame + i * kLanes<E>);
            if (to.relu) value = rectified<E>(value);
            store(out + f * to.frame + i * kLanes<E>, value);
          }
        }
      } else {
        for (int j = 0; j < columns; j += kLanes<E>) {
          Vec<E> y[kBlockFrames];
          output_frames<E>(products + j, plane, y);
          for (int f = 0; f < frames; ++f) {
            alignas(64) E wide[kLanes<E>];
            store(wide, y[f]);
            for (int i = j; i < columns && i < j + kLanes<E>; ++i) {
              E value = wide[i - j] + (bias == nullptr ? E(0) : bias[i]);
              if (add != nullptr) value += add[f * to.add_frame + i];
              out[f * to.frame + i] = to.relu && value < E(0) ? E(0) : value;
            }
          }
        }
      }
      if (add != nullptr) add += to.add_row;
    }
  }
}

// `frames` outputs of one clip: output i reads frames i * stride, ..., i * stride + kernel_size - 1 of `in`. Weights
// are [panel][product], products by point, phase and sub-filter.
template <typename E>
void fast_rows(std::int64_t kernel_size, std::int64_t stride, std::int64_t inputs, std::int64_t outputs,
               std::int64_t joints, const E* weights, const E* bias, const TemporalFrames<E>& in, std::int64_t frames,
               const FastTarget<E>& to) {
  const std::int64_t halo = SubFilters(kernel_size, stride, 0).count - 1, size = panel_values<E>(inputs);
  const std::int64_t all = (frames + kBlockFrames - 1) / kBlockFrames, frame = joints * inputs;
  const std::int64_t step =
      fast_blocks(all, frame * static_cast<std::int64_t>(sizeof(E)), joints, kBlockPoints * stride, halo);
  E* planes = scratch<E>(Slot::kTemporalPlanes, stride * kBlockPoints * (step + halo) * frame);
  E* products = scratch<E>(Slot::kTemporalPanel, kBlockPoints * step * joints * kPanel<E>);
  const E** a = scratch<const E*>(Slot::kTemporalPointers, 2 * stride * (halo + 1));
  const E** b = a + stride * (halo + 1);
  Product<E> q{};
  q.a = a;
  q.b = b;
  q.k = inputs;
  q.a_row = inputs;
  q.c_row = kPanel<E>;
  for (std::int64_t begin = 0; begin < all; begin += step) {
    const std::int64_t blocks = begin + step < all ? step : all - begin, rows = blocks * joints;
    const std::int64_t plane = (blocks + halo) * frame;
    for (std::int64_t r = 0; r < stride; ++r) {
      const SubFilters filters(kernel_size, stride, r);
      transform_input<E, 0, kBlockPoints>(phase_frames(in, r, stride, filters.shift), joints, inputs, begin,
                                          begin + blocks + filters.count - 1, planes + r * kBlockPoints * plane, plane);
    }
    const E* weight = weights;
    for (std::int64_t panel = 0; panel < panel_count<E>(outputs); ++panel) {
      const int columns = panel_columns<E>(outputs, panel);
      const E* shift = bias == nullptr ? nullptr : bias + panel * kPanel<E>;
      const bool ragged = columns % kLanes<E> != 0;
      for (int point = 0; point < kBlockPoints; ++point) {
        q.taps = 0;
        for (std::int64_t r = 0; r < stride; ++r) {
          const SubFilters filters(kernel_size, stride, r);
          for (std::int64_t s = filters.first(point); s < filters.last(point); ++s, weight += size) {
            a[q.taps] = planes + (r * kBlockPoints + point) * plane + s * frame;
            b[q.taps] = weight;
            ++q.taps;
          }
        }
        // The second product enters every output once.
        q.bias = point == 1 && !ragged ? shift : nullptr;
        q.c = products + point * rows * kPanel<E>;
        product(q, rows, whole_vectors<E>(columns));
      }
      FastTarget<E> part = to;
      part.out += begin * kBlockFrames * to.frame + panel * kPanel<E>;
      if (to.add != nullptr) part.add += begin * kBlockFrames * to.add_frame + panel * kPanel<E>;
      const auto transform = ragged                 ? &transform_output<E, 0>
                             : columns == kPanel<E> ? &transform_output<E, kPanelVectors>
                                                    : &transform_output<E, 1>;
      transform(products, rows * kPanel<E>, blocks, joints, frames - begin * kBlockFrames, ragged ? shift : nullptr,
                columns, part);
    }
  }
}

// Weights of one panel and input channel: `w` [tap][kPanel] -> out [product], `size` elements apart.
template <typename E>
void transform_weights(const double* w, std::int64_t kernel_size, std::int64_t stride, E* out, std::int64_t size) {
  static constexpr double kFactors[kBlockPoints][3] = {
      {1.0 / 2, 0, 0}, {-0.5, -0.5, -0.5}, {-1.0 / 6, 1.0 / 6, -1.0 / 6}, {1.0 / 6, 2.0 / 6, 4.0 / 6}, {0, 0, 1}};
  for (int point = 0; point < kBlockPoints; ++point) {
    for (std::int64_t r = 0; r < stride; ++r) {
      const SubFilters filters(kernel_size, stride, r);
      for (std::int64_t s = filters.first(point); s < filters.last(point); ++s, out += size) {
        double factor[3];
        const double* from[3];
        for (int i = 0; i < 3; ++i) {
          const std::int64_t tap = 3 * s + i - filters.shift;
          const bool exists = tap >= 0 && tap < filters.taps;
          factor[i] = exists ? kFactors[point][i] : 0;
          from[i] = exists ? w + (r + tap * stride) * kPanel<E> : w;
        }
        for (int j = 0; j < kPanel<E>; ++j) {
          // A missing tap is no tap, whatever stands in its place.
          double sum = 0;
          for (int i = 0; i < 3; ++i) sum += factor[i] == 0 ? 0 : from[i][j] * factor[i];
          out[j] = static_cast<E>(sum);
        }
      }
    }
  }
}

// One panel of the outputs' transposed transform at one point: out [block][joint][kPanel] from grad [frames][joint].
template <typename E>
void transform_gradient(int point, const E* grad, std::int64_t grad_frame, std::int64_t grad_row, std::int64_t frames,
                        std::int64_t joints, int columns, E* out) {
  static constexpr int kFactors[kBlockPoints][kBlockFrames] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {1, 2, 4}, {0, 0, 1}};
  for (std::int64_t t = 0; t < frames; t += kBlockFrames) {
    // A frame that does not exist is read as one that does, times zero.
    E factor[kBlockFrames];
    const E* from[kBlockFrames];
    for (int f = 0; f < kBlockFrames; ++f) {
      const bool exists = t + f < frames && kFactors[point][f] != 0;
      factor[f] = exists ? static_cast<E>(kFactors[point][f]) : E(0);
      from[f] = exists ? grad + (t + f) * grad_frame : nullptr;
    }
    const auto run = [&](auto... exists) {
      for (std::int64_t v = 0; v < joints; ++v, out += kPanel<E>) {
        int j = 0;
        for (; j + kLanes<E> <= columns; j += kLanes<E>) {
          Vec<E> sum{};
          int f = 0;
          ((exists ? sum += load(from[f] + v * grad_row + j) * factor[f], ++f : ++f), ...);
          store(out + j, sum);
        }
        for (; j < columns; ++j) {
          E sum = E(0);
          int f = 0;
          ((exists ? sum += from[f][v * grad_row + j] * factor[f], ++f : ++f), ...);
          out[j] = sum;
        }
        for (; j < whole_vectors<E>(columns); ++j) out[j] = E(0);
      }
    };
    run(from[0] != nullptr, from[1] != nullptr, from[2] != nullptr);
  }
}

// Adds the sums [product][panel][inputs][kPanel] of a piece of a clip, products and frames as in fast_rows.
template <typename E>
void fast_grad_weight_rows(std::int64_t kernel_size, std::int64_t stride, std::int64_t inputs, std::int64_t outputs,
                           std::int64_t joints, const TemporalFrames<E>& in, const E* grad, std::int64_t grad_frame,
                           std::int64_t grad_row, std::int64_t frames, Panels some, E* sums) {
  const std::int64_t halo = SubFilters(kernel_size, stride, 0).count - 1;
  const std::int64_t panels = panel_count<E>(outputs), frame = joints * inputs;
  const std::int64_t blocks = (frames + kBlockFrames - 1) / kBlockFrames, rows = blocks * joints;
  E* planes = scratch<E>(Slot::kTemporalPlanes, stride * (blocks + halo) * frame);
  E* packed = scratch<E>(Slot::kTemporalPanel, rows * kPanel<E>);
  const E* a = nullptr;
  const E* b = packed;
  Product<E> outer{};
  outer.a = &a;
  outer.b = &b;
  outer.taps = 1;
  outer.k = rows;
  outer.a_row = 1;
  outer.a_step = inputs;
  outer.c_row = kPanel<E>;
  outer.accumulate = true;
  for (int point = 0; point < kBlockPoints; ++point) {
    const auto transform = point == 0   ? &transform_input<E, 0, 1>
                           : point == 1 ? &transform_input<E, 1, 2>
                           : point == 2 ? &transform_input<E, 2, 3>
                           : point == 3 ? &transform_input<E, 3, 4>
                                        : &transform_input<E, 4, 5>;
    for (std::int64_t r = 0; r < stride; ++r) {
      const SubFilters filters(kernel_size, stride, r);
      transform(phase_frames(in, r, stride, filters.shift), joints, inputs, 0, blocks + filters.count - 1,
                planes + r * (blocks + halo) * frame, 0);
    }
    E* next = sums;
    for (std::int64_t panel = some.begin; panel < some.end; ++panel) {
      const int columns = panel_columns<E>(outputs, panel);
      transform_gradient(point, grad + panel * kPanel<E>, grad_frame, grad_row, frames, joints, columns, packed);
      next = sums;
      for (std::int64_t r = 0; r < stride; ++r) {
        const SubFilters filters(kernel_size, stride, r);
        for (std::int64_t s = filters.first(point); s < filters.last(point); ++s, next += panels * inputs * kPanel<E>) {
          a = planes + (r * (blocks + halo) + s) * frame;
          outer.c = next + panel * inputs * kPanel<E>;
          product(outer, inputs, whole_vectors<E>(columns));
        }
      }
    }
    sums = next;
  }
}

// The weights' transposed transform of sums p over points -> the gradients of three taps.
template <typename A>
inline void finish_taps(const Vec<A>* p, Vec<A>* taps) {
  const Vec<A> one = p[1] * A(-0.5), minus = p[2] * A(-1.0 / 6), two = p[3] * A(1.0 / 6);
  taps[0] = p[0] * A(0.5) + one + minus + two;
  taps[1] = one - minus + (two + two);
  taps[2] = one + minus + two * A(4) + p[4];
}

}  // namespace detail
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
