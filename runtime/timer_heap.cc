#include "runtime/timer_heap.h"

#include "common/assert.h"

namespace kelda::runtime {

void TimerHeap::place(std::size_t slot, Fiber& fiber) {
  heap_[slot] = &fiber;
  fiber.timer_slot = static_cast<std::uint32_t>(slot);
}

void TimerHeap::sift_up(std::size_t slot, Fiber& fiber) {
  while (slot > 0) {
    const std::size_t parent = (slot - 1) / 2;
    if (heap_[parent]->deadline_ns <= fiber.deadline_ns) break;
    place(slot, *heap_[parent]);
    slot = parent;
  }
  place(slot, fiber);
}

void TimerHeap::sift_down(std::size_t slot, Fiber& fiber) {
  for (;;) {
    std::size_t child = 2 * slot + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->deadline_ns < heap_[child]->deadline_ns) ++child;
    if (fiber.deadline_ns <= heap_[child]->deadline_ns) break;
    place(slot, *heap_[child]);
    slot = child;
  }
  place(slot, fiber);
}

void TimerHeap::insert(Fiber& fiber) {
  KELDA_ASSERT(fiber.timer_slot == Fiber::kNoTimer);
  heap_.push_back(&fiber);
  sift_up(heap_.size() - 1, fiber);
}

void TimerHeap::remove(Fiber& fiber) {
  const std::size_t slot = fiber.timer_slot;
  KELDA_ASSERT(slot < heap_.size() && heap_[slot] == &fiber);
  fiber.timer_slot = Fiber::kNoTimer;
  Fiber* last = heap_.back();
  heap_.pop_back();
  if (last == &fiber) return;
  // The last one takes the hole; it may belong above or below it.
  if (slot > 0 && last->deadline_ns < heap_[(slot - 1) / 2]->deadline_ns) {
    sift_up(slot, *last);
  } else {
    sift_down(slot, *last);
  }
}

Fiber* TimerHeap::pop_expired(TimeNs now) {
  if (heap_.empty() || heap_.front()->deadline_ns > now) return nullptr;
  Fiber* first = heap_.front();
  remove(*first);
  return first;
}

}  // namespace kelda::runtime
