#include "packed.h"

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "packed_kernels.h"
#include "slabs.h"

namespace stgcn_fast {
namespace {

constexpr std::size_t kMostBytes = std::size_t{256} << 20;
// Calls for other weights after which an entry goes: several steps of the largest networks. Weights computed anew in
// every step have new addresses and are never asked for again.
constexpr std::uint64_t kMostIdleCalls = 4096;

class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : data_(slab_take(bytes + 64)), bytes_(bytes + 64) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { slab_give(data_, bytes_); }

  void* data() const { return data_; }
  bool held() const { return holders_.load(std::memory_order_acquire) != 0; }

  static std::shared_ptr<const void> lend(const std::shared_ptr<Buffer>& buffer) {
    buffer->holders_.fetch_add(1, std::memory_order_relaxed);
    return {buffer->data_, [buffer](const void*) { buffer->holders_.fetch_sub(1, std::memory_order_release); }};
  }

 private:
  void* data_;
  std::size_t bytes_;
  std::atomic<std::int64_t> holders_{0};
};

struct Key {
  std::string kind;
  std::vector<std::int64_t> numbers;  // geometry, then addresses or content
  bool operator<(const Key& other) const { return std::tie(kind, numbers) < std::tie(other.kind, other.numbers); }
};

// `lock` covers all but what the cache below keeps for itself.
struct Entry {
  explicit Entry(std::size_t size) : bytes(size) {}

  std::mutex lock;
  const std::size_t bytes;
  bool filled = false;
  ContentHash content;
  std::shared_ptr<Buffer> buffer;
};

class Cache {
 public:
  std::shared_ptr<Entry> find(const Key& key, std::size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock_);
    ++calls_;
    while (!entries_.empty() && calls_ - entries_.back().used > kMostIdleCalls) drop_last();
    const auto found = places_.find(key);
    if (found != places_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      entries_.front().used = calls_;
      return entries_.front().entry;
    }
    const auto entry = std::make_shared<Entry>(bytes);
    if (bytes > kMostBytes) return entry;
    entries_.push_front({key, entry, calls_});
    places_.emplace(key, entries_.begin());
    bytes_ += bytes;
    while (bytes_ > kMostBytes) drop_last();
    return entry;
  }

  std::size_t bytes() {
    const std::lock_guard<std::mutex> guard(lock_);
    return bytes_;
  }

  void clear() {
    const std::lock_guard<std::mutex> guard(lock_);
    places_.clear();
    entries_.clear();
    bytes_ = 0;
  }

  void acquire() { lock_.lock(); }
  void release() { lock_.unlock(); }

 private:
  struct Place {
    Key key;
    std::shared_ptr<Entry> entry;
    std::uint64_t used;  // calls_ when it was last asked for
  };
  using Entries = std::list<Place>;

  void drop_last() {
    bytes_ -= entries_.back().entry->bytes;
    places_.erase(entries_.back().key);
    entries_.pop_back();
  }

  std::mutex lock_;
  std::uint64_t calls_ = 0;
  Entries entries_;  // latest used first
  std::map<Key, Entries::iterator> places_;
  std::size_t bytes_ = 0;
};

std::atomic<std::size_t> packings{0};

// Never destroyed: threads may outlive static objects.
Cache* current = new Cache;

#if defined(__unix__) || defined(__APPLE__)
// A child has none of the threads that may hold an entry's lock: it starts with nothing and leaves the old cache be.
[[maybe_unused]] const int registered = pthread_atfork(
    [] {
      current->acquire();
      slabs_acquire();
    },
    [] {
      slabs_release();
      current->release();
    },
    [] {
      slabs_release();
      current = new Cache;
    });
#endif

}  // namespace

std::shared_ptr<const void> packed_weights(const char* kind, std::initializer_list<std::int64_t> geometry,
                                           std::initializer_list<PackedSource> sources, std::size_t bytes,
                                           const std::function<void(void*)>& pack) {
  ContentHash content;
  Key key{kind, geometry};
  key.numbers.push_back(static_cast<std::int64_t>(kernel_capability()));
  key.numbers.push_back(static_cast<std::int64_t>(bytes));
  bool named = false;
  for (const PackedSource& source : sources) {
    content.add(source.data, source.bytes);
    if (!source.named) continue;
    named = true;
    key.numbers.push_back(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(source.data)));
  }
  if (!named) {
    for (std::uint64_t word : content.state) key.numbers.push_back(static_cast<std::int64_t>(word));
  }
  const std::shared_ptr<Entry> entry = current->find(key, bytes);
  const std::lock_guard<std::mutex> guard(entry->lock);
  if (!entry->filled || !(entry->content == content)) {
    entry->filled = false;
    if (entry->buffer == nullptr || entry->buffer->held()) entry->buffer = std::make_shared<Buffer>(bytes);
    pack(entry->buffer->data());
    packings.fetch_add(1, std::memory_order_relaxed);
    entry->content = content;
    entry->filled = true;
  }
  return Buffer::lend(entry->buffer);
}

void ContentHash::add(const void* data, std::size_t bytes) {
  STGCN_FAST_SELECT_KERNELS(packed_kernels).add_to_hash(state, data, bytes);
}

std::size_t packed_bytes() { return current->bytes(); }

std::size_t packed_count() { return packings.load(std::memory_order_relaxed); }

void packed_clear() { current->clear(); }

}  // namespace stgcn_fast
