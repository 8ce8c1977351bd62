// The sections of INFO that tell what the server takes and has done; the others are in info.cc.
//
// A field of Redis that tells of something Kelda has not (replicas, scripts, forks) has the value that is true of it, 0 or
// "no". One that tells of something Kelda does not measure is left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>

#include "server/server_state.h"

namespace kelda::server {

using InfoOut = std::back_insert_iterator<std::string>;

struct InfoSource {
  ServerState& server;
  std::int64_t now_ms;
  DatabaseStats engine;

  std::uint64_t uptime_s() const {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(now_ms - server.started_ms, 0)) / 1000;
  }
  std::uint64_t total(Counter counter) const { return server.stats.total(counter); }
};

void memory_section(const InfoSource& source, InfoOut out);
void stats_section(const InfoSource& source, InfoOut out);
void cpu_section(const InfoSource& source, InfoOut out);
void commandstats_section(const InfoSource& source, InfoOut out);
void errorstats_section(const InfoSource& source, InfoOut out);

}  // namespace kelda::server
