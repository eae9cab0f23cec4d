// The form of the fast temporal convolution whose outputs are rounded to bfloat16: F(10, r), ten outputs of a filter of
// r taps from r + 9 products, at real points alone.
//
// Toom-Cook at 0, kPairs pairs ±p and infinity (Winograd, Arithmetic Complexity of Computations, 1980), so r = 2 *
// kPairs - 7. Rounding errors of float32 grow 390 times for nine taps and 61 times for five (root mean square over
// those of the direct form), bfloat16 is 65,536 times as coarse; float16, 8,192 times, would lose a tenth of its
// accuracy. The points are close to those that minimise the growth, and reciprocal to one another. Members are as in
// fast_forms.h. Include only from cpu_kernel.cpp files.
#pragma once

#include "temporal_conv/fast_forms.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {
namespace detail {

template <int kPairs>
struct RealPoints;

template <>
struct RealPoints<8> {
  static constexpr double kAt[] = {1.0 / 4, 1.0 / 2, 5.0 / 7, 9.0 / 10, 10.0 / 9, 7.0 / 5, 2, 4};
};

template <>
struct RealPoints<6> {
  static constexpr double kAt[] = {5.0 / 16, 3.0 / 5, 7.0 / 8, 8.0 / 7, 5.0 / 3, 16.0 / 5};
};

template <int kPairs>
struct RealTransforms {
  static constexpr int kFrames = static_cast<int>(kTemporalRoundedBlock), kPoints = 2 * kPairs + 2;
  static constexpr int kTaps = kPoints - kFrames + 1;
  // Of x^(2 i): the product of x^2 - p^2 over all pairs, and over all but one. Their signs alternate, so that none is
  // what two large numbers leave.
  double all[kPairs + 1], others[kPairs][kPairs];
  double weights[kPoints][kTaps], powers[kPairs][kFrames];
};

template <int kPairs>
constexpr RealTransforms<kPairs> make_real_transforms() {
  constexpr auto& kAt = RealPoints<kPairs>::kAt;
  RealTransforms<kPairs> made{};
  for (int left = 0; left <= kPairs; ++left) {
    double product[kPairs + 1] = {1};
    for (int i = 0; i < kPairs; ++i) {
      if (i == left) continue;
      for (int k = kPairs; k >= 0; --k) product[k] = (k > 0 ? product[k - 1] : 0) - kAt[i] * kAt[i] * product[k];
    }
    for (int k = 0; k < kPairs + (left == kPairs); ++k) {
      (left == kPairs ? made.all : made.others[left])[k] = product[k];
    }
  }
  made.weights[0][0] = 1 / made.all[0];
  made.weights[made.kPoints - 1][made.kTaps - 1] = 1;
  for (int i = 0; i < kPairs; ++i) {
    double value = 0, power = 1;
    for (int k = kPairs - 1; k >= 0; --k) value = value * kAt[i] * kAt[i] + made.others[i][k];
    for (int k = 0; k < made.kTaps; ++k, power *= kAt[i]) {
      const double weight = power / (2 * kAt[i] * kAt[i] * value);
      made.weights[1 + 2 * i][k] = weight;
      made.weights[2 + 2 * i][k] = k % 2 == 0 ? weight : -weight;
    }
    power = 1;
    for (int f = 0; f < made.kFrames; ++f, power *= kAt[i]) made.powers[i][f] = power;
  }
  return made;
}

template <int kPairs>
inline constexpr RealTransforms<kPairs> kRealTransforms = make_real_transforms<kPairs>();

template <int kPairs>
struct RoundedForm {
  static constexpr int kFrames = RealTransforms<kPairs>::kFrames;
  static constexpr int kTaps = RealTransforms<kPairs>::kTaps;
  static constexpr int kPoints = RealTransforms<kPairs>::kPoints;
  static constexpr int kReads = kFrames + kTaps - 1;
  static constexpr auto& kTransforms = kRealTransforms<kPairs>;
  static constexpr auto& kWeights = kTransforms.weights;

  // Every other frame times the coefficients of a polynomial in x^2.
  template <int kTerms, typename V>
  [[gnu::always_inline]] static inline V dot(const V* a, const double* polynomial) {
    V sum = scaled(a[0], polynomial[0]);
#pragma GCC unroll 9
    for (int i = 1; i < kTerms; ++i) sum += scaled(a[2 * i], polynomial[i]);
    return sum;
  }

  template <int kFirst, int kLast, typename V, typename Put>
  [[gnu::always_inline]] static inline void input(const V* a, const Put& put) {
    static_assert(kFirst == 0 && kLast == kPoints, "all points at once");
    put(0, dot<kPairs + 1>(a, kTransforms.all));
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i) {
      const V even = dot<kPairs>(a + 2, kTransforms.others[i]), odd = dot<kPairs>(a + 1, kTransforms.others[i]);
      put(1 + 2 * i, even + scaled(odd, RealPoints<kPairs>::kAt[i]));
      put(2 + 2 * i, even - scaled(odd, RealPoints<kPairs>::kAt[i]));
    }
    put(kPoints - 1, dot<kPairs + 1>(a + 1, kTransforms.all));
  }

  template <typename V>
  [[gnu::always_inline]] static inline void output(const V* m, V* y) {
#pragma GCC unroll 10
    for (int f = 0; f < kFrames; ++f) y[f] = f == 0 ? m[0] : f == kFrames - 1 ? m[kPoints - 1] : V{};
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i) {
      const V sum = m[1 + 2 * i] + m[2 + 2 * i], difference = m[1 + 2 * i] - m[2 + 2 * i];
#pragma GCC unroll 10
      for (int f = 0; f < kFrames; ++f) y[f] += scaled(f % 2 == 0 ? sum : difference, kTransforms.powers[i][f]);
    }
  }
};

}  // namespace detail
}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
