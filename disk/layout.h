// The device as Kelda lays it out: superblock copies | log ring | double-write area | pages.
//
// All integers little-endian. docs/format-disk.md is the document of these bytes.
#pragma once

#include <array>
#include <cstdint>

#include "common/types.h"

namespace kelda::disk {

inline constexpr std::uint32_t kFormatVersion = 1;

// Where things lie, in bytes from the start of the device; from the superblock, fixed when the disk is formatted.
struct Layout {
  std::uint64_t device_bytes = 0;
  std::uint64_t log_offset = 0, log_bytes = 0;
  std::uint64_t double_write_offset = 0, double_write_bytes = 0;
  std::uint64_t pages_offset = 0, page_count = 0;
  std::array<std::uint8_t, 16> uuid{};

  // Seeds every checksum on this disk, so that bytes of another disk, or of an earlier formatting, do not verify.
  std::uint64_t checksum_seed() const;
};

// First 32 bytes of every page in the page area.
//   0 checksum   XXH3 of bytes 8..4095, seeded with checksum_seed ^ page id
//   8 page_id    the page's own number: a misdirected write is detected
//  16 lsn        of the last log record applied to the page
//  24 type       PageType
//  25 .. 31      for the owner of the type
struct PageHeader {
  std::uint64_t checksum;
  std::uint64_t page_id;
  std::uint64_t lsn;
  std::uint8_t type;
  std::uint8_t owner[7];
};
static_assert(sizeof(PageHeader) == 32);

enum class PageType : std::uint8_t { kFree = 0, kSpaceMap = 1, kTreeNode = 2, kOverflowIndex = 3, kOverflowData = 4 };

inline PageHeader& header_of(std::byte* page) { return *reinterpret_cast<PageHeader*>(page); }
inline const PageHeader& header_of(const std::byte* page) { return *reinterpret_cast<const PageHeader*>(page); }

// Pages of group g are [g * kPagesPerSpaceMap, (g+1) * kPagesPerSpaceMap); the first page of a group is its space map,
// a bitmap with one bit a page (1 = in use). The space map's own bit is set.
inline constexpr std::uint64_t kSpaceMapHeaderBytes = 64;
inline constexpr std::uint64_t kPagesPerSpaceMap = (kPageBytes - kSpaceMapHeaderBytes) * 8;

}  // namespace kelda::disk
