// The pages of a disk as its log leaves them, for salvage: opened on a memory overlay, tolerant of damage anywhere.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "blockdev/overlay.h"
#include "disk/page_store.h"
#include "disk/superblock.h"
#include "engine/salvage.h"

namespace kelda::engine {

// What a transaction that never committed found under a key.
struct OldValue {
  enum class Kind : std::uint8_t { kAbsent, kInline, kOverflow } kind = Kind::kAbsent;
  std::string bytes;   // the value, or the reference to it
  bool seen = false;   // the walk met the key
};

class SalvagePages {
 public:
  // Judges the superblock, repairs torn pages, applies the log as far as it can be read. Writes its findings to `report`.
  static Result<std::unique_ptr<SalvagePages>> open(std::unique_ptr<blockdev::BlockDevice> device, const SalvageOptions& options,
                                                    SalvageReport& report);

  // kCorrupt with a reason: damaged, unreadable, never written, or behind the log.
  Result<> read(PageId page, std::byte* into);
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status);
  std::uint64_t page_count() const { return layout().page_count; }
  const disk::Layout& layout() const { return superblock_->layout(); }

  // The page carries changes that the readable part of the log does not have.
  bool is_ahead(const std::byte* page) const { return disk::header_of(page).lsn >= report_.state_lsn.value; }
  // Is the page in use, by its space map? Nothing: the map is damaged, or newer than the log.
  std::optional<bool> in_use(PageId page);

  // By tree id: keys that transactions without a commit changed, and the trees that they made.
  std::map<std::uint64_t, std::map<std::string, OldValue, std::less<>>>& old_values() { return old_values_; }
  bool made_by_loser(TreeId tree) const { return made_trees_.contains(tree.value); }
  // Keys in the tree by the log's count; nothing when it is not known for certain.
  std::optional<std::int64_t> counted(TreeId tree) const;

 private:
  explicit SalvagePages(SalvageReport& report) : report_(report) {}
  Result<> apply_log(const SalvageOptions& options);
  void take_undo(Bytes undo);
  Result<> judge(PageId page, Result<> read) const;

  SalvageReport& report_;
  std::unique_ptr<blockdev::OverlayDevice> device_;
  std::optional<disk::Superblock> superblock_;
  std::unique_ptr<disk::PageStore> store_;
  std::unordered_map<PageId, std::string> behind_;  // pages to which the log's changes could not be applied
  std::map<std::uint64_t, std::map<std::string, OldValue, std::less<>>> old_values_;
  std::set<std::uint64_t> made_trees_;
  std::unordered_map<std::uint64_t, std::int64_t> counts_;
  bool counts_known_ = false;
  struct Map {
    bool usable = false;
    std::vector<std::byte> bytes;
  };
  std::unordered_map<std::uint64_t, Map> maps_;
};

}  // namespace kelda::engine
