// Which instruction set the CPU kernels run with: the best of the machine, or lower when STGCN_FAST_CPU_CAPABILITY
// says.
#pragma once

namespace stgcn_fast {

enum class Capability { kDefault, kAvx2, kAvx512, kAvx512Bf16 };

// "default", "avx2", "avx512", "avx512_bf16".
const char* name_of(Capability capability);

// The best this machine offers.
Capability detected_capability();

// The one in use. A setting above what the machine offers, or an unknown one, leaves the detected one in force.
Capability capability();

// What is wrong with STGCN_FAST_CPU_CAPABILITY; empty when nothing is.
const char* capability_problem();

// The instruction set of the kernels that `capability()` selects among those compiled in.
Capability kernel_capability();

// Whether the kernels chosen compute products of bfloat16 as such, so that tables may offer kernels for it.
bool computes_bfloat16();

// Declares `Table name()` once per compiled instruction set; cpu_kernel.cpp defines it in namespace STGCN_FAST_ISA.
#define STGCN_FAST_DECLARE_ONE_(isa, Table, name) \
  namespace isa {                                 \
  const Table& name();                            \
  }

#if defined(STGCN_FAST_X86)
#if defined(STGCN_FAST_AVX512_BF16)
#define STGCN_FAST_DECLARE_BF16_(Table, name) STGCN_FAST_DECLARE_ONE_(isa_avx512_bf16, Table, name)
#define STGCN_FAST_SELECT_BF16_(name) \
  ::stgcn_fast::kernel_capability() == ::stgcn_fast::Capability::kAvx512Bf16 ? ::stgcn_fast::isa_avx512_bf16::name():
#else
#define STGCN_FAST_DECLARE_BF16_(Table, name)
#define STGCN_FAST_SELECT_BF16_(name)
#endif
#define STGCN_FAST_DECLARE_KERNELS(Table, name)     \
  STGCN_FAST_DECLARE_ONE_(isa_default, Table, name) \
  STGCN_FAST_DECLARE_ONE_(isa_avx2, Table, name)    \
  STGCN_FAST_DECLARE_ONE_(isa_avx512, Table, name)  \
  STGCN_FAST_DECLARE_BF16_(Table, name)
#define STGCN_FAST_SELECT_KERNELS(name)                                                                    \
  (STGCN_FAST_SELECT_BF16_(name)::stgcn_fast::kernel_capability() == ::stgcn_fast::Capability::kAvx512     \
       ? ::stgcn_fast::isa_avx512::name()                                                                  \
   : ::stgcn_fast::kernel_capability() == ::stgcn_fast::Capability::kAvx2 ? ::stgcn_fast::isa_avx2::name() \
                                                                          : ::stgcn_fast::isa_default::name())
#else
#define STGCN_FAST_DECLARE_KERNELS(Table, name) STGCN_FAST_DECLARE_ONE_(isa_default, Table, name)
#define STGCN_FAST_SELECT_KERNELS(name) (::stgcn_fast::isa_default::name())
#endif

}  // namespace stgcn_fast
