// Verifies a whole tree, and that space agrees with what is reachable.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "btree/free_list.h"
#include "btree/node_edit.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "btree/page_source.h"
#include "btree/space.h"
#include "btree/space_map.h"

namespace kelda::btree {

namespace {

Error at_page(PageId page, const std::string& what) {
  return Error(Code::kCorrupt, "page " + std::to_string(page.value) + ": " + what);
}

class PoolSource final : public PageSource {
 public:
  explicit PoolSource(bufferpool::BufferPool& pool) : pool_(pool) {}
  Result<> read(PageId page, std::byte* into) override {
    auto guard = TRY(bufferpool::SharedGuard::take(pool_, page));
    std::memcpy(into, guard.data(), kPageBytes);
    return {};
  }
  void expect(std::span<const PageId> pages) override { pool_.prefetch(pages); }

 private:
  bufferpool::BufferPool& pool_;
};

// A node, read before its turn so that what lies below it can be read ahead. What is wrong with it is said at its turn.
struct Loaded {
  Result<> read, sound;
  alignas(8) std::byte bytes[kPageBytes];
};

class TreeCheck {
 public:
  TreeCheck(const TreeEnv& env, TreeId id, FunctionRef<void(PageId)> visit, PageSource& source)
      : env_(env), id_(id), visit_(visit), source_(source) {}

  Result<BTree::CheckReport> run(PageId root) {
    const auto loaded = load(root);
    TRY(loaded->read);
    const NodeView node(loaded->bytes);
    if (!node.is_node() || node.tree() != id_) return at_page(root, "not the root of its tree");
    report_.height = node.level() + 1;
    dropping_ = (node.flags() & kTreeIsDropped) != 0;
    TRY(subtree(root, *loaded, report_.height - 1, {}, {}, true));
    const std::int64_t counted = env_.log.count_of(id_);
    if (counted != static_cast<std::int64_t>(report_.keys)) {
      return at_page(root, "the tree has " + std::to_string(report_.keys) + " keys, the log counted " + std::to_string(counted));
    }
    return report_;
  }

 private:
  bool on_disk(PageId page) const { return page != kNoPage && page.value < env_.space.page_count(); }

  std::unique_ptr<Loaded> load(PageId page) {
    auto loaded = std::make_unique<Loaded>();
    loaded->read = source_.read(page, loaded->bytes);
    if (!loaded->read) return loaded;
    const NodeView node(loaded->bytes);
    loaded->sound = check_node(node);
    if (loaded->sound) expect_below(node);
    return loaded;
  }

  void expect_below(NodeView node) {
    std::vector<PageId> pages;
    const auto add = [&](PageId page) {
      if (on_disk(page)) pages.push_back(page);
    };
    if (!node.is_leaf()) {
      for (unsigned i = 0; i <= node.count(); ++i) add(node.child(i));
    } else {
      for (unsigned i = 0; i < node.count(); ++i) {
        const NodeView::Value value = node.value(i);
        if (!value.is_overflow || value.bytes.size() != OverflowRef::kBytes) continue;
        const OverflowRef ref = OverflowRef::decode(value.bytes);
        if (!ref.plausible(env_.space.page_count())) continue;
        // A value's pages were most likely allocated as one run, with its index page last.
        const std::uint64_t before = ref.has_index() ? std::min<std::uint64_t>(ref.data_page_count(), ref.page.value) : 0;
        for (std::uint64_t p = ref.page.value - before; p <= ref.page.value; ++p) add(PageId(p));
      }
    }
    source_.expect(pages);
  }

  // `right_edge`: nothing in the tree is to the right of the page.
  Result<> subtree(PageId page, const Loaded& loaded, unsigned level, Bytes lower, Bytes upper, bool right_edge) {
    TRY(loaded.read);
    ++report_.pages;
    visit_(page);
    const NodeView node(loaded.bytes);
    if (!loaded.sound) return at_page(page, loaded.sound.error().message());
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
    std::unique_ptr<Loaded> next;
    for (unsigned i = 0; i <= node.count(); ++i) {
      const std::string upper = i < node.count() ? full_key(node, i) : std::string(as_view(node.upper()));
      const PageId child = node.child(i);
      if (!on_disk(child)) return at_page(page, "a child pointer leads out of the disk");
      const std::unique_ptr<Loaded> now = next ? std::move(next) : load(child);
      if (i < node.count() && on_disk(node.child(i + 1))) next = load(node.child(i + 1));
      TRY(subtree(child, *now, node.level() - 1, as_bytes(lower), as_bytes(upper), right_edge && i == node.count()));
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
    const auto pages = value_pages(ref);
    if (pages.failed_with(Code::kRestart)) {
      return at_page(ref.page, "not the overflow value that page " + std::to_string(leaf.value) + " refers to");
    }
    if (!pages) return pages.error();
    report_.overflow_pages += pages->size();
    report_.pages += pages->size();
    for (const PageId page : *pages) visit_(page);
    return {};
  }

  // All pages of the value, ascending, each of them read. kRestart: one is not what the reference promises.
  Result<std::vector<PageId>> value_pages(const OverflowRef& ref) {
    std::vector<PageId> pages{ref.page};
    if (ref.has_index()) {
      const auto count = static_cast<std::uint32_t>(ref.data_page_count());
      TRY(value_page(ref.page, disk::PageType::kOverflowIndex, ref.stamp, ref.value_bytes, count));
      pages.resize(count);
      std::memcpy(pages.data(), value_page_.data() + sizeof(OverflowHeader), count * sizeof(PageId));
      for (const PageId page : pages) {
        if (!on_disk(page)) return Code::kRestart;
      }
      source_.expect(pages);
    }
    std::size_t left = ref.value_bytes;
    for (std::uint32_t i = 0; i < pages.size(); ++i) {
      const auto bytes = static_cast<std::uint32_t>(std::min(kOverflowPageBytes, left));
      TRY(value_page(pages[i], disk::PageType::kOverflowData, ref.stamp, i, bytes));
      left -= bytes;
    }
    if (ref.has_index()) pages.push_back(ref.page);
    std::sort(pages.begin(), pages.end());
    return pages;
  }

  // Reads into value_page_.
  Result<> value_page(PageId page, disk::PageType type, std::uint64_t stamp, std::uint32_t part, std::uint32_t bytes) {
    const Result<> read = source_.read(page, value_page_.data());
    if (read.failed_with(Code::kCorrupt) || read.failed_with(Code::kNotFound)) return Code::kRestart;
    TRY(read);
    const OverflowHeader& h = *reinterpret_cast<const OverflowHeader*>(value_page_.data());
    const bool right = h.page.type == static_cast<std::uint8_t>(type) && h.stamp == stamp && h.part == part && h.bytes == bytes;
    return right ? Result<>() : Result<>(Code::kRestart);
  }

  const TreeEnv& env_;
  TreeId id_;
  FunctionRef<void(PageId)> visit_;
  PageSource& source_;
  BTree::CheckReport report_;
  bool dropping_ = false;
  alignas(8) std::array<std::byte, kPageBytes> value_page_;
};

}  // namespace

Result<BTree::CheckReport> BTree::check(FunctionRef<void(PageId)> visit, PageSource* source) {
  PoolSource pool(env_.pool);
  return TreeCheck(env_, id_, visit, source != nullptr ? *source : pool).run(root_);
}

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
