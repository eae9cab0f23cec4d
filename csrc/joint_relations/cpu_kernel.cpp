#include <cstring>

#include "common/exponential.h"
#include "graph_conv/aggregate.h"
#include "joint_relations.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace joint_relations {
namespace {

using Index = std::int64_t;
using ::stgcn_fast::joint_relations::Kernels;
using ::stgcn_fast::joint_relations::Problem;

// Frames that are read, and perhaps copied, at a time.
constexpr Index kFrames = 32;

Index embedded(const Problem& p) { return 2 * p.partitions * p.rank; }

// Panels of the weights, and the bias in whole vectors.
template <typename T>
Index weight_values(const Problem& p) {
  return panel_count<T>(embedded(p)) * panel_values<T>(p.inputs);
}

template <typename T>
Index packed_bytes(const Problem& p) {
  return (weight_values<T>(p) + graph_conv::padded<T>(embedded(p))) * static_cast<Index>(sizeof(T));
}

template <typename T>
void pack(const Problem& p, void* packed) {
  const Index outputs = embedded(p);
  const T* weight = static_cast<const T*>(p.weight);
  T* to = static_cast<T*>(packed);
  for (Index j = 0; j < panel_count<T>(outputs); ++j, to += panel_values<T>(p.inputs)) {
    pack_panel<T>(to, weight + j * kPanel<T> * p.inputs, Index{1}, p.inputs, p.inputs, panel_columns<T>(outputs, j));
  }
  for (Index o = 0; o < graph_conv::padded<T>(outputs); ++o) {
    to[o] = o < outputs ? static_cast<const T*>(p.bias)[o] : T(0);
  }
}

// mean[v][row]: whole vectors of channels.
template <typename T>
void mean_frame(const Problem& p, Index sample, T* mean, Index row) {
  const Index V = p.joints;
  std::memset(static_cast<void*>(mean), 0, static_cast<std::size_t>(V * row) * sizeof(T));
  ConstMatrix from = p.x;
  from.data = static_cast<const char*>(from.data) + sample * p.x_batch * graph_conv::bytes_of(from.dtype);
  for (Index first = 0; first < p.frames; first += kFrames) {
    const Index frames = p.frames - first < kFrames ? p.frames - first : kFrames;
    const graph_conv::Rows<T> x = graph_conv::rows_of<T>(Slot::kInput, from, first * V, frames * V, p.inputs);
    for (Index v = 0; v < V; ++v) {
      for (Index c = 0; c < row; c += kLanes<T>) {
        Vec<T> sum = load(mean + v * row + c);
        for (Index t = 0; t < frames; ++t) sum += load(x.data + (t * V + v) * x.row + c);
        store(mean + v * row + c, sum);
      }
    }
  }
  const T share = T(1) / static_cast<T>(p.frames);
  for (Index i = 0; i < V * row; i += kLanes<T>) store(mean + i, load(mean + i) * share);
}

template <typename T>
void run(const Problem& p, const void* packed, Index sample) {
  const Index V = p.joints, entries = V * V, outputs = embedded(p), row = graph_conv::padded<T>(outputs);
  const Index mean_row = graph_conv::padded<T>(p.inputs);
  const T* weights = static_cast<const T*>(packed);
  const T* bias = weights + weight_values<T>(p);
  T* mean = scratch<T>(Slot::kAggregate, V * mean_row);
  mean_frame(p, sample, mean, mean_row);
  T* e = scratch<T>(Slot::kProjected, V * row);
  const T* a = mean;
  for (Index j = 0; j < panel_count<T>(outputs); ++j) {
    const T* b = weights + j * panel_values<T>(p.inputs);
    Product<T> q{};
    q.a = &a;
    q.b = &b;
    q.taps = 1;
    q.k = p.inputs;
    q.a_row = mean_row;
    q.bias = bias + j * kPanel<T>;
    q.c = e + j * kPanel<T>;
    q.c_row = row;
    product(q, V, static_cast<int>(graph_conv::padded<T>(panel_columns<T>(outputs, j))));
  }
  T* line = scratch<T>(Slot::kExtra, graph_conv::padded<T>(V));
  for (Index v = V; v < graph_conv::padded<T>(V); ++v) line[v] = T(0);
  T* out = static_cast<T*>(p.out) + sample * p.partitions * (p.rank + p.fixed_rank) * entries;
  const T* fixed = static_cast<const T*>(p.fixed);
  // tanh is odd: the sign of the line's part of the difference decides which joint comes first.
  const T sign = p.turned ? T(1) : T(-1);
  for (Index k = 0; k < p.partitions; ++k) {
    for (Index r = 0; r < p.rank; ++r) {
      const Index first = k * p.rank + r, second = p.partitions * p.rank + first;
      const Index inner = p.turned ? first : second, outer = p.turned ? second : first;
      for (Index w = 0; w < V; ++w) line[w] = e[w * row + inner] * sign;
      for (Index v = 0; v < V; ++v, out += V) {
        const Vec<T> own = broadcast(e[v * row + outer] * sign);
        for (Index w = 0; w < V; w += kLanes<T>) {
          const Vec<T> made = hyperbolic_tangent<T>(load(line + w) - own);
          if (V - w >= kLanes<T>) {
            store(out + w, made);
          } else {
            store_part(out + w, made, static_cast<int>(V - w));
          }
        }
      }
    }
    const Index rest = p.fixed_rank * entries;
    std::memcpy(static_cast<void*>(out), fixed + k * rest, static_cast<std::size_t>(rest) * sizeof(T));
    out += rest;
  }
}

template <typename T>
constexpr Kernels kernels() {
  return {&packed_bytes<T>, &pack<T>, &run<T>};
}

}  // namespace
}  // namespace joint_relations

const ::stgcn_fast::joint_relations::Table& joint_relations_kernels() {
  static constexpr ::stgcn_fast::joint_relations::Table table{joint_relations::kernels<float>(),
                                                              joint_relations::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
