// The sixteen numbered databases: for each one engine tree with the data and one that orders the expiries.
//
// Contract. A database that never held a key has no trees. A value that has an expiry always has its entry in the
// expiry tree; an entry may be stale (the key was overwritten since), and whoever meets one verifies it under the key's
// lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "kelda/kelda.h"
#include "runtime/sync.h"
#include "server/limits.h"
#include "server/stored_value.h"

namespace kelda::server {

struct KeySpace {
  std::uint32_t index;
  Tree data, expiry;
  // No key expires before this; kNoneExpires: none does. Lowered after the commit that adds an expiry.
  std::atomic<std::int64_t> next_expiry_ms{0};
  static constexpr std::int64_t kNoneExpires = INT64_MAX;

  void lower_next_expiry(std::int64_t expire_ms);
};

class Keyspace {
 public:
  explicit Keyspace(Database& database) : database_(database) {}
  ~Keyspace();

  // Opens the trees that exist. Call before anything else.
  Result<> open();

  Database& database() { return database_; }
  // Null: the database is empty and always was.
  KeySpace* find(std::uint32_t index) const { return spaces_[index].load(std::memory_order_acquire); }
  Result<KeySpace*> find_or_create(std::uint32_t index);

  std::uint64_t key_count(std::uint32_t index) const;
  // Entries of the expiry tree: at least the number of keys with an expiry.
  std::uint64_t expiry_count(std::uint32_t index) const;

 private:
  Result<KeySpace*> open_space(std::uint32_t index, bool create);

  Database& database_;
  runtime::Mutex opening_;
  std::array<std::atomic<KeySpace*>, kDatabaseCount> spaces_{};
};

}  // namespace kelda::server
