// The Python module `_cuda`: says how it was built, and lets Python say whether tf32 is allowed. Loading it registers
// the CUDA kernels. It is a library of its own, so that the CPU kernels load wherever CUDA is absent or broken.
#include <pybind11/pybind11.h>

#include "common/cuda/precision.h"

namespace py = pybind11;

namespace {

#define STGCN_FAST_TEXT_(x) #x
#define STGCN_FAST_TEXT(x) STGCN_FAST_TEXT_(x)

py::dict build_info() {
  py::dict info;
  info["nvcc"] = STGCN_FAST_TEXT(STGCN_FAST_NVCC);
  info["architectures"] = STGCN_FAST_TEXT(STGCN_FAST_ARCHITECTURES);
  info["build_torch"] = STGCN_FAST_TEXT(STGCN_FAST_BUILD_TORCH);
  return info;
}

PyObject* query = nullptr;

// Ops run without the interpreter's lock.
bool ask() {
  if (!Py_IsInitialized()) return false;
  const py::gil_scoped_acquire lock;
  return query != nullptr && py::reinterpret_borrow<py::object>(query)().cast<bool>();
}

void set_tf32_query(const py::object& callable) {
  Py_XDECREF(query);
  query = callable.inc_ref().ptr();
  stgcn_fast::cuda::tf32_query = &ask;
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "Compiled CUDA kernels of stgcn_fast.";
  module.def("build_info", &build_info, "nvcc, architectures, and the torch version built against.");
  module.def("set_tf32_query", &set_tf32_query, "Name the function that says whether float32 products may use tf32.");
}
