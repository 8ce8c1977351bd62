// Dirty pages to the store: batches for eviction, and the sweep of a checkpoint.
//
// Invariant 4, in steps: under a shared latch the dirty flag is cleared, "going out" set and the content copied; then the
// log up to the copy's LSN; then the store; then "going out" is cleared. A change meanwhile sets dirty again. While a page
// is going out it is neither evicted (the device may still have the old version) nor written a second time.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "bufferpool/pool_impl.h"
#include "common/planted_bug.h"
#include "runtime/core.h"

namespace kelda::bufferpool {

bool BufferPool::Impl::copy_out(PageId page, WriteBatch& batch) {
  StateWord& word_of_page = state(page);
  std::uint64_t word = word_of_page.load(std::memory_order_relaxed);
  do {
    if ((word & (kResident | kExclusive | kDirty | kGoingOut)) != (kResident | kDirty)) return false;
  } while (!word_of_page.compare_exchange_weak(word, word + kSharedOne + kGoingOut - kDirty, std::memory_order_acquire));
  count(counters.dirty, -1);
  std::memcpy(batch.add(page), map->base() + page.value * kPageBytes, kPageBytes);
  const std::uint64_t before = word_of_page.fetch_sub(kSharedOne, std::memory_order_release);
  if ((before & (kWaiters | kSharedMask)) == (kWaiters | kSharedOne)) wake(page);
  return true;
}

Result<> BufferPool::Impl::write_out(WriteBatch& batch) {
  if (batch.empty()) return {};
  Result<> done = barrier != nullptr && !planted(Bug::kPageBeforeLog) ? barrier->wait_durable(batch.max_lsn()) : Result<>{};
  if (done) done = store.write(batch.writes());
  for (const disk::PageWrite& write : batch.writes()) {
    StateWord& word_of_page = state(write.page);
    if (!done && (word_of_page.fetch_or(kDirty, std::memory_order_relaxed) & kDirty) == 0) count(counters.dirty);
    if (planted(Bug::kChangeDuringWriteLost) && (word_of_page.fetch_and(~kDirty) & kDirty) != 0) count(counters.dirty, -1);
    const std::uint64_t before = word_of_page.fetch_and(~kGoingOut, std::memory_order_release);
    if ((before & kWaiters) != 0) wake(write.page);
  }
  if (!done) return fail(std::move(done).error());
  count(counters.pages_written, static_cast<std::int64_t>(batch.writes().size()));
  batch.clear();
  return {};
}

// One checkpoint: its workers share the hand, so that several batches are in flight.
struct BufferPool::Impl::Sweep {
  std::atomic<std::uint64_t> next_frame{0};
  std::atomic<std::uint64_t> pages_done{0};
  std::uint64_t max_pages_per_s = 0;
  runtime::TimeNs start_ns = 0;
  std::atomic<bool> failed{false};

  // Sleeps as long as the sweep is ahead of its pace.
  void pace() const {
    if (max_pages_per_s == 0) return;
    const double due_s = static_cast<double>(pages_done.load()) / static_cast<double>(max_pages_per_s);
    const runtime::TimeNs due_ns = start_ns + static_cast<runtime::TimeNs>(due_s * 1e9);
    if (runtime::now_ns() < due_ns) runtime::Core::current().sleep_until(due_ns);
  }
};

// Why nothing is missed: a page that is dirty at the call, or whose holder has logged a change but not yet marked it
// (its latch is held), is in some frame. When the hand comes to that frame the page is still there - then it is written,
// or waited for if it is latched or going out - or it was evicted in between, and so written. What was going out
// already is waited for: its write must precede the final sync.
Result<> BufferPool::Impl::write_back_all(std::uint64_t max_pages_per_s) {
  TRY(health());
  // Sweeps keep their batches while they wait for latches: one at a time, so that eviction always finds a batch.
  std::scoped_lock one_at_a_time(sweeping);
  constexpr unsigned kWorkers = 3;
  static_assert(kWorkers < kWriteBatches);
  Sweep sweep;
  sweep.max_pages_per_s = max_pages_per_s;
  sweep.start_ns = runtime::now_ns();
  runtime::Completion helpers;
  for (unsigned i = 1; i < kWorkers; ++i) {
    helpers.add();
    auto help = [this, &sweep, &helpers] {
      if (!write_back_worker(sweep)) sweep.failed.store(true);
      helpers.done();
    };
    // Fewer helpers only make it slower.
    if (!runtime::Core::current().spawn(std::move(help), {.name = "write-back"})) helpers.done();
  }
  const Result<> own = write_back_worker(sweep);
  helpers.wait();
  TRY(health());
  if (!own) return own.error();
  if (Result<> synced = store.sync(); !synced) return fail(std::move(synced).error());
  return {};
}

Result<> BufferPool::Impl::write_back_worker(Sweep& sweep) {
  constexpr std::uint64_t kStep = 256;
  WriteBatchPool::Lease batch = batches.take();
  std::vector<PageId> deferred;
  for (;;) {
    const std::uint64_t first = sweep.next_frame.fetch_add(kStep);
    if (first >= frame_count) break;
    for (std::uint64_t i = first; i < std::min(first + kStep, frame_count); ++i) {
      const PageId page = frames.page_of(FrameId(i));
      if (page == FrameTable::kNone) continue;
      const std::uint64_t word = state(page).load(std::memory_order_acquire);
      if ((word & (kDirty | kGoingOut | kExclusive)) == 0) continue;
      if (!copy_out(page, *batch) && !planted(Bug::kWriteBackSkipsBusyPages)) deferred.push_back(page);
      if (batch->full()) TRY(write_back_batch(sweep, *batch));
    }
    // Never waits for a latch with copies in hand: who holds that latch may wait for these pages to become evictable.
    if (!deferred.empty()) {
      TRY(write_back_batch(sweep, *batch));
      TRY(write_back_deferred(sweep, deferred, *batch));
    }
    if (sweep.failed.load()) return Code::kFailed;
    runtime::Core::current().yield();
  }
  return write_back_batch(sweep, *batch);
}

Result<> BufferPool::Impl::write_back_batch(Sweep& sweep, WriteBatch& batch) {
  if (batch.empty()) return {};
  sweep.pages_done.fetch_add(batch.writes().size());
  TRY(write_out(batch));
  sweep.pace();
  return {};
}

Result<> BufferPool::Impl::write_back_deferred(Sweep& sweep, std::vector<PageId>& deferred, WriteBatch& batch) {
  for (PageId page : deferred) {
    for (;;) {
      const std::uint64_t word = state(page).load(std::memory_order_acquire);
      if ((word & (kExclusive | kGoingOut)) != 0) {
        TRY(write_back_batch(sweep, batch));
        waiters.wait(state(page), page, kExclusive | kGoingOut);
      } else if ((word & (kDirty | kResident)) == (kDirty | kResident)) {
        if (!copy_out(page, batch)) continue;
        if (batch.full()) TRY(write_back_batch(sweep, batch));
        break;
      } else {
        break;
      }
    }
  }
  deferred.clear();
  return {};
}

}  // namespace kelda::bufferpool
