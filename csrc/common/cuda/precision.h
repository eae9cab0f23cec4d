// Whether torch allows float32 products in tf32: a setting of Python's, asked for on every call.
#pragma once

#include <atomic>

namespace stgcn_fast {
namespace cuda {

inline std::atomic<bool (*)()> tf32_query{nullptr};

// None has been named: no.
inline bool tf32_allowed() {
  bool (*const query)() = tf32_query.load();
  return query != nullptr && query();
}

}  // namespace cuda
}  // namespace stgcn_fast
