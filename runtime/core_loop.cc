// The loop of a core: messages, timers, fibers, pollers, sleep.
#include <algorithm>

#include "runtime/core_internals.h"

namespace kelda::runtime {

void Core::post(Message& message) {
  CoreInternals& in = *internals_;
  in.inbox.push(message);
  // Invariant 3. Our push and this load, the core's store of `asleep` and its look at the inbox are all sequentially
  // consistent: either we see it asleep and wake it, or it sees the message and does not sleep.
  if (!in.asleep.load(std::memory_order_seq_cst)) return;
  // The thread may wake by itself, end, and take its backend along: `wakers` holds detach() back. If our exchange
  // yields true it precedes the core's own store of false, so that detach(), later still, sees our count.
  in.wakers.fetch_add(1, std::memory_order_seq_cst);
  if (in.asleep.exchange(false, std::memory_order_seq_cst)) {
    backend_->wake();
    in.wakeups_sent.fetch_add(1, std::memory_order_relaxed);
  }
  in.wakers.fetch_sub(1, std::memory_order_release);
}

std::size_t CoreInternals::take_messages() {
  std::size_t count = 0;
  for (Message* message = inbox.take_all(); message != nullptr; ++count) {
    Message* next = message->next;  // run() may free or post it again
    message->run(*message, core);
    message = next;
  }
  return count;
}

std::size_t CoreInternals::expire_timers() {
  if (timers.empty()) return 0;
  const TimeNs now = core.platform().now_ns();
  std::size_t count = 0;
  while (Fiber* fiber = timers.pop_expired(now)) {
    std::uint32_t parked = Fiber::kParked;
    // An unpark from elsewhere may have won: then the fiber is on its way through the inbox.
    if (!fiber->token.compare_exchange_strong(parked, Fiber::kIdle, std::memory_order_acq_rel)) continue;
    fiber->timed_out = true;
    make_ready(*fiber);
    ++count;
  }
  return count;
}

std::size_t CoreInternals::run_pollers() {
  std::size_t events = 0;
  for (std::size_t i = 0; i < pollers.size();) {
    Poller* poller = pollers[i];
    events += poller->poll();
    if (i < pollers.size() && pollers[i] == poller) ++i;  // else it has removed itself
  }
  // Last, so that what the pollers queued is started in this turn. With nothing else to do the core sleeps next, and
  // that starts it: one system call instead of two.
  return events + core.backend().poll(events == 0 && ready.empty() && gave_way.empty());
}

bool CoreInternals::turn() {
  turns.add(1);
  take_messages();
  expire_timers();
  if (Fiber* first = ready.pop()) resume(*first, kTurnBudget - 1);
  if (!gave_way.empty()) {
    run_pollers();  // what the others have started is not to wait for this one
    resume(*gave_way.pop(), 0);
  }
  return run_pollers() > 0 || !ready.empty() || !gave_way.empty();
}

TimeNs CoreInternals::next_deadline_ns() {
  TimeNs deadline = timers.earliest_ns();
  for (Poller* poller : pollers) deadline = std::min(deadline, poller->next_deadline_ns());
  return deadline;
}

void CoreInternals::idle(TimeNs limit_ns) {
  const TimeNs deadline = std::min(limit_ns, next_deadline_ns());
  asleep.store(true, std::memory_order_seq_cst);
  std::size_t prepared = 0;
  bool may_sleep = inbox.empty();
  while (may_sleep && prepared < pollers.size()) {
    may_sleep = pollers[prepared]->prepare_sleep();
    prepared += may_sleep ? 1 : 0;
  }
  if (may_sleep) {
    const TimeNs before = core.platform().now_ns();
    core.backend().sleep(deadline);
    sleeps.add(1);
    slept_ns.add(core.platform().now_ns() - before);
  } else {
    core.backend().poll(false);  // sleep() would have started what is queued
  }
  asleep.store(false, std::memory_order_seq_cst);
  for (std::size_t i = 0; i < prepared; ++i) pollers[i]->after_sleep();
}

}  // namespace kelda::runtime
