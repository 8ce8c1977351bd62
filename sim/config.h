// One simulation's configuration: everything that, together with the program, determines its history.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/prng.h"
#include "net/pipe_sim.h"
#include "runtime/core.h"
#include "sim/faults.h"

namespace kelda::sim {

inline constexpr runtime::TimeNs kMicrosecondNs = 1'000, kMillisecondNs = 1'000'000, kSecondNs = 1'000'000'000;

struct Config {
  std::uint64_t seed = 1;
  runtime::TimeNs duration_ns = 10 * kSecondNs;  // of traffic; the check for progress comes after it
  std::uint32_t cores = 2, clients = 8;
  std::uint32_t transactors = 3;  // more clients, that run transactions on shared keys
  std::uint64_t engine_memory_bytes = 16_MiB, request_memory_bytes = 16_MiB;
  std::uint64_t disk_bytes = 64_MiB, log_bytes = 4_MiB;
  bool has_fua = true, reference_bits = false;
  runtime::TimeNs disk_delay_min_ns = 20 * kMicrosecondNs, disk_delay_max_ns = 200 * kMicrosecondNs;
  net::PipeOptions pipe = {.delay_ns = 50 * kMicrosecondNs};

  std::uint64_t scrub_bytes_per_s = 8_MiB;  // the disk is verified all the time; 0: never

  std::uint32_t registers_per_client = 16;
  std::uint32_t counters = 4, lists = 4, accounts = 6;
  std::uint32_t value_max_bytes = 2'000;
  std::uint32_t pipeline_max = 4;  // operations that a client sends at once
  runtime::TimeNs think_max_ns = 20 * kMillisecondNs;
  std::uint32_t write_percent = 50;
  std::uint32_t expiry_percent = 10;  // of writes

  FaultSet faults;
  runtime::TimeNs fault_every_ns = 300 * kMillisecondNs;

  // Of all transactors, at most about that many, whatever the length: they are judged together.
  static constexpr std::uint32_t kTransactorRoundTrips = 4'000;
  runtime::TimeNs transactor_gap_ns() const { return duration_ns * transactors / kTransactorRoundTrips; }
};

// What the command line may say instead; also what the minimiser varies.
struct Overrides {
  std::optional<double> seconds;
  std::optional<std::uint32_t> cores, clients, transactors;
  std::optional<FaultSet> faults;
  bool swarm = true;
};

// With `swarm` a random configuration, chosen by the seed; else the normal one without faults.
Config make_config(std::uint64_t seed, const Overrides& overrides);
std::string describe(const Config& config);
// The command line that runs it again.
std::string command_line(std::uint64_t seed, const Overrides& overrides);

}  // namespace kelda::sim
