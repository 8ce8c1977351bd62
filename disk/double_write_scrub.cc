// Are the copies in the double-write area what their headers say? For scrubbing a running store.
#include <fmt/format.h>

#include "disk/aligned_buffer.h"
#include "disk/double_write.h"
#include "disk/double_write_slot.h"
#include "disk/page_check.h"

namespace kelda::disk {

std::uint64_t DoubleWriteStore::copy_areas() const { return slot_count_; }
std::uint64_t DoubleWriteStore::copy_area_bytes() const { return kSlotBytes; }

Result<> DoubleWriteStore::check_copy_area(std::uint64_t slot) {
  const auto at_rest = [&] {
    latch_.lock();
    const auto sequence = ring_.at_rest_in(slot);
    latch_.unlock();
    return sequence;
  };
  const std::optional<std::uint64_t> sequence = at_rest();
  if (!sequence) return {};
  AlignedBuffer bytes(kSlotBytes);
  const Result<> read = device_.read(layout_.double_write_offset + slot * kSlotBytes, bytes.span());
  std::string problem;
  const auto& header = *reinterpret_cast<const SlotHeader*>(bytes.data());
  if (!read) problem = read.error().message();
  else if (!slot_header_verifies(header, slot, slot_count_, checksum_seed_) || header.sequence != *sequence) problem = "its header does not verify";
  for (std::uint32_t i = 0; problem.empty() && i < header.page_count; ++i) {
    const std::byte* copy = bytes.data() + (1 + i) * kPageBytes;
    const PageId page(header.entries[i].page_id);
    if (header_of(copy).checksum == header.entries[i].checksum && page_verifies(page, copy, checksum_seed_)) continue;
    problem = fmt::format("the copy of page {} does not verify", page.value);
  }
  if (problem.empty() || at_rest() != sequence) return {};
  return Error(Code::kCorrupt, fmt::format("double-write area, slot {}: {}; it is overwritten when its turn comes", slot, problem));
}

}  // namespace kelda::disk
