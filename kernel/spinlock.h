// The kernel's lock: busy-waiting with interrupts off. Private to kernel/.
//
// Lock order (outer first): areas (demand.cc) -> tables (paging.cc) -> frames (memory.cc). Futex, threads, console,
// random and interrupt registration locks are leaves: nothing is taken under them. Never fault on program memory
// while holding one.
#pragma once

#include <atomic>

#include "kernel/cpu.h"
#include "kernel/machine.h"

namespace kelda::kernel {

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
  explicit LockGuard(SpinLock& lock) : lock_(lock) { lock_.lock(); }
  ~LockGuard() { lock_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  InterruptsOff off_;
  SpinLock& lock_;
};

}  // namespace kelda::kernel
