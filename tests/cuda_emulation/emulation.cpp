#include "emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {
namespace {

constexpr std::size_t kStack = 256 << 10;

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

enum class State { kReady, kBarrier, kWarp, kDone };

struct Fibre {
  ucontext_t context;
  jmp_buf jump;
  bool started = false;
  State state = State::kReady;
  Place place{};
  const char* file = nullptr;
  int line = 0;
  std::vector<std::vector<Copy>> copies{1};  // groups, the open one last
};

struct Warp {
  int lanes = 0, arrived = 0;
  void* slots[kWarp] = {};
};

struct Machine {
  std::vector<std::unique_ptr<Fibre>> fibres;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<char[]>> stacks;
  const std::function<void()>* kernel = nullptr;
  Fibre* running = nullptr;
  ucontext_t home{};
  jmp_buf home_jump{};
  std::unique_ptr<char, decltype(&std::free)> shared{nullptr, &std::free};
  std::string failure;
  const void* home_stack = nullptr;
  std::size_t home_stack_bytes = 0;
};

Machine machine;
std::mutex mutex;
int thread_order = 0;

// Contexts are made once; from then on plain jumps, which leave the signal mask alone, switch twenty times as fast. The
// address sanitizer follows the slow way only.
#if defined(__SANITIZE_ADDRESS__)
void go_home(bool last) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, machine.home_stack, machine.home_stack_bytes);
  swapcontext(&machine.running->context, &machine.home);
  __sanitizer_finish_switch_fiber(fake, &machine.home_stack, &machine.home_stack_bytes);
}
void resume(Fibre& fibre) {
  machine.running = &fibre;
  fibre.started = true;
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fibre.context.uc_stack.ss_sp, fibre.context.uc_stack.ss_size);
  swapcontext(&machine.home, &fibre.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
#else
__attribute__((noinline)) void go_home(bool) {
  if (_setjmp(machine.running->jump) == 0) _longjmp(machine.home_jump, 1);
}
__attribute__((noinline)) void resume(Fibre& fibre) {
  machine.running = &fibre;
  if (_setjmp(machine.home_jump) != 0) return;
  if (fibre.started) _longjmp(fibre.jump, 1);
  fibre.started = true;
  setcontext(&fibre.context);
}
#endif

void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.home_stack, &machine.home_stack_bytes);
#endif
  (*machine.kernel)();
  machine.running->state = State::kDone;
  go_home(true);
}

__attribute__((noinline)) void make_context(Fibre& fibre, char* stack) {
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = stack;
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, run_thread, 0);
}

void wait_as(State state) {
  machine.running->state = state;
  go_home(false);
}

// Lets everyone pass once all that are left have come to the barrier.
bool open_barrier() {
  Fibre* first = nullptr;
  for (const auto& fibre : machine.fibres) {
    if (fibre->state == State::kDone) continue;
    if (fibre->state != State::kBarrier) return false;
    if (first == nullptr) first = fibre.get();
    if (fibre->line != first->line || std::strcmp(fibre->file, first->file) != 0) {
      throw std::runtime_error("emulation: threads wait at different barriers, " + std::string(first->file) + ":" +
                               std::to_string(first->line) + " and " + fibre->file + ":" + std::to_string(fibre->line));
    }
  }
  for (const auto& fibre : machine.fibres) {
    if (fibre->state == State::kBarrier) fibre->state = State::kReady;
  }
  return first != nullptr;
}

void run_block(std::mt19937& chance) {
  std::vector<int> order(machine.fibres.size());
  std::iota(order.begin(), order.end(), 0);
  if (thread_order == 1) std::reverse(order.begin(), order.end());
  for (bool left = true; left;) {
    if (thread_order > 1) std::shuffle(order.begin(), order.end(), chance);
    bool moved = false;
    left = false;
    for (const int i : order) {
      Fibre& fibre = *machine.fibres[static_cast<std::size_t>(i)];
      if (fibre.state == State::kReady) {
        resume(fibre);
        moved = true;
        if (!machine.failure.empty()) throw std::runtime_error("emulation: " + std::exchange(machine.failure, ""));
      }
      left = left || fibre.state != State::kDone;
    }
    if (left && !moved && !open_barrier()) {
      throw std::runtime_error("emulation: threads wait for others that do not come, at a barrier or in a warp");
    }
  }
}

}  // namespace

const Place& place() { return machine.running->place; }
void* shared_memory() { return machine.shared.get(); }
void set_order(int order) { thread_order = order; }

void fail(const char* what) {
  machine.failure = what;
  go_home(true);
  std::abort();
}

void block_barrier(const char* file, int line) {
  machine.running->file = file;
  machine.running->line = line;
  wait_as(State::kBarrier);
}

void warp_meet(void* mine, const std::function<void(void**)>& compute) {
  const int linear = machine.running->place.linear;
  Warp& warp = machine.warps[static_cast<std::size_t>(linear / kWarp)];
  warp.slots[linear % kWarp] = mine;
  if (++warp.arrived < warp.lanes) return wait_as(State::kWarp);
  if (warp.lanes == kWarp) compute(warp.slots);
  warp.arrived = 0;
  const int first = linear / kWarp * kWarp;
  for (int lane = 0; lane < warp.lanes; ++lane) {
    machine.fibres[static_cast<std::size_t>(first + lane)]->state = State::kReady;
  }
}

// In order, at once; in the other orders, as late as may be: hardware does either.
void copy_async(void* to, const void* from, int bytes) {
  if (thread_order == 0) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  } else {
    machine.running->copies.back().push_back({to, from, bytes});
  }
}
void commit_copies() { machine.running->copies.emplace_back(); }
void wait_copies(int newest_left) {
  auto& groups = machine.running->copies;
  while (static_cast<int>(groups.size()) - 1 > newest_left) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    groups.erase(groups.begin());
  }
}

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> lock(mutex);
  const int threads = static_cast<int>(block.x * block.y * block.z);
  if (threads == 0 || threads > 1024 || threads % kWarp != 0) {
    throw std::runtime_error("emulation: a block must be of whole warps and at most 1,024 threads, got " +
                             std::to_string(threads));
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) {
    throw std::runtime_error("emulation: the grid is empty or too large");
  }
  if (shared_bytes > 227 << 10) throw std::runtime_error("emulation: too much shared memory is asked for");
  machine.kernel = &kernel;
  while (static_cast<int>(machine.stacks.size()) < threads) machine.stacks.emplace_back(new char[kStack]);
  std::mt19937 chance(static_cast<unsigned>(thread_order));
  const unsigned long long blocks = 1ull * grid.x * grid.y * grid.z;
  for (unsigned long long b = 0; b < blocks; ++b) {
    void* shared = nullptr;
    if (posix_memalign(&shared, 128, std::max<std::size_t>(shared_bytes, 1)) != 0) throw std::bad_alloc();
    machine.shared.reset(static_cast<char*>(shared));
    std::memset(shared, 0xff, shared_bytes);
    machine.fibres.clear();
    machine.warps.assign(static_cast<std::size_t>((threads + kWarp - 1) / kWarp), Warp{});
    for (int i = 0; i < threads; ++i) {
      auto fibre = std::make_unique<Fibre>();
      const unsigned t = static_cast<unsigned>(i);
      fibre->place.thread = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
      fibre->place.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                            static_cast<unsigned>(b / grid.x / grid.y)};
      fibre->place.block_size = block;
      fibre->place.grid = grid;
      fibre->place.linear = i;
      ++machine.warps[static_cast<std::size_t>(i / kWarp)].lanes;
      make_context(*fibre, machine.stacks[static_cast<std::size_t>(i)].get());
      machine.fibres.push_back(std::move(fibre));
    }
    run_block(chance);
  }
}

}  // namespace emulation

extern "C" __attribute__((visibility("default"))) void stgcn_fast_emulation_order(int order) {
  emulation::set_order(order);
}
