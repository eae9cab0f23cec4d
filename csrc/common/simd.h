// Fixed-width vectors over the compiler's vector extensions. The width follows the instruction set that the translation
// unit is compiled for, so everything here lives in a namespace named after it: include only from cpu_kernel.cpp files.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef STGCN_FAST_ISA
#error "STGCN_FAST_ISA must name the instruction set this file is compiled for"
#endif

namespace stgcn_fast {
namespace STGCN_FAST_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct Vector;

template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Vector<T>::type;

// What elements of E are summed in.
template <typename E>
struct Accumulator {
  using type = E;
};

template <typename E>
using Acc = typename Accumulator<E>::type;

// Elements of T in one vector.
template <typename T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
[[gnu::always_inline]] inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Vector<T>::unaligned*>(p);
}

template <typename T>
[[gnu::always_inline]] inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Vector<T>::unaligned*>(p) = v;
}

// x - 0 is x for every x, so this is one broadcast.
template <typename T>
[[gnu::always_inline]] inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// Negatives become zero; a NaN stays one: of two operands of which one is a NaN the instruction returns the second.
template <typename T>
[[gnu::always_inline]] inline Vec<T> rectified(Vec<T> v) {
#if defined(__AVX512F__)
  // Under full masks: GCC 12 warns about the unmasked forms.
  if constexpr (sizeof(T) == 4) {
    return reinterpret_cast<Vec<T>>(_mm512_maskz_max_ps(0xffff, __m512{}, reinterpret_cast<__m512>(v)));
  } else {
    return reinterpret_cast<Vec<T>>(_mm512_maskz_max_pd(0xff, __m512d{}, reinterpret_cast<__m512d>(v)));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return reinterpret_cast<Vec<T>>(_mm256_max_ps(__m256{}, reinterpret_cast<__m256>(v)));
  } else {
    return reinterpret_cast<Vec<T>>(_mm256_max_pd(__m256d{}, reinterpret_cast<__m256d>(v)));
  }
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) {
    return reinterpret_cast<Vec<T>>(_mm_max_ps(__m128{}, reinterpret_cast<__m128>(v)));
  } else {
    return reinterpret_cast<Vec<T>>(_mm_max_pd(__m128d{}, reinterpret_cast<__m128d>(v)));
  }
#else
  return v < Vec<T>{} ? Vec<T>{} : v;
#endif
}

// Keeps a loaded value in a register. Without it GCC folds the load into each multiply-add that uses it, and the load
// ports, not the multipliers, then set the pace.
template <typename V>
[[gnu::always_inline]] inline void pin(V& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

}  // namespace STGCN_FAST_ISA
}  // namespace stgcn_fast
