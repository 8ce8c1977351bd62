// What everybody in a simulation shares: configuration, trace, what clients were told, and the server that runs now.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "net/pipe_sim.h"
#include "server/server.h"
#include "sim/config.h"
#include "sim/isolation.h"
#include "sim/register.h"
#include "sim/shared.h"
#include "sim/trace.h"
#include "sim/wall_clock.h"

namespace kelda::sim {

struct World {
  World(const Config& configuration, Report& report);

  const Config config;
  Trace trace;
  WallClock wall;

  // Within a MULTI one command may fail alone: no space, no memory, a page that cannot be read.
  const bool commands_may_fail;

  std::vector<std::vector<Register>> registers;  // by owner
  std::vector<Counter> counters;
  std::vector<List> lists;
  Bank bank;
  Isolation isolation;

  // The disk may have lost or destroyed data without a chance for anybody to prevent that.
  bool damaged = false;      // errors are in order
  bool writes_lost = false;  // old versions are

  // The server that clients may dial; null while it is down.
  net::PipeListener* listener = nullptr;
  server::Server* server = nullptr;
  std::uint64_t incarnation = 0;  // of the server
  bool over = false;              // clients: leave
  std::uint32_t clients_running = 0;

  Report& report() { return trace.report(); }
};

}  // namespace kelda::sim
