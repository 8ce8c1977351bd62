// Merges: a node takes in its right sibling, or the root its only child. One record over the node, their parent and the
// space map. No transaction.
#include <vector>

#include "btree/tree_steps.h"
#include "common/assert.h"

namespace kelda::btree {

namespace {

using bufferpool::ExclusiveGuard;

constexpr std::size_t kImageFrom = offsetof(disk::PageHeader, type);
constexpr std::uint64_t kMergeLogBytes = kPageBytes + 256;
// A merge is maintenance: under contention it is left to the next remove.
constexpr unsigned kMergeTries = 64;

enum class Outcome : std::uint8_t {
  kNothing,    // not underfull, or no sibling that fits
  kMerged,     // look at the parent next
  kOnlyChild,  // without siblings under its parent: the parent must merge first
  kCollapsed,  // the root took in its only child: look at it
  kRestart,
};

bool is_underfull(NodeView node) { return node.used_bytes() < kUnderfullBytes || node.count() == 0; }

bool worth_merging(NodeView left, NodeView right) {
  if (!fits_merge(left, right)) return false;
  return left.count() == 0 || right.count() == 0 || merged_bytes(left, right) <= kMergedMaxBytes;
}

bool are_neighbours(NodeView parent, NodeView left, NodeView right, unsigned right_index) {
  return right_index <= parent.count() && right_index > 0 && as_view(left.upper()) == as_view(right.lower()) &&
         full_key(parent, right_index - 1) == as_view(right.lower()) && left.level() == right.level();
}

// Two neighbours under one parent, latched or about to be.
struct Pair {
  NodeRef left, right;
  unsigned right_index;  // child number in the parent
};

class MergeStep {
 public:
  MergeStep(const TreeRef& tree, const Path& path, wal::Log::Reservation& reservation)
      : env_(tree.env), path_(path), reservation_(reservation) {}

  // Tries the left sibling first: then what moves, and is logged, is the underfull node. May wait for the siblings' pages.
  Result<Outcome> run() {
    const NodeView parent = view_of(env_, path_.parent);
    const unsigned count = parent.count(), index = path_.child_index;
    for (const bool to_right : {false, true}) {
      if (to_right ? index >= count : index == 0) continue;
      NodeRef sibling{parent.child(to_right ? index + 1 : index - 1), 0};
      if (!validate(env_, path_.parent)) return Outcome::kRestart;
      if (!env_.pool.optimistic_begin(sibling.page, sibling.version)) {
        return make_resident(sibling.page, path_.parent);
      }
      const Pair pair = to_right ? Pair{path_.node, sibling, index + 1} : Pair{sibling, path_.node, index};
      const bool worth = worth_merging(view_of(env_, pair.left), view_of(env_, pair.right));
      if (!validate(env_, pair.left) || !validate(env_, pair.right)) return Outcome::kRestart;
      if (worth) return merge(pair);
    }
    return Outcome::kNothing;
  }

  // The node is the root, above a single child.
  Result<Outcome> collapse() {
    NodeRef only{view_of(env_, path_.node).child(0), 0};
    if (!validate(env_, path_.node)) return Outcome::kRestart;
    if (!env_.pool.optimistic_begin(only.page, only.version)) {
      return make_resident(only.page, path_.node);
    }
    SpaceStep space(env_.pool, {&only.page, 1}, false);
    TRY(space.prepare());
    if (!try_latch(env_, path_.node)) return Outcome::kRestart;
    ExclusiveGuard root = ExclusiveGuard::adopt(env_.pool, path_.node.page);
    if (!try_latch(env_, only)) return Outcome::kRestart;
    ExclusiveGuard child = ExclusiveGuard::adopt(env_.pool, only.page);
    if (!TRY(space.try_latch())) return Outcome::kRestart;
    const NodeView below(child.data());
    if (!below.lower().empty() || !below.upper().empty()) return corrupt_page(only.page, kFencesDisagree);
    compact_node(child.data());
    node_header(child.data()).page.owner[kOwnerFlags] = NodeView(root.data()).flags();
    const NodeImage image(child.data());
    std::vector<wal::PageChange> changes{image.change(root.page(), PageOp::kNodeImage)};
    const Lsn lsn = append(changes, space);
    std::memcpy(root.data() + kImageFrom, child.data() + kImageFrom, kPageBytes - kImageFrom);
    root.mark_dirty(lsn);
    space.finish(lsn);
    child.release();
    env_.space.freed({&only.page, 1});
    return Outcome::kCollapsed;
  }

 private:
  // A page that was freed meanwhile may not be readable any more: nobody points to it then.
  Result<Outcome> make_resident(PageId page, const NodeRef& parent) {
    auto resident = env_.pool.make_resident(page);
    if (!resident && validate(env_, parent)) return std::move(resident).error();
    return Outcome::kRestart;
  }

  Lsn append(std::vector<wal::PageChange>& changes, const SpaceStep& space) {
    space.add_to(changes);
    return env_.log.append(reservation_, nullptr, {.changes = changes, .undo = {}, .undo_next = {}, .count = {}});
  }

  Result<Outcome> merge(const Pair& pair) {
    const PageId freed = pair.right.page;
    SpaceStep space(env_.pool, {&freed, 1}, false);
    TRY(space.prepare());
    if (!try_latch(env_, path_.parent)) return Outcome::kRestart;
    ExclusiveGuard parent = ExclusiveGuard::adopt(env_.pool, path_.parent.page);
    if (!try_latch(env_, pair.left)) return Outcome::kRestart;
    ExclusiveGuard left = ExclusiveGuard::adopt(env_.pool, pair.left.page);
    if (!try_latch(env_, pair.right)) return Outcome::kRestart;
    ExclusiveGuard right = ExclusiveGuard::adopt(env_.pool, pair.right.page);
    if (!TRY(space.try_latch())) return Outcome::kRestart;
    if (!are_neighbours(NodeView(parent.data()), NodeView(left.data()), NodeView(right.data()), pair.right_index)) {
      return corrupt_page(pair.left.page, "its fences are not those of its neighbour and parent");
    }
    compact_node(right.data());
    const NodeImage image(right.data());
    Writer<2> slot;
    slot.number(static_cast<std::uint16_t>(pair.right_index - 1));
    std::vector<wal::PageChange> changes{
        {parent.page(), static_cast<std::uint8_t>(PageOp::kRemoveCell), slot.bytes(), {}, {}},
        image.change(left.page(), PageOp::kMergeRight)};
    const Lsn lsn = append(changes, space);
    merge_right(left.data(), NodeView(right.data()));
    remove_cell(parent.data(), pair.right_index - 1);
    KELDA_DEBUG_ASSERT(check_node(NodeView(parent.data())) && check_node(NodeView(left.data())));
    parent.mark_dirty(lsn);
    left.mark_dirty(lsn);
    space.finish(lsn);
    right.release();
    env_.space.freed({&freed, 1});
    return Outcome::kMerged;
  }

  const TreeEnv& env_;
  const Path& path_;
  wal::Log::Reservation& reservation_;
};

// Not inlined, as in tree_split.cc: merge_level() climbs by recursion.
[[gnu::noinline]] Result<Outcome> try_merge(const TreeRef& tree, Bytes key, unsigned level, StepMode mode) {
  Path path;
  switch (descend_to(tree.env, tree.id, tree.root, level, key, path)) {
    case Walk::kFailed:
      if (path.error.code() == Code::kNotFound) return Outcome::kNothing;  // the tree became lower
      return std::move(path.error);
    case Walk::kRestart: return Outcome::kRestart;
    case Walk::kOk: break;
  }
  const NodeView node = view_of(tree.env, path.node);
  const bool is_root = path.parent.page == kNoPage;
  const bool wanted = is_root ? level > 0 && node.count() == 0 : is_underfull(node);
  const bool only_child = !is_root && view_of(tree.env, path.parent).count() == 0;
  if (!validate(tree.env, path.node) || (!is_root && !validate(tree.env, path.parent))) return Outcome::kRestart;
  if (!wanted) return Outcome::kNothing;
  if (only_child) return Outcome::kOnlyChild;
  auto reservation = TRY(tree.env.log.reserve(nullptr, kMergeLogBytes, 1, mode.undo_room));
  MergeStep step(tree, path, reservation);
  return is_root ? step.collapse() : step.run();
}

Result<> merge_level(const TreeRef& tree, Bytes key, unsigned level, StepMode mode) {
  bool parent_tried = false;
  for (unsigned attempt = 0; attempt < kMergeTries; ++attempt) {
    switch (TRY(try_merge(tree, key, level, mode))) {
      case Outcome::kNothing: return {};
      case Outcome::kMerged: return merge_level(tree, key, level + 1, mode);
      case Outcome::kCollapsed: return merge_level(tree, key, level - 1, mode);
      case Outcome::kOnlyChild:
        if (parent_tried) return {};
        parent_tried = true;
        TRY(merge_level(tree, key, level + 1, mode));
        break;
      case Outcome::kRestart: after_restart(attempt); break;
    }
  }
  return {};
}

}  // namespace

Result<> merge_for(const TreeRef& tree, Bytes key, StepMode mode) { return merge_level(tree, key, 0, mode); }

}  // namespace kelda::btree
