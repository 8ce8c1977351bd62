// The simulated runtime: several cores on one thread, virtual time, and an order that a seed chooses. The same seed
// replays the same history; another seed explores another one.
//
// Contract. Code inside sees the ordinary Core and Runtime interface; now_ns(), wall_clock_us() and the random calls
// come from the simulation. One step runs one ready fiber of one core until it waits or yields. Time passes between
// steps, and jumps to the next deadline when nothing is ready. Messages between cores arrive late at random.
//
// Callers must know: a thread_local is shared by all simulated cores, so what must be per core is indexed by
// Core::index(). Nothing inside may wait for another thread.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/core.h"

namespace kelda::runtime {

struct SimOptions {
  std::uint64_t seed = 1;
  std::uint32_t core_count = 2;
  // How long a step takes, in virtual time.
  TimeNs step_min_ns = 50;
  TimeNs step_max_ns = 2'000;
  std::int64_t wall_start_us = 1'800'000'000'000'000;
  // Now and then a parked fiber gets an unpark that nobody meant for it, as a late one may (core.h, invariant 4).
  bool stray_unparks = false;
  std::uint64_t max_steps = ~std::uint64_t{0};
};

struct SimReport {
  std::uint64_t steps = 0;
  TimeNs virtual_ns = 0;
  std::uint64_t trace_hash = 0;  // equal histories have equal hashes
};

// As Runtime::run(). kTimeout when it can never end: nothing is ready and no timer runs (the message names the parked
// fibers and their cores), or max_steps are done.
Result<int> run_simulated(SimOptions options, std::move_only_function<int(Runtime&)> main, SimReport* report = nullptr);

// Inside a simulation: somebody sets the machine's clock. Monotonic time goes on as before.
void shift_wall_clock(std::int64_t by_us);
// "core 0: client checkpoint core 1: acceptor": who waits. Of any runtime, while nothing else runs.
std::string parked_fibers(Runtime& runtime);

}  // namespace kelda::runtime
