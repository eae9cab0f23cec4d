#include "capability.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace stgcn_fast {
namespace {

constexpr Capability kAll[] = {Capability::kDefault, Capability::kAvx2, Capability::kAvx512, Capability::kAvx512Bf16};

#if defined(STGCN_FAST_AVX512_BF16)
constexpr Capability kBestCompiled = Capability::kAvx512Bf16;
#else
constexpr Capability kBestCompiled = Capability::kAvx512;
#endif

struct Choice {
  Capability detected;
  Capability used;
  std::string problem;
};

Capability detect() {
#if defined(STGCN_FAST_X86)
  // These also ask whether the operating system saves the wide registers.
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return Capability::kDefault;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))) {
    return Capability::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? Capability::kAvx512Bf16 : Capability::kAvx512;
#else
  return Capability::kDefault;
#endif
}

Choice choose() {
  Choice choice{detect(), detect(), ""};
  const char* wanted = std::getenv("STGCN_FAST_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') return choice;
  for (Capability candidate : kAll) {
    if (std::strcmp(wanted, name_of(candidate)) != 0) continue;
    if (candidate <= choice.detected) {
      choice.used = candidate;
    } else {
      choice.problem = std::string("STGCN_FAST_CPU_CAPABILITY must be at most '") + name_of(choice.detected) +
                       "' on this machine, got '" + wanted + "'";
    }
    return choice;
  }
  choice.problem =
      std::string("STGCN_FAST_CPU_CAPABILITY must be default, avx2, avx512 or avx512_bf16, got '") + wanted + "'";
  return choice;
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

const char* name_of(Capability capability) {
  switch (capability) {
    case Capability::kAvx2:
      return "avx2";
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx512Bf16:
      return "avx512_bf16";
    default:
      return "default";
  }
}

Capability detected_capability() { return choice().detected; }

Capability capability() { return choice().used; }

const char* capability_problem() { return choice().problem.c_str(); }

Capability kernel_capability() {
  const Capability used = capability();
  return used < kBestCompiled ? used : kBestCompiled;
}

bool computes_bfloat16() { return kernel_capability() == Capability::kAvx512Bf16; }

}  // namespace stgcn_fast
