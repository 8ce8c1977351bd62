// A key change in a leaf: one record with its logical undo.
#include "btree/tree_steps.h"
#include "common/assert.h"

namespace kelda::btree {

namespace {

using bufferpool::ExclusiveGuard;

using UndoWriter = Writer<1 + 3 * 10 + kMaxKeyBytes + kMaxInlineBytes>;

void write_undo(UndoWriter& out, const TreeRef& tree, Bytes key, bool existed, const NodeView::Value& old) {
  out.number(!existed ? UndoKind::kWasAbsent : old.is_overflow ? UndoKind::kWasOverflow : UndoKind::kWasInline);
  out.varint(tree.id.value);
  out.varint(tree.root.value);
  out.varint(key.size());
  out.put(key);
  if (existed) out.put(old.bytes);
}

// Latches the leaf that covers the key. kOk: `leaf` holds it.
Walk latch_leaf(const TreeRef& tree, Bytes key, unsigned attempt, std::optional<ExclusiveGuard>& leaf, Path& path) {
  const Walk walk = descend_to(tree.env, tree.id, tree.root, 0, key, path);
  if (walk != Walk::kOk) return walk;
  if (attempt < kOptimisticTries) {
    if (!try_latch(tree.env, path.node)) return Walk::kRestart;
    leaf = ExclusiveGuard::adopt(tree.env.pool, path.node.page);
    return Walk::kOk;
  }
  // Others keep changing it: wait in line, then see whether it is still the right leaf.
  auto guard = ExclusiveGuard::take(tree.env.pool, path.node.page);
  const bool right = path.parent.page != kNoPage ? validate(tree.env, path.parent)
                                                 : guard && NodeView(guard->data()).is_leaf();
  if (!right) return Walk::kRestart;
  if (!guard) {
    path.error = std::move(guard).error();
    return Walk::kFailed;
  }
  leaf = std::move(*guard);
  return Walk::kOk;
}

// The change on a latched leaf.
class LeafStep {
 public:
  LeafStep(const TreeRef& tree, wal::TxnLog& txn, const LeafChange& change, ExclusiveGuard& leaf)
      : tree_(tree), txn_(txn), change_(change), leaf_(leaf), node_(leaf.data()), at_(lower_bound(node_, change.key)) {
    if (at_.exact) old_ = node_.value(at_.slot);
  }

  bool refused() const {
    if (change_.remove) return !at_.exact;
    return (at_.exact && change_.mode == PutMode::kInsertOnly) || (!at_.exact && change_.mode == PutMode::kUpdateOnly);
  }
  bool fits() const {
    if (change_.remove) return true;
    return at_.exact ? fits_replace(node_, at_.slot, change_.value.size())
                     : fits_insert(node_, change_.key.size(), change_.value.size());
  }

  LeafOutcome run(wal::Log::Reservation& reservation) {
    LeafOutcome outcome{.existed = at_.exact, .changed = true};
    if (old_.is_overflow) outcome.old_overflow = OverflowRef::decode(old_.bytes);
    const std::size_t used_before = node_.used_bytes();
    const Lsn lsn = log(reservation);
    apply();
    KELDA_DEBUG_ASSERT(check_node(node_).has_value());
    leaf_.mark_dirty(lsn);
    outcome.leaf_used_bytes = node_.used_bytes();
    outcome.shrunk_bytes = static_cast<std::int64_t>(used_before) - static_cast<std::int64_t>(outcome.leaf_used_bytes);
    return outcome;
  }
  LeafOutcome unchanged() const { return {.existed = at_.exact, .leaf_used_bytes = node_.used_bytes()}; }

 private:
  Bytes suffix() const { return change_.key.subspan(node_.prefix_bytes()); }

  Lsn log(wal::Log::Reservation& reservation) {
    Writer<6> head;
    head.number(static_cast<std::uint16_t>(at_.slot));
    wal::PageChange page{leaf_.page(), 0, {}, {}, {}};
    std::int32_t delta = 0;
    if (change_.remove) {
      page.op = static_cast<std::uint8_t>(PageOp::kRemoveCell);
      delta = -1;
    } else if (at_.exact) {
      page.op = static_cast<std::uint8_t>(PageOp::kReplaceValue);
      head.number(change_.word);
      page.second = change_.value;
    } else {
      page.op = static_cast<std::uint8_t>(PageOp::kInsertCell);
      head.number(static_cast<std::uint16_t>(suffix().size()));
      head.number(change_.word);
      page.second = suffix();
      page.third = change_.value;
      delta = 1;
    }
    page.first = head.bytes();
    UndoWriter undo;
    if (change_.undo_next == kNoLsn) write_undo(undo, tree_, change_.key, at_.exact, old_);
    return tree_.env.log.append(reservation, &txn_,
                                {.changes = {&page, 1},
                                 .undo = undo.bytes(),
                                 .undo_next = change_.undo_next,
                                 .count = {tree_.id, delta}});
  }

  void apply() {
    if (change_.remove) remove_cell(leaf_.data(), at_.slot);
    else if (at_.exact) replace_value(leaf_.data(), at_.slot, change_.word, change_.value);
    else insert_cell(leaf_.data(), at_.slot, suffix(), change_.word, change_.value);
  }

  const TreeRef& tree_;
  wal::TxnLog& txn_;
  const LeafChange& change_;
  ExclusiveGuard& leaf_;
  NodeView node_;
  Position at_;
  NodeView::Value old_{};  // where at_.exact
};

}  // namespace

Result<LeafOutcome> change_leaf(const TreeRef& tree, wal::TxnLog& txn, const LeafChange& change, StepMode mode) {
  // What replaces a value must log the old one too, whose length is not known yet.
  const std::size_t log_bytes = 64 + 2 * change.key.size() + change.value.size() + kMaxInlineBytes;
  for (;;) {
    {
      auto reservation = TRY(tree.env.log.reserve(&txn, log_bytes, 1, mode.undo_room));
      Path path;
      std::optional<ExclusiveGuard> leaf;
      for (unsigned attempt = 0;; ++attempt) {
        const Walk walk = latch_leaf(tree, change.key, attempt, leaf, path);
        if (walk == Walk::kOk) break;
        if (walk == Walk::kFailed) return std::move(path.error);
        after_restart(attempt);
      }
      if (!covers(NodeView(leaf->data()), change.key)) return corrupt_page(leaf->page(), kFencesDisagree);
      LeafStep step(tree, txn, change, *leaf);
      if (step.refused()) return step.unchanged();
      if (step.fits()) return step.run(reservation);
    }
    TRY(split_for(tree, change.key, change.value.size(), 0, mode));
  }
}

}  // namespace kelda::btree
