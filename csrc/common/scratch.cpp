#include "scratch.h"

#include <new>

namespace stgcn_fast {
namespace {

// What a slot keeps whatever it is asked for next; a larger block is given back once much less is wanted.
constexpr std::size_t kKept = std::size_t{32} << 20;
constexpr std::size_t kMuchLess = 4;
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
    const std::size_t wanted = bytes + kSlack;
    if (wanted > size_ || (size_ > kKept && wanted < size_ / kMuchLess)) {
      release();
      data_ = ::operator new(wanted, kAlignment);
      size_ = wanted;
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
