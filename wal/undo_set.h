// Analysis: which undo entries of which transactions are outstanding at the end of the log.
//
// Contract: add() gets every record from the redo point on, in LSN order. Entries come from update records and from the
// copies of checkpoints. A copy may be older than the records around it: while a checkpoint was copying, transactions
// went on. So between kCheckpoint and kCheckpointEnd what was compensated or ended is remembered, and copies of that are
// left out. A copy of an entry that is known already is the same bytes.
#pragma once

#include <map>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/result.h"
#include "wal/record.h"

namespace kelda::wal {

class UndoSet {
 public:
  using Entries = std::map<std::uint64_t, std::vector<std::byte>>;  // by LSN

  Result<> add(const RecordView& record);

  // Transactions that did not end, with at least one entry.
  const std::unordered_map<std::uint64_t, Entries>& open() const { return open_; }
  std::uint64_t highest_txn() const { return highest_txn_; }
  std::uint64_t committed() const { return committed_; }

 private:
  void add_update(const RecordView& record);
  Result<> add_copies(Bytes body);

  std::unordered_map<std::uint64_t, Entries> open_;
  bool copying_ = false;
  std::unordered_set<std::uint64_t> compensated_, ended_;
  std::uint64_t highest_txn_ = 0, committed_ = 0;
};

}  // namespace kelda::wal
