// What other threads hand to a core: many producers, one consumer, intrusive.
//
// A stack pushed by compare-and-swap and taken whole, then reversed, so that the order is that of the pushes. Taking
// all at once leaves no room for the ABA problem: nobody ever pops a single element.
//
// Orders: push is sequentially consistent, not just a release, because the pusher next looks at the core's asleep flag
// while the core, having set that flag, looks at the inbox: each must see the other's write or both miss (core.h,
// invariant 3). On x86 the CAS is a full barrier anyway.
#pragma once

#include <atomic>

#include "runtime/core.h"

namespace kelda::runtime {

class Inbox {
 public:
  void push(Message& message) {
    Message* head = head_.load(std::memory_order_relaxed);
    do {
      message.next = head;
    } while (!head_.compare_exchange_weak(head, &message, std::memory_order_seq_cst, std::memory_order_relaxed));
  }
  bool empty() const { return head_.load(std::memory_order_seq_cst) == nullptr; }
  // The oldest first, linked by `next`.
  Message* take_all() {
    if (head_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    Message* newest = head_.exchange(nullptr, std::memory_order_acquire);
    Message* oldest = nullptr;
    while (newest != nullptr) {
      Message* next = newest->next;
      newest->next = oldest;
      oldest = newest;
      newest = next;
    }
    return oldest;
  }

 private:
  std::atomic<Message*> head_{nullptr};
};

}  // namespace kelda::runtime
