// The bilinear algorithms of the fast temporal convolution: F(m,m), m outputs of a filter of m taps.
//
//   outputs = output(weights' transform * input(frames)),  frames a[0] .. a[2m - 2], taps w[0] .. w[m - 1]
//
// A form has kFrames = m, kPoints products and kReads = 2m - 1 frames. Its first product sees only the first tap; where
// kLastTap is set its last one sees only the last tap. Include only from cpu_kernel.cpp files.
#pragma once

#include <type_traits>

#include "common/simd.h"
#include "temporal_conv/temporal_conv.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace detail {

// One value in every lane, or the value itself.
template <typename V>
[[gnu::always_inline]] inline V scaled(V v, double factor) {
  if constexpr (std::is_floating_point_v<V>) {
    return v * static_cast<V>(factor);
  } else {
    return v * static_cast<std::decay_t<decltype(v[0])>>(factor);
  }
}

// Toom-Cook at the points 0, 1, -1, 2 and infinity: 5 products for 9 (Winograd, Arithmetic Complexity of Computations,
// 1980).
struct ShortForm {
  static constexpr int kFrames = static_cast<int>(kTemporalBlock);
  static constexpr int kPoints = static_cast<int>(kTemporalPoints);
  static constexpr int kReads = 2 * kFrames - 1;

  static constexpr double kWeights[kPoints][kFrames] = {{1.0 / 2, 0, 0},
                                                        {-1.0 / 2, -1.0 / 2, -1.0 / 2},
                                                        {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                                        {1.0 / 6, 2.0 / 6, 4.0 / 6},
                                                        {0, 0, 1}};

  // Calls put(point, value) for points [kFirst, kLast).
  template <int kFirst, int kLast, typename V, typename Put>
  [[gnu::always_inline]] static inline void input(const V* a, const Put& put) {
    if constexpr (kFirst <= 0 && 0 < kLast) put(0, (a[0] - a[2]) + (a[0] - a[2]) + (a[3] - a[1]));
    if constexpr (kFirst <= 1 && 1 < kLast) put(1, (a[3] - a[2]) - (a[1] + a[1]));
    if constexpr (kFirst <= 2 && 2 < kLast) put(2, (a[3] - a[2]) + ((a[1] - a[2]) + (a[1] - a[2])));
    if constexpr (kFirst <= 3 && 3 < kLast) put(3, a[3] - a[1]);
    if constexpr (kFirst <= 4 && 4 < kLast) put(4, (a[4] - a[2]) - ((a[3] - a[1]) + (a[3] - a[1])));
  }

  template <typename V>
  [[gnu::always_inline]] static inline void output(const V* m, V* y) {
    const V sum = m[1] + m[2], twice = m[3] + m[3];
    y[0] = (m[0] + m[3]) + sum;
    y[1] = (m[1] - m[2]) + twice;
    y[2] = (m[4] + (twice + twice)) + sum;
  }
};

// 1 over the product of p's differences to the points 0, -p, ±q and ±r and of p^2 + 1.
constexpr double inverse_of_differences(double p, double qq, double rr) {
  return 1 / (p * (p + p) * (p * p - qq) * (p * p - rr) * (p * p + 1));
}

// Toom-Cook at the points 0, ±a, ±b, ±c and, with three products for two of a polynomial's degrees, modulo x^2 + 1:
// 10 products for 25. Nine real points would be 9 products and four times the error: there the transforms of weights
// and inputs are much larger than what is left of them in the outputs.
struct LongForm {
  static constexpr int kFrames = static_cast<int>(kTemporalLongBlock);
  static constexpr int kPoints = static_cast<int>(kTemporalLongPoints);
  static constexpr int kReads = 2 * kFrames - 1;

  static constexpr double kA = 5.0 / 8, kB = 9.0 / 8, kC = 11.0 / 4;
  static constexpr double kAA = kA * kA, kBB = kB * kB, kCC = kC * kC;

  static constexpr double kOfZero = -1 / (kAA * kBB * kCC);
  static constexpr double kOfA = inverse_of_differences(kA, kBB, kCC);
  static constexpr double kOfB = inverse_of_differences(kB, kAA, kCC);
  static constexpr double kOfC = inverse_of_differences(kC, kAA, kBB);
  static constexpr double kOfUnit = 1 / ((1 + kAA) * (1 + kBB) * (1 + kCC));

  static constexpr double kWeights[kPoints][kFrames] = {
      {kOfZero, 0, 0, 0, 0},
      {kOfA, kOfA * kA, kOfA * kAA, kOfA * kAA * kA, kOfA * kAA * kAA},
      {kOfA, -kOfA * kA, kOfA * kAA, -kOfA * kAA * kA, kOfA * kAA * kAA},
      {kOfB, kOfB * kB, kOfB * kBB, kOfB * kBB * kB, kOfB * kBB * kBB},
      {kOfB, -kOfB * kB, kOfB * kBB, -kOfB * kBB * kB, kOfB * kBB * kBB},
      {kOfC, kOfC * kC, kOfC * kCC, kOfC * kCC * kC, kOfC * kCC * kCC},
      {kOfC, -kOfC * kC, kOfC * kCC, -kOfC * kCC * kC, kOfC * kCC * kCC},
      {kOfUnit, 0, -kOfUnit, 0, kOfUnit},
      {0, kOfUnit, 0, -kOfUnit, 0},
      {-kOfUnit, -kOfUnit, kOfUnit, kOfUnit, -kOfUnit}};

  // (x^2 - qq) (x^2 - rr) (x^2 + tt), its powers of x standing for every other frame.
  template <typename V>
  [[gnu::always_inline]] static inline V cubic(const V* a, double qq, double rr, double tt) {
    return a[6] + scaled(a[4], tt - qq - rr) + scaled(a[2], qq * rr - (qq + rr) * tt) + scaled(a[0], qq * rr * tt);
  }

  template <int kFirst, int kLast, typename V, typename Put>
  [[gnu::always_inline]] static inline void input(const V* a, const Put& put) {
    static_assert(kFirst == 0 && kLast == kPoints, "all points at once");
    put(0, a[8] + scaled(a[6], 1 - kAA - kBB - kCC) + scaled(a[4], kAA * kBB + (kAA + kBB) * kCC - kAA - kBB - kCC) +
               scaled(a[2], kAA * kBB + (kAA + kBB) * kCC - kAA * kBB * kCC) + scaled(a[0], -kAA * kBB * kCC));
    const auto pair = [&](int point, double p, double qq, double rr) {
      const V even = cubic(a + 2, qq, rr, 1), odd = cubic(a + 1, qq, rr, 1);
      put(point, even + scaled(odd, p));
      put(point + 1, even - scaled(odd, p));
    };
    pair(1, kA, kBB, kCC);
    pair(3, kB, kAA, kCC);
    pair(5, kC, kAA, kBB);
    const V one = cubic(a + 1, kAA, kBB, -kCC), next = cubic(a + 2, kAA, kBB, -kCC);
    put(7, one + next);
    put(8, one - next);
    put(9, one);
  }

  template <typename V>
  [[gnu::always_inline]] static inline void output(const V* m, V* y) {
    const V sa = m[1] + m[2], sb = m[3] + m[4], sc = m[5] + m[6];
    const V da = m[1] - m[2], db = m[3] - m[4], dc = m[5] - m[6];
    const V even = m[7] + m[9], odd = m[8] + m[9];
    y[0] = ((m[0] + even) + sa) + (sb + sc);
    y[1] = odd + scaled(da, kA) + scaled(db, kB) + scaled(dc, kC);
    y[2] = scaled(sa, kAA) - even + scaled(sb, kBB) + scaled(sc, kCC);
    y[3] = scaled(da, kAA * kA) - odd + scaled(db, kBB * kB) + scaled(dc, kCC * kC);
    y[4] = even + scaled(sa, kAA * kAA) + scaled(sb, kBB * kBB) + scaled(sc, kCC * kCC);
  }
};

}  // namespace detail
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
