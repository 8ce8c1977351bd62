// Misses and contended latches: everything that the inline hot path does not do.
#include <cstring>

#include <fmt/format.h>

#include "bufferpool/pool_impl.h"
#include "common/planted_bug.h"

namespace kelda::bufferpool {

Result<> BufferPool::Impl::acquire(PageId page, Acquire what) {
  if (page.value >= page_count) {
    return Error(Code::kCorrupt, fmt::format("page {} does not exist: the pool has {} pages", page.value, page_count));
  }
  const bool exclusive = what == Acquire::kToChange || what == Acquire::kFresh;
  const std::uint64_t blocking = kExclusive | (exclusive ? kSharedMask : 0);
  StateWord& word_of_page = state(page);
  for (;;) {
    std::uint64_t word = word_of_page.load(std::memory_order_acquire);
    if ((word & blocking) != 0) {
      count(counters.hits_slow);
      LatchWait wait(map->base(), page);
      waiters.wait(word_of_page, page, blocking);
      continue;
    }
    if ((word & kResident) != 0) {
      // The mark goes first and on its own: all that was asked of a reader.
      if ((word & kMarked) != 0) {
        if (word_of_page.compare_exchange_weak(word, word & ~kMarked, std::memory_order_relaxed)) count(counters.hits_slow);
        continue;
      }
      if (what == Acquire::kPresent) return {};
      const std::uint64_t latched = exclusive ? word | kExclusive : word + kSharedOne;
      if (!word_of_page.compare_exchange_weak(word, latched, std::memory_order_acquire)) continue;
      if (exclusive) fence_before_change();
      if (what == Acquire::kFresh) std::memset(map->base() + page.value * kPageBytes, 0, kPageBytes);
      return {};
    }
    if (!word_of_page.compare_exchange_weak(word, word | kExclusive, std::memory_order_acquire)) continue;
    fence_before_change();
    if (planted(Bug::kLimboPageInFreshFrame)) word = word_of_page.fetch_and(~kLimbo, std::memory_order_relaxed) & ~kLimbo;
    if ((word & kLimbo) != 0) {
      take_back(page);
      if (what == Acquire::kFresh) std::memset(map->base() + page.value * kPageBytes, 0, kPageBytes);
    } else if (Result<> brought = bring_in(page, what == Acquire::kFresh); !brought) {
      const std::uint64_t before = word_of_page.fetch_sub(kExclusive, std::memory_order_release);
      if ((before & kWaiters) != 0) wake(page);
      return brought;
    }
    settle(page, what);
    return {};
  }
}

void BufferPool::Impl::settle(PageId page, Acquire what) {
  if (what == Acquire::kToChange || what == Acquire::kFresh) return;
  const std::uint64_t end = kVersionOne - kExclusive + (what == Acquire::kToRead ? kSharedOne : 0);
  const std::uint64_t before = state(page).fetch_add(end, std::memory_order_release);
  if ((before & kWaiters) != 0) wake(page);
}

// Invariant 2: the frame that it had, and no other.
void BufferPool::Impl::take_back(PageId page) {
  map->restore(page);
  count(counters.limbo, -1);
  count(counters.resident);
  count(counters.limbo_hits);
  state(page).fetch_add(kResident - kLimbo, std::memory_order_relaxed);
}

Result<> BufferPool::Impl::bring_in(PageId page, bool fresh) {
  std::optional<LatchWait> frame_wait;
  if (fresh) frame_wait.emplace(map->base(), page);
  const FrameId frame = TRY(take_frame());
  std::byte* memory = map->frame_address(page, frame);
  Result<> filled;
  if (fresh) {
    std::memset(memory, 0, kPageBytes);
  } else {
    count(counters.misses);
    count(counters.pages_read);
    filled = store.read(page, memory);
  }
  if (filled) filled = map->map(page, frame);
  if (!filled) {
    map->release({&page, 1});
    count(counters.in_flight, -1);
    give_frames({&frame, 1});
    return filled;
  }
  return map_frame(page, frame);
}

// The frame's content is in place and its entry published.
Result<> BufferPool::Impl::map_frame(PageId page, FrameId frame) {
  frames.put(frame, page);
  count(counters.in_flight, -1);
  count(counters.resident);
  state(page).fetch_add(kResident, std::memory_order_relaxed);
  return {};
}

std::optional<FrameId> BufferPool::Impl::try_take_frame() {
  std::optional<FrameId> frame;
  supply.latch.lock();
  if (!supply.free.empty() && !supply.failure) {
    frame = supply.free.back();
    supply.free.pop_back();
    count(counters.free, -1);
    count(counters.in_flight);
  }
  supply.latch.unlock();
  return frame;
}

Result<FrameId> BufferPool::Impl::take_frame() {
  for (bool stalled = false;; stalled = true) {
    if (std::optional<FrameId> frame = try_take_frame()) {
      if (frames_are_low()) relieve();
      return *frame;
    }
    if (!stalled) count(counters.evict_stalls);
    TRY(wait_for_frames(1));
  }
}

// Until that many frames are free at one moment. Takes part in the eviction where there is room for one more.
Result<> BufferPool::Impl::wait_for_frames(std::uint64_t wanted) {
  constexpr unsigned kGiveUpRounds = 100'000;  // some ten seconds of sleep without any frame becoming evictable
  supply.latch.lock();
  for (unsigned round = 0; supply.free.size() < wanted || supply.failure;) {
    if (supply.failure) {
      Error error = *supply.failure;
      supply.latch.unlock();
      return error;
    }
    if (supply.evictors >= kMaxEvictors) {
      supply.waiters.wait(supply.latch);
      continue;
    }
    ++supply.evictors;
    supply.latch.unlock();
    const Result<std::size_t> freed = evict_some();  // an error is in supply.failure, for everybody
    round = freed && *freed == 0 ? round + 1 : 0;
    if (round > 0) pause_without_progress(round);
    supply.latch.lock();
    --supply.evictors;
    supply.waiters.wake_all();
    if (round == kGiveUpRounds) {
      supply.latch.unlock();
      return Error(Code::kOutOfMemory, "no page can be evicted: all frames of the pool are latched");
    }
  }
  supply.latch.unlock();
  return {};
}

void BufferPool::Impl::give_frames(std::span<const FrameId> given) {
  if (given.empty()) return;
  supply.latch.lock();
  supply.free.insert(supply.free.end(), given.begin(), given.end());
  count(counters.free, static_cast<std::int64_t>(given.size()));
  supply.waiters.wake_all();
  supply.latch.unlock();
}

}  // namespace kelda::bufferpool
