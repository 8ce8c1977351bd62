#include "server/reclaimer.h"

#include "server/expiry_clock.h"

#include "runtime/turn.h"

namespace kelda::server {

namespace {
constexpr std::size_t kBatch = 128;
constexpr runtime::TimeNs kTickNs = 100'000'000, kAfterErrorNs = 1'000'000'000;
}  // namespace

// Fills due_; true if it stopped at the batch's size.
Result<bool> Reclaimer::collect(KeySpace& space, std::int64_t now_ms) {
  due_.clear();
  // Before the scan: an entry that is committed after it lowers the time again (KeyAccess::commit), so none is missed.
  space.next_expiry_ms.exchange(KeySpace::kNoneExpires);
  const auto transaction = server_.database.begin();
  const auto scan = TRY(transaction->scan(space.expiry));
  for (bool found = TRY(scan->seek("")); found; found = TRY(scan->next())) {
    const std::string value(TRY(scan->value()));
    const auto entry = decode_expiry(scan->key(), value);
    if (!entry) return Error(Code::kCorrupt, "an entry of an expiry tree is not of its format");
    if (entry->expire_ms > now_ms) {
      space.lower_next_expiry(entry->expire_ms);
      return false;
    }
    due_.push_back({std::string(scan->key()), value});
    if (due_.size() == kBatch) return true;
  }
  return false;
}

Result<> Reclaimer::remove(KeySpace& space, const Due& due, std::int64_t now_ms) {
  const auto entry = decode_expiry(due.key, due.value);
  const auto transaction = server_.database.begin();
  const bool found = TRY(transaction->get_for_update(space.data, entry->stored_key, value_.raw));
  if (found && !value_.decode())
    return Error(Code::kCorrupt, "a stored value has a format that this version does not know");
  const bool expired = found && value_.expire_ms == entry->expire_ms && value_.expired(now_ms);
  if (expired) TRY(transaction->remove(space.data, entry->stored_key));
  TRY(transaction->remove(space.expiry, due.key));
  if (expired && server_.watches.active()) server_.watches.touch_expired(space.index, user_key(entry->stored_key));
  TRY(transaction->commit_no_wait());
  if (expired) server_.stats.add(Counter::kExpired);
  return {};
}

Result<bool> Reclaimer::reclaim_some(KeySpace& space, std::int64_t now_ms) {
  auto more = collect(space, now_ms);
  // Come back for whatever is not removed now.
  if (!more || *more) space.lower_next_expiry(now_ms);
  if (!more) return more.failed_with(Code::kConflict) ? Result<bool>(false) : std::move(more);
  runtime::Turn turn;
  turn.begin();
  for (const Due& due : due_) {
    turn.step(true);
    const auto removed = remove(space, due, now_ms);
    if (removed) continue;
    space.lower_next_expiry(now_ms);
    // Somebody is at the key just now: next time.
    if (!removed.failed_with(Code::kConflict)) return removed.error();
  }
  return *more;
}

void Reclaimer::run() {
  runtime::TimeNs pause_ns = kTickNs;
  while (!server_.stop.wait_until(runtime::now_ns() + pause_ns)) {
    pause_ns = kTickNs;
    server_.rates.sample(server_.stats, runtime::now_ns());
    const std::int64_t now_ms = expiry_time_ms(wall_clock_ms());
    for (std::uint32_t db = 0; db < kDatabaseCount && !server_.stopping.load(std::memory_order_relaxed); ++db) {
      KeySpace* space = server_.keyspace.find(db);
      if (space == nullptr || space->next_expiry_ms.load(std::memory_order_relaxed) > now_ms) continue;
      const auto more = reclaim_some(*space, now_ms);
      // A full disk takes removals; a failed engine shows in INFO and in every reply.
      if (!more) pause_ns = kAfterErrorNs;
      if (more && *more) pause_ns = 0;
    }
  }
}

}  // namespace kelda::server
