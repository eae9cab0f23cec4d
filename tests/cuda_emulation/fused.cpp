// The convolutions with all that can be fused to them: normalised and rectified on load, biased, scaled, measured,
// added to a residual and rectified on store. Ops of the emulation alone, for tests.
#if !defined(STGCN_FAST_FEW_TYPES)
#define STGCN_FAST_FEW_TYPES  // float32 and bfloat16 are enough for what loads and stores do
#endif
#include "graph_conv/host.cuh"
#include "temporal_conv/host.cuh"

namespace stgcn_fast {
namespace cuda {
namespace {

using Fused = std::tuple<Tensor, Tensor>;

// What is fused, in the order of the schema in test_fused.py; each pair of scale and shift is [channels].
struct Extras {
  const std::optional<Tensor>&in_scale, &in_shift;
  bool in_relu;
  const std::optional<Tensor>&scale, &shift, &residual, &residual_scale, &residual_shift;
  bool relu;
};

template <typename E>
struct Held {
  Values<E> in_scale, in_shift, scale, shift, residual_scale, residual_shift;
  std::optional<Operand> residual;

  Held(const Call& call, const Extras& x)
      : in_scale(x.in_scale),
        in_shift(x.in_shift),
        scale(x.scale),
        shift(x.shift),
        residual_scale(x.residual_scale),
        residual_shift(x.residual_shift) {
    if (x.residual) residual.emplace(read_operand(call, "residual", *x.residual));
  }

  Normalise<E> norm(const Extras& x) const { return {in_scale.data, in_shift.data, x.in_relu}; }
  Epilogue<E> epilogue(const Extras& x, const Tensor& out, const Tensor& statistics) const {
    Epilogue<E> e{};
    e.out = static_cast<E*>(out.mutable_data_ptr());
    e.channels = static_cast<int>(out.size(1));
    e.whole = is_whole<E>(e.out, e.channels);
    e.scale = scale.data;
    e.shift = shift.data;
    if (residual) e.residual = static_cast<const E*>(residual->tensor.const_data_ptr());
    e.residual_scale = residual_scale.data;
    e.residual_shift = residual_shift.data;
    e.relu = x.relu;
    e.statistics = static_cast<Acc<E>*>(statistics.mutable_data_ptr());
    return e;
  }
};

// [tiles, 2, channels]: mean, and sum of squared distances from it.
template <typename E>
Tensor new_statistics(const Tensor& like, Index tiles, Index channels) {
  const std::array<Index, 3> sizes{tiles, 2, channels};
  const ScalarType type = sizeof(Acc<E>) == 8 ? ScalarType::Double : ScalarType::Float;
  return torch::stable::empty({sizes.data(), sizes.size()}, type, std::nullopt, like.device());
}

// -> y, statistics [samples, tiles of tile_rows rows, 2, O]
Fused fused_temporal(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& in_scale,
                     const std::optional<Tensor>& in_shift, bool in_relu, const std::optional<Tensor>& scale,
                     const std::optional<Tensor>& shift, const std::optional<Tensor>& residual,
                     const std::optional<Tensor>& residual_scale, const std::optional<Tensor>& residual_shift,
                     bool relu) {
  const Call call("fused_temporal", x);
  const Extras extras{in_scale, in_shift, in_relu, scale, shift, residual, residual_scale, residual_shift, relu};
  const Operand in = read_operand(call, "x", x);
  const Index outputs = weight.size(0);
  const Tensor out = new_output(in.tensor, in.samples, outputs, in.frames, in.joints);
  std::optional<Tensor> statistics;
  with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
    using E = decltype(element);
    constexpr bool kTensor = decltype(tensor)::value;
    const int kernel_size = static_cast<int>(weight.size(2));
    const WeightView view{weight.const_data_ptr(), kernel_size,      static_cast<int>(outputs), in.channels,
                          weight.stride(2),        weight.stride(0), weight.stride(1)};
    const PackedWeights<E, kTensor> weights(call, x, view);
    TemporalForward<E> p{};
    p.x = in.rows<E>();
    p.geometry = {in.samples, in.frames, in.frames, in.joints, kernel_size, 1, kernel_size / 2, 1, false};
    const Held<E> held(call, extras);
    p.norm = held.norm(extras);
    const TemporalPlan plan = plan_temporal<E, kTensor>(call, p.geometry, outputs);
    statistics.emplace(new_statistics<E>(x, in.samples * plan.tiles, outputs));
    launch_temporal<E, kTensor>(call, plan, p, weights, held.epilogue(extras, out, *statistics));
  });
  return {out, *statistics};
}

// -> y, statistics [tiles of some frames, 2, O]; the adjacency is [1, K, 1, V, V]
Fused fused_graph(const Tensor& x, const Tensor& weight, const Tensor& adjacency, const std::optional<Tensor>& in_scale,
                  const std::optional<Tensor>& in_shift, bool in_relu, const std::optional<Tensor>& scale,
                  const std::optional<Tensor>& shift, const std::optional<Tensor>& residual,
                  const std::optional<Tensor>& residual_scale, const std::optional<Tensor>& residual_shift, bool relu) {
  const Call call("fused_graph", x);
  const Extras extras{in_scale, in_shift, in_relu, scale, shift, residual, residual_scale, residual_shift, relu};
  const Operand in = read_operand(call, "x", x);
  const int outputs = static_cast<int>(weight.size(1));
  const Tensor out = new_output(in.tensor, in.samples, outputs, in.frames, in.joints);
  std::optional<Tensor> statistics;
  with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
    using E = decltype(element);
    constexpr bool kTensor = decltype(tensor)::value;
    const PackedWeights<E, kTensor> weights(call, x, view_weight(weight, false));
    const Listed<E> listed(call, adjacency, outputs, false);
    GraphForward<E> p{};
    p.x = in.rows<E>();
    p.adjacency = listed.adjacency;
    const Held<E> held(call, extras);
    p.norm = held.norm(extras);
    const GraphPlan plan = plan_graph<E, kTensor>(call, false, in.samples, in.frames, in.joints, in.joints, in.channels,
                                                  outputs, 1, false);
    statistics.emplace(new_statistics<E>(x, plan.cut.tiles, outputs));
    launch_graph<E, kTensor>(call, plan, p, weights, held.epilogue(extras, out, *statistics));
  });
  return {out, *statistics};
}

}  // namespace

STGCN_FAST_CUDA_LIBRARY(m) {
  m.impl("fused_temporal", TORCH_BOX(&fused_temporal));
  m.impl("fused_graph", TORCH_BOX(&fused_graph));
}

}  // namespace cuda
}  // namespace stgcn_fast
