// One slot of the double-write area: a header page, then room for kMaxBatchPages page copies.
//
//   slot header (4096 bytes)
//      0 magic             "KELDADW1"
//      8 checksum          XXH3 of bytes 16..4095, seeded with checksum_seed ^ slot index
//     16 sequence          of the batch, from 1, dense; the batch lies in slot sequence % slot_count
//     24 complete_through  every batch up to this one is in place, durably
//     32 page_count        copies that follow
//     36 zero
//     40 entries           page_count times { page id, checksum as in the copy's page header }
//   copies, 4096 bytes each
#pragma once

#include <cstddef>
#include <cstdint>

#include "disk/layout.h"
#include "disk/page_store.h"

namespace kelda::disk {

struct SlotHeader {
  struct Entry {
    std::uint64_t page_id;
    std::uint64_t checksum;
  };
  std::uint64_t magic;
  std::uint64_t checksum;
  std::uint64_t sequence;
  std::uint64_t complete_through;
  std::uint32_t page_count;
  std::uint32_t zero;
  Entry entries[PageStore::kMaxBatchPages];
  std::uint8_t unused[kPageBytes - 40 - sizeof(Entry) * PageStore::kMaxBatchPages];
};
static_assert(sizeof(SlotHeader) == kPageBytes);
static_assert(offsetof(SlotHeader, sequence) == 16 && offsetof(SlotHeader, complete_through) == 24);
static_assert(offsetof(SlotHeader, page_count) == 32 && offsetof(SlotHeader, entries) == 40);

inline constexpr std::uint64_t kSlotMagic = 0x3157'4441'444c'454bull;  // "KELDADW1"
inline constexpr std::uint64_t kSlotBytes = (1 + PageStore::kMaxBatchPages) * kPageBytes;
inline constexpr std::uint64_t kMinSlots = 2;
inline constexpr std::uint64_t kMaxSlots = 8;

void seal_slot_header(SlotHeader& header, std::uint64_t slot, std::uint64_t checksum_seed);
// A header that was written whole, for this slot of this disk.
bool slot_header_verifies(const SlotHeader& header, std::uint64_t slot, std::uint64_t slot_count,
                          std::uint64_t checksum_seed);

}  // namespace kelda::disk
