// What a Core is made of, for runtime/'s own files: the loop (core_loop.cc), the calls of fibers (core.cc), the set of
// cores that are alive (core_registry.cc) and the simulation, which drives the same parts in an order of its own.
//
// The main context is the thread's own stack. It is the loop: fibers run between two switches of it. Fibers hand over
// to each other directly while the turn's budget lasts, which saves every second switch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/assert.h"
#include "runtime/backend.h"
#include "runtime/core.h"
#include "runtime/fiber.h"
#include "runtime/inbox.h"
#include "runtime/timer_heap.h"

namespace kelda::runtime {

// Written by its core alone, read by any: a plain add, without the cost of an atomic one.
class OwnedCounter {
 public:
  void add(std::uint64_t n) { set(get() + n); }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

struct CoreInternals {
  explicit CoreInternals(Core& owner) : core(owner) {}

  // How many fibers run before pollers get their turn again.
  static constexpr std::size_t kTurnBudget = 64;

  // Cores that are alive. attach() gives a core its backend and index; on_this_thread: it becomes current().
  static Result<Core*> attach(Platform& platform, bool on_this_thread);
  // Ends I/O, drops what fibers are left, frees the index. On the core's thread.
  static void detach(Core& core);
  static CoreInternals& of(Core& core) { return *core.internals_; }
  // Makes another virtual core of this thread the current one.
  static void set_current(Core* core) { Core::current_ = core; }

  // One turn: messages, timers, ready fibers, one of those that gave way, pollers. False when nothing is ready: then
  // idle(), which looks again.
  bool turn();
  std::size_t take_messages();
  std::size_t expire_timers();
  std::size_t run_pollers();
  // Runs this fiber, and those that it hands over to while `turn_budget` lasts.
  void resume(Fiber& fiber, std::size_t turn_budget);
  // Sleeps until something comes in, or the limit. Call after a turn() that returned false.
  void idle(TimeNs limit_ns = kNever);
  TimeNs next_deadline_ns();
  template <class Done>
  void run_until(Done done) {
    KELDA_ASSERT(!in_loop);  // a poller or message tried to wait
    in_loop = true;
    while (!done()) {
      if (!turn() && !done()) idle();
    }
    core.backend().poll(false);  // the thread goes on with its own work: leave nothing unstarted
    in_loop = false;
  }

  // Fibers' calls.
  Result<Fiber*> make_fiber(Task task, const FiberOptions& options);
  bool park(TimeNs deadline_ns);
  void yield();
  void give_way();
  void make_ready(Fiber& fiber);
  [[noreturn]] void finish_running();
  void after_switch(boost::context::detail::transfer_t transfer);

  // Waits until no device may touch memory of this core's fibers; false if that took more than kEndIoTimeoutNs.
  bool end_all_io();
  static constexpr TimeNs kEndIoTimeoutNs = 10'000'000'000;
  // Ends all fibers where they stand. keep_stacks: a device may still write to them.
  void drop_fibers(bool keep_stacks);

  bool in_loop_context() const { return in_loop && core.running_ == &main; }

  Core& core;
  Fiber main;
  bool main_woken = false;
  bool in_loop = false;
  std::size_t budget = 0;
  ReadyQueue ready;
  ReadyQueue gave_way;  // behind all of `ready`; one a turn
  TimerHeap timers;
  std::vector<Poller*> pollers;
  StackCache stacks;
  std::vector<std::unique_ptr<Fiber>> fibers;  // all that ever were: type-stable (core.h, invariant 4)
  Fiber* free_fibers = nullptr;
  Fiber::ExceptionState* thread_exceptions = nullptr;  // what __cxa_get_globals() returns on this thread

  // Shared with other threads; on its own lines.
  alignas(64) Inbox inbox;
  std::atomic<bool> asleep{false};
  std::atomic<std::uint32_t> wakers{0};  // threads inside backend->wake(): detach() waits for them

  alignas(64) OwnedCounter turns;
  OwnedCounter switches, sleeps, slept_ns, attached_ns;
  std::atomic<std::uint64_t> fibers_alive{0};
  std::atomic<std::uint64_t> wakeups_sent{0};

 private:
  void switch_to(Fiber& next);
  void switch_away();
  void recycle(Fiber& fiber);
  static void fiber_entry(boost::context::detail::transfer_t transfer) noexcept;
};

}  // namespace kelda::runtime
