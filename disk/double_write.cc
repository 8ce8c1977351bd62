#include "disk/double_write.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "disk/aligned_buffer.h"
#include "disk/double_write_slot.h"
#include "disk/io_batch.h"
#include "disk/page_check.h"

namespace kelda::disk {

std::unique_ptr<PageStore> make_double_write_store(blockdev::BlockDevice& device, const Layout& layout) {
  return std::make_unique<DoubleWriteStore>(device, layout);
}

DoubleWriteStore::DoubleWriteStore(blockdev::BlockDevice& device, const Layout& layout)
    : device_(device), layout_(layout), checksum_seed_(layout.checksum_seed()),
      slot_count_(layout.double_write_bytes / kSlotBytes), ring_(slot_count_) {
  KELDA_ASSERT(slot_count_ >= kMinSlots);
}

Result<> DoubleWriteStore::check_range(PageId page) const {
  if (page.value < layout_.page_count) return {};
  return Error(Code::kCorrupt, fmt::format("page {} lies beyond the disk's {} pages", page.value, layout_.page_count));
}

Result<> DoubleWriteStore::read(PageId page, std::byte* into) {
  TRY(check_range(page));
  TRY(device_.read(layout_.offset_of(page), {into, kPageBytes}));
  if (planted(Bug::kReadNotVerified) && !all_zero({into, kPageBytes})) return {};
  return check_page(page, into, checksum_seed_);
}

void DoubleWriteStore::read_batch(std::span<const PageId> pages, std::span<std::byte* const> into,
                                  std::span<Result<>> status) {
  KELDA_ASSERT(pages.size() == into.size() && pages.size() == status.size());
  IoBatch io;
  std::vector<std::size_t> asked;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    status[i] = check_range(pages[i]);
    if (!status[i]) continue;
    io.add(blockdev::Op::kRead, layout_.offset_of(pages[i]), into[i], kPageBytes);
    asked.push_back(i);
  }
  std::vector<Result<>> outcome(asked.size());
  io.run_each(device_, outcome);
  for (std::size_t k = 0; k < asked.size(); ++k) {
    const std::size_t i = asked[k];
    if (planted(Bug::kReadAheadNotVerified) && outcome[k] && !all_zero({into[i], kPageBytes})) continue;
    status[i] = outcome[k] ? check_page(pages[i], into[i], checksum_seed_) : std::move(outcome[k]);
  }
}

void DoubleWriteStore::read_runs(std::span<const PageId> pages, std::byte* into, std::span<Result<>> status) {
  KELDA_ASSERT(pages.size() == status.size());
  struct Run { std::size_t begin, end; };
  std::vector<Run> runs;
  IoBatch io;
  const std::size_t longest = std::max<std::size_t>(1, device_.info().max_transfer_bytes / kPageBytes);
  for (std::size_t i = 0; i < pages.size();) {
    status[i] = check_range(pages[i]);
    std::size_t end = i + 1;
    if (status[i]) {
      while (end < pages.size() && end - i < longest && pages[end].value == pages[end - 1].value + 1 && check_range(pages[end])) ++end;
      io.add(blockdev::Op::kRead, layout_.offset_of(pages[i]), into + i * kPageBytes, static_cast<std::uint32_t>((end - i) * kPageBytes));
      runs.push_back({i, end});
    }
    i = end;
  }
  std::vector<Result<>> outcome(runs.size());
  io.run_each(device_, outcome);
  for (std::size_t k = 0; k < runs.size(); ++k) {
    for (std::size_t i = runs[k].begin; i < runs[k].end; ++i) {
      // One bad block fails the whole run: each page by itself says which.
      status[i] = outcome[k] ? check_page(pages[i], into + i * kPageBytes, checksum_seed_) : read(pages[i], into + i * kPageBytes);
    }
  }
}

Result<> DoubleWriteStore::write(std::span<const PageWrite> batch) {
  KELDA_ASSERT(batch.size() <= kMaxBatchPages);
  if (batch.empty()) return {};
  for (const PageWrite& write : batch) {
    TRY(check_range(write.page));
    stamp_page(write.page, write.copy, checksum_seed_);
  }
  const SlotRing::Claim claim = TRY(claim_slot());
  if (Result<> done = write_slot(claim, batch); !done) return fail(std::move(done).error());
  if (!planted(Bug::kSlotNotFlushed)) TRY(flush());
  latch_.lock();
  ring_.slot_durable(claim);
  progress_.wake_all();
  latch_.unlock();

  Result<> in_place = write_in_place(batch);
  if (!in_place && !planted(Bug::kPageWriteFailureIgnored)) return fail(std::move(in_place).error());
  latch_.lock();
  ring_.in_place(claim);
  progress_.wake_all();
  latch_.unlock();
  return {};
}

Result<SlotRing::Claim> DoubleWriteStore::claim_slot() {
  latch_.lock();
  for (;;) {
    if (Result<> health = health_locked(); !health) {
      latch_.unlock();
      return std::move(health).error();
    }
    if (std::optional<SlotRing::Claim> claim = ring_.claim()) {
      latch_.unlock();
      return *claim;
    }
    if (ring_.wants_flush()) {
      latch_.unlock();
      TRY(flush());
      latch_.lock();
    } else {
      progress_.wait(latch_);
    }
  }
}

Result<> DoubleWriteStore::write_slot(const SlotRing::Claim& claim, std::span<const PageWrite> batch) {
  AlignedBuffer header_page(kPageBytes);
  auto& header = *reinterpret_cast<SlotHeader*>(header_page.data());
  header.sequence = claim.sequence;
  header.complete_through = claim.complete_through;
  header.page_count = static_cast<std::uint32_t>(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    header.entries[i] = {batch[i].page.value, header_of(batch[i].copy).checksum};
  }
  seal_slot_header(header, claim.slot, checksum_seed_);

  const std::uint64_t base = layout_.double_write_offset + claim.slot * kSlotBytes;
  IoBatch io;
  io.add(blockdev::Op::kWrite, base, header_page.data(), kPageBytes);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    io.add(blockdev::Op::kWrite, base + (1 + i) * kPageBytes, batch[i].copy, kPageBytes);
  }
  return io.run(device_);
}

Result<> DoubleWriteStore::write_in_place(std::span<const PageWrite> batch) {
  std::vector<PageWrite> sorted(batch.begin(), batch.end());
  std::ranges::sort(sorted, {}, &PageWrite::page);
  KELDA_ASSERT(std::ranges::adjacent_find(sorted, {}, &PageWrite::page) == sorted.end());
  IoBatch io;
  for (const PageWrite& write : sorted) io.add(blockdev::Op::kWrite, layout_.offset_of(write.page), write.copy, kPageBytes);
  return io.run(device_);
}

Result<> DoubleWriteStore::flush() {
  latch_.lock();
  // A flush under way may have been submitted before our writes completed: only a later one covers them.
  const std::uint64_t wanted = flushes_started_ + 1;
  for (;;) {
    Result<> health = health_locked();
    if (!health || flushes_done_ >= wanted) {
      latch_.unlock();
      return health;
    }
    if (flushes_started_ == flushes_done_) break;
    progress_.wait(latch_);
  }
  ++flushes_started_;
  ring_.flush_started();
  latch_.unlock();
  Result<> flushed = flush_device(device_);
  if (!flushed) return fail(std::move(flushed).error());
  latch_.lock();
  ring_.flush_done();
  ++flushes_done_;
  progress_.wake_all();
  latch_.unlock();
  return {};
}

void DoubleWriteStore::forget(std::span<const PageId> pages) {
  if (!device_.info().has_discard) return;
  std::vector<PageId> sorted(pages.begin(), pages.end());
  std::ranges::sort(sorted);
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i + 1;
    while (end < sorted.size() && sorted[end].value == sorted[end - 1].value + 1) ++end;
    // A hint: a device that cannot follow it has lost nothing.
    if (check_range(sorted[end - 1])) (void)device_.discard(layout_.offset_of(sorted[i]), (end - i) * kPageBytes);
    i = end;
  }
}

Error DoubleWriteStore::fail(Error error) {
  latch_.lock();
  if (!failure_) failure_ = std::move(error);
  Error first = *failure_;
  progress_.wake_all();
  latch_.unlock();
  return first;
}

Result<> DoubleWriteStore::health_locked() const {
  if (failure_) return *failure_;
  return {};
}

}  // namespace kelda::disk
