#include "engine/salvage.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "btree/ops.h"
#include "disk/aligned_buffer.h"
#include "disk/page_check.h"
#include "engine/catalog.h"
#include "engine/salvage_walk.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kSearchPages = 128;
constexpr TreeId kFreeListTree{~std::uint64_t{0}};

struct KnownTree {
  SalvagedTree tree;
  PageId root;
  std::unique_ptr<SalvageWalk> walk;
};

// Takes the catalog's entries.
class CatalogSink final : public SalvageSink {
 public:
  explicit CatalogSink(std::deque<KnownTree>& trees, std::set<std::uint64_t>& dropped) : trees_(trees), dropped_(dropped) {}
  bool wants(const SalvagedTree&, std::string&) override { return true; }
  Result<> pair(const SalvagedTree&, std::string_view key, std::string_view value, bool) override {
    const auto ref = key.starts_with('n') ? decode_named(value) : decode_dropped(key, value);
    if (!ref) return Error(Code::kUnsupported, ref.error().message());
    if (!key.starts_with('n')) {
      dropped_.insert(ref->id.value);
      return {};
    }
    KnownTree& known = trees_.emplace_back();
    known.tree.name = key.substr(1);
    known.tree.id = ref->id;
    known.root = ref->root;
    return {};
  }

 private:
  std::deque<KnownTree>& trees_;
  std::set<std::uint64_t>& dropped_;
};

class Salvage {
 public:
  Salvage(SalvagePages& pages, const SalvageOptions& options, SalvageReport& report, SalvageSink& sink)
      : pages_(pages), options_(options), report_(report), sink_(sink) {}

  Result<> run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    TRY(read_catalog());
    for (KnownTree& known : trees_) TRY(walk(known));
    const bool wanted = std::ranges::any_of(trees_, [](const KnownTree& known) { return known.walk && known.walk->wants_search(); });
    if (wanted || catalog_holes_) search(progress);
    for (KnownTree& known : trees_) {
      if (!known.walk) continue;
      TRY(known.walk->fill(std::move(found_[known.tree.id.value])));
      TRY(known.walk->finish());
      if (const auto counted = pages_.counted(known.tree.id)) known.tree.counted_keys = *counted;
    }
    for (KnownTree& known : trees_) report_.trees.push_back(std::move(known.tree));
    return {};
  }

 private:
  Result<> read_catalog() {
    SalvagedTree catalog{.name = "(catalog)", .id = kCatalogTreeId};
    CatalogSink entries(trees_, dropped_);
    const std::uint64_t keys_before = report_.keys, uncertain_before = report_.uncertain_keys;
    SalvageWalk walk(pages_, options_, report_, catalog, entries);
    const std::uint64_t skipped_before = report_.skipped_count;
    TRY(walk.from_root(kCatalogRoot));
    TRY(walk.finish());
    catalog_holes_ = report_.skipped_count != skipped_before;
    report_.keys = keys_before;
    report_.uncertain_keys = uncertain_before;
    return {};
  }

  Result<> walk(KnownTree& known) {
    std::string reason;
    if (!sink_.wants(known.tree, reason)) {
      if (!reason.empty()) add_skipped(report_, options_, {known.tree.name, kNoPage, reason, {}});
      return {};
    }
    known.walk = std::make_unique<SalvageWalk>(pages_, options_, report_, known.tree, sink_);
    return known.root == kNoPage ? Result<>() : known.walk->from_root(known.root);
  }

  // Every page of the disk, for leaves whose way from the root is lost.
  void search(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    disk::AlignedBuffer buffer(kSearchPages * kPageBytes);
    for (std::uint64_t first = 0; first < pages_.page_count(); first += kSearchPages) {
      std::vector<PageId> pages;
      std::vector<std::byte*> into;
      for (std::uint64_t i = 0; i < kSearchPages && first + i < pages_.page_count(); ++i) {
        pages.push_back(PageId{first + i});
        into.push_back(buffer.data() + i * kPageBytes);
      }
      std::vector<Result<>> status(pages.size());
      pages_.read_batch(pages, into, status);
      for (std::size_t i = 0; i < pages.size(); ++i) {
        if (status[i]) judge(pages[i], into[i]);
      }
      report_.pages_searched += pages.size();
      progress(report_.pages_searched, pages_.page_count());
    }
    add_unnamed();
  }

  void judge(PageId page, const std::byte* bytes) {
    const btree::NodeView node(bytes);
    if (!node.is_node() || !btree::check_node(node)) return;
    const TreeId tree = node.tree();
    if (tree == kCatalogTreeId || tree == kFreeListTree || pages_.made_by_loser(tree)) return;
    const auto in_use = pages_.in_use(page);
    if (in_use && !*in_use) return;  // freed: what it holds is the past
    if (node.lower().empty() && node.upper().empty() && (node.flags() & btree::kTreeIsDropped) != 0) dropped_.insert(tree.value);
    if (!node.is_leaf()) return;
    FoundLeaf found{page, tree, node.lsn(), {std::string(as_view(node.lower())), std::string(as_view(node.upper()))}, {}};
    const auto known = std::ranges::find(trees_, tree, [](const KnownTree& one) { return one.tree.id; });
    if (known == trees_.end() ? !catalog_holes_ : !known->walk || !known->walk->touches_hole(found.range)) return;
    const std::string name = "page " + std::to_string(page.value);
    if (report_.losers_unknown) found.doubt = "the log's list of open transactions is lost, so it may hold changes that were never committed";
    else if (pages_.is_ahead(bytes)) found.doubt = name + " is newer than the readable log";
    else if (!in_use) found.doubt = name + " may be an old one that was freed: the space map that would tell is damaged";
    found_[tree.value].push_back(std::move(found));
  }

  // Trees without a name in what is left of the catalog.
  void add_unnamed() {
    for (const auto& [id, leaves] : found_) {
      if (dropped_.contains(id) || std::ranges::any_of(trees_, [&](const KnownTree& one) { return one.tree.id.value == id; })) continue;
      KnownTree& known = trees_.emplace_back();
      known.tree.id = TreeId{id};
      const auto given = options_.names.find(id);
      known.tree.named = given != options_.names.end();
      known.tree.name = known.tree.named ? given->second : "(tree " + std::to_string(id) + ")";
      std::string reason;
      if (!sink_.wants(known.tree, reason)) {
        if (!reason.empty()) add_skipped(report_, options_, {known.tree.name, kNoPage, reason, {}});
        continue;
      }
      known.walk = std::make_unique<SalvageWalk>(pages_, options_, report_, known.tree, sink_);
      known.walk->without_root("no leaf for these keys was found; the catalog's entry of the tree is lost");
    }
  }

  SalvagePages& pages_;
  const SalvageOptions& options_;
  SalvageReport& report_;
  SalvageSink& sink_;
  std::deque<KnownTree> trees_;
  std::set<std::uint64_t> dropped_;
  std::map<std::uint64_t, std::vector<FoundLeaf>> found_;
  bool catalog_holes_ = false;
};

}  // namespace

Result<SalvageReport> salvage_disk(std::unique_ptr<blockdev::BlockDevice> device, const SalvageOptions& options,
                                   SalvageSink& sink, FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
  SalvageReport report;
  const auto pages = TRY(SalvagePages::open(std::move(device), options, report));
  TRY(Salvage(*pages, options, report, sink).run(progress));
  return report;
}

}  // namespace kelda::engine
