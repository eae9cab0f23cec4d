// The element types of activations and the type each is computed in: bfloat16 and float16 widen to float on the way in
// and round to nearest even on the way out. Include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

struct BFloat16 {
  std::uint16_t bits;
};

struct Float16 {
  std::uint16_t bits;
};

// Whether products of bfloat16 are computed as such. Where not, bfloat16 is widened before anything is computed.
#if defined(__AVX512BF16__)
inline constexpr bool kComputesBFloat16 = true;
#else
inline constexpr bool kComputesBFloat16 = false;
#endif

template <>
struct Accumulator<BFloat16> {
  using type = float;
};

template <>
struct Accumulator<Float16> {
  using type = float;
};

// Elements of E that one vector of sums answers to.
template <>
inline constexpr int kLanes<BFloat16> = kLanes<float>;
template <>
inline constexpr int kLanes<Float16> = kLanes<float>;

namespace detail {

inline std::uint32_t bits_of(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof(u));
  return u;
}

inline float float_of(std::uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof(x));
  return x;
}

// A vector of the same bits.
template <typename To, typename From>
[[gnu::always_inline]] inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "vectors of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

typedef std::uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t Masks __attribute__((vector_size(kVectorBytes)));
typedef std::uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
typedef std::uint16_t UnalignedHalves __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

}  // namespace detail

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return detail::float_of(static_cast<std::uint32_t>(x.bits) << 16); }

inline float widen(Float16 x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 31u, mantissa = x.bits & 0x3ffu;
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  const std::uint32_t magnitude = exponent == 0    ? detail::bits_of(subnormal)
                                  : exponent == 31 ? 0x7f800000u | mantissa << 13
                                                   : (exponent + 112) << 23 | mantissa << 13;
  return detail::float_of(sign | magnitude);
}

inline void narrow(float x, float& out) { out = x; }
inline void narrow(double x, double& out) { out = x; }

// A NaN stays a NaN.
inline void narrow(float x, BFloat16& out) {
  const std::uint32_t u = detail::bits_of(x);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  out.bits = static_cast<std::uint16_t>(nan ? (u >> 16 | 0x40u) : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

inline void narrow(float x, Float16& out) {
  const std::uint32_t u = detail::bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  // Below 2^-14 float16 is fixed point with step 2^-24, which is float32's own step in [0.5, 1).
  const std::uint32_t subnormal = detail::bits_of(detail::float_of(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  const std::uint32_t value = magnitude > 0x7f800000u    ? 0x7e00u
                              : magnitude >= 0x477ff000u ? 0x7c00u
                              : magnitude < 0x38800000u  ? subnormal
                                                         : normal;
  out.bits = static_cast<std::uint16_t>(sign | value);
}

// kLanes<E> neighbouring elements, widened.
[[gnu::always_inline]] inline Vec<float> load_row(const float* p) { return load(p); }
[[gnu::always_inline]] inline Vec<double> load_row(const double* p) { return load(p); }

[[gnu::always_inline]] inline Vec<float> load_row(const BFloat16* p) {
#if defined(__AVX512F__)
  // GCC 12 would widen the two halves of the vector one by one. Under a full mask: it warns about the unmasked form.
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return detail::same_bits<Vec<float>>(detail::same_bits<detail::Words>(wide) << 16);
#else
  const detail::Halves halves = *reinterpret_cast<const detail::UnalignedHalves*>(p);
  return detail::same_bits<Vec<float>>(__builtin_convertvector(halves, detail::Words) << 16);
#endif
}

inline Vec<float> load_row(const Float16* p) {
#if defined(__AVX512F__)
  // Under a full mask: GCC 12 warns about the unmasked form.
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
  alignas(kVectorBytes) float wide[kLanes<float>];
  for (int i = 0; i < kLanes<float>; ++i) wide[i] = widen(p[i]);
  return load(wide);
#endif
}

// kLanes<E> neighbouring elements, rounded.
[[gnu::always_inline]] inline void store_row(float* p, Vec<float> v) { store(p, v); }
[[gnu::always_inline]] inline void store_row(double* p, Vec<double> v) { store(p, v); }

[[gnu::always_inline]] inline void store_row(BFloat16* p, Vec<float> v) {
#if defined(__AVX512BF16__)
  // The instruction takes subnormal numbers for zero, as the products do.
  const detail::Halves halves = detail::same_bits<detail::Halves>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v)));
#else
  const detail::Words u = detail::same_bits<detail::Words>(v);
  const detail::Masks nan = detail::same_bits<detail::Masks>(u & 0x7fffffffu) > 0x7f800000;
  const detail::Words rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, quiet = u >> 16 | 0x40u;
  const detail::Words bits = nan ? quiet : rounded;
  const detail::Halves halves = __builtin_convertvector(bits, detail::Halves);
#endif
  *reinterpret_cast<detail::UnalignedHalves*>(p) = halves;
}

inline void store_row(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(p),
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  alignas(kVectorBytes) float wide[kLanes<float>];
  store(wide, v);
  for (int i = 0; i < kLanes<float>; ++i) narrow(wide[i], p[i]);
#endif
}

// The first `count` < kLanes<E> elements of a vector; the others read as zero and are not written.
template <typename E>
inline Vec<Acc<E>> load_part(const E* p, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(E) == 4) {
    return reinterpret_cast<Vec<Acc<E>>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p));
  } else if constexpr (sizeof(E) == 8) {
    return reinterpret_cast<Vec<Acc<E>>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p));
  }
#endif
  E whole[kLanes<E>] = {};
  for (int i = 0; i < count; ++i) whole[i] = p[i];
  return load_row(whole);
}

template <typename E>
inline void store_part(E* p, Vec<Acc<E>> v, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(E) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(v));
    return;
  } else if constexpr (sizeof(E) == 8) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), reinterpret_cast<__m512d>(v));
    return;
  }
#endif
  E whole[kLanes<E>];
  store_row(whole, v);
  for (int i = 0; i < count; ++i) p[i] = whole[i];
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
