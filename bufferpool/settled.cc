// When does a page's place on the device hold its newest content? For scrubbing.
//
// Nobody writes a page but from a dirty copy in memory, and it becomes dirty only under the exclusive latch, whose end
// advances the version. So if the page was neither latched, dirty nor going out at one moment, and its version is the same
// at a later one, then nobody wrote it in between, and what the device returned in between is what it holds.
#include "bufferpool/buffer_pool.h"
#include "bufferpool/racy_read.h"

namespace kelda::bufferpool {

namespace {
constexpr std::uint64_t kUnsettled = kExclusive | kDirty | kGoingOut;
constexpr std::uint64_t kSettledMask = kVersionMask | kResident | kLimbo | kUnsettled;
}  // namespace

std::optional<std::uint64_t> BufferPool::settled(PageId page) const {
  KELDA_ASSERT(page.value < page_count_);
  const std::uint64_t word = states_[page.value].load(std::memory_order_acquire);
  if ((word & kUnsettled) != 0) return std::nullopt;
  return word & kSettledMask;
}

bool BufferPool::still_settled(PageId page, std::uint64_t mark) const {
  fence_before_validate();
  return (states_[page.value].load(std::memory_order_acquire) & kSettledMask) == mark;
}

std::optional<Lsn> BufferPool::settled_lsn(PageId page, std::uint64_t mark) const {
  if ((mark & kResident) == 0) return std::nullopt;
  std::uint64_t lsn;
  racy_copy(&lsn, data(page) + offsetof(disk::PageHeader, lsn), sizeof lsn);
  if (!still_settled(page, mark)) return std::nullopt;
  return Lsn{lsn};
}

bool BufferPool::write_again(PageId page) {
  for (int attempt = 0; attempt < 8; ++attempt) {
    const std::uint64_t word = states_[page.value].load(std::memory_order_acquire);
    if ((word & kResident) == 0) return false;
    if ((word & kReadableMask) != kResident) {  // latched, or the clock hand passed: wait, or clear the mark
      if (!make_resident(page)) return false;
      continue;
    }
    if (!try_upgrade(page, word & kValidateMask)) continue;
    mark_dirty(page, Lsn{disk::header_of(data(page)).lsn});
    unlatch_exclusive(page);
    return true;
  }
  return false;
}

}  // namespace kelda::bufferpool
