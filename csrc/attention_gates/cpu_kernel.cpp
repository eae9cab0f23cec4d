#include <cstring>

#include "attention_gates.h"
#include "common/exponential.h"
#include "graph_conv/aggregate.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace attention_gates {
namespace {

using Index = std::int64_t;
using ::stgcn_fast::attention_gates::Kernels;
using ::stgcn_fast::attention_gates::Problem;

// Frames that are read, and perhaps copied, at a time.
constexpr Index kFrames = 32;

template <typename M>
M sample_of(M matrix, Index batch_stride, Index n) {
  matrix.data =
      const_cast<char*>(static_cast<const char*>(matrix.data)) + n * batch_stride * graph_conv::bytes_of(matrix.dtype);
  return matrix;
}

template <typename T>
inline Vec<T> read(const T* p, Index left) {
  return left >= kLanes<T> ? load(p) : load_part(p, static_cast<int>(left));
}

template <typename T>
T sum_of(Vec<T> v) {
  alignas(64) T lanes[kLanes<T>];
  store(lanes, v);
  T sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += lanes[i];
  return sum;
}

// What `weight` [taps, channels], centred, makes of `rows` [count][row] at row `at`.
template <typename T>
T kernel_at(const T* rows, Index row, Index count, Index at, const T* weight, Index taps, Index channels) {
  Vec<T> sum{};
  for (Index q = 0; q < taps; ++q) {
    const Index r = at + q - taps / 2;
    if (r < 0 || r >= count) continue;
    for (Index c = 0; c < channels; c += kLanes<T>) {
      sum += load(rows + r * row + c) * read(weight + q * channels + c, channels - c);
    }
  }
  return sum_of<T>(sum);
}

// 1 + sigmoid of `count` values in place, which have room for whole vectors.
template <typename T>
void open_gates(T* values, Index count) {
  for (Index i = 0; i < count; i += kLanes<T>) {
    store(values + i, hyperbolic_tangent<T>(load(values + i) * T(0.5)) * T(0.5) + T(1.5));
  }
}

// out = weight [outputs, inputs] times `in`, plus bias.
template <typename T>
void multiply(const T* weight, const T* bias, const T* in, Index outputs, Index inputs, bool rectify, T* out) {
  for (Index o = 0; o < outputs; ++o) {
    const T value = bias[o] + kernel_at(in, Index{0}, Index{1}, Index{0}, weight + o * inputs, Index{1}, inputs);
    out[o] = rectify && value < T(0) ? T(0) : value;
  }
}

// Writes h, and its sums over frames into mean[v][row].
template <typename T>
void rectify(const Problem& p, Index sample, const graph_conv::Target<T>& h, T* mean, Index row) {
  const Index V = p.joints, C = p.channels;
  const ConstMatrix from = sample_of(p.x, p.x_batch, sample);
  const auto* shift = static_cast<const T*>(p.shift);
  std::memset(static_cast<void*>(mean), 0, static_cast<std::size_t>(V * row) * sizeof(T));
  for (Index first = 0; first < p.frames; first += kFrames) {
    const Index frames = p.frames - first < kFrames ? p.frames - first : kFrames;
    const graph_conv::Rows<T> x = graph_conv::rows_of<T>(Slot::kInput, from, first * V, frames * V, C);
    graph_conv::Rows<T> add{nullptr, 0};
    if (p.add.data != nullptr) {
      add = graph_conv::rows_of<T>(Slot::kExtra, sample_of(p.add, p.add_batch, sample), first * V, frames * V, C);
    }
    for (Index r = 0; r < frames * V; ++r) {
      T* to = h.data + (first * V + r) * h.row;
      T* sum = mean + r % V * row;
      for (Index c = 0; c < C; c += kLanes<T>) {
        Vec<T> value = load(x.data + r * x.row + c);
        if (shift != nullptr) value += read(shift + c, C - c);
        if (add.data != nullptr) value += load(add.data + r * add.row + c);
        value = rectified<T>(value);
        store(to + c, value);
        store(sum + c, load(sum + c) + value);
      }
    }
  }
}

template <typename T>
void run(const Problem& p, Index sample) {
  const Index V = p.joints, C = p.channels, F = p.frames, row = graph_conv::padded<T>(C);
  graph_conv::Target<T> h(scratch<T>(Slot::kOutput, F * V * row), sample_of(p.out, p.out_batch, sample), 0, F * V, C);
  T* mean = scratch<T>(Slot::kAggregate, V * row);
  rectify(p, sample, h, mean, row);
  for (Index i = 0; i < V * row; i += kLanes<T>) store(mean + i, load(mean + i) * (T(1) / static_cast<T>(F)));

  T* joints = scratch<T>(Slot::kPointers, graph_conv::padded<T>(V));
  std::memset(static_cast<void*>(joints), 0, static_cast<std::size_t>(graph_conv::padded<T>(V)) * sizeof(T));
  for (Index v = 0; v < V; ++v) {
    joints[v] = *static_cast<const T*>(p.joints_bias) +
                kernel_at(mean, row, V, v, static_cast<const T*>(p.joints_weight), p.joint_taps, C);
  }
  open_gates(joints, V);

  T* means = scratch<T>(Slot::kProjected, F * row);
  for (Index t = 0; t < F; ++t) {
    for (Index c = 0; c < C; c += kLanes<T>) {
      Vec<T> sum{};
      for (Index v = 0; v < V; ++v) sum += load(h.data + (t * V + v) * h.row + c) * joints[v];
      store(means + t * row + c, sum * (T(1) / static_cast<T>(V)));
    }
  }
  T* frames = scratch<T>(Slot::kPanel, graph_conv::padded<T>(F));
  for (Index t = F - F % kLanes<T>; t < graph_conv::padded<T>(F); ++t) frames[t] = T(0);
  for (Index t = 0; t < F; ++t) {
    frames[t] = *static_cast<const T*>(p.frames_bias) +
                kernel_at(means, row, F, t, static_cast<const T*>(p.frames_weight), p.frame_taps, C);
  }
  open_gates(frames, F);

  // The means over joints have become what the gates of channels read: their own weighted mean, then hidden ones.
  const Index hidden_row = graph_conv::padded<T>(p.hidden);
  T* pooled = scratch<T>(Slot::kGraph, 2 * row + hidden_row);
  T* hidden = pooled + row;
  T* channels = hidden + hidden_row;
  std::memset(static_cast<void*>(pooled), 0, static_cast<std::size_t>(2 * row + hidden_row) * sizeof(T));
  for (Index c = 0; c < C; c += kLanes<T>) {
    Vec<T> sum{};
    for (Index t = 0; t < F; ++t) sum += load(means + t * row + c) * frames[t];
    store(pooled + c, sum * (T(1) / static_cast<T>(F)));
  }
  multiply(static_cast<const T*>(p.down_weight), static_cast<const T*>(p.down_bias), pooled, p.hidden, C, true, hidden);
  multiply(static_cast<const T*>(p.up_weight), static_cast<const T*>(p.up_bias), hidden, C, p.hidden, false, channels);
  open_gates(channels, C);

  T* row_gate = static_cast<T*>(p.row_gate) + sample * F * V;
  for (Index t = 0; t < F; ++t) {
    for (Index v = 0; v < V; ++v) row_gate[t * V + v] = frames[t] * joints[v];
  }
  std::memcpy(static_cast<void*>(static_cast<T*>(p.channel_gate) + sample * C), channels,
              static_cast<std::size_t>(C) * sizeof(T));
  h.close();
}

template <typename T>
constexpr Kernels kernels() {
  return {&run<T>};
}

}  // namespace
}  // namespace attention_gates

const ::stgcn_fast::attention_gates::Table& attention_gates_kernels() {
  static constexpr ::stgcn_fast::attention_gates::Table table{attention_gates::kernels<float>(),
                                                              attention_gates::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
