/* Multiply-adds that never leave the registers, at the widest vectors the compiler targets. */
#include <stdint.h>

#if defined(__AVX512F__)
#define BYTES 64
#define REGISTER "+v"
#elif defined(__AVX__)
#define BYTES 32
#define REGISTER "+x"
#elif defined(__x86_64__)
#define BYTES 16
#define REGISTER "+x"
#else
#define BYTES 16
#define REGISTER "+w"
#endif

/* Independent sums, named so that each stays in a register: enough to hide the latency. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CHAINS 12

typedef float Vec __attribute__((vector_size(BYTES)));

#define KEEP(i) __asm__ volatile("" : REGISTER(sum##i));
#define COLLECT(i) *sink += sum##i[0];

/* Return the floating point operations done; what was computed goes to `sink`. */
double peak_float32(int64_t steps, float* sink) {
  Vec a = {0}, b = {0};
  a += 0.5f;
  b += 1e-3f;
#define START(i) Vec sum##i = b;
#define STEP(i) sum##i = sum##i * a + b;
  EACH(START)
  for (int64_t s = 0; s < steps; ++s) {
    EACH(STEP)
    EACH(KEEP)
  }
  EACH(COLLECT)
  return 2.0 * (BYTES / 4) * CHAINS * (double)steps;
}

#if defined(__AVX512BF16__)
#include <immintrin.h>

double peak_bfloat16(int64_t steps, float* sink) {
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  const __m512bh b = (__m512bh)_mm512_set1_epi32(0x3e003e00);
#define START_BF16(i) __m512 sum##i = _mm512_set1_ps(1e-3f);
#define STEP_BF16(i) sum##i = _mm512_dpbf16_ps(sum##i, a, b);
  EACH(START_BF16)
  for (int64_t s = 0; s < steps; ++s) {
    EACH(STEP_BF16)
    EACH(KEEP)
  }
  EACH(COLLECT)
  return 4.0 * 16 * CHAINS * (double)steps;
}
#else
/* Without the instruction bfloat16 is computed as float32. */
double peak_bfloat16(int64_t steps, float* sink) { return peak_float32(steps, sink); }
#endif
