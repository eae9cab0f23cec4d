// One warp's instructions: asynchronous copies, matrix loads and tensor-core products.
//
// Fragment layouts are those of PTX `mma.sync`, with g = lane / 4 and t = lane % 4. Of a 16 x 8 sum a lane holds rows g
// and g + 8, columns 2t and 2t + 1: {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}. Plain multiply-adds keep the same
// layout, so whatever follows a product is the same with tensor cores and without.
#pragma once

#include "element.cuh"

namespace stgcn_fast {
namespace cuda {

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }

#if defined(STGCN_FAST_EMULATION)

inline void copy16_async(void* to, const void* from) { emulation::copy_async(to, from, 16); }
template <typename T>
void copy_or_zero_async(T* to, const T* from, bool there) {
  if (there) {
    emulation::copy_async(to, from, sizeof(T));
  } else {
    *to = T(0);
  }
}
inline void commit_copies() { emulation::commit_copies(); }
template <int kLeft>
void wait_copies() {
  emulation::wait_copies(kLeft);
}

#else

// Shared memory from global memory, past the registers where the hardware can.
__device__ __forceinline__ void copy16_async(void* to, const void* from) {
#if STGCN_FAST_TENSOR_CORES
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(from) : "memory");
#else
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}

// The same for one value of 4 or 8 bytes, zero where `there` does not hold; then nothing is read.
template <typename T>
__device__ __forceinline__ void copy_or_zero_async(T* to, const T* from, bool there) {
#if STGCN_FAST_TENSOR_CORES
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = there ? static_cast<int>(sizeof(T)) : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(address), "l"(from), "n"(sizeof(T)), "r"(bytes)
               : "memory");
#else
  *to = there ? *from : T(0);
#endif
}

__device__ __forceinline__ void commit_copies() {
#if STGCN_FAST_TENSOR_CORES
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Until all of this thread's groups but the newest kLeft are there; a barrier tells the other threads.
template <int kLeft>
__device__ __forceinline__ void wait_copies() {
#if STGCN_FAST_TENSOR_CORES
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kLeft) : "memory");
#endif
}

#endif

// What a 32-bit register of a fragment holds: two 16-bit elements, or a float in tf32.
using Bits = std::uint32_t;

#if STGCN_FAST_TENSOR_CORES || defined(STGCN_FAST_EMULATION)

// Four 8 x 8 matrices of 16-bit elements at once, kCount times over: lane 8j + i points to row i of matrix j. A lane
// gets of matrix j row g, columns 2t and 2t + 1; transposed, column g, rows 2t and 2t + 1.
template <bool kTransposed, int kCount>
__device__ __forceinline__ void load_matrices(Bits (&out)[kCount][4], const void* const (&row)[kCount]) {
#if defined(STGCN_FAST_EMULATION)
  struct Exchange {
    Bits (*out)[4];
    const void* const* row;
  } mine{out, row};
  emulation::warp_meet(&mine, [](void** lanes) {
    for (int n = 0; n < kCount; ++n) {
      for (int lane = 0; lane < kWarp; ++lane) {
        for (int j = 0; j < 4; ++j) {
          std::uint16_t pair[2];
          for (int i = 0; i < 2; ++i) {
            const int r = kTransposed ? lane % 4 * 2 + i : lane / 4, c = kTransposed ? lane / 4 : lane % 4 * 2 + i;
            const void* from = static_cast<Exchange*>(lanes[8 * j + r])->row[n];
            if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
              emulation::fail("a matrix row must start at 16 bytes");
            pair[i] = static_cast<const std::uint16_t*>(from)[c];
          }
          static_cast<Exchange*>(lanes[lane])->out[n][j] = pair[0] | static_cast<Bits>(pair[1]) << 16;
        }
      }
    }
  });
#else
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row[n]));
    if (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                   : "=r"(out[n][0]), "=r"(out[n][1]), "=r"(out[n][2]), "=r"(out[n][3])
                   : "r"(address)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                   : "=r"(out[n][0]), "=r"(out[n][1]), "=r"(out[n][2]), "=r"(out[n][3])
                   : "r"(address)
                   : "memory");
    }
  }
#endif
}

// Rounded to the 10 fraction bits that the tensor cores read.
__device__ __forceinline__ Bits tf32(float value) {
#if defined(STGCN_FAST_EMULATION)
  const Bits bits = __float_as_uint(value);
  return value != value || std::isinf(value) ? bits : (bits + 0x1000) & 0xffffe000u;
#else
  Bits bits;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(value));
  return bits;
#endif
}

// sum[m][n] += a[m] * b[n]: for 16-bit E 16 x 8 x 16, for float (as tf32) 16 x 8 x 8. Of a, registers are (row g, low
// depths), (g + 8, low), (g, high), (g + 8, high); of b, (low, column g), (high, column g). A 16-bit register holds
// depths 2t and 2t + 1 of its half, a tf32 one depth t.
template <typename E, int kM, int kN>
__device__ __forceinline__ void multiply_add(float (&sum)[kM][kN][4], const Bits (&a)[kM][4], const Bits (&b)[kN][2]) {
#if defined(STGCN_FAST_EMULATION)
  struct Exchange {
    float (*sum)[kN][4];
    const Bits (*a)[4];
    const Bits (*b)[2];
  } mine{sum, a, b};
  emulation::warp_meet(&mine, [](void** lanes) {
    constexpr int kPer = 4 / static_cast<int>(sizeof(E)), kHalf = 4 * kPer, kDepth = 2 * kHalf;
    const auto value = [](Bits bits, int i) {
      if constexpr (sizeof(E) == 4) {
        return __uint_as_float(bits);
      } else {
        E element;
        element.bits = static_cast<std::uint16_t>(bits >> 16 * i);
        return widen(element);
      }
    };
    const auto lane_at = [&](int lane) { return static_cast<Exchange*>(lanes[lane]); };
    float left[16][kDepth], right[8][kDepth];
    for (int m = 0; m < kM; ++m) {
      for (int r = 0; r < 16; ++r) {
        for (int k = 0; k < kDepth; ++k) {
          left[r][k] = value(lane_at(r % 8 * 4 + k % kHalf / kPer)->a[m][r / 8 + k / kHalf * 2], k % kPer);
        }
      }
      for (int n = 0; n < kN; ++n) {
        for (int c = 0; c < 8; ++c) {
          for (int k = 0; k < kDepth; ++k) {
            right[c][k] = value(lane_at(c * 4 + k % kHalf / kPer)->b[n][k / kHalf], k % kPer);
          }
        }
        for (int r = 0; r < 16; ++r) {
          for (int c = 0; c < 8; ++c) {
            float& to = lane_at(r % 8 * 4 + c / 2)->sum[m][n][r / 8 * 2 + c % 2];
            for (int k = 0; k < kDepth; ++k) to += left[r][k] * right[c][k];
          }
        }
      }
    }
  });
#else
#define STGCN_FAST_MMA(shape)                                                                                 \
  asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                               \
               : "r"(a[m][0]), "r"(a[m][1]), "r"(a[m][2]), "r"(a[m][3]), "r"(b[n][0]), "r"(b[n][1]))
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      float (&c)[4] = sum[m][n];
      if constexpr (sizeof(E) == 4) {
        STGCN_FAST_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
      } else if constexpr (std::is_same<E, Half>::value) {
        STGCN_FAST_MMA("m16n8k16.row.col.f32.f16.f16.f32");
      } else {
        STGCN_FAST_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
      }
    }
  }
#undef STGCN_FAST_MMA
#endif
}

#endif

}  // namespace cuda
}  // namespace stgcn_fast
