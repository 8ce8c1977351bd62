// The hot path of BufferPool: a hit costs a load, a compare and a branch on each side of the read.
#pragma once

#include "bufferpool/buffer_pool.h"
#include "common/planted_bug.h"

namespace kelda::bufferpool {

inline bool BufferPool::optimistic_begin(PageId page, std::uint64_t& version) const {
  if (page.value >= page_count_) [[unlikely]] return false;  // a pointer read from a page that was not validated
  const std::uint64_t word = states_[page.value].load(std::memory_order_acquire);
  version = word & kValidateMask;
  return is_readable(word);
}

inline bool BufferPool::optimistic_validate(PageId page, std::uint64_t version) const {
  fence_before_validate();
  return (states_[page.value].load(std::memory_order_relaxed) & kValidateMask) == version;
}

inline Result<> BufferPool::latch_shared(PageId page) {
  if (page.value < page_count_) [[likely]] {
    StateWord& state = states_[page.value];
    std::uint64_t word = state.load(std::memory_order_relaxed);
    if (is_readable(word) && state.compare_exchange_strong(word, word + kSharedOne, std::memory_order_acquire)) {
      latch_taken(base_, page);
      return {};
    }
  }
  return acquire_slow(page, Acquire::kToRead);
}

inline Result<> BufferPool::latch_exclusive(PageId page) {
  if (page.value < page_count_) [[likely]] {
    StateWord& state = states_[page.value];
    std::uint64_t word = state.load(std::memory_order_relaxed);
    if (is_readable(word) && !is_latched(word) &&
        state.compare_exchange_strong(word, word | kExclusive, std::memory_order_acquire)) {
      fence_before_change();
      latch_taken(base_, page);
      return {};
    }
  }
  return acquire_slow(page, Acquire::kToChange);
}

inline bool BufferPool::try_upgrade(PageId page, std::uint64_t version) {
  StateWord& state = states_[page.value];
  std::uint64_t word = state.load(std::memory_order_relaxed);
  while ((word & kValidateMask) == version) {
    if ((word & kSharedMask) != 0) [[unlikely]] {
      wait_for_readers(page);
      word = state.load(std::memory_order_relaxed);
    } else if (state.compare_exchange_weak(word, word | kExclusive, std::memory_order_acquire, std::memory_order_relaxed)) {
      fence_before_change();
      latch_taken(base_, page);
      return true;
    }
  }
  return false;
}

inline void BufferPool::unlatch_shared(PageId page) {
  latch_released(base_, page);
  const std::uint64_t before = states_[page.value].fetch_sub(kSharedOne, std::memory_order_release);
  KELDA_ASSERT((before & kSharedMask) != 0);
  if (planted(Bug::kLatchWaiterNotWoken)) return;
  if ((before & (kWaiters | kSharedMask)) == (kWaiters | kSharedOne)) [[unlikely]] wake_waiters(page);
}

inline void BufferPool::unlatch_exclusive(PageId page) {
  latch_released(base_, page);
  const std::uint64_t before = states_[page.value].fetch_add(kVersionOne - kExclusive, std::memory_order_release);
  KELDA_ASSERT((before & kExclusive) != 0);
  if ((before & kWaiters) != 0) [[unlikely]] wake_waiters(page);
}

inline void BufferPool::mark_dirty(PageId page, Lsn lsn) {
  const std::uint64_t word = states_[page.value].load(std::memory_order_relaxed);
  KELDA_ASSERT((word & (kExclusive | kResident)) == (kExclusive | kResident));
  disk::header_of(mutable_data(page)).lsn = lsn.value;
  if ((word & kDirty) == 0) first_dirty(page);
}

}  // namespace kelda::bufferpool
