// The temporal convolution inside one window of frames, for kernels that hold one: the op itself and fused blocks.
//
//   out[i, v] = relu(bias + add[i, v] + sum over taps q, channels c of weight[q][c] * window[i * stride + q * dilation,
//   v])
//
// Rows are (frame, joint), channels innermost; frames beyond the clip are rows of zeros that the caller puts into the
// window. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>

#include "common/micro_kernel.h"
#include "common/pack.h"
#include "common/scratch.h"
#include "temporal_conv/fast.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

template <typename E>
struct TemporalOperand {
  std::int64_t inputs, outputs, kernel_size, joints, stride, dilation;
  bool fast;                            // the form that `weights` are packed for
  const E* weights;                     // from temporal_pack
  const Acc<E>* bias;                   // [outputs] or null
  std::int64_t block = kTemporalBlock;  // output frames of the fast form: F(3,3), F(5,5), F(9,9) or F(10,r)
};

// Sums over rows for the gradient of the weights; see temporal_grad_weight_rows.
template <typename E>
struct TemporalGradient {
  std::int64_t inputs, outputs, kernel_size, joints, stride, dilation;
  bool fast;  // the form that the sums are of
};

// Elements between the weights [O, C, Γ] of successive outputs, inputs and taps. The gradient by the input of a
// convolution of stride 1 is the convolution of the output's gradient whose outputs and inputs are exchanged and whose
// taps run backwards: exchange the strides, point at the last tap and pass a negative tap stride.
struct TemporalWeight {
  std::int64_t output, input, tap;
};

// Frames that a window must hold for `frames` outputs.
template <typename Operand>
inline std::int64_t temporal_window_frames(const Operand& op, std::int64_t frames) {
  if (frames <= 0) return 0;
  return (frames - 1) * op.stride + (op.kernel_size - 1) * op.dilation + 1;
}

// Whether the fast form can be asked for.
template <typename E>
inline bool temporal_has_fast_form(const TemporalOperand<E>& op) {
  return kHasFastForm<E> && (op.stride == 1 || (op.stride == kMostPhases && op.dilation == 1)) &&
         op.kernel_size >= kMostPhases;
}

// Output frames of the fast form's block. Gradients of weights have the short form.
template <typename E>
inline std::int64_t temporal_block(const TemporalOperand<E>& op) {
  return op.block;
}

template <typename E>
inline std::int64_t temporal_block(const TemporalGradient<E>&) {
  return kTemporalBlock;
}

// Where a clip may be cut: at multiples of this many output frames, or results depend on the cuts.
template <typename Operand>
inline std::int64_t temporal_block_frames(const Operand& op) {
  return op.fast ? temporal_block(op) * op.dilation : 1;
}

// Panels that take the place of one tap's.
template <typename Operand>
inline std::int64_t temporal_products(const Operand& op) {
  if (!op.fast) return op.kernel_size;
  std::int64_t products = 0;
  for (std::int64_t r = 0; r < op.stride; ++r) {
    products += SubFilters(op.kernel_size, op.stride, r, temporal_block(op)).products();
  }
  return products;
}

// Elements of the packed weights.
template <typename E>
inline std::int64_t temporal_packed_values(const TemporalOperand<E>& op) {
  return panel_count<E>(op.outputs) * temporal_products(op) * panel_values<E>(op.inputs);
}

// Pieces that temporal_pack can be split into.
template <typename E>
inline std::int64_t temporal_pack_tasks(const TemporalOperand<E>& op) {
  return panel_count<E>(op.outputs) * (op.fast ? 1 : op.kernel_size);
}

namespace detail {

// Calls body with the form that an operand's block and kernel have.
template <typename E, typename Body>
auto with_form(const TemporalOperand<E>& op, const Body& body) {
  if (op.block == kTemporalBlock) return body(ShortForm{});
  if (op.block == kTemporalLongBlock) return body(LongForm{});
  if (op.block == kTemporalWholeBlock) return body(WholeForm{});
  const bool long_filter = SubFilters(op.kernel_size, op.stride, 0, op.block).size == RoundedForm<8>::kTaps;
  return long_filter ? body(RoundedForm<8>{}) : body(RoundedForm<6>{});
}

template <typename E>
void fast_pack(const TemporalOperand<E>& op, const E* weight, const TemporalWeight& strides, E* out, int columns) {
  const std::int64_t size = panel_values<E>(op.inputs), values = op.kernel_size * kPanel<E>;
  double* taps = scratch<double>(Slot::kTemporalPlanes, values);
  for (std::int64_t i = 0; i < values; ++i) taps[i] = 0;
  for (std::int64_t c = 0; c < op.inputs; ++c) {
    const E* from = weight + c * strides.input;
    for (int j = 0; j < columns; ++j) {
      for (std::int64_t q = 0; q < op.kernel_size; ++q) {
        taps[q * kPanel<E> + j] = from[j * strides.output + q * strides.tap];
      }
    }
    const auto transform = with_form(op, [](auto form) { return &transform_weights<E, decltype(form)>; });
    transform(taps, op.kernel_size, op.stride, out + c * kPanel<E>, size);
  }
}

}  // namespace detail

// Packs tasks [begin, end) into `out`: [panel][tap][panel_values(inputs)], of the fast form products for taps.
template <typename E>
void temporal_pack(const TemporalOperand<E>& op, const Acc<E>* weight, const TemporalWeight& strides, E* out,
                   std::int64_t begin, std::int64_t end) {
  const std::int64_t size = panel_values<E>(op.inputs);
  for (std::int64_t task = begin; task < end; ++task) {
    if constexpr (kHasFastForm<E>) {
      if (op.fast) {
        detail::fast_pack(op, weight + task * kPanel<E> * strides.output, strides,
                          out + task * temporal_products(op) * size, panel_columns<E>(op.outputs, task));
        continue;
      }
    }
    const std::int64_t panel = task / op.kernel_size, tap = task % op.kernel_size;
    pack_panel<E>(out + task * size, weight + panel * kPanel<E> * strides.output + tap * strides.tap, strides.input,
                  strides.output, op.inputs, panel_columns<E>(op.outputs, panel));
  }
}

namespace detail {

// Whether tiles lie along the frames of a joint rather than along the joints of a frame: the one with fewer tiles.
inline bool tiles_along_frames(std::int64_t frames, std::int64_t joints) {
  const auto tiles = [](std::int64_t rows) { return (rows + kTileRows - 1) / kTileRows; };
  return joints * tiles(frames) < frames * tiles(joints);
}

// `frames` steps of one panel from where q.a and q.c point: A moves by a_frame between steps, C by c_frame, what is
// added by add_frame. Moves the pointers in `a`.
template <typename E, typename Out>
void product_of_frames(Product<E, Out>& q, const E** a, std::int64_t frames, std::int64_t joints, std::int64_t a_frame,
                       std::int64_t c_frame, std::int64_t add_frame, int columns) {
  if (a_frame == joints * q.a_row && c_frame == joints * q.c_row && (!q.add || add_frame == joints * q.add_row)) {
    product(q, frames * joints, columns);
    return;
  }
  const bool along = tiles_along_frames(frames, joints);
  const std::int64_t steps = along ? joints : frames;
  const std::int64_t a_step = along ? q.a_row : a_frame, c_step = along ? q.c_row : c_frame;
  const std::int64_t add_step = along ? q.add_row : add_frame;
  Product<E, Out> part = q;
  if (along) {
    part.a_row = a_frame;
    part.c_row = c_frame;
    part.add_row = add_frame;
  }
  for (std::int64_t i = 0; i < steps; ++i) {
    product(part, along ? frames : joints, columns);
    for (std::int64_t p = 0; p < q.taps; ++p) a[p] += a_step;
    part.c += c_step;
    if (part.add != nullptr) part.add += add_step;
  }
}

// The fast form of a clip of which some frames do not exist. Frames of equal residue are a clip of their own.
template <typename E, typename Out>
void fast_frames(const TemporalOperand<E>& op, const TemporalFrames<E>& in, std::int64_t frames,
                 const FastTarget<Out>& to) {
  for (std::int64_t r = 0; r < op.dilation && r < frames; ++r) {
    FastTarget<Out> part = to;
    part.out += r * to.frame;
    part.frame *= op.dilation;
    if (to.add != nullptr) part.add += r * to.add_frame;
    part.add_frame *= op.dilation;
    const auto run = with_form(op, [](auto form) { return &fast_rows<E, decltype(form), Out>; });
    run(op.kernel_size, op.stride, op.inputs, op.outputs, op.joints, op.weights, op.bias, every(in, r, op.dilation),
        (frames - r + op.dilation - 1) / op.dilation, part);
  }
}

}  // namespace detail

// window [temporal_window_frames, V] rows of `row` elements, add (or null) and out [frames, V] rows. The fast form may
// have outputs of another type.
template <typename E, typename Out>
void temporal_rows(const TemporalOperand<E>& op, const E* window, std::int64_t row, std::int64_t frames,
                   const std::remove_cv_t<Out>* add, std::int64_t add_row, bool relu, Out* out, std::int64_t out_row) {
  if (frames <= 0) return;
  const std::int64_t size = panel_values<E>(op.inputs), frame = op.joints * row;
  if constexpr (kHasFastForm<E>) {
    if (op.fast) {
      const TemporalFrames<E> in{window, frame, row, 0, temporal_window_frames(op, frames)};
      detail::fast_frames(
          op, in, frames,
          detail::FastTarget<Out>{out, op.joints * out_row, out_row, add, op.joints * add_row, add_row, relu});
      return;
    }
  }
  const E** a = scratch<const E*>(Slot::kTemporalPointers, 2 * op.kernel_size);
  const E** b = a + op.kernel_size;
  Product<E, Out> q{};
  q.a = a;
  q.b = b;
  q.taps = op.kernel_size;
  q.k = op.inputs;
  q.a_row = row;
  q.add_row = add_row;
  q.relu = relu;
  q.c_row = out_row;
  for (std::int64_t panel = 0; panel < panel_count<E>(op.outputs); ++panel) {
    for (std::int64_t p = 0; p < op.kernel_size; ++p) {
      a[p] = window + p * op.dilation * frame;
      b[p] = op.weights + (panel * op.kernel_size + p) * size;
    }
    q.bias = op.bias == nullptr ? nullptr : op.bias + panel * kPanel<E>;
    q.add = add == nullptr ? nullptr : add + panel * kPanel<E>;
    q.c = out + panel * kPanel<E>;
    detail::product_of_frames(q, a, frames, op.joints, op.stride * frame, op.joints * out_row, op.joints * add_row,
                              panel_columns<E>(op.outputs, panel));
  }
}

// Elements of the sums of a weight gradient: [tap][panel over outputs][inputs][kPanel], of the fast form products for
// taps.
template <typename E>
inline std::int64_t temporal_grad_weight_values(const TemporalGradient<E>& g) {
  return temporal_products(g) * panel_count<E>(g.outputs) * g.inputs * kPanel<E>;
}

namespace detail {

// Rows of one frame of packed operands whose k runs over rows: bfloat16 is multiplied in pairs of rows, and a tap's
// offset must not part them.
template <typename E>
inline std::int64_t paired_rows(std::int64_t joints) {
  return (joints + kDepth<E> - 1) / kDepth<E> * kDepth<E>;
}

// What frames [0, frames) of the gradient add to the direct form's sums; frames of `in` that do not exist are skipped.
template <typename E>
void direct_grad_weight_rows(const TemporalGradient<E>& g, const TemporalFrames<E>& in, const E* grad,
                             std::int64_t grad_row, std::int64_t frames, Panels some, Acc<E>* sums) {
  const std::int64_t panels = panel_count<E>(g.outputs), joints = paired_rows<E>(g.joints);
  E* packed = scratch<E>(Slot::kTemporalPanel, frames * joints * kPanel<E>);
  const E** a = scratch<const E*>(Slot::kTemporalPointers, 2 * frames);
  const E** b = a + frames;
  const E* source = in.data;
  std::int64_t source_frame = in.frame, source_row = in.row;
#if defined(__AVX512BF16__)
  if constexpr (kDepth<E> == 2) {
    source_row = g.inputs;
    source_frame = joints * source_row;
    E* paired = scratch<E>(Slot::kTemporalPlanes, (in.last - in.first) * source_frame);
    for (std::int64_t t = 0; t < in.last - in.first; ++t) {
      pair_rows(paired + t * source_frame, in.data + t * in.frame, in.row, g.joints, g.inputs);
    }
    source = paired;
  }
#endif
  // Frames that do not follow on one another are separate taps of one product.
  const bool adjacent = g.stride == 1 && source_frame == joints * source_row;
  Product<E, Acc<E>> outer{};
  outer.a = a;
  outer.b = b;
  outer.a_row = kDepth<E>;
  outer.a_step = kDepth<E> * source_row;
  outer.c_row = kPanel<E>;
  outer.accumulate = true;
  for (std::int64_t panel = some.begin; panel < some.end; ++panel) {
    const int columns = panel_columns<E>(g.outputs, panel);
#if defined(__AVX512BF16__)
    if constexpr (kDepth<E> == 2) {
      for (std::int64_t t = 0; t < frames; ++t) {
        pair_panel(packed + t * joints * kPanel<E>, grad + t * g.joints * grad_row + panel * kPanel<E>, grad_row,
                   g.joints, columns);
      }
    }
#endif
    if constexpr (kDepth<E> == 1) {
      pack_panel<E>(packed, grad + panel * kPanel<E>, grad_row, 1, frames * joints, columns);
    }
    for (std::int64_t q = 0; q < g.kernel_size; ++q) {
      // Output t reads frame t * stride + q * dilation.
      const std::int64_t before = in.first - q * g.dilation, behind = in.last - q * g.dilation;
      const std::int64_t from = before <= 0 ? 0 : (before + g.stride - 1) / g.stride;
      const std::int64_t reach = behind <= 0 ? 0 : (behind + g.stride - 1) / g.stride,
                         to = reach < frames ? reach : frames;
      if (from >= to) continue;
      outer.taps = adjacent ? 1 : to - from;
      outer.k = adjacent ? (to - from) * joints : joints;
      for (std::int64_t i = 0; i < outer.taps; ++i) {
        a[i] = source + ((from + i) * g.stride - before) * source_frame;
        b[i] = packed + (from + i) * joints * kPanel<E>;
      }
      outer.c = sums + (q * panels + panel) * g.inputs * kPanel<E>;
      product(outer, g.inputs, whole_vectors<E>(columns));
    }
  }
}

// The same for a clip of which some frames do not exist.
template <typename E>
void grad_weight_frames(const TemporalGradient<E>& g, const TemporalFrames<E>& in, const E* grad, std::int64_t grad_row,
                        std::int64_t frames, Panels some, Acc<E>* sums) {
  if constexpr (kHasFastForm<E>) {
    if (g.fast) {
      const std::int64_t grad_frame = g.joints * grad_row;
      for (std::int64_t r = 0; r < g.dilation && r < frames; ++r) {
        fast_grad_weight_rows(g.kernel_size, g.stride, g.inputs, g.outputs, g.joints, every(in, r, g.dilation),
                              grad + r * grad_frame, g.dilation * grad_frame, grad_row,
                              (frames - r + g.dilation - 1) / g.dilation, some, sums);
      }
      return;
    }
  }
  direct_grad_weight_rows(g, in, grad, grad_row, frames, some, sums);
}

}  // namespace detail

// The first product of the fast form at a point and phase.
template <typename Operand>
inline std::int64_t fast_product(const Operand& op, int point, std::int64_t phase) {
  std::int64_t index = 0;
  for (int p = 0; p <= point; ++p) {
    for (std::int64_t r = 0; r < (p == point ? phase : op.stride); ++r) {
      const SubFilters filters(op.kernel_size, op.stride, r);
      index += filters.last(p) - filters.first(p);
    }
  }
  return index;
}

// Adds to `sums` what `frames` output frames give: window as in temporal_rows, grad [frames, V] the output's gradient.
template <typename E>
void temporal_grad_weight_rows(const TemporalGradient<E>& g, const E* window, std::int64_t row, const E* grad,
                               std::int64_t grad_row, std::int64_t frames, Acc<E>* sums) {
  if (frames <= 0) return;
  const TemporalFrames<E> in{window, g.joints * row, row, 0, temporal_window_frames(g, frames)};
  detail::grad_weight_frames(g, in, grad, grad_row, frames, {0, panel_count<E>(g.outputs)}, sums);
}

// Pieces that temporal_grad_weight_finish can be split into.
template <typename E>
inline std::int64_t temporal_grad_weight_tasks(const TemporalGradient<E>& g) {
  return panel_count<E>(g.outputs) * g.inputs;
}

// out [O, C, Γ], contiguous, from `parts` sums that lie one after another, added in order; tasks [begin, end).
template <typename E>
void temporal_grad_weight_finish(const TemporalGradient<E>& g, const Acc<E>* sums, std::int64_t parts, Acc<E>* out,
                                 std::int64_t begin, std::int64_t end) {
  const std::int64_t panels = panel_count<E>(g.outputs), size = temporal_grad_weight_values(g);
  const std::int64_t out_row = g.inputs * g.kernel_size;
  for (std::int64_t task = begin; task < end; ++task) {
    const std::int64_t panel = task / g.inputs, c = task % g.inputs;
    const int columns = panel_columns<E>(g.outputs, panel);
    Acc<E>* to = out + panel * kPanel<E> * out_row + c * g.kernel_size;
    const auto total = [&](std::int64_t index, int i) {
      const Acc<E>* from = sums + ((index * panels + panel) * g.inputs + c) * kPanel<E> + i * kLanes<Acc<E>>;
      Vec<Acc<E>> sum = load(from);
      for (std::int64_t part = 1; part < parts; ++part) sum += load(from + part * size);
      return sum;
    };
    const auto put = [&](std::int64_t q, int i, Vec<Acc<E>> values) {
      alignas(64) Acc<E> wide[kLanes<Acc<E>>];
      store(wide, values);
      const int first = i * kLanes<Acc<E>>, left = columns - first;
      for (int j = 0; j < kLanes<Acc<E>> && j < left; ++j) to[(first + j) * out_row + q] = wide[j];
    };
    for (int i = 0; i < kPanelVectors; ++i) {
      if (!g.fast) {
        for (std::int64_t q = 0; q < g.kernel_size; ++q) put(q, i, total(q, i));
        continue;
      }
      for (std::int64_t r = 0; r < g.stride; ++r) {
        const SubFilters filters(g.kernel_size, g.stride, r);
        for (std::int64_t s = 0; s < filters.count; ++s) {
          Vec<Acc<E>> points[kBlockPoints], taps[3];
          for (int p = 0; p < kBlockPoints; ++p) {
            const bool exists = s >= filters.first(p) && s < filters.last(p);
            points[p] = exists ? total(fast_product(g, p, r) + s - filters.first(p), i) : Vec<Acc<E>>{};
          }
          detail::finish_taps<Acc<E>>(points, taps);
          for (int q = 0; q < 3; ++q) {
            const std::int64_t tap = 3 * s + q - filters.shift;
            if (tap >= 0 && tap < filters.taps) put(r + tap * g.stride, i, taps[q]);
          }
        }
      }
    }
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
