// The steps that change a tree, each one record of the log: a key change in a leaf, a split, a merge.
//
// Contract: no latch is held on entry or on return. Room in the log, frames and pages are secured before any latch; what
// cannot be secured comes back as an Error and has changed nothing. Tree latches are taken by upgrading optimistic
// reads, parent before child, left before right, then space maps: nothing is waited for while one is held.
#pragma once

#include "btree/btree.h"
#include "btree/descent.h"
#include "btree/node_edit.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "btree/space.h"

namespace kelda::btree {

// A leaf must take a cell beside two fences of any length, so that a split always makes progress.
inline constexpr std::size_t kMaxCellBytes = kNodeSpace - 2 * kMaxKeyBytes - kSlotBytes;
static_assert(kMaxCellBytes >= kCellHeaderBytes + kMaxKeyBytes + OverflowRef::kBytes);
// The same for an inner node with one separator.
static_assert(3 * kMaxKeyBytes + kSlotBytes + kCellHeaderBytes + kChildBytes <= kNodeSpace);

inline constexpr std::size_t max_inline_bytes(std::size_t key_bytes) {
  return std::min(kMaxInlineBytes, kMaxCellBytes - kCellHeaderBytes - key_bytes);
}

// What a step may use of the shares that are kept back.
struct StepMode {
  Space::Use space = Space::Use::kNormal;
  bool undo_room = false;  // of the log
};
inline constexpr StepMode kForward{};
inline constexpr StepMode kUndoing{Space::Use::kReserve, true};

// Which tree a step is in.
struct TreeRef {
  const TreeEnv& env;
  TreeId id;
  PageId root;
};

struct LeafChange {
  Bytes key;
  bool remove = false;
  std::uint16_t word = 0;  // put: value word and value, or reference
  Bytes value = {};
  PutMode mode = PutMode::kUpsert;
  Lsn undo_next = kNoLsn;  // set: compensation; nothing is logged to undo it
};

struct LeafOutcome {
  bool existed = false;
  bool changed = false;
  std::optional<OverflowRef> old_overflow = std::nullopt;
  std::int64_t shrunk_bytes = 0;     // of the leaf's cells
  std::size_t leaf_used_bytes = 0;
};

// Puts or removes one key; splits as needed. Does not merge.
Result<LeafOutcome> change_leaf(const TreeRef& tree, wal::TxnLog& txn, const LeafChange& change, StepMode mode);

// Makes room for a cell with this key and value on `level`, by splitting the node that covers the key. One split, or
// none if there is room by now; callers try again.
Result<> split_for(const TreeRef& tree, Bytes key, std::size_t value_bytes, unsigned level, StepMode mode);

// Below this a node looks for a sibling to merge with.
inline constexpr std::size_t kUnderfullBytes = kNodeSpace * 30 / 100;
// A merge leaves room for inserts, so that the next one does not split again. Empty nodes merge whenever they fit.
inline constexpr std::size_t kMergedMaxBytes = kNodeSpace * 85 / 100;

// Merges the node that covers the key with a sibling if it is underfull, and its ancestors in turn.
Result<> merge_for(const TreeRef& tree, Bytes key, StepMode mode);

inline Bytes child_bytes(const std::uint64_t& id) { return {reinterpret_cast<const std::byte*>(&id), kChildBytes}; }

}  // namespace kelda::btree
