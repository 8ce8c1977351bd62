#include "engine/lock_table.h"

#include <mutex>

#include "common/checksum.h"

namespace kelda::engine {

using runtime::TimeNs;

LockTable::LockTable(std::uint32_t bucket_count_log2)
    : mask_((1u << bucket_count_log2) - 1),
      buckets_(std::make_unique<Bucket[]>(std::size_t{1} << bucket_count_log2)),
      shards_(std::make_unique<Shard[]>(kShardCount)) {}

std::uint64_t LockTable::memory_bytes() const {
  return (std::uint64_t{mask_} + 1) * sizeof(Bucket) + kShardCount * sizeof(Shard);
}

std::uint32_t LockTable::bucket_of(std::uint64_t tree_ordinal, Bytes key) const {
  return static_cast<std::uint32_t>(checksum64(key, tree_ordinal)) & mask_;
}

bool LockTable::try_lock(std::uint32_t bucket, LockMode mode) {
  auto& word = buckets_[bucket].word;
  std::uint32_t seen = word.load(std::memory_order_relaxed);
  if (mode == LockMode::kExclusive) {
    // Acquire pairs with the release in unlock(): we see everything that the last holder wrote.
    return seen == 0 && word.compare_exchange_strong(seen, kExclusiveBit, std::memory_order_acquire);
  }
  while ((seen & (kExclusiveBit | kWaitersBit)) == 0) {
    if (word.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire)) return true;
  }
  return false;
}

template <class Grant>
bool LockTable::wait_for(std::uint32_t bucket, TimeNs deadline_ns, Grant grant) {
  auto& word = buckets_[bucket].word;
  Shard& shard = shard_of(bucket);
  waits_.fetch_add(1, std::memory_order_relaxed);
  std::scoped_lock guard(shard.latch);
  for (;;) {
    std::uint32_t seen = word.load(std::memory_order_relaxed);
    while (grant.accepts(seen)) {
      if (word.compare_exchange_weak(seen, grant.next(seen), std::memory_order_acquire)) return true;
    }
    // Publish the waiters bit on exactly the value that refused us: a release in between changes the word and we look
    // again; a later release sees the bit and comes through the shard's latch, which we hold until we are queued.
    if ((seen & kWaitersBit) == 0 &&
        !word.compare_exchange_strong(seen, seen | kWaitersBit, std::memory_order_relaxed)) {
      continue;
    }
    if (!shard.waiters.wait_until(shard.latch, deadline_ns)) return false;
  }
}

bool LockTable::lock_until(std::uint32_t bucket, LockMode mode, TimeNs deadline_ns) {
  if (try_lock(bucket, mode)) return true;
  struct Exclusive {
    bool accepts(std::uint32_t seen) const { return (seen & ~kWaitersBit) == 0; }
    std::uint32_t next(std::uint32_t seen) const { return kExclusiveBit | (seen & kWaitersBit); }
  };
  struct Shared {
    bool accepts(std::uint32_t seen) const { return (seen & kExclusiveBit) == 0; }
    std::uint32_t next(std::uint32_t seen) const { return seen + 1; }
  };
  return mode == LockMode::kExclusive ? wait_for(bucket, deadline_ns, Exclusive{}) : wait_for(bucket, deadline_ns, Shared{});
}

bool LockTable::upgrade_until(std::uint32_t bucket, TimeNs deadline_ns) {
  struct Upgrade {
    bool accepts(std::uint32_t seen) const { return (seen & ~kWaitersBit) == 1; }
    std::uint32_t next(std::uint32_t seen) const { return kExclusiveBit | (seen & kWaitersBit); }
  };
  std::uint32_t sole = 1;
  if (buckets_[bucket].word.compare_exchange_strong(sole, kExclusiveBit, std::memory_order_acquire)) return true;
  return wait_for(bucket, deadline_ns, Upgrade{});
}

void LockTable::unlock(std::uint32_t bucket, LockMode mode) {
  auto& word = buckets_[bucket].word;
  std::uint32_t seen = word.load(std::memory_order_relaxed);
  const auto released = [mode](std::uint32_t value) {
    return mode == LockMode::kExclusive ? value & ~kExclusiveBit : value - 1;
  };
  while ((seen & kWaitersBit) == 0) {
    if (word.compare_exchange_weak(seen, released(seen), std::memory_order_release)) return;
  }
  Shard& shard = shard_of(bucket);
  std::scoped_lock guard(shard.latch);
  seen = word.load(std::memory_order_relaxed);
  // The bit goes with every slow release; whoever still has to wait sets it again before it sleeps.
  while (!word.compare_exchange_weak(seen, released(seen) & ~kWaitersBit, std::memory_order_release)) {
  }
  shard.waiters.wake_all();
}

}  // namespace kelda::engine
