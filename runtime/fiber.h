// A fiber: a stack, a saved context and a wake token. Internal to runtime/: other layers only hand Fiber& around.
//
// The wake token carries invariant 2 of core.h:
//
//            park (CAS)              unpark (exchange): the unparker makes it ready
//   kIdle ------------> kParked ------------------------------------> kNotified
//     ^ \                  | timer (CAS)                                 |
//     |  \ unpark          v                                             |
//     |   '--> kNotified  kIdle, timed out                               |
//     '------------------------------ resume, or park at once (exchange) '
//
// Whoever moves the token out of kParked, and nobody else, makes the fiber ready: exactly once, by construction.
// unpark() releases and the resume acquires, so that what was written before unpark() is seen after park(); the resume
// is an exchange and not a store, since a second unpark() may come between and what it published must be seen too.
#pragma once

#include <boost/context/detail/fcontext.hpp>

#include <atomic>
#include <cstdint>

#include "runtime/core.h"
#include "runtime/held_latches.h"
#include "runtime/sanitizer.h"
#include "runtime/stack.h"

namespace kelda::runtime {

class alignas(16) Fiber : public Message {  // as a message it makes itself ready on its core
 public:
  enum Token : std::uint32_t { kIdle, kNotified, kParked };
  enum class State : std::uint8_t { kRunning, kReady, kParked, kFinished };

  // The words behind __cxa_get_globals(): exceptions being handled belong to the fiber, not to the thread.
  struct ExceptionState {
    void* caught = nullptr;
    unsigned uncaught = 0;
  };
  static constexpr std::uint32_t kNoTimer = ~0u;

  std::atomic<std::uint32_t> token{kIdle};
  State state = State::kFinished;
  bool timed_out = false;
  std::uint32_t timer_slot = kNoTimer;  // position in the core's timer heap
  TimeNs deadline_ns = kNever;
  Core* core = nullptr;
  const char* name = "";
  boost::context::detail::fcontext_t context = nullptr;
  Fiber* next_ready = nullptr;  // in the ready queue, or in the list of free fibers
  ExceptionState exceptions;
  HeldLatches held;
  SanitizerFiber sanitizer;
  Stack stack;
  Task task;
};

// Intrusive FIFO.
class ReadyQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  std::size_t size() const { return size_; }
  void push(Fiber& fiber) {
    fiber.next_ready = nullptr;
    (tail_ != nullptr ? tail_->next_ready : head_) = &fiber;
    tail_ = &fiber;
    ++size_;
  }
  Fiber* pop() {
    Fiber* first = head_;
    if (first == nullptr) return nullptr;
    head_ = first->next_ready;
    if (head_ == nullptr) tail_ = nullptr;
    --size_;
    return first;
  }
  // The n-th from the front, n < size(): for a simulation that chooses the order.
  Fiber* pop_nth(std::size_t n) {
    while (n-- > 0) push(*pop());
    return pop();
  }

 private:
  Fiber* head_ = nullptr;
  Fiber* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace kelda::runtime
