// Reading and writing Redis keys: what commands see of the engine.
//
// Contract
//  1. Belongs to one client and is used by its fiber only.
//  2. Outside a transaction only get() and exists() may be called: committed data, no lock. Inside one, reads lock.
//  3. An expired key is absent for every function here, from the instant of its expiry as `expiry_now_ms` sees it.
//  4. Everything that was read or written is covered by lsn(): nothing of it is shown to the client before that is
//  durable.
//  5. Values are at most kMaxValueBytes and keys at most kMaxKeyBytes: kTooLarge, with a message for the client.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kelda/kelda.h"
#include "server/expiry_clock.h"
#include "server/keyspace.h"
#include "server/watch.h"

namespace kelda::server {

class KeyAccess {
 public:
  KeyAccess(Keyspace& keyspace, WatchRegistry& watches) : keyspace_(keyspace), watches_(watches) {}

  std::int64_t now_ms() const { return now_ms_; }
  // By which keys expire: another than now_ms() when the clock cannot be right (expiry_clock.h).
  std::int64_t expiry_now_ms() const { return expiry_now_ms_; }
  void set_now_ms(std::int64_t now_ms) {
    now_ms_ = now_ms;
    expiry_now_ms_ = expiry_time_ms(now_ms);
  }

  // One engine transaction at a time.
  void begin();
  bool in_transaction() const { return transaction_ != nullptr; }
  // Reports the written keys to their watchers and commits without waiting for durability.
  Result<> commit();
  void roll_back();

  struct Savepoint {
    std::uint64_t engine;
    std::size_t touched, expiries;
  };
  Result<Savepoint> savepoint();
  Result<> roll_back_to(const Savepoint& savepoint);

  // Locks the whole database: against changes, or (exclusive) against everything.
  Result<> lock_database(std::uint32_t db, bool exclusive);
  // Locks the keys for writing, in an order that cannot deadlock.
  Result<> lock(std::uint32_t db, std::span<const std::string_view> keys);

  Result<bool> get(std::uint32_t db, std::string_view key, StoredValue& value);
  Result<bool> get_for_update(std::uint32_t db, std::string_view key, StoredValue& value);
  Result<bool> exists(std::uint32_t db, std::string_view key);
  // As get_for_update, and tells whether the key is stored but expired (then false, and `expired` set).
  Result<bool> lock_watched(std::uint32_t db, std::string_view key, bool& expired);

  // Replaces the key whatever it was. Only a put with an expiry looks at the old value, to drop its expiry entry.
  Result<> put(std::uint32_t db, std::string_view key, std::string_view payload, std::int64_t expire_ms = kNoExpiry);
  // Replaces the value that get_for_update has just read into `old`.
  Result<> replace(std::uint32_t db, std::string_view key, const StoredValue& old, std::string_view payload,
                   std::int64_t expire_ms);
  // False if the key exists; then nothing is changed.
  Result<bool> put_if_absent(std::uint32_t db, std::string_view key, std::string_view payload,
                             std::int64_t expire_ms = kNoExpiry);
  // False if it was absent (or expired).
  Result<bool> remove(std::uint32_t db, std::string_view key);
  Result<> clear(std::uint32_t db);

  // The data tree's keys in order, within the transaction. Null: the database is empty.
  Result<std::unique_ptr<Scan>> scan(std::uint32_t db);

  // What must be durable before the client hears of it; kNoLsn when all of it is.
  Lsn lsn() const { return lsn_; }
  void reset_lsn() { lsn_ = kNoLsn; }

  Keyspace& keyspace() { return keyspace_; }

 private:
  struct Touched {
    std::uint32_t db;
    std::string key;
    bool was_expired;  // what was removed had expired: no change to those who watched it only then
  };
  struct NewExpiry {
    KeySpace* space;
    std::int64_t expire_ms;
  };

  Result<bool> read_for_update(KeySpace& space, std::string_view stored, StoredValue& value);
  Result<> write(KeySpace& space, std::string_view key, std::string_view stored, std::string_view payload,
                 std::int64_t expire_ms);
  Result<> add_expiry(KeySpace& space, std::string_view stored, std::int64_t expire_ms);
  Result<> drop_expiry(KeySpace& space, std::string_view stored, std::int64_t expire_ms);
  void note_change(std::uint32_t db, std::string_view key, bool was_expired = false);

  Keyspace& keyspace_;
  WatchRegistry& watches_;
  std::unique_ptr<Transaction> transaction_;
  std::int64_t now_ms_ = 0, expiry_now_ms_ = 0;
  Lsn lsn_ = kNoLsn;
  std::vector<Touched> touched_;
  std::vector<NewExpiry> new_expiries_;
  StoredValue old_;          // scratch: the value that is being replaced
  std::string key_scratch_;  // stored form of a key that needs one
  std::string encoded_;
  ExpiryEntry entry_;
};

}  // namespace kelda::server
