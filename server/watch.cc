#include "server/watch.h"

#include <algorithm>
#include <mutex>

#include "common/assert.h"
#include "runtime/turn.h"
#include "server/limits.h"

namespace kelda::server {

static_assert(kDatabaseCount == 16, "WatchRegistry::Shard has a map for each database");

void WatchSet::add(std::uint32_t db, std::string_view key) {
  Key& added = keys_.emplace_back(db, std::string(key), false);
  index_.emplace(std::pair(db, std::string_view(added.key)), &added);
  bytes_ += bytes_of(key);
  registry_.add(*this, db, key);
}

void WatchSet::set_was_expired(std::uint32_t db, std::string_view key) {
  index_.at({db, key})->was_expired = true;
  registry_.set_was_expired(*this, db, key);
}

void WatchSet::clear() {
  runtime::Turn turn;
  turn.begin();
  for (; !keys_.empty(); keys_.pop_front()) {
    const Key& watched = keys_.front();
    registry_.remove(*this, watched.db, watched.key);
    index_.erase({watched.db, std::string_view(watched.key)});
    turn.step();
  }
  bytes_ = 0;
  changed_.store(false, std::memory_order_relaxed);
}

void WatchRegistry::add(WatchSet& set, std::uint32_t db, std::string_view key) {
  Shard& s = shard(key);
  const std::scoped_lock guard(s.latch);
  auto found = s.by_db[db].find(key);
  if (found == s.by_db[db].end()) found = s.by_db[db].emplace(key, std::vector<Watch>{}).first;
  found->second.push_back({&set, false});
  // Release: a writer that sees the count also finds the watch, whose latch it takes anyway.
  watches_.fetch_add(1, std::memory_order_release);
}

void WatchRegistry::remove(WatchSet& set, std::uint32_t db, std::string_view key) {
  Shard& s = shard(key);
  const std::scoped_lock guard(s.latch);
  const auto found = s.by_db[db].find(key);
  KELDA_ASSERT(found != s.by_db[db].end());
  std::erase_if(found->second, [&](const Watch& watch) { return watch.set == &set; });
  if (found->second.empty()) s.by_db[db].erase(found);
  watches_.fetch_sub(1, std::memory_order_release);
}

void WatchRegistry::set_was_expired(WatchSet& set, std::uint32_t db, std::string_view key) {
  Shard& s = shard(key);
  const std::scoped_lock guard(s.latch);
  const auto found = s.by_db[db].find(key);
  if (found == s.by_db[db].end()) return;
  for (Watch& watch : found->second) watch.was_expired |= watch.set == &set;
}

void WatchRegistry::touch(std::uint32_t db, std::string_view key) {
  Shard& s = shard(key);
  const std::scoped_lock guard(s.latch);
  const auto found = s.by_db[db].find(key);
  if (found == s.by_db[db].end()) return;
  for (const Watch& watch : found->second) watch.set->mark_changed();
}

void WatchRegistry::touch_expired(std::uint32_t db, std::string_view key) {
  Shard& s = shard(key);
  const std::scoped_lock guard(s.latch);
  const auto found = s.by_db[db].find(key);
  if (found == s.by_db[db].end()) return;
  for (const Watch& watch : found->second) {
    if (!watch.was_expired) watch.set->mark_changed();
  }
}

std::vector<std::string> WatchRegistry::watched_keys(std::uint32_t db) {
  std::vector<std::string> keys;
  for (Shard& s : shards_) {
    const std::scoped_lock guard(s.latch);
    for (const auto& [key, watches] : s.by_db[db]) keys.push_back(key);
  }
  return keys;
}

}  // namespace kelda::server
