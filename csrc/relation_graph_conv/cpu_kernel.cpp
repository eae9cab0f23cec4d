#include "graph_conv/lanes.h"
#include "relation_graph_conv.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace relation_graph_conv {
namespace {

using Index = std::int64_t;
using ::stgcn_fast::relation_graph_conv::Kernels;
using ::stgcn_fast::relation_graph_conv::Problem;

template <typename T>
Index packed_bytes(Index partitions, Index outputs, Index depth) {
  return partitions * panel_count<T>(outputs) * panel_values<T>(depth) * static_cast<Index>(sizeof(T));
}

template <typename T>
void pack(const void* weight, Index partitions, Index outputs, Index depth, void* packed) {
  T* to = static_cast<T*>(packed);
  for (Index k = 0; k < partitions; ++k) {
    const T* from = static_cast<const T*>(weight) + k * outputs * depth;
    for (Index j = 0; j < panel_count<T>(outputs); ++j, to += panel_values<T>(depth)) {
      pack_panel<T>(to, from + j * kPanel<T> * depth, Index{1}, depth, depth, panel_columns<T>(outputs, j));
    }
  }
}

template <typename T>
Index panels(Index outputs) {
  return panel_count<T>(outputs);
}

template <typename T>
bool separable(const Problem& p) {
  return p.out.dtype == graph_conv::kComputed<T> && p.out.channel == 1 && p.outputs % kLanes<T> == 0;
}

// spread[i][k][e][lane]: the adjacency of panel j, a vector of channels after the other.
template <typename T>
void make_adjacency(const Problem& p, const T* mix, const T* relations, Index j, Index vectors, T* spread) {
  const Index entries = p.sources * p.targets, size = entries * kLanes<T>;
  for (Index k = 0; k < p.partitions; ++k) {
    const T* rows = relations + k * p.rank * entries;
    const T* panel = mix + (k * panel_count<T>(p.outputs) + j) * panel_values<T>(p.rank);
    for (Index i = 0; i < vectors; ++i) {
      const T* b = panel + i * kLanes<T>;
      Product<T> q{};
      q.a = &rows;
      q.b = &b;
      q.taps = 1;
      q.k = p.rank;
      q.a_row = 1;
      q.a_step = entries;
      q.c = spread + (i * p.partitions + k) * size;
      q.c_row = kLanes<T>;
      product(q, entries, kLanes<T>);
    }
  }
}

template <typename T>
void run(const Problem& p, const void* weights, const void* mix, Index sample, Index begin, Index end) {
  const Index V = p.sources, W = p.targets, K = p.partitions, entries = V * W;
  graph_conv::Problem layer{};  // what projections ask of one
  layer.partitions = K;
  layer.sources = V;
  layer.targets = W;
  layer.frames = p.frames;
  const graph_conv::Rows<T> x =
      graph_conv::rows_of<T>(Slot::kInput, graph_conv::sample_of(p.x, p.x_batch, sample), 0, p.frames * V, p.inputs);
  T* buffer = separable<T>(p) ? nullptr : scratch<T>(Slot::kOutput, p.frames * W * graph_conv::padded<T>(p.outputs));
  graph_conv::Target<T> y(buffer, graph_conv::sample_of(p.out, p.out_batch, sample), 0, p.frames * W, p.outputs);
  const T* relations = static_cast<const T*>(p.relations) + sample * K * p.rank * entries;
  const Index most = graph_conv::strip_frames<T>(layer);
  T* z = scratch<T>(Slot::kAggregate, K * most * V * graph_conv::kStripRow<T>);
  T* spread = scratch<T>(Slot::kExtra, kPanelVectors * K * entries * kLanes<T>);
  for (Index j = begin; j < end; ++j) {
    const Index vectors = graph_conv::padded<T>(panel_columns<T>(p.outputs, j)) / kLanes<T>;
    make_adjacency(p, static_cast<const T*>(mix), relations, j, vectors, spread);
    for (Index t = 0; t < p.frames; t += most) {
      const Index count = graph_conv::minimum(most, p.frames - t), rows = count * V;
      graph_conv::project_panel(layer, weights, graph_conv::Rows<T>{x.data + t * V * x.row, x.row}, rows, p.inputs,
                                p.outputs, j, static_cast<const T*>(p.bias), z);
      for (Index i = 0; i < vectors; ++i) {
        graph_conv::aggregate_lanes(y.data + t * W * y.row + j * kPanel<T> + i * kLanes<T>, y.row, W,
                                    spread + i * K * entries * kLanes<T>, W * kLanes<T>, Index{kLanes<T>},
                                    z + i * kLanes<T>, graph_conv::kStripRow<T>, rows * graph_conv::kStripRow<T>, V, K,
                                    count, false);
      }
    }
  }
  y.close();
}

template <typename T>
constexpr Kernels kernels() {
  return {&packed_bytes<T>, &pack<T>, &panels<T>, &separable<T>, &run<T>};
}

}  // namespace
}  // namespace relation_graph_conv

const ::stgcn_fast::relation_graph_conv::Table& relation_graph_conv_kernels() {
  static constexpr ::stgcn_fast::relation_graph_conv::Table table{relation_graph_conv::kernels<float>(),
                                                                  relation_graph_conv::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
