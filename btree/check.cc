// Verifies a whole tree, and that space agrees with what is reachable.
#include <memory>

#include "btree/free_list.h"
#include "btree/node_edit.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "btree/space.h"
#include "btree/space_map.h"

namespace kelda::btree {

namespace {

Error at_page(PageId page, const std::string& what) {
  return Error(Code::kCorrupt, "page " + std::to_string(page.value) + ": " + what);
}

class TreeCheck {
 public:
  TreeCheck(const TreeEnv& env, TreeId id, FunctionRef<void(PageId)> visit) : env_(env), id_(id), visit_(visit) {}

  Result<BTree::CheckReport> run(PageId root) {
    {
      auto guard = TRY(bufferpool::SharedGuard::take(env_.pool, root));
      const NodeView node(guard.data());
      if (!node.is_node() || node.tree() != id_) return at_page(root, "not the root of its tree");
      report_.height = node.level() + 1;
      dropping_ = (node.flags() & kTreeIsDropped) != 0;
    }
    TRY(subtree(root, report_.height - 1, {}, {}, true));
    const std::int64_t counted = env_.log.count_of(id_);
    if (counted != static_cast<std::int64_t>(report_.keys)) {
      return at_page(root, "the tree has " + std::to_string(report_.keys) + " keys, the log counted " + std::to_string(counted));
    }
    return report_;
  }

 private:
  // `right_edge`: nothing in the tree is to the right of the page.
  Result<> subtree(PageId page, unsigned level, Bytes lower, Bytes upper, bool right_edge) {
    auto copy = std::make_unique<Copy>();
    {
      auto guard = TRY(bufferpool::SharedGuard::take(env_.pool, page));
      std::memcpy(copy->bytes, guard.data(), kPageBytes);
    }
    ++report_.pages;
    visit_(page);
    const NodeView node(copy->bytes);
    if (auto sound = check_node(node); !sound) return at_page(page, sound.error().message());
    if (node.tree() != id_ || node.level() != level) return at_page(page, "node of another tree or level");
    // A tree that is being dropped has lost what was right of its edge (drop.cc).
    const bool short_fence = dropping_ && right_edge;
    if (as_view(node.lower()) != as_view(lower) || (!short_fence && as_view(node.upper()) != as_view(upper))) {
      return at_page(page, "fences differ from the parent's separators");
    }
    return level == 0 ? leaf(page, node) : inner(page, node, right_edge);
  }

  Result<> inner(PageId page, NodeView node, bool right_edge) {
    std::string lower(as_view(node.lower()));
    for (unsigned i = 0; i <= node.count(); ++i) {
      const std::string upper = i < node.count() ? full_key(node, i) : std::string(as_view(node.upper()));
      const PageId child = node.child(i);
      if (child == kNoPage || child.value >= env_.space.page_count()) return at_page(page, "a child pointer leads out of the disk");
      TRY(subtree(child, node.level() - 1, as_bytes(lower), as_bytes(upper), right_edge && i == node.count()));
      lower = upper;
    }
    return {};
  }

  Result<> leaf(PageId page, NodeView node) {
    ++report_.leaves;
    report_.keys += node.count();
    for (unsigned i = 0; i < node.count(); ++i) {
      const NodeView::Value value = node.value(i);
      if (!value.is_overflow) continue;
      const OverflowRef ref = OverflowRef::decode(value.bytes);
      if (value.bytes.size() != OverflowRef::kBytes || !ref.plausible(env_.space.page_count())) {
        return at_page(page, "refers to no overflow value");
      }
      TRY(overflow(page, ref));
    }
    return {};
  }

  Result<> overflow(PageId leaf, const OverflowRef& ref) {
    auto pages = overflow_pages(env_, ref);
    auto read = pages ? read_overflow(env_, ref, scratch_) : Result<>(pages.error());
    if (read.failed_with(Code::kRestart)) {
      return at_page(ref.page, "not the overflow value that page " + std::to_string(leaf.value) + " refers to");
    }
    if (!read) return read.error();
    report_.overflow_pages += pages->size();
    report_.pages += pages->size();
    for (const PageId page : *pages) visit_(page);
    return {};
  }

  struct alignas(8) Copy {
    std::byte bytes[kPageBytes];
  };

  const TreeEnv& env_;
  TreeId id_;
  FunctionRef<void(PageId)> visit_;
  BTree::CheckReport report_;
  bool dropping_ = false;
  std::string scratch_;
};

}  // namespace

Result<BTree::CheckReport> BTree::check(FunctionRef<void(PageId)> visit) { return TreeCheck(env_, id_, visit).run(root_); }

Result<> check_space(TreeEnv env, FunctionRef<bool(PageId)> reachable) {
  TRY(env.space.load());
  std::vector<bool> own(env.space.page_count());
  TRY(check_free_list(env, [&](PageId page) { own[page.value] = true; }));
  for (std::uint64_t group = 0; group < env.space.page_count(); group += disk::kPagesPerSpaceMap) {
    if (!env.space.in_use(PageId(group))) break;  // never used, and so are all that follow
    auto map = TRY(bufferpool::SharedGuard::take(env.pool, PageId(group)));
    const std::uint64_t end = std::min(env.space.page_count(), group + disk::kPagesPerSpaceMap);
    for (std::uint64_t p = group + 1; p < end; ++p) {
      const PageId page(p);
      const bool used = test_bit(map.data(), bit_of(page));
      const bool wanted = own[p] || reachable(page);
      if (used && !wanted) return at_page(page, "in use on its space map, but nothing refers to it");
      if (!used && wanted) return at_page(page, "referred to, but free on its space map");
      if (p >= kFirstFreePage && env.space.in_use(page) != used) return at_page(page, "claimed, but not in use");
    }
  }
  return {};
}

}  // namespace kelda::btree
