// The inequalities of ring_space.h, as limits.
#include "wal/ring_space.h"

#include "common/assert.h"
#include "common/planted_bug.h"
#include "common/types.h"

namespace kelda::wal {
namespace {

// In sixteenths of the capacity; the shares of ring_space.h.
constexpr std::uint64_t kSkip = 2, kCheckpointShare = 4, kRecoveryShare = 1, kRollBackShare = 1;
constexpr std::uint64_t kUndoShare = 3, kTransactionShare = 2, kPromisedShare = 4;
static_assert(kUndoShare * 108 / 100 < kCheckpointShare);
static_assert(kPromisedShare + kCheckpointShare <= 16 - kSkip - kCheckpointShare - kRecoveryShare);

}  // namespace

RingSpace::RingSpace(std::uint64_t capacity_bytes, std::uint64_t unit_bytes, std::uint64_t buffered_bytes)
    : capacity_(capacity_bytes), unit_(unit_bytes), max_batch_(round_up(buffered_bytes + kHeaderRoomBytes, unit_bytes)) {
  KELDA_ASSERT(capacity_ >= kMinRingBytes && capacity_ % unit_ == 0 && unit_ % kBatchUnitBytes == 0);
  KELDA_ASSERT(max_batch_ + 2 * batch_overhead() <= capacity_ / 16 * kSkip && max_batch_ <= kMaxBatchBytes);
}

std::uint64_t RingSpace::limit(Purpose purpose) const {
  const std::uint64_t part = capacity_ / 16;
  switch (purpose) {
    case Purpose::kRecovery: return part * (16 - kSkip);
    case Purpose::kCheckpoint: return part * (16 - kSkip - kRecoveryShare);
    case Purpose::kRollBack: return part * (16 - kSkip - kRecoveryShare - kCheckpointShare);
    case Purpose::kOrdinary: break;
  }
  return part * (16 - kSkip - kRecoveryShare - kCheckpointShare - kRollBackShare);
}

bool RingSpace::promise(std::uint64_t bytes, Purpose purpose) {
  // Added first and taken back if it was too much: two askers may refuse each other, never overcommit. Relaxed: the sum
  // is all that counts; written() raises `used` before it lowers `promised`, and both are read here in the other order.
  const std::uint64_t promised = promised_.fetch_add(bytes, std::memory_order_acquire) + bytes;
  const bool background = purpose == Purpose::kCheckpoint || purpose == Purpose::kRecovery;
  if (promised + used() <= limit(purpose) && (background || promised <= capacity_ / 16 * kPromisedShare)) return true;
  take_back(bytes);
  return false;
}

bool RingSpace::promises_crowd(std::uint64_t bytes) const {
  return promised_.load(std::memory_order_relaxed) + bytes > capacity_ / 16 * kPromisedShare;
}

bool RingSpace::within_limit(std::uint64_t bytes, Purpose purpose) const {
  return promised_.load(std::memory_order_acquire) + used() + bytes <= limit(purpose);
}

RingSpace::UndoAnswer RingSpace::promise_undo(std::uint64_t transaction_bytes, std::uint64_t bytes) {
  const std::uint64_t part = capacity_ / 16;
  if (transaction_bytes + bytes > part * kTransactionShare) return UndoAnswer::kTransactionTooLarge;
  const std::uint64_t promised = undo_promised_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  const std::uint64_t kept = undo_bytes();
  if (promised + kept <= part * kUndoShare) return UndoAnswer::kGranted;
  take_back_undo_promise(bytes);
  return kept + bytes > part * kUndoShare ? UndoAnswer::kAllTooLarge : UndoAnswer::kCrowded;
}

std::uint64_t RingSpace::place(std::uint64_t batch_bytes) const {
  const std::uint64_t head = head_.load(std::memory_order_relaxed);
  const std::uint64_t to_end = capacity_ - head % capacity_;
  if (planted(Bug::kBatchPastRingEnd) && batch_bytes <= to_end + unit_) return head;
  const std::uint64_t position = batch_bytes <= to_end ? head : head + to_end;
  // The point of all promises.
  KELDA_ASSERT(position + batch_bytes - start_.load(std::memory_order_relaxed) <= capacity_);
  return position;
}

void RingSpace::written(std::uint64_t position, std::uint64_t batch_bytes, std::uint64_t promised_bytes) {
  head_.store(position + batch_bytes, std::memory_order_relaxed);
  // Release: who sees the promise gone (acquire in promise()) sees the head moved.
  promised_.fetch_sub(promised_bytes, std::memory_order_release);
}

void RingSpace::free_before(std::uint64_t position) {
  KELDA_ASSERT(position >= start_.load(std::memory_order_relaxed) && position <= head_.load(std::memory_order_relaxed));
  // Release: who sees the new start (used()) sees a head at or above it.
  start_.store(position, std::memory_order_release);
}

void RingSpace::restart(std::uint64_t start, std::uint64_t head) {
  KELDA_ASSERT(start <= head && head - start <= capacity_);
  start_.store(start, std::memory_order_relaxed);
  head_.store(head, std::memory_order_relaxed);
}

double RingSpace::pressure() const {
  const std::uint64_t from = capacity_ / 16 * 6, to = limit(Purpose::kOrdinary);
  const std::uint64_t now = promised_.load(std::memory_order_relaxed) + used();
  return now <= from ? 0 : static_cast<double>(now - from) / static_cast<double>(to - from);
}

std::uint64_t RingSpace::used() const {
  // Start first: it only grows and stays below head, so the difference is never negative, at worst too large.
  const std::uint64_t start = start_.load(std::memory_order_acquire);
  return head_.load(std::memory_order_acquire) - start;
}

}  // namespace kelda::wal
