// Which addresses the program has mapped, and with what protection: a sorted array of areas. Not thread-safe; demand.cc
// guards it. Private to kernel/.
//
// Invariants
//  A1. Areas are not empty, do not overlap, and ascend; bounds are page-aligned.
//  A2. Neighbours that touch differ in protection (else they are one area).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace kelda::kernel {

enum class Protection : std::uint8_t { kNone = 0, kRead = 1, kWrite = 2, kExecute = 4 };
constexpr Protection operator|(Protection a, Protection b) {
  return static_cast<Protection>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool allows(Protection p, Protection wanted) {
  return (static_cast<unsigned>(p) & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
}

struct Area {
  std::uint64_t begin, end;
  Protection protection;
};

class AreaList {
 public:
  // `make_room(count)` makes the storage usable for that many areas, or says no.
  using MakeRoom = bool (*)(std::size_t count);
  constexpr AreaList() = default;
  void init(Area* storage, MakeRoom make_room) {
    areas_ = storage;
    make_room_ = make_room;
  }

  // The area that holds `address`; nothing in a gap.
  const Area* find(std::uint64_t address) const;
  // Gives [begin, end) one protection, whatever was there. False when there is no room for more areas.
  bool set(std::uint64_t begin, std::uint64_t end, Protection protection);
  // Makes [begin, end) a gap.
  bool clear(std::uint64_t begin, std::uint64_t end);
  // Are there areas everywhere in [begin, end)?
  bool covers(std::uint64_t begin, std::uint64_t end) const;
  bool is_gap(std::uint64_t begin, std::uint64_t end) const;
  // The lowest gap of `size` within [from, limit).
  std::optional<std::uint64_t> find_gap(std::uint64_t size, std::uint64_t from, std::uint64_t limit) const;
  // Calls visit(begin, end, protection) for the parts of areas inside [begin, end), ascending.
  template <class Visit>
  void for_each(std::uint64_t begin, std::uint64_t end, Visit visit) const {
    for (std::size_t i = first_ending_after(begin); i < count_ && areas_[i].begin < end; ++i) {
      visit(begin > areas_[i].begin ? begin : areas_[i].begin, end < areas_[i].end ? end : areas_[i].end,
            areas_[i].protection);
    }
  }
  std::size_t count() const { return count_; }

 private:
  std::size_t first_ending_after(std::uint64_t address) const;
  void insert_at(std::size_t index, Area area);
  void remove(std::size_t first, std::size_t last);
  void merge_at(std::size_t index);  // with its left neighbour, where A2 asks for it

  Area* areas_ = nullptr;
  std::size_t count_ = 0;
  MakeRoom make_room_ = nullptr;
};

}  // namespace kelda::kernel
