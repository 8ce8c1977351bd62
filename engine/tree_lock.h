// Transactional lock on a whole tree.
//
// Contract: transactions that read or write single keys enter with an intent, announced on a counter of their core, which
// costs no shared cache line. A scan (kShared) waits until no writer is in; an emptier (kExclusive) until nobody is. A scan
// that comes lets writers and emptiers that wait by then go first, once: neither kind is starved.
// Every wait has a deadline; what its expiry means is the caller's affair (transaction_locks.cc). A Hold belongs to one transaction.
#pragma once

#include <atomic>

#include "engine/lock_table.h"

namespace kelda::engine {

class TreeLock {
 public:
  enum class Intent : std::uint8_t { kRead, kWrite };

  struct Hold {
    bool read = false, write = false, shared = false, exclusive = false;
    std::uint32_t slot = 0;  // whose counters

    bool any() const { return read || write || shared || exclusive; }
    // Others wait for this one before they get what they ask for.
    bool bars(Intent intent) const { return exclusive || (intent == Intent::kWrite && shared); }
    bool bars(LockMode mode) const { return mode == LockMode::kExclusive ? any() : write || exclusive; }
    bool covers(Intent intent) const { return exclusive || write || (intent == Intent::kRead && (read || shared)); }
  };

  // Without a wait.
  bool enter(Hold& hold, Intent intent);
  bool enter_until(Hold& hold, Intent intent, runtime::TimeNs deadline_ns);
  // On top of what the transaction already holds.
  bool lock_until(Hold& hold, LockMode mode, runtime::TimeNs deadline_ns);
  void release(Hold& hold);

 private:
  static constexpr std::uint32_t kSlotCount = 16;
  struct alignas(64) Slot {
    std::atomic<std::uint32_t> readers{0}, writers{0};
  };

  bool try_enter(Hold& hold, Intent intent);
  bool quiet_for(const Hold& hold, LockMode mode) const;

  Slot slots_[kSlotCount];
  // How many hold or await the lock: non-zero closes the fast path. Written under latch_.
  std::atomic<std::uint32_t> shared_claims_{0}, exclusive_claims_{0};
  std::uint32_t shared_holders_ = 0;
  bool exclusive_held_ = false;
  // Writers and emptiers that wait for scans to end, and how many have come in after such a wait.
  std::uint32_t await_scans_ = 0;
  std::uint64_t came_after_scans_ = 0;
  runtime::SpinLatch latch_;
  runtime::WaitQueue waiters_;
};

}  // namespace kelda::engine
