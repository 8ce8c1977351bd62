// The cores that are alive: attaching threads, giving out indices, and letting cores go.
#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>

#include "runtime/core_internals.h"
#include "runtime/sync.h"

namespace kelda::runtime {

namespace {

// Cores are made once for each index and kept for ever (core.h, invariant 4). Reached through the latch alone; the
// one piece of process-wide state of the runtime.
struct Registry {
  SpinLatch latch;
  std::array<Core*, Core::kMaxCores> cores{};
  std::array<bool, Core::kMaxCores> in_use{};
};
constinit Registry registry;

std::uint32_t take_index() {
  registry.latch.lock();
  std::uint32_t index = 0;
  while (index < Core::kMaxCores && registry.in_use[index]) ++index;
  if (index < Core::kMaxCores) registry.in_use[index] = true;
  registry.latch.unlock();
  return index;
}

void release_index(std::uint32_t index) {
  registry.latch.lock();
  registry.in_use[index] = false;
  registry.latch.unlock();
}

// Its destructor runs when an attached thread ends.
struct DetachAtThreadEnd {
  bool armed = false;
  ~DetachAtThreadEnd() {
    if (armed && Core::current_or_null() != nullptr) CoreInternals::detach(Core::current());
  }
};
thread_local DetachAtThreadEnd detach_at_thread_end;

}  // namespace

Result<Core*> CoreInternals::attach(Platform& platform, bool on_this_thread) {
  std::unique_ptr<CoreBackend> backend = TRY(platform.make_backend());
  const std::uint32_t index = take_index();
  if (index == Core::kMaxCores) return Error(Code::kTooLarge, "more than 128 threads use Kelda at once");
  if (registry.cores[index] == nullptr) registry.cores[index] = new Core();
  Core& core = *registry.cores[index];
  CoreInternals& in = of(core);
  core.index_ = index;
  core.backend_ = std::move(backend);
  core.platform_ = &platform;
  core.backend_->attached(core);
  in.attached_ns.set(platform.now_ns());
  in.slept_ns.set(0);
  in.main.sanitizer = {};
  in.main.sanitizer.adopt_thread();
  in.main.held.clear();
  in.thread_exceptions = reinterpret_cast<Fiber::ExceptionState*>(abi::__cxa_get_globals());
  if (on_this_thread) {
    set_current(&core);
    detach_at_thread_end.armed = true;
  }
  return &core;
}

void CoreInternals::detach(Core& core) {
  CoreInternals& in = of(core);
  in.drop_fibers(!in.end_all_io());
  in.pollers.clear();
  // Pairs with post(): nobody may be inside backend->wake() when it goes.
  while (in.wakers.load(std::memory_order_seq_cst) != 0) __builtin_ia32_pause();
  core.backend_.reset();
  if (Core::current_ == &core) Core::current_ = nullptr;
  release_index(core.index_);
}

bool CoreInternals::end_all_io() {
  in_loop = true;
  take_messages();
  bool ended = core.backend_->quiesce();
  const TimeNs limit = core.platform().now_ns() + kEndIoTimeoutNs;
  while (core.io_in_flight_ > 0 && core.platform().now_ns() < limit) {
    if (take_messages() + run_pollers() == 0) idle(core.platform().now_ns() + kEndIoTimeoutNs / 100);
  }
  ended &= core.io_in_flight_ == 0;
  core.io_in_flight_ = 0;
  take_messages();
  in_loop = false;
  return ended;
}

void CoreInternals::drop_fibers(bool keep_stacks) {
  while (ready.pop() != nullptr || gave_way.pop() != nullptr) {
  }
  for (auto& fiber : fibers) {
    if (fiber->state == Fiber::State::kFinished) continue;
    if (fiber->timer_slot != Fiber::kNoTimer) timers.remove(*fiber);
    fiber->token.store(Fiber::kIdle, std::memory_order_relaxed);
    if (keep_stacks) fiber->stack.leak();
    fiber->task = nullptr;
    recycle(*fiber);
  }
  // As if they were new: a simulation that follows in this process takes them in the same order.
  free_fibers = nullptr;
  for (std::size_t i = fibers.size(); i-- > 0;) {
    fibers[i]->next_ready = free_fibers;
    free_fibers = fibers[i].get();
  }
  main.token.store(Fiber::kIdle, std::memory_order_relaxed);
}

Core& Core::attach_this_thread() {
  Result<Core*> core = CoreInternals::attach(process_platform(), true);
  if (!core) {
    std::fprintf(stderr, "kelda: this thread cannot be attached: %s\n", core.error().to_string().c_str());
    std::abort();
  }
  return **core;
}

}  // namespace kelda::runtime
