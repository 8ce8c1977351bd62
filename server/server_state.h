// What all clients of one server share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "kelda/kelda.h"
#include "runtime/sync.h"
#include "server/buffer_budget.h"
#include "server/client_registry.h"
#include "server/command.h"
#include "server/command_stats.h"
#include "server/keyspace.h"
#include "server/scan_cursors.h"
#include "server/server.h"
#include "server/stats.h"
#include "server/watch.h"

namespace kelda::server {

// The version of Redis whose replies and error texts Kelda follows; clients choose features by it.
inline constexpr const char* kRedisVersion = "7.0.15";

// Options that CONFIG SET changes.
class LiveConfig {
 public:
  explicit LiveConfig(const ServerOptions& options)
      : max_clients(options.max_clients), idle_timeout_s(options.idle_timeout_s), password_(options.password) {}

  std::atomic<std::uint32_t> max_clients;
  std::atomic<std::uint32_t> idle_timeout_s;

  bool password_required();
  // In time that does not depend on where the texts differ.
  bool password_matches(std::string_view candidate);
  std::string password();
  void set_password(std::string_view password);

 private:
  runtime::SpinLatch latch_;
  std::string password_;  // guarded by latch_
};

struct ServerState {
  ServerState(Database& db, const ServerOptions& given);

  Database& database;
  const ServerOptions options;
  const std::string run_id;  // 40 random hex digits
  const std::int64_t started_ms;
  CommandTable commands;
  LiveConfig config;
  Keyspace keyspace;
  WatchRegistry watches;
  ClientRegistry clients;
  ScanCursors cursors;
  Stats stats;
  CommandStats command_stats;
  Rates rates;  // sampled by the reclaimer's fiber
  BufferBudget buffers;
  std::atomic<std::int64_t> last_checkpoint_ms;
  std::atomic<bool> checkpoint_running{false};
  std::atomic<bool> last_checkpoint_ok{true};
  std::atomic<std::uint64_t> checkpoints{0};  // that clients asked for and that were made
  // -1: none yet; none runs.
  std::atomic<std::int64_t> last_checkpoint_took_ms{-1}, checkpoint_began_ms{-1};
  std::string listen_address;         // set before the first client comes
  std::vector<runtime::Core*> cores;  // those that serve
  std::uint64_t core_count() const { return std::max<std::size_t>(cores.size(), 1); }
  std::uint64_t busy_ns() const;

  // Set once when the server is to end.
  runtime::Event stop;
  std::atomic<bool> stopping{false};
  void request_stop();
  // Of what commands started and do not wait for. Waited for before this goes.
  runtime::Completion background;

  Result<> checkpoint();
};

std::int64_t wall_clock_ms();

}  // namespace kelda::server
