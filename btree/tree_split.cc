// Splits: one record over the node, its new right sibling, their parent and the space map. No transaction.
#include <vector>

#include "btree/tree_steps.h"
#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

using bufferpool::ExclusiveGuard;

constexpr std::size_t kImageFrom = offsetof(disk::PageHeader, type);
constexpr std::uint64_t kSplitLogBytes = 3 * kPageBytes;

// Pages that a split claimed; given back unless it happened.
class Claim {
 public:
  explicit Claim(Space& space) : space_(space) {}
  ~Claim() { space_.cancel(pages_); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  Result<> grow(std::size_t count, PageId near, Space::Use use) {
    while (pages_.size() < count) pages_.push_back(TRY(space_.allocate(use, near)));
    std::sort(pages_.begin(), pages_.end());
    return {};
  }
  const std::vector<PageId>& pages() const { return pages_; }
  void keep() { pages_.clear(); }

 private:
  Space& space_;
  std::vector<PageId> pages_;
};

SplitPoint choose(NodeView node, Bytes key, std::size_t value_bytes) {
  const Position at = lower_bound(node, key);
  if (!node.is_leaf()) return choose_inner_split(node, at.slot);
  return choose_leaf_split(node, at, key, footprint(node, key.size(), value_bytes));
}

// Is there room for the cell already?
bool has_room(NodeView node, Bytes key, std::size_t value_bytes) {
  const Position at = lower_bound(node, key);
  return at.exact ? fits_replace(node, at.slot, value_bytes) : fits_insert(node, key.size(), value_bytes);
}

void build_right_half(std::byte* out, NodeView node, const SplitPoint& split) {
  // An inner node's slot `keep` moves up: its child is the first of the right half.
  const bool leaf = node.is_leaf();
  build_right(out, node, split.keep + !leaf, as_bytes(split.separator), leaf ? kNoPage : node.child(split.keep + 1));
}

enum class Outcome : std::uint8_t { kDone, kRestart, kParentFull };

class SplitStep {
 public:
  SplitStep(const TreeRef& tree, const Path& path, Claim& claim, wal::Log::Reservation& reservation)
      : env_(tree.env), tree_(tree), path_(path), claim_(claim), reservation_(reservation), space_(env_.pool, claim.pages(), true) {}

  Result<> prepare() {
    TRY(space_.prepare());
    return env_.pool.reserve_frames(claim_.pages().size());
  }

  // kParentFull leaves the separator in `separator`.
  Result<Outcome> run(Bytes key, std::size_t value_bytes, std::string& separator) {
    std::optional<ExclusiveGuard> parent;
    if (!is_root()) {
      if (!try_latch(env_, path_.parent)) return Outcome::kRestart;
      parent = ExclusiveGuard::adopt(env_.pool, path_.parent.page);
    }
    if (!try_latch(env_, path_.node)) return Outcome::kRestart;
    ExclusiveGuard node = ExclusiveGuard::adopt(env_.pool, path_.node.page);
    const NodeView view(node.data());
    if (!covers(view, key)) return corrupt_page(node.page(), kFencesDisagree);
    // Waited for as fresh, a page that is latched here would never come. The disk lost a write of the map.
    for (const PageId page : claim_.pages()) {
      const bool held = page == path_.node.page || page == path_.parent.page;
      if (held && !planted(Bug::kSplitTakesItsOwnPage)) {
        return corrupt_page(page, "a tree refers to it, but in the space map it is free");
      }
    }
    if (has_room(view, key, value_bytes)) return Outcome::kDone;
    const SplitPoint split = choose(view, key, value_bytes);
    if (parent && !belongs(NodeView(parent->data()), split)) return corrupt_page(parent->page(), "its separators are not the fences below");
    if (parent && !fits_insert(NodeView(parent->data()), split.separator.size(), kChildBytes)) {
      separator = split.separator;
      return Outcome::kParentFull;
    }
    if (!TRY(space_.try_latch())) return Outcome::kRestart;
    if (parent) TRY(split_under(*parent, node, split));
    else TRY(split_root(node, split));
    claim_.keep();
    return Outcome::kDone;
  }

 private:
  bool is_root() const { return path_.parent.page == kNoPage; }
  // Does the separator fall where the child is?
  bool belongs(NodeView parent, const SplitPoint& split) const {
    const Bytes separator = as_bytes(split.separator);
    const Position at = lower_bound(parent, separator);
    return covers(parent, separator) && !at.exact && at.slot == path_.child_index;
  }

  Lsn append(std::vector<wal::PageChange>& changes) {
    space_.add_to(changes);
    return env_.log.append(reservation_, nullptr, {.changes = changes, .undo = {}, .undo_next = {}, .count = {}});
  }

  Result<> split_under(ExclusiveGuard& parent, ExclusiveGuard& node, const SplitPoint& split) {
    const PageId right_page = claim_.pages().front();
    ExclusiveGuard right = TRY(ExclusiveGuard::take_fresh(env_.pool, right_page));
    build_right_half(right.data(), NodeView(node.data()), split);
    const NodeImage right_image(right.data());

    const Bytes separator = as_bytes(split.separator);
    Writer<2> keep;
    keep.number(static_cast<std::uint16_t>(split.keep));
    const Bytes suffix = separator.subspan(NodeView(parent.data()).prefix_bytes());
    Writer<6> insert;
    insert.number(static_cast<std::uint16_t>(path_.child_index));
    insert.number(static_cast<std::uint16_t>(suffix.size()));
    insert.number(static_cast<std::uint16_t>(kChildBytes));
    const Bytes child = child_bytes(right_page.value);
    std::vector<wal::PageChange> changes{
        {parent.page(), static_cast<std::uint8_t>(PageOp::kInsertCell), insert.bytes(), suffix, child},
        {node.page(), static_cast<std::uint8_t>(PageOp::kTruncate), keep.bytes(), separator, {}},
        right_image.change(right_page, PageOp::kNodeImage)};
    const Lsn lsn = append(changes);
    insert_cell(parent.data(), path_.child_index, suffix, kChildBytes, child);
    truncate_node(node.data(), split.keep, separator);
    KELDA_DEBUG_ASSERT(check_node(NodeView(parent.data())) && check_node(NodeView(node.data())) && check_node(NodeView(right.data())));
    parent.mark_dirty(lsn);
    node.mark_dirty(lsn);
    right.mark_dirty(lsn);
    space_.finish(lsn);
    return {};
  }

  // The root stays: what it held goes into two new children.
  Result<> split_root(ExclusiveGuard& root, const SplitPoint& split) {
    const NodeView view(root.data());
    ExclusiveGuard left = TRY(ExclusiveGuard::take_fresh(env_.pool, claim_.pages()[0]));
    ExclusiveGuard right = TRY(ExclusiveGuard::take_fresh(env_.pool, claim_.pages()[1]));
    std::memcpy(left.data() + kImageFrom, root.data() + kImageFrom, kPageBytes - kImageFrom);
    truncate_node(left.data(), split.keep, as_bytes(split.separator));
    build_right_half(right.data(), view, split);

    alignas(8) std::byte above[kPageBytes] = {};
    init_node(above, tree_.id, view.level() + 1, {}, {}, left.page());
    insert_cell(above, 0, as_bytes(split.separator), kChildBytes, child_bytes(right.page().value));
    const NodeImage above_image(above), left_image(left.data()), right_image(right.data());
    std::vector<wal::PageChange> changes{above_image.change(root.page(), PageOp::kNodeImage),
                                         left_image.change(left.page(), PageOp::kNodeImage),
                                         right_image.change(right.page(), PageOp::kNodeImage)};
    const Lsn lsn = append(changes);
    std::memcpy(root.data() + kImageFrom, above + kImageFrom, kPageBytes - kImageFrom);
    root.mark_dirty(lsn);
    left.mark_dirty(lsn);
    right.mark_dirty(lsn);
    space_.finish(lsn);
    return {};
  }

  const TreeEnv& env_;
  const TreeRef& tree_;
  const Path& path_;
  Claim& claim_;
  wal::Log::Reservation& reservation_;
  SpaceStep space_;
};

// One attempt at the node that covers the key. kParentFull: `separator` wants room on the level above first.
// Not inlined: its pages on the stack must not be there once for each level that split_for() climbs. Long keys with a
// common start make trees of a dozen levels, and a client's fiber has 64 KiB.
[[gnu::noinline]] Result<Outcome> try_split(const TreeRef& tree, Bytes key, std::size_t value_bytes, unsigned level,
                                            StepMode mode, Claim& claim, std::string& separator) {
  Path path;
  switch (descend_to(tree.env, tree.id, tree.root, level, key, path)) {
    case Walk::kFailed:
      if (path.error.code() == Code::kNotFound) return Outcome::kDone;  // the tree became lower: look again from below
      return std::move(path.error);
    case Walk::kRestart: return Outcome::kRestart;
    case Walk::kOk: break;
  }
  TRY(claim.grow(path.parent.page == kNoPage ? 2 : 1, path.node.page, mode.space));
  auto reservation = TRY(tree.env.log.reserve(nullptr, kSplitLogBytes, 1, mode.undo_room));
  SplitStep step(tree, path, claim, reservation);
  TRY(step.prepare());
  return step.run(key, value_bytes, separator);
}

}  // namespace

Result<> split_for(const TreeRef& tree, Bytes key, std::size_t value_bytes, unsigned level, StepMode mode) {
  for (unsigned attempt = 0;; ++attempt) {
    std::string separator;
    Outcome outcome;
    {
      Claim claim(tree.env.space);
      outcome = TRY(try_split(tree, key, value_bytes, level, mode, claim, separator));
    }
    if (outcome == Outcome::kDone) return {};
    if (outcome == Outcome::kParentFull) TRY(split_for(tree, as_bytes(separator), kChildBytes, level + 1, mode));
    else after_restart(attempt);
  }
}

}  // namespace kelda::btree
