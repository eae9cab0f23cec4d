// What tiles report of a channel becomes statistics, gradients by a normalisation's weight and bias, and coefficients.
// Reports are added in an order that shapes alone decide, in double.
#pragma once

#include "passes.cuh"

namespace stgcn_fast {
namespace cuda {

// Neighbouring threads read neighbouring channels; the slots share the reports, which the second-level cache holds. Few
// channels a block: the reports of a layer are thousands, and what counts is how few follow each other in a thread.
constexpr int kMergeChannels = 4, kMergeSlots = 128, kMergeThreads = kMergeChannels * kMergeSlots;
constexpr int kMergeBytes = kMergeThreads * static_cast<int>(sizeof(double));

// How many rows a report is of, as convolutions are cut (graph_conv/host.cuh, temporal_conv/host.cuh): by phase, run
// and tile of a run. A launch has fewer than 2^31 blocks.
struct Reports {
  int count, phase, tiles;  // reports in all, in a phase, in a run
  int long_phases;          // the first so many phases have long runs
  Index tile_rows, long_rows, short_rows;

  __device__ Index rows_of(int report) const {
    const Index rows = report / phase < long_phases ? long_rows : short_rows;
    const Index left = rows - report % tiles * tile_rows;
    return left < 0 ? 0 : left < tile_rows ? left : tile_rows;
  }
};

// Runs of `frames` frames, of which a phase has every `step`-th.
inline Reports reports_of(Index phases, Index runs, Index tiles, Index tile_rows, Index frames, Index step,
                          int joints) {
  const Index rows = ceil_div(frames, step) * joints, rest = frames % step;
  return {static_cast<int>(phases * runs * tiles),
          static_cast<int>(runs * tiles),
          static_cast<int>(tiles),
          static_cast<int>(rest == 0 ? phases : rest),
          tile_rows,
          rows,
          rows - joints};
}

// Reports that all count.
inline Reports plain_reports(Index count) { return reports_of(1, count, 1, 1, 1, 1, 1); }

// One normalisation: its parameters, and what is known of what it normalises.
template <typename A>
struct Norm {
  const A* weight;
  const A* bias;
  double eps;
  A* statistics;    // [2][channels]: mean and biased variance
  A* coefficients;  // [kCoefficients][row]
  int channels, row;

  __device__ double inverse(int c) const { return 1 / sqrt(static_cast<double>(statistics[channels + c]) + eps); }
  __device__ void set(Coefficient kind, int c, double value) const {
    coefficients[kind * row + c] = static_cast<A>(value);
  }
  // From the statistics; zeros where no channel is.
  __device__ void set_scale(int c) const {
    double scale = 0, shift = 0, mean = 0;
    if (c < channels) {
      mean = static_cast<double>(statistics[c]);
      scale = static_cast<double>(weight[c]) * inverse(c);
      shift = static_cast<double>(bias[c]) - scale * mean;
    }
    set(kScale, c, scale);
    set(kShift, c, shift);
    set(kMean, c, mean);
  }
};

// The sum of the slots' values, to all threads of a channel.
__device__ __forceinline__ double sum_slots(double value, double* shared) {
  const int thread = static_cast<int>(threadIdx.x), slot = thread / kMergeChannels;
  __syncthreads();  // the sum before has been read
  shared[thread] = value;
  for (int half = kMergeSlots / 2; half >= 1; half /= 2) {
    __syncthreads();
    if (slot < half) shared[thread] += shared[thread + half * kMergeChannels];
  }
  __syncthreads();
  return shared[thread % kMergeChannels];
}

// from [reports][2][row], mean and squared deviation -> statistics and scale, shift and mean of the normalisation
// (Chan, Golub and LeVeque 1979).
template <typename A>
__global__ void __launch_bounds__(kMergeThreads)
    merge_moments(const Norm<A> norm, const Reports reports, const A* from) {
  STGCN_FAST_SHARED(memory);
  double* const shared = reinterpret_cast<double*>(memory);
  const int c = static_cast<int>(blockIdx.x) * kMergeChannels + static_cast<int>(threadIdx.x) % kMergeChannels;
  const int slot = static_cast<int>(threadIdx.x) / kMergeChannels;
  // Around the first report's mean, so that nothing cancels.
  const double pivot = static_cast<double>(from[c]);
  double rows = 0, sum = 0, squares = 0;
#pragma unroll 4
  for (int i = slot; i < reports.count; i += kMergeSlots) {
    const A* at = from + static_cast<Index>(i) * 2 * norm.row + c;
    const double n = static_cast<double>(reports.rows_of(i)), apart = static_cast<double>(at[0]) - pivot;
    rows += n;
    sum += n * apart;
    squares += static_cast<double>(at[norm.row]) + n * apart * apart;
  }
  rows = sum_slots(rows, shared);
  const double apart = sum_slots(sum, shared) / rows, mean = pivot + apart;
  const double variance = sum_slots(squares, shared) / rows - apart * apart;
  if (slot != 0) return;
  if (c < norm.channels) {
    norm.statistics[c] = static_cast<A>(mean);
    norm.statistics[norm.channels + c] = static_cast<A>(variance < 0 ? 0 : variance);
  }
  norm.set_scale(c);
}

template <typename A>
__global__ void set_normalisation(const Norm<A> norm) {
  const int step = static_cast<int>(gridDim.x * blockDim.x);
  for (int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); c < norm.row; c += step) norm.set_scale(c);
}

// from [reports][kinds][width], sums of g and g (value - mean) as kinds `first` and `first` + 1 -> gradients by weight
// and bias, and the coefficients of the gradient by what is normalised; `rows` of it were.
template <typename A>
__global__ void __launch_bounds__(kMergeThreads)
    merge_sums(const Norm<A> norm, const Reports reports, const A* from, int kinds, int first, int width, double rows,
               A* by_weight, A* by_bias) {
  STGCN_FAST_SHARED(memory);
  double* const shared = reinterpret_cast<double*>(memory);
  const int c = static_cast<int>(blockIdx.x) * kMergeChannels + static_cast<int>(threadIdx.x) % kMergeChannels;
  double sum = 0, product = 0;
  const int slot = static_cast<int>(threadIdx.x) / kMergeChannels, count = c < norm.channels ? reports.count : 0;
#pragma unroll 4
  for (int i = slot; i < count; i += kMergeSlots) {
    const A* at = from + (static_cast<Index>(i) * kinds + first) * width + c;
    const bool written = reports.rows_of(i) > 0;
    sum += written ? static_cast<double>(at[0]) : 0;
    product += written ? static_cast<double>(at[width]) : 0;
  }
  sum = sum_slots(sum, shared);
  product = sum_slots(product, shared);
  if (slot != 0) return;
  double by_grad = 0, by_value = 0, constant = 0;
  if (c < norm.channels) {
    const double inverse = norm.inverse(c);
    by_grad = static_cast<double>(norm.weight[c]) * inverse;
    by_value = -by_grad * inverse * inverse * product / rows;
    constant = -by_grad * sum / rows - by_value * static_cast<double>(norm.statistics[c]);
    by_weight[c] = static_cast<A>(product * inverse);
    by_bias[c] = static_cast<A>(sum);
  }
  norm.set(kByGrad, c, by_grad);
  norm.set(kByValue, c, by_value);
  norm.set(kConstant, c, constant);
}

}  // namespace cuda
}  // namespace stgcn_fast
