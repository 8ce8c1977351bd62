#include "engine/salvage_walk.h"

#include <algorithm>
#include <cstring>

#include "btree/node_edit.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "disk/aligned_buffer.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kReadAhead = 64;  // leaves

// Ends of ranges: an empty upper end is above everything.
bool below(std::string_view a_end, std::string_view b_end) { return !a_end.empty() && (b_end.empty() || a_end < b_end); }

KeyRange intersection(const KeyRange& a, const KeyRange& b) {
  return {std::max(a.from, b.from), below(a.to, b.to) ? a.to : b.to};
}
bool is_empty(const KeyRange& range) { return !range.to.empty() && range.from >= range.to; }
bool contains(const KeyRange& range, std::string_view key) { return key >= range.from && (range.to.empty() || key < range.to); }

}  // namespace

void add_skipped(SalvageReport& report, const SalvageOptions& options, Skipped what) {
  ++report.skipped_count;
  if (report.skipped.size() < options.max_listed) report.skipped.push_back(std::move(what));
}

SalvageWalk::SalvageWalk(SalvagePages& pages, const SalvageOptions& options, SalvageReport& report, SalvagedTree& tree,
                         SalvageSink& sink)
    : pages_(pages), options_(options), report_(report), tree_(tree), sink_(sink) {}

Result<> SalvageWalk::from_root(PageId root) { return subtree(root, {}); }

Result<> SalvageWalk::subtree(PageId page, const Expected& expected) {
  disk::AlignedBuffer buffer(kPageBytes);
  Result<> read = page.value < pages_.page_count() ? pages_.read(page, buffer.data()) : Result<>(Code::kCorrupt);
  return visit(page, std::move(read), buffer.data(), expected);
}

Result<> SalvageWalk::visit(PageId page, Result<> read, const std::byte* bytes, const Expected& expected) {
  const KeyRange range{expected.lower, expected.upper};
  // Where a leaf is lost there is no other to be found, unless its parent may belong to another time than the leaves.
  const bool search = expected.level != 0 || !report_.log_damage.empty();
  if (!read) {
    ++report_.bad_pages;
    lose(page, read.error().message(), range, search);
    return {};
  }
  const btree::NodeView node(bytes);
  std::string wrong;
  if (const auto sound = btree::check_node(node); !sound) wrong = sound.error().message();
  else if (node.tree() != tree_.id) wrong = "belongs to tree " + std::to_string(node.tree().value);
  else if (expected.level >= 0 && node.level() != static_cast<unsigned>(expected.level)) wrong = "is of another level than its parent says";
  else if (as_view(node.lower()) != expected.lower || as_view(node.upper()) != expected.upper) wrong = "has other fences than its parent says";
  if (!wrong.empty()) {
    lose(page, "page " + std::to_string(page.value) + ": " + wrong, range, search);
    return {};
  }
  if (node.is_leaf()) return leaf(page, node, range, doubt_of(page, bytes, expected.doubtful_path));
  Expected child = expected;
  child.level = static_cast<int>(node.level()) - 1;
  child.doubtful_path |= pages_.is_ahead(bytes);
  return inner(bytes, child);
}

// `expected`: of the children, but for their fences.
Result<> SalvageWalk::inner(const std::byte* bytes, const Expected& expected) {
  const btree::NodeView node(bytes);
  const bool leaves = expected.level == 0;
  disk::AlignedBuffer buffer(leaves ? kReadAhead * kPageBytes : kPageBytes);
  for (unsigned first = 0; first <= node.count();) {
    std::vector<PageId> pages;
    std::vector<std::byte*> into;
    for (unsigned i = first; i <= node.count() && pages.size() < kReadAhead; ++i) {
      into.push_back(buffer.data() + (leaves ? pages.size() * kPageBytes : 0));
      pages.push_back(node.child(i));
    }
    std::vector<Result<>> status(pages.size());
    if (leaves) pages_.read_batch(pages, into, status);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const unsigned at = first + static_cast<unsigned>(i);
      Expected child = expected;
      child.lower = at == 0 ? std::string(as_view(node.lower())) : btree::full_key(node, at - 1);
      child.upper = at < node.count() ? btree::full_key(node, at) : std::string(as_view(node.upper()));
      if (leaves) TRY(visit(pages[i], std::move(status[i]), into[i], child));
      else TRY(subtree(pages[i], child));
    }
    first += static_cast<unsigned>(pages.size());
  }
  return {};
}

std::string SalvageWalk::doubt_of(PageId page, const std::byte* bytes, bool doubtful_path) {
  if (report_.losers_unknown) return "the log's list of open transactions is lost, so it may hold changes that were never committed";
  if (pages_.is_ahead(bytes)) return "page " + std::to_string(page.value) + " is newer than the readable log";
  if (doubtful_path && !pages_.in_use(page).value_or(false)) {
    return "page " + std::to_string(page.value) + " is reached through a page newer than the readable log";
  }
  return {};
}

Result<> SalvageWalk::leaf(PageId page, btree::NodeView node, const KeyRange& part, const std::string& doubt) {
  std::uint64_t held_back = 0;
  for (unsigned i = 0; i < node.count(); ++i) {
    const std::string key = btree::full_key(node, i);
    if (!contains(part, key)) continue;
    if (!doubt.empty() && !options_.include_uncertain) {
      ++held_back;
      continue;
    }
    TRY(entry(page, key, node.value(i), doubt.empty()));
  }
  if (!doubt.empty() && !options_.include_uncertain) {
    report_.skipped_keys += held_back;
    skip({tree_.name, page, doubt + " (" + std::to_string(held_back) + " keys)", part, true});
  }
  return {};
}

Result<> SalvageWalk::entry(PageId page, std::string_view key, btree::NodeView::Value value, bool certain) {
  Bytes bytes = value.bytes;
  bool is_overflow = value.is_overflow;
  if (const auto tree = pages_.old_values().find(tree_.id.value); tree != pages_.old_values().end()) {
    if (const auto old = tree->second.find(key); old != tree->second.end()) {
      old->second.seen = true;
      if (old->second.kind == OldValue::Kind::kAbsent) return {};
      bytes = as_bytes(old->second.bytes);
      is_overflow = old->second.kind == OldValue::Kind::kOverflow;
    }
  }
  if (!is_overflow) return pass_on(page, key, as_view(bytes), certain);
  const auto whole = overflow_value(bytes);
  if (whole) return pass_on(page, key, *whole, certain);
  ++report_.skipped_keys;
  skip({tree_.name, page, "its value: " + whole.error().message(), {std::string(key), std::string(key) + '\0'}});
  return {};
}

Result<> SalvageWalk::pass_on(PageId page, std::string_view key, std::string_view value, bool certain) {
  const auto passed = sink_.pair(tree_, key, value, certain);
  if (passed.failed_with(Code::kUnsupported)) {
    ++report_.skipped_keys;
    skip({tree_.name, page, passed.error().message(), {std::string(key), std::string(key) + '\0'}});
    return {};
  }
  TRY(passed);
  ++tree_.keys;
  ++report_.keys;
  if (!certain) ++tree_.uncertain_keys, ++report_.uncertain_keys;
  return {};
}

// The stamp that all pages of a value share, and its reference in the leaf, tells whether they still belong together.
Result<std::string> SalvageWalk::overflow_value(Bytes reference) {
  const auto ref = btree::OverflowRef::decode(reference);
  if (reference.size() != btree::OverflowRef::kBytes || !ref.plausible(pages_.page_count())) {
    return Error(Code::kCorrupt, "the leaf refers to no overflow value");
  }
  disk::AlignedBuffer buffer(kPageBytes);
  const auto load = [&](PageId page, disk::PageType type, std::uint32_t part, std::size_t bytes) -> Result<> {
    TRY(pages_.read(page, buffer.data()));
    const auto& h = *reinterpret_cast<const btree::OverflowHeader*>(buffer.data());
    if (h.page.type == static_cast<std::uint8_t>(type) && h.stamp == ref.stamp && h.part == part && h.bytes == bytes) return {};
    return Error(Code::kCorrupt, "page " + std::to_string(page.value) + " is not the overflow page that the leaf refers to");
  };
  std::vector<PageId> pages{ref.page};
  if (ref.has_index()) {
    TRY(load(ref.page, disk::PageType::kOverflowIndex, ref.value_bytes, ref.data_page_count()));
    pages.resize(ref.data_page_count());
    std::memcpy(pages.data(), buffer.data() + sizeof(btree::OverflowHeader), pages.size() * sizeof(PageId));
  }
  std::string value;
  for (std::uint32_t i = 0; i < pages.size(); ++i) {
    const std::size_t bytes = std::min(btree::kOverflowPageBytes, ref.value_bytes - value.size());
    TRY(load(pages[i], disk::PageType::kOverflowData, i, bytes));
    value.append(reinterpret_cast<const char*>(buffer.data()) + sizeof(btree::OverflowHeader), bytes);
  }
  return value;
}

void SalvageWalk::lose(PageId page, std::string reason, KeyRange range, bool search) {
  holes_.push_back({std::move(range), page, std::move(reason)});
  wants_search_ |= search;
}

void SalvageWalk::skip(Skipped what) { add_skipped(report_, options_, std::move(what)); }

bool SalvageWalk::touches_hole(const KeyRange& range) const {
  return std::ranges::any_of(holes_, [&](const Hole& hole) { return !is_empty(intersection(hole.range, range)); });
}

// Of two leaves for the same keys the one with the higher LSN is the newer: whoever takes over keys, by a split or a
// merge, carries the LSN of that step or a later one.
Result<> SalvageWalk::fill(std::vector<FoundLeaf> leaves) {
  std::ranges::sort(leaves, [](const FoundLeaf& a, const FoundLeaf& b) {
    return a.doubt.empty() != b.doubt.empty() ? a.doubt.empty() : a.lsn > b.lsn;
  });
  disk::AlignedBuffer buffer(kPageBytes);
  for (const FoundLeaf& found : leaves) {
    if (!touches_hole(found.range) || !pages_.read(found.page, buffer.data())) continue;
    std::vector<Hole> left;
    for (Hole& hole : holes_) {
      const KeyRange part = intersection(hole.range, found.range);
      if (is_empty(part)) {
        left.push_back(std::move(hole));
        continue;
      }
      TRY(leaf(found.page, btree::NodeView(buffer.data()), part, found.doubt));
      if (const KeyRange before{hole.range.from, part.from}; before.from < before.to) left.push_back({before, hole.page, hole.reason});
      if (below(part.to, hole.range.to)) left.push_back({{part.to, hole.range.to}, hole.page, hole.reason});
    }
    holes_ = std::move(left);
  }
  return {};
}

Result<> SalvageWalk::finish() {
  if (const auto tree = pages_.old_values().find(tree_.id.value); tree != pages_.old_values().end()) {
    for (auto& [key, old] : tree->second) {
      if (old.seen || old.kind == OldValue::Kind::kAbsent) continue;
      TRY(entry(kNoPage, key, {as_bytes(old.bytes), old.kind == OldValue::Kind::kOverflow}, true));
    }
  }
  std::ranges::sort(holes_, {}, [](const Hole& hole) { return hole.range.from; });
  for (Hole& hole : holes_) skip({tree_.name, hole.page, std::move(hole.reason), std::move(hole.range)});
  holes_.clear();
  return {};
}

}  // namespace kelda::engine
