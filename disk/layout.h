// The device as Kelda lays it out: superblock copies | log ring | double-write area | pages.
//
// All integers little-endian. docs/format-disk.md is the document of these bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/result.h"
#include "common/types.h"

namespace kelda::disk {

inline constexpr std::uint32_t kFormatVersion = 1;

// The two copies lie far enough apart that one worn or misdirected stretch does not take both.
inline constexpr std::uint64_t kSuperblockCopyOffsets[2] = {0, 64_KiB};
inline constexpr std::uint64_t kSuperblockAreaBytes = 1_MiB;

inline constexpr std::uint64_t kMinLogBytes = 2_MiB;
inline constexpr std::uint64_t kMaxChosenLogBytes = 256_MiB;

// Where things lie, in bytes from the start of the device; from the superblock. Fixed when the disk is formatted, but for
// the end of the pages: they are the last area, and follow a device that is enlarged.
struct Layout {
  std::uint64_t device_bytes = 0;
  std::uint64_t log_offset = 0, log_bytes = 0;
  std::uint64_t double_write_offset = 0, double_write_bytes = 0;
  std::uint64_t pages_offset = 0, page_count = 0;
  std::array<std::uint8_t, 16> uuid{};

  // Seeds every checksum on this disk, so that bytes of another disk, or of an earlier formatting, do not verify.
  std::uint64_t checksum_seed() const;
  std::uint64_t offset_of(PageId page) const { return pages_offset + page.value * kPageBytes; }
  // The same with the pages up to the end of a device of this size, if it has room for more than page_count; else as it is.
  Layout grown_to(std::uint64_t size_bytes) const;
  // Areas in order, aligned, inside the device and none empty: what a superblock must say to be believed.
  bool plausible() const;
};

// The layout for a device of this size; `log_bytes` 0: a sixteenth of the device, from 2 MiB to 256 MiB.
// kInvalidArgument when the asked log does not fit. The uuid is left to the caller.
Result<Layout> choose_layout(std::uint64_t device_bytes, std::uint64_t log_bytes);

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
static_assert(offsetof(PageHeader, page_id) == 8 && offsetof(PageHeader, lsn) == 16);
static_assert(offsetof(PageHeader, type) == 24 && offsetof(PageHeader, owner) == 25);

enum class PageType : std::uint8_t { kFree = 0, kSpaceMap = 1, kTreeNode = 2, kOverflowIndex = 3, kOverflowData = 4 };

inline PageHeader& header_of(std::byte* page) { return *reinterpret_cast<PageHeader*>(page); }
inline const PageHeader& header_of(const std::byte* page) { return *reinterpret_cast<const PageHeader*>(page); }

// Pages of group g are [g * kPagesPerSpaceMap, (g+1) * kPagesPerSpaceMap); the first page of a group is its space map,
// a bitmap with one bit a page (1 = in use). The space map's own bit is set.
inline constexpr std::uint64_t kSpaceMapHeaderBytes = 64;
inline constexpr std::uint64_t kPagesPerSpaceMap = (kPageBytes - kSpaceMapHeaderBytes) * 8;

}  // namespace kelda::disk
