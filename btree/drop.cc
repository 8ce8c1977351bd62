#include "btree/drop.h"

#include <algorithm>

#include "common/assert.h"

namespace kelda::btree {

namespace {

using bufferpool::ExclusiveGuard;

constexpr std::size_t kMaxHeight = 64;

// The nodes of a tree's right edge, from the root down. Nobody else uses the tree, so a copy of what was seen stays true;
// only the pool looks at its pages.
struct Edge {
  std::vector<PageId> nodes;
  std::size_t anchor = 0;     // lowest node, above the leaf, that has another child
  bool has_anchor = false;
  bool marked = false;        // the root says that the tree is being dropped
  unsigned leaf_count = 0;    // cells of the leaf
  unsigned tail = 0;          // first cell of those that go in this step
  std::optional<OverflowRef> overflow;  // at `tail`
};

Result<Edge> walk_edge(const TreeRef& tree) {
  Edge edge;
  PageId page = tree.root;
  for (;;) {
    auto guard = TRY(bufferpool::SharedGuard::take(tree.env.pool, page));
    const NodeView node(guard.data());
    if (!node.is_node() || node.tree() != tree.id || edge.nodes.size() >= kMaxHeight) {
      return corrupt_page(page, "not a node of the tree that is dropped");
    }
    if (edge.nodes.empty()) edge.marked = (node.flags() & kTreeIsDropped) != 0;
    edge.nodes.push_back(page);
    if (node.is_leaf()) {
      edge.leaf_count = edge.tail = node.count();
      while (edge.tail > 0 && !edge.overflow) {
        const NodeView::Value value = node.value(--edge.tail);
        if (value.is_overflow) edge.overflow = OverflowRef::decode(value.bytes);
      }
      return edge;
    }
    if (node.count() > 0) {
      edge.anchor = edge.nodes.size() - 1;
      edge.has_anchor = true;
    }
    page = node.child(node.count());
  }
}

// One record: a change of one node, and pages freed.
class DropStep {
 public:
  DropStep(const TreeRef& tree, StepMode mode) : tree_(tree), env_(tree.env), mode_(mode) {}

  template <class MakeChange, class Apply>
  Result<> run(PageId page, std::span<const PageId> freed, std::int32_t removed, MakeChange make_change, Apply apply) {
    SpaceStep space(env_.pool, freed, false);
    for (unsigned attempt = 0;; ++attempt) {
      auto reservation = TRY(env_.log.reserve(nullptr, 512 + space.payload_bytes() + space.map_count() * wal::kChangeOverheadBytes,
                                              1, mode_.undo_room));
      TRY(space.prepare());
      auto guard = TRY(ExclusiveGuard::take(env_.pool, page));
      if (!TRY(space.try_latch())) {
        guard.release();
        after_restart(attempt);
        continue;
      }
      std::vector<wal::PageChange> changes{make_change(guard)};
      space.add_to(changes);
      const Lsn lsn = env_.log.append(
          reservation, nullptr, {.changes = changes, .undo = {}, .undo_next = {}, .count = {tree_.id, -removed}});
      apply(guard);
      guard.mark_dirty(lsn);
      space.finish(lsn);
      break;
    }
    env_.space.freed(freed);
    return {};
  }

  // The root says from now on that upper fences on the right edge may be short.
  Result<> mark_root() {
    const std::byte flags{kTreeIsDropped};
    return run(tree_.root, {}, 0,
               [&](ExclusiveGuard& root) {
                 return wal::PageChange{root.page(), static_cast<std::uint8_t>(PageOp::kSetFlags), {&flags, 1}, {}, {}};
               },
               [](ExclusiveGuard& root) { node_header(root.data()).page.owner[kOwnerFlags] = kTreeIsDropped; });
  }

  // The leaf's last cells from `keep` on, and the pages of the one overflow value among them.
  Result<> remove_cells(PageId leaf, unsigned keep, unsigned count, std::span<const PageId> freed) {
    Writer<2> payload;
    payload.number(static_cast<std::uint16_t>(keep));
    return run(leaf, freed, static_cast<std::int32_t>(count - keep),
               [&](ExclusiveGuard& node) {
                 return wal::PageChange{node.page(), static_cast<std::uint8_t>(PageOp::kRemoveTail), payload.bytes(), {}, {}};
               },
               [&](ExclusiveGuard& node) { remove_tail(node.data(), keep); });
  }

  // Everything below the anchor goes with its last separator.
  Result<> cut_below(PageId anchor, std::span<const PageId> freed, unsigned removed) {
    Writer<2> payload;
    unsigned last = 0;
    return run(anchor, freed, static_cast<std::int32_t>(removed),
               [&](ExclusiveGuard& node) {
                 last = NodeView(node.data()).count() - 1;
                 payload.number(static_cast<std::uint16_t>(last));
                 return wal::PageChange{node.page(), static_cast<std::uint8_t>(PageOp::kRemoveCell), payload.bytes(), {}, {}};
               },
               [&](ExclusiveGuard& node) { remove_cell(node.data(), last); });
  }

  // No anchor: the root becomes an empty leaf.
  Result<> empty_root(std::span<const PageId> freed, unsigned removed) {
    alignas(8) std::byte empty[kPageBytes] = {};
    init_node(empty, tree_.id, 0, {}, {});
    node_header(empty).page.owner[kOwnerFlags] = kTreeIsDropped;
    const NodeImage image(empty);
    constexpr std::size_t from = offsetof(disk::PageHeader, type);
    return run(tree_.root, freed, static_cast<std::int32_t>(removed),
               [&](ExclusiveGuard& root) { return image.change(root.page(), PageOp::kNodeImage); },
               [&](ExclusiveGuard& root) { std::memcpy(root.data() + from, empty + from, kPageBytes - from); });
  }

 private:
  const TreeRef& tree_;
  const TreeEnv& env_;
  StepMode mode_;
};

}  // namespace

Result<> free_pages_step(const TreeEnv& env, wal::TxnLog* txn, Lsn undo_next, std::span<const PageId> pages, StepMode mode) {
  SpaceStep space(env.pool, pages, false);
  for (unsigned attempt = 0;; ++attempt) {
    auto reservation = TRY(env.log.reserve(txn, 64 + space.payload_bytes() + space.map_count() * wal::kChangeOverheadBytes, 1,
                                           mode.undo_room));
    TRY(space.prepare());
    if (!TRY(space.try_latch())) {
      after_restart(attempt);
      continue;
    }
    std::vector<wal::PageChange> changes;
    space.add_to(changes);
    const Lsn lsn = env.log.append(reservation, txn, {.changes = changes, .undo = {}, .undo_next = undo_next, .count = {}});
    space.finish(lsn);
    break;
  }
  env.space.freed(pages);
  return {};
}

Result<bool> drop_step(const TreeRef& tree, StepMode mode, std::uint64_t* freed) {
  const Edge edge = TRY(walk_edge(tree));
  const bool leaf_is_root = edge.nodes.size() == 1;
  if (leaf_is_root && edge.leaf_count == 0) return true;
  DropStep step(tree, mode);
  std::vector<PageId> pages;
  if (!edge.marked) {
    TRY(step.mark_root());
  } else if (edge.overflow) {
    auto found = overflow_pages(tree.env, *edge.overflow);
    if (found.failed_with(Code::kRestart)) return corrupt_page(edge.overflow->page, "not the overflow value that its leaf refers to");
    pages = TRY(std::move(found));
    TRY(step.remove_cells(edge.nodes.back(), edge.tail, edge.leaf_count, pages));
  } else if (leaf_is_root) {
    TRY(step.remove_cells(tree.root, 0, edge.leaf_count, {}));
  } else {
    const std::size_t keep = edge.has_anchor ? edge.anchor : 0;
    pages.assign(edge.nodes.begin() + static_cast<std::ptrdiff_t>(keep) + 1, edge.nodes.end());
    std::sort(pages.begin(), pages.end());
    TRY(edge.has_anchor ? step.cut_below(edge.nodes[keep], pages, edge.leaf_count) : step.empty_root(pages, edge.leaf_count));
  }
  if (freed != nullptr) *freed += pages.size();
  return false;
}

Result<bool> BTree::drop_some(std::uint32_t max_pages) {
  const TreeRef tree{env_, id_, root_};
  std::uint64_t freed = 0;
  // Leaves without pages to free cost a step too.
  for (std::uint32_t steps = 0; freed < max_pages && steps <= max_pages; ++steps) {
    if (TRY(drop_step(tree, kUndoing, &freed))) return true;
  }
  return false;
}

void BTree::free_root(TreeTxn& txn) {
  txn.free_at_commit.push_back({.page = root_, .page_count = 1, .undo_count = txn.log.undo.size()});
}

}  // namespace kelda::btree
