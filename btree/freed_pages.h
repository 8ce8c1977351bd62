// Which free pages the device may still hold content of, and from when on that content is needed by nobody.
//
//   freed --a checkpoint starts--> aging --it has moved the redo point--> ready --take_run()--> gone
//   any of them --the page is taken into use again--> gone
//
// Ready means: the record that freed the page lies before the redo point of a completed checkpoint. docs/architecture.md,
// "Free pages on the device", has the reasoning.
//
// Contract: not synchronised (space.cc has it under its latch). A hint: without memory, pages are left out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/types.h"
#include "disk/layout.h"

namespace kelda::btree {

class FreedPages {
 public:
  // Shorter runs wait until a neighbour joins them: they are likely to be reused soon, and cost as much as long ones.
  static constexpr unsigned kMinRunPages = 16;
  struct Run { PageId first; unsigned page_count; };

  explicit FreedPages(std::uint64_t page_count) : groups_((page_count + kGroupPages - 1) / kGroupPages) {}

  void add(PageId page);
  void remove(PageId page);
  void checkpoint_starts();
  void checkpoint_done();
  // Takes up to `max_pages` adjacent ready pages out. Nothing: there is no run that is long enough.
  std::optional<Run> take_run(unsigned max_pages);

  // Those that wait for a checkpoint.
  std::uint64_t waiting() const { return waiting_; }

 private:
  static constexpr std::uint64_t kGroupPages = disk::kPagesPerSpaceMap;
  static constexpr std::size_t kWords = kGroupPages / 64;
  using Bits = std::array<std::uint64_t, kWords>;
  struct Group { Bits freed{}, aging{}, ready{}; };

  std::optional<Run> take_in(std::uint64_t group, unsigned max_pages);
  void drop_if_empty(std::uint64_t group);

  std::vector<std::unique_ptr<Group>> groups_;  // null: nothing in it
  std::uint64_t waiting_ = 0;                   // freed or aging
  std::uint64_t next_group_ = 0;                // groups before it have no ready run
};

}  // namespace kelda::btree
