#include "server/scan_cursors.h"

#include <mutex>

#include "runtime/core.h"

namespace kelda::server {

std::optional<std::string> ScanCursors::find(std::uint64_t cursor) {
  const std::scoped_lock guard(latch_);
  const auto found = by_id_.find(cursor);
  if (found == by_id_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->key;
}

void ScanCursors::erase(std::uint64_t id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  entries_.erase(found->second);
  by_id_.erase(found);
}

std::uint64_t ScanCursors::add(std::string_view key, std::uint64_t previous) {
  const std::scoped_lock guard(latch_);
  if (const auto found = by_id_.find(previous); found != by_id_.end()) erase(found->second->previous);
  while (by_id_.size() >= capacity_) erase(entries_.back().id);
  // Random, so that a cursor of before a restart, or a made-up one, does not point into somebody's iteration. Below
  // 2^63: some clients keep cursors in signed integers.
  std::uint64_t id = 0;
  while (id == 0 || by_id_.contains(id)) id = runtime::random_u64() >> 1;
  entries_.push_front({id, previous, std::string(key)});
  by_id_.emplace(id, entries_.begin());
  return id;
}

std::size_t ScanCursors::size() {
  const std::scoped_lock guard(latch_);
  return by_id_.size();
}

}  // namespace kelda::server
