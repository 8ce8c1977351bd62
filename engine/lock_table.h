// Transactional locks: keys, hashed onto buckets, and whole trees.
//
// Contract
//  - Key locks are shared or exclusive, on buckets: two keys of one bucket conflict needlessly but never wrongly.
//  - No deadlock among those who do one thing at a time, without a detector: a transaction may wait for long only for a
//    bucket above all it holds (so waits follow one order and cannot form a cycle). Any other request waits until a
//    deadline, then gives kConflict, and the transaction rolls back and starts again.
//  - Programs may hold several transactions open in one thread, or one while they think: so "for long" ends at the
//    caller's own deadline (kLockTimeout), and who would wait for a transaction of its own thread is told at once
//    (kSelfDeadlock). transaction_locks.cc.
//  - Progress: at most one of those that wait against the order is the elder. It waits long, all others a few
//    milliseconds, and while there is an elder those in order give up as well. So whatever the elder waits for is
//    released, and the elder's turn is the first: whoever rolled back and starts again at once cannot take it before.
//  - Fairness: a reader that comes does not pass by those that wait for the readers to go. One that wants to upgrade is
//    before all who want to write: they cannot come in before it has gone.
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

// How a release treats one that waits. kWoken: it looks again, and who comes meanwhile may take the lock first: faster, for
// nobody waits for a wake-up; who was passed by once is handed the lock next time. kHandedOver: the release itself
// grants the lock. kFirst: as well, and before all others.
enum class Turn : std::uint8_t { kWoken, kHandedOver, kFirst };

class LockTable {
 public:
  explicit LockTable(std::uint32_t bucket_count_log2);

  std::uint32_t bucket_of(std::uint64_t tree_ordinal, Bytes key) const;

  bool try_lock(std::uint32_t bucket, LockMode mode);
  // False at the deadline.
  bool lock_until(std::uint32_t bucket, LockMode mode, runtime::TimeNs deadline_ns, Turn turn = Turn::kWoken);
  // From the only shared holder to exclusive: at once, or false at the deadline (the shared lock is kept).
  bool try_upgrade(std::uint32_t bucket);
  bool upgrade_until(std::uint32_t bucket, runtime::TimeNs deadline_ns, Turn turn = Turn::kHandedOver);
  void unlock(std::uint32_t bucket, LockMode mode);

  // The owner stays the elder until it resigns.
  bool become_elder(const void* owner) {
    const void* none = nullptr;
    // Relaxed, all three: a request for patience; what is locked is ordered by the buckets' words.
    return elder_.load(std::memory_order_relaxed) == owner ||
           elder_.compare_exchange_strong(none, owner, std::memory_order_relaxed);
  }
  void resign(const void* owner) {
    if (elder_.load(std::memory_order_relaxed) == owner) elder_.store(nullptr, std::memory_order_relaxed);
  }
  bool has_elder_besides(const void* owner) const {
    const void* elder = elder_.load(std::memory_order_relaxed);
    return elder != nullptr && elder != owner;
  }

  // A bucket that is about to be looked at.
  void prefetch(std::uint32_t bucket) const { __builtin_prefetch(&buckets_[bucket]); }
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
  enum class Wanted : std::uint8_t { kShared, kExclusive, kUpgrade };
  struct Waiter;
  struct Shard {
    runtime::SpinLatch latch;
    Waiter* first = nullptr;  // in the order of Waiter::before, and first come, first served among equals
  };

  Shard& shard_of(std::uint32_t bucket) { return shards_[bucket % kShardCount]; }
  static bool acceptable(std::uint32_t word, Wanted wanted);
  static std::uint32_t granted(std::uint32_t word, Wanted wanted);
  bool wait_for(std::uint32_t bucket, Wanted wanted, runtime::TimeNs deadline_ns, Turn turn);
  bool park(Shard& shard, Waiter& waiter, runtime::TimeNs deadline_ns);
  static std::uint32_t pass_on(Shard& shard, std::uint32_t bucket, std::uint32_t word);

  std::uint32_t mask_;
  std::unique_ptr<Bucket[]> buckets_;
  std::unique_ptr<Shard[]> shards_;
  std::atomic<const void*> elder_{nullptr};
  std::atomic<std::uint64_t> waits_{0};
};

}  // namespace kelda::engine
