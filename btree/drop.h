// Steps that free pages: of a value, of a tree that nobody uses.
#pragma once

#include "btree/tree_steps.h"

namespace kelda::btree {

// Frees the pages (ascending) in one record; as compensation of `undo_next` if that is set.
Result<> free_pages_step(const TreeEnv& env, wal::TxnLog* txn, Lsn undo_next, std::span<const PageId> pages, StepMode mode);

// Frees the right end of a tree that nobody uses: one overflow value, or the last leaf with the nodes that it alone
// kept. True when only an empty root is left. `freed`, if given, grows by the pages freed.
Result<bool> drop_step(const TreeRef& tree, StepMode mode, std::uint64_t* freed = nullptr);

}  // namespace kelda::btree
