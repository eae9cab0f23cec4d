// Blocks one after another. Where threads share samples evenly, each takes whole samples through all blocks: what
// stands between two blocks of a sample stays in that thread's caches, and threads meet once instead of once a block.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <thread>

#include "common/scratch.h"
#include "st_block/host.h"

namespace stgcn_fast {
namespace {

using st_block::Index;
using st_block::Problem;
using st_block::Segment;

constexpr const char* kOp = "st_blocks";

// Tensors of a block: those of st_block's schema from graph_weight to residual_shift.
constexpr std::size_t kTensors = 11;

// With so many samples per thread, one more or less for some does no harm.
constexpr Index kManySamples = 8;

using Operands = std::vector<std::optional<Tensor>>;

const Tensor& required(const std::optional<Tensor>& tensor, const char* argument) {
  check(tensor.has_value(), kOp, argument, "a tensor", "None");
  return *tensor;
}

// Packs the blocks' weights, the threads that call it sharing the blocks; all are packed when it returns.
class Packing {
 public:
  Packing(const std::vector<Problem>& problems, const st_block::Chosen& chosen)
      : problems_(problems), chosen_(chosen), packed_(problems.size()) {}

  void finish() {
    for (std::size_t i; (i = next_.fetch_add(1)) < problems_.size();) {
      try {
        packed_[i] = st_block::pack(problems_[i], chosen_);
      } catch (...) {
        failed_ = true;
        ++done_;
        throw;
      }
      ++done_;
    }
    // Only for what other threads have begun.
    while (done_ < problems_.size()) std::this_thread::yield();
  }

  bool failed() const { return failed_; }
  const void* packed(std::size_t i) const { return packed_[i].get(); }

 private:
  const std::vector<Problem>& problems_;
  const st_block::Chosen& chosen_;
  std::vector<std::shared_ptr<const void>> packed_;
  std::atomic<std::size_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
};

Index values_after(const Problem& p) { return p.out_frames * p.targets * p.outputs; }

// One sample through all blocks, on buffers of the thread that calls.
void run_sample(const std::vector<Problem>& problems, const st_block::Kernels& kernels, const Packing& packing,
                Index sample) {
  Index most = 0;
  for (std::size_t i = 0; i + 1 < problems.size(); ++i) most = std::max(most, values_after(problems[i]));
  const Dtype dtype = problems.front().x.dtype;
  const Slot slots[] = {Slot::kBetweenEven, Slot::kBetweenOdd};
  ConstMatrix before{};
  for (std::size_t i = 0; i < problems.size(); ++i) {
    Problem p = problems[i];
    const bool first = i == 0, last = i + 1 == problems.size();
    if (!first) {
      p.x = before;
      p.x_batch = 0;
    }
    if (!last) {
      p.out = {scratch_bytes(slots[i % 2], static_cast<std::size_t>(most * element_bytes(dtype))), dtype, p.outputs, 1};
      p.out_batch = 0;
      before = {p.out.data, dtype, p.outputs, 1};
    }
    const Segment segment{sample, 0, p.out_frames, false};
    kernels.run(p, packing.packed(i), &segment, &segment + 1);
  }
}

// Block after block, each on all threads.
void run_together(std::vector<Problem>& problems, const Tensor& x, const st_block::Chosen& chosen) {
  std::optional<Result> before;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    Problem& p = problems[i];
    if (before) {
      p.x = {before->matrix.data, before->matrix.dtype, before->matrix.row, before->matrix.channel};
      p.x_batch = before->batch_stride;
    }
    std::optional<Result> made;
    if (i + 1 < problems.size()) {
      made = new_result(x, p.x.dtype, true, p.batch, p.outputs, p.out_frames, p.targets);
      p.out = made->matrix;
      p.out_batch = made->batch_stride;
    }
    const std::shared_ptr<const void> packed = st_block::pack(p, chosen);
    const std::vector<Index> all(static_cast<std::size_t>(p.batch), p.out_frames);
    st_block::run_block(p, chosen.kernels, packed.get(), all);
    before = made;
  }
}

// x [N, C, T, V], of each block st_block's eleven tensors, stride, residual and fast -> [N, O, T_out, W]
Tensor st_blocks_forward(const Tensor& x, Operands operands, std::vector<Index> strides, std::vector<Index> residuals,
                         bool fast) {
  const std::size_t count = strides.size();
  check(count >= 1, kOp, "blocks", "at least one block", "none");
  check(operands.size() == count * kTensors && residuals.size() == count, kOp, "operands",
        std::to_string(kTensors) + " tensors a block, one stride and one residual", operands.size());
  const Activation in = read_activation(kOp, "x", x);
  check(in.joints >= 1 && in.channels >= 1, kOp, "x", "[N, C, T, V] with C, V >= 1", shape_text(x));
  st_block::Reader reader(kOp, x);
  std::vector<Problem> problems(count);
  double work = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Problem& p = problems[i];
    p.batch = in.batch;
    p.frames = i == 0 ? in.frames : problems[i - 1].out_frames;
    p.sources = i == 0 ? in.joints : problems[i - 1].targets;
    p.inputs = i == 0 ? in.channels : problems[i - 1].outputs;
    const auto* at = operands.data() + i * kTensors;
    reader.read_block(p,
                      {required(at[0], "graph_weight"), at[1], required(at[2], "adjacency"), at[3], at[4],
                       required(at[5], "temporal_weight"), at[6], at[7], at[8], at[9], at[10]},
                      residuals[i] != 0, strides[i]);
    p.fast = fast && st_block::fast_pays(p);
    work += st_block::work_of(p, p.batch * p.out_frames);
  }
  const Problem& end = problems.back();
  const Dtype dtype = in.matrix.dtype;
  const Result out =
      new_result(x, dtype, prefers_channels_last(x), end.batch, end.outputs, end.out_frames, end.targets);
  if (in.batch == 0 || end.out_frames == 0) return out.tensor;
  problems.front().x = in.matrix;
  problems.front().x_batch = in.batch_stride;
  problems.back().out = out.matrix;
  problems.back().out_batch = out.batch_stride;

  const st_block::Chosen chosen = st_block::choose_kernels(dtype);
  const Index threads = thread_count();
  const bool even = in.batch % threads == 0 || in.batch >= kManySamples * threads;
  if (!even || work < static_cast<double>(least_work() * threads)) {
    run_together(problems, x, chosen);
    return out.tensor;
  }
  Packing packing(problems, chosen);
  std::atomic<Index> next{0};
  parallel_tasks(threads, [&](Index, Index) {
    packing.finish();
    if (packing.failed()) return;
    for (Index n; (n = next.fetch_add(1)) < in.batch;) run_sample(problems, chosen.kernels, packing, n);
  });
  return out.tensor;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(stgcn_fast, CPU, m) { m.impl("st_blocks", TORCH_BOX(&st_blocks_forward)); }

}  // namespace stgcn_fast
