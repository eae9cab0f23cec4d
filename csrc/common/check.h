// Argument errors, worded as in Python: "<op>: <argument> must be <rule>, got <value>".
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

namespace stgcn_fast {

inline std::string shape_text(const torch::stable::Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (std::int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

template <typename Value>
void check(bool ok, const char* op, const char* argument, const std::string& rule, const Value& got) {
  if (ok) return;
  std::ostringstream text;
  text << op << ": " << argument << " must be " << rule << ", got " << got;
  throw std::runtime_error(text.str());
}

}  // namespace stgcn_fast
