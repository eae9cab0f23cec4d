// torch's thread pool, the only one the kernels use.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace stgcn_fast {

inline std::int64_t thread_count() { return static_cast<std::int64_t>(torch::stable::get_num_threads()); }

// Calls run(begin, end) on contiguous, evenly sized pieces of [0, tasks), at most one per thread.
template <typename Run>
void parallel_tasks(std::int64_t tasks, const Run& run) {
  if (tasks <= 0) return;
  if (tasks == 1) {
    run(std::int64_t{0}, std::int64_t{1});
    return;
  }
  torch::stable::parallel_for(0, tasks, 1, run);
}

// Multiply-adds of a thread's share below which another one does not pay. OpenMP's threads spin for a while after a
// parallel region unless they are told to sleep: one that spins is there in a microsecond or two, one that sleeps
// has to be woken by the system. 0.75 and 9 million take about 6 and 70 microseconds.
inline std::int64_t least_work() {
  static const std::int64_t work = [] {
    const char* policy = std::getenv("OMP_WAIT_POLICY");
    const bool asleep = policy != nullptr && (policy[0] == 'P' || policy[0] == 'p');
    return std::int64_t{asleep ? 9'000'000 : 750'000};
  }();
  return work;
}

// The same for tasks of `work` multiply-adds altogether: fewer, larger pieces where they would be too small.
template <typename Run>
void parallel_tasks(std::int64_t tasks, double work, const Run& run) {
  if (tasks <= 0) return;
  const double grain = static_cast<double>(least_work()) * static_cast<double>(tasks) / std::max(work, 1.0);
  if (grain >= static_cast<double>(tasks)) {
    run(std::int64_t{0}, tasks);
    return;
  }
  torch::stable::parallel_for(0, tasks, std::max<std::int64_t>(1, static_cast<std::int64_t>(grain)), run);
}

// Into how many pieces to cut each of `samples` samples of `frames` frames so that every thread has the same share.
// `target` is the number of frames that keeps a piece in cache, `least` the fewest worth a piece.
inline std::int64_t pieces_per_sample(std::int64_t samples, std::int64_t frames, std::int64_t target,
                                      std::int64_t least) {
  if (samples <= 0 || frames <= 0) return 1;
  const std::int64_t threads = thread_count();
  const std::int64_t most = std::max<std::int64_t>(1, frames / std::max<std::int64_t>(1, least));
  const std::int64_t wanted = std::min(most, std::max<std::int64_t>(1, (frames + target - 1) / target));
  // With many pieces per thread an uneven division costs little.
  constexpr std::int64_t kEvenEnough = 8;
  for (std::int64_t pieces = wanted; pieces <= std::min(most, wanted + threads); ++pieces) {
    if (samples * pieces % threads == 0 || samples * pieces >= kEvenEnough * threads) return pieces;
  }
  return std::min(most, std::max(wanted, threads));
}

}  // namespace stgcn_fast
