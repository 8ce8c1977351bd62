// One tree of a damaged disk: walked from its root, and where that leads nowhere filled up from leaves that a search found.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "btree/node_layout.h"
#include "engine/salvage_pages.h"

namespace kelda::engine {

// A leaf that the search of all pages met.
struct FoundLeaf {
  PageId page;
  TreeId tree;
  Lsn lsn;
  KeyRange range;
  std::string doubt;  // why it may be out of date; empty: it is in use and as new as the log
};

class SalvageWalk {
 public:
  SalvageWalk(SalvagePages& pages, const SalvageOptions& options, SalvageReport& report, SalvagedTree& tree, SalvageSink& sink);

  // From the root; what cannot be read becomes a hole.
  Result<> from_root(PageId root);
  // The root is not known: everything is one hole.
  void without_root(std::string reason) { lose(kNoPage, std::move(reason), {}, true); }
  // A search of all pages may find what the walk did not.
  bool wants_search() const { return wants_search_; }
  bool touches_hole(const KeyRange& range) const;
  // Takes from these leaves what lies in the holes. In any order.
  Result<> fill(std::vector<FoundLeaf> leaves);
  // What transactions that never committed removed, and the walk has not met. Then reports the holes that are left.
  Result<> finish();

 private:
  struct Hole {
    KeyRange range;
    PageId page;
    std::string reason;
  };
  struct Expected {
    int level = -1;  // -1: the root's own
    std::string lower, upper;
    bool doubtful_path = false;  // an inner node on the way is newer than the log
  };
  using Page = std::unique_ptr<std::byte, void (*)(void*)>;

  Result<> subtree(PageId page, const Expected& expected);
  Result<> visit(PageId page, Result<> read, const std::byte* bytes, const Expected& expected);
  Result<> inner(const std::byte* bytes, const Expected& expected);
  Result<> leaf(PageId page, btree::NodeView node, const KeyRange& part, const std::string& doubt);
  Result<> entry(PageId page, std::string_view key, btree::NodeView::Value value, bool certain);
  Result<> pass_on(PageId page, std::string_view key, std::string_view value, bool certain);
  Result<std::string> overflow_value(Bytes reference);
  std::string doubt_of(PageId page, const std::byte* bytes, bool doubtful_path);
  void lose(PageId page, std::string reason, KeyRange range, bool search);
  void skip(Skipped what);

  SalvagePages& pages_;
  const SalvageOptions& options_;
  SalvageReport& report_;
  SalvagedTree& tree_;
  SalvageSink& sink_;
  std::vector<Hole> holes_;
  bool wants_search_ = false;
};

// Adds to the report, and to its count when the list is full.
void add_skipped(SalvageReport& report, const SalvageOptions& options, Skipped what);

}  // namespace kelda::engine
