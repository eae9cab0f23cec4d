#include "scratch.h"

#include <new>

namespace stgcn_fast {
namespace {

// Room to read or write one whole vector past the end.
constexpr std::size_t kSlack = 64;
constexpr std::align_val_t kAlignment{64};

class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { release(); }

  void* reserve(std::size_t bytes) {
    if (bytes + kSlack > size_) {
      release();
      data_ = ::operator new(bytes + kSlack, kAlignment);
      size_ = bytes + kSlack;
    }
    return data_;
  }

 private:
  void release() {
    if (data_ != nullptr) ::operator delete(data_, kAlignment);
    data_ = nullptr;
    size_ = 0;
  }

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace

void* scratch_bytes(Slot slot, std::size_t bytes) {
  thread_local Block blocks[static_cast<int>(Slot::kCount)];
  return blocks[static_cast<int>(slot)].reserve(bytes);
}

}  // namespace stgcn_fast
