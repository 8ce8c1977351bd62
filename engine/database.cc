#include "engine/database_impl.h"

#include <algorithm>
#include <mutex>

#include "common/planted_bug.h"
#include "engine/lock_wait.h"
#include "engine/transaction.h"

namespace kelda::engine {

namespace {

// The database's own transactions lose against others only for a moment.
template <class Body>
Result<> retry_conflicts(DatabaseImpl& db, Body body) {
  runtime::TimeNs deadline_ns = 0;
  for (;;) {
    TransactionImpl txn(db, TransactionImpl::Kind::kCall);
    Result<> done = body(txn);
    if (done) done = txn.commit();
    if (!done.failed_with(Code::kConflict)) return done;
    if (deadline_ns == 0) {
      deadline_ns = lock_deadline_ns(db.lock_timeout_us());
    } else if (deadline_ns != runtime::kNever && runtime::now_ns() >= deadline_ns) {
      return lock_timeout("what this call needs", db.lock_timeout_us());
    }
    runtime::Core::current().yield();
  }
}

std::uint64_t next_number() {
  // Spread out: what happens to stand in a Tree that nobody filled in is hardly ever one of them.
  static std::atomic<std::uint64_t> opened{0};
  return (opened.fetch_add(1, std::memory_order_relaxed) + 1) * 0x9e3779b97f4a7c15;
}

}  // namespace

DatabaseImpl::DatabaseImpl() : number_(next_number()) {}

Tree DatabaseImpl::handle_of(TreeEntry& entry) const { return Tree(entry.ref.load()->id, &entry, number_); }

Result<> DatabaseImpl::usable() const {
  if (closed_.load(std::memory_order_relaxed)) return Error(Code::kClosed, "the database was closed");
  return {};
}

Error DatabaseImpl::not_ours(Tree tree) const {
  if (tree.database() == 0) return Error(Code::kInvalidArgument, "the Tree is an empty one: get it from Database::tree()");
  return Error(Code::kInvalidArgument, "the Tree belongs to another database, or to an earlier opening of this one: get it "
                                       "from this database's tree()");
}

const TreeRef* DatabaseImpl::keep_ref(TreeRef ref) {
  std::scoped_lock guard(entries_mutex_);
  refs_.push_back(ref);
  return &refs_.back();
}

void DatabaseImpl::for_each_tree(FunctionRef<void(const std::string&, const TreeRef&)> visit) {
  for (const auto& [name, entry] : entries_) visit(name, *entry->ref.load());
  for (const TreeRef& ref : dropped_) visit("(dropped " + std::to_string(ref.id.value) + ")", ref);
}

Error DatabaseImpl::not_a_tree(const TreeEntry& entry) const {
  return Error(Code::kNotFound, "the tree '" + entry.name + "' was dropped");
}

Result<Tree> DatabaseImpl::tree(std::string_view name, bool create) {
  TRY(usable());
  if (name.empty() || name.size() > kMaxTreeNameBytes) {
    return Error(Code::kInvalidArgument, "a tree's name has 1 to " + std::to_string(kMaxTreeNameBytes) + " bytes");
  }
  for (;;) {
    {
      std::scoped_lock guard(entries_mutex_);
      if (const auto found = entries_.find(name); found != entries_.end()) return handle_of(*found->second);
    }
    if (!create) return Error(Code::kNotFound, "no tree '" + std::string(name) + "'");
    TreeRef ref;
    bool inserted = false;
    TRY(retry_conflicts(*this, [&](TransactionImpl& txn) -> Result<> {
      // The key's lock keeps a second creator out until this one has committed.
      std::string present;
      if (TRY(txn.read(catalog(), name_key(name), present, LockMode::kExclusive))) return {};
      ref.id = next_tree_id();
      ref.root = TRY(btree::BTree::create(env(), txn.tree_txn(), ref.id));
      inserted = TRY(txn.write(catalog(), name_key(name), encode_ref(ref), PutIf::kAbsent));
      return {};
    }));
    if (!inserted) {  // the other creator publishes its entry in a moment
      runtime::Core::current().yield();
      continue;
    }
    const TreeRef* kept = keep_ref(ref);
    std::scoped_lock guard(entries_mutex_);
    auto entry = std::make_unique<TreeEntry>(std::string(name), next_ordinal_++, kept);
    return handle_of(*entries_.emplace(std::string(name), std::move(entry)).first->second);
  }
}

Result<std::vector<std::string>> DatabaseImpl::tree_names() {
  TRY(usable());
  std::scoped_lock guard(entries_mutex_);
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

Result<> DatabaseImpl::drop_tree(std::string_view name) {
  TRY(usable());
  TreeEntry* entry = nullptr;
  {
    std::scoped_lock guard(entries_mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end()) return Error(Code::kNotFound, "no tree '" + std::string(name) + "'");
    entry = found->second.get();
  }
  TRY(retry_conflicts(*this, [&](TransactionImpl& txn) { return txn.clear_entry(*entry, true); }));
  std::scoped_lock guard(entries_mutex_);
  if (auto node = entries_.extract(std::string(name)); !node.empty()) retired_.push_back(std::move(node.mapped()));
  return {};
}

std::unique_ptr<Transaction> DatabaseImpl::begin() { return std::make_unique<TransactionImpl>(*this, TransactionImpl::Kind::kPrograms); }

Result<bool> DatabaseImpl::get(Tree tree, std::string_view key, std::string& value, Lsn* lsn) {
  TRY(usable());
  TreeEntry* const found_entry = entry_of(tree);
  if (found_entry == nullptr) return not_ours(tree);
  TreeEntry& entry = *found_entry;
  if (key.size() > btree::kMaxKeyBytes) return key_too_long(key.size());
  const std::uint32_t bucket = locks_->bucket_of(entry.ordinal, as_bytes(key));
  locks_->prefetch(bucket);
  runtime::TimeNs deadline_ns = 0;  // of waits; 0: none yet
  for (;;) {
    const TreeRef* ref = entry.ref.load(std::memory_order_acquire);
    if (ref == nullptr) return not_a_tree(entry);
    Lsn commit_lsn;
    // The value may be shown if no writer holds the key after it was read (an uncommitted value was written under that
    // lock, and its roll-back would change the leaf, which fails the validation that follows), and if the tree is still
    // the one that was read (else its pages may be someone else's already).
    const auto may_use = [&] {
      if (!locks_->readable(bucket)) return false;
      // After the look at the lock: its holder stored the LSN before it let go, so that of the value is seen, or a later one.
      commit_lsn = std::max(locks_->commit_lsn(bucket), Lsn{entry.replaced_lsn.load(std::memory_order_relaxed)});
      return entry.ref.load(std::memory_order_acquire) == ref;
    };
    Result<bool> found = btree::BTree(env(), ref->id, ref->root).lookup(as_bytes(key), value, may_use);
    if (found.failed_with(Code::kConflict)) {
      if (!locks_->readable(bucket)) TRY(wait_readable(bucket, deadline_ns));
      continue;
    }
    if (!found && entry.ref.load(std::memory_order_acquire) != ref) continue;  // read pages that were being reclaimed
    TRY(found);
    TRY(undo_complete());
    const Lsn needed = commit_lsn <= log_->durable() || planted(Bug::kReaderSkipsCommitLsn) ? kNoLsn : commit_lsn;
    if (lsn != nullptr) {
      *lsn = needed;
    } else {
      TRY(wait_durable(needed));
    }
    return found;
  }
}

// Until the writer of the bucket has gone; the deadline is the whole call's.
Result<> DatabaseImpl::wait_readable(std::uint32_t bucket, runtime::TimeNs& deadline_ns) {
  const auto bars = [&](const TransactionImpl& other) { return other.bars(bucket, LockMode::kShared); };
  if (barred_by_this_fiber(nullptr, bars)) return self_deadlock("a key");
  if (deadline_ns == 0) deadline_ns = lock_deadline_ns(lock_timeout_us_);
  if (!locks_->lock_until(bucket, LockMode::kShared, deadline_ns)) return lock_timeout("a key", lock_timeout_us_);
  locks_->unlock(bucket, LockMode::kShared);
  return {};
}

Result<> DatabaseImpl::put(Tree tree, std::string_view key, std::string_view value) {
  return retry_conflicts(*this, [&](TransactionImpl& txn) -> Result<> {
    TRY(txn.put(tree, key, value, PutIf::kAlways));
    return {};
  });
}

Result<bool> DatabaseImpl::remove(Tree tree, std::string_view key) {
  bool removed = false;
  TRY(retry_conflicts(*this, [&](TransactionImpl& txn) -> Result<> {
    removed = TRY(txn.remove(tree, key));
    return {};
  }));
  return removed;
}

Result<> DatabaseImpl::wait_durable(Lsn lsn) {
  if (lsn == kNoLsn) return {};
  return log_->wait_commit(lsn);
}

std::uint64_t DatabaseImpl::count(Tree tree) const {
  const TreeEntry* const entry = entry_of(tree);
  if (entry == nullptr) return 0;
  // In this order: a commit stores ref before it forgets what it was.
  const TreeRef* ref = entry->emptied.load(std::memory_order_acquire);
  if (ref == nullptr) ref = entry->ref.load(std::memory_order_acquire);
  if (ref == nullptr) return 0;
  const std::int64_t count = log_->count_of(ref->id);
  return count < 0 ? 0 : static_cast<std::uint64_t>(count);
}

Result<> DatabaseImpl::checkpoint() {
  TRY(usable());
  TRY(log_->checkpoint());
  discard_freed(runtime::kNever);
  return {};
}

Result<> DatabaseImpl::health() const {
  TRY(pool_->health());
  return log_->health();
}

DatabaseStats DatabaseImpl::stats() const {
  DatabaseStats out{};
  out.commits = counters_.commits.load(std::memory_order_relaxed);
  out.rollbacks = counters_.rollbacks.load(std::memory_order_relaxed);
  out.conflicts = counters_.conflicts.load(std::memory_order_relaxed);
  out.lock_waits = locks_->waits();
  const auto pool = pool_->stats();
  out.pool_frames = pool.frames;
  out.pool_free = pool.free;
  out.pool_resident = pool.resident;
  out.pool_dirty = pool.dirty;
  out.pool_misses = pool.misses;
  out.pool_evictions = pool.evictions;
  const auto log = log_->stats();
  out.log_bytes_appended = log.appended_bytes;
  out.log_batches = log.batches;
  out.log_used_bytes = log.used_bytes;
  out.log_capacity_bytes = log.capacity_bytes;
  out.log_next = log.next;
  out.log_durable = log.durable;
  const auto device = device_->stats();
  out.device_reads = device.reads;
  out.device_writes = device.writes;
  out.device_flushes = device.flushes;
  out.device_read_bytes = device.read_bytes;
  out.device_write_bytes = device.write_bytes;
  const auto space = space_->stats();
  out.page_count = space.page_count;
  out.used_pages = space.used_pages;
  return out;
}

Result<> DatabaseImpl::close() {
  // Before the look at what is open: a transaction that begins meanwhile sees that it may not, or is seen.
  if (closed_.exchange(true)) return close_result_;
  if (const auto open = open_transactions_.count(); open != 0) {
    closed_ = false;
    return Error(Code::kBusy, std::to_string(open) + (open == 1 ? " transaction is" : " transactions are") +
                                  " open: end them first, then close again");
  }
  stop_background();
  close_result_ = log_->checkpoint(true);
  if (!close_result_) return close_result_;
  // A hint: what is left keeps its place on the device until it is used again.
  constexpr runtime::TimeNs kLongestDiscardNs = 2'000'000'000;
  discard_freed(runtime::now_ns() + kLongestDiscardNs);
  return close_result_;
}

DatabaseImpl::~DatabaseImpl() {
  stop_background();
  open_transactions_.abandon([](TransactionImpl& transaction) { transaction.abandon(); });
}

}  // namespace kelda::engine
