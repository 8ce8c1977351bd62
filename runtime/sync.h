// Waiting between fibers, of one core or of several: spin latch, wait queue, mutex, shared mutex, event, completion.
//
// Contract: everything here may be used from any core and from attached plain threads. Waiting parks the fiber.
// SpinLatch is for a few instructions and never held across park or yield. FIFO wake order unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/core.h"

namespace kelda::runtime {

// Busy-waits with a pause instruction. Meets BasicLockable, for std::scoped_lock.
class SpinLatch {
 public:
  void lock() {
    while (locked_.exchange(true, std::memory_order_acquire)) {
      while (locked_.load(std::memory_order_relaxed)) __builtin_ia32_pause();
    }
  }
  bool try_lock() { return !locked_.exchange(true, std::memory_order_acquire); }
  void unlock() { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

// A list of parked fibers. The condition they wait for is guarded by the owner's own latch:
//   latch.lock(); while (!condition) queue.wait(latch); ...; latch.unlock();
// wait() enqueues, unlocks, parks, and locks again: a wake between unlock and park is not lost.
class WaitQueue {
 public:
  void wait(SpinLatch& latch);
  // False on time-out (the fiber has then left the queue).
  bool wait_until(SpinLatch& latch, TimeNs deadline_ns);
  // The caller holds the latch that guards the condition.
  void wake_one();
  void wake_all();
  bool empty() const { return head_ == nullptr; }

 private:
  struct Node;
  Node* head_ = nullptr;
  Node* tail_ = nullptr;
};

class Mutex {
 public:
  void lock();
  bool try_lock();
  void unlock();

 private:
  SpinLatch latch_;
  bool held_ = false;
  WaitQueue waiters_;
};

class SharedMutex {  // writers are not starved: a waiting writer holds back new readers
 public:
  void lock();
  void unlock();
  void lock_shared();
  void unlock_shared();

 private:
  SpinLatch latch_;
  std::uint32_t readers_ = 0;
  std::uint32_t writers_waiting_ = 0;
  bool writer_ = false;
  WaitQueue reader_queue_, writer_queue_;
};

// Set once, or reset and set again; wait() returns while set.
class Event {
 public:
  void set();
  void reset();
  bool is_set();
  void wait();
  bool wait_until(TimeNs deadline_ns);

 private:
  SpinLatch latch_;
  bool set_ = false;
  WaitQueue waiters_;
};

// Counts down outstanding operations; one fiber waits for all of them. done() may be called from pollers, any core.
class Completion {
 public:
  void add(std::uint32_t count = 1);
  void done();
  void wait();

 private:
  std::atomic<std::uint32_t> outstanding_{0};
  std::atomic<Fiber*> waiter_{nullptr};
};

}  // namespace kelda::runtime
