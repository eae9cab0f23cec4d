// The convolution of rows.h with the multiplication first: for layers that narrow. Include only from cpu_kernel.cpp
// files.
#pragma once

#include "rows.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// What graph_rows computes. A tile of frames of every source that has an edge is multiplied, the edges sum from there.
template <typename E>
void graph_rows_multiplied(const GraphOperand<E>& op, const E* x, Index x_row, Index frames, E* y, Index y_row,
                           bool relu) {
  using T = Acc<E>;
  const Index V = op.sources, W = op.targets, K = op.partitions, O = op.outputs, row = graph_conv::padded<T>(O);
  const Index panels = panel_count<E>(O), values = panel_values<E>(op.inputs), edges = op.begin[W * K];
  const Index block = kTileRows * row, used_bytes = (K * V + 63) / 64 * 64;
  char* memory = graph_conv::working<char>(
      Slot::kGraph, used_bytes + (K * V * block + row) * static_cast<Index>(sizeof(T)) + edges * 8);
  T* z = reinterpret_cast<T*>(memory + used_bytes);  // [k * V + v][frame][row]
  T* bias = z + K * V * block;
  Index* from = reinterpret_cast<Index*>(bias + row);
  std::memset(memory, 0, static_cast<std::size_t>(used_bytes));
  std::memset(static_cast<void*>(z), 0, static_cast<std::size_t>(K * V * block + row) * sizeof(T));
  for (Index i = 0; i < edges; ++i) {
    const Index source = op.edge[i].entry / W;
    memory[source] = 1;
    from[i] = source * block;
  }
  for (Index t = 0; t < frames;) {
    const Index rows = tile_rows(frames - t);
    for (Index i = 0; i < K * V; ++i) {
      if (memory[i] == 0) continue;
      const E* a = x + (t * V + i % V) * x_row;
      for (Index j = 0; j < panels; ++j) {
        const E* b = op.weights + (i / V * panels + j) * values;
        Product<E, T> q{};
        q.a = &a;
        q.b = &b;
        q.taps = 1;
        q.k = op.inputs;
        q.a_row = V * x_row;
        q.c = z + i * block + j * kPanel<E>;
        q.c_row = row;
        product(q, rows, panel_columns<E>(O, j));
      }
    }
    for (Index w = 0; w < W; ++w) {
      const Index first = op.begin[w * K], last = op.begin[(w + 1) * K];
      if (op.bias_map != nullptr) {
        std::memcpy(static_cast<void*>(bias), op.bias_map + w * O, static_cast<std::size_t>(O) * sizeof(T));
      }
      for (Index r = 0; r < rows; ++r) {
        E* to = y + ((t + r) * W + w) * y_row;
        for (Index c = 0; c < row; c += kLanes<T>) {
          Vec<T> sum = load(bias + c);
          for (Index i = first; i < last; ++i) sum += broadcast(op.edge[i].value) * load(z + from[i] + r * row + c);
          store_row(to + c, relu ? rectified<T>(sum) : sum);
        }
      }
    }
    t += rows;
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
