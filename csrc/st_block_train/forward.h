// The forward passes, and what all passes share. Include only from cpu_kernel.cpp.
#pragma once

#include "elementwise.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace st_block_train {

inline Index least(Index a, Index b) { return a < b ? a : b; }
inline Index most(Index a, Index b) { return a > b ? a : b; }
// a / b rounded down, b > 0.
inline Index floor_div(Index a, Index b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Output frames [o0, o1) of sample n and the input frames [i0, i1) that belong to them.
struct Chunk {
  Index n, o0, o1, i0, i1;

  Chunk(const Block& b, Index task) : n(task / b.chunks) {
    o0 = task % b.chunks * b.chunk;
    o1 = least(o0 + b.chunk, b.out_frames);
    i0 = o0 * b.stride;
    i1 = least(o1 * b.stride, b.frames);
  }
  Index outputs() const { return o1 - o0; }
  Index inputs() const { return i1 - i0; }
};

inline Index padding_of(const Block& b) { return (b.kernel_size - 1) / 2; }

// Elements between the rows of windows in scratch: an odd number of vectors keeps rows out of each other's cache sets.
template <typename E>
Index window_row(const Block& b) {
  const Index row = padded<E>(b.outputs);
  return row / kLanes<E> % 2 == 0 ? row + kLanes<E> : row;
}

inline ConstMatrix of_sample(ConstMatrix m, Index batch, Index n) {
  m.data = static_cast<const char*>(m.data) + n * batch * graph_conv::bytes_of(m.dtype);
  return m;
}

inline Matrix of_sample(Matrix m, Index batch, Index n) {
  m.data = static_cast<char*>(m.data) + n * batch * graph_conv::bytes_of(m.dtype);
  return m;
}

// Rows of frames [f0, f1) of an activation.
template <typename E>
Rows<E> frames_of(Slot slot, const Block& b, const ConstMatrix& matrix, Index batch, Index n, Index f0, Index f1,
                  Index channels) {
  return rows_of<E>(slot, of_sample(matrix, batch, n), f0 * b.joints, (f1 - f0) * b.joints, channels);
}

// Row of frame f in y, and in z and r.
template <typename E>
E* input_row(const Block& b, void* data, Index n, Index f) {
  return static_cast<E*>(data) + (n * b.frames + f) * b.joints * b.row;
}

template <typename E>
E* output_row(const Block& b, void* data, Index n, Index f) {
  return static_cast<E*>(data) + (n * b.out_frames + f) * b.joints * b.row;
}

inline double* reported_of(const Block& b, Index task) { return b.reported + task * kReported * b.row; }

template <typename E>
GraphOperand<E> graph_operand(const Block& b) {
  return {b.joints,
          b.joints,
          b.inputs,
          b.outputs,
          b.partitions,
          b.begin,
          static_cast<const Edge<Acc<E>>*>(b.edge),
          static_cast<const E*>(b.graph_weight),
          static_cast<const Acc<E>*>(b.bias_map)};
}

template <typename E>
TemporalOperand<E> temporal_operand(const Block& b) {
  return {b.outputs, b.outputs, b.kernel_size, b.joints, b.stride, 1, b.fast, static_cast<const E*>(b.temporal_weight),
          nullptr};
}

template <typename E>
TemporalOperand<E> residual_operand(const Block& b) {
  return {b.inputs, b.outputs, 1, b.joints, b.stride, 1, false, static_cast<const E*>(b.residual_weight), nullptr};
}

// h of frames [f0, f1) in a window, zeros beyond the clip.
template <typename E>
void open_h_window(const Block& b, Index n, Index f0, Index f1, E* window, Index row) {
  const Index first = most(f0, 0), last = most(first, least(f1, b.frames));
  const auto zero = [&](Index from, Index to) {
    if (to <= from) return;
    std::memset(static_cast<void*>(window + (from - f0) * b.joints * row), 0,
                static_cast<std::size_t>((to - from) * b.joints * row) * sizeof(E));
  };
  zero(f0, least(first, f1));
  rectify_rows(b, input_row<E>(b, b.y, n, first), (last - first) * b.joints, window + (first - f0) * b.joints * row,
               row);
  zero(last, f1);
}

template <typename E>
void graph(const Block& b, Index begin, Index end) {
  const GraphOperand<E> op = graph_operand<E>(b);
  for (Index task = begin; task < end; ++task) {
    const Chunk chunk(b, task);
    const Rows<E> x = frames_of<E>(Slot::kInput, b, b.x, b.x_batch, chunk.n, chunk.i0, chunk.i1, b.inputs);
    E* y = input_row<E>(b, b.y, chunk.n, chunk.i0);
    graph_rows(op, x.data, x.row, chunk.inputs(), y, b.row, false);
    clear_padding(b, y, chunk.inputs() * b.joints);
    report_moments(b, y, chunk.inputs() * b.joints, reported_of(b, task));
    if (!b.convolved) continue;
    E* r = output_row<E>(b, b.r, chunk.n, chunk.o0);
    temporal_rows<E>(residual_operand<E>(b), x.data, x.row, chunk.outputs(), nullptr, 0, false, r, b.row);
    clear_padding(b, r, chunk.outputs() * b.joints);
    report_moments(b, r, chunk.outputs() * b.joints, reported_of(b, task) + 2 * b.row);
  }
}

template <typename E>
void temporal(const Block& b, Index begin, Index end) {
  const TemporalOperand<E> op = temporal_operand<E>(b);
  const Index row = window_row<E>(b), most_frames = temporal_window_frames(op, b.chunk);
  for (Index task = begin; task < end; ++task) {
    const Chunk chunk(b, task);
    E* window = graph_conv::working<E>(Slot::kExtra, most_frames * b.joints * row);
    const Index first = chunk.i0 - padding_of(b);
    open_h_window(b, chunk.n, first, first + temporal_window_frames(op, chunk.outputs()), window, row);
    E* z = output_row<E>(b, b.z, chunk.n, chunk.o0);
    temporal_rows<E>(op, window, row, chunk.outputs(), nullptr, 0, false, z, b.row);
    clear_padding(b, z, chunk.outputs() * b.joints);
    report_moments(b, z, chunk.outputs() * b.joints, reported_of(b, task));
  }
}

template <typename E>
void result(const Block& b, Index begin, Index end) {
  for (Index task = begin; task < end; ++task) {
    const Chunk chunk(b, task);
    const Index rows = chunk.outputs() * b.joints, first = (chunk.n * b.out_frames + chunk.o0) * b.joints;
    Rows<E> x{nullptr, 0};
    if (b.identity) x = frames_of<E>(Slot::kInput, b, b.x, b.x_batch, chunk.n, chunk.o0, chunk.o1, b.inputs);
    E* buffer = graph_conv::working<E>(Slot::kOutput, rows * padded<E>(b.outputs));
    graph_conv::Target<E> out(buffer, of_sample(b.out, b.out_batch, chunk.n), chunk.o0 * b.joints, rows, b.outputs);
    const E* z = output_row<E>(b, b.z, chunk.n, chunk.o0);
    const E* r = b.convolved ? output_row<E>(b, b.r, chunk.n, chunk.o0) : nullptr;
    (b.threshold != 0 ? &result_rows<E, true> : &result_rows<E, false>)(b, first, rows, z, x, r, out.data, out.row);
    out.close();
  }
}

}  // namespace st_block_train
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
