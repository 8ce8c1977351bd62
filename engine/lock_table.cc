#include "engine/lock_table.h"

#include <mutex>

#include "common/checksum.h"
#include "common/planted_bug.h"

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

// On the waiting fiber's stack; guarded by the shard's latch. Whoever sets `state` has unlinked it and unparks under the
// latch, so that a waiter which finds it set knows that nobody touches it any more.
struct LockTable::Waiter {
  enum class State : std::uint8_t { kWaiting, kLookAgain, kGranted };
  runtime::Fiber& fiber;
  std::uint32_t bucket;
  Wanted wanted;
  Turn turn;
  State state = State::kWaiting;
  Waiter* next = nullptr;

  bool before(const Waiter& other) const {
    const bool upgrades = wanted == Wanted::kUpgrade, other_upgrades = other.wanted == Wanted::kUpgrade;
    return upgrades != other_upgrades ? upgrades : turn > other.turn;
  }
  // Where it belongs in the queue.
  Waiter** place_in(Shard& shard) const {
    Waiter** link = &shard.first;
    while (*link != nullptr && !before(**link)) link = &(*link)->next;
    return link;
  }
  bool has_to_queue(Shard& shard) const {
    if (wanted != Wanted::kShared || state == State::kLookAgain) return false;
    Waiter* const* const place = place_in(shard);
    for (Waiter* const* link = &shard.first; link != place; link = &(*link)->next) {
      if ((*link)->bucket == bucket) return true;
    }
    return false;
  }

  void leave(Waiter** link, State why) {
    *link = next;
    state = why;
    runtime::Core::unpark(fiber);
  }
};

bool LockTable::acceptable(std::uint32_t word, Wanted wanted) {
  switch (wanted) {
    case Wanted::kShared: return (word & kExclusiveBit) == 0;
    case Wanted::kExclusive: return (word & ~kWaitersBit) == 0;
    case Wanted::kUpgrade: return planted(Bug::kBothReadersUpgrade) ? (word & kExclusiveBit) == 0 : (word & ~kWaitersBit) == 1;
  }
  __builtin_unreachable();
}

std::uint32_t LockTable::granted(std::uint32_t word, Wanted wanted) {
  return wanted == Wanted::kShared ? word + 1 : kExclusiveBit | (word & kWaitersBit);
}

bool LockTable::wait_for(std::uint32_t bucket, Wanted wanted, TimeNs deadline_ns, Turn turn) {
  auto& word = buckets_[bucket].word;
  Shard& shard = shard_of(bucket);
  waits_.fetch_add(1, std::memory_order_relaxed);
  Waiter self{runtime::Core::current().current_fiber(), bucket, wanted, turn};
  std::scoped_lock guard(shard.latch);
  for (;;) {
    std::uint32_t seen = word.load(std::memory_order_relaxed);
    while (acceptable(seen, wanted) && !self.has_to_queue(shard)) {
      if (word.compare_exchange_weak(seen, granted(seen, wanted), std::memory_order_acquire)) return true;
    }
    // Publish the waiters bit on exactly the value that refused us: a release in between changes the word and we look
    // again; a later release sees the bit and comes through the shard's latch, which we hold until we are queued.
    if ((seen & kWaitersBit) == 0 &&
        !word.compare_exchange_strong(seen, seen | kWaitersBit, std::memory_order_relaxed)) {
      continue;
    }
    Waiter** const link = self.place_in(shard);
    self.next = *link;
    *link = &self;
    self.state = Waiter::State::kWaiting;
    if (!park(shard, self, deadline_ns)) return false;
    if (self.state == Waiter::State::kGranted) return true;
    self.turn = Turn::kHandedOver;  // woken in vain, if it comes to waiting again
  }
}

// False at the deadline. Holds the shard's latch before and after.
bool LockTable::park(Shard& shard, Waiter& waiter, TimeNs deadline_ns) {
  runtime::Core& core = runtime::Core::current();
  for (;;) {
    shard.latch.unlock();
    const bool unparked = core.park_until(deadline_ns);
    shard.latch.lock();
    if (waiter.state != Waiter::State::kWaiting) {
      if (!unparked) core.park();  // takes the permit that came after the time-out; does not wait
      return true;
    }
    if (unparked) continue;  // an unpark that was meant for an earlier wait
    Waiter** link = &shard.first;
    while (*link != &waiter) link = &(*link)->next;
    *link = waiter.next;
    // Those behind it may have waited for this one only. Acquire: we pass on what the last release published.
    auto& word = buckets_[waiter.bucket].word;
    const std::uint32_t seen = word.load(std::memory_order_acquire);
    if ((seen & kWaitersBit) != 0) {
      word.store(pass_on(shard, waiter.bucket, seen & ~kWaitersBit), std::memory_order_release);
    }
    return false;
  }
}

bool LockTable::lock_until(std::uint32_t bucket, LockMode mode, TimeNs deadline_ns, Turn turn) {
  if (try_lock(bucket, mode)) return true;
  return wait_for(bucket, mode == LockMode::kExclusive ? Wanted::kExclusive : Wanted::kShared, deadline_ns, turn);
}

bool LockTable::try_upgrade(std::uint32_t bucket) {
  std::uint32_t sole = 1;
  return buckets_[bucket].word.compare_exchange_strong(sole, kExclusiveBit, std::memory_order_acquire);
}

bool LockTable::upgrade_until(std::uint32_t bucket, TimeNs deadline_ns, Turn turn) {
  if (try_upgrade(bucket)) return true;
  return wait_for(bucket, Wanted::kUpgrade, deadline_ns, turn);
}

void LockTable::unlock(std::uint32_t bucket, LockMode mode) {
  auto& word = buckets_[bucket].word;
  const auto released = [mode](std::uint32_t value) {
    return mode == LockMode::kExclusive ? value & ~kExclusiveBit : value - 1;
  };
  std::uint32_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    while ((seen & kWaitersBit) == 0) {
      if (word.compare_exchange_weak(seen, released(seen), std::memory_order_release)) return;
    }
    // The waiters bit is set and cleared under the shard's latch, and while it is set nobody changes the word without.
    Shard& shard = shard_of(bucket);
    std::scoped_lock guard(shard.latch);
    seen = word.load(std::memory_order_relaxed);
    if ((seen & kWaitersBit) == 0) continue;  // another holder's release found nobody waiting any more
    // Release: whoever acquires next, granted or by itself, sees what the holder wrote.
    word.store(pass_on(shard, bucket, released(seen) & ~kWaitersBit), std::memory_order_release);
    return;
  }
}

// Lets go those at the head of the bucket's queue that the word admits together: with the lock in hand, or to look again.
// Returns the bucket's new word.
std::uint32_t LockTable::pass_on(Shard& shard, std::uint32_t bucket, std::uint32_t word) {
  std::uint32_t planned = word;
  for (Waiter** link = &shard.first; *link != nullptr;) {
    Waiter& waiter = **link;
    if (waiter.bucket != bucket) {
      link = &waiter.next;
      continue;
    }
    if (!acceptable(planned, waiter.wanted)) return word | kWaitersBit;
    planned = granted(planned, waiter.wanted);
    const bool hand_over = waiter.turn != Turn::kWoken;
    if (hand_over) word = granted(word, waiter.wanted);
    waiter.leave(link, hand_over ? Waiter::State::kGranted : Waiter::State::kLookAgain);
  }
  return word;
}

}  // namespace kelda::engine
