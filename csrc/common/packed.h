// Weights in the layout that kernels read, packed once and kept for as long as what they were packed from reads the
// same. What is compared is the content of the memory, not a version number: however the weights were changed (an
// optimiser, load_state_dict, .data, NumPy), the next call packs them again.
//
//   const auto packed = packed_weights("temporal_conv.f32", {outputs, inputs, taps}, {{weight, weight_bytes}},
//                                      bytes, [&](void* to) { kernels.pack(problem, to); });
//   problem.packed = packed.get();  // valid, and unchanged, while `packed` lives
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>

namespace stgcn_fast {

// What the packing reads: the whole span of a strided tensor. Null with no bytes for an operand that is not there.
// Sources that are made anew for each call are not `named`: their address does not tell one layer from another.
struct PackedSource {
  const void* data;
  std::size_t bytes;
  bool named = true;
};

// `bytes` bytes, aligned to 64, that `pack` filled from `sources`. Kept under `kind`, `geometry` (all that shapes the
// packing besides the sources), the instruction set and the addresses of the named sources; without a named one, under
// the content itself. New content goes to the same memory if no one holds it, so that a training step allocates
// nothing. Any thread may call; two calls for the same weights pack once. `pack` must not call this function.
std::shared_ptr<const void> packed_weights(const char* kind, std::initializer_list<std::int64_t> geometry,
                                           std::initializer_list<PackedSource> sources, std::size_t bytes,
                                           const std::function<void(void*)>& pack);

// What contents are compared by.
struct ContentHash {
  std::uint64_t state[2] = {0, 0};
  void add(const void* data, std::size_t bytes);
  bool operator==(const ContentHash& other) const { return state[0] == other.state[0] && state[1] == other.state[1]; }
};

// Bytes kept. What 4,096 calls have not asked for goes, and beyond 256 MiB what was not used for longest.
std::size_t packed_bytes();

// How often `pack` has run in this process.
std::size_t packed_count();

// Forgets everything; what callers hold stays valid.
void packed_clear();

}  // namespace stgcn_fast
