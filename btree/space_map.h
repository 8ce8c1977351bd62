// A space-map page: one bit a page of its group, 1 = in use. Pure functions on a page.
//
//  0..31 disk::PageHeader (type kSpaceMap)
// 32..63 zero
// 64..4095 bits, least significant first
#pragma once

#include <cstring>

#include "common/types.h"
#include "disk/layout.h"

namespace kelda::btree {

static_assert(disk::kSpaceMapHeaderBytes == 64);

inline bool is_space_map(const std::byte* page) {
  return disk::header_of(page).type == static_cast<std::uint8_t>(disk::PageType::kSpaceMap);
}

inline void change_bits(std::byte* page, unsigned first, unsigned count, bool set) {
  for (unsigned bit = first; bit < first + count; ++bit) {
    std::byte& byte = page[disk::kSpaceMapHeaderBytes + bit / 8];
    const std::byte mask{static_cast<unsigned char>(1u << bit % 8)};
    byte = set ? byte | mask : byte & ~mask;
  }
}

inline bool test_bit(const std::byte* page, unsigned bit) {
  return (std::to_integer<unsigned>(page[disk::kSpaceMapHeaderBytes + bit / 8]) >> bit % 8 & 1) != 0;
}

// All free except itself.
inline void format_space_map(std::byte* page) {
  constexpr std::size_t from = offsetof(disk::PageHeader, type);
  std::memset(page + from, 0, kPageBytes - from);
  disk::header_of(page).type = static_cast<std::uint8_t>(disk::PageType::kSpaceMap);
  change_bits(page, 0, 1, true);
}

inline PageId map_of(PageId page) { return PageId(round_down(page.value, disk::kPagesPerSpaceMap)); }
inline unsigned bit_of(PageId page) { return static_cast<unsigned>(page.value % disk::kPagesPerSpaceMap); }

}  // namespace kelda::btree
