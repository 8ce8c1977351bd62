// A transaction: strict two-phase locking over the trees, undo through the log.
//
// Contract: include/kelda/kelda.h. Locks are held from first use to the end; at commit they go when the commit record is in
// the log (early release, lock_table.h). After an error other than kConflict, kNoSpace, kTooLarge, kInvalidArgument from a
// tree the transaction can only be rolled back. After kLockTimeout and kSelfDeadlock it is as before the call.
#pragma once

#include <unordered_map>
#include <vector>

#include "engine/database_impl.h"
#include "engine/scan.h"

namespace kelda::engine {

class TransactionImpl final : public Transaction {
 public:
  // kPrograms: made by begin(). kCall: the database's own, for one call of the program. kInternal: of the background; does not
  // keep close() from closing.
  enum class Kind : std::uint8_t { kPrograms, kCall, kInternal };
  TransactionImpl(DatabaseImpl& db, Kind kind);
  ~TransactionImpl() override;

  void set_lock_timeout_us(std::uint64_t timeout_us) override;
  Result<bool> get(Tree tree, std::string_view key, std::string& value) override;
  Result<bool> get_for_update(Tree tree, std::string_view key, std::string& value) override;
  Result<bool> put(Tree tree, std::string_view key, std::string_view value, PutIf condition) override;
  Result<bool> remove(Tree tree, std::string_view key) override;
  Result<> lock_keys(Tree tree, std::span<const std::string_view> keys) override;
  Result<> lock_tree(Tree tree, bool exclusive) override;
  Result<std::unique_ptr<Scan>> scan(Tree tree) override;
  Result<> clear(Tree tree) override;
  Result<std::uint64_t> savepoint() override;
  Result<> roll_back_to(std::uint64_t savepoint) override;
  Result<> commit() override;
  Result<Lsn> commit_no_wait() override;
  Result<> roll_back() override;

  // For the database's own transactions on the catalog.
  Result<> clear_entry(TreeEntry& entry, bool drop);
  Result<bool> read(TreeEntry& entry, std::string_view key, std::string& value, LockMode mode);
  Result<bool> write(TreeEntry& entry, std::string_view key, std::string_view value, PutIf condition);
  Result<bool> erase(TreeEntry& entry, std::string_view key);
  // The transaction's log, for a change of the caller's own.
  btree::TreeTxn& tree_txn() {
    begin_log();
    return txn_;
  }

  // For another transaction of the same fiber: whether it would wait for this one.
  bool bars(std::uint32_t bucket, LockMode wanted) const;
  bool bars(const TreeEntry& entry, TreeLock::Intent wanted) const;
  bool bars(const TreeEntry& entry, LockMode wanted) const;
  // The database is being destroyed: what this transaction did is undone by the next open.
  void abandon();

 private:
  struct TreeUse {
    TreeEntry* entry;
    TreeLock::Hold hold;
  };
  // A tree that this transaction emptied (replacement) or dropped (null), seen by itself at once, by others at commit.
  struct Replacement {
    TreeEntry* entry;
    TreeRef old;
    const TreeRef* replacement;
  };
  struct Savepoint {
    std::size_t undo_count, replacement_count;
  };

  TreeUse& use_of(TreeEntry& entry);
  Result<> enter(TreeEntry& entry, TreeLock::Intent intent);
  Result<> lock_key(TreeEntry& entry, std::string_view key, LockMode mode);
  Result<> lock_bucket(std::uint32_t bucket, LockMode mode);
  Result<> wait_for_bucket(std::uint32_t bucket, LockMode mode);
  template <class Wait>
  Result<> wait_against_order(std::uint32_t bucket, LockMode mode, Wait wait);
  template <class Wait, class Wanted>
  Result<> wait_for_tree(TreeEntry& entry, Wanted wanted, Wait wait);
  LockMode* held_mode(std::uint32_t bucket);
  const TreeLock::Hold* hold_on(const TreeEntry& entry) const;
  Result<> lock_whole(TreeEntry& entry, LockMode mode);
  bool holds_nothing() const;
  Result<btree::BTree> tree_of(TreeEntry& entry);
  Result<> usable();
  void begin_log();
  Error conflict();
  void forget_replacements(std::size_t kept);
  void leave_open_ones();
  void release_locks(Lsn commit_lsn);
  void finish(Lsn commit_lsn);

  struct HeldBucket {
    std::uint32_t bucket;
    LockMode mode;
  };

  DatabaseImpl& db_;
  const Kind kind_;
  std::uint32_t call_core_ = 0;  // of a kCall
  OpenTransactions::Member member_{*this};
  std::uint64_t lock_timeout_us_ = 0;
  btree::TreeTxn txn_;
  bool begun_ = false;  // the log knows it
  bool over_ = false;
  const char* why_over_ = "the transaction is over";
  std::vector<HeldBucket> buckets_;
  std::unordered_map<std::uint32_t, std::size_t> bucket_index_;  // used beyond kLinearSearchMax
  std::uint32_t highest_bucket_ = 0;
  std::vector<TreeUse> trees_;
  std::vector<Replacement> replacements_;
  std::vector<Savepoint> savepoints_;
  std::shared_ptr<ScanGate> scan_gate_;  // of the scans that are open; null: none yet
  Lsn read_lsn_;  // what it read is durable once this is
};

}  // namespace kelda::engine
