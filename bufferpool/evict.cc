// Eviction: the clock, limbo, and who does the work when.
//
// One round
//   1. frames of limbo whose epoch has passed become free; if that is a batch, done
//   2. the hand goes round until it has a batch of victims: pages that nobody referenced since it last came by, that
//      nobody has latched, and that are not going out. It never waits for a latch
//   3. clean victims: latch (try), unmap all at once, limbo
//   4. dirty victims, where they are worth a batch or nothing else is to be had: copied, log, written; those that did not
//      change meanwhile then go like clean ones
//   5. limbo again: where the platform's epochs pass at once this frees the batch
#include <algorithm>

#include "bufferpool/pool_impl.h"
#include "runtime/core.h"

namespace kelda::bufferpool {
namespace {

constexpr std::uint64_t kSweepStep = 32;
static_assert(kSweepStep < BufferPool::kMinFrames);
constexpr std::uint64_t kMaxSweep = 2048;  // frames a round: the core's other fibers get their turn between rounds

bool may_be_victim(std::uint64_t word) { return (word & kResident) != 0 && !is_latched(word) && (word & kGoingOut) == 0; }

}  // namespace

Result<std::size_t> BufferPool::Impl::evict_some() {
  std::size_t freed = release_limbo();
  if (freed >= batch_pages) return freed;
  Victims clean, dirty;
  sweep(clean, dirty);
  const std::size_t evicted = evict(clean);
  if (evicted == 0) map->references_taken();
  freed += evicted;
  if (!dirty.empty() && (clean.empty() || dirty.size() >= batch_pages / 2)) {
    WriteBatchPool::Lease batch = batches.take();
    Victims written;
    for (const Victim& victim : dirty) {
      if (!batch->full() && copy_out(victim.page, *batch)) written.push_back(victim);
    }
    TRY(write_out(*batch));
    freed += evict(written);
  }
  return freed + release_limbo();
}

void BufferPool::Impl::sweep(Victims& clean, Victims& dirty) {
  clean.reserve(batch_pages + kSweepStep);
  dirty.reserve(batch_pages + kSweepStep);
  // At most once round, so that a page has time for its second chance.
  const std::uint64_t limit = std::min(kMaxSweep, frame_count);
  for (std::uint64_t passed = 0; passed < limit && clean.size() + dirty.size() < batch_pages; passed += kSweepStep) {
    sweep_frames(frames.advance_hand(kSweepStep), kSweepStep, clean, dirty);
  }
}

void BufferPool::Impl::sweep_frames(std::uint64_t first, std::uint64_t frames_passed, Victims& clean, Victims& dirty) {
  Victim found[kSweepStep];
  PageId pages[kSweepStep];
  bool referenced[kSweepStep] = {};
  std::size_t found_count = 0;
  for (std::uint64_t i = 0; i < frames_passed; ++i) {
    const FrameId frame((first + i) % frame_count);
    const PageId page = frames.page_of(frame);
    if (page == FrameTable::kNone || !may_be_victim(state(page).load(std::memory_order_relaxed))) continue;
    pages[found_count] = page;
    found[found_count++] = {page, frame};
  }
  if (map->has_reference_bits()) map->take_references({pages, found_count}, {referenced, found_count});
  for (std::size_t i = 0; i < found_count; ++i) {
    const std::uint64_t word = state(pages[i]).load(std::memory_order_relaxed);
    if (!may_be_victim(word) || referenced[i] || passed_over(pages[i], word)) continue;
    ((word & kDirty) != 0 ? dirty : clean).push_back(found[i]);
  }
}

// Second chance in software: the first pass marks, a hit unmarks, the next pass takes what is still marked.
bool BufferPool::Impl::passed_over(PageId page, std::uint64_t word) {
  if (map->has_reference_bits() || (word & kMarked) != 0) return false;
  state(page).compare_exchange_strong(word, word | kMarked, std::memory_order_relaxed);
  return true;
}

std::size_t BufferPool::Impl::evict(const Victims& victims) {
  std::vector<PageId> pages;
  LimboBatch batch;
  pages.reserve(victims.size());
  batch.entries.reserve(victims.size());
  for (const Victim& victim : victims) {
    StateWord& word_of_page = state(victim.page);
    std::uint64_t word = word_of_page.load(std::memory_order_relaxed);
    // Looked at again: it may have been hit (unmarked), changed, or gone since the hand passed.
    if (!may_be_victim(word) || (word & kDirty) != 0 || passed_over(victim.page, word)) continue;
    if (!word_of_page.compare_exchange_strong(word, word | kExclusive, std::memory_order_acquire)) continue;
    fence_before_change();
    if (frames.page_of(victim.frame) != victim.page) {  // evicted and read again into another frame
      word_of_page.fetch_sub(kExclusive, std::memory_order_release);
      continue;
    }
    pages.push_back(victim.page);
    batch.entries.push_back({victim.page, victim.frame, 0});
  }
  if (pages.empty()) return 0;
  batch.epoch = map->unmap(pages);
  for (LimboEntry& entry : batch.entries) {
    StateWord& word_of_page = state(entry.page);
    // Ours while X is held: the mark cannot change under us.
    const std::uint64_t mark = word_of_page.load(std::memory_order_relaxed) & kMarked;
    const std::uint64_t before =
        word_of_page.fetch_add(kVersionOne + kLimbo - kResident - kExclusive - mark, std::memory_order_release);
    entry.version = (before & kVersionMask) + kVersionOne;
    if ((before & kWaiters) != 0) wake(entry.page);
  }
  count(counters.resident, -static_cast<std::int64_t>(pages.size()));
  count(counters.limbo, static_cast<std::int64_t>(pages.size()));
  count(counters.evictions, static_cast<std::int64_t>(pages.size()));
  limbo.push(std::move(batch));
  return pages.size();
}

// Invariant 1: only what has passed its epoch.
std::size_t BufferPool::Impl::release_limbo() {
  std::size_t freed = 0;
  while (std::optional<LimboBatch> batch = limbo.pop_passed(*map)) {
    std::vector<PageId> pages;
    std::vector<FrameId> released;
    for (const LimboEntry& entry : batch->entries) {
      StateWord& word_of_page = state(entry.page);
      std::uint64_t word = word_of_page.load(std::memory_order_relaxed);
      // The version is the entry's only as long as no miss took the page back. Others set kWaiters at most.
      while ((word & (kLimbo | kExclusive)) == kLimbo && (word & kVersionMask) == entry.version) {
        if (!word_of_page.compare_exchange_weak(word, word | kExclusive, std::memory_order_acquire)) continue;
        pages.push_back(entry.page);
        released.push_back(entry.frame);
        break;
      }
    }
    map->release(pages);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      frames.clear(released[i]);
      const std::uint64_t before = state(pages[i]).fetch_sub(kLimbo + kExclusive, std::memory_order_release);
      if ((before & kWaiters) != 0) wake(pages[i]);
    }
    count(counters.limbo, -static_cast<std::int64_t>(pages.size()));
    give_frames(released);
    freed += pages.size();
  }
  return freed;
}

bool BufferPool::Impl::frames_are_low() const {
  return counters.free.load(std::memory_order_relaxed) + counters.limbo.load(std::memory_order_relaxed) < low_water;
}

// Called by a miss that got a frame while few are left.
void BufferPool::Impl::relieve() {
  if (providing.load(std::memory_order_relaxed)) {
    provider_event.set();
    return;
  }
  supply.latch.lock();
  const bool mine = supply.evictors == 0;
  if (mine) supply.evictors = 1;
  supply.latch.unlock();
  if (!mine) return;
  (void)evict_some();  // an error is in supply.failure; this miss has its frame
  supply.latch.lock();
  --supply.evictors;
  supply.waiters.wake_all();
  supply.latch.unlock();
}

void BufferPool::Impl::provide_frames() {
  KELDA_ASSERT(!providing.exchange(true));
  unsigned round = 0;
  while (!stopping.load(std::memory_order_acquire) && !failed.load(std::memory_order_relaxed)) {
    provider_event.reset();
    if (counters.free.load(std::memory_order_relaxed) + counters.limbo.load(std::memory_order_relaxed) >= high_water) {
      if (stopping.load(std::memory_order_acquire)) break;
      provider_event.wait();
      continue;
    }
    const Result<std::size_t> freed = evict_some();
    round = freed && *freed == 0 ? round + 1 : 0;
    if (round > 0) {
      pause_without_progress(round);
    } else {
      runtime::Core::current().yield();
    }
  }
  providing.store(false);
}

// Nothing could be evicted: latches, reads in flight and epochs of other cores need time.
void BufferPool::Impl::pause_without_progress(unsigned round) {
  constexpr unsigned kYieldRounds = 16;
  constexpr runtime::TimeNs kPauseNs = 100'000;
  runtime::Core& core = runtime::Core::current();
  if (round <= kYieldRounds) {
    core.yield();
  } else {
    core.sleep_until(runtime::now_ns() + kPauseNs);
  }
}

}  // namespace kelda::bufferpool
