#include "common/cuda/host.cuh"
#include "graph_conv/host.cuh"
#include "st_block_train/arguments.h"
#include "st_block_train/merge.cuh"
#include "temporal_conv/host.cuh"

#include <array>
#include <cmath>
#include <tuple>

namespace stgcn_fast {
namespace cuda {
namespace {

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct Sizes {
  Index samples, frames, out_frames, stride;
  int inputs, outputs, joints, kernel_size, row;

  Index rows() const { return samples * frames * joints; }
  Index out_rows() const { return samples * out_frames * joints; }
};

Sizes sizes_of(const Call& call, const Arguments& a, const Operand& x) {
  const std::initializer_list<std::pair<const char*, const Tensor&>> operands{
      {"graph_weight", a.graph_weight},       {"adjacency", a.adjacency}, {"weight1", a.weight1}, {"bias1", a.bias1},
      {"temporal_weight", a.temporal_weight}, {"weight2", a.weight2},     {"bias2", a.bias2},     {"seed", a.seed}};
  for (const auto& [name, tensor] : operands) call.check_device(name, tensor);
  const std::initializer_list<std::pair<const char*, const MaybeTensor&>> others{{"graph_bias", a.graph_bias},
                                                                                 {"residual_weight", a.residual_weight},
                                                                                 {"weight_r", a.weight_r},
                                                                                 {"bias_r", a.bias_r},
                                                                                 {"support", a.support}};
  for (const auto& [name, tensor] : others) {
    if (tensor) call.check_device(name, *tensor);
  }
  const Index outputs = a.graph_weight.size(1), kernel_size = a.temporal_weight.size(2);
  check(outputs <= 1 << 20, call.op(), "graph_weight", "[K, O, C] with O <= 2^20 on CUDA", shape_text(a.graph_weight));
  check(kernel_size <= kLargest, call.op(), "temporal_weight", "[O, O, Γ, 1] with Γ < 2^31", kernel_size);
  return {x.samples,
          x.frames,
          ceil_div(x.frames, a.stride),
          a.stride,
          x.channels,
          static_cast<int>(outputs),
          x.joints,
          static_cast<int>(kernel_size),
          static_cast<int>(row_of(outputs))};
}

// One call in its element type.
template <typename E, bool kTensor>
class Block {
 public:
  using A = Acc<E>;

  Block(const Call& call, const Arguments& a, const Operand& x, const Sizes& s, const Tensor& statistics)
      : call_(call),
        a_(a),
        x_(x),
        s_(s),
        statistics_(static_cast<A*>(statistics.mutable_data_ptr())),
        coefficients_(x.tensor, static_cast<Index>(kNormalisations) * kCoefficients * s.row),
        weights_{Values<E>(a.weight1), Values<E>(a.weight2), Values<E>(a.weight_r)},
        biases_{Values<E>(a.bias1), Values<E>(a.bias2), Values<E>(a.bias_r)} {}

  void forward(const Tensor& y, const Tensor& z, const Tensor& r, const Tensor& out) const {
    graph(y);
    if (a_.residual_weight) {
      temporal(kResidual, x_.rows<E>(), {}, *a_.residual_weight, 1, r);
    }
    temporal(kTemporal, saved_rows(y, s_.row), {at(kGraph, kScale), at(kGraph, kShift), true}, a_.temporal_weight,
             s_.kernel_size, z);
    Passes<E> p = passes(out, z, r);
    if (a_.residual && !a_.residual_weight) p.x = x_.rows<E>().data;
    run(a_.residual_weight ? block_result<E, true> : block_result<E, false>, p.walk, 0, p);
  }

  // `by_z`, `by_r` and `by_h` take gradients behind and before the temporal convolution, and of the residual.
  void backward(const Saved& s, const Operand& grad, const Operand& out, const Tensor& by_z, const Tensor& by_r,
                const Tensor& by_h, std::array<Tensor, 12>& g) const {
    const bool convolved = a_.residual_weight.has_value();
    for (const Normalisation which : {kGraph, kTemporal, kResidual}) {
      if (which != kResidual || convolved) call_.run_small(set_normalisation<A>, s_.row, norm(which));
    }
    Passes<E> p = passes(out.tensor, s.z, s.r);
    p.grad = static_cast<const E*>(grad.tensor.const_data_ptr());
    p.by_z = data_of(by_z);
    p.walk.whole = p.walk.whole && is_whole<E>(p.grad, s_.outputs) && is_whole<E>(p.by_z, s_.outputs);
    if (convolved) {
      p.by_r = data_of(by_r);
      p.walk.whole = p.walk.whole && is_whole<E>(p.by_r, s_.outputs);
    }
    const int kinds = convolved ? 4 : 2, bytes = block_sums_bytes<E>(p.walk.threads);
    const Workspace<A> sums(x_.tensor, p.walk.parts * kinds * s_.row);
    run(convolved ? block_sums<E, true> : block_sums<E, false>, p.walk, bytes, p, sums.get());
    const Reports parts = plain_reports(p.walk.parts);
    merge_gradient(kTemporal, parts, sums.get(), kinds, 0, s_.row, s_.out_rows(), g[7], g[8]);
    if (convolved) merge_gradient(kResidual, parts, sums.get(), kinds, 2, s_.row, s_.out_rows(), g[10], g[11]);
    run(convolved ? block_gradients<E, true> : block_gradients<E, false>, p.walk, 0, p);

    TemporalGradWeight<E> w{};
    w.x = saved_rows(s.y, s_.outputs);
    w.grad = rows_of(by_z);
    w.geometry = geometry(s_.kernel_size, false);
    w.norm = {at(kGraph, kScale), at(kGraph, kShift), true};
    launch_grad_weight<E, kTensor>(call_, w, g[6]);
    through_temporal(by_z, s.y, by_h, g);
    if (convolved) {
      w.x = x_.rows<E>();
      w.grad = rows_of(by_r);
      w.geometry = geometry(1, false);
      w.norm = {};
      launch_grad_weight<E, kTensor>(call_, w, g[9]);
    }
    const Walk walk = walk_of<E>(s_.rows(), s_.outputs, s_.row, is_whole<E>(data_of(by_h), s_.outputs));
    const E* const y = static_cast<const E*>(s.y.const_data_ptr());
    run(through_graph_norm<E>, walk, 0, walk, static_cast<const A*>(coefficients_.get()), y, data_of(by_h));
    if (s.need_x) through_graph(grad, out, by_r, by_h, g[0]);
  }

 private:
  static E* data_of(const Tensor& tensor) { return static_cast<E*>(tensor.mutable_data_ptr()); }
  const A* at(Normalisation which, Coefficient kind) const {
    return coefficient<A>(coefficients_.get(), s_.row, which, kind);
  }
  Norm<A> norm(Normalisation which) const {
    return {weights_[which].data,
            biases_[which].data,
            a_.eps[which],
            statistics_ + 2 * which * s_.outputs,
            coefficients_.get() + which * kCoefficients * s_.row,
            s_.outputs,
            s_.row};
  }
  // [N, T, V, row], of which so many channels count.
  Rows<E> saved_rows(const Tensor& saved, int channels) const {
    return {static_cast<const E*>(saved.const_data_ptr()), channels, true, s_.row};
  }
  static Rows<E> rows_of(const Tensor& x) {
    const E* data = static_cast<const E*>(x.const_data_ptr());
    const int channels = static_cast<int>(x.size(1));
    return {data, channels, is_whole<E>(data, channels), channels};
  }
  TemporalGeometry geometry(int kernel_size, bool backward) const {
    return {s_.samples,
            backward ? s_.out_frames : s_.frames,
            backward ? s_.frames : s_.out_frames,
            s_.joints,
            kernel_size,
            s_.stride,
            kernel_size / 2,
            1,
            backward};
  }
  Epilogue<E> epilogue(const Tensor& out, int channels) const {
    Epilogue<E> e{};
    e.out = data_of(out);
    e.channels = channels;
    e.whole = is_whole<E>(e.out, channels);
    return e;
  }
  Passes<E> passes(const Tensor& out, const Tensor& z, const Tensor& r) const {
    constexpr double kResolution = 65536;
    Passes<E> p{};
    const bool whole = is_whole<E>(out.const_data_ptr(), s_.outputs) &&
                       (a_.residual_weight || !a_.residual || is_whole<E>(x_.tensor.const_data_ptr(), s_.outputs));
    p.walk = walk_of<E>(s_.out_rows(), s_.outputs, s_.row, whole);
    p.coefficients = coefficients_.get();
    p.dropout.seed = static_cast<const std::int64_t*>(a_.seed.const_data_ptr());
    p.dropout.threshold = static_cast<int>(std::nearbyint(a_.dropout * kResolution));
    p.dropout.scale = p.dropout.threshold < kResolution ? kResolution / (kResolution - p.dropout.threshold) : 0;
    p.z = static_cast<const E*>(z.const_data_ptr());
    if (a_.residual_weight) p.r = static_cast<const E*>(r.const_data_ptr());
    p.out = data_of(out);
    return p;
  }
  template <typename... Parameters, typename... Arguments_>
  void run(void (*kernel)(Parameters...), const Walk& walk, int bytes, const Arguments_&... arguments) const {
    call_.run(kernel, walk.parts * walk.column_tiles, walk.threads, bytes, arguments...);
  }
  void merge(Normalisation which, const Reports& reports, const A* from) const {
    call_.run(merge_moments<A>, s_.row / kMergeChannels, kMergeThreads, kMergeBytes, norm(which), reports, from);
  }
  void merge_gradient(Normalisation which, const Reports& reports, const A* from, int kinds, int first, int width,
                      Index rows, const Tensor& by_weight, const Tensor& by_bias) const {
    call_.run(merge_sums<A>, s_.row / kMergeChannels, kMergeThreads, kMergeBytes, norm(which), reports, from, kinds,
              first, width, static_cast<double>(rows), static_cast<A*>(by_weight.mutable_data_ptr()),
              static_cast<A*>(by_bias.mutable_data_ptr()));
  }

  // y = graph_conv(x) and its statistics.
  void graph(const Tensor& y) const {
    const PackedWeights<E, kTensor> weights(call_, x_.tensor, view_weight(a_.graph_weight, false));
    const Listed<E> listed(call_, a_.adjacency, s_.outputs, false);
    const Values<E> bias(a_.graph_bias);
    std::optional<Workspace<A>> map;
    GraphForward<E> f{};
    f.x = x_.rows<E>();
    f.adjacency = listed.adjacency;
    Epilogue<E> e = epilogue(y, s_.row);
    if (bias.data != nullptr) {
      map.emplace(map_of_bias<E>(call_, a_.adjacency, bias, s_.outputs, s_.row));
      e.bias = map->get();
      e.bias_joint = s_.row;
    }
    const GraphPlan plan = plan_graph<E, kTensor>(call_, false, s_.samples, s_.frames, s_.joints, s_.joints, s_.inputs,
                                                  s_.outputs, 1, false);
    const Index count = plan.cut.tiles;
    const Workspace<A> statistics(x_.tensor, count * 2 * s_.row);
    e.statistics = statistics.get();
    launch_graph<E, kTensor>(call_, plan, f, weights, e);
    const Index tile_rows = static_cast<Index>(plan.cut.tile_frames) * s_.joints;
    merge(kGraph, reports_of(1, 1, count, tile_rows, s_.samples * s_.frames, 1, s_.joints), e.statistics);
  }

  // A convolution of rows that are normalised and rectified on load, and its statistics.
  void temporal(Normalisation which, const Rows<E>& x, const Normalise<E>& on_load, const Tensor& weight,
                int kernel_size, const Tensor& out) const {
    const bool flat = weight.dim() == 2;
    const WeightView view{
        weight.const_data_ptr(),     kernel_size,      s_.outputs,      static_cast<int>(weight.size(1)),
        flat ? 0 : weight.stride(2), weight.stride(0), weight.stride(1)};
    const PackedWeights<E, kTensor> weights(call_, x_.tensor, view);
    TemporalForward<E> f{};
    f.x = x;
    f.geometry = geometry(kernel_size, false);
    f.norm = on_load;
    Epilogue<E> e = epilogue(out, s_.row);
    const TemporalPlan plan = plan_temporal<E, kTensor>(call_, f.geometry, s_.outputs);
    const Index count = s_.samples * plan.tiles;
    const Workspace<A> statistics(x_.tensor, count * 2 * s_.row);
    e.statistics = statistics.get();
    launch_temporal<E, kTensor>(call_, plan, f, weights, e);
    merge(which, reports_of(1, s_.samples, plan.tiles, plan.tile_rows, s_.out_frames, 1, s_.joints), e.statistics);
  }

  // by_h = gradient before the rectifier behind the first normalisation, with that one's sums.
  void through_temporal(const Tensor& by_z, const Tensor& y, const Tensor& by_h,
                        const std::array<Tensor, 12>& g) const {
    const Tensor& weight = a_.temporal_weight;
    const WeightView view{weight.const_data_ptr(), s_.kernel_size,   s_.outputs,      s_.outputs,
                          weight.stride(2),        weight.stride(1), weight.stride(0)};
    const PackedWeights<E, kTensor> weights(call_, x_.tensor, view);
    TemporalForward<E> f{};
    f.x = rows_of(by_z);
    f.geometry = geometry(s_.kernel_size, true);
    Epilogue<E> e = epilogue(by_h, s_.outputs);
    const TemporalPlan plan = plan_temporal<E, kTensor>(call_, f.geometry, s_.outputs);
    const Index count = plan.phases * s_.samples * plan.tiles;
    const Workspace<A> sums(x_.tensor, count * 2 * s_.outputs);
    e.mask = saved_rows(y, s_.outputs);
    e.mask_scale = at(kGraph, kScale);
    e.mask_shift = at(kGraph, kShift);
    e.mask_mean = at(kGraph, kMean);
    e.mask_sums = sums.get();
    launch_temporal<E, kTensor>(call_, plan, f, weights, e);
    const Reports reports =
        reports_of(plan.phases, s_.samples, plan.tiles, plan.tile_rows, s_.frames, s_.stride, s_.joints);
    merge_gradient(kGraph, reports, sums.get(), 2, 0, s_.outputs, s_.rows(), g[4], g[5]);
  }

  // by_x = the graph convolution backwards along every edge, and what comes through the residual.
  void through_graph(const Operand& grad, const Operand& out, const Tensor& by_r, const Tensor& by_y,
                     const Tensor& by_x) const {
    Epilogue<E> e = epilogue(by_x, s_.inputs);
    std::optional<Tensor> through;
    if (a_.residual_weight) {
      through.emplace(new_output(x_.tensor, s_.samples, s_.inputs, s_.frames, s_.joints));
      const Tensor& weight = *a_.residual_weight;
      const WeightView view{weight.const_data_ptr(), 1, s_.inputs, s_.outputs, 0, weight.stride(1), weight.stride(0)};
      const PackedWeights<E, kTensor> weights(call_, x_.tensor, view);
      TemporalForward<E> f{};
      f.x = rows_of(by_r);
      f.geometry = geometry(1, true);
      launch_temporal<E, kTensor>(call_, plan_temporal<E, kTensor>(call_, f.geometry, s_.inputs), f, weights,
                                  epilogue(*through, s_.inputs));
      e.residual = data_of(*through);
    } else if (a_.residual) {
      e.residual = static_cast<const E*>(grad.tensor.const_data_ptr());
      e.gate = static_cast<const E*>(out.tensor.const_data_ptr());
      e.whole = e.whole && is_whole<E>(e.gate, s_.inputs);
    }
    e.whole = e.whole && (e.residual == nullptr || is_whole<E>(e.residual, s_.inputs));
    const PackedWeights<E, kTensor> weights(call_, x_.tensor, view_weight(a_.graph_weight, true));
    const Listed<E> listed(call_, a_.adjacency, s_.inputs, true);
    GraphForward<E> f{};
    f.x = rows_of(by_y);
    f.adjacency = listed.adjacency;
    const GraphPlan plan = plan_graph<E, kTensor>(call_, false, s_.samples, s_.frames, s_.joints, s_.joints, s_.outputs,
                                                  s_.inputs, 1, false);
    launch_graph<E, kTensor>(call_, plan, f, weights, e);
  }

  const Call& call_;
  const Arguments& a_;
  const Operand& x_;
  const Sizes& s_;
  A* statistics_;
  Workspace<A> coefficients_;
  Values<E> weights_[kNormalisations], biases_[kNormalisations];
};

ScalarType sums_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Forward st_block_train_forward(const Tensor& x, const Tensor& graph_weight, const MaybeTensor& graph_bias,
                               const Tensor& adjacency, const Tensor& weight1, const Tensor& bias1,
                               const Tensor& temporal_weight, const MaybeTensor&, const Tensor& weight2,
                               const Tensor& bias2, const MaybeTensor& residual_weight, const MaybeTensor&,
                               const MaybeTensor& weight_r, const MaybeTensor& bias_r, const MaybeTensor& support,
                               const Tensor& seed, double eps1, double eps2, double eps_r, bool residual, Index stride,
                               double dropout, bool fast) {
  const Call call("st_block_train", x);
  const Arguments a = arguments_of(call.op(), x, graph_weight, graph_bias, adjacency, weight1, bias1, temporal_weight,
                                   weight2, bias2, residual_weight, weight_r, bias_r, support, seed, eps1, eps2, eps_r,
                                   residual, stride, dropout, fast);
  const Operand in = read_operand(call, "x", x);
  const Sizes s = sizes_of(call, a, in);
  const auto saved = [&](Index frames) { return new_tensor(x, {s.samples, frames, s.joints, s.row}); };
  const Tensor out = new_output(in.tensor, s.samples, s.outputs, s.out_frames, s.joints);
  const Tensor y = saved(s.frames), z = saved(s.out_frames);
  const Tensor r = residual_weight ? saved(s.out_frames) : new_tensor(x, {0});
  const Tensor statistics = zeros(x, sums_type(x), {3, 2, s.outputs});
  if (out.numel() > 0) {
    with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
      Block<decltype(element), decltype(tensor)::value>(call, a, in, s, statistics).forward(y, z, r, out);
    });
  }
  return {in_format_of(x, out), y, z, r, statistics};
}

// Contiguous and aligned, as kernels read what the forward pass saved.
Tensor dense(const Tensor& tensor) {
  const Tensor held = tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
  return reinterpret_cast<std::uintptr_t>(held.const_data_ptr()) % 16 == 0 ? held : torch::stable::clone(held);
}

Backward st_block_train_backward(const Tensor& grad, const Tensor& out, const Tensor& y, const Tensor& z,
                                 const Tensor& r, const Tensor& statistics, const Tensor& x, const Tensor& graph_weight,
                                 const MaybeTensor& graph_bias, const Tensor& adjacency, const Tensor& weight1,
                                 const Tensor& bias1, const Tensor& temporal_weight, const MaybeTensor&,
                                 const Tensor& weight2, const Tensor& bias2, const MaybeTensor& residual_weight,
                                 const MaybeTensor&, const MaybeTensor& weight_r, const MaybeTensor& bias_r,
                                 const MaybeTensor& support, const Tensor& seed, double eps1, double eps2, double eps_r,
                                 bool residual, Index stride, double dropout, bool fast, bool need_x,
                                 bool need_adjacency) {
  const Call call("st_block_train_backward", x);
  const Arguments a = arguments_of(call.op(), x, graph_weight, graph_bias, adjacency, weight1, bias1, temporal_weight,
                                   weight2, bias2, residual_weight, weight_r, bias_r, support, seed, eps1, eps2, eps_r,
                                   residual, stride, dropout, fast);
  check_saved(a, {grad, out, y, z, r, statistics, need_x, need_adjacency});
  const Operand in = read_operand(call, "x", x);
  const Sizes s = sizes_of(call, a, in);
  const std::initializer_list<std::pair<const char*, const Tensor&>> others{
      {"y", y}, {"z", z}, {"r", r}, {"statistics", statistics}};
  for (const auto& [name, tensor] : others) call.check_device(name, tensor);
  const Operand by = read_operand(call, "grad", grad), result = read_operand(call, "out", out);
  const Saved saved{grad, out, dense(y), dense(z), dense(r), dense(statistics), need_x, need_adjacency};

  const bool convolved = residual_weight.has_value();
  const auto none = [&] { return new_tensor(x, {0}); };
  // Kernels fill them if there is anything to add up.
  const auto fresh = [&](ScalarType type, const std::vector<Index>& sizes) {
    return out.numel() == 0 ? zeros(x, type, sizes) : st_block_train::new_tensor(x, type, sizes);
  };
  const auto channels = [&] { return fresh(sums_type(x), {s.outputs}); };
  std::array<Tensor, 12> g{need_x ? new_output(in.tensor, s.samples, s.inputs, s.frames, s.joints) : none(),
                           none(),
                           none(),
                           none(),
                           channels(),
                           channels(),
                           fresh(x.scalar_type(), {s.outputs, s.outputs, s.kernel_size, 1}),
                           channels(),
                           channels(),
                           convolved ? fresh(x.scalar_type(), {s.outputs, s.inputs}) : none(),
                           convolved ? channels() : none(),
                           convolved ? channels() : none()};
  const Tensor by_h = new_output(in.tensor, s.samples, s.outputs, s.frames, s.joints);
  if (out.numel() > 0) {
    const Tensor by_z = new_output(in.tensor, s.samples, s.outputs, s.out_frames, s.joints);
    const Tensor by_r = convolved ? new_output(in.tensor, s.samples, s.outputs, s.out_frames, s.joints) : none();
    with_element(dtype_of(call.op(), "x", x), call, [&](auto element, auto tensor) {
      Block<decltype(element), decltype(tensor)::value>(call, a, in, s, saved.statistics)
          .backward(saved, by, result, by_z, by_r, by_h, g);
    });
  }
  std::tie(std::ignore, g[1], g[3], g[2]) =
      graph_conv_backward(in.tensor, by_h, graph_weight, adjacency, graph_bias, false, support, false, true,
                          need_adjacency, graph_bias.has_value());
  if (need_x) g[0] = in_format_of(x, g[0]);
  const std::initializer_list<std::pair<int, const Tensor&>> parameters{
      {4, weight1}, {5, bias1}, {7, weight2}, {8, bias2}};
  for (const auto& [i, like] : parameters) g[i] = rounded(g[i], like.scalar_type());
  if (convolved) {
    g[10] = rounded(g[10], weight_r->scalar_type());
    g[11] = rounded(g[11], bias_r->scalar_type());
  }
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11]};
}

}  // namespace

STGCN_FAST_CUDA_LIBRARY(m) {
  m.impl("st_block_train", TORCH_BOX(&st_block_train_forward));
  m.impl("st_block_train_backward", TORCH_BOX(&st_block_train_backward));
}

}  // namespace cuda
}  // namespace stgcn_fast
