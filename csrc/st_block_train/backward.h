// The backward passes. Include only from cpu_kernel.cpp.
#pragma once

#include "forward.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block_train {

// Input frames t = phase (mod stride) get from output frame `start` + j + m, for the j-th of them, tap
// `last_tap` - stride * m: a convolution of stride 1 with `taps` taps.
struct Phase {
  Index taps, last_tap, start;

  Phase(const Block& b, Index phase) {
    const Index at = phase + padding_of(b), first_tap = at % b.stride;
    taps = first_tap < b.kernel_size ? (b.kernel_size - 1 - first_tap) / b.stride + 1 : 0;
    last_tap = first_tap + (taps - 1) * b.stride;
    start = (at - first_tap) / b.stride - (taps - 1);
  }
};

template <typename E>
TemporalOperand<E> phase_operand(const Block& b, const Phase& phase, const E* weights) {
  return {b.outputs, b.outputs, phase.taps, b.joints, 1, 1, b.fast, weights, nullptr};
}

template <typename E>
TemporalGradient<E> temporal_gradient_of(const Block& b) {
  return {b.outputs, b.outputs, b.kernel_size, b.joints, b.stride, 1, b.fast};
}

template <typename E>
TemporalGradient<E> residual_gradient_of(const Block& b) {
  return {b.inputs, b.outputs, 1, b.joints, b.stride, 1, false};
}

// Sums of `part` for the graph's gradients: weights, edges, joints.
template <typename E>
GraphGradient<E> graph_gradient_of(const Block& b, Index part) {
  GraphGradient<E> op{b.joints,
                      b.joints,
                      b.inputs,
                      b.outputs,
                      b.partitions,
                      b.begin,
                      static_cast<const Edge<Acc<E>>*>(b.edge),
                      static_cast<const E*>(b.graph_weight),
                      nullptr,
                      nullptr,
                      nullptr};
  const Index weights = graph_weight_sums(op), edges = graph_adjacency_sums(op);
  if (b.graph_sums == nullptr) return op;
  op.weight_sums = static_cast<Acc<E>*>(b.graph_sums) + part * (weights + edges + b.joints * b.outputs);
  if (b.want_edges) op.adjacency_sums = op.weight_sums + weights;
  if (b.want_joints) op.joint_sums = op.weight_sums + weights + edges;
  return op;
}

template <typename E>
Index graph_sums(const Block& b) {
  const GraphGradient<E> op = graph_gradient_of<E>(b, 0);
  return graph_weight_sums(op) + graph_adjacency_sums(op) + b.joints * b.outputs;
}

template <typename E>
Index temporal_sums(const Block& b) {
  return temporal_grad_weight_values(temporal_gradient_of<E>(b));
}

template <typename E>
Index residual_sums(const Block& b) {
  return temporal_grad_weight_values(residual_gradient_of<E>(b));
}

template <typename T>
T* cleared(T* values, Index count) {
  std::memset(static_cast<void*>(values), 0, static_cast<std::size_t>(count) * sizeof(T));
  return values;
}

template <typename E>
void backward_sums(const Block& b, Index begin, Index end) {
  const auto run = b.threshold != 0 ? (b.convolved ? &sum_gradients<E, true, true> : &sum_gradients<E, true, false>)
                                    : (b.convolved ? &sum_gradients<E, false, true> : &sum_gradients<E, false, false>);
  for (Index task = begin; task < end; ++task) {
    const Chunk chunk(b, task);
    const Index rows = chunk.outputs() * b.joints, first = (chunk.n * b.out_frames + chunk.o0) * b.joints;
    const Rows<E> grad = frames_of<E>(Slot::kInput, b, b.grad, b.grad_batch, chunk.n, chunk.o0, chunk.o1, b.outputs);
    const Rows<E> out =
        frames_of<E>(Slot::kOutput, b, b.result, b.result_batch, chunk.n, chunk.o0, chunk.o1, b.outputs);
    Acc<E>* sums = cleared(graph_conv::working<Acc<E>>(Slot::kPanel, kReported * b.row), kReported * b.row);
    const E* r = b.convolved ? output_row<E>(b, b.r, chunk.n, chunk.o0) : nullptr;
    run(b, first, rows, grad, out, output_row<E>(b, b.z, chunk.n, chunk.o0), r, sums);
    report(reported_of(b, task), sums, kReported * b.row);
  }
}

// dz of output frames [f0, f1) in a window, zeros beyond the clip.
template <typename E>
void open_dz_window(const Block& b, Index n, Index f0, Index f1, E* window, Index row) {
  const Index first = most(f0, 0), last = most(first, least(f1, b.out_frames));
  const auto zero = [&](Index from, Index to) {
    if (to > from) cleared(window + (from - f0) * b.joints * row, (to - from) * b.joints * row);
  };
  zero(f0, least(first, f1));
  if (last > first) {
    const Rows<E> grad = frames_of<E>(Slot::kInput, b, b.grad, b.grad_batch, n, first, last, b.outputs);
    const Rows<E> out = frames_of<E>(Slot::kOutput, b, b.result, b.result_batch, n, first, last, b.outputs);
    (b.threshold != 0 ? &gradient_rows<E, true>
                      : &gradient_rows<E, false>)(b, (n * b.out_frames + first) * b.joints, (last - first) * b.joints,
                                                  grad, out, output_row<E>(b, b.z, n, first),
                                                  window + (first - f0) * b.joints * row, row);
  }
  zero(last, f1);
}

template <typename E>
void backward_temporal(const Block& b, Index begin, Index end) {
  using T = Acc<E>;
  const Index V = b.joints, row = window_row<E>(b), pad = padding_of(b), tasks = b.batch * b.chunks;
  const TemporalGradient<E> gradient = temporal_gradient_of<E>(b);
  const Index values = temporal_grad_weight_values(gradient);
  // Frames that a chunk's windows hold at most.
  const Index h_frames = b.chunk * b.stride + 2 * pad + b.stride, dz_frames = b.chunk + 2 * (pad / b.stride) + 3;
  for (Index part = begin; part < end; ++part) {
    T* sums = cleared(static_cast<T*>(b.temporal_sums) + part * values, values);
    for (Index task = part * tasks / b.parts; task < (part + 1) * tasks / b.parts; ++task) {
      const Chunk chunk(b, task);
      E* h = graph_conv::working<E>(Slot::kExtra, (h_frames + dz_frames) * V * row);
      E* dz = h + h_frames * V * row;
      const Index h0 = chunk.i0 - pad, h1 = most((chunk.o1 - 1) * b.stride + pad + 1, chunk.i1);
      const Index z0 = floor_div(chunk.i0 - pad + b.stride - 1, b.stride), z1 = (chunk.i1 - 1 + pad) / b.stride + 1;
      open_h_window(b, chunk.n, h0, h1, h, row);
      open_dz_window(b, chunk.n, z0, z1, dz, row);
      temporal_grad_weight_rows<E>(gradient, h, row, dz + (chunk.o0 - z0) * V * row, row, chunk.outputs(), sums);

      T* reported = cleared(graph_conv::working<T>(Slot::kPanel, 2 * b.row), 2 * b.row);
      const E* weights = static_cast<const E*>(b.temporal_weight);
      E* to = static_cast<E*>(b.by_h) + (chunk.n * b.frames + chunk.i0) * V * b.by_h_row;
      for (Index p = 0; p < b.stride && p < chunk.inputs(); ++p) {
        const Phase phase(b, p);
        const Index frames = (chunk.inputs() - p + b.stride - 1) / b.stride;
        E* by_h = to;
        if (b.stride != 1) by_h = graph_conv::working<E>(Slot::kAggregate, frames * V * b.by_h_row);
        if (phase.taps > 0) {
          const TemporalOperand<E> op = phase_operand(b, phase, weights);
          temporal_rows<E>(op, dz + (chunk.o0 + phase.start - z0) * V * row, row, frames, nullptr, 0, false, by_h,
                           b.by_h_row);
          weights += temporal_packed_values(op);
        } else {
          cleared(by_h, frames * V * b.by_h_row);
        }
        if (padded<E>(b.outputs) != b.outputs) {
          for (Index r = 0; r < frames * V; ++r) {
            cleared(by_h + r * b.by_h_row + b.outputs, padded<E>(b.outputs) - b.outputs);
          }
        }
        const E* y = input_row<E>(b, b.y, chunk.n, chunk.i0);
        if (b.stride == 1) {
          mask_rows(b, by_h, b.by_h_row, h + pad * V * row, row, y, frames * V, to, b.by_h_row, reported);
          continue;
        }
        for (Index j = 0; j < frames; ++j) {
          const Index at = (j * b.stride + p) * V;
          mask_rows(b, by_h + j * V * b.by_h_row, b.by_h_row, h + (pad * V + at) * row, row, y + at * b.row, V,
                    to + at * b.by_h_row, b.by_h_row, reported);
        }
      }
      report(reported_of(b, task), reported, 2 * b.row);
    }
  }
}

// The residual convolution's part: its weights' sums, and dx at the frames that it reads.
template <typename E>
void residual_gradients(const Block& b, const Chunk& chunk, const Rows<E>& x, E* dx, Index dx_row, Acc<E>* sums) {
  const Index V = b.joints, rows = chunk.outputs() * V, row = padded<E>(b.outputs), inputs = padded<E>(b.inputs);
  E* dr = graph_conv::working<E>(Slot::kExtra, rows * (row + inputs));
  const Rows<E> grad = frames_of<E>(Slot::kOutput, b, b.grad, b.grad_batch, chunk.n, chunk.o0, chunk.o1, b.outputs);
  const Rows<E> out =
      frames_of<E>(Slot::kAggregate, b, b.result, b.result_batch, chunk.n, chunk.o0, chunk.o1, b.outputs);
  normalised_gradient<E>(b, kResidual, grad.data, grad.row, out.data, out.row, output_row<E>(b, b.r, chunk.n, chunk.o0),
                         rows, dr, row);
  temporal_grad_weight_rows<E>(residual_gradient_of<E>(b), x.data, x.row, dr, row, chunk.outputs(), sums);
  if (dx == nullptr) return;
  const TemporalOperand<E> op{b.outputs, b.inputs, 1, V, 1, 1, false, static_cast<const E*>(b.residual_weight),
                              nullptr};
  E* by_x = dr + rows * row;
  temporal_rows<E>(op, dr, row, chunk.outputs(), nullptr, 0, false, by_x, inputs);
  for (Index j = 0; j < chunk.outputs(); ++j) {
    E* to = dx + j * b.stride * V * dx_row;
    for (Index v = 0; v < V; ++v) {
      std::memcpy(static_cast<void*>(to + v * dx_row), by_x + (j * V + v) * inputs,
                  static_cast<std::size_t>(b.inputs) * sizeof(E));
    }
  }
}

template <typename E>
void backward_graph(const Block& b, Index begin, Index end) {
  using T = Acc<E>;
  const Index V = b.joints, row = window_row<E>(b), tasks = b.batch * b.chunks, values = graph_sums<E>(b);
  for (Index part = begin; part < end; ++part) {
    const GraphGradient<E> gradient = graph_gradient_of<E>(b, part);
    cleared(static_cast<T*>(b.graph_sums) + part * values, values);
    T* residual = nullptr;
    if (b.convolved) {
      residual = cleared(static_cast<T*>(b.residual_sums) + part * residual_sums<E>(b), residual_sums<E>(b));
    }
    for (Index task = part * tasks / b.parts; task < (part + 1) * tasks / b.parts; ++task) {
      const Chunk chunk(b, task);
      const Index rows = chunk.inputs() * V;
      const E* by_h = static_cast<const E*>(b.by_h) + (chunk.n * b.frames + chunk.i0) * V * b.by_h_row;
      const bool wanted = b.by_x.data != nullptr;
      // dy first: by_h may be where dx goes.
      E* dy = graph_conv::working<E>(Slot::kPanel, rows * (row + padded<E>(b.inputs)));
      normalised_gradient<E>(b, kGraph, by_h, b.by_h_row, nullptr, 0, input_row<E>(b, b.y, chunk.n, chunk.i0), rows, dy,
                             row);
      graph_conv::Target<E> dx(dy + rows * row, of_sample(b.by_x, b.by_x_batch, wanted ? chunk.n : 0),
                               wanted ? chunk.i0 * V : 0, rows, b.inputs);
      E* to = wanted ? dx.data : nullptr;
      if (wanted && b.identity) {
        const Rows<E> grad =
            frames_of<E>(Slot::kInput, b, b.grad, b.grad_batch, chunk.n, chunk.i0, chunk.i1, b.outputs);
        const Rows<E> out =
            frames_of<E>(Slot::kOutput, b, b.result, b.result_batch, chunk.n, chunk.i0, chunk.i1, b.outputs);
        gated_rows(grad, out, rows, padded<E>(b.outputs), to, dx.row);
      } else if (wanted) {
        dx.zero();
      }
      const Rows<E> x = frames_of<E>(Slot::kInput, b, b.x, b.x_batch, chunk.n, chunk.i0, chunk.i1, b.inputs);
      if (b.convolved) residual_gradients(b, chunk, x, to, dx.row, residual);
      graph_grad_rows(gradient, x.data, x.row, dy, row, chunk.inputs(), to, dx.row);
      if (wanted) dx.close();
    }
  }
}

}  // namespace st_block_train
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
