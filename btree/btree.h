// Ordered key -> value trees on pages, and the space they live in.
//
// Contract
//  - Keys 1..kMaxKeyBytes bytes in memcmp order, values 0..kMaxValueBytes. Values above kMaxInlineBytes live in overflow
//    pages (one index page with the ids of the data pages).
//  - Safe from all cores at once: optimistic lock coupling down, exclusive latches only on the pages that change.
//    No latch is held when a function returns, and none while a function waits for log space or frames.
//  - Every change is logged before the page is released, in steps that are atomic in the log (one record a step).
//    Structure changes (split, merge, page allocation for them) belong to no transaction and are never undone; key
//    changes are undone logically, by key.
//  - Who may read or change which key is the caller's business (locks, engine/). A tree sees the newest value,
//    committed or not.
//  - The root page of a tree never moves.
//
// docs/format-btree.md is the document of the bytes.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "bufferpool/buffer_pool.h"
#include "common/function_ref.h"
#include "common/result.h"
#include "wal/log.h"

namespace kelda::btree {

inline constexpr std::size_t kMaxKeyBytes = 1024;
inline constexpr std::size_t kMaxValueBytes = 1 << 20;
inline constexpr std::size_t kMaxInlineBytes = 1024;

class Space;  // page allocation on the space maps; btree/space.h

// What all trees of one database share.
struct TreeEnv {
  bufferpool::BufferPool& pool;
  wal::Log& log;
  Space& space;
};

// A transaction as trees see it: its log, and pages to free when it commits.
struct TreeTxn {
  wal::TxnLog log;
  std::vector<PageId> free_at_commit;  // overflow pages of replaced or removed values
};

enum class PutMode : std::uint8_t { kUpsert, kInsertOnly, kUpdateOnly };
enum class PutOutcome : std::uint8_t { kInserted, kUpdated, kRefused };  // refused: the mode did not allow it

class BTree {
 public:
  BTree(TreeEnv env, TreeId id, PageId root) : env_(env), id_(id), root_(root) {}

  // Makes an empty tree as part of the transaction (undone with it); returns its root.
  static Result<PageId> create(TreeEnv env, TreeTxn& txn, TreeId id);

  TreeId id() const { return id_; }
  PageId root() const { return root_; }

  // Reads a key into `value` (replaced). False if absent. `may_use` runs after the value was read and before the read is
  // validated: when it returns false, lookup returns kConflict (the caller saw that the key is locked).
  // `page_lsn`, if given, gets the LSN of the leaf: what was read is durable once that is.
  Result<bool> lookup(Bytes key, std::string& value, FunctionRef<bool()> may_use, Lsn* page_lsn = nullptr);
  Result<bool> lookup(Bytes key, std::string& value);
  // As lookup without copying the value; its length if present.
  Result<std::optional<std::uint64_t>> value_length(Bytes key);

  Result<PutOutcome> put(TreeTxn& txn, Bytes key, Bytes value, PutMode mode = PutMode::kUpsert);
  // False if absent.
  Result<bool> remove(TreeTxn& txn, Bytes key);

  // Frees up to `max_pages` pages of a tree that nobody uses any more; true when the root is gone too. Redo-only steps,
  // each atomic: after a crash calling it again goes on.
  Result<bool> drop_some(std::uint32_t max_pages);

  struct CheckReport { std::uint64_t pages = 0, leaves = 0, keys = 0, overflow_pages = 0; std::uint32_t height = 0; };
  // Verifies order, fences, links, counts. Calls visit for each page in use. For a quiet tree. kCorrupt names the page and why.
  Result<CheckReport> check(FunctionRef<void(PageId)> visit);

 private:
  friend class Cursor;
  TreeEnv env_;
  TreeId id_;
  PageId root_;
};

// Walks keys in order, forward and backward. Holds no latch between calls: it keeps a copy of its current leaf and goes
// on by key, so that concurrent splits, merges and removes are tolerated. Seeks see the newest state.
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
  Result<Bytes> value();          // until the next call; fetches overflow
  Lsn page_lsn() const;           // highest LSN of the leaves seen so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Redo and undo of everything that trees and space log. `tree_of` maps a tree id to its tree at undo (null: dropped).
class TreeRecovery : public wal::RecoveryHandler {
 public:
  TreeRecovery(TreeEnv env, FunctionRef<std::optional<PageId>(TreeId)> root_of);
  Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) override;
  bool redo_overwrites(std::uint8_t op) const override;
  Result<> undo(wal::TxnLog& txn, Lsn lsn, Bytes undo) override;

 private:
  TreeEnv env_;
  FunctionRef<std::optional<PageId>(TreeId)> root_of_;
};

// Commit and roll-back of a TreeTxn: the commit record carries the freeing of free_at_commit. commit() does not wait for
// durability: it returns the LSN to wait for (0 if nothing was logged).
Result<Lsn> commit(TreeEnv env, TreeTxn& txn);
Result<> roll_back(TreeEnv env, TreeTxn& txn, wal::RecoveryHandler& handler);
// Rolls back to an earlier size of txn.log.undo (savepoint).
Result<> roll_back_to(TreeEnv env, TreeTxn& txn, wal::RecoveryHandler& handler, std::size_t undo_count);

}  // namespace kelda::btree
