#include "engine/transaction.h"

#include <algorithm>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "engine/scan.h"

namespace kelda::engine {

namespace {

// The background takes its turn again: it also has to see that it shall stop.
constexpr std::uint64_t kInternalLockTimeoutUs = 1'000'000;
constexpr std::uint64_t kLongestTimeoutUs = 1ull << 50;  // some 35 years

constexpr const char* kClosedText = "the database was closed";

btree::PutMode mode_of(PutIf condition) {
  switch (condition) {
    case PutIf::kAlways: return btree::PutMode::kUpsert;
    case PutIf::kAbsent: return btree::PutMode::kInsertOnly;
    case PutIf::kPresent: return btree::PutMode::kUpdateOnly;
  }
  return btree::PutMode::kUpsert;
}

}  // namespace

TransactionImpl::TransactionImpl(DatabaseImpl& db, Kind kind)
    : db_(db), kind_(kind) {
  set_lock_timeout_us(kind == Kind::kInternal ? kInternalLockTimeoutUs : db.lock_timeout_us());
  if (kind_ == Kind::kPrograms) db_.open_transactions().add(member_);
  if (kind_ == Kind::kCall) call_core_ = db_.open_transactions().call_started();
  // After it was counted: close() says that it closes, then counts.
  if (kind_ != Kind::kInternal && db_.closed()) {
    leave_open_ones();
    over_ = true;
    why_over_ = kClosedText;
  }
}

void TransactionImpl::leave_open_ones() {
  if (kind_ == Kind::kPrograms) db_.open_transactions().remove(member_);
  if (kind_ == Kind::kCall) db_.open_transactions().call_ended(call_core_);
}

void TransactionImpl::abandon() {
  over_ = true;
  why_over_ = kClosedText;
  if (scan_gate_) *scan_gate_ = {kClosedText, Code::kClosed};
}

TransactionImpl::~TransactionImpl() {
  // The failure, if any, is kept by the log and returned by every later call on the database.
  if (!over_) [[maybe_unused]] auto ignored = roll_back();
}

Result<> TransactionImpl::usable() {
  if (over_) return Error(why_over_ == kClosedText ? Code::kClosed : Code::kAborted, why_over_);
  if (kind_ == Kind::kPrograms) db_.open_transactions().called(member_);
  return {};
}

void TransactionImpl::set_lock_timeout_us(std::uint64_t timeout_us) {
  lock_timeout_us_ = timeout_us;
  txn_.log.room_wait_ns = timeout_us == kNoLockTimeout ? runtime::kNever : std::min(timeout_us, kLongestTimeoutUs) * 1000;
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
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : read(*entry, key, value, LockMode::kShared);
}

Result<bool> TransactionImpl::get_for_update(Tree tree, std::string_view key, std::string& value) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : read(*entry, key, value, LockMode::kExclusive);
}

Result<bool> TransactionImpl::put(Tree tree, std::string_view key, std::string_view value, PutIf condition) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : write(*entry, key, value, condition);
}

Result<bool> TransactionImpl::remove(Tree tree, std::string_view key) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : erase(*entry, key);
}

Result<std::unique_ptr<Scan>> TransactionImpl::scan(Tree tree) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  if (entry == nullptr) return db_.not_ours(tree);
  if (!planted(Bug::kScanWithoutLock)) TRY(lock_whole(*entry, LockMode::kShared));
  // All that others wrote here is in the log by now, if perhaps not durable: a bound for whatever the scan will read.
  read_lsn_ = std::max(read_lsn_, Lsn{db_.log().next().value - 1});
  if (!scan_gate_) scan_gate_ = std::make_shared<ScanGate>();
  return std::unique_ptr<Scan>(std::make_unique<TreeScan>(TRY(tree_of(*entry)), scan_gate_));
}

Result<> TransactionImpl::clear(Tree tree) {
  TRY(usable());
  TreeEntry* const entry = db_.entry_of(tree);
  return entry == nullptr ? db_.not_ours(tree) : clear_entry(*entry, false);
}

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
  if (replacements_.size() > target.replacement_count && scan_gate_) {
    // They may walk a tree that is no more.
    scan_gate_->why_shut = "the scan's transaction was rolled back to a savepoint that undid an emptying: open it again";
    scan_gate_.reset();
  }
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
  if (scan_gate_) scan_gate_->why_shut = "the scan's transaction is over";
  leave_open_ones();
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
