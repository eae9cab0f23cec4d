#include "slabs.h"

#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace stgcn_fast {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr std::size_t kSlab = std::size_t{1} << 20;
constexpr std::size_t kLargest = kSlab / 4;

// Eight sizes between a power of two and the next: what is freed serves another layer, and little is wasted.
std::size_t rounded(std::size_t bytes) {
  std::size_t step = 64;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

struct Slabs {
  std::mutex lock;
  std::map<std::size_t, std::vector<void*>> free;
  char* next = nullptr;
  std::size_t left = 0;
};

// Never destroyed: threads may outlive static objects.
Slabs& slabs() {
  static Slabs* const one = new Slabs;
  return *one;
}

}  // namespace

void* slab_take(std::size_t bytes) {
  if (bytes > kLargest) return ::operator new(bytes, kAlignment);
  const std::size_t size = rounded(bytes);
  Slabs& all = slabs();
  const std::lock_guard<std::mutex> guard(all.lock);
  std::vector<void*>& free = all.free[size];
  if (!free.empty()) {
    void* const piece = free.back();
    free.pop_back();
    return piece;
  }
  if (all.left < size) {
    all.next = static_cast<char*>(::operator new(kSlab, kAlignment));
    all.left = kSlab;
  }
  void* const piece = all.next;
  all.next += size;
  all.left -= size;
  return piece;
}

void slab_give(void* piece, std::size_t bytes) {
  if (bytes > kLargest) {
    ::operator delete(piece, kAlignment);
    return;
  }
  Slabs& all = slabs();
  const std::lock_guard<std::mutex> guard(all.lock);
  all.free[rounded(bytes)].push_back(piece);
}

void slabs_acquire() { slabs().lock.lock(); }
void slabs_release() { slabs().lock.unlock(); }

}  // namespace stgcn_fast
