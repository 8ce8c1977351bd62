// Who may use how much of the ring, so that append(), checkpoint and recovery never find it full.
//
// Positions are monotone byte positions; modulo the capacity C they are offsets in the ring.
//     used      = head - start       batches from the redo point on, with padding and skipped ends of the ring
//     promised  = room of live reservations, with the overhead O of a batch of its own for each record
//                 + bytes of the records in the buffers and in the batch that is being written
//     undo      = bytes that copying the undo entries of all open transactions takes, and what reservations may add
//
// A batch costs its records, a header and padding: at most O more than the records. All records in the buffers go into
// the next batch, so beside the reservations there are at most two batches whose O is in nobody's promise: the next and
// the one being written. Hence used + promised + 2 O never rises but by grants, and by the end of the ring that a batch
// skips: at most W - 2 O, the largest batch, and at most one skip lies between start and head that was not there at the
// grant. W is kept free.
//
// Shares of C:   W  = C/8    skip at the ring's end, and 2 O
//                K  = C/4    what one checkpoint appends: undo copies (undo <= 3/16 C, times 1.08 for headers and batch
//                            overhead) and tree counts
//                R  = C/16   for the checkpoint inside recovery after a crash late in a checkpoint
//                U  = C/16   for roll-back and commit
// Limits of used + promised:  ordinary   C - W - K - R - U  = C/2
//                             roll-back  C - W - K - R      = 9/16 C
//                             checkpoint C - W - R          = 13/16 C
//                             recovery   C - W              = 7/8 C
// and promised <= C/4 for all but the checkpoint.
//
// Invariant: when no checkpoint runs, used + promised <= 9/16 C, so the next one has its K. Proof. Let used0 and promised0
// be the values when a checkpoint starts. It frees used0 (its redo point is the next LSN; nobody else holds the ring).
// Meanwhile either grants were made last, then the sum is within their limits; or the checkpoint's own records came
// last, then the sum is at most used0 + promised0 + K, and after freeing promised0 + K <= C/4 + C/4.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/result.h"

namespace kelda::wal {

inline constexpr std::uint64_t kBatchUnitBytes = 4096;
inline constexpr std::uint64_t kMinRingBytes = 2 << 20;
inline constexpr std::uint64_t kMaxBatchBytes = 4 << 20;

enum class Purpose : std::uint8_t { kOrdinary, kRollBack, kCheckpoint, kRecovery };

class RingSpace {
 public:
  // `unit_bytes`: alignment of batches, a multiple of kBatchUnitBytes. `buffered_bytes`: what all buffers can hold.
  RingSpace(std::uint64_t capacity_bytes, std::uint64_t unit_bytes, std::uint64_t buffered_bytes);

  std::uint64_t capacity() const { return capacity_; }
  std::uint64_t unit() const { return unit_; }
  std::uint64_t max_batch_bytes() const { return max_batch_; }
  // O: what a batch adds to the ring beyond its records, at most.
  std::uint64_t batch_overhead() const { return unit_ + kHeaderRoomBytes; }

  // True if granted; room is given back with take_back(), or becomes a batch with written().
  bool promise(std::uint64_t bytes, Purpose purpose);
  void take_back(std::uint64_t bytes) { promised_.fetch_sub(bytes, std::memory_order_relaxed); }
  // True when promises, not batches, are what is in the way: a flush helps, a checkpoint does not.
  bool promises_crowd(std::uint64_t bytes) const;
  bool within_limit(std::uint64_t bytes, Purpose purpose) const;

  // The share for undo entries: promised by reserve(), kept by append() while the entry is outstanding.
  // kCrowded: promises that will end soon are in the way.
  enum class UndoAnswer : std::uint8_t { kGranted, kCrowded, kTransactionTooLarge, kAllTooLarge };
  UndoAnswer promise_undo(std::uint64_t transaction_bytes, std::uint64_t bytes);
  void take_back_undo_promise(std::uint64_t bytes) { undo_promised_.fetch_sub(bytes, std::memory_order_relaxed); }
  void keep_undo(std::uint64_t bytes) { undo_.fetch_add(bytes, std::memory_order_relaxed); }
  void drop_undo(std::uint64_t bytes) { undo_.fetch_sub(bytes, std::memory_order_relaxed); }
  std::uint64_t undo_bytes() const { return undo_.load(std::memory_order_relaxed); }

  // Leader only. Where a batch of this length goes: at head, or at the start of the ring if it would wrap.
  std::uint64_t place(std::uint64_t batch_bytes) const;
  void written(std::uint64_t position, std::uint64_t batch_bytes, std::uint64_t promised_bytes);

  // One checkpoint at a time. Batches before `position` are not needed any more.
  void free_before(std::uint64_t position);
  // Recovery: what was found.
  void restart(std::uint64_t start, std::uint64_t head);

  std::uint64_t head() const { return head_.load(std::memory_order_relaxed); }
  std::uint64_t start() const { return start_.load(std::memory_order_relaxed); }
  std::uint64_t used() const;
  bool wants_checkpoint() const { return used() > capacity_ / 3; }
  // 0 .. 1 while the ring fills from 3/8 to the ordinary limit: writers are slowed, so that none of them is stopped.
  double pressure() const;

 private:
  static constexpr std::uint64_t kHeaderRoomBytes = 128;
  std::uint64_t limit(Purpose purpose) const;

  const std::uint64_t capacity_, unit_, max_batch_;
  std::atomic<std::uint64_t> head_{0}, start_{0}, promised_{0}, undo_{0}, undo_promised_{0};
};

}  // namespace kelda::wal
