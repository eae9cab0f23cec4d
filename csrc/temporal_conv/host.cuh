// How a temporal convolution is cut into tiles, and its launch.
#pragma once

#include "../common/cuda/host.cuh"
#include "forward.cuh"
#include "grad_weight.cuh"

namespace stgcn_fast {
namespace cuda {

// Statistics and sums of an epilogue have one entry for each of phases * samples * tiles, of tile_rows rows but for a
// sample's last; a phase may leave a sample's last entry as it is, for want of rows.
struct TemporalPlan {
  bool tall, gather;
  bool whole;  // the window serves all taps
  int tile_rows, window_taps, window_rows;
  Index tiles, phases;  // tiles of a sample and phase
};

inline Index phases_of(const TemporalGeometry& g) {
  return g.backward ? (g.stride < g.target_frames ? g.stride : g.target_frames) : 1;
}

// The window serves all taps if it fits, else as many as do; `most` bytes a block.
template <typename S, typename E>
TemporalPlan cut_temporal(const TemporalGeometry& g, int most) {
  TemporalPlan plan{
      S::kRows > 128, false, false, S::kRows, 1, S::kRows, ceil_div(g.target_frames_of(0) * g.joints, S::kRows),
      phases_of(g)};
  // Phases differ by a tap; among the first of them is one of the longest.
  Phase longest = g.phase_of(0);
  for (Index i = 1; i < plan.phases && i <= g.kernel_size * g.dilation; ++i) {
    const Phase phase = g.phase_of(i);
    if (phase.count > longest.count) longest = phase;
  }
  constexpr Index kMostRows = 4096;
  for (int taps = longest.count < 1 ? 1 : longest.count; taps >= 1; --taps) {
    const Index rows = temporal_window_rows<S>(g, longest, taps);
    if (rows <= kMostRows && temporal_forward_bytes<S, E>(static_cast<int>(rows)) <= most) {
      plan.window_taps = taps;
      plan.window_rows = static_cast<int>(rows);
      plan.whole = taps >= longest.count;
      return plan;
    }
  }
  plan.gather = true;
  return plan;
}

template <typename E, bool kTensor>
TemporalPlan plan_temporal(const Call& call, const TemporalGeometry& g, Index targets) {
  using S = Shape<E, kTensor>;
  // Two blocks on a multiprocessor, so that one loads while the other multiplies.
  const int half = call.device().half_shared_bytes();
  if constexpr (sizeof(E) < 8) {
    const TemporalPlan tall = cut_temporal<Shape<E, kTensor, true>, E>(g, half);
    const Index blocks = g.samples * tall.tiles * tall.phases * ceil_div(targets, S::kColumns);
    if (tall.whole && blocks >= kManyBlocks) return tall;
  }
  const TemporalPlan plan = cut_temporal<S, E>(g, half);
  return plan.whole ? plan : cut_temporal<S, E>(g, call.device().shared_bytes);
}

// p needs x, geometry and norm.
template <typename E, bool kTensor>
void launch_temporal(const Call& call, const TemporalPlan& plan, TemporalForward<E> p,
                     const PackedWeights<E, kTensor>& weights, const Epilogue<E>& e) {
  using S = Shape<E, kTensor>;
  p.tiles = plan.tiles;
  p.weights = weights.memory.get();
  p.padded_targets = weights.targets;
  p.padded_sources = weights.sources;
  p.window_taps = plan.window_taps;
  p.window_rows = plan.window_rows;
  p.gather = plan.gather;
  constexpr Index kMostRows = 65535;  // of a grid
  const Index blocks = p.geometry.samples * p.tiles * (weights.targets / S::kColumns);
  for (p.first_phase = 0; p.first_phase < plan.phases; p.first_phase += kMostRows) {
    const Index left = plan.phases - p.first_phase, rows = left < kMostRows ? left : kMostRows;
    if constexpr (sizeof(E) < 8) {
      using Tall = Shape<E, kTensor, true>;
      if (plan.tall) {
        call.run_grid(temporal_forward<E, kTensor, true>, blocks, rows, Tall::kThreads,
                      temporal_forward_bytes<Tall, E>(p.window_rows), p, e);
        continue;
      }
    }
    call.run_grid(temporal_forward<E, kTensor, false>, blocks, rows, S::kThreads,
                  temporal_forward_bytes<S, E>(p.window_rows), p, e);
  }
}

// out [O, C, Γ, 1] = gradient by the weight; p needs x, grad, geometry and norm.
template <typename E, bool kTensor>
void launch_grad_weight(const Call& call, TemporalGradWeight<E> p, const Tensor& out) {
  using S = OuterShape<E, kTensor>;
  const TemporalGeometry& g = p.geometry;
  const Index taps = g.kernel_size, outputs = p.grad.channels, inputs = p.x.channels;
  p.tiles = ceil_div(g.target_frames * g.joints, S::kRows);
  const int squares = outer_squares<S>(static_cast<int>(ceil_div(taps, S::kCount)), p.grad.channels, p.x.channels);
  p.slots = slots_for(g.samples * p.tiles, squares, out.numel());
  const Workspace<Acc<E>> partial(out, p.slots * out.numel());
  p.partial = partial.get();
  call.run(temporal_grad_weight<E, kTensor>, static_cast<Index>(squares) * p.slots, S::kThreads,
           temporal_grad_weight_bytes<E, kTensor>(), p);
  call.run_small(add_slots<E>, out.numel(), static_cast<E*>(out.mutable_data_ptr()),
                 static_cast<const Acc<E>*>(partial.get()), p.slots, taps, outputs, inputs, Index(1), inputs * taps,
                 taps);
}

// The kernels are compiled once, with temporal_conv/cuda.cu.
#define STGCN_FAST_TEMPORAL(E, kTensor)                                                                   \
  extern template void launch_temporal<E, kTensor>(const Call&, const TemporalPlan&, TemporalForward<E>,  \
                                                   const PackedWeights<E, kTensor>&, const Epilogue<E>&); \
  extern template void launch_grad_weight<E, kTensor>(const Call&, TemporalGradWeight<E>, const Tensor&);
STGCN_FAST_ELEMENTS(STGCN_FAST_TEMPORAL)
#undef STGCN_FAST_TEMPORAL

}  // namespace cuda
}  // namespace stgcn_fast
