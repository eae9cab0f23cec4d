#include "common/cuda/host.cuh"
#include "dtw/narrow.cuh"
#include "dtw/wide.cuh"

namespace stgcn_fast {
namespace cuda {
namespace {

// Enough blocks to keep every multiprocessor busy to the end, few enough that the rows between strips stay small.
constexpr Index kWantedBlocks = 4096;
constexpr Index kMostSequences = Index{1} << 30;

void check_frames(const Call& call, const char* argument, const Tensor& frames) {
  const Dtype dtype = dtype_of(call.op(), argument, frames);
  check(dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64, call.op(), argument, "float32 or float64",
        "a 16-bit type");
  check(frames.dim() == 2 && frames.size(0) > 0 && frames.size(1) > 0, call.op(), argument,
        "[rows, D], none of them zero", shape_text(frames));
  call.check_device(argument, frames);
}

void check_offsets_of(const Call& call, const char* argument, const Tensor& offsets) {
  check(offsets.scalar_type() == ScalarType::Long, call.op(), argument, "int64", "another dtype");
  check(offsets.dim() == 1 && offsets.size(0) >= 2 && offsets.size(0) <= kMostSequences, call.op(), argument,
        "[N + 1] with N from 1 to 2^30", shape_text(offsets));
  call.check_device(argument, offsets);
}

// Packed sequences on the device, and where each lies. Without offsets: one sequence.
template <typename E>
struct Packed {
  Tensor frames;
  std::optional<Tensor> offsets;
  int count;
  Workspace<Sequence> sequences;

  Packed(const Call& call, const Tensor& x, const std::optional<Tensor>& starts)
      : frames(torch::stable::contiguous(x)),
        offsets(starts ? std::optional<Tensor>(torch::stable::contiguous(*starts)) : std::nullopt),
        count(starts ? static_cast<int>(starts->size(0) - 1) : 1),
        sequences(x, count) {
    const Collection<E> c = collection();
    call.run(find_sequences<E>, count < (1 << 16) ? count : 1 << 16, 256, 0, c, frames.size(1), sequences.get());
    if (c.offsets) call.run(check_offsets<E>, 1, 1024, 0, c, sequences.get());
  }

  Collection<E> collection() const {
    return {static_cast<const E*>(frames.const_data_ptr()),
            offsets ? static_cast<const Index*>(offsets->const_data_ptr()) : nullptr, sequences.get(), frames.size(0),
            count};
  }
};

template <typename E, bool kMean>
void run_kernel(const Call& call, const DtwProblem<E>& p, Index blocks) {
  switch (p.features) {
    case 1:
      return call.run(dtw_narrow<E, 1, kMean>, blocks, kDtwThreads, 0, p);
    case 2:
      return call.run(dtw_narrow<E, 2, kMean>, blocks, kDtwThreads, 0, p);
    case kMostNarrow:
      return call.run(dtw_narrow<E, kMostNarrow, kMean>, blocks, kDtwThreads, 0, p);
    default:
      return call.run(dtw_wide<E, kMean>, blocks, kDtwThreads, static_cast<int>(sizeof(TileMemory<E>)), p);
  }
}

template <typename E>
void fill(const Call& call, const Packed<E>& x, const Packed<E>& y, const Band& band, bool mean, bool squared,
          bool symmetric, const Tensor& out) {
  DtwProblem<E> p{
      x.collection(), y.collection(), band, nullptr, static_cast<E*>(out.mutable_data_ptr()), x.frames.size(1), 1,
      symmetric,      squared};
  const Index groups = ceil_div(p.y.count, kPairs), slots = ceil_div(kWantedBlocks, groups);
  p.slots = slots < p.x.count ? static_cast<int>(slots) : p.x.count;
  const Workspace<E> above(out, (mean ? 2 : 1) * p.slots * p.y.rows);
  p.above = above.get();
  if (mean) {
    run_kernel<E, true>(call, p, groups * p.slots);
  } else {
    run_kernel<E, false>(call, p, groups * p.slots);
  }
}

// Distances of all x to all y; y none: between all x.
Tensor matrix(const Call& call, const Tensor& x, const std::optional<Tensor>& x_offsets, const std::optional<Tensor>& y,
              const std::optional<Tensor>& y_offsets, const Band& band, bool mean, bool squared,
              const std::vector<Index>& shape) {
  const Tensor out = new_tensor(x, shape);
  const auto run = [&](auto element) {
    using E = decltype(element);
    const Packed<E> from(call, x, x_offsets);
    if (!y) return fill<E>(call, from, from, band, mean, squared, true, out);
    fill<E>(call, from, Packed<E>(call, *y, y_offsets), band, mean, squared, false, out);
  };
  if (x.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return out;
}

void check_pair(const Call& call, const char* argument, const Tensor& y, const char* other, const Tensor& x) {
  check_frames(call, argument, y);
  check_same_dtype(call.op(), argument, y, x, other);
  check(y.size(1) == x.size(1), call.op(), argument, "of D = " + std::to_string(x.size(1)) + " features like " + other,
        y.size(1));
}

// x [T_x, D], y [T_y, D] -> []
Tensor dtw_distance(const Tensor& x, const Tensor& y, Index radius, double share, Index band, double slope, bool mean,
                    bool squared) {
  const Call call("dtw_distance", x);
  check_frames(call, "x", x);
  check_pair(call, "y", y, "x", x);
  return matrix(call, x, std::nullopt, y, std::nullopt, {radius, share, static_cast<int>(band), slope}, mean, squared,
                {});
}

// frames [rows, D], offsets [N + 1] -> [N, N]
Tensor dtw_pairwise_distance(const Tensor& frames, const Tensor& offsets, Index radius, double share, Index band,
                             double slope, bool mean, bool squared) {
  const Call call("dtw_pairwise_distance", frames);
  check_frames(call, "X", frames);
  check_offsets_of(call, "offsets", offsets);
  const Index count = offsets.size(0) - 1;
  return matrix(call, frames, offsets, std::nullopt, std::nullopt, {radius, share, static_cast<int>(band), slope}, mean,
                squared, {count, count});
}

// x [rows, D], x_offsets [N + 1], y [rows, D], y_offsets [M + 1] -> [N, M]
Tensor dtw_cdist(const Tensor& x, const Tensor& x_offsets, const Tensor& y, const Tensor& y_offsets, Index radius,
                 double share, Index band, double slope, bool mean, bool squared) {
  const Call call("dtw_cdist", x);
  check_frames(call, "X", x);
  check_pair(call, "Y", y, "X", x);
  check_offsets_of(call, "x_offsets", x_offsets);
  check_offsets_of(call, "y_offsets", y_offsets);
  return matrix(call, x, x_offsets, y, y_offsets, {radius, share, static_cast<int>(band), slope}, mean, squared,
                {x_offsets.size(0) - 1, y_offsets.size(0) - 1});
}

}  // namespace

STGCN_FAST_CUDA_LIBRARY(m) {
  m.impl("dtw_distance", TORCH_BOX(&dtw_distance));
  m.impl("dtw_pairwise_distance", TORCH_BOX(&dtw_pairwise_distance));
  m.impl("dtw_cdist", TORCH_BOX(&dtw_cdist));
}

}  // namespace cuda
}  // namespace stgcn_fast
