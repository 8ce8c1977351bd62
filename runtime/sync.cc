#include "runtime/sync.h"

#include <mutex>
#include <thread>
#include <utility>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "runtime/fiber.h"

namespace kelda::runtime {

// Where cores are threads, the system may have taken the holder's CPU: above all for the one that the holder has just
// woken, who comes here at once and would spin until its time slice ends.
void SpinLatch::lock_contended() {
  constexpr int kPauses = 100;
  do {
    for (int i = 0; locked_.load(std::memory_order_relaxed); ++i) {
      if (i < kPauses) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
  } while (locked_.exchange(true, std::memory_order_acquire));
}

// On the waiter's stack; all fields but `fiber` are guarded by the owner's latch. The waker unparks while it holds the
// latch, so that a waiter which finds `woken` knows that nobody touches the node any more.
struct WaitQueue::Node {
  Fiber& fiber;
  Node* next = nullptr;
  bool woken = false;
  bool handed_over = false;
};

void WaitQueue::append(Node& node) {
  (tail_ != nullptr ? tail_->next : head_) = &node;
  tail_ = &node;
}

void WaitQueue::unlink(Node& node) {
  Node* before = nullptr;
  Node** link = &head_;
  while (*link != &node) {
    before = *link;
    link = &before->next;
  }
  *link = node.next;
  if (tail_ == &node) tail_ = before;
}

bool WaitQueue::wait_for_wake(SpinLatch& latch, Node& node) {
  do {
    latch.unlock();
    Core::current().park();
    latch.lock();
  } while (!node.woken);  // else a late unpark that was meant for an earlier wait
  return node.handed_over;
}

bool WaitQueue::wait(SpinLatch& latch) {
  Node node{Core::current().current_fiber()};
  append(node);
  return wait_for_wake(latch, node);
}

bool WaitQueue::wait_first(SpinLatch& latch) {
  Node node{Core::current().current_fiber()};
  node.next = head_;
  head_ = &node;
  if (tail_ == nullptr) tail_ = &node;
  return wait_for_wake(latch, node);
}

bool WaitQueue::wait_until(SpinLatch& latch, TimeNs deadline_ns) {
  Core& core = Core::current();
  Node node{core.current_fiber()};
  append(node);
  for (;;) {
    latch.unlock();
    const bool unparked = core.park_until(deadline_ns);
    latch.lock();
    if (node.woken) {
      if (!unparked) core.park();  // takes the permit that came after the time-out; does not wait
      return true;
    }
    if (!unparked) {
      unlink(node);
      return false;
    }
  }
}

void WaitQueue::wake_one(bool handed_over) {
  Node* first = head_;
  if (first == nullptr) return;
  head_ = first->next;
  if (head_ == nullptr) tail_ = nullptr;
  first->handed_over = handed_over;
  first->woken = true;
  Core::unpark(first->fiber);
}

void WaitQueue::wake_all() {
  while (head_ != nullptr) wake_one();
}

void Mutex::lock() {
  std::scoped_lock guard(latch_);
  if (held_) {
    if (waiters_.wait(latch_)) return;
    while (held_) {
      hand_over_ = true;
      if (waiters_.wait_first(latch_)) return;
    }
  }
  held_ = true;
}

bool Mutex::try_lock() {
  std::scoped_lock guard(latch_);
  if (held_) return false;
  held_ = true;
  return true;
}

void Mutex::unlock() {
  std::scoped_lock guard(latch_);
  KELDA_ASSERT(held_);
  const bool hand_over = hand_over_ && !waiters_.empty();
  hand_over_ = false;
  held_ = hand_over;
  waiters_.wake_one(hand_over);
}

void SharedMutex::lock() {
  std::scoped_lock guard(latch_);
  if (!writer_ && readers_ == 0) {
    writer_ = true;
    return;
  }
  ++writers_waiting_;
  writer_queue_.wait(latch_);  // handed over: writer_ is ours
}

bool SharedMutex::try_lock() {
  std::scoped_lock guard(latch_);
  if (writer_ || readers_ > 0) return false;
  writer_ = true;
  return true;
}

void SharedMutex::unlock() {
  std::scoped_lock guard(latch_);
  KELDA_ASSERT(writer_);
  if (readers_waiting_ > 0) {
    writer_ = false;
    readers_ = readers_waiting_;
    readers_waiting_ = 0;
    reader_queue_.wake_all();
  } else if (writers_waiting_ > 0) {
    --writers_waiting_;
    writer_queue_.wake_one(true);
  } else {
    writer_ = false;
  }
}

void SharedMutex::lock_shared() {
  std::scoped_lock guard(latch_);
  if (!writer_ && writers_waiting_ == 0) {
    ++readers_;
    return;
  }
  ++readers_waiting_;
  reader_queue_.wait(latch_);  // counted in readers_ by the writer that left
}

bool SharedMutex::try_lock_shared() {
  std::scoped_lock guard(latch_);
  if (writer_ || writers_waiting_ > 0) return false;
  ++readers_;
  return true;
}

void SharedMutex::unlock_shared() {
  std::scoped_lock guard(latch_);
  KELDA_ASSERT(readers_ > 0);
  if (--readers_ > 0 || writers_waiting_ == 0) return;
  --writers_waiting_;
  writer_ = true;
  writer_queue_.wake_one(true);
}

void Event::set() {
  std::scoped_lock guard(latch_);
  set_ = true;
  if (!planted(Bug::kEventSetWithoutWake)) waiters_.wake_all();
}

void Event::reset() {
  std::scoped_lock guard(latch_);
  set_ = false;
}

bool Event::is_set() {
  std::scoped_lock guard(latch_);
  return set_;
}

void Event::wait() {
  std::scoped_lock guard(latch_);
  while (!set_) waiters_.wait(latch_);
}

bool Event::wait_until(TimeNs deadline_ns) {
  std::scoped_lock guard(latch_);
  while (!set_) {
    if (!waiters_.wait_until(latch_, deadline_ns)) return false;
  }
  return true;
}

// Relaxed: whoever adds has not yet handed the operation over; that hand-over orders it.
void Completion::add(std::uint32_t count) {
  const std::uint64_t before = word_.fetch_add(count, std::memory_order_relaxed);
  KELDA_ASSERT(count_of(before) + count < (1u << kCountBits));
}

// Release: the operation's results come before the count. Acquire, for the last one: the fiber found in the word was
// parked there by another core.
void Completion::done() {
  const std::uint64_t before = word_.fetch_sub(1, std::memory_order_acq_rel);
  KELDA_ASSERT(count_of(before) > 0);
  Fiber* waiter = fiber_of(before);
  if (count_of(before) == 1 && waiter != nullptr) Core::unpark(*waiter);
}

void Completion::wait() {
  std::uint64_t seen = word_.load(std::memory_order_acquire);
  if (count_of(seen) == 0) return;
  Core& core = Core::current();
  Fiber* self = &core.current_fiber();
  const auto address = reinterpret_cast<std::uint64_t>(self);
  KELDA_ASSERT(fiber_of(seen) == nullptr && address % 16 == 0);
  do {
    if (count_of(seen) == 0) return;
  } while (!word_.compare_exchange_weak(seen, (address >> 4 << kCountBits) | seen, std::memory_order_acq_rel,
                                        std::memory_order_acquire));
  while (pending()) core.park();
  word_.fetch_and((1u << kCountBits) - 1, std::memory_order_relaxed);
}

Result<> spawn_counted(Core& core, Completion& all, Task task, FiberOptions options) {
  all.add();
  auto spawned = core.spawn_remote(
      [&all, task = std::move(task)]() mutable {
        task();
        task = nullptr;
        all.done();
      },
      options);
  if (!spawned) all.done();
  return spawned;
}

}  // namespace kelda::runtime
