// A set of pages of a disk. One fiber.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>

#include "disk/layout.h"

namespace kelda::engine {

// A bit a page, with memory only for space-map groups that have one set: most of a large disk was never used.
class PageSet {
 public:
  using Group = std::array<std::uint64_t, disk::kPagesPerSpaceMap / 64>;
  static_assert(disk::kPagesPerSpaceMap % 64 == 0);

  bool contains(PageId page) const {
    const Group* group = find(page.value / disk::kPagesPerSpaceMap);
    return group != nullptr && ((*group)[word_of(page)] >> (page.value % 64) & 1) != 0;
  }
  // False if it was in already.
  bool insert(PageId page) {
    const std::uint64_t number = page.value / disk::kPagesPerSpaceMap;
    if (last_ == nullptr || last_number_ != number) {
      auto& group = groups_[number];
      if (group == nullptr) group = std::make_unique<Group>();
      last_ = group.get();
      last_number_ = number;
    }
    std::uint64_t& word = (*last_)[word_of(page)];
    const std::uint64_t bit = std::uint64_t{1} << (page.value % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
  }
  std::size_t group_count() const { return groups_.size(); }
  // Numbers of the groups that have a page in, ascending.
  void add_groups_to(std::set<std::uint64_t>& numbers) const {
    for (const auto& [number, group] : groups_) numbers.insert(number);
  }

 private:
  static std::size_t word_of(PageId page) { return page.value % disk::kPagesPerSpaceMap / 64; }
  const Group* find(std::uint64_t number) const {
    if (last_ != nullptr && last_number_ == number) return last_;
    const auto found = groups_.find(number);
    return found == groups_.end() ? nullptr : found->second.get();
  }

  std::map<std::uint64_t, std::unique_ptr<Group>> groups_;
  Group* last_ = nullptr;  // the group of the last insert(): runs are the rule
  std::uint64_t last_number_ = 0;
};

}  // namespace kelda::engine
