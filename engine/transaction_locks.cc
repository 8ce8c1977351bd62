// How a transaction gets its locks, and how long it waits for them (lock_table.h has the rules).
#include <algorithm>
#include <bit>

#include "common/planted_bug.h"
#include "engine/lock_wait.h"
#include "engine/transaction.h"
#include "runtime/turn.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kLinearSearchMax = 16;

runtime::TimeNs in_ms(runtime::TimeNs ms) { return runtime::now_ns() + ms * 1'000'000; }

// The elder's wait ends only when a program holds a transaction open for so long.
constexpr runtime::TimeNs kShortWaitMs = 2, kElderWaitMs = 1000;

// Sorts bucket numbers and drops what is there twice. Many are marked in a map instead, as sorting a million would keep
// the core's other fibers waiting for long.
void in_order_once(std::vector<std::uint32_t>& buckets) {
  constexpr std::size_t kSortedMost = 4096, kWordBits = 64;
  if (buckets.size() <= kSortedMost) {
    std::ranges::sort(buckets);
    const auto repeated = std::ranges::unique(buckets);
    buckets.erase(repeated.begin(), repeated.end());
    return;
  }
  std::vector<std::uint64_t> map(std::ranges::max(buckets) / kWordBits + 1);
  for (const std::uint32_t bucket : buckets) map[bucket / kWordBits] |= 1ull << bucket % kWordBits;
  buckets.clear();
  for (std::uint32_t word = 0; word < map.size(); ++word) {
    for (std::uint64_t bits = map[word]; bits != 0; bits &= bits - 1) {
      buckets.push_back(word * kWordBits + static_cast<std::uint32_t>(std::countr_zero(bits)));
    }
  }
}

}  // namespace

bool TransactionImpl::holds_nothing() const {
  return buckets_.empty() && std::ranges::none_of(trees_, [](const TreeUse& use) { return use.hold.any(); });
}

// ---- trees ----

TransactionImpl::TreeUse& TransactionImpl::use_of(TreeEntry& entry) {
  for (TreeUse& use : trees_) {
    if (use.entry == &entry) return use;
  }
  return trees_.emplace_back(TreeUse{&entry, {}});
}

const TreeLock::Hold* TransactionImpl::hold_on(const TreeEntry& entry) const {
  for (const TreeUse& use : trees_) {
    if (use.entry == &entry) return &use.hold;
  }
  return nullptr;
}

bool TransactionImpl::bars(const TreeEntry& entry, TreeLock::Intent wanted) const {
  const TreeLock::Hold* hold = hold_on(entry);
  return hold != nullptr && hold->bars(wanted);
}

bool TransactionImpl::bars(const TreeEntry& entry, LockMode wanted) const {
  const TreeLock::Hold* hold = hold_on(entry);
  return hold != nullptr && hold->bars(wanted);
}

// As long as the caller wants only for a transaction that nobody can wait for: trees have no order. The others' few
// milliseconds are random, so that of several that wait for each other's scans one is left when the others have given up;
// those then stand behind it.
template <class Wait, class Wanted>
Result<> TransactionImpl::wait_for_tree(TreeEntry& entry, Wanted wanted, Wait wait) {
  const auto bars_this = [&](const TransactionImpl& other) { return other.bars(entry, wanted); };
  if (db_.barred_by_this_fiber(this, bars_this)) {
    // Not waited for, but asked for once more: others may wait for a word of who failed to come in.
    if (wait(runtime::now_ns())) return {};
    return self_deadlock("the tree '" + entry.name + "'");
  }
  const runtime::TimeNs callers_ns = lock_deadline_ns(lock_timeout_us_);
  if (holds_nothing()) {
    if (wait(callers_ns)) return {};
    return lock_timeout("the tree '" + entry.name + "'", lock_timeout_us_);
  }
  const runtime::TimeNs short_ns = in_ms(kShortWaitMs) + runtime::random_u64() % (kShortWaitMs * 1'000'000);
  if (wait(std::min(callers_ns, short_ns))) return {};
  if (callers_ns < short_ns) return lock_timeout("the tree '" + entry.name + "'", lock_timeout_us_);
  return conflict();
}

Result<> TransactionImpl::enter(TreeEntry& entry, TreeLock::Intent intent) {
  TreeUse& use = use_of(entry);
  if (use.hold.covers(intent)) return {};
  if (!entry.lock.enter(use.hold, intent)) {
    TRY(wait_for_tree(entry, intent, [&](runtime::TimeNs deadline_ns) {
      return entry.lock.enter_until(use.hold, intent, deadline_ns);
    }));
  }
  read_lsn_ = std::max(read_lsn_, Lsn{entry.replaced_lsn.load(std::memory_order_relaxed)});
  return {};
}

Result<> TransactionImpl::lock_whole(TreeEntry& entry, LockMode mode) {
  TreeUse& use = use_of(entry);
  if (use.hold.exclusive || (mode == LockMode::kShared && use.hold.shared)) return db_.undo_complete();
  TRY(wait_for_tree(entry, mode, [&](runtime::TimeNs deadline_ns) { return entry.lock.lock_until(use.hold, mode, deadline_ns); }));
  read_lsn_ = std::max(read_lsn_, Lsn{entry.replaced_lsn.load(std::memory_order_relaxed)});
  return db_.undo_complete();
}

// ---- keys ----

LockMode* TransactionImpl::held_mode(std::uint32_t bucket) {
  if (buckets_.size() <= kLinearSearchMax) {
    for (HeldBucket& held : buckets_) {
      if (held.bucket == bucket) return &held.mode;
    }
    return nullptr;
  }
  if (bucket_index_.empty()) {
    for (std::size_t i = 0; i < buckets_.size(); ++i) bucket_index_.emplace(buckets_[i].bucket, i);
  }
  const auto found = bucket_index_.find(bucket);
  return found == bucket_index_.end() ? nullptr : &buckets_[found->second].mode;
}

bool TransactionImpl::bars(std::uint32_t bucket, LockMode wanted) const {
  const auto matches = [&](const HeldBucket& held) {
    return held.bucket == bucket && (wanted == LockMode::kExclusive || held.mode == LockMode::kExclusive);
  };
  if (bucket_index_.empty()) return std::ranges::any_of(buckets_, matches);
  const auto found = bucket_index_.find(bucket);
  return found != bucket_index_.end() && matches(buckets_[found->second]);
}

// Waits that could close a cycle.
template <class Wait>
Result<> TransactionImpl::wait_against_order(std::uint32_t bucket, LockMode mode, Wait wait) {
  if (db_.barred_by_this_fiber(this, [&](const TransactionImpl& other) { return other.bars(bucket, mode); })) {
    return self_deadlock("a key");
  }
  const runtime::TimeNs callers_ns = lock_deadline_ns(lock_timeout_us_);
  const bool elder = db_.locks().become_elder(this);
  const runtime::TimeNs ours_ns = in_ms(elder ? kElderWaitMs : kShortWaitMs);
  if (wait(std::min(callers_ns, ours_ns), elder ? Turn::kFirst : Turn::kHandedOver)) return {};
  if (callers_ns < ours_ns) return lock_timeout("a key", lock_timeout_us_);
  return conflict();
}

Result<> TransactionImpl::wait_for_bucket(std::uint32_t bucket, LockMode mode) {
  LockTable& locks = db_.locks();
  if (!buckets_.empty() && bucket < highest_bucket_) {
    return wait_against_order(bucket, mode, [&](runtime::TimeNs deadline_ns, Turn turn) {
      return locks.lock_until(bucket, mode, deadline_ns, turn);
    });
  }
  if (db_.barred_by_this_fiber(this, [&](const TransactionImpl& other) { return other.bars(bucket, mode); })) {
    return self_deadlock("a key");
  }
  const runtime::TimeNs callers_ns = lock_deadline_ns(lock_timeout_us_);
  if (buckets_.empty()) {
    if (locks.lock_until(bucket, mode, callers_ns)) return {};
    return lock_timeout("a key", lock_timeout_us_);
  }
  Turn turn = Turn::kWoken;
  // In order, so as long as the caller wants, but out of an elder's way.
  while (!locks.lock_until(bucket, mode, std::min(callers_ns, in_ms(kShortWaitMs)), turn)) {
    if (locks.has_elder_besides(this)) return conflict();
    if (callers_ns != runtime::kNever && runtime::now_ns() >= callers_ns) return lock_timeout("a key", lock_timeout_us_);
    turn = Turn::kHandedOver;
  }
  return {};
}

Result<> TransactionImpl::lock_bucket(std::uint32_t bucket, LockMode mode) {
  LockTable& locks = db_.locks();
  if (LockMode* held = held_mode(bucket)) {
    if (*held == LockMode::kExclusive || mode == LockMode::kShared) return {};
    if (!locks.try_upgrade(bucket)) {
      TRY(wait_against_order(bucket, LockMode::kExclusive, [&](runtime::TimeNs deadline_ns, Turn turn) {
        return locks.upgrade_until(bucket, deadline_ns, turn);
      }));
    }
    *held = LockMode::kExclusive;
    return db_.undo_complete();
  }
  if (!locks.try_lock(bucket, mode)) TRY(wait_for_bucket(bucket, mode));
  if (!bucket_index_.empty()) bucket_index_.emplace(bucket, buckets_.size());
  buckets_.push_back({bucket, mode});
  TRY(db_.undo_complete());
  highest_bucket_ = std::max(highest_bucket_, bucket);
  // Whoever committed here last may not be durable yet (early release): what we read of it is not either.
  read_lsn_ = std::max(read_lsn_, locks.commit_lsn(bucket));
  return {};
}

Result<> TransactionImpl::lock_key(TreeEntry& entry, std::string_view key, LockMode mode) {
  TRY(usable());
  if (key.size() > btree::kMaxKeyBytes) return key_too_long(key.size());
  TRY(enter(entry, mode == LockMode::kExclusive ? TreeLock::Intent::kWrite : TreeLock::Intent::kRead));
  return lock_bucket(db_.locks().bucket_of(entry.ordinal, as_bytes(key)), mode);
}

Result<> TransactionImpl::lock_keys(Tree tree, std::span<const std::string_view> keys) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  if (entry == nullptr) return db_.not_ours(tree);
  runtime::Turn turn;
  turn.begin();
  for (const std::string_view key : keys) {
    if (key.size() > btree::kMaxKeyBytes) return key_too_long(key.size());
    turn.step();
  }
  TRY(enter(*entry, TreeLock::Intent::kWrite));
  std::vector<std::uint32_t> wanted;
  wanted.reserve(keys.size());
  for (const std::string_view key : keys) {
    wanted.push_back(db_.locks().bucket_of(entry->ordinal, as_bytes(key)));
    turn.step();
  }
  in_order_once(wanted);
  for (const std::uint32_t bucket : wanted) {
    TRY(lock_bucket(bucket, LockMode::kExclusive));
    turn.step();
  }
  return {};
}

Result<> TransactionImpl::lock_tree(Tree tree, bool exclusive) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : lock_whole(*entry, exclusive ? LockMode::kExclusive : LockMode::kShared);
}

void TransactionImpl::release_locks(Lsn commit_lsn) {
  db_.locks().resign(this);
  for (const HeldBucket& held : buckets_) {
    if (held.mode == LockMode::kExclusive && commit_lsn != kNoLsn) db_.locks().set_commit_lsn(held.bucket, commit_lsn);
    db_.locks().unlock(held.bucket, held.mode);
  }
  buckets_.clear();
  bucket_index_.clear();
  for (TreeUse& use : trees_) use.entry->lock.release(use.hold);
  trees_.clear();
}

}  // namespace kelda::engine
