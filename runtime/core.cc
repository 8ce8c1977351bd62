// The calls of fibers: spawn, park, unpark, yield, and the switch itself.
#include "runtime/core.h"

#include <cxxabi.h>

#include <utility>

#include "common/planted_bug.h"
#include "runtime/core_internals.h"

namespace kelda::runtime {

namespace {

void make_ready_message(Message& self, Core& core) { CoreInternals::of(core).make_ready(static_cast<Fiber&>(self)); }

struct SpawnMessage : Message {
  Task task;
  FiberOptions options;
};

void run_spawn_message(Message& self, Core& core) {
  std::unique_ptr<SpawnMessage> spawn(static_cast<SpawnMessage*>(&self));
  const Result<> spawned = core.spawn(std::move(spawn->task), spawn->options);
  KELDA_ASSERT(spawned.has_value());
}

}  // namespace

Core::Core() : internals_(std::make_unique<CoreInternals>(*this)) {
  Fiber& main = internals_->main;
  main.core = this;
  main.name = "main";
  main.state = Fiber::State::kRunning;
  main.run = make_ready_message;
  running_ = &main;
}

Result<> Core::spawn(Task task, FiberOptions options) {
  KELDA_ASSERT(current_ == this);
  Fiber* fiber = TRY(internals_->make_fiber(std::move(task), options));
  internals_->ready.push(*fiber);
  return {};
}

Result<> Core::spawn_remote(Task task, FiberOptions options) {
  if (current_ == this) return spawn(std::move(task), options);
  auto message = std::make_unique<SpawnMessage>();
  message->run = run_spawn_message;
  message->task = std::move(task);
  message->options = options;
  post(*message.release());
  return {};
}

HeldLatches& Core::held_latches() { return running_->held; }

bool Core::in_fiber() const { return running_ != &internals_->main; }

void Core::park() { internals_->park(kNever); }
bool Core::park_until(TimeNs deadline_ns) { return internals_->park(deadline_ns); }
void Core::yield() { internals_->yield(); }
void Core::give_way() { internals_->give_way(); }

void Core::sleep_until(TimeNs deadline_ns) {
  bool permit = false;  // an unpark meant for somebody's later park() is kept for it
  while (now_ns() < deadline_ns) permit |= park_until(deadline_ns);
  if (permit) running_->token.store(Fiber::kNotified, std::memory_order_release);
}

void Core::unpark(Fiber& fiber) {
  if (planted(Bug::kUnparkOfRunningLost) && fiber.token.load() != Fiber::kParked) return;
  // Release: see fiber.h. Acquire: the fiber's inbox link, which we may write next, was last read before it parked.
  if (fiber.token.exchange(Fiber::kNotified, std::memory_order_acq_rel) != Fiber::kParked) return;
  if (fiber.core == current_) {
    current_->internals_->make_ready(fiber);
  } else {
    fiber.core->post(fiber);
  }
}

void Core::add_poller(Poller& poller) {
  KELDA_ASSERT(current_ == this);
  internals_->pollers.push_back(&poller);
}

void Core::remove_poller(Poller& poller) {
  KELDA_ASSERT(current_ == this);
  std::erase(internals_->pollers, &poller);
}

Core::Stats Core::stats() const {
  const CoreInternals& in = *internals_;
  Stats out{};
  out.turns = in.turns.get();
  out.switches = in.switches.get();
  out.sleeps = in.sleeps.get();
  out.wakeups_sent = in.wakeups_sent.load(std::memory_order_relaxed);
  out.fibers_alive = in.fibers_alive.load(std::memory_order_relaxed);
  out.busy_ns = platform_->now_ns() - in.attached_ns.get() - in.slept_ns.get();
  return out;
}

Result<Fiber*> CoreInternals::make_fiber(Task task, const FiberOptions& options) {
  Stack stack = TRY(stacks.take(options.stack_bytes));
  if (free_fibers == nullptr) {
    fibers.push_back(std::make_unique<Fiber>());
    free_fibers = fibers.back().get();
  }
  Fiber& fiber = *std::exchange(free_fibers, free_fibers->next_ready);
  fiber.run = make_ready_message;
  fiber.core = &core;
  fiber.name = options.name;
  fiber.state = Fiber::State::kReady;
  fiber.exceptions = {};
  fiber.held.clear();
  fiber.stack = std::move(stack);
  fiber.task = std::move(task);
  fiber.context =
      boost::context::detail::make_fcontext(fiber.stack.top(), fiber.stack.size_bytes(), &CoreInternals::fiber_entry);
  fiber.sanitizer = {};
  fiber.sanitizer.create(fiber.stack.bottom(), fiber.stack.size_bytes());
  fibers_alive.fetch_add(1, std::memory_order_relaxed);
  return &fiber;
}

void CoreInternals::recycle(Fiber& fiber) {
  fiber.state = Fiber::State::kFinished;
  fiber.sanitizer.destroy();
  stacks.give(std::move(fiber.stack));
  fiber.next_ready = free_fibers;
  free_fibers = &fiber;
  fibers_alive.fetch_sub(1, std::memory_order_relaxed);
}

void CoreInternals::fiber_entry(boost::context::detail::transfer_t transfer) noexcept {
  CoreInternals& in = of(Core::current());
  in.after_switch(transfer);
  Fiber& self = *in.core.running_;
  self.task();
  self.task = nullptr;
  in.finish_running();
}

void CoreInternals::finish_running() {
  core.running_->state = Fiber::State::kFinished;
  switch_away();
  __builtin_unreachable();
}

void CoreInternals::switch_away() {
  Fiber* next = nullptr;
  if (budget > 0) next = ready.pop();
  if (next != nullptr) {
    --budget;
  } else {
    next = &main;
  }
  if (next != core.running_) switch_to(*next);
}

void CoreInternals::switch_to(Fiber& next) {
  Fiber& from = *core.running_;
  core.running_ = &next;
  next.state = Fiber::State::kRunning;
  switches.add(1);
  from.exceptions = *thread_exceptions;
  *thread_exceptions = next.exceptions;
  before_switch(from.sanitizer, next.sanitizer, from.state == Fiber::State::kFinished);
  after_switch(boost::context::detail::jump_fcontext(next.context, &from));
}

// On the new stack: only now is the one we left at rest, and may be freed.
void CoreInternals::after_switch(boost::context::detail::transfer_t transfer) {
  Fiber& from = *static_cast<Fiber*>(transfer.data);
  from.context = transfer.fctx;
  runtime::after_switch(core.running_->sanitizer, from.sanitizer);
  if (from.state == Fiber::State::kFinished) recycle(from);
}

void CoreInternals::resume(Fiber& fiber, std::size_t turn_budget) {
  budget = turn_budget;
  switch_to(fiber);
}

void CoreInternals::make_ready(Fiber& fiber) {
  if (fiber.timer_slot != Fiber::kNoTimer) timers.remove(fiber);
  if (&fiber == &main) {
    main_woken = true;
    return;
  }
  fiber.state = Fiber::State::kReady;
  ready.push(fiber);
}

bool CoreInternals::park(TimeNs deadline_ns) {
  KELDA_ASSERT(!in_loop_context());
  Fiber& self = *core.running_;
  KELDA_DEBUG_ASSERT(self.held.may_wait());
  std::uint32_t seen = Fiber::kIdle;
  // Release pairs with the acquire in unpark(): what we did with this fiber's links comes before what it does.
  if (!self.token.compare_exchange_strong(seen, Fiber::kParked, std::memory_order_acq_rel, std::memory_order_acquire)) {
    self.token.exchange(Fiber::kIdle, std::memory_order_acquire);
    return true;
  }
  self.timed_out = false;
  if (deadline_ns != kNever) {
    self.deadline_ns = deadline_ns;
    timers.insert(self);
  }
  if (&self == &main) {
    main_woken = false;
    run_until([this] { return main_woken; });
  } else {
    self.state = Fiber::State::kParked;
    switch_away();
  }
  if (self.timed_out) return false;
  self.token.exchange(Fiber::kIdle, std::memory_order_acquire);
  return true;
}

void CoreInternals::yield() {
  KELDA_ASSERT(!in_loop_context());
  Fiber& self = *core.running_;
  KELDA_DEBUG_ASSERT(self.held.may_wait());
  if (&self == &main) {
    in_loop = true;
    turn();
    core.backend().poll(false);
    in_loop = false;
    return;
  }
  // Those ahead of us run, then the pollers, then we.
  budget = std::min(budget, ready.size());
  self.state = Fiber::State::kReady;
  ready.push(self);
  switch_away();
}

void CoreInternals::give_way() {
  if (core.running_ == &main) return yield();
  KELDA_DEBUG_ASSERT(core.running_->held.may_wait());
  core.running_->state = Fiber::State::kReady;
  gave_way.push(*core.running_);
  switch_away();
}

}  // namespace kelda::runtime
