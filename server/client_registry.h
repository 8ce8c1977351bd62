// All clients that are connected: what CLIENT LIST shows, and the means to end a connection from elsewhere.
//
// Contract: a ClientInfo is written by its client's fiber and read by any core, so what changes is atomic or guarded.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "net/net.h"
#include "runtime/core.h"
#include "runtime/sync.h"
#include "server/command.h"

namespace kelda::server {

struct ClientInfo {
  std::uint64_t id = 0;
  std::string peer, local;
  runtime::Core* core = nullptr;  // null in tests without connections
  std::int64_t connected_ms = 0;

  // Relaxed throughout: shown to people, and nothing else follows from them.
  std::atomic<std::int64_t> active_ms{0};
  std::atomic<std::uint32_t> db{0};
  std::atomic<std::int32_t> queued{-1};  // commands since MULTI; -1: not in MULTI
  std::atomic<std::uint32_t> watched{0};
  std::atomic<bool> resp3{false}, no_evict{false};
  std::atomic<bool> watch_changed{false};  // a watched key: EXEC will refuse
  int descriptor = -1;                     // set before others see it
  // As of the last request or read: what has come and is not carried out yet, the room behind it, what the parser adds,
  // commands since MULTI, the replies' buffer, and the most replies that waited at once in the last seconds.
  std::atomic<std::uint64_t> input_bytes{0}, input_free_bytes{0}, argument_bytes{0}, queued_bytes{0};
  std::atomic<std::uint64_t> reply_capacity_bytes{0}, reply_peak_bytes{0};
  std::atomic<std::uint64_t> output_bytes{0};  // replies that wait for the client or the log
  std::atomic<std::uint64_t> memory_bytes{0};  // of all buffers
  std::atomic<const Command*> last_command{nullptr};

  // Asked to end; looked at between commands.
  std::atomic<bool> killed{false};
  // Not to be waited for: a command that takes long is given up.
  std::atomic<bool> abandoned{false};

  runtime::SpinLatch latch;
  std::string name, library_name, library_version;  // guarded by latch

  // Touched on `core` only; null once the connection is gone.
  net::Connection* connection = nullptr;
  bool reading = false;              // parked in read()
  bool waiting_for_request = false;  // parked there between requests
  bool engine_failed = false;        // the client is to be told so, and the connection ends
  bool being_told = false;           // by another fiber, which sets `told` when it has done with the connection
  runtime::Event told;
};

class ClientRegistry {
 public:
  // Numbers the client and adds it. False when `max_clients` are there already. What does not change is set before.
  bool add(const std::shared_ptr<ClientInfo>& info, std::uint32_t max_clients);
  void remove(const ClientInfo& info);
  std::uint32_t count() const { return count_.load(std::memory_order_relaxed); }
  std::shared_ptr<ClientInfo> find(std::uint64_t id);
  std::vector<std::shared_ptr<ClientInfo>> snapshot();  // by id

  // Ends the connection at its next wait, from any core. With `only_idle`, one that is in the midst of a request is
  // left.
  static void disconnect(const std::shared_ptr<ClientInfo>& info, bool only_idle);

 private:
  runtime::SpinLatch latch_;
  std::unordered_map<std::uint64_t, std::shared_ptr<ClientInfo>> clients_;  // guarded by latch_
  std::uint64_t last_id_ = 0;                                               // guarded by latch_
  std::atomic<std::uint32_t> count_{0};
};

}  // namespace kelda::server
