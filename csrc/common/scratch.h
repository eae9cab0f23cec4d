// Per-thread working memory that is kept between calls, so that a training step does not pay for page faults. It goes
// back when its thread ends, and what exceeds 32 MiB in a slot as soon as much less is asked of that slot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stgcn_fast {

// Slots that may be alive at the same time in one thread. kShared* belong to the thread that calls the op and are read
// by the others; the rest are private to a task.
// kTemporal* belong to temporal_conv/rows.h and kGraph to graph_conv/rows.h, whoever calls them.
enum class Slot {
  kSharedWeight,
  kSharedPartial,
  kInput,
  kOutput,
  kPanel,
  kPointers,
  kAggregate,
  kExtra,
  kTemporalPointers,
  kTemporalPanel,
  kTemporalPlanes,
  kTemporalZeros,
  kGraph,
  kProjected,
  kBetweenEven,
  kBetweenOdd,
  kCount
};

// At least `bytes` bytes aligned to 64, uninitialised, valid until the same thread asks for the same slot again.
void* scratch_bytes(Slot slot, std::size_t bytes);

template <typename T>
T* scratch(Slot slot, std::int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, static_cast<std::size_t>(count) * sizeof(T)));
}

}  // namespace stgcn_fast
