// The five steps of recovery.h.
#include "wal/recovery.h"

#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "wal/batch_reader.h"
#include "wal/merge.h"

namespace kelda::wal {
namespace {

constexpr runtime::TimeNs kProgressNs = 1'000'000'000;

}  // namespace

Result<RecoveryReport> Recovery::run() {
  started_ns_ = told_ns_ = runtime::now_ns();
  report_.was_clean = checkpoint_.clean;
  if (log_.device.info().has_flush) TRY(log_.device.flush());
  BatchReader reader(log_.device, log_.layout, checkpoint_);
  const auto visit = [&](const RecordView& record) { return add_record(record); };
  const auto on_group = [&](std::span<const RecordView> records) {
    report_.log_bytes = reader.bytes_read();
    redo_.look_ahead(records);
    tell_progress();
  };
  const MergeEnd end = TRY(for_each_record(reader, checkpoint_.redo_lsn, visit, on_group));
  TRY(judge_end(end.next));
  resume(reader, end);
  TRY(handler_.before_undo());
  TRY(redo_.check_bases());
  TRY(undo_losers());
  TRY(finish());
  report_.log_bytes = reader.bytes_read();
  report_.redone_changes = redo_.applied_changes();
  report_.committed_txns = undo_.committed();
  report_.duration_us = (runtime::now_ns() - started_ns_) / 1000;
  return report_;
}

Result<> Recovery::add_record(const RecordView& record) {
  ++report_.records;
  // The pool may evict what is redone: the log up to here is on the device.
  log_.flush.set_hardened(record.lsn());
  TRY(undo_.add(record));
  if (record.kind() == RecordKind::kCheckpoint || record.kind() == RecordKind::kCounts) TRY(add_counts(record));
  if (record.count().delta != 0) counts_[record.count().tree.value] += record.count().delta;
  return redo_.apply(record);
}

// Counts are as of the redo point; records after it add their deltas, whether they come before or after the counts.
Result<> Recovery::add_counts(const RecordView& record) {
  Bytes body = record.body();
  const auto take = [&body] {
    std::uint64_t value;
    std::memcpy(&value, body.data(), 8);
    body = body.subspan(8);
    return value;
  };
  if (body.size() < 8 || body.size() % 8 != 0) return Error(Code::kCorrupt, "the log is damaged: a checkpoint record has a wrong shape");
  if (record.kind() == RecordKind::kCheckpoint) {
    if (record.lsn() != checkpoint_.redo_lsn) return {};
    checkpoint_seen_ = true;
    trees_promised_ = take();
    return {};
  }
  if (Lsn{take()} != checkpoint_.redo_lsn) return {};
  for (; body.size() >= 16; ++trees_seen_) {
    const std::uint64_t tree = take();
    counts_[tree] += static_cast<std::int64_t>(take());
  }
  return {};
}

// A disk that was just formatted has no log yet. Any other has at least its checkpoint.
Result<> Recovery::judge_end(Lsn next) const {
  if (checkpoint_seen_ && trees_seen_ == trees_promised_) return {};
  if (checkpoint_.redo_lsn == Lsn{1} && checkpoint_.batch_sequence == 1) return {};
  return Error(Code::kCorrupt, "the log is damaged: it ends at record " + std::to_string(next.value) +
                                   ", inside the last checkpoint, which began at " + std::to_string(checkpoint_.redo_lsn.value));
}

void Recovery::resume(const BatchReader& reader, const MergeEnd& end) {
  log_.next.store(end.next.value, std::memory_order_relaxed);
  log_.next_txn.store(undo_.highest_txn() + 1, std::memory_order_relaxed);
  log_.space.restart(checkpoint_.log_position, reader.end_position());
  log_.flush.resume({.sequence = reader.next_sequence(), .previous_checksum = reader.last_checksum(), .restart_lsn = end.next.value},
                    Lsn{end.next.value - 1});
  log_.buffers.front()->counts_locked() = std::move(counts_);
  log_.recovered = true;
}

Result<> Recovery::undo_losers() {
  log_.checkpoint_purpose = Purpose::kRecovery;
  std::vector<std::unique_ptr<TxnLog>> losers;
  std::vector<std::pair<Lsn, TxnLog*>> order;
  for (const auto& [id, entries] : undo_.open()) {
    if (planted(Bug::kUndoForgetsLastRecord) && entries.rbegin()->first + 1 == log_.log_now()) continue;
    TxnLog& txn = *losers.emplace_back(std::make_unique<TxnLog>());
    txn.id = TxnId{id};
    for (const auto& [lsn, undo] : entries) {
      txn.undo.push_back({Lsn{lsn}, static_cast<std::uint32_t>(txn.undo_bytes.size()), static_cast<std::uint32_t>(undo.size())});
      txn.undo_bytes.insert(txn.undo_bytes.end(), undo.begin(), undo.end());
      txn.undo_room += kUndoCopyHeaderBytes + undo.size();
      order.emplace_back(Lsn{lsn}, &txn);
    }
    txn.first_lsn = txn.undo.front().lsn;
    txn.last_lsn = txn.undo.back().lsn;
    log_.space.keep_undo(txn.undo_room);
    log_.txns.enter(txn);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (const auto& [lsn, txn] : order) {
    const Bytes bytes = txn->undo_of(txn->undo.back());
    const std::vector<std::byte> undo(bytes.begin(), bytes.end());
    if (auto undone = handler_.undo(*txn, lsn, undo); !undone) {
      return std::move(undone).error().with_context("undo of log record " + std::to_string(lsn.value));
    }
    KELDA_ASSERT(txn->undo.empty() || txn->undo.back().lsn < lsn);
    ++report_.undone_entries;
    if (txn->undo.empty()) TRY(end_loser(*txn));
    tell_progress();
  }
  return {};
}

Result<> Recovery::end_loser(TxnLog& txn) {
  auto reservation = TRY(log_.reserve(0, 1, Purpose::kRollBack));
  log_.end_txn(reservation, txn, {.kind = RecordKind::kAbort, .txn = txn.id});
  ++report_.undone_txns;
  return {};
}

Result<> Recovery::finish() {
  if (checkpoint_.clean && report_.undone_txns == 0 && redo_.applied_changes() == 0) {
    disk::CheckpointInfo open = checkpoint_;
    open.clean = false;
    TRY(log_.superblock.write_checkpoint(log_.device, open));
  } else {
    TRY(log_.checkpointer.run(false));
  }
  log_.checkpoint_purpose = Purpose::kCheckpoint;
  return {};
}

void Recovery::tell_progress() {
  const runtime::TimeNs now = runtime::now_ns();
  if (!progress_ || now - told_ns_ < kProgressNs) return;
  told_ns_ = now;
  report_.redone_changes = redo_.applied_changes();
  report_.duration_us = (now - started_ns_) / 1000;
  progress_(report_);
}

}  // namespace kelda::wal
