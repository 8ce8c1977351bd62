// Removes keys whose time has come. They are invisible from that instant on (key_access.h); this frees their space.
//
// Contract: one fiber for the server. Entries are found in batches without keeping a lock, and each key is verified and
// removed in a small transaction of its own, so nobody waits long. A stale entry (the key was overwritten or given
// another expiry) is removed alone.
#pragma once

#include <string>
#include <vector>

#include "server/server_state.h"

namespace kelda::server {

class Reclaimer {
 public:
  explicit Reclaimer(ServerState& server) : server_(server) {}

  // Until the server stops.
  void run();
  // Everything of database `db` that has expired at `now_ms`, up to one batch. True if there may be more.
  Result<bool> reclaim_some(KeySpace& space, std::int64_t now_ms);

 private:
  struct Due {
    std::string key, value;  // of the expiry tree
  };

  Result<bool> collect(KeySpace& space, std::int64_t now_ms);
  Result<> remove(KeySpace& space, const Due& due, std::int64_t now_ms);

  ServerState& server_;
  std::vector<Due> due_;
  StoredValue value_;
};

}  // namespace kelda::server
