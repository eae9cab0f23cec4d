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

template <typename T>
inline bool is_computing_type(Dtype dtype) {
  return dtype == (std::is_same_v<T, double> ? Dtype::kFloat64 : Dtype::kFloat32);
}

inline ConstMatrix at(ConstMatrix m, Index offset) {
  m.data = static_cast<const char*>(m.data) + offset * dtype_bytes(m.dtype);
  return m;
}

inline Matrix at(Matrix m, Index offset) {
  m.data = static_cast<char*>(m.data) + offset * dtype_bytes(m.dtype);
  return m;
}

// Some frames of one sample as rows [frame][joint] of T, channels innermost: where they lie if their memory is so
// already, else a copy.
template <typename T>
struct Window {
  const T* data;
  Index row;          // elements between rows
  Index first, step;  // the frames held: first, first + step, ...

  const T* frame(Index number, Index joints) const { return data + (number - first) / step * joints * row; }
};

// Frames first, first + step, ... below `last`.
template <typename T>
Window<T> open_window(const ConstMatrix& sample, Index joints, Index channels, Index first, Index last, Index step) {
  if (sample.channel == 1 && is_computing_type<T>(sample.dtype)) {
    return {static_cast<const T*>(sample.data), sample.row, 0, 1};
  }
  const Index frames = last > first ? (last - first - 1) / step + 1 : 0, frame_size = joints * channels;
  T* copy = scratch<T>(Slot::kInput, frames * frame_size);
  if (step == 1) {
    gather(copy, channels, at(sample, first * joints * sample.row), frames * joints, channels);
  } else {
    for (Index i = 0; i < frames; ++i) {
      gather(copy + i * frame_size, channels, at(sample, (first + i * step) * joints * sample.row), joints, channels);
    }
  }
  return {copy, channels, first, step};
}

// A kernel of one entry skips the frames between steps; a longer one is taken to read them all.
inline Index window_step(Index kernel_size, Index step) { return kernel_size == 1 ? step : 1; }

template <typename T>
void pack(const Convolution& q, Index begin, Index end) {
  TemporalOperand<T> op{};
  op.inputs = q.source_channels;
  op.outputs = q.target_channels;
  op.kernel_size = q.kernel_size;
  temporal_pack(op, static_cast<const T*>(q.weight), {q.weight_target, q.weight_source, 1}, static_cast<T*>(q.packed),
                begin, end);
}

// Steps [i0, i1) of one phase, one panel. Steps that have the same taps go to the micro-kernel together; `out` is where
// the phase's step i0 goes.
template <typename T>
void convolve_phase(const Convolution& q, const Window<T>& window, Index phase, Index panel, Index i0, Index i1,
                    const T** a, const T** b, T* out, Index out_row) {
  const Index size = q.source_channels * kPanel<T>, out_frame = q.phases * q.joints * out_row;
  const T* weight = static_cast<const T*>(q.packed) + panel * q.kernel_size * size;
  const TemporalTap *begin = q.taps + q.phase_begin[phase], *end = q.taps + q.phase_begin[phase + 1];
  const Index step = q.step / window.step;
  Product<T> run{};
  run.a = a;
  run.b = b;
  run.k = q.source_channels;
  run.a_row = window.row;
  run.bias = q.bias ? static_cast<const T*>(q.bias) + panel * kPanel<T> : nullptr;
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
                              panel_columns<T>(q.target_channels, panel));
    i = run_end;
  }
}

inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

template <typename T>
void convolve(const Convolution& q, Index begin, Index end) {
  const T** a = scratch<const T*>(Slot::kPointers, 2 * q.kernel_size);
  const T** b = a + q.kernel_size;
  for (Index task = begin; task < end; ++task) {
    const Index piece = task % q.pieces, n = task / q.pieces;
    const Index f0 = piece * q.target_frames / q.pieces, f1 = (piece + 1) * q.target_frames / q.pieces;
    if (f0 == f1) continue;
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
    const Window<T> window = open_window<T>(at(q.source, n * q.source_batch), q.joints, q.source_channels, first, last,
                                            window_step(q.kernel_size, q.step));
    const Matrix target = at(q.target, n * q.target_batch + f0 * q.joints * q.target.row);
    const Index rows = (f1 - f0) * q.joints;
    const bool in_place = target.channel == 1 && is_computing_type<T>(target.dtype);
    T* out = in_place ? static_cast<T*>(target.data) : scratch<T>(Slot::kOutput, rows * q.target_channels);
    const Index out_row = in_place ? target.row : q.target_channels;
    for (Index panel = 0; panel < panel_count<T>(q.target_channels); ++panel) {
      for (Index p = 0; p < q.phases; ++p) {
        const Index i0 = steps_before(f0, p), i1 = steps_before(f1, p);
        T* to = out + (i0 * q.phases + p - f0) * q.joints * out_row + panel * kPanel<T>;
        if (i0 < i1) convolve_phase(q, window, p, panel, i0, i1, a, b, to, out_row);
      }
    }
    if (!in_place) scatter(target, out, out_row, rows, q.target_channels);
  }
}

// One piece of one sample: k runs over the rows that a tap and the gradient share.
template <typename T>
void accumulate_piece(const WeightGradient& q, Index n, Index t0, Index t1, T* sums) {
  const Index rows = (t1 - t0) * q.joints, panels = panel_count<T>(q.grad_channels);
  Index first = q.x_frames, last = 0;
  for (Index j = 0; j < q.kernel_size; ++j) {
    const Index from = larger(t0, q.taps[j].first), to = smaller(t1, q.taps[j].last);
    if (from >= to) continue;
    first = smaller(first, from * q.step + q.taps[j].offset);
    last = larger(last, (to - 1) * q.step + q.taps[j].offset + 1);
  }
  const Window<T> window =
      open_window<T>(at(q.x, n * q.x_batch), q.joints, q.x_channels, first, last, window_step(q.kernel_size, q.step));
  const ConstMatrix grad = at(q.grad, n * q.grad_batch + t0 * q.joints * q.grad.row);
  T* packed = scratch<T>(Slot::kPanel, rows * kPanel<T>);
  const T** a = scratch<const T*>(Slot::kPointers, 2 * (t1 - t0));
  const T** b = a + (t1 - t0);
  Product<T> outer{};
  outer.a = a;
  outer.b = b;
  outer.a_row = 1;
  outer.a_step = window.row;
  outer.c_row = kPanel<T>;
  outer.accumulate = true;
  for (Index panel = 0; panel < panels; ++panel) {
    const int columns = panel_columns<T>(q.grad_channels, panel);
    gather(packed, kPanel<T>, at(grad, panel * kPanel<T> * grad.channel), rows, columns);
    for (Index r = 0; columns < kPanel<T> && r < rows; ++r) {
      for (int j = columns; j < kPanel<T>; ++j) packed[r * kPanel<T> + j] = T(0);
    }
    for (Index j = 0; j < q.kernel_size; ++j) {
      const TemporalTap& tap = q.taps[j];
      const Index from = larger(t0, tap.first), to = smaller(t1, tap.last);
      if (from >= to) continue;
      // With a step between them, x's frames are separate taps of one product.
      const bool adjacent = q.step == window.step;
      outer.taps = adjacent ? 1 : to - from;
      outer.k = adjacent ? (to - from) * q.joints : q.joints;
      for (Index i = 0; i < outer.taps; ++i) {
        a[i] = window.frame((from + i) * q.step + tap.offset, q.joints);
        b[i] = packed + (from - t0 + i) * q.joints * kPanel<T>;
      }
      outer.c = sums + (j * panels + panel) * q.x_channels * kPanel<T>;
      product(outer, q.x_channels, kPanel<T>);
    }
  }
}

template <typename T>
void accumulate(const WeightGradient& q, Index begin, Index end) {
  const Index size = q.kernel_size * panel_count<T>(q.grad_channels) * q.x_channels * kPanel<T>;
  const Index units = q.batch * q.pieces;
  for (Index part = begin; part < end; ++part) {
    T* sums = static_cast<T*>(q.partial) + part * size;
    for (Index i = 0; i < size; ++i) sums[i] = T(0);
    for (Index unit = part * units / q.parts; unit < (part + 1) * units / q.parts; ++unit) {
      const Index piece = unit % q.pieces;
      const Index t0 = piece * q.grad_frames / q.pieces, t1 = (piece + 1) * q.grad_frames / q.pieces;
      if (t0 < t1) accumulate_piece(q, unit / q.pieces, t0, t1, sums);
    }
  }
}

template <typename T>
void reduce(const WeightGradient& q, Index begin, Index end) {
  TemporalGradient<T> g{};
  g.inputs = q.x_channels;
  g.outputs = q.grad_channels;
  g.kernel_size = q.kernel_size;
  temporal_grad_weight_finish(g, static_cast<const T*>(q.partial), q.parts, static_cast<T*>(q.out), begin, end);
}

template <typename T>
constexpr TemporalConvKernels::Typed kTyped{kPanel<T>, &pack<T>, &convolve<T>, &accumulate<T>, &reduce<T>};

}  // namespace

const TemporalConvKernels& temporal_conv_kernels() {
  static constexpr TemporalConvKernels kKernels{kTyped<float>, kTyped<double>};
  return kKernels;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
