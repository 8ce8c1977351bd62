// Redo and undo of what trees and space log.
#include "btree/drop.h"
#include "btree/tree_steps.h"

namespace kelda::btree {

namespace {

Error bad_undo(const char* what) { return Error(Code::kCorrupt, std::string("undo entry: ") + what); }

// Puts a key back to what it was before the transaction changed it.
Result<> undo_change(const TreeEnv& env, wal::TxnLog& txn, Lsn lsn, UndoKind kind, Reader& in) {
  const TreeId id(in.varint());
  const PageId root(in.varint());
  const Bytes key = in.take(in.varint());
  const Bytes old = in.rest();
  if (!in.ok() || key.empty() || key.size() > kMaxKeyBytes || old.size() > kMaxInlineBytes) return bad_undo("damaged key change");
  LeafChange change{.key = key, .remove = kind == UndoKind::kWasAbsent, .value = old, .undo_next = lsn};
  change.word = static_cast<std::uint16_t>(old.size());
  if (kind == UndoKind::kWasOverflow) change.word |= kOverflowFlag;
  const TreeRef tree{env, id, root};
  const LeafOutcome outcome = TRY(change_leaf(tree, txn, change, kUndoing));
  if (!outcome.changed) return bad_undo("the key that a transaction put is gone");
  if (outcome.shrunk_bytes > 0 && outcome.leaf_used_bytes < kUnderfullBytes) TRY(merge_for(tree, key, kUndoing));
  return {};
}

// Frees pages in one compensation step.
Result<> undo_allocation(const TreeEnv& env, wal::TxnLog& txn, Lsn lsn, Reader& in) {
  std::vector<PageId> pages;
  while (!in.at_end()) {
    const std::uint64_t first = in.varint(), count = in.varint();
    if (!in.ok() || first == 0 || count > kMaxOverflowPages || first + count > env.space.page_count()) {
      return bad_undo("damaged allocation");
    }
    for (std::uint64_t i = 0; i < count; ++i) pages.push_back(PageId(first + i));
  }
  return free_pages_step(env, &txn, lsn, pages, kUndoing);
}

Result<> undo_tree(const TreeEnv& env, wal::TxnLog& txn, Lsn lsn, Reader& in) {
  const TreeId id(in.varint());
  const PageId root(in.varint());
  if (!in.ok()) return bad_undo("damaged tree creation");
  const TreeRef tree{env, id, root};
  while (!TRY(drop_step(tree, kUndoing))) {}
  return free_pages_step(env, &txn, lsn, {&root, 1}, kUndoing);
}

}  // namespace

Result<> TreeRecovery::redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) {
  return redo_change(op, page, data, payload);
}

bool TreeRecovery::redo_overwrites(std::uint8_t op) const { return change_overwrites(op); }

Result<> TreeRecovery::before_undo() { return env_.space.load(); }

Result<bool> TreeRecovery::page_in_use(PageId page) { return env_.space.in_use(page); }

Result<> TreeRecovery::undo(wal::TxnLog& txn, Lsn lsn, Bytes undo) {
  Reader in(undo);
  const auto kind = in.number<UndoKind>();
  switch (kind) {
    case UndoKind::kWasAbsent:
    case UndoKind::kWasInline:
    case UndoKind::kWasOverflow: return undo_change(env_, txn, lsn, kind, in);
    case UndoKind::kAllocated: return undo_allocation(env_, txn, lsn, in);
    case UndoKind::kTreeCreated: return undo_tree(env_, txn, lsn, in);
  }
  return bad_undo("unknown kind");
}

}  // namespace kelda::btree
