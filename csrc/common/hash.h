// A hash of memory's content at the speed of memory. Include only from cpu_kernel.cpp files.
//
// Each 64-bit word enters three sums of its lane: twice the product of its halves under a key that depends on where the
// word lies (as in UMAC's NH), and once as a coefficient of a polynomial, so that no single changed word can go
// unnoticed. Good against accidents; no protection against someone who looks for collisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace detail {

typedef std::uint64_t Lanes __attribute__((vector_size(kVectorBytes)));

// The product of the two halves of every word.
[[gnu::always_inline]] inline Lanes multiply_halves(Lanes x) {
#if defined(__AVX512F__)
  // Under a full mask: GCC 12 warns about the unmasked form.
  return reinterpret_cast<Lanes>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(x >> 32)));
#elif defined(__AVX2__)
  return reinterpret_cast<Lanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(x >> 32)));
#elif defined(__SSE2__)
  return reinterpret_cast<Lanes>(_mm_mul_epu32(reinterpret_cast<__m128i>(x), reinterpret_cast<__m128i>(x >> 32)));
#else
  return (x & 0xffffffffu) * (x >> 32);
#endif
}

// A bijection in which every bit of the input reaches every bit of the output (the finaliser of MurmurHash3).
inline std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
  return x ^ x >> 33;
}

}  // namespace detail

// Adds `bytes` bytes at `data` to the 128 bits of `state`.
inline void add_to_hash(std::uint64_t* state, const void* data, std::size_t bytes) {
  using detail::Lanes;
  constexpr int kWords = kVectorBytes / 8;
  std::uint64_t seeds[2 * kWords];
  for (int i = 0; i < 2 * kWords; ++i) seeds[i] = detail::mixed(0x9e3779b97f4a7c15u * static_cast<unsigned>(i + 1));
  // The polynomials of even and odd words take turns: one alone would wait for its own result.
  Lanes key[2], sums[4] = {};
  std::memcpy(key, seeds, sizeof(key));
  const auto add = [&](const void* from, Lanes& polynomial) {
    Lanes word;
    std::memcpy(&word, from, sizeof(word));
    sums[0] += detail::multiply_halves(word ^ key[0]);
    sums[1] += detail::multiply_halves(word + key[1]);
    polynomial += (polynomial << 5) + word;
    key[0] += 0x9e3779b97f4a7c15u;
    key[1] += 0xd1b54a32d192ed03u;
  };
  const char* from = static_cast<const char*>(data);
  std::size_t i = 0;
  for (; i + 2 * kVectorBytes <= bytes; i += 2 * kVectorBytes) {
    add(from + i, sums[2]);
    add(from + i + kVectorBytes, sums[3]);
  }
  if (i < bytes) {
    char last[2 * kVectorBytes] = {};
    std::memcpy(last, from + i, bytes - i);
    add(last, sums[2]);
    add(last + kVectorBytes, sums[3]);
  }
  state[0] = detail::mixed(state[0] ^ bytes);
  std::uint64_t lanes[4 * kWords];
  std::memcpy(lanes, sums, sizeof(lanes));
  for (std::uint64_t lane : lanes) {
    state[0] = detail::mixed(state[0] ^ lane);
    state[1] = detail::mixed(state[1] + state[0] + lane * 0x9e3779b97f4a7c15u);
  }
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
