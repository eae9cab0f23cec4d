// exp and tanh of whole vectors, to a few units in the last place. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>

#include "convert.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

// How an exponent becomes a power of two: `shift` rounds to whole numbers, whose bits then stand at its low end.
template <typename T>
struct Power;

template <>
struct Power<float> {
  typedef std::int32_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr float shift = 12582912.0f;  // 1.5 * 2^23
  static constexpr std::int32_t shift_bits = 0x4b400000, bias = 127, mantissa = 23;
  static constexpr float log_high = 0.693359375f, log_low = -2.12194440e-4f;  // their sum is log(2)
  static constexpr int terms = 8;
  static constexpr float least = -87, most_tanh = 10;
};

template <>
struct Power<double> {
  typedef std::int64_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr double shift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr std::int64_t shift_bits = 0x4338000000000000, bias = 1023, mantissa = 52;
  static constexpr double log_high = 6.93145751953125e-1, log_low = 1.42860682030941723212e-6;
  static constexpr int terms = 14;
  static constexpr double least = -700, most_tanh = 20;
};

namespace detail {

// x = n log(2) + f: the power 2^n, and exp(f) - 1 by Taylor's series, |f| <= log(2) / 2.
template <typename T>
[[gnu::always_inline]] inline Vec<T> exponential_parts(Vec<T> x, Vec<T>& power) {
  using P = Power<T>;
  constexpr double kInverse[] = {
      1,           1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,        1.0 / 5040,
      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800, 1.0 / 87178291200};
  const Vec<T> shifted = x * T(1.44269504088896340736) + P::shift;
  const Vec<T> n = shifted - P::shift;
  const Vec<T> f = x - n * P::log_high - n * P::log_low;
  Vec<T> sum = broadcast(static_cast<T>(kInverse[P::terms - 1]));
#pragma GCC unroll 16
  for (int i = P::terms - 2; i >= 0; --i) sum = sum * f + static_cast<T>(kInverse[i]);
  power = same_bits<Vec<T>>((same_bits<typename P::Bits>(shifted) - P::shift_bits + P::bias) << P::mantissa);
  return sum * f;
}

}  // namespace detail

// For x up to zero; what is far below gives the smallest numbers, a NaN stays one.
template <typename T>
[[gnu::always_inline]] inline Vec<T> exponential(Vec<T> x) {
  const Vec<T> least = broadcast(Power<T>::least);
  Vec<T> power;
  const Vec<T> part = detail::exponential_parts<T>(x < least ? least : x, power);
  return part * power + power;
}

template <typename T>
[[gnu::always_inline]] inline Vec<T> hyperbolic_tangent(Vec<T> x) {
  const Vec<T> most = broadcast(Power<T>::most_tanh);
  x = x > most ? most : x;
  x = x < -most ? -most : x;
  Vec<T> power;
  const Vec<T> part = detail::exponential_parts<T>(x + x, power);
  const Vec<T> grown = part * power + (power - T(1));  // exp(2 x) - 1
  return grown / (grown + T(2));
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
