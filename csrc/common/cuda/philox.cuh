// Dropout's factors from a seed and an element's index: common/philox.h on a GPU, bit for bit.
//
// Elements go in groups of 128, which take 16 counters: element 128 g + 16 s + lane has half s % 2 of word s / 2 of
// counter 16 g + lane.
#pragma once

#include "element.cuh"

namespace stgcn_fast {
namespace cuda {

constexpr int kDropoutGroup = 128, kDropoutCounters = 16;

struct Dropout {
  const std::int64_t* seed;  // in device memory
  int threshold;             // a draw of 16 bits below it drops its element; up to 65,536; 0 for no dropout
  double scale;              // of the others
};

// Four words of Philox4x32-10.
struct Words {
  std::uint32_t word[4];

  __device__ bool below(int draw, int threshold) const {
    const std::uint32_t chosen = draw < 4 ? (draw < 2 ? word[0] : word[1]) : (draw < 6 ? word[2] : word[3]);
    return static_cast<int>(draw % 2 == 0 ? chosen & 0xffffu : chosen >> 16) < threshold;
  }
};

__device__ __forceinline__ Words philox(std::uint64_t seed, std::uint64_t counter) {
  constexpr int kRounds = 10;
  constexpr std::uint64_t kMultiplier0 = 0xd2511f53u, kMultiplier1 = 0xcd9e8d57u;
  std::uint32_t low = static_cast<std::uint32_t>(seed), high = static_cast<std::uint32_t>(seed >> 32);
  Words w{{static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0, 0}};
#pragma unroll
  for (int round = 0; round < kRounds; ++round, low += 0x9e3779b9u, high += 0xbb67ae85u) {
    const std::uint64_t p0 = kMultiplier0 * w.word[0], p1 = kMultiplier1 * w.word[2];
    w.word[0] = static_cast<std::uint32_t>(p1 >> 32) ^ w.word[1] ^ low;
    w.word[1] = static_cast<std::uint32_t>(p1);
    w.word[2] = static_cast<std::uint32_t>(p0 >> 32) ^ w.word[3] ^ high;
    w.word[3] = static_cast<std::uint32_t>(p0);
  }
  return w;
}

// Which of the kVector<E> elements from `index` on are dropped, as bits. `shared`: the warp's lanes have successive
// elements, all of them come here, and the first is a multiple of what a warp has; each counter is then drawn once
// (twice for 4 elements a lane, four times for 2).
template <typename E>
__device__ __forceinline__ unsigned dropped(const Dropout& dropout, std::uint64_t seed, Index index, bool shared) {
  constexpr int kCount = kVector<E>;
  unsigned bits = 0;
  if (!shared) {
#pragma unroll 1
    for (int i = 0; i < kCount; ++i) {
      const Index at = index + i, group = at / kDropoutGroup;
      const int within = static_cast<int>(at % kDropoutGroup);
      const Words words =
          philox(seed, static_cast<std::uint64_t>(group * kDropoutCounters + within % kDropoutCounters));
      bits |= static_cast<unsigned>(words.below(within / kDropoutCounters, dropout.threshold)) << i;
    }
    return bits;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, own = lane % kDropoutCounters;
  const Index group = index / kDropoutGroup;
  const int within = static_cast<int>(index % kDropoutGroup);
  const Words words = philox(seed, static_cast<std::uint64_t>(group * kDropoutCounters + own));
#pragma unroll
  for (int draw = 0; draw < 8; ++draw) {
    const unsigned lanes = __ballot_sync(0xffffffffu, words.below(draw, dropout.threshold));
    if (within / kDropoutCounters == draw) bits = lanes;
  }
  // With 8 elements a lane a warp has two groups, drawn by its halves.
  if (kCount == 8) bits >>= lane / kDropoutCounters * kDropoutCounters;
  return bits >> within % kDropoutCounters & ((1u << kCount) - 1);
}

}  // namespace cuda
}  // namespace stgcn_fast
