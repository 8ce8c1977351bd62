#include "engine/transaction.h"

#include <algorithm>
#include <bit>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "engine/scan.h"
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

btree::PutMode mode_of(PutIf condition) {
  switch (condition) {
    case PutIf::kAlways: return btree::PutMode::kUpsert;
    case PutIf::kAbsent: return btree::PutMode::kInsertOnly;
    case PutIf::kPresent: return btree::PutMode::kUpdateOnly;
  }
  return btree::PutMode::kUpsert;
}

}  // namespace

TransactionImpl::TransactionImpl(DatabaseImpl& db, bool internal) : db_(db), internal_(internal) {
  if (!internal_) db_.transaction_started();
}

TransactionImpl::~TransactionImpl() {
  // The failure, if any, is kept by the log and returned by every later call on the database.
  if (!over_) [[maybe_unused]] auto ignored = roll_back();
}

Result<> TransactionImpl::usable() const {
  if (over_) return Error(Code::kAborted, "the transaction is over");
  return {};
}

void TransactionImpl::begin_log() {
  if (begun_) return;
  db_.log().begin(txn_.log);
  begun_ = true;
}

Error TransactionImpl::conflict() {
  db_.counters().conflicts.fetch_add(1, std::memory_order_relaxed);
  return Error(Code::kConflict);
}

// ---- locks ----

TransactionImpl::TreeUse& TransactionImpl::use_of(TreeEntry& entry) {
  for (TreeUse& use : trees_) {
    if (use.entry == &entry) return use;
  }
  return trees_.emplace_back(TreeUse{&entry, {}});
}

Result<> TransactionImpl::enter(TreeEntry& entry, TreeLock::Intent intent) {
  TreeUse& use = use_of(entry);
  if (use.hold.covers(intent)) return {};
  if (!entry.lock.enter_until(use.hold, intent, tree_deadline())) return conflict();
  read_lsn_ = std::max(read_lsn_, Lsn{entry.replaced_lsn.load(std::memory_order_relaxed)});
  return {};
}

Result<> TransactionImpl::lock_whole(TreeEntry& entry, LockMode mode) {
  TreeUse& use = use_of(entry);
  if (!entry.lock.lock_until(use.hold, mode, tree_deadline())) return conflict();
  read_lsn_ = std::max(read_lsn_, Lsn{entry.replaced_lsn.load(std::memory_order_relaxed)});
  return db_.undo_complete();
}

bool TransactionImpl::holds_nothing() const {
  return buckets_.empty() && std::ranges::none_of(trees_, [](const TreeUse& use) { return use.hold.any(); });
}

// Without bound only for a transaction that nobody can wait for: trees have no order. Random, so that of several that wait
// for each other's scans one is left when the others have given up; those then stand behind it.
runtime::TimeNs TransactionImpl::tree_deadline() const {
  if (holds_nothing()) return runtime::kNever;
  return in_ms(kShortWaitMs) + runtime::random_u64() % (kShortWaitMs * 1'000'000);
}

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

// Waits that could close a cycle.
template <class Wait>
bool TransactionImpl::wait_against_order(Wait wait) {
  return db_.locks().become_elder(this) ? wait(in_ms(kElderWaitMs), Turn::kFirst) : wait(in_ms(kShortWaitMs), Turn::kHandedOver);
}

bool TransactionImpl::wait_for_bucket(std::uint32_t bucket, LockMode mode) {
  LockTable& locks = db_.locks();
  if (buckets_.empty()) return locks.lock_until(bucket, mode, runtime::kNever);
  if (bucket < highest_bucket_) {
    return wait_against_order(
        [&](runtime::TimeNs deadline_ns, Turn turn) { return locks.lock_until(bucket, mode, deadline_ns, turn); });
  }
  Turn turn = Turn::kWoken;
  // In order, so without bound, but out of an elder's way.
  while (!locks.lock_until(bucket, mode, in_ms(kShortWaitMs), turn)) {
    if (locks.has_elder_besides(this)) return false;
    turn = Turn::kHandedOver;
  }
  return true;
}

Result<> TransactionImpl::lock_bucket(std::uint32_t bucket, LockMode mode) {
  LockTable& locks = db_.locks();
  if (LockMode* held = held_mode(bucket)) {
    if (*held == LockMode::kExclusive || mode == LockMode::kShared) return {};
    const bool upgraded = wait_against_order(
        [&](runtime::TimeNs deadline_ns, Turn turn) { return locks.upgrade_until(bucket, deadline_ns, turn); });
    if (!upgraded) return conflict();
    *held = LockMode::kExclusive;
    return db_.undo_complete();
  }
  if (!locks.try_lock(bucket, mode) && !wait_for_bucket(bucket, mode)) return conflict();
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
  TRY(enter(entry, mode == LockMode::kExclusive ? TreeLock::Intent::kWrite : TreeLock::Intent::kRead));
  return lock_bucket(db_.locks().bucket_of(entry.ordinal, as_bytes(key)), mode);
}

Result<> TransactionImpl::lock_keys(Tree tree, std::span<const std::string_view> keys) {
  TRY(usable());
  TreeEntry& entry = DatabaseImpl::entry_of(tree);
  TRY(enter(entry, TreeLock::Intent::kWrite));
  std::vector<std::uint32_t> wanted;
  wanted.reserve(keys.size());
  runtime::Turn turn;
  turn.begin();
  for (const std::string_view key : keys) {
    wanted.push_back(db_.locks().bucket_of(entry.ordinal, as_bytes(key)));
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
  return lock_whole(DatabaseImpl::entry_of(tree), exclusive ? LockMode::kExclusive : LockMode::kShared);
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

// ---- data ----

Result<btree::BTree> TransactionImpl::tree_of(TreeEntry& entry) {
  for (auto it = replacements_.rbegin(); it != replacements_.rend(); ++it) {
    if (it->entry != &entry) continue;
    if (it->replacement == nullptr) return db_.not_a_tree(entry);
    return btree::BTree(db_.env(), it->replacement->id, it->replacement->root);
  }
  // Stable: replacing it needs the tree's exclusive lock, and we have entered.
  const TreeRef* ref = entry.ref.load(std::memory_order_acquire);
  if (ref == nullptr) return db_.not_a_tree(entry);
  return btree::BTree(db_.env(), ref->id, ref->root);
}

Result<bool> TransactionImpl::read(TreeEntry& entry, std::string_view key, std::string& value, LockMode mode) {
  TRY(lock_key(entry, key, mode));
  return TRY(tree_of(entry)).lookup(as_bytes(key), value);
}

Result<bool> TransactionImpl::write(TreeEntry& entry, std::string_view key, std::string_view value, PutIf condition) {
  TRY(lock_key(entry, key, LockMode::kExclusive));
  begin_log();
  btree::BTree tree = TRY(tree_of(entry));
  const auto outcome = TRY(tree.put(txn_, as_bytes(key), as_bytes(value), mode_of(condition)));
  return outcome != btree::PutOutcome::kRefused;
}

Result<bool> TransactionImpl::erase(TreeEntry& entry, std::string_view key) {
  TRY(lock_key(entry, key, LockMode::kExclusive));
  begin_log();
  return TRY(tree_of(entry)).remove(txn_, as_bytes(key));
}

Result<bool> TransactionImpl::get(Tree tree, std::string_view key, std::string& value) {
  return read(DatabaseImpl::entry_of(tree), key, value, LockMode::kShared);
}

Result<bool> TransactionImpl::get_for_update(Tree tree, std::string_view key, std::string& value) {
  return read(DatabaseImpl::entry_of(tree), key, value, LockMode::kExclusive);
}

Result<bool> TransactionImpl::put(Tree tree, std::string_view key, std::string_view value, PutIf condition) {
  return write(DatabaseImpl::entry_of(tree), key, value, condition);
}

Result<bool> TransactionImpl::remove(Tree tree, std::string_view key) { return erase(DatabaseImpl::entry_of(tree), key); }

Result<std::unique_ptr<Scan>> TransactionImpl::scan(Tree tree) {
  TRY(usable());
  TreeEntry& entry = DatabaseImpl::entry_of(tree);
  if (!planted(Bug::kScanWithoutLock)) TRY(lock_whole(entry, LockMode::kShared));
  // All that others wrote here is in the log by now, if perhaps not durable: a bound for whatever the scan will read.
  read_lsn_ = std::max(read_lsn_, Lsn{db_.log().next().value - 1});
  return std::unique_ptr<Scan>(std::make_unique<TreeScan>(TRY(tree_of(entry))));
}

Result<> TransactionImpl::clear(Tree tree) { return clear_entry(DatabaseImpl::entry_of(tree), false); }

Result<> TransactionImpl::clear_entry(TreeEntry& entry, bool drop) {
  TRY(usable());
  TRY(lock_whole(entry, LockMode::kExclusive));
  TRY(tree_of(entry));
  TreeRef old = *entry.ref.load(std::memory_order_acquire);
  for (const Replacement& earlier : replacements_) {
    if (earlier.entry == &entry) old = *earlier.replacement;
  }
  begin_log();
  if (!planted(Bug::kDropForgotten)) TRY(write(db_.catalog(), dropped_key(old.id), encode_root(old.root), PutIf::kAlways));
  const TreeRef* replacement = nullptr;
  if (drop) {
    TRY(erase(db_.catalog(), name_key(entry.name)));
  } else {
    const TreeId id = db_.next_tree_id();
    const PageId root = TRY(btree::BTree::create(db_.env(), txn_, id, true));
    replacement = db_.keep_ref({id, root});
    TRY(write(db_.catalog(), name_key(entry.name), encode_ref(*replacement), PutIf::kAlways));
  }
  replacements_.push_back({&entry, old, replacement});
  entry.emptied.store(replacement, std::memory_order_release);
  return {};
}

// ---- ends ----

Result<std::uint64_t> TransactionImpl::savepoint() {
  TRY(usable());
  savepoints_.push_back({txn_.log.undo.size(), replacements_.size()});
  return savepoints_.size() - 1;
}

Result<> TransactionImpl::roll_back_to(std::uint64_t savepoint) {
  TRY(usable());
  if (savepoint >= savepoints_.size()) return Error(Code::kInvalidArgument, "no such savepoint");
  const Savepoint target = savepoints_[savepoint];
  savepoints_.resize(savepoint + 1);
  if (begun_) TRY(btree::roll_back_to(db_.env(), txn_, db_.recovery(), target.undo_count));
  forget_replacements(target.replacement_count);
  return {};
}

// Those after the first `kept`.
void TransactionImpl::forget_replacements(std::size_t kept) {
  for (; replacements_.size() > kept; replacements_.pop_back()) {
    replacements_.back().entry->emptied.store(nullptr, std::memory_order_release);
  }
  for (const Replacement& r : replacements_) r.entry->emptied.store(r.replacement, std::memory_order_release);
}

void TransactionImpl::finish(Lsn commit_lsn) {
  over_ = true;
  forget_replacements(0);
  release_locks(commit_lsn);
  if (!internal_) db_.transaction_ended();
}

Result<Lsn> TransactionImpl::commit_no_wait() {
  TRY(usable());
  Lsn lsn = kNoLsn;
  if (planted(Bug::kLocksBeforeCommitRecord)) release_locks(kNoLsn);
  if (begun_) {
    // A page that could not be written stops acknowledging as a batch of the log does, though the log could go on.
    auto committed = [&]() -> Result<Lsn> {
      TRY(db_.pool().health());
      return btree::commit(db_.env(), txn_);
    }();
    if (!committed) {
      // The commit record could not be written: the transaction has not happened.
      Error error = std::move(committed).error();
      TRY(roll_back());
      return error;
    }
    lsn = *committed;
    for (const Replacement& r : replacements_) {
      r.entry->replaced_lsn.store(lsn.value, std::memory_order_relaxed);  // ordered by the next line
      r.entry->ref.store(r.replacement, std::memory_order_release);
      db_.tree_dropped(r.old);
    }
  }
  db_.counters().commits.fetch_add(1, std::memory_order_relaxed);
  finish(lsn);
  const Lsn needed = std::max(lsn, read_lsn_);
  return needed <= db_.log().durable() ? kNoLsn : needed;
}

Result<> TransactionImpl::commit() { return db_.wait_durable(TRY(commit_no_wait())); }

Result<> TransactionImpl::roll_back() {
  TRY(usable());
  Result<> undone;
  if (begun_) undone = btree::roll_back(db_.env(), txn_, db_.recovery());
  db_.counters().rollbacks.fetch_add(1, std::memory_order_relaxed);
  if (!undone) {
    db_.log().abandon(txn_.log, undone.error());
    db_.undo_failed();
  }
  finish(kNoLsn);
  return undone;
}

}  // namespace kelda::engine
