#include "disk/layout.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/assert.h"
#include "common/checksum.h"
#include "disk/double_write_slot.h"
#include "disk/superblock.h"

namespace kelda::disk {

std::uint64_t Layout::checksum_seed() const { return checksum64(std::as_bytes(std::span(uuid)), kFormatVersion); }

bool Layout::plausible() const {
  const auto page_aligned = [](std::uint64_t n) { return n % kPageBytes == 0; };
  if (!page_aligned(log_offset) || !page_aligned(log_bytes) || !page_aligned(double_write_offset) ||
      !page_aligned(pages_offset)) {
    return false;
  }
  // Sizes first, so that the sums below cannot wrap.
  for (std::uint64_t n : {log_offset, log_bytes, double_write_offset, double_write_bytes, pages_offset}) {
    if (n == 0 || n > device_bytes) return false;
  }
  return log_offset >= kSuperblockAreaBytes && log_offset + log_bytes <= double_write_offset &&
         double_write_bytes >= kMinSlots * kSlotBytes && double_write_offset + double_write_bytes <= pages_offset &&
         page_count > 0 && page_count <= (device_bytes - pages_offset) / kPageBytes;
}

Layout Layout::grown_to(std::uint64_t size_bytes) const {
  // In whole pages: the same image may be opened through blocks of another size next time.
  size_bytes = round_down(size_bytes, kPageBytes);
  Layout larger = *this;
  if (size_bytes <= device_bytes || (size_bytes - pages_offset) / kPageBytes <= page_count) return larger;
  larger.device_bytes = size_bytes;
  larger.page_count = (size_bytes - pages_offset) / kPageBytes;
  KELDA_ASSERT(larger.plausible());
  return larger;
}

Result<Layout> choose_layout(std::uint64_t device_bytes, std::uint64_t log_bytes) {
  KELDA_ASSERT(device_bytes >= Superblock::kMinDeviceBytes);
  if (log_bytes == 0) log_bytes = std::clamp(device_bytes / 16, kMinLogBytes, kMaxChosenLogBytes);
  log_bytes = round_up(log_bytes, 1_MiB);
  if (log_bytes < kMinLogBytes || log_bytes > device_bytes / 2) {
    return Error(Code::kInvalidArgument,
                 fmt::format("a log of {} bytes does not suit a device of {} bytes: give from {} to half of the device",
                             log_bytes, device_bytes, kMinLogBytes));
  }
  Layout layout;
  layout.device_bytes = device_bytes;
  layout.log_offset = kSuperblockAreaBytes;
  layout.log_bytes = log_bytes;
  layout.double_write_offset = layout.log_offset + log_bytes;
  layout.double_write_bytes = kSlotBytes * std::clamp(device_bytes / 32 / kSlotBytes, kMinSlots, kMaxSlots);
  layout.pages_offset = round_up(layout.double_write_offset + layout.double_write_bytes, 64_KiB);
  layout.page_count = (device_bytes - layout.pages_offset) / kPageBytes;
  KELDA_ASSERT(layout.plausible());
  return layout;
}

}  // namespace kelda::disk
