// The fast form of the temporal convolution: filters of m taps in the bilinear algorithms F(m,m) of fast_forms.h,
// nested over the taps of a kernel.
//
// A block of m output frames sees, for each sub-filter of m taps, 2m - 1 input frames. They are transformed once for
// all sub-filters: sub-filter s of block j reads the transform of block j + s. With
//
//   sub-filter w:  u = weights' transform of w      p = sum over channels, sub-filters of u d, point by point
//   input frames:  d = input's transform            y = output's transform of p
//
// With stride 2 the even and the odd frames are two clips of stride 1, whose products add up; a sub-filter whose first
// or last tap is missing may lack a product (SubFilters): F(3,3) takes 15 products for 27 where Γ = 9, with stride 2
// 17; F(5,5) 19 for 45, with either stride. The gradient of the weights is the same sum read the other way: sums over
// blocks of the outputs' transposed transform times d, and the weights' transposed transform at the end. Include only
// from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/micro_kernel.h"
#include "common/pack.h"
#include "common/scratch.h"
#include "temporal_conv/rounded_form.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// The form that gradients of weights have, and the op itself.
inline constexpr int kBlockFrames = detail::ShortForm::kFrames;
inline constexpr int kBlockPoints = detail::ShortForm::kPoints;
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

// Reads up to `channels` of each of the rows `from` that move by `step`, writes rows of `channels` to each plane.
template <typename E, typename Form, int kFirst, int kLast>
[[gnu::noinline]] void transform_rows(const E* const* from, const std::int64_t* step, std::int64_t rows,
                                      std::int64_t channels, E* out, std::int64_t plane) {
  constexpr int kReads = Form::kReads;
  const E* a[kReads];
  for (int i = 0; i < kReads; ++i) a[i] = from[i];
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t c = 0;
    for (; c + kLanes<E> <= channels; c += kLanes<E>) {
      Vec<E> v[kReads];
#pragma GCC unroll 18
      for (int i = 0; i < kReads; ++i) v[i] = load(a[i] + c);
      Form::template input<kFirst, kLast>(
          v, [&](int point, Vec<E> value) { store(out + (point - kFirst) * plane + c, value); });
    }
    for (; c < channels; ++c) {
      E v[kReads];
      for (int i = 0; i < kReads; ++i) v[i] = a[i][c];
      Form::template input<kFirst, kLast>(v, [&](int point, E value) { out[(point - kFirst) * plane + c] = value; });
    }
    for (int i = 0; i < kReads; ++i) a[i] += step[i];
    out += channels;
  }
}

// Columns that a product computes for `columns` of a panel where sums of whole vectors have room.
template <typename E>
constexpr int whole_vectors(int columns) {
  return (columns + kLanes<E> - 1) / kLanes<E> * kLanes<E>;
}

// Points [kFirst, kLast) of blocks [begin, end): out [point][block][joint][channel], planes `plane` elements apart.
template <typename E, typename Form, int kFirst, int kLast>
void transform_input(const TemporalFrames<E>& in, std::int64_t joints, std::int64_t channels, std::int64_t begin,
                     std::int64_t end, E* out, std::int64_t plane) {
  const E* zeros = nullptr;
  for (std::int64_t block = begin; block < end; ++block, out += joints * channels) {
    const E* from[Form::kReads];
    std::int64_t step[Form::kReads];
    bool whole = in.row == channels;
    for (int i = 0; i < Form::kReads; ++i) {
      const std::int64_t t = block * Form::kFrames + i;
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
      transform_rows<E, Form, kFirst, kLast>(from, step, 1, joints * channels, out, plane);
    } else {
      transform_rows<E, Form, kFirst, kLast>(from, step, joints, channels, out, plane);
    }
  }
}

// Where the outputs of fast_rows go and what is added to them.
template <typename Out>
struct FastTarget {
  Out* out;
  std::int64_t frame, row;
  const Out* add;  // or null
  std::int64_t add_frame, add_row;
  bool relu;
};

// Rows [begin, end) of blocks of `joints` rows, from products [point][row - begin][kPanel]; `frames` output frames
// exist. kVectors vectors of columns, or `columns` of them where that is 0.
template <typename E, typename Form, typename Out, int kVectors>
[[gnu::noinline]] void transform_output(const E* products, std::int64_t plane, std::int64_t begin, std::int64_t end,
                                        std::int64_t joints, std::int64_t frames, const E* bias, int columns,
                                        const FastTarget<Out>& to) {
  constexpr int kFrames = Form::kFrames, kPoints = Form::kPoints;
  Vec<E> shift[kVectors + 1] = {};
  if (kVectors > 0 && bias != nullptr) {
    for (int i = 0; i < kVectors; ++i) shift[i] = load(bias + i * kLanes<E>);
  }
  const auto transformed = [&](const E* p, Vec<E>* y) {
    Vec<E> m[kPoints];
#pragma GCC unroll 22
    for (int i = 0; i < kPoints; ++i) m[i] = load(p + i * plane);
    Form::output(m, y);
  };
  for (std::int64_t row = begin; row < end;) {
    const std::int64_t block = row / joints, v = row % joints, next = (block + 1) * joints;
    const std::int64_t stop = next < end ? next : end, left = frames - block * kFrames;
    const int exist = left < kFrames ? static_cast<int>(left) : kFrames;
    Out* out = to.out + block * kFrames * to.frame + v * to.row;
    const Out* add = to.add == nullptr ? nullptr : to.add + block * kFrames * to.add_frame + v * to.add_row;
    for (; row < stop; ++row, products += kPanel<E>, out += to.row) {
      if constexpr (kVectors > 0) {
#pragma GCC unroll 2
        for (int i = 0; i < kVectors; ++i) {
          Vec<E> y[kFrames];
          transformed(products + i * kLanes<E>, y);
#pragma GCC unroll 10
          for (int f = 0; f < kFrames; ++f) {
            if (f >= exist) break;
            Vec<E> value = y[f] + shift[i];
            if (add != nullptr) value += load_row(add + f * to.add_frame + i * kLanes<E>);
            if (to.relu) value = rectified<E>(value);
            store_row(out + f * to.frame + i * kLanes<E>, value);
          }
        }
      } else {
        for (int j = 0; j < columns; j += kLanes<E>) {
          Vec<E> y[kFrames];
          transformed(products + j, y);
          for (int f = 0; f < exist; ++f) {
            alignas(64) E wide[kLanes<E>];
            store(wide, y[f]);
            for (int i = j; i < columns && i < j + kLanes<E>; ++i) {
              E value = wide[i - j] + (bias == nullptr ? E(0) : bias[i]);
              if (add != nullptr) value += widen(add[f * to.add_frame + i]);
              narrow(to.relu && value < E(0) ? E(0) : value, out[f * to.frame + i]);
            }
          }
        }
      }
      if (add != nullptr) add += to.add_row;
    }
  }
}

// Rows whose products are there before they are transformed: as many as leave them in the first-level cache's reach,
// and enough for the weights of a point to be read from there too.
inline constexpr std::int64_t kStripeRows = 48;

// `frames` outputs of one clip: output i reads frames i * stride, ..., i * stride + kernel_size - 1 of `in`. Weights
// are [panel][product], products by point, phase and sub-filter.
template <typename E, typename Form, typename Out>
void fast_rows(std::int64_t kernel_size, std::int64_t stride, std::int64_t inputs, std::int64_t outputs,
               std::int64_t joints, const E* weights, const E* bias, const TemporalFrames<E>& in, std::int64_t frames,
               const FastTarget<Out>& to) {
  constexpr int kFrames = Form::kFrames, kPoints = Form::kPoints;
  const SubFilters most(kernel_size, stride, 0, kFrames);
  const std::int64_t halo = most.count - 1, size = panel_values<E>(inputs), frame = joints * inputs;
  const std::int64_t all = (frames + kFrames - 1) / kFrames;
  const std::int64_t step =
      fast_blocks(all, frame * static_cast<std::int64_t>(sizeof(E)), joints, kPoints * stride, halo);
  const std::int64_t most_rows = step * joints, pieces = most_rows < kStripeRows ? 1 : most_rows / kStripeRows;
  const std::int64_t stripe = ((most_rows + pieces - 1) / pieces + kTileRows - 1) / kTileRows * kTileRows;
  // A line more than the rows take: planes that lie a multiple of 4 KB apart share their place in the cache.
  const std::int64_t product_plane = stripe * kPanel<E> + kLanes<E>;
  E* planes = scratch<E>(Slot::kTemporalPlanes, stride * kPoints * ((step + halo) * frame + kLanes<E>));
  E* products = scratch<E>(Slot::kTemporalPanel, kPoints * product_plane);
  const E** a = scratch<const E*>(Slot::kTemporalPointers, 2 * stride * (halo + 1));
  const E** b = a + stride * (halo + 1);
  std::int64_t panel_products = 0;
  for (std::int64_t r = 0; r < stride; ++r) panel_products += SubFilters(kernel_size, stride, r, kFrames).products();
  Product<E> q{};
  q.a = a;
  q.b = b;
  q.k = inputs;
  q.a_row = inputs;
  q.c_row = kPanel<E>;
  for (std::int64_t begin = 0; begin < all; begin += step) {
    const std::int64_t blocks = begin + step < all ? step : all - begin, rows = blocks * joints;
    const std::int64_t plane = (blocks + halo) * frame + kLanes<E>;
    for (std::int64_t r = 0; r < stride; ++r) {
      const SubFilters filters(kernel_size, stride, r, kFrames);
      transform_input<E, Form, 0, kPoints>(phase_frames(in, r, stride, filters.shift), joints, inputs, begin,
                                           begin + blocks + filters.count - 1, planes + r * kPoints * plane, plane);
    }
    for (std::int64_t panel = 0; panel < panel_count<E>(outputs); ++panel) {
      const int columns = panel_columns<E>(outputs, panel);
      FastTarget<Out> part = to;
      part.out += begin * kFrames * to.frame + panel * kPanel<E>;
      if (to.add != nullptr) part.add += begin * kFrames * to.add_frame + panel * kPanel<E>;
      const auto transform = columns % kLanes<E> != 0 ? &transform_output<E, Form, Out, 0>
                             : columns == kPanel<E>   ? &transform_output<E, Form, Out, kPanelVectors>
                                                      : &transform_output<E, Form, Out, 1>;
      for (std::int64_t first = 0; first < rows; first += stripe) {
        const std::int64_t last = first + stripe < rows ? first + stripe : rows;
        const E* weight = weights + panel * panel_products * size;
        for (int point = 0; point < kPoints; ++point) {
          q.taps = 0;
          for (std::int64_t r = 0; r < stride; ++r) {
            const SubFilters filters(kernel_size, stride, r, kFrames);
            for (std::int64_t s = filters.first(point); s < filters.last(point); ++s, weight += size) {
              a[q.taps] = planes + (r * kPoints + point) * plane + s * frame + first * inputs;
              b[q.taps] = weight;
              ++q.taps;
            }
          }
          q.c = products + point * product_plane;
          product(q, last - first, whole_vectors<E>(columns));
        }
        transform(products, product_plane, first, last, joints, frames - begin * kFrames,
                  bias == nullptr ? nullptr : bias + panel * kPanel<E>, columns, part);
      }
    }
  }
}

// Weights of one panel and input channel: `w` [tap][kPanel] -> out [product], `size` elements apart.
template <typename E, typename Form>
void transform_weights(const double* w, std::int64_t kernel_size, std::int64_t stride, E* out, std::int64_t size) {
  constexpr int kTaps = Form::kTaps;
  for (int point = 0; point < Form::kPoints; ++point) {
    for (std::int64_t r = 0; r < stride; ++r) {
      const SubFilters filters(kernel_size, stride, r, Form::kFrames);
      for (std::int64_t s = filters.first(point); s < filters.last(point); ++s, out += size) {
        double factor[kTaps];
        const double* from[kTaps];
        for (int i = 0; i < kTaps; ++i) {
          const std::int64_t tap = kTaps * s + i - filters.shift;
          const bool exists = tap >= 0 && tap < filters.taps;
          factor[i] = exists ? Form::kWeights[point][i] : 0;
          from[i] = exists ? w + (r + tap * stride) * kPanel<E> : w;
        }
        for (int j = 0; j < kPanel<E>; ++j) {
          // A missing tap is no tap, whatever stands in its place.
          double sum = 0;
          for (int i = 0; i < kTaps; ++i) sum += factor[i] == 0 ? 0 : from[i][j] * factor[i];
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
    const auto transform = point == 0   ? &transform_input<E, ShortForm, 0, 1>
                           : point == 1 ? &transform_input<E, ShortForm, 1, 2>
                           : point == 2 ? &transform_input<E, ShortForm, 2, 3>
                           : point == 3 ? &transform_input<E, ShortForm, 3, 4>
                                        : &transform_input<E, ShortForm, 4, 5>;
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
