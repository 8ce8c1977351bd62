#include "server/key_access.h"

#include <algorithm>
#include <list>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "runtime/turn.h"

namespace kelda::server {

namespace {

Error key_too_long(std::size_t bytes) {
  return {Code::kTooLarge,
          "key is too long (" + std::to_string(bytes) + " bytes; the limit is " + std::to_string(kMaxKeyBytes) + ")"};
}

Error value_too_large(std::size_t bytes) {
  return {Code::kTooLarge, "value is too large (" + std::to_string(bytes) + " bytes; the limit is " +
                               std::to_string(kMaxValueBytes) + ")"};
}

Error unknown_format() {
  return {Code::kCorrupt, "the stored value has a format that this version does not know"};
}

}  // namespace

void KeyAccess::begin() {
  KELDA_ASSERT(transaction_ == nullptr);
  transaction_ = keyspace_.database().begin();
  touched_.clear();
  new_expiries_.clear();
}

Result<> KeyAccess::commit() {
  KELDA_ASSERT(transaction_ != nullptr);
  // Before the locks are released (see watch.h). A commit that then fails has told watchers of a change that did not
  // happen: their EXEC is refused without need, which WATCH allows.
  runtime::Turn turn;
  turn.begin();
  for (const Touched& touched : touched_) {
    if (touched.was_expired) {
      watches_.touch_expired(touched.db, touched.key);
    } else {
      watches_.touch(touched.db, touched.key);
    }
    turn.step();
  }
  auto committed = transaction_->commit_no_wait();
  transaction_.reset();
  const Lsn lsn = TRY(std::move(committed));
  if (!planted(Bug::kReplyBeforeDurable)) lsn_ = std::max(lsn_, lsn);
  for (const NewExpiry& expiry : new_expiries_) expiry.space->lower_next_expiry(expiry.expire_ms);
  return {};
}

void KeyAccess::roll_back() {
  transaction_.reset();
}

Result<KeyAccess::Savepoint> KeyAccess::savepoint() {
  KELDA_ASSERT(transaction_ != nullptr);
  return Savepoint{TRY(transaction_->savepoint()), touched_.size(), new_expiries_.size()};
}

Result<> KeyAccess::roll_back_to(const Savepoint& savepoint) {
  touched_.resize(savepoint.touched);
  new_expiries_.resize(savepoint.expiries);
  return transaction_->roll_back_to(savepoint.engine);
}

Result<> KeyAccess::lock_database(std::uint32_t db, bool exclusive) {
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  return transaction_->lock_tree(space->data, exclusive);
}

Result<> KeyAccess::lock(std::uint32_t db, std::span<const std::string_view> keys) {
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  std::vector<std::string_view> stored;
  std::list<std::string> scratch;
  stored.reserve(keys.size());
  runtime::Turn turn;
  turn.begin();
  for (const std::string_view key : keys) {
    if (key.size() > kMaxKeyBytes) return key_too_long(key.size());
    if (key.empty() || key[0] == '\0') scratch.emplace_back();
    stored.push_back(stored_key(key, scratch.empty() ? key_scratch_ : scratch.back()));
    turn.step();
  }
  return transaction_->lock_keys(space->data, stored);
}

Result<bool> KeyAccess::get(std::uint32_t db, std::string_view key, StoredValue& value) {
  if (key.size() > kMaxKeyBytes) return key_too_long(key.size());
  KeySpace* space = keyspace_.find(db);
  if (space == nullptr) return false;
  const std::string_view stored = stored_key(key, key_scratch_);
  bool found = false;
  if (transaction_ != nullptr) {
    found = TRY(transaction_->get(space->data, stored, value.raw));
  } else {
    Lsn lsn = kNoLsn;
    found = TRY(keyspace_.database().get(space->data, stored, value.raw, &lsn));
    lsn_ = std::max(lsn_, lsn);
  }
  if (!found) return false;
  if (!value.decode()) return unknown_format();
  return !value.expired(expiry_now_ms_) || planted(Bug::kExpiredKeyVisible);
}

Result<bool> KeyAccess::read_for_update(KeySpace& space, std::string_view stored, StoredValue& value) {
  KELDA_ASSERT(transaction_ != nullptr);
  if (!TRY(transaction_->get_for_update(space.data, stored, value.raw))) return false;
  if (!value.decode()) return unknown_format();
  return true;
}

Result<bool> KeyAccess::get_for_update(std::uint32_t db, std::string_view key, StoredValue& value) {
  if (key.size() > kMaxKeyBytes) return key_too_long(key.size());
  // The trees are made here, not only by the write that follows: the lock on an absent key needs one.
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  return TRY(read_for_update(*space, stored_key(key, key_scratch_), value)) && !value.expired(expiry_now_ms_);
}

Result<bool> KeyAccess::exists(std::uint32_t db, std::string_view key) {
  return get(db, key, old_);
}

Result<bool> KeyAccess::lock_watched(std::uint32_t db, std::string_view key, bool& expired) {
  expired = false;
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  if (!TRY(read_for_update(*space, stored_key(key, key_scratch_), old_))) return false;
  expired = old_.expired(expiry_now_ms_);
  return !expired;
}

void KeyAccess::note_change(std::uint32_t db, std::string_view key, bool was_expired) {
  if (watches_.active()) touched_.push_back({db, std::string(key), was_expired});
}

Result<> KeyAccess::add_expiry(KeySpace& space, std::string_view stored, std::int64_t expire_ms) {
  encode_expiry(entry_, expire_ms, stored);
  TRY(transaction_->put(space.expiry, entry_.key, entry_.value));
  new_expiries_.push_back({&space, expire_ms});
  return {};
}

Result<> KeyAccess::drop_expiry(KeySpace& space, std::string_view stored, std::int64_t expire_ms) {
  encode_expiry(entry_, expire_ms, stored);
  TRY(transaction_->remove(space.expiry, entry_.key));
  return {};
}

Result<> KeyAccess::write(KeySpace& space, std::string_view key, std::string_view stored, std::string_view payload,
                          std::int64_t expire_ms) {
  if (payload.size() > kMaxValueBytes) return value_too_large(payload.size());
  encode_value(encoded_, payload, expire_ms);
  TRY(transaction_->put(space.data, stored, encoded_));
  if (expire_ms != kNoExpiry) TRY(add_expiry(space, stored, expire_ms));
  note_change(space.index, key);
  return {};
}

Result<> KeyAccess::put(std::uint32_t db, std::string_view key, std::string_view payload, std::int64_t expire_ms) {
  if (key.size() > kMaxKeyBytes) return key_too_long(key.size());
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  const std::string_view stored = stored_key(key, key_scratch_);
  // A key that is refreshed again and again with a new expiry must not leave an entry each time.
  if (expire_ms != kNoExpiry && TRY(read_for_update(*space, stored, old_)) && old_.expire_ms != kNoExpiry) {
    TRY(drop_expiry(*space, stored, old_.expire_ms));
  }
  return write(*space, key, stored, payload, expire_ms);
}

Result<> KeyAccess::replace(std::uint32_t db, std::string_view key, const StoredValue& old, std::string_view payload,
                            std::int64_t expire_ms) {
  KeySpace* space = TRY(keyspace_.find_or_create(db));
  const std::string_view stored = stored_key(key, key_scratch_);
  if (payload.size() > kMaxValueBytes) return value_too_large(payload.size());
  encode_value(encoded_, payload, expire_ms);
  TRY(transaction_->put(space->data, stored, encoded_));
  if (old.expire_ms != expire_ms) {
    if (old.expire_ms != kNoExpiry) TRY(drop_expiry(*space, stored, old.expire_ms));
    if (expire_ms != kNoExpiry) TRY(add_expiry(*space, stored, expire_ms));
  }
  note_change(db, key);
  return {};
}

Result<bool> KeyAccess::put_if_absent(std::uint32_t db, std::string_view key, std::string_view payload,
                                      std::int64_t expire_ms) {
  if (TRY(get_for_update(db, key, old_))) return false;
  TRY(put(db, key, payload, expire_ms));
  return true;
}

Result<bool> KeyAccess::remove(std::uint32_t db, std::string_view key) {
  if (key.size() > kMaxKeyBytes) return key_too_long(key.size());
  KeySpace* space = keyspace_.find(db);
  if (space == nullptr) return false;
  const std::string_view stored = stored_key(key, key_scratch_);
  bool live = true;
  // Without any expiry in the database there is nothing to look at in the old value.
  if (keyspace_.expiry_count(db) > 0) {
    if (!TRY(read_for_update(*space, stored, old_))) return false;
    if (old_.expire_ms != kNoExpiry) TRY(drop_expiry(*space, stored, old_.expire_ms));
    live = !old_.expired(expiry_now_ms_);
  }
  if (!TRY(transaction_->remove(space->data, stored))) return false;
  if (!planted(Bug::kWatchMissesRemoval)) note_change(db, key, !live);
  return live;
}

Result<> KeyAccess::clear(std::uint32_t db) {
  KeySpace* space = keyspace_.find(db);
  if (space == nullptr) return {};
  TRY(transaction_->lock_tree(space->data, true));
  if (watches_.active()) {
    runtime::Turn turn;
    turn.begin();
    for (const std::string& key : watches_.watched_keys(db)) {
      turn.step();
      const bool stored = TRY(read_for_update(*space, stored_key(key, key_scratch_), old_));
      if (stored) note_change(db, key, old_.expired(expiry_now_ms_));
    }
  }
  TRY(transaction_->clear(space->data));
  TRY(transaction_->clear(space->expiry));
  return {};
}

Result<std::unique_ptr<Scan>> KeyAccess::scan(std::uint32_t db) {
  KeySpace* space = keyspace_.find(db);
  if (space == nullptr) return std::unique_ptr<Scan>();
  return transaction_->scan(space->data);
}

}  // namespace kelda::server
