// Transactional locks: keys, hashed onto buckets, and whole trees.
//
// Contract
//  - Key locks are shared or exclusive, on buckets: two keys of one bucket conflict needlessly but never wrongly.
//  - No deadlock, without a detector: a transaction may wait without bound only for a bucket above all it holds (so waits
//    follow one order and cannot form a cycle). Any other request that is not granted within kOutOfOrderWait_ns gives
//    kConflict, and the transaction rolls back and starts again.
//  - Early release: locks go when the commit record is in the log, before it is durable. Each bucket remembers the LSN of
//    its last commit; whoever then reads must see that LSN durable before telling anyone.
//
// Thread-safety: everything may be called from any core; a holder releases only what it acquired.
#pragma once

#include <atomic>
#include <memory>

#include "common/result.h"
#include "common/types.h"
#include "runtime/sync.h"

namespace kelda::engine {

enum class LockMode : std::uint8_t { kShared, kExclusive };

class LockTable {
 public:
  static constexpr runtime::TimeNs kOutOfOrderWait_ns = 2'000'000;

  explicit LockTable(std::uint32_t bucket_count_log2);

  std::uint32_t bucket_of(std::uint64_t tree_ordinal, Bytes key) const;

  bool try_lock(std::uint32_t bucket, LockMode mode);
  // False at the deadline.
  bool lock_until(std::uint32_t bucket, LockMode mode, runtime::TimeNs deadline_ns);
  // From the only shared holder to exclusive, or false at the deadline (the shared lock is kept).
  bool upgrade_until(std::uint32_t bucket, runtime::TimeNs deadline_ns);
  void unlock(std::uint32_t bucket, LockMode mode);

  // For reads without a lock: no writer holds the bucket.
  bool readable(std::uint32_t bucket) const {
    return (buckets_[bucket].word.load(std::memory_order_acquire) & kExclusiveBit) == 0;
  }
  // The holder of the exclusive lock, just before it releases it.
  void set_commit_lsn(std::uint32_t bucket, Lsn lsn) {
    buckets_[bucket].commit_lsn.store(lsn.value, std::memory_order_release);
  }
  Lsn commit_lsn(std::uint32_t bucket) const { return Lsn{buckets_[bucket].commit_lsn.load(std::memory_order_acquire)}; }

  std::uint64_t waits() const { return waits_.load(std::memory_order_relaxed); }
  std::uint64_t memory_bytes() const;

 private:
  static constexpr std::uint32_t kExclusiveBit = 1u << 31;
  static constexpr std::uint32_t kWaitersBit = 1u << 30;
  static constexpr std::uint32_t kShardCount = 256;

  struct Bucket {
    std::atomic<std::uint32_t> word{0};
    std::atomic<std::uint64_t> commit_lsn{0};
  };
  struct Shard {
    runtime::SpinLatch latch;
    runtime::WaitQueue waiters;
  };

  Shard& shard_of(std::uint32_t bucket) { return shards_[bucket % kShardCount]; }
  // Waits in the bucket's shard until the word can go from a value that `grant` accepts to the one that it names.
  template <class Grant>
  bool wait_for(std::uint32_t bucket, runtime::TimeNs deadline_ns, Grant grant);

  std::uint32_t mask_;
  std::unique_ptr<Bucket[]> buckets_;
  std::unique_ptr<Shard[]> shards_;
  std::atomic<std::uint64_t> waits_{0};
};

}  // namespace kelda::engine
