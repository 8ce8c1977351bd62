// Ordered key -> value trees on pages, and the space they live in.
//
// Contract
//  - Keys 1..kMaxKeyBytes bytes in memcmp order, values 0..kMaxValueBytes. Values above kMaxInlineBytes live in overflow
//    pages (overflow.h).
//  - Safe from all cores at once: optimistic lock coupling down, exclusive latches only on the pages that change.
//    No latch is held when a function returns, and none while a function waits for log space or frames.
//  - Every change is logged before the page is released, in steps that are atomic in the log (one record a step).
//    Structure changes (split, merge, page allocation for them) belong to no transaction and are never undone; key
//    changes are undone logically, by key.
//  - Who may read or change which key is the caller's business (locks, engine/). A tree sees the newest value,
//    committed or not. A key that a transaction changed is changed by no other until it ends.
//  - The root page of a tree never moves.
//  - A call that returns an error may have changed part of what it was to do: roll the transaction back (or to a
//    savepoint). Both stay possible after kNoSpace, kTooLarge, kConflict and kInvalidArgument.
//
// docs/format-btree.md is the document of the bytes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bufferpool/buffer_pool.h"
#include "common/function_ref.h"
#include "common/result.h"
#include "wal/log.h"

namespace kelda::btree {

inline constexpr std::size_t kMaxKeyBytes = 1024;
inline constexpr std::size_t kMaxValueBytes = 1 << 20;
inline constexpr std::size_t kMaxInlineBytes = 1024;  // less beside a long key: see kMaxCellBytes

class Space;  // page allocation on the space maps; btree/space.h

// What all trees of one database share.
struct TreeEnv {
  bufferpool::BufferPool& pool;
  wal::Log& log;
  Space& space;
};

// Pages to free when a transaction commits: an overflow value, or single pages.
struct PendingFree {
  PageId page;
  std::uint64_t stamp = 0;
  std::uint32_t value_bytes = 0;   // of the overflow value at `page`; 0: `page_count` pages from `page` on
  std::uint32_t page_count = 0;
  std::size_t undo_count = 0;      // size of TxnLog::undo when this was added: a savepoint before it forgets it
};

// A transaction as trees see it: its log, and pages to free when it commits. The caller starts it with Log::begin() and
// ends it with commit() or roll_back() below.
struct TreeTxn {
  wal::TxnLog log;
  std::vector<PendingFree> free_at_commit;
  std::int64_t promised_bytes = 0;  // of Space::promise
};

enum class PutMode : std::uint8_t { kUpsert, kInsertOnly, kUpdateOnly };
enum class PutOutcome : std::uint8_t { kInserted, kUpdated, kRefused };  // refused: the mode did not allow it

class PageSource;  // page_source.h

class BTree {
 public:
  BTree(TreeEnv env, TreeId id, PageId root) : env_(env), id_(id), root_(root) {}

  // Makes an empty tree as part of the transaction (undone with it, and with all that is then in it); returns its root.
  // `replaces`: in place of one that is dropped, which goes on when the disk is full.
  static Result<PageId> create(TreeEnv env, TreeTxn& txn, TreeId id, bool replaces = false);
  // Makes an empty tree at a fixed root page (below kFirstFreePage), unless it is there. Not part of a transaction.
  static Result<> ensure_at(TreeEnv env, TreeId id, PageId root);

  TreeId id() const { return id_; }
  PageId root() const { return root_; }

  // Reads a key into `value` (replaced). False if absent. `may_use` runs after the value was read and before the read is
  // validated: when it returns false, lookup returns kConflict (the caller saw that the key is locked). It may be called
  // several times. `page_lsn`, if given, gets the LSN of the leaf: what was read is durable once that is.
  Result<bool> lookup(Bytes key, std::string& value, FunctionRef<bool()> may_use, Lsn* page_lsn = nullptr);
  Result<bool> lookup(Bytes key, std::string& value);
  // As lookup without copying the value; its length if present.
  Result<std::optional<std::uint64_t>> value_length(Bytes key);

  // kInvalidArgument: the key is empty. kTooLarge: key or value beyond its limit, or the transaction beyond the log's.
  Result<PutOutcome> put(TreeTxn& txn, Bytes key, Bytes value, PutMode mode = PutMode::kUpsert);
  // False if absent.
  Result<bool> remove(TreeTxn& txn, Bytes key);

  // Empties a tree that nobody uses any more, by up to about `max_pages` pages; true when only an empty root is left.
  // Redo-only steps, each atomic: after a crash calling it again goes on.
  Result<bool> drop_some(std::uint32_t max_pages);
  // Frees the root when `txn` commits: for the transaction that forgets the tree, after drop_some returned true.
  void free_root(TreeTxn& txn);

  struct CheckReport { std::uint64_t pages = 0, leaves = 0, keys = 0, overflow_pages = 0; std::uint32_t height = 0; };
  // Verifies order, fences, links, overflow values and the count of keys. Calls visit for each page in use. For a quiet
  // tree. kCorrupt names the page and why. Without a source the pool's pages are read.
  Result<CheckReport> check(FunctionRef<void(PageId)> visit, PageSource* source = nullptr);

 private:
  friend class Cursor;
  TreeEnv env_;
  TreeId id_;
  PageId root_;
};

// Walks keys in order, forward and backward. Holds no latch between calls: it keeps a copy of its current leaf and goes
// on by key, so that concurrent splits, merges and removes are tolerated. Every step sees the newest state.
class Cursor {
 public:
  explicit Cursor(BTree& tree);
  ~Cursor();
  Cursor(Cursor&&) noexcept;

  // Position on the first key >= `key` (seek), or the last key <= `key` (seek_back); empty key: first or last of all.
  // False: no such key. After false the cursor is not valid.
  Result<bool> seek(Bytes key);
  Result<bool> seek_back(Bytes key);
  Result<bool> next();
  Result<bool> prev();
  bool valid() const;
  Bytes key() const;              // until the next call
  // Until the next call; fetches overflow. kNotFound: the key was removed since the cursor came to it.
  Result<Bytes> value();
  Lsn page_lsn() const;           // highest LSN of the leaves seen so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Redo and undo of everything that trees and space log.
class TreeRecovery : public wal::RecoveryHandler {
 public:
  explicit TreeRecovery(TreeEnv env) : env_(env) {}
  Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) override;
  bool redo_overwrites(std::uint8_t op) const override;
  Result<> undo(wal::TxnLog& txn, Lsn lsn, Bytes undo) override;
  Result<> before_undo() override;
  Result<bool> page_in_use(PageId page) override;

 private:
  TreeEnv env_;
};

// After recovery, before traffic: frees what committed transactions could not free in their commit record (free_list.h).
Result<> finish_frees(TreeEnv env);

// Checks that list. Calls visit for each page that it consists of or lists. For a quiet database.
Result<> check_free_list(const TreeEnv& env, FunctionRef<void(PageId)> visit);

// Commit and roll-back of a TreeTxn: the commit record carries the freeing of free_at_commit. commit() does not wait for
// durability: it returns the LSN to wait for (0 if nothing was logged). When it fails the transaction is still open.
Result<Lsn> commit(TreeEnv env, TreeTxn& txn);
Result<> roll_back(TreeEnv env, TreeTxn& txn, wal::RecoveryHandler& handler);
// Rolls back to an earlier size of txn.log.undo (savepoint).
Result<> roll_back_to(TreeEnv env, TreeTxn& txn, wal::RecoveryHandler& handler, std::size_t undo_count);

// Verifies that exactly the pages for which `reachable` is true are in use, beside the space maps and the tree's own
// list of pages to free. For a quiet database. kCorrupt names the first page that is lost or used twice.
Result<> check_space(TreeEnv env, FunctionRef<bool(PageId)> reachable);

}  // namespace kelda::btree
