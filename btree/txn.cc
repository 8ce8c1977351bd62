// Commit and roll-back of a transaction on trees.
#include <algorithm>

#include "btree/free_list.h"
#include "btree/overflow.h"
#include "btree/space.h"
#include "btree/descent.h"
#include "common/assert.h"
#include "runtime/turn.h"

namespace kelda::btree {

namespace {

// What a commit record may carry; the rest goes through the free list (free_list.h).
constexpr std::size_t kMaxCommitPayload = 16 << 10;
constexpr std::size_t kMaxCommitMaps = 64;

Result<std::vector<PageId>> pages_to_free(const TreeEnv& env, const TreeTxn& txn) {
  std::vector<PageId> pages;
  for (const PendingFree& pending : txn.free_at_commit) {
    if (pending.value_bytes == 0) {
      for (std::uint64_t i = 0; i < pending.page_count; ++i) pages.push_back(PageId(pending.page.value + i));
      continue;
    }
    auto found = overflow_pages(env, {pending.value_bytes, pending.page, pending.stamp});
    if (found.failed_with(Code::kRestart)) return corrupt_page(pending.page, "not the overflow value that its leaf referred to");
    const std::vector<PageId> value_pages = TRY(std::move(found));
    pages.insert(pages.end(), value_pages.begin(), value_pages.end());
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

Result<Lsn> append_commit(const TreeEnv& env, TreeTxn& txn, std::span<const PageId> pages) {
  SpaceStep space(env.pool, pages, false);
  for (unsigned attempt = 0;; ++attempt) {
    auto reservation = TRY(env.log.reserve(&txn.log, 64 + space.payload_bytes() + space.map_count() * wal::kChangeOverheadBytes,
                                           1, true));
    TRY(space.prepare());
    if (!TRY(space.try_latch())) {
      after_restart(attempt);
      continue;
    }
    std::vector<wal::PageChange> changes;
    space.add_to(changes);
    const Lsn lsn = env.log.append_commit(reservation, txn.log, changes);
    space.finish(lsn);
    env.space.freed(pages);
    return lsn;
  }
}

void forget(const TreeEnv& env, TreeTxn& txn) {
  txn.free_at_commit.clear();
  env.space.promise(-std::exchange(txn.promised_bytes, 0));
}

bool fits_commit(const SpaceStep& space) {
  return space.payload_bytes() <= kMaxCommitPayload && space.map_count() <= kMaxCommitMaps;
}

}  // namespace

Result<Lsn> commit(TreeEnv env, TreeTxn& txn) {
  if (txn.free_at_commit.empty()) {
    if (txn.log.first_lsn == kNoLsn) return kNoLsn;
    const Lsn lsn = TRY(append_commit(env, txn, {}));
    forget(env, txn);
    return lsn;
  }
  const std::vector<PageId> pages = TRY(pages_to_free(env, txn));
  if (fits_commit(SpaceStep(env.pool, pages, false))) {
    const Lsn lsn = TRY(append_commit(env, txn, pages));
    forget(env, txn);
    return lsn;
  }
  TRY(list_frees(env, txn, pages));
  const TxnId id = txn.log.id;
  const Lsn lsn = TRY(append_commit(env, txn, {}));
  forget(env, txn);
  // The transaction is committed whatever happens now; what is left over is worked off at the next start.
  (void)work_off_frees(env, id);
  return lsn;
}

Result<> roll_back_to(TreeEnv, TreeTxn& txn, wal::RecoveryHandler& handler, std::size_t undo_count) {
  std::vector<std::byte> entry;
  runtime::Turn turn;
  turn.begin();
  for (; txn.log.undo.size() > undo_count; turn.step()) {
    const wal::TxnLog::UndoEntry newest = txn.log.undo.back();
    const Bytes bytes = txn.log.undo_of(newest);
    entry.assign(bytes.begin(), bytes.end());  // the log drops it while it is undone
    const std::size_t before = txn.log.undo.size();
    TRY(handler.undo(txn.log, newest.lsn, entry));
    KELDA_ASSERT(txn.log.undo.size() == before - 1);
  }
  std::erase_if(txn.free_at_commit, [&](const PendingFree& pending) { return pending.undo_count > undo_count; });
  return {};
}

Result<> roll_back(TreeEnv env, TreeTxn& txn, wal::RecoveryHandler& handler) {
  TRY(roll_back_to(env, txn, handler, 0));
  if (txn.log.first_lsn != kNoLsn) {
    auto reservation = TRY(env.log.reserve(&txn.log, 0, 1, true));
    env.log.append_abort(reservation, txn.log);
  }
  forget(env, txn);
  return {};
}

}  // namespace kelda::btree
