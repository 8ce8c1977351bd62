// The machine itself: the pool writes the page-table entries.
//
//   nothing   entry 0
//   mapped    frame | present, writable, never executable; the processor sets "accessed" and "dirty"
//   limbo     the same without "present": the entry remembers the frame, and the processor ignores the rest
//
// A miss is read into the frame through the identity map, before the entry exists; publishing is one store. Unmapping
// clears "present" in a batch and begins one epoch (kernel/paging.h): no CPU is interrupted, each flushes when it next
// passes its run loop.
//
// "Accessed" is read and cleared by the clock hand. A CPU that still has the translation does not set it again, so a
// clear is followed by a flush on every CPU: that of the next unmapping, or of an epoch of its own when the hand has
// cleared but unmapped nothing.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "bufferpool/lazy_array.h"
#include "bufferpool/page_map.h"
#include "common/assert.h"
#include "kernel/memory.h"
#include "kernel/paging.h"
#include "runtime/sync.h"

namespace kelda::bufferpool {
namespace {

// Address space for the regions of all pools of the machine: loads through absent entries are answered in one range
// only, which is fixed for good (kernel: set_optimistic_range). Regions are handed out first fit and come back.
class Regions {
 public:
  static Regions& instance() {
    static Regions regions;
    return regions;
  }

  Result<kernel::VirtAddr> take(std::uint64_t size_bytes) {
    std::scoped_lock lock(latch_);
    if (base_ == 0) {
      const kernel::VirtAddr base = TRY(kernel::reserve_region(kTotalBytes));
      TRY(kernel::set_optimistic_range(base, kTotalBytes));
      base_ = base;
    }
    kernel::VirtAddr at = base_;
    auto next = taken_.begin();
    for (; next != taken_.end() && next->begin - at < size_bytes; ++next) at = next->end;
    if (base_ + kTotalBytes - at < size_bytes) {
      return Error(Code::kUnsupported, fmt::format("a buffer pool over {} bytes of pages does not fit the {} bytes of address "
                                                   "space that the machine sets aside",
                                                   size_bytes, kTotalBytes));
    }
    taken_.insert(next, {at, at + size_bytes});
    return at;
  }

  void give_back(kernel::VirtAddr begin) {
    std::scoped_lock lock(latch_);
    std::erase_if(taken_, [begin](const Range& range) { return range.begin == begin; });
  }

 private:
  static constexpr std::uint64_t kTotalBytes = 16 * 1024_GiB;
  struct Range { kernel::VirtAddr begin, end; };
  runtime::SpinLatch latch_;
  kernel::VirtAddr base_ = 0;
  std::vector<Range> taken_;  // by address
};

using Entry = std::atomic<std::uint64_t>;
constexpr std::uint64_t kEntriesPerTable = 512;
// Where the entries of 512 adjacent pages are, once known: they stay there (kernel/paging.h, P2).
using Table = std::atomic<Entry*>;

class BarePageMap final : public PageMap {
 public:
  BarePageMap(kernel::VirtAddr base, std::vector<PhysAddr> frames, LazyArray<Table> tables)
      : base_(base), frames_(std::move(frames)), shown_at_(frames_.size()), tables_(std::move(tables)) {}

  ~BarePageMap() override {
    for (std::uint64_t page : shown_at_) {
      if (page != 0) entry_of(PageId(page - 1))->store(0, std::memory_order_relaxed);
    }
    kernel::force_unmap_epoch(kernel::begin_unmap_epoch());
    kernel::free_frames(frames_);
    Regions::instance().give_back(base_);
  }

  std::byte* base() const override { return reinterpret_cast<std::byte*>(base_); }
  std::byte* frame_address(PageId, FrameId frame) override { return kernel::frame_pointer(frames_[frame.value]); }

  Result<> map(PageId page, FrameId frame) override {
    Entry* entry = find_entry(page);
    if (entry == nullptr) entry = make_entry(page);
    if (entry == nullptr) {
      return Error(Code::kOutOfMemory, "no memory for page tables: give the virtual machine more, or the pool less");
    }
    KELDA_ASSERT(entry->load(std::memory_order_relaxed) == 0);
    shown_at_[frame.value] = page.value + 1;
    // "Accessed" from the start: the page is wanted, and the processor need not write the entry again.
    entry->store(frames_[frame.value].value | kernel::kPteData | kernel::kPteAccessed, std::memory_order_release);
    return {};
  }

  Epoch unmap(std::span<const PageId> pages) override {
    for (PageId page : pages) entry_of(page)->fetch_and(~kernel::kPtePresent, std::memory_order_relaxed);
    cleared_.store(0, std::memory_order_relaxed);
    return kernel::begin_unmap_epoch();
  }

  bool passed(Epoch epoch) override { return kernel::unmap_epoch_passed(epoch); }

  void restore(PageId page) override {
    entry_of(page)->fetch_or(kernel::kPtePresent | kernel::kPteAccessed, std::memory_order_release);
  }

  void release(std::span<const PageId> pages) override {
    for (PageId page : pages) {
      Entry* entry = find_entry(page);
      if (entry != nullptr) entry->store(0, std::memory_order_relaxed);
    }
  }

  bool has_reference_bits() const override { return true; }

  void take_references(std::span<const PageId> pages, std::span<bool> referenced) override {
    std::uint64_t cleared = 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      Entry* entry = find_entry(pages[i]);
      // Looked at first: a locked operation on every entry would cost more than the misses it saves.
      referenced[i] = entry != nullptr && (entry->load(std::memory_order_relaxed) & kernel::kPteAccessed) != 0;
      if (!referenced[i]) continue;
      entry->fetch_and(~kernel::kPteAccessed, std::memory_order_relaxed);
      ++cleared;
    }
    cleared_.fetch_add(cleared, std::memory_order_relaxed);
  }

  void references_taken() override {
    if (cleared_.exchange(0, std::memory_order_relaxed) > 0) (void)kernel::begin_unmap_epoch();
  }

 private:
  // Null for a page whose neighbourhood was never mapped.
  Entry* find_entry(PageId page) const {
    Entry* table = tables_[page.value / kEntriesPerTable].load(std::memory_order_acquire);
    return table != nullptr ? table + page.value % kEntriesPerTable : nullptr;
  }
  Entry* make_entry(PageId page) const {
    const std::uint64_t first = round_down(page.value, kEntriesPerTable);
    Entry* table = kernel::pte_for(base_ + first * kPageBytes, true);
    if (table == nullptr) return nullptr;
    tables_[page.value / kEntriesPerTable].store(table, std::memory_order_release);
    return table + page.value % kEntriesPerTable;
  }
  // Of a page that was mapped.
  Entry* entry_of(PageId page) const {
    Entry* entry = find_entry(page);
    KELDA_ASSERT(entry != nullptr);
    return entry;
  }

  const kernel::VirtAddr base_;
  const std::vector<PhysAddr> frames_;
  std::vector<std::uint64_t> shown_at_;  // by frame: the last page that it was mapped at, plus 1. For tear-down
  LazyArray<Table> tables_;
  std::atomic<std::uint64_t> cleared_{0};  // "accessed" bits since the last epoch
};

}  // namespace

Result<std::unique_ptr<PageMap>> make_bare_page_map(std::uint64_t frame_count, std::uint64_t page_count) {
  LazyArray<Table> tables = TRY(LazyArray<Table>::create(page_count / kEntriesPerTable + 1));
  std::vector<PhysAddr> frames(frame_count);
  const std::size_t got = kernel::alloc_frames(frames);
  frames.resize(got);
  if (got < frame_count) {
    kernel::free_frames(frames);
    return Error(Code::kOutOfMemory, fmt::format("the pool wants {} frames of 4 KiB but the machine has {} free: give the "
                                                 "virtual machine more memory, or the pool less",
                                                 frame_count, got));
  }
  Result<kernel::VirtAddr> base = Regions::instance().take(round_up(page_count * kPageBytes, 2_MiB));
  if (!base) {
    kernel::free_frames(frames);
    return std::move(base).error();
  }
  return std::make_unique<BarePageMap>(*base, std::move(frames), std::move(tables));
}

}  // namespace kelda::bufferpool
