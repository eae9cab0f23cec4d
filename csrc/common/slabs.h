// Memory of small pieces that live long among large ones that come and go. Taken from the general allocator one by
// one they would end up between activations, and every step of a training would leave holes that nothing fits into.
#pragma once

#include <cstddef>

namespace stgcn_fast {

// At least `bytes` bytes, aligned to 64; above a quarter of a megabyte from the general allocator. What comes back is
// kept for pieces of about its size (up to an eighth more) and never returned to the system. Any thread may call; a
// forked child goes on with its copy.
void* slab_take(std::size_t bytes);
void slab_give(void* piece, std::size_t bytes);  // the bytes it was taken with

// Of both sides of fork().
void slabs_acquire();
void slabs_release();

}  // namespace stgcn_fast
