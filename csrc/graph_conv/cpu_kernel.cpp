#include "forward.h"
#include "grad_adjacency.h"
#include "grad_weight.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

template <typename T>
constexpr Kernels kernels() {
  return {{&forward_size<T>, &forward_prepare<T>, &forward<T>, nullptr},
          {&weight_size<T>, &weight_prepare<T>, &grad_weight<T>, &weight_finish<T>},
          {&adjacency_size<T>, &adjacency_prepare<T>, &grad_adjacency<T>, &adjacency_finish<T>}};
}

}  // namespace graph_conv

const ::stgcn_fast::graph_conv::Table& graph_conv_kernels() {
  static constexpr ::stgcn_fast::graph_conv::Table table{graph_conv::kernels<float>(), graph_conv::kernels<double>()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
