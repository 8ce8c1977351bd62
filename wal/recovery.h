// Start-up: from the redo point to a log that can be appended to.
//
//   1. flush the device: what is read from here on stays (a process may have died between its write and its flush);
//   2. read the ring once in LSN order: redo every change (redo.h), collect undo entries (undo_set.h) and counts;
//   3. resume the log after the last record;
//   4. undo the losers, newest entry first across all of them, through the same reserve/append as in traffic;
//   5. take a checkpoint (after a clean shutdown only clear the clean flag, before anything is appended).
//
// Interrupted anywhere, the next recovery finds a log that is the old one, perhaps with compensation records and a
// checkpoint's copies at its end: redo repeats, undo goes on where it stopped.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "wal/log_impl.h"
#include "wal/redo.h"
#include "wal/undo_set.h"

namespace kelda::wal {

class BatchReader;
struct MergeEnd;

class Recovery {
 public:
  Recovery(Log::Impl& log, RecoveryHandler& handler, const std::function<void(const RecoveryReport&)>& progress)
      : log_(log), handler_(handler), progress_(progress), redo_(log.pool, handler),
        checkpoint_(log.superblock.checkpoint()) {}

  Result<RecoveryReport> run();

 private:
  Result<> add_record(const RecordView& record);
  Result<> add_counts(const RecordView& record);
  Result<> judge_end(Lsn next) const;
  void resume(const BatchReader& reader, const MergeEnd& end);
  Result<> undo_losers();
  Result<> end_loser(TxnLog& txn);
  Result<> finish();
  void tell_progress();

  Log::Impl& log_;
  RecoveryHandler& handler_;
  const std::function<void(const RecoveryReport&)>& progress_;
  Redo redo_;
  UndoSet undo_;
  const disk::CheckpointInfo checkpoint_;
  std::unordered_map<std::uint64_t, std::int64_t> counts_;
  std::uint64_t trees_promised_ = 0, trees_seen_ = 0;
  bool checkpoint_seen_ = false;
  RecoveryReport report_;
  runtime::TimeNs started_ns_ = 0, told_ns_ = 0;
};

}  // namespace kelda::wal
