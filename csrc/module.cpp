// The Python module `_C`: says how it was built and what it runs on. Loading it registers the CPU kernels.
#include <pybind11/pybind11.h>
#include <torch/csrc/stable/version.h>

#include <string_view>

#include "common/capability.h"
#include "common/packed.h"

namespace py = pybind11;

namespace {

#define STGCN_FAST_TEXT_(x) #x
#define STGCN_FAST_TEXT(x) STGCN_FAST_TEXT_(x)

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "Clang " __clang_version__;
#else
  info["compiler"] = "GCC " __VERSION__;
#endif
  // 0xMMmmpp at the top of the word: the oldest torch this binary loads in.
  const unsigned long long target = TORCH_TARGET_VERSION;
  info["torch_target"] = std::to_string(target >> 56 & 0xff) + "." + std::to_string(target >> 48 & 0xff);
  info["build_torch"] = STGCN_FAST_TEXT(STGCN_FAST_BUILD_TORCH);
  py::list capabilities;
  capabilities.append("default");
#if defined(STGCN_FAST_X86)
  capabilities.append("avx2");
  capabilities.append("avx512");
#endif
#if defined(STGCN_FAST_AVX512_BF16)
  capabilities.append("avx512_bf16");
#endif
  info["capabilities"] = capabilities;
  return info;
}

py::dict cpu_capability() {
  py::dict info;
  info["detected"] = stgcn_fast::name_of(stgcn_fast::detected_capability());
  info["used"] = stgcn_fast::name_of(stgcn_fast::capability());
  info["kernels"] = stgcn_fast::name_of(stgcn_fast::kernel_capability());
  info["problem"] = stgcn_fast::capability_problem();
  return info;
}

// For the tests: what decides whether weights are packed again.
py::tuple content_hash(const py::bytes& content) {
  const std::string_view bytes = content;
  stgcn_fast::ContentHash hash;
  hash.add(bytes.data(), bytes.size());
  return py::make_tuple(hash.state[0], hash.state[1]);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled CPU kernels of stgcn_fast.";
  module.def("build_info", &build_info,
             "Compiler, torch version built against, oldest torch supported, instruction sets.");
  module.def("packed_bytes", &stgcn_fast::packed_bytes, "Bytes of packed weights that are kept.");
  module.def("packed_count", &stgcn_fast::packed_count, "How often weights have been packed in this process.");
  module.def("clear_packed", &stgcn_fast::packed_clear, "Forget all packed weights.");
  module.def("content_hash", &content_hash, "The 128 bits that the content of weights is compared by.");
  module.def("cpu_capability", &cpu_capability, "Instruction set of this machine, in use, and of the kernels chosen.");
}
