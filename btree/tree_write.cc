// Writing calls of a tree.
#include "btree/drop.h"
#include "btree/tree_steps.h"
#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

Result<> check_key(Bytes key) {
  if (key.empty()) return Error(Code::kInvalidArgument, "a key has at least 1 byte");
  if (key.size() > kMaxKeyBytes) {
    return Error(Code::kTooLarge, "a key has at most " + std::to_string(kMaxKeyBytes) + " bytes, this one has " +
                                      std::to_string(key.size()));
  }
  return {};
}

void free_value_at_commit(TreeTxn& txn, const OverflowRef& ref) {
  txn.free_at_commit.push_back(
      {.page = ref.page, .stamp = ref.stamp, .value_bytes = ref.value_bytes, .undo_count = txn.log.undo.size()});
}

// What the change left over: the old value's pages, and space that rolling back may want again.
void settle(const TreeEnv& env, TreeTxn& txn, const LeafOutcome& outcome) {
  if (outcome.old_overflow && planted(Bug::kOverflowFreedTooEarly)) {
    const auto pages = overflow_pages(env, *outcome.old_overflow).value_or(std::vector<PageId>{});
    return (void)free_pages_step(env, nullptr, kNoLsn, pages, kForward);
  }
  if (outcome.old_overflow) free_value_at_commit(txn, *outcome.old_overflow);
  if (outcome.shrunk_bytes != 0 && (outcome.shrunk_bytes > 0 || txn.promised_bytes > 0)) {
    const std::int64_t change = std::max(outcome.shrunk_bytes, -txn.promised_bytes);
    txn.promised_bytes += change;
    env.space.promise(change);
  }
}

bool refuses(PutMode mode, bool exists) {
  return (mode == PutMode::kInsertOnly && exists) || (mode == PutMode::kUpdateOnly && !exists);
}

}  // namespace

Result<PutOutcome> BTree::put(TreeTxn& txn, Bytes key, Bytes value, PutMode mode) {
  TRY(check_key(key));
  if (value.size() > kMaxValueBytes) {
    return Error(Code::kTooLarge, "a value has at most " + std::to_string(kMaxValueBytes) + " bytes, this one has " +
                                      std::to_string(value.size()));
  }
  TRY(env_.space.check_promise(kMaxCellBytes));
  LeafChange change{.key = key, .word = static_cast<std::uint16_t>(value.size()), .value = value, .mode = mode};
  std::array<std::byte, OverflowRef::kBytes> reference;
  std::optional<OverflowRef> overflow;
  if (value.size() > max_inline_bytes(key.size())) {
    // The key is the caller's alone, so what is found now holds when the leaf is changed.
    if (mode != PutMode::kUpsert && refuses(mode, TRY(value_length(key)).has_value())) return PutOutcome::kRefused;
    overflow = TRY(write_overflow(env_, txn, value));
    reference = overflow->encode();
    change.word = kOverflowFlag | OverflowRef::kBytes;
    change.value = reference;
  }
  const TreeRef tree{env_, id_, root_};
  Result<LeafOutcome> outcome = change_leaf(tree, txn.log, change, kForward);
  if (!outcome || !outcome->changed) {
    if (overflow) free_value_at_commit(txn, *overflow);
    if (!outcome) return std::move(outcome).error();
    return PutOutcome::kRefused;
  }
  settle(env_, txn, *outcome);
  if (outcome->shrunk_bytes > 0 && outcome->leaf_used_bytes < kUnderfullBytes) TRY(merge_for(tree, key, kForward));
  return outcome->existed ? PutOutcome::kUpdated : PutOutcome::kInserted;
}

Result<bool> BTree::remove(TreeTxn& txn, Bytes key) {
  TRY(check_key(key));
  TRY(env_.space.check_promise(kMaxCellBytes));
  const TreeRef tree{env_, id_, root_};
  const LeafOutcome outcome = TRY(change_leaf(tree, txn.log, {.key = key, .remove = true}, kForward));
  if (!outcome.changed) return false;
  settle(env_, txn, outcome);
  if (outcome.leaf_used_bytes < kUnderfullBytes) TRY(merge_for(tree, key, kForward));
  return true;
}

// ---- new trees ----

namespace {

// One step: takes `root` into use as an empty leaf.
Result<> make_root(const TreeEnv& env, wal::TxnLog* txn, TreeId id, PageId root, Bytes undo) {
  SpaceStep space(env.pool, {&root, 1}, true);
  for (unsigned attempt = 0;; ++attempt) {
    auto reservation = TRY(env.log.reserve(txn, 512 + undo.size()));
    TRY(space.prepare());
    TRY(env.pool.reserve_frames(1));
    if (!TRY(space.try_latch())) {
      after_restart(attempt);
      continue;
    }
    auto page = TRY(bufferpool::ExclusiveGuard::take_fresh(env.pool, root));
    init_node(page.data(), id, 0, {}, {});
    const NodeImage image(page.data());
    std::vector<wal::PageChange> changes{image.change(root, PageOp::kNodeImage)};
    space.add_to(changes);
    const Lsn lsn = env.log.append(reservation, txn, {.changes = changes, .undo = undo, .undo_next = {}, .count = {}});
    page.mark_dirty(lsn);
    space.finish(lsn);
    return {};
  }
}

}  // namespace

Result<PageId> BTree::create(TreeEnv env, TreeTxn& txn, TreeId id, bool replaces) {
  const PageId root = TRY(env.space.allocate(replaces ? Space::Use::kReserve : Space::Use::kNormal));
  Writer<24> undo;
  undo.number(UndoKind::kTreeCreated);
  undo.varint(id.value);
  undo.varint(root.value);
  const auto made = make_root(env, &txn.log, id, root, undo.bytes());
  if (!made) {
    env.space.cancel({&root, 1});
    return made.error();
  }
  return root;
}

Result<> BTree::ensure_at(TreeEnv env, TreeId id, PageId root) {
  if (!TRY(env.space.claim_fixed(root))) return {};
  return make_root(env, nullptr, id, root, {});
}

}  // namespace kelda::btree
