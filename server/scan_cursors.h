// SCAN's cursors: a number for "after this key".
//
// An ordered tree cannot put a position among arbitrary keys into 64 bits, so the server remembers the key. Of one
// iteration it keeps the position it gave last and the one before (a client may repeat a call whose reply was lost).
// The table is bounded: the cursor that was used least recently goes first, and a client that comes back with one that
// is gone gets an error, never a silent restart. Cursors do not survive a restart of the server.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "runtime/sync.h"

namespace kelda::server {

class ScanCursors {
 public:
  static constexpr std::size_t kDefaultCapacity = 4096;

  explicit ScanCursors(std::size_t capacity = kDefaultCapacity) : capacity_(capacity) {}

  // The key after which to go on. Nothing: no such cursor (any more).
  std::optional<std::string> find(std::uint64_t cursor);
  // A cursor for "after `key`", given to the client that came with `previous` (0: it has just begun).
  std::uint64_t add(std::string_view key, std::uint64_t previous);
  std::size_t size();

 private:
  struct Entry {
    std::uint64_t id, previous;
    std::string key;
  };
  using Entries = std::list<Entry>;

  void erase(std::uint64_t id);

  const std::size_t capacity_;
  runtime::SpinLatch latch_;
  Entries entries_;  // most recently used first
  std::unordered_map<std::uint64_t, Entries::iterator> by_id_;
};

}  // namespace kelda::server
