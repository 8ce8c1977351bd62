// Waiting between fibers, of one core or of several: spin latch, wait queue, mutex, shared mutex, event, completion.
//
// Contract: everything here may be used from any core and from attached plain threads. Waiting parks the fiber.
// SpinLatch is for a few instructions and never held across park or yield. FIFO wake order unless said otherwise.
// Waiting is not for pollers and messages; waking (set, done, unlock, wake_*) is for everybody.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/core.h"

namespace kelda::runtime {

// Busy-waits, and lets an operating system run others when that takes long. Meets BasicLockable, for std::scoped_lock.
class SpinLatch {
 public:
  void lock() {
    if (locked_.exchange(true, std::memory_order_acquire)) [[unlikely]] lock_contended();
  }
  bool try_lock() { return !locked_.exchange(true, std::memory_order_acquire); }
  void unlock() { locked_.store(false, std::memory_order_release); }

 private:
  void lock_contended();
  std::atomic<bool> locked_{false};
};

// A list of parked fibers. The condition they wait for is guarded by the owner's own latch:
//   latch.lock(); while (!condition) queue.wait(latch); ...; latch.unlock();
// wait() enqueues, unlocks, parks, and locks again: a wake between unlock and park is not lost.
class WaitQueue {
 public:
  // Returns only when woken by wake_*(); true if the waker handed over what was waited for (wake_one(true)).
  bool wait(SpinLatch& latch);
  // False on time-out (the fiber has then left the queue).
  bool wait_until(SpinLatch& latch, TimeNs deadline_ns);
  // As wait(), but ahead of all others.
  bool wait_first(SpinLatch& latch);
  // The caller holds the latch that guards the condition.
  void wake_one(bool handed_over = false);
  void wake_all();
  bool empty() const { return head_ == nullptr; }

 private:
  struct Node;
  bool wait_for_wake(SpinLatch& latch, Node& node);
  void append(Node& node);
  void unlink(Node& node);
  Node* head_ = nullptr;
  Node* tail_ = nullptr;
};

// A fiber that comes while the mutex is free takes it even if others have just been woken for it: with cores asleep, a
// strict hand-over would cost a wake-up each time. One that was woken in vain goes to the front and gets the mutex
// handed over by the next unlock(): it can be passed by while its wake-up is on the way, but not for ever.
class Mutex {
 public:
  void lock();
  bool try_lock();
  void unlock();

 private:
  SpinLatch latch_;
  bool held_ = false;
  bool hand_over_ = false;  // the first in the queue has been woken in vain
  WaitQueue waiters_;
};

// Phase-fair: a waiting writer holds back new readers, and a leaving writer lets in all readers that wait by then.
// Neither kind is starved.
class SharedMutex {
 public:
  void lock();
  bool try_lock();
  void unlock();
  void lock_shared();
  bool try_lock_shared();
  void unlock_shared();

 private:
  SpinLatch latch_;
  std::uint32_t readers_ = 0;
  std::uint32_t readers_waiting_ = 0;
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
// It may be destroyed as soon as wait() has returned: the last done() does not touch it after its count.
class Completion {
 public:
  void add(std::uint32_t count = 1);
  void done();
  void wait();
  bool pending() const { return count_of(word_.load(std::memory_order_acquire)) != 0; }

 private:
  // | waiting fiber >> 4 : 44 | outstanding : 20 |  One word, so that the last done() learns of the waiter from its own
  // count. 48-bit addresses, 16-byte aligned, sign-extended back.
  static constexpr unsigned kCountBits = 20;
  static std::uint32_t count_of(std::uint64_t word) {
    return static_cast<std::uint32_t>(word & ((1u << kCountBits) - 1));
  }
  static Fiber* fiber_of(std::uint64_t word) {
    return reinterpret_cast<Fiber*>(static_cast<std::int64_t>(word) >> kCountBits << 4);
  }
  std::atomic<std::uint64_t> word_{0};
};

// Starts a fiber on `core`, any core, that counts in `all` until it has ended and let go of what it captured. After an
// error nothing counts.
Result<> spawn_counted(Core& core, Completion& all, Task task, FiberOptions options = {});

}  // namespace kelda::runtime
