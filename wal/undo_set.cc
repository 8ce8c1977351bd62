// What each kind of record does to the set of open transactions.
#include "wal/undo_set.h"

#include <algorithm>
#include <cstring>

namespace kelda::wal {

Result<> UndoSet::add(const RecordView& record) {
  highest_txn_ = std::max(highest_txn_, record.txn().value);
  switch (record.kind()) {
    case RecordKind::kUpdate:
      add_update(record);
      break;
    case RecordKind::kCommit:
    case RecordKind::kAbort:
      committed_ += record.kind() == RecordKind::kCommit;
      open_.erase(record.txn().value);
      if (copying_) ended_.insert(record.txn().value);
      break;
    case RecordKind::kCheckpoint:
    case RecordKind::kCheckpointEnd:
      copying_ = record.kind() == RecordKind::kCheckpoint;
      compensated_.clear();
      ended_.clear();
      break;
    case RecordKind::kUndoCopy:
      return add_copies(record.body());
    case RecordKind::kCounts:
      break;
  }
  return {};
}

void UndoSet::add_update(const RecordView& record) {
  if (record.txn() == kNoTxn) return;
  if (record.undo_next() != kNoLsn) {
    if (const auto txn = open_.find(record.txn().value); txn != open_.end()) {
      txn->second.erase(record.undo_next().value);
      if (txn->second.empty()) open_.erase(txn);
    }
    if (copying_) compensated_.insert(record.undo_next().value);
  }
  if (const Bytes undo = record.undo(); !undo.empty()) {
    open_[record.txn().value].try_emplace(record.lsn().value, undo.begin(), undo.end());
  }
}

Result<> UndoSet::add_copies(Bytes body) {
  while (!body.empty()) {
    std::uint64_t txn, lsn;
    std::uint32_t bytes;
    if (body.size() < kUndoCopyHeaderBytes) return Error(Code::kCorrupt, "the log is damaged: a copy of undo entries is cut off");
    std::memcpy(&txn, body.data(), 8);
    std::memcpy(&lsn, body.data() + 8, 8);
    std::memcpy(&bytes, body.data() + 16, 4);
    body = body.subspan(kUndoCopyHeaderBytes);
    if (body.size() < bytes) return Error(Code::kCorrupt, "the log is damaged: a copy of undo entries is cut off");
    const Bytes undo = body.first(bytes);
    body = body.subspan(bytes);
    highest_txn_ = std::max(highest_txn_, txn);
    if (ended_.contains(txn) || compensated_.contains(lsn)) continue;
    open_[txn].try_emplace(lsn, undo.begin(), undo.end());
  }
  return {};
}

}  // namespace kelda::wal
