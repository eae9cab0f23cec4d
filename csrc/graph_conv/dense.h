// Sums over joints as matrix products, where one dense adjacency serves all channels. Include only from cpu_kernel.cpp.
#pragma once

#include "shared.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

// y[t, w] = bias_map[w] + sum over k and v of A[k,v,w] * (x W_k^T)[t, v]: multiplied first, a panel of outputs at a
// time.
template <typename T>
void multiply_first(const Problem& p, const T* weights, const T* bias_map, const T* adjacency, const Rows<T>& x,
                    Index frames, const Target<T>& y) {
  const Index V = p.sources, W = p.targets, K = p.partitions, rows = frames * V;
  const Index panels = panel_count<T>(p.outputs), values = panel_values<T>(p.inputs);
  T* z = working<T>(Slot::kAggregate, K * rows * kPanel<T>);
  std::memset(static_cast<void*>(z), 0, static_cast<std::size_t>(K * rows * kPanel<T>) * sizeof(T));
  const Taps<T> taps(Slot::kPointers, K);
  for (Index j = 0; j < panels; ++j) {
    const int columns = panel_columns<T>(p.outputs, j);
    for (Index k = 0; k < K; ++k) {
      const T* b = weights + (k * panels + j) * values;
      Product<T> q{};
      q.a = &x.data;
      q.b = &b;
      q.taps = 1;
      q.k = p.inputs;
      q.a_row = x.row;
      q.c = z + k * rows * kPanel<T>;
      q.c_row = kPanel<T>;
      product(q, rows, columns);
    }
    for (Index t = 0; t < frames; ++t) {
      for (Index k = 0; k < K; ++k) {
        taps.a[k] = adjacency + k * V * W;
        taps.b[k] = z + (k * rows + t * V) * kPanel<T>;
      }
      Product<T> q{};
      q.a = taps.a;
      q.b = taps.b;
      q.taps = K;
      q.k = V;
      q.a_row = 1;
      q.a_step = W;
      q.add = bias_map == nullptr ? nullptr : bias_map + j * kPanel<T>;
      q.add_row = p.outputs;
      q.c = y.data + t * W * y.row + j * kPanel<T>;
      q.c_row = y.row;
      product(q, W, columns);
    }
  }
}

// Few channels would leave lanes empty: a panel then holds those of several frames, [channel][frame].
template <typename T>
constexpr Index kFewChannels = kPanel<T> / 4;

// Channels of a panel of folded frames: a power of two, so that partitions follow each other in even steps.
inline Index folded_channels(const Problem& p) {
  Index channels = 1;
  while (channels < p.inputs) channels *= 2;
  return channels;
}

template <typename T>
bool folds(const Problem& p) {
  return p.groups == 1 && p.inputs <= kFewChannels<T>;
}

template <typename T>
Index folded_frames(const Problem& p) {
  return kPanel<T> / folded_channels(p);
}

// sums[w][k][channel][frame] = sum_v A[k,v,w] x[frame, v, channel], for `frames` of at most folded_frames.
template <typename T>
void aggregate_folded(T* sums, const Problem& p, const T* adjacency, const Rows<T>& x, Index frames) {
  const Index V = p.sources, W = p.targets, K = p.partitions, step = folded_frames<T>(p);
  T* panel = working<T>(Slot::kPanel, V * kPanel<T>);
  std::memset(static_cast<void*>(panel), 0, static_cast<std::size_t>(V * kPanel<T>) * sizeof(T));
  for (Index t = 0; t < frames; ++t) {
    for (Index v = 0; v < V; ++v) {
      const T* from = x.data + (t * V + v) * x.row;
      for (Index c = 0; c < p.inputs; ++c) panel[v * kPanel<T> + c * step + t] = from[c];
    }
  }
  for (Index k = 0; k < K; ++k) {
    const T* a = adjacency + k * V * W;
    const T* b = panel;
    Product<T> q{};
    q.a = &a;
    q.b = &b;
    q.taps = 1;
    q.k = V;
    q.a_row = 1;
    q.a_step = W;
    q.c = sums + k * kPanel<T>;
    q.c_row = K * kPanel<T>;
    product(q, W, kPanel<T>);
  }
}

// The forward pass on folded frames.
template <typename T>
void forward_folded(const Problem& p, const T* weights, const T* bias_map, const T* adjacency, const Rows<T>& x,
                    Index frames, const Target<T>& y) {
  const Index V = p.sources, W = p.targets, K = p.partitions, step = folded_frames<T>(p);
  const Index panels = panel_count<T>(p.outputs), values = panel_values<T>(p.inputs);
  T* sums = working<T>(Slot::kAggregate, W * K * kPanel<T>);
  const Taps<T> taps(Slot::kPointers, K);
  for (Index t = 0; t < frames; t += step) {
    const Index count = minimum(step, frames - t);
    aggregate_folded(sums, p, adjacency, Rows<T>{x.data + t * V * x.row, x.row}, count);
    for (Index w = 0; w < W; ++w) {
      for (Index k = 0; k < K; ++k) taps.a[k] = sums + (w * K + k) * kPanel<T>;
      for (Index j = 0; j < panels; ++j) {
        for (Index k = 0; k < K; ++k) taps.b[k] = weights + (k * panels + j) * values;
        Product<T> q{};
        q.a = taps.a;
        q.b = taps.b;
        q.taps = K;
        q.k = p.inputs;
        q.a_row = 1;
        q.a_step = step;
        q.bias = bias_map == nullptr ? nullptr : bias_map + w * p.outputs + j * kPanel<T>;
        q.c = y.data + (t * W + w) * y.row + j * kPanel<T>;
        q.c_row = W * y.row;
        product(q, count, panel_columns<T>(p.outputs, j));
      }
    }
  }
}

// Values of `weight_folded`'s sums, [panel][k][channel][kPanel].
template <typename T>
Index folded_weight_values(const Problem& p) {
  return panel_count<T>(p.outputs) * p.partitions * folded_channels(p) * kPanel<T>;
}

template <typename T>
void weight_folded(const Problem& p, const T* adjacency, const Rows<T>& x, const Rows<T>& grad, Index frames, T* to) {
  const Index V = p.sources, W = p.targets, K = p.partitions, step = folded_frames<T>(p);
  const Index rows = K * folded_channels(p);
  T* sums = working<T>(Slot::kAggregate, W * (K + step) * kPanel<T>);
  T* panels = sums + W * K * kPanel<T>;
  const Taps<T> taps(Slot::kPointers, W);
  for (Index t = 0; t < frames; t += step) {
    const Index count = minimum(step, frames - t);
    aggregate_folded(sums, p, adjacency, Rows<T>{x.data + t * V * x.row, x.row}, count);
    for (Index j = 0; j < panel_count<T>(p.outputs); ++j) {
      for (Index w = 0; w < W; ++w) {
        T* panel = panels + w * step * kPanel<T>;
        pack_panel(panel, grad.data + (t * W + w) * grad.row + j * kPanel<T>, W * grad.row, 1, count,
                   panel_columns<T>(p.outputs, j));
        taps.a[w] = sums + w * K * kPanel<T>;
        taps.b[w] = panel;
      }
      Product<T> q{};
      q.a = taps.a;
      q.b = taps.b;
      q.taps = W;
      q.k = count;
      q.a_row = step;
      q.a_step = 1;
      q.c = to + j * rows * kPanel<T>;
      q.c_row = kPanel<T>;
      q.accumulate = true;
      product(q, rows, kPanel<T>);
    }
  }
}

// slot[k][panel][c][kPanel] += what `weight_folded` summed.
template <typename T>
void add_folded(const Problem& p, const T* sums, T* slot) {
  const Index panels = panel_count<T>(p.outputs), channels = folded_channels(p);
  for (Index k = 0; k < p.partitions; ++k) {
    for (Index j = 0; j < panels; ++j) {
      const T* from = sums + (j * p.partitions + k) * channels * kPanel<T>;
      T* to = slot + (k * panels + j) * p.inputs * kPanel<T>;
      for (Index i = 0; i < p.inputs * kPanel<T>; i += kLanes<T>) store(to + i, load(to + i) + load(from + i));
    }
  }
}

// sums[k][w][v] += sum over frames and channels of (grad W_k)[t, w, c] x[t, v, c]; all partitions are projected as one.
// `weights` are the panels of W_k over the inputs.
template <typename T>
void adjacency_folded(const Problem& p, const T* weights, const Rows<T>& x, const Rows<T>& grad, Index frames,
                      T* sums) {
  const Index V = p.sources, W = p.targets, K = p.partitions, C = p.inputs, channels = folded_channels(p);
  const Index panels = panel_count<T>(K * channels), row = panels * kPanel<T>;
  const Index joint_panels = panel_count<T>(V), sums_row = joint_panels * kPanel<T>;
  T* packed = working<T>(Slot::kAggregate, panels * p.outputs * kPanel<T> + frames * W * row);
  T* projected = packed + panels * p.outputs * kPanel<T>;
  for (Index i = 0; i < panels * kPanel<T>; ++i) {
    const Index k = i / channels, c = i % channels;
    T* to = packed + i / kPanel<T> * p.outputs * kPanel<T> + i % kPanel<T>;
    const T* from = weights + k * p.outputs * kPanel<T> + c;
    for (Index o = 0; o < p.outputs; ++o) to[o * kPanel<T>] = k < K && c < C ? from[o * kPanel<T>] : T(0);
  }
  for (Index j = 0; j < panels; ++j) {
    const T* b = packed + j * p.outputs * kPanel<T>;
    Product<T> q{};
    q.a = &grad.data;
    q.b = &b;
    q.taps = 1;
    q.k = p.outputs;
    q.a_row = grad.row;
    q.c = projected + j * kPanel<T>;
    q.c_row = row;
    product(q, frames * W, static_cast<int>(padded<T>(panel_columns<T>(K * channels, j))));
  }
  T* turned = working<T>(Slot::kPanel, frames * C * sums_row);  // [panel of joints][frame][channel][joint]
  const Taps<T> taps(Slot::kPointers, frames);
  for (Index i = 0; i < joint_panels; ++i) {
    for (Index t = 0; t < frames; ++t) {
      T* panel = turned + (i * frames + t) * C * kPanel<T>;
      pack_panel(panel, x.data + (t * V + i * kPanel<T>)*x.row, 1, x.row, C, panel_columns<T>(V, i));
      taps.b[t] = panel;
    }
    for (Index k = 0; k < K; ++k) {
      for (Index t = 0; t < frames; ++t) taps.a[t] = projected + t * W * row + k * channels;
      Product<T> q{};
      q.a = taps.a;
      q.b = taps.b;
      q.taps = frames;
      q.k = C;
      q.a_row = row;
      q.c = sums + k * W * sums_row + i * kPanel<T>;
      q.c_row = sums_row;
      q.accumulate = true;
      product(q, W, kPanel<T>);
    }
  }
}

}  // namespace graph_conv
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
