#include "bufferpool/page_waiters.h"

namespace kelda::bufferpool {

void PageWaiters::wait(StateWord& state, PageId page, std::uint64_t mask) {
  // A latch on a resident page is held for a few hundred instructions; a page that is being read takes longer.
  constexpr int kSpins = 64;
  for (int i = 0; i < kSpins; ++i) {
    const std::uint64_t word = state.load(std::memory_order_acquire);
    if ((word & mask) == 0) return;
    if ((word & (kResident | kExclusive)) == kExclusive || (mask & kGoingOut) != 0) break;
    __builtin_ia32_pause();
  }
  Bucket& bucket = bucket_of(page);
  bucket.latch.lock();
  if ((state.fetch_or(kWaiters, std::memory_order_acq_rel) & mask) != 0) bucket.queue.wait(bucket.latch);
  bucket.latch.unlock();
}

void PageWaiters::wake(StateWord& state, PageId page) {
  Bucket& bucket = bucket_of(page);
  bucket.latch.lock();
  state.fetch_and(~kWaiters, std::memory_order_acq_rel);
  bucket.queue.wake_all();
  bucket.latch.unlock();
}

}  // namespace kelda::bufferpool
