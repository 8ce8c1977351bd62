// Torn-page repair at open (double_write.h).
#include <algorithm>
#include <unordered_set>
#include <vector>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "disk/aligned_buffer.h"
#include "disk/double_write.h"
#include "disk/double_write_slot.h"
#include "disk/io_batch.h"
#include "disk/page_check.h"

namespace kelda::disk {
namespace {

struct ReadSlots {
  std::vector<const SlotHeader*> verified;  // newest first
  std::uint64_t complete_through = 0;
  std::uint64_t last_sequence = 0;
};

ReadSlots judge(const AlignedBuffer& headers, std::uint64_t slot_count, std::uint64_t checksum_seed) {
  ReadSlots slots;
  for (std::uint64_t slot = 0; slot < slot_count; ++slot) {
    const auto* header = reinterpret_cast<const SlotHeader*>(headers.data() + slot * kPageBytes);
    if (!slot_header_verifies(*header, slot, slot_count, checksum_seed)) continue;
    slots.verified.push_back(header);
    slots.complete_through = std::max(slots.complete_through, header->complete_through);
    slots.last_sequence = std::max(slots.last_sequence, header->sequence);
  }
  std::ranges::sort(slots.verified, std::ranges::greater{}, &SlotHeader::sequence);
  return slots;
}

// The pages of one slot: read all at once in place; copies only where they are needed.
class SlotRepair {
 public:
  SlotRepair(blockdev::BlockDevice& device, const Layout& layout, std::uint64_t checksum_seed)
      : device_(device), layout_(layout), checksum_seed_(checksum_seed) {}

  // Restores what is torn in place; returns how many pages. `settled`: pages that a newer slot has dealt with.
  Result<std::uint64_t> run(const SlotHeader& header, std::uint64_t slot, std::unordered_set<std::uint64_t>& settled) {
    std::vector<std::uint32_t> open;  // indices of entries
    IoBatch io;
    for (std::uint32_t i = 0; i < header.page_count; ++i) {
      const PageId page(header.entries[i].page_id);
      if (page.value >= layout_.page_count || settled.contains(page.value)) continue;
      io.add(blockdev::Op::kRead, layout_.offset_of(page), in_place_.data() + open.size() * kPageBytes, kPageBytes);
      open.push_back(i);
    }
    // A page that cannot even be read is one more kind of damage: writing the copy may heal it.
    std::vector<Result<>> read(open.size());
    io.run_each(device_, read);
    std::uint64_t restored = 0;
    for (std::size_t k = 0; k < open.size(); ++k) {
      const SlotHeader::Entry& entry = header.entries[open[k]];
      const bool intact = read[k] && page_verifies(PageId(entry.page_id), in_place_.data() + k * kPageBytes, checksum_seed_);
      if (!intact) {
        if (!read_copy(entry, slot, open[k])) continue;
        if (!planted(Bug::kTornPageNotRestored)) TRY(device_.write(layout_.offset_of(PageId(entry.page_id)), copy_.span()));
        ++restored;
      }
      settled.insert(entry.page_id);
    }
    return restored;
  }

 private:
  // False if the copy is not whole: then it was never followed by its write in place, and an older batch is to blame.
  bool read_copy(const SlotHeader::Entry& entry, std::uint64_t slot, std::uint32_t index) {
    const std::uint64_t offset = layout_.double_write_offset + slot * kSlotBytes + (1 + index) * kPageBytes;
    return device_.read(offset, copy_.span()) && header_of(copy_.data()).checksum == entry.checksum &&
           page_verifies(PageId(entry.page_id), copy_.data(), checksum_seed_);
  }

  blockdev::BlockDevice& device_;
  const Layout& layout_;
  const std::uint64_t checksum_seed_;
  AlignedBuffer in_place_{PageStore::kMaxBatchPages * kPageBytes};
  AlignedBuffer copy_{kPageBytes};
};

}  // namespace

Result<PageStore::RepairReport> DoubleWriteStore::repair() {
  AlignedBuffer headers(slot_count_ * kPageBytes);
  IoBatch io;
  for (std::uint64_t slot = 0; slot < slot_count_; ++slot) {
    io.add(blockdev::Op::kRead, layout_.double_write_offset + slot * kSlotBytes, headers.data() + slot * kPageBytes, kPageBytes);
  }
  TRY(io.run(device_));

  RepairReport report;
  const ReadSlots slots = judge(headers, slot_count_, checksum_seed_);
  SlotRepair slot_repair(device_, layout_, checksum_seed_);
  std::unordered_set<std::uint64_t> settled;
  for (const SlotHeader* header : slots.verified) {
    if (header->sequence <= slots.complete_through) break;  // stale, and so are all that follow
    ++report.slots_in_flight;
    report.pages_repaired += TRY(slot_repair.run(*header, header->sequence % slot_count_, settled));
  }
  if (report.slots_in_flight > 0) TRY(flush_device(device_));
  latch_.lock();
  ring_.restart(slots.last_sequence, slots.complete_through);
  latch_.unlock();
  return report;
}

}  // namespace kelda::disk
