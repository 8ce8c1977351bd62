#include "engine/tree_lock.h"

#include <mutex>

namespace kelda::engine {

using runtime::TimeNs;

// Dekker with lock_until(): we count ourselves, then look for claims; it claims, then looks at the counters. With
// sequential consistency at least one of both sees the other.
bool TreeLock::try_enter(Hold& hold, Intent intent) {
  auto& counter = intent == Intent::kRead ? slots_[hold.slot].readers : slots_[hold.slot].writers;
  counter.fetch_add(1, std::memory_order_seq_cst);
  if (exclusive_claims_.load(std::memory_order_seq_cst) == 0) {
    const std::uint32_t shared = shared_claims_.load(std::memory_order_seq_cst);
    // A transaction that scans may write itself while it is the only one that claims.
    if (intent == Intent::kRead || shared == 0 || (hold.shared && shared == 1)) return true;
  }
  counter.fetch_sub(1, std::memory_order_seq_cst);
  return false;
}

bool TreeLock::enter(Hold& hold, Intent intent) {
  if (hold.covers(intent)) return true;
  if (!hold.read) hold.slot = runtime::Core::current().index() % kSlotCount;
  if (!try_enter(hold, intent)) return false;
  (intent == Intent::kRead ? hold.read : hold.write) = true;
  return true;
}

bool TreeLock::enter_until(Hold& hold, Intent intent, TimeNs deadline_ns) {
  if (enter(hold, intent)) return true;
  {
    std::scoped_lock guard(latch_);
    waiters_.wake_all();  // a claimant may have seen our count in the moment that it stood there
    const std::uint32_t writer = intent == Intent::kWrite ? 1 : 0;
    await_scans_ += writer;
    bool entered;
    while (!(entered = try_enter(hold, intent)) && waiters_.wait_until(latch_, deadline_ns)) {
    }
    await_scans_ -= writer;
    if (entered) came_after_scans_ += writer;
    waiters_.wake_all();  // scans that let us go first
    if (!entered) return false;
  }
  (intent == Intent::kRead ? hold.read : hold.write) = true;
  return true;
}

bool TreeLock::quiet_for(const Hold& hold, LockMode mode) const {
  std::uint32_t writers = 0, readers = 0;
  for (const Slot& slot : slots_) {
    writers += slot.writers.load(std::memory_order_seq_cst);
    readers += slot.readers.load(std::memory_order_seq_cst);
  }
  if (exclusive_held_ || writers != (hold.write ? 1u : 0u)) return false;
  if (mode == LockMode::kShared) return true;
  return readers == (hold.read ? 1u : 0u) && shared_holders_ == (hold.shared ? 1u : 0u);
}

bool TreeLock::lock_until(Hold& hold, LockMode mode, TimeNs deadline_ns) {
  if (hold.exclusive || (mode == LockMode::kShared && hold.shared)) return true;
  std::scoped_lock guard(latch_);
  // Not one that is in already: who waits may wait for it.
  if (mode == LockMode::kShared && !hold.any()) {
    for (const std::uint64_t came = came_after_scans_; await_scans_ > 0 && came_after_scans_ == came;) {
      if (!waiters_.wait_until(latch_, deadline_ns)) return false;
    }
  }
  auto& claims = mode == LockMode::kShared ? shared_claims_ : exclusive_claims_;
  claims.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t emptier = mode == LockMode::kExclusive ? 1 : 0;
  await_scans_ += emptier;
  bool quiet;
  while (!(quiet = quiet_for(hold, mode)) && waiters_.wait_until(latch_, deadline_ns)) {
  }
  await_scans_ -= emptier;
  if (!quiet) {
    claims.fetch_sub(1, std::memory_order_seq_cst);
    waiters_.wake_all();
    return false;
  }
  came_after_scans_ += emptier;
  if (mode == LockMode::kShared) {
    ++shared_holders_;
    hold.shared = true;
  } else {
    exclusive_held_ = true;
    hold.exclusive = true;
  }
  return true;
}

void TreeLock::release(Hold& hold) {
  if (hold.read) slots_[hold.slot].readers.fetch_sub(1, std::memory_order_seq_cst);
  if (hold.write) slots_[hold.slot].writers.fetch_sub(1, std::memory_order_seq_cst);
  const bool claimant = hold.shared || hold.exclusive;
  if (claimant || shared_claims_.load(std::memory_order_seq_cst) != 0 ||
      exclusive_claims_.load(std::memory_order_seq_cst) != 0) {
    std::scoped_lock guard(latch_);
    if (hold.shared) {
      --shared_holders_;
      shared_claims_.fetch_sub(1, std::memory_order_seq_cst);
    }
    if (hold.exclusive) {
      exclusive_held_ = false;
      exclusive_claims_.fetch_sub(1, std::memory_order_seq_cst);
    }
    waiters_.wake_all();
  }
  hold = Hold{};
}

}  // namespace kelda::engine
