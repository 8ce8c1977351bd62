// Group flush: whoever waits first leads; one batch is in flight at a time; no timer decides anything.
//
// The leader
//   1. takes the cut G = next LSN,
//   2. then visits every buffer and takes what it holds (LogBuffer::capture, under its latch),
//   3. writes that as one batch, flushes the device, and publishes hardened = G - 1.
//
// Proof that every record below G is in this batch or an earlier one. An appender takes its LSN under its buffer's latch
// and leaves the record there before it unlocks. Take a record with LSN n < G and the leader's visit to its buffer. The
// latch orders the two. Appender first: the leader finds the record (or an earlier leader took it). Leader first: the
// leader's load of `next` happens before its own unlock, which happens before the appender's lock and its fetch_add; by
// coherence the load then cannot have seen that fetch_add, so n >= G, which was excluded. Relaxed operations on `next`
// are therefore enough.
//
// Window: records at or above G may be captured too. The next cut is taken after this capture is over, so batch k holds
// only LSNs in [cut(k-1), cut(k+1)): merging by LSN needs two consecutive batches (merge.h).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "blockdev/blockdev.h"
#include "common/result.h"
#include "disk/layout.h"
#include "runtime/sync.h"
#include "wal/batch.h"
#include "wal/log_buffer.h"
#include "wal/ring_space.h"
#include "wal/ring_warmer.h"

namespace kelda::wal {

class GroupFlush {
 public:
  // `checkpoint_wanted` is set when a batch has filled the ring that far, `write_wanted` when it came near cold ground.
  GroupFlush(blockdev::BlockDevice& device, const disk::Layout& layout, RingSpace& space,
             std::vector<std::unique_ptr<LogBuffer>>& buffers, std::atomic<std::uint64_t>& next,
             runtime::Event& checkpoint_wanted, runtime::Event& write_wanted);
  Result<> allocate();

  // Parks until everything up to lsn is hardened: on the device and flushed (written, on a device without flush).
  Result<> wait(Lsn lsn);
  // Everything appended so far.
  Result<> wait_all();
  // Keeps the first failure and wakes everybody with it.
  void fail(Error error);
  Result<> health() const;
  bool failed() const { return failed_.load(std::memory_order_acquire); }

  Lsn hardened() const { return Lsn{hardened_.load(std::memory_order_acquire)}; }
  // Hardened, where the device confirms it with a flush.
  Lsn durable() const { return confirms_ ? hardened() : Lsn{durable_at_start_}; }

  // Recovery: goes on after the batch that was found last.
  struct Resume {
    std::uint64_t sequence = 1;           // of the next batch
    std::uint64_t previous_checksum = 0;
    std::uint64_t restart_lsn = 0;
  };
  void resume(const Resume& at, Lsn hardened_lsn);
  // During redo: everything that was read is on the device.
  void set_hardened(Lsn lsn) { hardened_.store(lsn.value, std::memory_order_release); }

  // Checkpoint: remembers the first batch that holds an LSN at or above `lsn`. Call with all buffer latches held; the
  // answer is there once wait(lsn) has returned.
  struct BatchPlace { std::uint64_t position = 0, sequence = 0; };
  void mark(Lsn lsn) { mark_lsn_.store(lsn.value, std::memory_order_relaxed); }
  BatchPlace marked() const { return marked_; }

  // Background: one step of writing ahead (ring_warmer.h), if the head is near cold ground. A failure is the log's.
  bool wants_warmth() const { return warmer_.wants_more(space_.head()); }
  Result<> warm();

  struct Stats { std::uint64_t batches = 0, written_bytes = 0, flushes = 0, waits = 0; };
  Stats stats() const;

 private:
  struct Waiter;
  struct Batch;
  void lead();
  Batch collect();
  Result<> write(const Batch& batch);
  Result<> put_on_device(std::uint64_t position, std::uint64_t bytes);
  void publish(Lsn cut, Result<> outcome);
  Waiter* take_answered(Waiter*& next_leader);
  void answer(Waiter* answered);

  blockdev::BlockDevice& device_;
  const disk::Layout layout_;
  RingSpace& space_;
  std::vector<std::unique_ptr<LogBuffer>>& buffers_;
  std::atomic<std::uint64_t>& next_;
  runtime::Event& checkpoint_wanted_;
  runtime::Event& write_wanted_;
  const bool confirms_;

  AlignedBytes staging_;
  RingWarmer warmer_;
  // The leader's, handed on through latch_.
  std::uint64_t sequence_ = 1, previous_checksum_ = 0, restart_lsn_ = 0;
  std::uint64_t durable_at_start_ = 0;
  BatchPlace marked_;
  std::atomic<std::uint64_t> mark_lsn_{0};

  mutable runtime::SpinLatch latch_;  // guards what follows
  bool leading_ = false;
  Waiter* waiters_head_ = nullptr;
  Waiter* waiters_tail_ = nullptr;
  std::unique_ptr<Error> failure_;
  Stats stats_;
  std::atomic<bool> failed_{false};
  std::atomic<std::uint64_t> hardened_{0};
};

}  // namespace kelda::wal
