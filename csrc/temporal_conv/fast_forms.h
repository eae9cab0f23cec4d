// The bilinear algorithms of the fast temporal convolution: F(m,m), m outputs of a filter of m taps, and what every
// form has.
//
//   outputs = output(weights' transform * input(frames)),  frames a[0] .. a[2m - 2], taps w[0] .. w[m - 1]
//
// A form has kFrames outputs of kTaps taps, kPoints products and kReads = kFrames + kTaps - 1 frames. Its first product
// sees only the first tap; where kLastTap is set its last one sees only the last tap. Include only from cpu_kernel.cpp
// files.
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
  static constexpr int kTaps = kFrames;
  static constexpr int kReads = kFrames + kTaps - 1;

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
  static constexpr int kTaps = kFrames;
  static constexpr int kReads = kFrames + kTaps - 1;

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

struct Complex {
  double re, im;
};

constexpr Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

constexpr Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }

// A polynomial in x^2.
struct Squares {
  static constexpr int kTerms = 9;
  double at[kTerms];

  // Times square * x^4 + linear * x^2 + constant; the degree must fit.
  constexpr Squares times(double constant, double linear, double square = 0) const {
    Squares result{};
    for (int i = 0; i < kTerms; ++i) {
      result.at[i] = constant * at[i] + (i > 0 ? linear * at[i - 1] : 0) + (i > 1 ? square * at[i - 2] : 0);
    }
    return result;
  }

  constexpr Complex value(Complex squared) const {
    Complex sum{0, 0};
    for (int i = kTerms - 1; i >= 0; --i) sum = sum * squared + Complex{at[i], 0};
    return sum;
  }
};

// The points of F(9,9): 0, ±p for three p, and where x is ±z or ±i on the unit circle, for two z.
struct Circle {
  static constexpr int kReals = 3, kQuads = 2, kPoints = 1 + 2 * kReals + 6 * kQuads + 3, kFrames = 9;
  static constexpr double kReal[kReals] = {13.0 / 16, 17.0 / 16, 2};
  static constexpr Complex kQuad[kQuads] = {{0.8, 0.6}, {0.4375, 0.89921840505759}};

  Squares zero, real[kReals], unit, quad[kQuads];  // the product of all other points' factors
  double weights[kPoints][kFrames];
  // What of an output's transform of x^0 and x^1 of the quotient by (x - z) (x - conj(z)) each of a z's products is.
  double first[kQuads + 1][3], second[kQuads + 1][3];
};

constexpr Circle make_circle() {
  Circle c{};
  const auto others = [](int real, int quad, bool unit) {
    Squares product{{1}};
    for (int i = 0; i < Circle::kReals; ++i) {
      if (i != real) product = product.times(-Circle::kReal[i] * Circle::kReal[i], 1);
    }
    for (int i = 0; i < Circle::kQuads; ++i) {
      if (i != quad) product = product.times(1, 2 - 4 * Circle::kQuad[i].re * Circle::kQuad[i].re, 1);
    }
    return unit ? product.times(1, 1) : product;
  };
  c.zero = others(-1, -1, true);
  c.weights[0][0] = 1 / c.zero.at[0];
  for (int i = 0; i < Circle::kReals; ++i) {
    const double p = Circle::kReal[i];
    c.real[i] = others(i, -1, true);
    double power = 1 / (2 * p * p * c.real[i].value({p * p, 0}).re);
    for (int k = 0; k < Circle::kFrames; ++k, power *= p) {
      c.weights[1 + 2 * i][k] = power;
      c.weights[2 + 2 * i][k] = k % 2 == 0 ? power : -power;
    }
  }
  c.unit = others(-1, -1, false);
  for (int i = 0; i <= Circle::kQuads; ++i) {
    const bool unit = i == Circle::kQuads;
    const Complex z = unit ? Complex{0, 1} : Circle::kQuad[i];
    if (!unit) c.quad[i] = others(-1, i, true);
    // x times what is left of the points' polynomial without z and its conjugate, at z.
    const Complex rest =
        z * (unit ? c.unit.value(z * z) : c.quad[i].value(z * z) * (z * z + z * Complex{2 * z.re, 0} + Complex{1, 0}));
    const double norm = rest.re * rest.re + rest.im * rest.im;
    const Complex inverse{rest.re / norm, -rest.im / norm};
    // Real and imaginary part of a product of two numbers from the products of real parts, imaginary parts and sums.
    const Complex sums[3] = {{1, -1}, {-1, -1}, {0, 1}};
    for (int j = 0; j < 3; ++j) {
      const Complex value = sums[j] * inverse;
      c.second[i][j] = value.im / z.im;
      c.first[i][j] = value.re - z.re * c.second[i][j];
    }
    Complex power{1, 0};
    for (int k = 0; k < Circle::kFrames; ++k, power = power * z) {
      const double parts[3] = {power.re, power.im, power.re + power.im};
      for (int j = 0; j < 3; ++j) {
        if (unit) {
          c.weights[Circle::kPoints - 3 + j][k] = parts[j];
        } else {
          double (*pair)[Circle::kFrames] = c.weights + 1 + 2 * Circle::kReals + 6 * i + 2 * j;
          pair[0][k] = parts[j];
          pair[1][k] = k % 2 == 0 ? parts[j] : -parts[j];
        }
      }
    }
  }
  return c;
}

inline constexpr Circle kCircle = make_circle();

// Toom-Cook at the points of Circle: 22 products for 81. A z and its conjugate are one real polynomial of degree two,
// for which three products do. On the unit circle powers neither grow nor vanish: seventeen real points would lose all
// digits.
struct WholeForm {
  static constexpr int kFrames = static_cast<int>(kTemporalWholeBlock);
  static constexpr int kPoints = static_cast<int>(kTemporalWholePoints);
  static constexpr int kTaps = kFrames;
  static constexpr int kReads = kFrames + kTaps - 1;
  static_assert(kFrames == Circle::kFrames && kPoints == Circle::kPoints, "the form of these points");

  static constexpr auto& kWeights = kCircle.weights;

  // Every other frame times the coefficients of a polynomial.
  template <int kTerms, typename V>
  [[gnu::always_inline]] static inline V dot(const V* a, const Squares& polynomial) {
    V sum = scaled(a[0], polynomial.at[0]);
#pragma GCC unroll 9
    for (int i = 1; i < kTerms; ++i) sum += scaled(a[2 * i], polynomial.at[i]);
    return sum;
  }

  template <int kFirst, int kLast, typename V, typename Put>
  [[gnu::always_inline]] static inline void input(const V* a, const Put& put) {
    static_assert(kFirst == 0 && kLast == kPoints, "all points at once");
    put(0, dot<9>(a, kCircle.zero));
    int point = 1;
    const auto pair = [&](V even, V odd) {
      put(point++, even + odd);
      put(point++, even - odd);
    };
#pragma GCC unroll 3
    for (int i = 0; i < Circle::kReals; ++i) {
      pair(dot<8>(a + 2, kCircle.real[i]), scaled(dot<8>(a + 1, kCircle.real[i]), Circle::kReal[i]));
    }
#pragma GCC unroll 2
    for (int i = 0; i < Circle::kQuads; ++i) {
      const V one = dot<7>(a + 1, kCircle.quad[i]), two = dot<7>(a + 2, kCircle.quad[i]);
      const V three = dot<7>(a + 3, kCircle.quad[i]), four = dot<7>(a + 4, kCircle.quad[i]);
      const double twice = 2 * Circle::kQuad[i].re;
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        const double first = kCircle.first[i][j], second = kCircle.second[i][j];
        pair(scaled(two, first * twice + second) + scaled(four, second),
             scaled(three, first + second * twice) + scaled(one, first));
      }
    }
    const V one = dot<8>(a + 1, kCircle.unit), two = dot<8>(a + 2, kCircle.unit);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      put(point++, scaled(one, kCircle.first[Circle::kQuads][j]) + scaled(two, kCircle.second[Circle::kQuads][j]));
    }
  }

  template <typename V>
  [[gnu::always_inline]] static inline void output(const V* m, V* y) {
    constexpr int kTerms = Circle::kReals + 2 * Circle::kQuads;
    // Sums and differences of a pair of points serve even and odd frames.
    V terms[2][kTerms];
#pragma GCC unroll 3
    for (int i = 0; i < Circle::kReals; ++i) {
      terms[0][i] = m[1 + 2 * i] + m[2 + 2 * i];
      terms[1][i] = m[1 + 2 * i] - m[2 + 2 * i];
    }
#pragma GCC unroll 2
    for (int i = 0; i < Circle::kQuads; ++i) {
      const V* p = m + 1 + 2 * Circle::kReals + 6 * i;
      const V sum = p[4] + p[5], difference = p[4] - p[5];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        terms[0][Circle::kReals + 2 * i + j] = (p[2 * j] + p[2 * j + 1]) + sum;
        terms[1][Circle::kReals + 2 * i + j] = (p[2 * j] - p[2 * j + 1]) + difference;
      }
    }
    const V* unit = m + kPoints - 3;
    const V parts[2] = {unit[0] + unit[2], unit[1] + unit[2]};
#pragma GCC unroll 9
    for (int f = 0; f < kFrames; ++f) {
      // Powers of i.
      V sum = f % 4 < 2 ? parts[f % 2] : -parts[f % 2];
      if (f == 0) sum += m[0];
#pragma GCC unroll 7
      for (int i = 0; i < kTerms; ++i) {
        double factor = 1;
        if (i < Circle::kReals) {
          for (int k = 0; k < f; ++k) factor *= Circle::kReal[i];
        } else {
          const int quad = (i - Circle::kReals) / 2, part = (i - Circle::kReals) % 2;
          factor = kWeights[1 + 2 * Circle::kReals + 6 * quad + 2 * part][f];
        }
        if (factor != 0) sum += scaled(terms[f % 2][i], factor);
      }
      y[f] = sum;
    }
  }
};

}  // namespace detail
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
