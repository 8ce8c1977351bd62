// Cores and fibers: the run loop that everything else blocks in.
//
// Contract. Engine code is ordinary blocking code. It runs on a Core: either in a fiber of a Runtime's core, or on a
// plain thread of an embedding program, which Core::current() attaches as a core with a single main context. A call
// that waits (park) switches to the core's other fibers; on a main context it runs the core's loop inline. Nothing is
// preempted: what runs, runs until it parks or yields. A fiber never moves to another core, so thread_local is per core.
//
// Callers must not: hold a std::mutex or a latch across park/yield (a page's own read excepted), block in the
// operating system, or park inside a poller or a message (those run in the loop itself; asserted).
//
// The platform (hosted, bare, simulated) is a CoreBackend: submit, reap, sleep, wake. Everything else is one text.
//
// Invariants
//  1. A fiber is in exactly one of: running, one of two ready queues (give_way()), parked, finished.
//  2. unpark() of a fiber that is not yet parked makes its next park() return at once (one permit, never lost).
//  3. A core sleeps only after it has seen its inbox empty with its "asleep" flag published (no lost wake-up).
//  4. Cores and fibers are type-stable: their memory is reused, never returned, so a late unpark() is at worst an
//     extra permit. Whoever waits for a condition therefore checks it again after park().
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "common/result.h"
#include "common/types.h"

namespace kelda::runtime {

// Nanoseconds of the monotonic clock (virtual time in simulation).
using TimeNs = std::uint64_t;
inline constexpr TimeNs kNever = ~TimeNs{0};

class Core;
class CoreBackend;
class Fiber;
class HeldLatches;
class Platform;
struct CoreInternals;

using Task = std::move_only_function<void()>;

struct FiberOptions {
  const char* name = "fiber";            // a literal; shown by panic and INFO
  std::size_t stack_bytes = 64 * 1024;   // a guard page is added; memory is taken only where it is touched
};

// Called once per loop turn on its core: reaps completions of a device, invalidates translations, and the like.
// Returns the number of events it handled (0 lets the core go to sleep).
class Poller {
 public:
  virtual ~Poller() = default;
  virtual std::size_t poll() = 0;
  // Called with the core about to sleep: arm interrupts. Returning false keeps the core awake (something came in).
  virtual bool prepare_sleep() { return true; }
  // Called when the core wakes up after a sleep (or after another poller refused it), before anything else runs.
  virtual void after_sleep() {}
  // The core sleeps no longer than until here: for pollers that serve time (a TCP stack, a simulated device).
  virtual TimeNs next_deadline_ns() { return kNever; }
};

// A call handed to another core's loop, without allocation. It must stay alive and unposted until it has run.
struct Message {
  void (*run)(Message& self, Core& core) = nullptr;
  Message* next = nullptr;  // in the inbox
};

class Core {
 public:
  // The calling thread's core; a plain thread is attached at its first call and detached when it ends.
  static Core& current() { return current_ != nullptr ? *current_ : attach_this_thread(); }
  // Null on a thread that was never attached.
  static Core* current_or_null() { return current_; }

  // Dense index, unique among the cores that are alive; indices of ended threads are reused. Below kMaxCores.
  std::uint32_t index() const { return index_; }
  static constexpr std::uint32_t kMaxCores = 128;

  // Starts a fiber on this core: it runs when the caller next waits or yields. Call on this core only.
  // Fails with kOutOfMemory when no stack can be had.
  Result<> spawn(Task task, FiberOptions options = {});
  // The same from any thread: the task is handed over through the core's inbox, and the core woken. The stack is taken
  // there, so a core without memory for one aborts; spawn() is the one that can say no.
  Result<> spawn_remote(Task task, FiberOptions options = {});
  // Runs message.run on this core's loop, soon. From any thread.
  void post(Message& message);

  // The running fiber (or the main context, which counts as one).
  Fiber& current_fiber() { return *running_; }
  // Of the running fiber: held_latches.h.
  HeldLatches& held_latches();
  // False on a main context, whose core runs its loop only while the thread waits.
  bool in_fiber() const;
  // Waits until unpark(). Returns only for an unpark, though perhaps a late one (invariant 4).
  void park();
  // Waits until unpark() or the deadline. True if unparked, false on time-out.
  bool park_until(TimeNs deadline_ns);
  // Makes a fiber of any core runnable. From any thread, also from a poller or a message.
  static void unpark(Fiber& fiber);
  // Lets the core's other ready fibers and pollers run once.
  void yield();
  // For a fiber that has run for long and could go on (turn.h): everybody who becomes ready goes before it, and of those
  // that gave way one runs each turn of the loop.
  void give_way();
  void sleep_until(TimeNs deadline_ns);

  // Pollers run on this core each turn. Add and remove on this core only; a poller may remove itself in its poll().
  void add_poller(Poller& poller);
  void remove_poller(Poller& poller);

  // Operations in flight whose memory a device or another thread may still touch: a core that ends goes on with its
  // messages and pollers until none is left. On this core only. (A hosted ring keeps its own count.)
  void io_started() { ++io_in_flight_; }
  void io_ended() { --io_in_flight_; }

  // Platform objects of this core (io_uring, hlt, virtual time). Their concrete types are known to the
  // *_hosted/_bare/_sim files of the layers above.
  CoreBackend& backend() { return *backend_; }
  Platform& platform() { return *platform_; }

  struct Stats {
    std::uint64_t turns, switches, sleeps, wakeups_sent, fibers_alive;
    TimeNs busy_ns;  // time outside sleep; a system call that starts I/O and then sleeps counts as sleep
  };
  Stats stats() const;  // from any thread; approximate

  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

 private:
  friend struct CoreInternals;  // runtime/'s own files: the loop, the registry of cores, the simulation
  Core();
  ~Core() = delete;
  static Core& attach_this_thread();

  static inline constinit thread_local Core* current_ = nullptr;

  Fiber* running_ = nullptr;
  std::uint32_t index_ = 0;
  std::uint32_t io_in_flight_ = 0;
  std::unique_ptr<CoreInternals> internals_;
  std::unique_ptr<CoreBackend> backend_;
  Platform* platform_ = nullptr;
};

// Time and random of the platform that was chosen at start (of the simulation inside one).
TimeNs now_ns();               // monotonic
std::int64_t wall_clock_us();  // microseconds since 1970-01-01 UTC
void random_bytes(MutableBytes out);
std::uint64_t random_u64();

// The set of cores that serve: core 0 is the thread that calls run(). Threads are not pinned: a pinned one that shares its
// CPU with another program cannot move to an idle one (redis-benchmark on the same two CPUs: 0.74 of the GETs).
struct RuntimeOptions {
  std::uint32_t core_count = 1;  // bare at most the machine's CPUs
};

class Runtime {
 public:
  // Hosted or bare, whichever this process is. Runs `main` as a fiber on core 0 and returns its value after every core
  // has stopped; fibers that are still parked then are dropped with their stacks freed, after the I/O they have in
  // flight was cancelled or waited for (what they own is not destroyed). Fails before `main` runs when a core cannot
  // start. The calling thread must have no fibers of its own.
  static Result<int> run(RuntimeOptions options, std::move_only_function<int(Runtime&)> main);

  virtual ~Runtime() = default;
  virtual std::uint32_t core_count() const = 0;
  virtual Core& core(std::uint32_t i) = 0;
};

}  // namespace kelda::runtime
