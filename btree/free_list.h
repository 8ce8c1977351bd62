// Pages that a committed transaction could not free in its commit record, because the record would have grown too large.
//
// The scheme: free_at_commit that fits is freed by the commit record itself (space-map changes in it take effect with
// it). What does not fit is listed in a small tree of its own, at a fixed root, by ordinary puts of the transaction just
// before it commits: undone with it, and in force with it. After the commit each entry is worked off in one step that
// removes it and frees its pages: so a page is freed exactly once, never before the commit, and never forgotten: what a
// crash leaves is worked off by finish_frees() at the next start.
//
//   key    transaction id u64 big-endian, number u32 big-endian
//   value  runs of pages: first u64, count u32
#pragma once

#include <span>
#include <vector>

#include "btree/btree.h"

namespace kelda::btree {

inline constexpr TreeId kFreeListTree{~std::uint64_t{0}};
inline constexpr PageId kFreeListRoot{2};

// Lists the pages (ascending) in the transaction.
Result<> list_frees(const TreeEnv& env, TreeTxn& txn, std::span<const PageId> pages);
// Works off what `txn` listed (all transactions: kNoTxn).
Result<> work_off_frees(const TreeEnv& env, TxnId txn);

}  // namespace kelda::btree
