// Who watches which key (WATCH), and whether it has changed since.
//
// Contract. A writer that has locked a key in its transaction reports it with touch() before it commits. A watcher
// first adds its watch and then takes and releases the key's lock. So, of a write and a WATCH of one key:
//  1. the writer gets the lock later: it sees the watch (active() and the shard are read under the lock) and marks it;
//  2. the writer got the lock earlier: the watcher waits until that write is committed and reads the new value.
// EXEC locks the watched keys and then asks changed(): no write can slip in between.
//
// While nobody watches anything, a writer pays one load.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/sync.h"

namespace kelda::server {

class WatchRegistry;

// The watches of one client. Used by the client's fiber; `changed_` is set by any core.
class WatchSet {
 public:
  struct Key {
    std::uint32_t db;
    std::string key;
    bool was_expired;  // already at WATCH: then its removal is no change
  };

  // `changed` is this set's own and outlives it; CLIENT LIST shows it.
  WatchSet(WatchRegistry& registry, std::atomic<bool>& changed) : registry_(registry), changed_(changed) {}
  WatchSet(const WatchSet&) = delete;
  ~WatchSet() { clear(); }

  bool contains(std::uint32_t db, std::string_view key) const { return index_.contains({db, key}); }
  // One that is not contained yet.
  void add(std::uint32_t db, std::string_view key);
  void set_was_expired(std::uint32_t db, std::string_view key);
  void clear();
  const std::deque<Key>& keys() const { return keys_; }
  // About what all of them take, here and in the registry.
  std::uint64_t bytes() const { return bytes_; }
  static std::uint64_t bytes_of(std::string_view key) { return 2 * key.size() + kOverheadBytes; }
  bool changed() const { return changed_.load(std::memory_order_relaxed); }
  void mark_changed() { changed_.store(true, std::memory_order_relaxed); }

 private:
  WatchRegistry& registry_;
  static constexpr std::uint64_t kOverheadBytes = 300;

  std::deque<Key> keys_;  // stay where they are
  std::map<std::pair<std::uint32_t, std::string_view>, Key*> index_;
  std::uint64_t bytes_ = 0;
  // Relaxed: it is set under the key's lock before the commit and read under the same lock after it.
  std::atomic<bool>& changed_;
};

class WatchRegistry {
 public:
  // Read under the lock of the key that is about to change.
  bool active() const { return watches_.load(std::memory_order_acquire) > 0; }
  // The key changes, for everybody; or (touch_expired) an expired key is removed, which nobody could see any more.
  void touch(std::uint32_t db, std::string_view key);
  void touch_expired(std::uint32_t db, std::string_view key);
  std::vector<std::string> watched_keys(std::uint32_t db);
  std::uint32_t watches() const { return watches_.load(std::memory_order_relaxed); }

 private:
  friend class WatchSet;
  struct Watch {
    WatchSet* set;
    bool was_expired;
  };
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using Map = std::unordered_map<std::string, std::vector<Watch>, TextHash, std::equal_to<>>;
  struct Shard {
    runtime::SpinLatch latch;
    std::array<Map, 16> by_db;  // guarded by latch
  };

  Shard& shard(std::string_view key) { return shards_[std::hash<std::string_view>{}(key) % shards_.size()]; }
  void add(WatchSet& set, std::uint32_t db, std::string_view key);
  void remove(WatchSet& set, std::uint32_t db, std::string_view key);
  void set_was_expired(WatchSet& set, std::uint32_t db, std::string_view key);

  std::array<Shard, 16> shards_;
  std::atomic<std::uint32_t> watches_{0};
};

}  // namespace kelda::server
