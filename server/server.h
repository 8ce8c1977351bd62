// The Redis protocol server over a database.
//
// Contract
//  1. A reply that tells of a change, or of a value that was read, is sent only when that is durable. All commands that
//     have arrived together are carried out first and wait for the log once.
//  2. One fiber a client, on the core that accepted it. What a client can make the server hold is bounded: a request by
//     request_limit_bytes, a reply by output_limit_bytes, the time a client may leave replies unread by
//     write_timeout_s; what all of them together can make it hold, by buffer_limit_bytes.
//  3. After a stop is requested no new request is begun; those under way are finished and answered, then serve()
//  returns.
//     The database stays open: it is the caller's.
//  4. When the engine fails, everybody who is connected is told so, and those connections end (failure_watch.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kelda/kelda.h"
#include "net/net.h"
#include "runtime/core.h"

namespace kelda::server {

struct ServerOptions {
  std::string password;  // empty: none is asked for
  std::uint32_t max_clients = 10'000;
  std::uint64_t request_limit_bytes = 64_MiB;
  std::uint64_t output_limit_bytes = 64_MiB;   // a longer reply becomes an error
  std::uint64_t buffer_limit_bytes = 256_MiB;  // requests and replies of all clients together
  std::uint32_t idle_timeout_s = 0;            // 0: idle clients stay
  std::uint32_t write_timeout_s = 60;          // a client that takes nothing for so long is closed
  std::uint32_t tcp_keepalive_s = 300;         // what the network does; CONFIG GET tells it
  std::uint32_t stop_grace_ms = 500;           // for requests under way when a stop is requested; then they are given up
  std::size_t stack_bytes = 64 * 1024;         // of a client's fiber
  // Called once, on core 0, when the engine has failed; health() says the same.
  void (*on_failure)(const Error& cause) = nullptr;
  // What INFO tells.
  std::uint64_t memory_bytes = 0;
  DurabilityMode durability = DurabilityMode::kFlush;
  std::string device_text;          // "disk.kelda, 4 GiB, flush, no FUA"
  std::string platform = "hosted";  // what it runs on
  OpenReport open_report;
};

struct ServerState;

class Server {
 public:
  Server(Database& database, const ServerOptions& options);
  ~Server();

  // Serves on all cores of the runtime until a stop is requested. Call on a fiber of core 0.
  Result<> serve(runtime::Runtime& runtime, net::Listener& listener);
  // From any core; also before serve().
  void request_stop();

  // For tests and tools.
  ServerState& state() { return *state_; }

 private:
  std::unique_ptr<ServerState> state_;
};

}  // namespace kelda::server
