#include "backward.h"
#include "forward.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace graph_conv {

template <typename E>
constexpr Kernels kernels() {
  using T = Acc<E>;
  return {{&forward_size<E>, &forward_pack<E>, &forward_prepare<T>, &forward<E>, nullptr},
          {&weight_size<E>, &weight_pack<E>, &weight_prepare<T>, &grad_weight<E>, &weight_finish<E>},
          {&adjacency_size<E>, &adjacency_pack<E>, &adjacency_prepare<T>, &grad_adjacency<E>, &adjacency_finish<T>},
          {&backward_size<E>, &backward_pack<E>, &backward_prepare<T>, &backward<E>, &backward_finish<E>},
          {&joints_size<T>, nullptr, nullptr, &joints<T>, &joints_finish<T>},
          &grad_bias<T>};
}

constexpr Kernels bfloat16_kernels() {
  if constexpr (kComputesBFloat16) {
    return kernels<BFloat16>();
  } else {
    return {};
  }
}

}  // namespace graph_conv

const ::stgcn_fast::graph_conv::Table& graph_conv_kernels() {
  static constexpr ::stgcn_fast::graph_conv::Table table{graph_conv::kernels<float>(), graph_conv::kernels<double>(),
                                                         graph_conv::bfloat16_kernels()};
  return table;
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
