// What waiting costs: switches between fibers of a core, starting a fiber, waking another core.
#include <atomic>

#include "bench/suites.h"
#include "runtime/sync.h"

namespace kelda::bench {
namespace {

using runtime::Completion;
using runtime::Core;
using runtime::Fiber;
using runtime::Runtime;

// Two fibers that yield to each other: an iteration is one turn of the loop and two switches.
void fiber_yield(benchmark::State& state) {
  Core& core = Core::current();
  bool stop = false;
  Completion ended;
  ended.add();
  must(core.spawn([&] {
    while (!stop) core.yield();
    ended.done();
  }), "spawn");
  for (auto _ : state) core.yield();
  stop = true;
  ended.wait();
}

// The other side of a ping-pong, on any core. `turn` says who may go: a late unpark() is at worst an extra look at it.
struct Partner {
  enum Turn : int { kMine, kTheirs, kOver };
  explicit Partner(Fiber& first) : me(first) {}
  Fiber& me;
  std::atomic<Fiber*> them{nullptr};
  std::atomic<int> turn{kMine};
  Completion ended;

  void start_on(Core& core) {
    ended.add();
    turn = kTheirs;
    must(core.spawn_remote([this] {
      Core& here = Core::current();
      them = &here.current_fiber();
      for (int t; (t = turn.load()) != kOver;) {
        if (t == kTheirs) {
          turn = kMine;
          Core::unpark(me);
        }
        here.park();
      }
      ended.done();
    }), "spawn");
    wait_for_mine();
  }
  void wait_for_mine() {
    while (turn.load() != kMine) Core::current().park();
  }
  void round_trip() {
    turn = kTheirs;
    Core::unpark(*them);
    wait_for_mine();
  }
  void end() {
    turn = kOver;
    Core::unpark(*them);
    ended.wait();
  }
};

void round_trips(benchmark::State& state, Core& other) {
  Partner partner(Core::current().current_fiber());
  partner.start_on(other);
  for (auto _ : state) partner.round_trip();
  partner.end();
}

void spawn_and_join(benchmark::State& state) {
  Core& core = Core::current();
  for (auto _ : state) {
    Completion ended;
    ended.add();
    if (!core.spawn([&] { ended.done(); })) state.SkipWithError("no stack");
    ended.wait();
  }
}

// A message to another core's loop, and back.
void message_round_trip(benchmark::State& state, Core& other) {
  struct Ping : runtime::Message {
    Completion answered;
  } ping;
  ping.run = [](runtime::Message& self, Core&) { static_cast<Ping&>(self).answered.done(); };
  for (auto _ : state) {
    ping.answered.add();
    other.post(ping);
    ping.answered.wait();
  }
}

}  // namespace

void add_runtime_benchmarks(Runtime& rt) {
  Core& here = rt.core(0);
  Core& other = rt.core(1);
  benchmark::RegisterBenchmark("runtime/fiber_yield", fiber_yield);
  benchmark::RegisterBenchmark("runtime/park_unpark_round_trip", [&here](benchmark::State& s) { round_trips(s, here); });
  benchmark::RegisterBenchmark("runtime/spawn_and_join", spawn_and_join);
  benchmark::RegisterBenchmark("runtime/cross_core_wake_round_trip", [&other](benchmark::State& s) { round_trips(s, other); })
      ->UseRealTime();
  benchmark::RegisterBenchmark("runtime/cross_core_message_round_trip",
                               [&other](benchmark::State& s) { message_round_trip(s, other); })->UseRealTime();
}

}  // namespace kelda::bench
