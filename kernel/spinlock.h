// The kernel's lock: busy-waiting with interrupts off. Private to kernel/.
//
// Lock order (outer first): areas (demand.cc) -> tables (paging.cc) -> frames (memory.cc). Futex, threads, console,
// random and interrupt registration locks are leaves: nothing is taken under them. Never fault on program memory
// while holding one.
#pragma once

#include <atomic>
#include <cstddef>

#include "kernel/cpu.h"
#include "kernel/machine.h"

namespace kelda::kernel {

// Makes the stack below us present. The kernel runs on its callers' stacks, which are demand-zero memory themselves: a
// first touch of the next page under a lock that the page fault needs would wait for that lock for ever.
template <std::size_t kBytes>
[[gnu::noinline]] void touch_stack() {
  auto* below = static_cast<volatile char*>(__builtin_frame_address(0)) - kBytes;
  *below = 0;
}

class SpinLock {
 public:
  constexpr SpinLock() = default;
  // Acquire pairs with the release in unlock(): what the last holder wrote is seen.
  bool try_lock() { return !locked_.exchange(true, std::memory_order_acquire); }
  void lock() {
    while (!try_lock()) {
      while (locked_.load(std::memory_order_relaxed)) pause();
    }
  }
  void unlock() { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

// Holds a lock with interrupts masked, for the scope.
class LockGuard {
 public:
  explicit LockGuard(SpinLock& lock) : lock_(lock) {
    touch_stack<kDeepestBytes>();
    lock_.lock();
  }
  ~LockGuard() { lock_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  static constexpr std::size_t kDeepestBytes = 1024;  // the stack that is used under any of these locks is less
  InterruptsOff off_;
  SpinLock& lock_;
};

}  // namespace kelda::kernel
