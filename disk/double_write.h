// PageStore in place, with a double-write area against torn pages.
//
// write(), for one batch: claim a slot (slot_ring.h), write header and copies there, flush, write in place. The slot is
// overwritten only after a later flush has covered the writes in place: that of a later batch, or sync()'s.
//
// repair() reads all slot headers. Those at or below the highest complete_through are stale. Of the others, newest first
// for each page: a page that does not verify in place, but whose copy does, is restored. S1 of slot_ring.h says why this
// copy can never be older than what was in place. A page damaged while it was not in flight is left, to be reported.
//
// Undetected by design: a device that acknowledges a write and a flush but keeps the old page (a phantom write). The old
// page is intact and at its place; only the log, or a parent that knew better, could tell.
#pragma once

#include "disk/page_store.h"
#include "disk/slot_ring.h"
#include "runtime/sync.h"

namespace kelda::disk {

class DoubleWriteStore final : public PageStore {
 public:
  DoubleWriteStore(blockdev::BlockDevice& device, const Layout& layout);

  Result<> read(PageId page, std::byte* into) override;
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) override;
  void read_runs(std::span<const PageId> pages, std::byte* into, std::span<Result<>> status) override;
  Result<> write(std::span<const PageWrite> batch) override;
  Result<> sync() override { return flush(); }
  void forget(std::span<const PageId> pages) override;
  bool can_forget() const override { return device_.info().has_discard; }
  const Layout& layout() const override { return layout_; }
  Result<RepairReport> repair() override;
  std::uint64_t copy_areas() const override;
  std::uint64_t copy_area_bytes() const override;
  Result<> check_copy_area(std::uint64_t area) override;

 private:
  Result<SlotRing::Claim> claim_slot();
  Result<> write_slot(const SlotRing::Claim& claim, std::span<const PageWrite> batch);
  Result<> write_in_place(std::span<const PageWrite> batch);
  // Makes every write that completed before the call durable. Callers that come while a flush is under way share the next.
  Result<> flush();
  Result<> check_range(PageId page) const;
  // Remembers the first failure and wakes everybody; returns that first failure.
  Error fail(Error error);
  Result<> health_locked() const;

  blockdev::BlockDevice& device_;
  const Layout layout_;
  const std::uint64_t checksum_seed_;
  const std::uint64_t slot_count_;

  runtime::SpinLatch latch_;  // all below
  SlotRing ring_;
  std::uint64_t flushes_started_ = 0, flushes_done_ = 0;
  std::optional<Error> failure_;
  runtime::WaitQueue progress_;  // any change that a claim or a flush may wait for
};

}  // namespace kelda::disk
