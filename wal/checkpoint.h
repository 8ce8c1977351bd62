// Incremental checkpoint: moves the redo point, so that the ring can be used again and recovery stays short.
//
//   1. With all buffer latches held: C = the LSN of the checkpoint record, appended right there, and the tree counts,
//      which are exact as of C because counts change under those latches.
//   2. Counts follow as kCounts records.
//   3. Every open transaction's outstanding undo entries are copied forward as kUndoCopy records, then kCheckpointEnd.
//      From here on nothing below C is needed for undo: open transactions never hold the ring, however old they are.
//   4. The pool writes back what is dirty: every change below C is then in the page area.
//   5. The log is made durable up to now: a page that was freed and dropped, and so not written in 4, is free in the log.
//   6. The superblock gets redo point C and the place of the first batch with an LSN at or above C.
//   7. The ring before that batch is free.
//
// A crash before 6 leaves the previous redo point, from which the copies are duplicates that recovery knows (undo_set.h).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/result.h"
#include "runtime/sync.h"
#include "wal/record.h"

namespace kelda::wal {

class Checkpointer {
 public:
  explicit Checkpointer(Log::Impl& log) : log_(log) {}

  // Runs one, or waits for the one that runs and returns its result. A clean shutdown always runs its own.
  Result<> run(bool clean_shutdown);
  bool running() const { return at_work_.load(std::memory_order_relaxed); }  // a hint
  std::uint64_t done() const { return done_.load(std::memory_order_relaxed); }

 private:
  using Counts = std::unordered_map<std::uint64_t, std::int64_t>;
  Result<> checkpoint(bool clean_shutdown);
  Result<> checkpoint_and_close();
  Result<Lsn> append_start(Counts& counts);
  Result<> append_counts(Lsn start, const Counts& counts);
  Result<> append_undo_copies();
  Result<Lsn> append_body(RecordKind kind, Bytes body);
  Result<> finish(Lsn start, Lsn end, bool clean_shutdown);

  Log::Impl& log_;
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> at_work_{false};
  runtime::SpinLatch latch_;  // guards what follows
  bool running_ = false;
  std::uint64_t generation_ = 0;
  Result<> last_result_;
  runtime::WaitQueue waiters_;
};

}  // namespace kelda::wal
