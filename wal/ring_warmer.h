// Writes the ring's bytes for the first time, ahead of the log.
//
// On a sparse file (hosted, or under a VM's disk) the first write to a place also allocates it, and a durable write then
// waits for the file system's journal: measured two to five times the latency of a commit. So on the first way round the
// ring zeroes are written some MiB ahead of the head, by the background writer, or by a leader that gets there first.
//
// Contract: zeroes go only to [warm_to, ...), where no batch is and none goes before the mark has moved: a leader whose
// batch ends beyond the mark moves it first (extend), under the mutex that the background holds while it writes.
#pragma once

#include <atomic>

#include "blockdev/blockdev.h"
#include "disk/layout.h"
#include "runtime/sync.h"
#include "wal/log_buffer.h"

namespace kelda::wal {

class RingWarmer {
 public:
  RingWarmer(blockdev::BlockDevice& device, const disk::Layout& layout);

  // The head at start-up: what lies before was written, and all of it after the first way round.
  void start_at(std::uint64_t head);
  // A batch up to `end` goes to warm ground.
  bool warm_for(std::uint64_t end) const { return end <= warm_to_.load(std::memory_order_acquire); }
  // Little warm ground is left before the mark.
  bool wants_more(std::uint64_t head) const;
  // Leader: moves the mark at least to `end`.
  Result<> extend(std::uint64_t end);
  // Background: moves the mark by a piece.
  Result<> extend_a_piece();

 private:
  Result<> end_of_first_round();

  blockdev::BlockDevice& device_;
  const disk::Layout layout_;
  const std::uint64_t piece_, ahead_;
  runtime::Mutex mutex_;  // held while a piece of zeroes is written; guards zeroes_
  AlignedBytes zeroes_;
  std::atomic<std::uint64_t> warm_to_{0};  // a position; ~0 once the whole ring is warm
};

}  // namespace kelda::wal
