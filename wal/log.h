// The write-ahead log: a buffer a core, one ring on the disk, group flush, recovery.
//
// Contract
//  - A record gets a dense global LSN. Whoever changes a page holds its exclusive latch from before append() until the
//    page carries the record's LSN (BufferPool::mark_dirty). So a record's LSN is above those of all it depends on.
//  - append() never waits (it is called under latches): space in the core's buffer and in the ring was secured by
//    reserve() before any latch was taken.
//  - Group flush, no timer knob: the first waiter becomes leader. It takes the cut G = next LSN *first*, then what every
//    core's buffer holds, writes one batch, flushes the device, and publishes durable = G - 1. All records below G are
//    then on the device. If there are new waiters, one of them leads the next batch at once.
//  - On disk a batch may also hold records at or above its cut. Recovery accepts the gap-free prefix of LSNs only.
//  - A failed write or flush fails the log for good (kFailed): nothing is acknowledged any more, nothing is retried.
//
// One log record holds all page changes of one atomic step (a split with its parent and space map, ...): a step is in the
// log whole or not at all. docs/format-wal.md is the document of the bytes.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "blockdev/blockdev.h"
#include "bufferpool/buffer_pool.h"
#include "common/result.h"
#include "disk/superblock.h"

namespace kelda::wal {

enum class Durability : std::uint8_t { kFlush, kNone };

// One change of one page, as bytes that redo understands: op and payload belong to the page's owner (btree/).
// The pieces are concatenated.
struct PageChange {
  PageId page;
  std::uint8_t op = 0;
  Bytes first, second, third;
};

// A transaction as the log sees it. Used by one fiber at a time.
struct TxnLog {
  TxnId id = kNoTxn;           // kNoTxn: a step of nobody's transaction (split, merge), never undone
  Lsn first_lsn, last_lsn;     // 0 while it has logged nothing
  std::uint64_t logged_bytes = 0;
  // Undo information, newest last, so that roll-back need not read the log.
  struct UndoEntry { Lsn lsn; std::uint32_t offset, bytes; };
  std::vector<UndoEntry> undo;
  std::vector<std::byte> undo_bytes;
};

// Count of keys by tree, kept exact through crashes: every record may change one tree's count.
struct CountChange { TreeId tree; std::int32_t delta = 0; };

struct Update {
  std::span<const PageChange> changes;
  Bytes undo;           // empty: redo-only. Logical: given to RecoveryHandler::undo
  Lsn undo_next{};      // compensation records: the undo entry with this LSN is now done (0: not a compensation)
  CountChange count;
};

struct LogOptions {
  Durability durability = Durability::kFlush;
  std::uint64_t buffer_bytes_per_core = 1 << 20;
  std::uint32_t buffer_count = 4;  // cores share buffers by index modulo this
};

struct LogStats {
  std::uint64_t appended_records, appended_bytes, batches, written_bytes, flushes, waits;
  std::uint64_t used_bytes, capacity_bytes;  // of the ring
  Lsn next, durable;
};

// What the log needs of its user at recovery and checkpoint.
class RecoveryHandler {
 public:
  virtual ~RecoveryHandler() = default;
  // Applies one change to a page whose lsn is below the record's. Deterministic. kCorrupt if it cannot be.
  virtual Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) = 0;
  // True if the op overwrites the whole page, so that the old content need not be read.
  virtual bool redo_overwrites(std::uint8_t op) const = 0;
  // Undoes one entry of a transaction, logging compensation (Update::undo_next = lsn). Also used by roll-back.
  virtual Result<> undo(TxnLog& txn, Lsn lsn, Bytes undo) = 0;
};

struct RecoveryReport {
  bool was_clean = true;
  std::uint64_t log_bytes = 0, records = 0, redone_changes = 0, committed_txns = 0, undone_txns = 0, undone_entries = 0;
  std::uint64_t duration_us = 0;
};

class Log final : public bufferpool::WriteBarrier {
 public:
  static Result<std::unique_ptr<Log>> create(blockdev::BlockDevice& device, disk::Superblock& superblock,
                                             bufferpool::BufferPool& pool, const LogOptions& options);
  ~Log();

  // Once, before anything is appended: scans, redoes, undoes, then takes a checkpoint. Idempotent; may be interrupted
  // at any I/O. kCorrupt when the log is damaged before its end (a batch does not verify but a later one does).
  Result<RecoveryReport> recover(RecoveryHandler& handler);

  // Starts a transaction's log; active transactions hold the log from their first record.
  void begin(TxnLog& txn);
  // Secures room for records of `bytes` payload in total with `record_count` records, before latching. Waits for log
  // space (a checkpoint is started). kTooLarge: the transaction would not fit the ring; kNoSpace never comes from here.
  // `undo`: roll-back and commit may use the room that is kept back for them.
  class Reservation;
  Result<Reservation> reserve(TxnLog* txn, std::uint64_t bytes, std::uint32_t record_count = 1, bool undo = false);

  Lsn append(Reservation& reservation, TxnLog* txn, const Update& update);
  // The commit record. `changes` (freed overflow pages) take effect with it. The transaction is over for the log.
  Lsn append_commit(Reservation& reservation, TxnLog& txn, std::span<const PageChange> changes = {});
  // After all undo entries were undone.
  Lsn append_abort(Reservation& reservation, TxnLog& txn);

  // Parks until every record up to lsn is durable, leading a flush if none is under way. Returns at once under
  // Durability::kNone (where durable() then lags: the truth is in stats).
  Result<> wait_durable(Lsn lsn) override;
  Lsn durable() const;  // any thread
  Lsn next() const;

  // Incremental, in the background of traffic: remembers the next LSN and the active transactions, writes back what is
  // dirty, then moves the superblock's redo point. Single caller at a time; the others wait and share its result.
  Result<> checkpoint(bool clean_shutdown = false);
  // Runs until stop(): starts a checkpoint when the ring is filling. One fiber per log.
  void checkpoint_loop();
  void stop();

  std::int64_t count_of(TreeId tree) const;  // keys, committed or not
  void set_count(TreeId tree, std::int64_t count);
  // First failure, or ok.
  Result<> health() const;
  LogStats stats() const;

  struct Impl;

 private:
  explicit Log(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class Log::Reservation {
 public:
  Reservation(Reservation&& o) noexcept;
  Reservation& operator=(Reservation&& o) noexcept;
  ~Reservation();  // gives back what was not used

 private:
  friend class Log;
  Reservation(Log::Impl* log, std::uint64_t bytes) : log_(log), bytes_(bytes) {}
  Log::Impl* log_;
  std::uint64_t bytes_;
};

// Reads a log without changing anything, for `kelda check` and `kelda dump`.
struct LogScanReport { std::uint64_t batches = 0, records = 0, bytes = 0; Lsn first, last; bool ends_torn = false; };
Result<LogScanReport> scan_log(blockdev::BlockDevice& device, const disk::Superblock& superblock);

}  // namespace kelda::wal
