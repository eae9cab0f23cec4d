// The gradients of graph_rows (rows.h) by x, weights, adjacency and bias in one pass over the edges: a run of frames of
// one target joint and one partition at a time is aggregated, multiplied with the output's gradient, projected back
// through the weights and spread along the edges. Include only from cpu_kernel.cpp files.
#pragma once

#include "rows.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Sums are added to; a null pointer leaves its gradient out.
template <typename E>
struct GraphGradient {
  Index sources, targets, inputs, outputs, partitions;  // V, W, C, O, K
  const std::int32_t* begin;                            // as in GraphOperand
  const Edge<Acc<E>>* edge;
  const E* weights;        // graph_pack's panels over the inputs; needed for the gradients by x and adjacency
  Acc<E>* weight_sums;     // graph_weight_sums values, see graph_grad_weight
  Acc<E>* adjacency_sums;  // [edges][kLanes], see graph_grad_adjacency
  Acc<E>* joint_sums;      // [W][O], sums of dy over frames, see graph_grad_bias
};

// Values of `weight_sums`: [k][panel over inputs][O][kPanel]. They start as zeros.
template <typename E>
Index graph_weight_sums(const GraphGradient<E>& op) {
  return op.partitions * panel_count<Acc<E>>(op.inputs) * op.outputs * kPanel<Acc<E>>;
}

// Values of `adjacency_sums`.
template <typename E>
Index graph_adjacency_sums(const GraphGradient<E>& op) {
  return op.begin[op.targets * op.partitions] * kLanes<Acc<E>>;
}

// The gradient by the weights [K, O, C] from their sums, partitions [begin, end).
template <typename E>
void graph_grad_weight(const GraphGradient<E>& op, const Acc<E>* sums, Acc<E>* out, Index begin, Index end) {
  using S = Acc<E>;
  const Index panels = panel_count<S>(op.inputs);
  for (Index k = begin; k < end; ++k) {
    for (Index j = 0; j < panels; ++j) {
      const S* from = sums + (k * panels + j) * op.outputs * kPanel<S>;
      const auto bytes = static_cast<std::size_t>(panel_columns<S>(op.inputs, j)) * sizeof(S);
      for (Index o = 0; o < op.outputs; ++o) {
        std::memcpy(static_cast<void*>(out + (k * op.outputs + o) * op.inputs + j * kPanel<S>), from + o * kPanel<S>,
                    bytes);
      }
    }
  }
}

// Adds the gradient by the adjacency to out [K, V, W], on entries that are free. `bias` [K, O] and `joint_sums` [W, O]
// give the part that the bias brings; either may be null.
template <typename E>
void graph_grad_adjacency(const GraphGradient<E>& op, const Acc<E>* sums, const Acc<E>* bias, const Acc<E>* joint_sums,
                          Acc<E>* out) {
  using S = Acc<E>;
  for (Index w = 0; w < op.targets; ++w) {
    for (Index k = 0; k < op.partitions; ++k) {
      const std::int32_t* begin = op.begin + w * op.partitions + k;
      S by_bias = 0;
      if (bias != nullptr && joint_sums != nullptr && begin[0] != begin[1]) {
        for (Index o = 0; o < op.outputs; ++o) by_bias += bias[k * op.outputs + o] * joint_sums[w * op.outputs + o];
      }
      for (std::int32_t e = begin[0]; e < begin[1]; ++e) {
        if (!op.edge[e].free) continue;
        S total = by_bias;
        for (int i = 0; i < kLanes<S>; ++i) total += sums[e * kLanes<S> + i];
        out[op.edge[e].entry] += total;
      }
    }
  }
}

// out[k][o] = sum_w inflow of w in k * joint_sums[w][o].
template <typename E>
void graph_grad_bias(const GraphGradient<E>& op, const Acc<E>* joint_sums, Acc<E>* out) {
  using S = Acc<E>;
  std::memset(static_cast<void*>(out), 0, static_cast<std::size_t>(op.partitions * op.outputs) * sizeof(S));
  for (Index w = 0; w < op.targets; ++w) {
    for (Index k = 0; k < op.partitions; ++k) {
      const std::int32_t* begin = op.begin + w * op.partitions + k;
      S inflow = 0;
      for (std::int32_t e = begin[0]; e < begin[1]; ++e) inflow += op.edge[e].value;
      if (inflow == S(0)) continue;
      for (Index o = 0; o < op.outputs; ++o) out[k * op.outputs + o] += inflow * joint_sums[w * op.outputs + o];
    }
  }
}

namespace detail {

// kFrames frames of aggregate_panel: their loads are in flight together.
template <typename E, int kVectors, int kFrames>
[[gnu::always_inline]] inline void aggregate_frames(E* to, const E* x, Index frame, Index x_row,
                                                    const Edge<Acc<E>>* first, const Edge<Acc<E>>* last) {
  using Sum = Vec<Acc<E>>;
  // One more, of zeros, is the second of a pair that lacks it.
  Sum sum[kFrames + 1][kPanelVectors] = {};
  for (const Edge<Acc<E>>* e = first; e != last; ++e) {
    const Sum value = broadcast(e->value);
    const E* rows = x + e->joint * x_row;
#pragma GCC unroll 4
    for (int f = 0; f < kFrames; ++f) {
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) sum[f][i] += value * load_row(rows + f * frame + i * kLanes<E>);
    }
  }
#pragma GCC unroll 4
  for (int f = 0; f < kFrames; f += kDepth<E>) {
#pragma GCC unroll 2
    for (int i = 0; i < kPanelVectors; ++i) {
      if constexpr (kDepth<E> == 1) {
        store_row(to + f * kPanel<E> + i * kLanes<E>, sum[f][i]);
      } else {
#if defined(__AVX512BF16__)
        const auto narrowed = [](Sum v) {
          return __builtin_convertvector(same_bits<Halves>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v))), Words);
        };
        const Words pair = narrowed(sum[f][i]) | narrowed(sum[f + 1][i]) << 16;
        store(reinterpret_cast<float*>(to + f * kPanel<E> + 2 * i * kLanes<E>), same_bits<Vec<float>>(pair));
#endif
      }
    }
  }
}

// to[t][kPanel] = sum of the edges' values times kVectors vectors of their joints' rows, zeros beyond; for bfloat16
// pairs of frames [t / 2][kPanel][t % 2], and a frame of zeros after an odd last one.
template <typename E, int kVectors>
[[gnu::noinline]] void aggregate_panel(E* to, const E* x, Index frame, Index x_row, Index frames,
                                       const Edge<Acc<E>>* first, const Edge<Acc<E>>* last) {
  constexpr int kTogether = 4;
  Index t = 0;
  for (; t + kTogether <= frames; t += kTogether) {
    aggregate_frames<E, kVectors, kTogether>(to + t * kPanel<E>, x + t * frame, frame, x_row, first, last);
  }
  for (; t + kDepth<E> <= frames; t += kDepth<E>) {
    aggregate_frames<E, kVectors, kDepth<E>>(to + t * kPanel<E>, x + t * frame, frame, x_row, first, last);
  }
  if (t < frames) aggregate_frames<E, kVectors, 1>(to + t * kPanel<E>, x + t * frame, frame, x_row, first, last);
}

// sum[lane] += sum over frames of x[t] * q[t]; out[t] += value * q[t]; on kVectors vectors.
template <typename E, int kVectors, bool kSum, bool kOut>
[[gnu::noinline]] void spread_panel(const Acc<E>* q, const E* x, Index x_frame, Acc<E>* sum, E* out, Index out_frame,
                                    Acc<E> value, Index frames) {
  Vec<Acc<E>> total[kVectors] = {};
  const Vec<Acc<E>> factor = broadcast(value);
  for (Index t = 0; t < frames; ++t, q += kPanel<E>) {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
      const Vec<Acc<E>> p = load(q + i * kLanes<E>);
      if (kSum) total[i] += p * load_row(x + t * x_frame + i * kLanes<E>);
      if (kOut) {
        E* to = out + t * out_frame + i * kLanes<E>;
        store_row(to, load_row(to) + factor * p);
      }
    }
  }
  if (kSum) {
    Vec<Acc<E>> all = load(sum);
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) all += total[i];
    store(sum, all);
  }
}

// One target joint's rows of dy, dense (bfloat16: in pairs of frames), and their sums over frames.
template <typename E>
void copy_joint(E* to, Index to_row, const E* dy, Index frame, Index frames, Index outputs, Acc<E>* sums) {
  if constexpr (kDepth<E> == 2) pair_rows(to, dy, frame, frames, to_row);
  if (kDepth<E> == 2 && sums == nullptr) return;
  Index o = 0;
  for (; o + kLanes<E> <= outputs; o += kLanes<E>) {
    Vec<Acc<E>> sum = sums == nullptr ? Vec<Acc<E>>{} : load(sums + o);
    for (Index t = 0; t < frames; ++t) {
      const Vec<Acc<E>> value = load_row(dy + t * frame + o);
      if constexpr (kDepth<E> == 1) store_row(to + t * to_row + o, value);
      sum += value;
    }
    if (sums != nullptr) store(sums + o, sum);
  }
  for (; o < outputs; ++o) {
    Acc<E> sum = 0;
    for (Index t = 0; t < frames; ++t) {
      if constexpr (kDepth<E> == 1) to[t * to_row + o] = dy[t * frame + o];
      sum += widen(dy[t * frame + o]);
    }
    if (sums != nullptr) sums[o] += sum;
  }
}

// Frames that go through together: many for few passes over the weight's sums, few for the first-level cache.
inline constexpr Index kGradFrames = 5 * kTileRows;

// Some frames of one target joint.
template <typename E>
struct GradTile {
  const GraphGradient<E>& op;
  const E* x;
  Index x_row;
  E* dx;
  Index dx_row;
  const E* rows;  // of dy
  Index rows_step, frames;
  E* aggregated;      // [frames][kPanel]
  Acc<E>* projected;  // [frames][kPanel]
  const E* dy;        // [frames][dy_row], a copy as copy_joint makes it
  Index dy_row;

  // Partition k, edges [first, last), columns of panel j.
  template <int kVectors>
  void run(Index k, const Edge<Acc<E>>* first, const Edge<Acc<E>>* last, Index j) const {
    const Index panels = panel_count<E>(op.inputs), column = j * kPanel<E>, x_frame = op.sources * x_row;
    if (op.weight_sums != nullptr) {
      aggregate_panel<E, kVectors>(aggregated, x + column, x_frame, x_row, frames, first, last);
      const E* b = aggregated;
      Product<E, Acc<E>> q{&dy, &b};
      q.taps = 1;
      q.k = frames;
      q.a_row = kDepth<E>;
      q.a_step = kDepth<E> * dy_row;
      q.c = op.weight_sums + (k * panels + j) * op.outputs * kPanel<E>;
      q.c_row = kPanel<E>;
      q.accumulate = true;
      product(q, op.outputs, kVectors * kLanes<E>);
    }
    if (dx == nullptr && op.adjacency_sums == nullptr) return;
    const E* b = op.weights + (k * panels + j) * panel_values<E>(op.outputs);
    Product<E, Acc<E>> q{&rows, &b};
    q.taps = 1;
    q.k = op.outputs;
    q.a_row = rows_step;
    q.c = projected;
    q.c_row = kPanel<E>;
    product(q, frames, kVectors * kLanes<E>);
    const Index dx_frame = op.sources * dx_row;
    for (const Edge<Acc<E>>* e = first; e != last; ++e) {
      const bool sums = op.adjacency_sums != nullptr && e->free, spreads = dx != nullptr && e->value != Acc<E>(0);
      const E* from = x + e->joint * x_row + column;
      Acc<E>* sum = sums ? op.adjacency_sums + (e - op.edge) * kLanes<E> : nullptr;
      E* to = spreads ? dx + e->joint * dx_row + column : nullptr;
      if (sums && spreads) {
        spread_panel<E, kVectors, true, true>(projected, from, x_frame, sum, to, dx_frame, e->value, frames);
      } else if (sums) {
        spread_panel<E, kVectors, true, false>(projected, from, x_frame, sum, to, dx_frame, e->value, frames);
      } else if (spreads) {
        spread_panel<E, kVectors, false, true>(projected, from, x_frame, sum, to, dx_frame, e->value, frames);
      }
    }
  }
};

}  // namespace detail

// Adds to the sums and to dx. Rows of x, dx and, in bfloat16, dy hold whole vectors, zeros beyond their channels; dx
// may be null.
template <typename E>
void graph_grad_rows(const GraphGradient<E>& op, const E* x, Index x_row, const E* dy, Index dy_row, Index frames,
                     E* dx, Index dx_row) {
  using graph_conv::padded;
  const Index V = op.sources, W = op.targets, K = op.partitions, panels = panel_count<E>(op.inputs);
  const Index most = detail::kGradFrames < frames ? detail::kGradFrames : frames;
  // An odd number of vectors a row keeps rows out of each other's cache sets; pairs of bfloat16 lie densely.
  const Index vectors = padded<E>(op.outputs) / kLanes<E>;
  const Index row = kDepth<E> == 1 ? (vectors | 1) * kLanes<E> : op.outputs;
  const Index even = (most + 1) / 2 * 2;
  char* memory = graph_conv::working<char>(Slot::kGraph, most * kPanel<E> * static_cast<Index>(sizeof(Acc<E>)) +
                                                             even * (kPanel<E> + row) * static_cast<Index>(sizeof(E)));
  auto* projected = reinterpret_cast<Acc<E>*>(memory);
  auto* aggregated = reinterpret_cast<E*>(projected + most * kPanel<E>);
  E* copy = aggregated + even * kPanel<E>;
  // Weights and their sums of all partitions stay in the second-level cache, or one partition's do.
  const Index both = K * op.inputs * op.outputs * static_cast<Index>(sizeof(E) + sizeof(Acc<E>));
  const bool by_partition = both > (Index{1} << 19);
  detail::GradTile<E> tile{op, x, x_row, dx, dx_row, nullptr, 0, 0, aggregated, projected, copy, row};
  for (Index t = 0; t < frames; t += tile.frames) {
    tile.frames = frames - t < most ? frames - t : most;
    tile.x = x + t * V * x_row;
    tile.dx = dx == nullptr ? nullptr : dx + t * V * dx_row;
    for (Index i = 0; i < K * W; ++i) {
      const Index k = by_partition ? i / W : i % K, w = by_partition ? i % W : i / K;
      const std::int32_t* begin = op.begin + w * K + k;
      Acc<E>* sums = k == 0 && op.joint_sums != nullptr ? op.joint_sums + w * op.outputs : nullptr;
      if (begin[0] == begin[1] && sums == nullptr) continue;
      const E* rows = dy + (t * W + w) * dy_row;
      if (by_partition || sums != nullptr || op.begin[w * K] == begin[0]) {
        detail::copy_joint<E>(copy, row, rows, W * dy_row, tile.frames, op.outputs, sums);
      }
      if (begin[0] == begin[1]) continue;
      tile.rows = kDepth<E> == 1 ? copy : rows;
      tile.rows_step = kDepth<E> == 1 ? row : W * dy_row;
      const Edge<Acc<E>>*first = op.edge + begin[0], *last = op.edge + begin[1];
      for (Index j = 0; j < panels; ++j) {
        if (padded<E>(op.inputs) - j * kPanel<E> >= kPanel<E>) {
          tile.template run<kPanelVectors>(k, first, last, j);
        } else {
          tile.template run<1>(k, first, last, j);
        }
      }
    }
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
