#include "disk/double_write_slot.h"

#include "common/checksum.h"

namespace kelda::disk {
namespace {

std::uint64_t header_checksum(const SlotHeader& header, std::uint64_t slot, std::uint64_t checksum_seed) {
  constexpr std::size_t kFrom = offsetof(SlotHeader, sequence);
  return checksum64({reinterpret_cast<const std::byte*>(&header) + kFrom, kPageBytes - kFrom}, checksum_seed ^ slot);
}

}  // namespace

void seal_slot_header(SlotHeader& header, std::uint64_t slot, std::uint64_t checksum_seed) {
  header.magic = kSlotMagic;
  header.checksum = header_checksum(header, slot, checksum_seed);
}

// A batch is only written when the one before it in its slot is complete, so its header never knows of fewer.
bool slot_header_verifies(const SlotHeader& header, std::uint64_t slot, std::uint64_t slot_count,
                          std::uint64_t checksum_seed) {
  constexpr std::uint64_t kTooHigh = std::uint64_t{1} << 62;
  return header.magic == kSlotMagic && header.checksum == header_checksum(header, slot, checksum_seed) &&
         header.page_count <= PageStore::kMaxBatchPages && header.sequence % slot_count == slot &&
         header.sequence < kTooHigh && header.complete_through < header.sequence &&
         header.complete_through + slot_count >= header.sequence;
}

}  // namespace kelda::disk
