#include <cstring>

#include "common/exponential.h"
#include "graph_conv/aggregate.h"
#include "joint_attention.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace joint_attention {
namespace {

using Index = std::int64_t;
using ::stgcn_fast::joint_attention::Kernels;
using ::stgcn_fast::joint_attention::Problem;

// Panels [2][K][panel over R], then the bias [2][K] in whole vectors.
template <typename T>
Index weight_values(const Problem& p) {
  return 2 * p.partitions * panel_count<T>(p.rank) * panel_values<T>(p.inputs);
}

template <typename T>
Index packed_bytes(const Problem& p) {
  return (weight_values<T>(p) + 2 * p.partitions * graph_conv::padded<T>(p.rank)) * static_cast<Index>(sizeof(T));
}

template <typename T>
void pack(const Problem& p, void* packed) {
  const Index row = graph_conv::padded<T>(p.rank);
  const T* weight = static_cast<const T*>(p.weight);
  T* to = static_cast<T*>(packed);
  for (Index i = 0; i < 2 * p.partitions; ++i, weight += p.rank * p.inputs) {
    for (Index j = 0; j < panel_count<T>(p.rank); ++j, to += panel_values<T>(p.inputs)) {
      pack_panel<T>(to, weight + j * kPanel<T> * p.inputs, Index{1}, p.inputs, p.inputs, panel_columns<T>(p.rank, j));
    }
  }
  const T* bias = static_cast<const T*>(p.bias);
  for (Index i = 0; i < 2 * p.partitions; ++i) {
    for (Index r = 0; r < row; ++r) to[i * row + r] = r < p.rank ? bias[i * p.rank + r] : T(0);
  }
}

// Both embeddings of one partition, [row of x][2][padded R].
template <typename T>
void embed(const Problem& p, const void* packed, Index k, const graph_conv::Rows<T>& x, Index rows, T* z) {
  const Index row = graph_conv::padded<T>(p.rank), panels = panel_count<T>(p.rank);
  const T* weights = static_cast<const T*>(packed);
  const T* bias = weights + weight_values<T>(p);
  for (Index half = 0; half < 2; ++half) {
    const Index i = half * p.partitions + k;
    for (Index j = 0; j < panels; ++j) {
      const T* b = weights + (i * panels + j) * panel_values<T>(p.inputs);
      Product<T> q{};
      q.a = &x.data;
      q.b = &b;
      q.taps = 1;
      q.k = p.inputs;
      q.a_row = x.row;
      q.bias = bias + i * row + j * kPanel<T>;
      q.c = z + half * row + j * kPanel<T>;
      q.c_row = 2 * row;
      product(q, rows, static_cast<int>(graph_conv::padded<T>(panel_columns<T>(p.rank, j))));
    }
  }
}

template <typename T>
inline Vec<T> read(const T* p, Index left) {
  return left >= kLanes<T> ? load(p) : load_part(p, static_cast<int>(left));
}

template <typename T>
inline void write(T* p, Vec<T> v, Index left) {
  if (left >= kLanes<T>) {
    store(p, v);
  } else {
    store_part(p, v, static_cast<int>(left));
  }
}

// The larger of two, NaN if one is.
template <typename T>
inline Vec<T> higher(Vec<T> a, Vec<T> b) {
  return (a > b) | (a != a) ? a : b;
}

// out[v][w] from sums[v][row], in place.
template <typename T>
void finish(const Problem& p, T* sums, Index row, const T* fixed, T* out) {
  const Index V = p.joints;
  const T share = T(1) / static_cast<T>(p.rank * p.frames);
  for (Index w = 0; w < V; w += kLanes<T>) {
    if (p.alpha != nullptr) {
      const T alpha = *static_cast<const T*>(p.alpha);
      for (Index v = 0; v < V; ++v) {
        const Vec<T> made = hyperbolic_tangent<T>(load(sums + v * row + w) * share) * alpha;
        write<T>(out + v * V + w, made + read(fixed + v * V + w, V - w), V - w);
      }
      continue;
    }
    Vec<T> most = load(sums + w) * share, total{};
    for (Index v = 1; v < V; ++v) most = higher<T>(load(sums + v * row + w) * share, most);
    for (Index v = 0; v < V; ++v) {
      const Vec<T> made = exponential<T>(load(sums + v * row + w) * share - most);
      total += made;
      store(sums + v * row + w, made);
    }
    const Vec<T> factor = T(1) / total;
    for (Index v = 0; v < V; ++v) {
      const Vec<T> made = load(sums + v * row + w) * factor;
      write<T>(out + v * V + w, made + read(fixed + v * V + w, V - w), V - w);
    }
  }
}

template <typename T>
void run(const Problem& p, const void* packed, Index sample, Index k) {
  const Index V = p.joints, R = p.rank, row = graph_conv::padded<T>(R), z_row = 2 * row;
  const Index panels = panel_count<T>(V), sums_row = panels * kPanel<T>;
  constexpr Index kValues = 48 * 1024;
  const Index fit = kValues / (V * z_row), most = fit < 1 ? 1 : fit < p.frames ? fit : p.frames;
  T* sums = scratch<T>(Slot::kAggregate, V * sums_row);
  std::memset(static_cast<void*>(sums), 0, static_cast<std::size_t>(V * sums_row) * sizeof(T));
  T* z = scratch<T>(Slot::kProjected, most * V * z_row);
  T* turned = scratch<T>(Slot::kPanel, most * R * kPanel<T>);
  std::memset(static_cast<void*>(turned), 0, static_cast<std::size_t>(most * R * kPanel<T>) * sizeof(T));
  const T** a = scratch<const T*>(Slot::kPointers, 2 * most);
  const T** b = a + most;
  ConstMatrix from = p.x;
  from.data = static_cast<const char*>(from.data) + sample * p.x_batch * graph_conv::bytes_of(from.dtype);
  for (Index first = 0; first < p.frames; first += most) {
    const Index frames = p.frames - first < most ? p.frames - first : most;
    const graph_conv::Rows<T> x = graph_conv::rows_of<T>(Slot::kInput, from, first * V, frames * V, p.inputs);
    embed(p, packed, k, x, frames * V, z);
    for (Index j = 0; j < panels; ++j) {
      const int columns = panel_columns<T>(V, j);
      for (Index t = 0; t < frames; ++t) {
        a[t] = z + t * V * z_row;
        b[t] = turned + t * R * kPanel<T>;
        const T* second = a[t] + j * kPanel<T> * z_row + row;
        gather(turned + t * R * kPanel<T>, kPanel<T>, ConstMatrix{second, graph_conv::kComputed<T>, 1, z_row}, R,
               columns);
      }
      Product<T> q{};
      q.a = a;
      q.b = b;
      q.taps = frames;
      q.k = R;
      q.a_row = z_row;
      q.c = sums + j * kPanel<T>;
      q.c_row = sums_row;
      q.accumulate = true;
      product(q, V, static_cast<int>(graph_conv::padded<T>(columns)));
    }
  }
  finish(p, sums, sums_row, static_cast<const T*>(p.fixed) + k * V * V,
         static_cast<T*>(p.out) + (sample * p.partitions + k) * V * V);
}

template <typename T>
constexpr Kernels kernels() {
  return {&packed_bytes<T>, &pack<T>, &run<T>};
}

}  // namespace
}  // namespace joint_attention

const ::stgcn_fast::joint_attention::Table& joint_attention_kernels() {
  static constexpr ::stgcn_fast::joint_attention::Table table{joint_attention::kernels<float>(),
                                                              joint_attention::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
