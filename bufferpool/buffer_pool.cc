#include "bufferpool/buffer_pool.h"

#include <algorithm>

#include <fmt/format.h>

#include "bufferpool/pool_impl.h"

namespace kelda::bufferpool {

BufferPool::Impl::Impl(const PoolOptions& options, disk::PageStore& page_store, std::unique_ptr<PageMap> page_map)
    : frame_count(options.frame_count), page_count(options.page_count),
      batch_pages(std::clamp<std::size_t>(options.frame_count / 16, 16, WriteBatch::kMaxPages)),
      low_water(std::clamp<std::uint64_t>(options.frame_count / 64, 16, 512)), high_water(2 * low_water),
      store(page_store), map(std::move(page_map)), batches(kWriteBatches, batch_pages) {}

Result<std::unique_ptr<BufferPool>> BufferPool::create(const PoolOptions& options, disk::PageStore& store) {
  return create(options, store, TRY(make_page_map(options.frame_count, options.page_count)));
}

Result<std::unique_ptr<BufferPool>> BufferPool::create(const PoolOptions& options, disk::PageStore& store,
                                                       std::unique_ptr<PageMap> map) {
  if (options.frame_count < kMinFrames || options.page_count == 0) {
    return Error(Code::kInvalidArgument, fmt::format("a buffer pool needs at least {} frames of 4 KiB and 1 page, not {} and {}",
                                                     kMinFrames, options.frame_count, options.page_count));
  }
  std::unique_ptr<BufferPool> pool(new BufferPool());
  pool->impl_ = std::make_unique<Impl>(options, store, std::move(map));
  Impl& impl = *pool->impl_;
  impl.states = TRY(LazyArray<StateWord>::create(options.page_count));
  impl.frames = TRY(FrameTable::create(options.frame_count));
  impl.supply.free.reserve(options.frame_count);
  // The lowest frame on top, so that a small working set stays in few frames.
  for (std::uint64_t i = options.frame_count; i-- > 0;) impl.supply.free.push_back(FrameId(i));
  impl.counters.free.store(options.frame_count);
  pool->base_ = impl.map->base();
  pool->states_ = impl.states.data();
  pool->page_count_ = options.page_count;
  return pool;
}

// A pool may go at any time, a failed recovery included: the read-ahead that it started has its pages in use.
BufferPool::~BufferPool() {
  if (impl_) impl_->prefetches.wait();
}

void BufferPool::set_write_barrier(WriteBarrier& barrier) { impl_->barrier = &barrier; }

Result<> BufferPool::acquire_slow(PageId page, Acquire what) {
  Result<> acquired = impl_->acquire(page, what);
  if (acquired && what != Acquire::kPresent) latch_taken(base_, page);
  return acquired;
}

Result<> BufferPool::latch_fresh(PageId page) {
  Result<> acquired = impl_->acquire(page, Acquire::kFresh);
  if (acquired) latch_taken(base_, page, LatchOrder::kAnyTime);
  return acquired;
}

void BufferPool::wake_waiters(PageId page) { impl_->wake(page); }
void BufferPool::wait_for_readers(PageId page) {
  LatchWait wait(base_, page);
  impl_->waiters.wait(states_[page.value], page, kSharedMask);
}
Result<> BufferPool::write_back_all(std::uint64_t max_pages_per_s) { return impl_->write_back_all(max_pages_per_s); }
void BufferPool::provide_frames() { impl_->provide_frames(); }

void BufferPool::stop() {
  impl_->stopping.store(true, std::memory_order_release);
  impl_->provider_event.set();
}

void BufferPool::first_dirty(PageId page) {
  // The latch is ours, so nobody else sets it.
  states_[page.value].fetch_add(kDirty, std::memory_order_relaxed);
  Impl::count(impl_->counters.dirty);
}

Result<> BufferPool::reserve_frames(std::uint64_t count) {
  require_no_latch();
  if (count > impl_->frame_count / 2) {
    return Error(Code::kOutOfMemory, fmt::format("{} pages are needed at once, more than half of the pool's {}: give it more "
                                                 "memory",
                                                 count, impl_->frame_count));
  }
  if (impl_->counters.free.load(std::memory_order_relaxed) >= count) return {};
  return impl_->wait_for_frames(count);
}

void BufferPool::drop(std::span<const PageId> pages) {
  for (PageId page : pages) {
    KELDA_ASSERT(page.value < page_count_);
    StateWord& word_of_page = states_[page.value];
    std::uint64_t word = word_of_page.load(std::memory_order_acquire);
    // Also a copy of it that is going out: the page stays latched for no longer than the change of the word.
    while ((word & kResident) != 0 && !is_latched(word)) {
      if (!word_of_page.compare_exchange_weak(word, (word & ~kDirty) | kExclusive | kMarked, std::memory_order_acquire)) continue;
      if ((word & kDirty) != 0) Impl::count(impl_->counters.dirty, -1);
      latch_taken(base_, page, LatchOrder::kAnyTime);
      unlatch_exclusive(page);
      break;
    }
  }
}

void BufferPool::discard(std::span<const PageId> pages) {
  require_no_latch();
  drop(pages);
  impl_->store.forget(pages);
}

bool BufferPool::can_discard() const { return impl_->store.can_forget(); }

Error BufferPool::Impl::fail(Error error) {
  if (error.code() != Code::kFailed) {
    // Also kNoSpace, when the host has no room for a page that exists: other than on a full disk, nothing goes on.
    error = Error(Code::kFailed, "writing pages failed (" + error.to_string() + "); see to the device and restart to recover");
  }
  supply.latch.lock();
  if (!supply.failure) supply.failure = std::move(error);
  Error first = *supply.failure;
  supply.waiters.wake_all();
  supply.latch.unlock();
  failed.store(true);
  provider_event.set();
  return first;
}

Result<> BufferPool::Impl::health() {
  if (!failed.load()) return {};
  supply.latch.lock();
  Error first = *supply.failure;
  supply.latch.unlock();
  return first;
}

Result<> BufferPool::health() const { return impl_->health(); }

PoolStats BufferPool::stats() const {
  const Impl::Counters& c = impl_->counters;
  PoolStats stats{};
  stats.frames = impl_->frame_count;
  stats.free = c.free.load();
  stats.resident = c.resident.load();
  stats.limbo = c.limbo.load();
  stats.in_flight = c.in_flight.load();
  stats.dirty = c.dirty.load();
  stats.hits_slow = c.hits_slow.load();
  stats.misses = c.misses.load();
  stats.limbo_hits = c.limbo_hits.load();
  stats.evictions = c.evictions.load();
  stats.pages_written = c.pages_written.load();
  stats.pages_read = c.pages_read.load();
  stats.evict_stalls = c.evict_stalls.load();
  return stats;
}

std::uint64_t BufferPool::frame_count() const { return impl_->frame_count; }

void BufferPool::check_invariants() const {
  Impl& impl = *impl_;
  impl.prefetches.wait();
  std::uint64_t resident = 0, limbo = 0, dirty = 0, empty = 0;
  for (std::uint64_t i = 0; i < impl.frame_count; ++i) {
    const PageId page = impl.frames.page_of(FrameId(i));
    if (page == FrameTable::kNone) {
      ++empty;
      continue;
    }
    const std::uint64_t word = impl.state(page).load();
    KELDA_ASSERT(!is_latched(word) && (word & kGoingOut) == 0);
    KELDA_ASSERT(((word & kResident) != 0) != ((word & kLimbo) != 0));
    KELDA_ASSERT((word & kDirty) == 0 || (word & kResident) != 0);
    resident += (word & kResident) != 0 ? 1 : 0;
    limbo += (word & kLimbo) != 0 ? 1 : 0;
    dirty += (word & kDirty) != 0 ? 1 : 0;
  }
  const PoolStats now = stats();
  KELDA_ASSERT(now.resident == resident && now.limbo == limbo && now.dirty == dirty && now.in_flight == 0);
  KELDA_ASSERT(now.free == empty && now.free == impl.supply.free.size());
  KELDA_ASSERT(now.free + now.resident + now.limbo + now.in_flight == now.frames);  // invariant 5
}

}  // namespace kelda::bufferpool
