// Factors of dropout from a counter-based generator: Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3", 2011) keyed by a seed. Any stretch of a tensor can be drawn again, by any thread, on any instruction set.
//
// Elements go in groups of 128, which take 16 counters: element 128 g + 16 s + lane has half s % 2 of word s / 2 of
// counter 16 g + lane. stgcn_fast/ops/_dropout.py draws the same. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>

#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// Elements that are drawn together.
inline constexpr int kDropoutGroup = 128;

// A draw of 16 bits below `threshold` drops its element, the others are scaled.
struct Dropout {
  std::uint64_t seed;
  std::int32_t threshold;  // up to 65,536; 0 for no dropout
  float scale;
};

namespace philox {

inline constexpr int kCounters = 16;
inline constexpr int kRounds = 10;
inline constexpr int kVectorCounters = kVectorBytes / 8;
// Vectors that are in flight together: a product waits for the one before.
inline constexpr int kTogether = 2;

// One counter's word in the lower half of each lane; the upper half is not looked at.
typedef std::uint64_t Lanes __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t Ints __attribute__((vector_size(kVectorBytes / 2)));
typedef float Floats __attribute__((vector_size(kVectorBytes / 2)));
typedef Floats UnalignedFloats __attribute__((aligned(4), may_alias));

// The product of the lower halves.
[[gnu::always_inline]] inline Lanes multiply(Lanes a, std::uint64_t b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lanes>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(static_cast<long long>(b))));
#elif defined(__AVX2__)
  return reinterpret_cast<Lanes>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(static_cast<long long>(b))));
#elif defined(__x86_64__)
  return reinterpret_cast<Lanes>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(static_cast<long long>(b))));
#else
  return (a & 0xffffffffu) * b;
#endif
}

// Keys of all rounds.
struct Keys {
  std::uint64_t key[kRounds][2];

  explicit Keys(std::uint64_t seed) {
    std::uint32_t low = static_cast<std::uint32_t>(seed), high = static_cast<std::uint32_t>(seed >> 32);
    for (int i = 0; i < kRounds; ++i, low += 0x9e3779b9u, high += 0xbb67ae85u) {
      key[i][0] = low;
      key[i][1] = high;
    }
  }
};

}  // namespace philox

// out[i] = factor of element 128 * group + i, for `groups` groups.
[[gnu::noinline]] inline void dropout_factors(const Dropout& dropout, std::int64_t group, std::int64_t groups,
                                              float* out) {
  using namespace philox;
  constexpr std::uint64_t kMultiplier0 = 0xd2511f53u, kMultiplier1 = 0xcd9e8d57u;
  const Keys keys(dropout.seed);
  const Ints threshold = Ints{} + dropout.threshold;
  const Floats scale = Floats{} + dropout.scale;
  Lanes first[kTogether];
  for (int j = 0; j < kTogether; ++j) {
    for (int i = 0; i < kVectorCounters; ++i) first[j][i] = static_cast<std::uint64_t>(j * kVectorCounters + i);
  }
  for (std::int64_t g = group; g < group + groups; ++g, out += kDropoutGroup) {
    for (int lane = 0; lane < kCounters; lane += kTogether * kVectorCounters) {
      Lanes word[kTogether][4];
#pragma GCC unroll 2
      for (int j = 0; j < kTogether; ++j) {
        const Lanes counter = first[j] + static_cast<std::uint64_t>(g * kCounters + lane);
        word[j][0] = counter;
        word[j][1] = counter >> 32;
        word[j][2] = word[j][3] = Lanes{};
      }
#pragma GCC unroll 10
      for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 2
        for (int j = 0; j < kTogether; ++j) {
          Lanes* w = word[j];
          const Lanes p0 = multiply(w[0], kMultiplier0), p1 = multiply(w[2], kMultiplier1);
          w[0] = (p1 >> 32) ^ w[1] ^ keys.key[round][0];
          w[1] = p1;
          w[2] = (p0 >> 32) ^ w[3] ^ keys.key[round][1];
          w[3] = p0;
        }
      }
#pragma GCC unroll 2
      for (int j = 0; j < kTogether; ++j) {
        float* to = out + lane + j * kVectorCounters;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const Ints low = __builtin_convertvector(word[j][i] & 0xffffu, Ints);
          const Ints high = __builtin_convertvector((word[j][i] >> 16) & 0xffffu, Ints);
          *reinterpret_cast<UnalignedFloats*>(to + 2 * i * kCounters) = low < threshold ? Floats{} : scale;
          *reinterpret_cast<UnalignedFloats*>(to + (2 * i + 1) * kCounters) = high < threshold ? Floats{} : scale;
        }
      }
    }
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
