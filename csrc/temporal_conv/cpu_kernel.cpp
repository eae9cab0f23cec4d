#include <cstdint>
#include <type_traits>

#include "common/layout.h"
#include "common/micro_kernel.h"
#include "common/pack.h"
#include "common/scratch.h"
#include "temporal_conv/rows.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace {

using Index = std::int64_t;

inline Index smaller(Index a, Index b) { return a < b ? a : b; }
inline Index larger(Index a, Index b) { return a > b ? a : b; }

inline Index dtype_bytes(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

template <typename E>
inline constexpr Dtype kDtype = std::is_same_v<E, double>     ? Dtype::kFloat64
                                : std::is_same_v<E, BFloat16> ? Dtype::kBFloat16
                                                              : Dtype::kFloat32;

inline ConstMatrix at(ConstMatrix m, Index offset) {
  m.data = static_cast<const char*>(m.data) + offset * dtype_bytes(m.dtype);
  return m;
}

inline Matrix at(Matrix m, Index offset) {
  m.data = static_cast<char*>(m.data) + offset * dtype_bytes(m.dtype);
  return m;
}

// Elements of a row that is copied: pairs of bfloat16 must be whole.
template <typename E>
inline Index padded(Index channels) {
  return (channels + kDepth<E> - 1) / kDepth<E> * kDepth<E>;
}

// out[r][c] = matrix[r][c], rows of padded<E>(channels).
template <typename E>
void copy_rows(E* out, const ConstMatrix& matrix, Index rows, Index channels) {
  if constexpr (kDepth<E> == 1) {
    gather(out, channels, matrix, rows, channels);
  } else {
    constexpr Index kRows = 64;
    const Index row = padded<E>(channels);
    Acc<E>* wide = scratch<Acc<E>>(Slot::kExtra, kRows * channels);
    for (Index r0 = 0; r0 < rows; r0 += kRows) {
      const Index some = smaller(kRows, rows - r0);
      gather(wide, channels, at(matrix, r0 * matrix.row), some, channels);
      for (Index r = 0; r < some; ++r) {
        E* to = out + (r0 + r) * row;
        for (Index c = 0; c < channels; ++c) narrow(wide[r * channels + c], to[c]);
        for (Index c = channels; c < row; ++c) to[c] = E{};
      }
    }
  }
}

// Some frames of one sample as rows [frame][joint], channels innermost: where they lie if their memory is so already,
// else a copy.
template <typename E>
struct Window {
  const E* data;
  Index row;          // elements between rows
  Index first, step;  // the frames held: first, first + step, ...

  const E* frame(Index number, Index joints) const { return data + (number - first) / step * joints * row; }
};

template <typename E>
inline bool in_place(const ConstMatrix& m, Index channels) {
  return m.channel == 1 && m.dtype == kDtype<E> && padded<E>(channels) == channels;
}

// Frames first, first + step, ... below `last`.
template <typename E>
Window<E> open_window(const ConstMatrix& sample, Index joints, Index channels, Index first, Index last, Index step) {
  if (in_place<E>(sample, channels)) return {static_cast<const E*>(sample.data), sample.row, 0, 1};
  const Index frames = last > first ? (last - first - 1) / step + 1 : 0, row = padded<E>(channels);
  E* copy = scratch<E>(Slot::kInput, frames * joints * row);
  if (step == 1) {
    copy_rows(copy, at(sample, first * joints * sample.row), frames * joints, channels);
  } else {
    for (Index i = 0; i < frames; ++i) {
      copy_rows(copy + i * joints * row, at(sample, (first + i * step) * joints * sample.row), joints, channels);
    }
  }
  return {copy, row, first, step};
}

// A kernel of one entry skips the frames between steps; a longer one is taken to read them all.
inline Index window_step(Index kernel_size, Index step) { return kernel_size == 1 ? step : 1; }

// What is packed: all taps, or in the fast form those of one phase after another.
inline Index packed_operands(const Convolution& q) { return q.fast ? q.phases : 1; }

template <typename E>
TemporalOperand<E> operand(const Convolution& q, Index phase, const E* weights) {
  return {q.source_channels,
          q.target_channels,
          q.fast ? q.fast_phases[phase].taps : q.kernel_size,
          q.joints,
          q.fast ? q.step : 1,
          q.dilation,
          q.fast,
          weights,
          static_cast<const Acc<E>*>(q.bias)};
}

template <typename E>
Index packed_bytes(const Convolution& q) {
  Index values = 0;
  for (Index p = 0; p < packed_operands(q); ++p) values += temporal_packed_values(operand<E>(q, p, nullptr));
  return values * static_cast<Index>(sizeof(E));
}

template <typename E>
Index pack_tasks(const Convolution& q) {
  Index tasks = 0;
  for (Index p = 0; p < packed_operands(q); ++p) tasks += temporal_pack_tasks(operand<E>(q, p, nullptr));
  return tasks;
}

template <typename E>
void pack(const Convolution& q, void* out, Index begin, Index end) {
  E* to = static_cast<E*>(out);
  for (Index p = 0; p < packed_operands(q) && end > 0; ++p) {
    const TemporalOperand<E> op = operand<E>(q, p, nullptr);
    const Index tasks = temporal_pack_tasks(op), first = q.fast ? q.fast_phases[p].first_tap : 0;
    if (begin < tasks) {
      temporal_pack(op, static_cast<const Acc<E>*>(q.weight) + first, {q.weight_target, q.weight_source, q.weight_tap},
                    to, begin, smaller(end, tasks));
    }
    to += temporal_packed_values(op);
    begin = larger(0, begin - tasks);
    end -= tasks;
  }
}

// Steps [i0, i1) of one phase, one panel. Steps that have the same taps go to the micro-kernel together; `out` is where
// the phase's step i0 goes.
template <typename E, typename Out>
void convolve_phase(const Convolution& q, const Window<E>& window, Index phase, Index panel, Index i0, Index i1,
                    const E** a, const E** b, Out* out, Index out_row) {
  const Index size = panel_values<E>(q.source_channels), out_frame = q.phases * q.joints * out_row;
  const E* weight = static_cast<const E*>(q.packed) + panel * q.kernel_size * size;
  const TemporalTap *begin = q.taps + q.phase_begin[phase], *end = q.taps + q.phase_begin[phase + 1];
  const Index step = q.step / window.step;
  Product<E, Out> run{};
  run.a = a;
  run.b = b;
  run.k = q.source_channels;
  run.a_row = window.row;
  run.bias = q.bias ? static_cast<const Acc<E>*>(q.bias) + panel * kPanel<E> : nullptr;
  run.c_row = out_row;
  for (Index i = i0; i < i1;) {
    Index run_end = i1;
    run.taps = 0;
    for (const TemporalTap* tap = begin; tap != end; ++tap) {
      if (i < tap->first) {
        run_end = smaller(run_end, tap->first);
      } else if (i < tap->last) {
        run_end = smaller(run_end, tap->last);
        a[run.taps] = window.frame(i * q.step + tap->offset, q.joints);
        b[run.taps] = weight + tap->kernel * size;
        ++run.taps;
      }
    }
    run.c = out + (i - i0) * out_frame;
    detail::product_of_frames(run, a, run_end - i, q.joints, step * q.joints * window.row, out_frame, 0,
                              panel_columns<E>(q.target_channels, panel));
    i = run_end;
  }
}

inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// Target frames [f0, f1) of one sample.
template <typename E, typename Out>
void convolve_direct(const Convolution& q, const ConstMatrix& source, Index f0, Index f1, Out* out, Index out_row) {
  const E** a = scratch<const E*>(Slot::kPointers, 2 * q.kernel_size);
  const E** b = a + q.kernel_size;
  // Steps of phase p in [f0, f1).
  const auto steps_before = [&](Index frame, Index p) { return frame > p ? ceil_div(frame - p, q.phases) : 0; };
  Index first = q.source_frames, last = 0;
  for (Index p = 0; p < q.phases; ++p) {
    const Index i0 = steps_before(f0, p), i1 = steps_before(f1, p);
    for (Index j = q.phase_begin[p]; j < q.phase_begin[p + 1]; ++j) {
      const Index from = larger(i0, q.taps[j].first), to = smaller(i1, q.taps[j].last);
      if (from >= to) continue;
      first = smaller(first, from * q.step + q.taps[j].offset);
      last = larger(last, (to - 1) * q.step + q.taps[j].offset + 1);
    }
  }
  const Window<E> window =
      open_window<E>(source, q.joints, q.source_channels, first, last, window_step(q.kernel_size, q.step));
  for (Index panel = 0; panel < panel_count<E>(q.target_channels); ++panel) {
    for (Index p = 0; p < q.phases; ++p) {
      const Index i0 = steps_before(f0, p), i1 = steps_before(f1, p);
      Out* to = out + (i0 * q.phases + p - f0) * q.joints * out_row + panel * kPanel<E>;
      if (i0 < i1) convolve_phase(q, window, p, panel, i0, i1, a, b, to, out_row);
    }
  }
}

// Frames origin, origin + 1, ... below `end` of a sample; those that the clip of `frames` lacks are zeros.
template <typename E>
TemporalFrames<E> open_frames(const ConstMatrix& sample, Index joints, Index channels, Index origin, Index end,
                              Index frames) {
  const Index first = smaller(larger(origin, 0), frames), last = larger(first, smaller(end, frames));
  const Window<E> window = open_window<E>(sample, joints, channels, first, last, 1);
  return {window.frame(first, joints), joints * window.row, window.row, first - origin, last - origin};
}

// Target frames [f0, f1) of one sample, f0 the first frame of a block of every phase.
template <typename E>
void convolve_fast(const Convolution& q, const ConstMatrix& source, Index f0, Index f1, E* out, Index out_row) {
  const Index i0 = f0 / q.phases;
  const auto steps = [&](Index p) { return (f1 - f0 - p + q.phases - 1) / q.phases; };
  const auto origin = [&](Index p) { return i0 * q.step + q.fast_phases[p].offset; };
  Index first = origin(0), last = first;
  for (Index p = 0; p < q.phases; ++p) {
    first = smaller(first, origin(p));
    last = larger(last, origin(p) + temporal_window_frames(operand<E>(q, p, nullptr), steps(p)));
  }
  const TemporalFrames<E> all = open_frames<E>(source, q.joints, q.source_channels, first, last, q.source_frames);
  const E* weights = static_cast<const E*>(q.packed);
  for (Index p = 0; p < q.phases && p < f1 - f0; ++p) {
    const TemporalOperand<E> op = operand(q, p, weights);
    TemporalFrames<E> in = all;
    in.first -= origin(p) - first;
    in.last -= origin(p) - first;
    detail::fast_frames(op, in, steps(p),
                        detail::FastTarget<E>{out + p * q.joints * out_row, q.phases * q.joints * out_row, out_row,
                                              nullptr, 0, 0, false});
    weights += temporal_packed_values(op);
  }
}

template <typename E>
void convolve(const Convolution& q, Index begin, Index end) {
  const Index block = q.fast ? kTemporalBlock * q.dilation * q.phases : 1, blocks = ceil_div(q.target_frames, block);
  for (Index task = begin; task < end; ++task) {
    const Index piece = task % q.pieces, n = task / q.pieces;
    const Index f0 = piece * blocks / q.pieces * block;
    const Index f1 = smaller(q.target_frames, (piece + 1) * blocks / q.pieces * block);
    if (f0 >= f1) continue;
    const ConstMatrix source = at(q.source, n * q.source_batch);
    const Matrix target = at(q.target, n * q.target_batch + f0 * q.joints * q.target.row);
    const auto run = [&](auto* out, Index out_row) {
      if constexpr (kHasFastForm<E>) {
        if (q.fast) {
          convolve_fast<E>(q, source, f0, f1, out, out_row);
          return;
        }
      }
      convolve_direct<E>(q, source, f0, f1, out, out_row);
    };
    if (target.channel == 1 && target.dtype == kDtype<E>) {
      run(static_cast<E*>(target.data), target.row);
      continue;
    }
    const Index rows = (f1 - f0) * q.joints;
    Acc<E>* out = scratch<Acc<E>>(Slot::kOutput, rows * q.target_channels);
    run(out, q.target_channels);
    scatter(target, out, q.target_channels, rows, q.target_channels);
  }
}

template <typename E>
TemporalGradient<E> gradient(const WeightGradient& q) {
  return {q.x_channels, q.grad_channels, q.kernel_size, q.joints, q.stride, q.dilation, q.fast};
}

template <typename E>
Index sum_bytes(const WeightGradient& q) {
  return temporal_grad_weight_values(gradient<E>(q)) * static_cast<Index>(sizeof(Acc<E>));
}

// Output frames [t0, t1) of one sample.
template <typename E>
void accumulate_piece(const WeightGradient& q, Index n, Index t0, Index t1, Panels some, Acc<E>* sums) {
  TemporalGradient<E> g = gradient<E>(q);
  const ConstMatrix x = at(q.x, n * q.x_batch), grad = at(q.grad, n * q.grad_batch + t0 * q.joints * q.grad.row);
  const E* upstream = static_cast<const E*>(grad.data);
  Index grad_row = grad.row;
  if (grad.channel != 1 || grad.dtype != kDtype<E>) {
    grad_row = padded<E>(q.grad_channels);
    E* copy = scratch<E>(Slot::kOutput, (t1 - t0) * q.joints * grad_row);
    copy_rows(copy, grad, (t1 - t0) * q.joints, q.grad_channels);
    upstream = copy;
  }
  const Index origin = t0 * q.stride - q.padding, end = origin + temporal_window_frames(g, t1 - t0);
  TemporalFrames<E> in;
  const bool skips = q.kernel_size == 1 && q.stride > 1 && q.padding == 0;
  if (skips) {
    // Only every stride-th frame is read.
    const Window<E> window = open_window<E>(x, q.joints, q.x_channels, origin, end, q.stride);
    const Index step = q.stride / window.step;
    in = {window.frame(origin, q.joints), step * q.joints * window.row, window.row, 0, t1 - t0};
    g.stride = 1;
  } else {
    in = open_frames<E>(x, q.joints, q.x_channels, origin, end, q.x_frames);
  }
  detail::grad_weight_frames(g, in, upstream, grad_row, t1 - t0, some, sums);
}

template <typename E>
void accumulate(const WeightGradient& q, Index begin, Index end) {
  const TemporalGradient<E> g = gradient<E>(q);
  const Index panels = panel_count<E>(q.grad_channels), panel_size = q.x_channels * kPanel<E>;
  const Index size = temporal_grad_weight_values(g), units = q.batch * q.pieces;
  const Index block = temporal_block_frames(g), blocks = ceil_div(q.grad_frames, block);
  for (Index task = begin; task < end; ++task) {
    const Index part = task / q.groups, group = task % q.groups;
    const Panels some{group * panels / q.groups, (group + 1) * panels / q.groups};
    Acc<E>* sums = static_cast<Acc<E>*>(q.partial) + part * size;
    for (Index p = 0; p < temporal_products(g); ++p) {
      Acc<E>* to = sums + p * panels * panel_size;
      for (Index i = some.begin * panel_size; i < some.end * panel_size; ++i) to[i] = Acc<E>(0);
    }
    for (Index unit = part * units / q.parts; unit < (part + 1) * units / q.parts; ++unit) {
      const Index piece = unit % q.pieces, t0 = piece * blocks / q.pieces * block;
      const Index t1 = smaller(q.grad_frames, (piece + 1) * blocks / q.pieces * block);
      if (t0 < t1) accumulate_piece<E>(q, unit / q.pieces, t0, t1, some, sums);
    }
  }
}

template <typename E>
void reduce(const WeightGradient& q, Index begin, Index end) {
  temporal_grad_weight_finish(gradient<E>(q), static_cast<const Acc<E>*>(q.partial), q.parts,
                              static_cast<Acc<E>*>(q.out), begin, end);
}

template <typename E>
constexpr TemporalConvKernels::Typed typed() {
  return {kPanel<E>,    &packed_bytes<E>, &pack_tasks<E>, &pack<E>,
          &convolve<E>, &sum_bytes<E>,    &accumulate<E>, &reduce<E>};
}

}  // namespace

const TemporalConvKernels& temporal_conv_kernels() {
#if defined(__AVX512BF16__)
  static constexpr TemporalConvKernels kKernels{typed<float>(), typed<double>(), typed<BFloat16>()};
#else
  static constexpr TemporalConvKernels kKernels{typed<float>(), typed<double>(), {}};
#endif
  return kKernels;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
