// The write-ahead log: a buffer a core, one ring on the disk, group flush, recovery.
//
// Contract
//  - A record gets a dense global LSN. Whoever changes a page holds its exclusive latch from before append() until the
//    page carries the record's LSN (BufferPool::mark_dirty). So a record's LSN is above those of all it depends on.
//  - append() never waits (it is called under latches): space in the core's buffer and in the ring was secured by
//    reserve() before any latch was taken. A fiber holds at most one reservation while it calls reserve().
//  - Group flush, no timer knob: the first waiter becomes leader (group_flush.h). If there are new waiters when its
//    batch is durable, one of them leads the next batch at once.
//  - Open transactions never hold the ring: a checkpoint copies their undo entries forward (checkpoint.h).
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

// kNone: commits do not wait. The log is still written and flushed behind them (within about a second), and a page still
// never reaches the disk before its log: a crash loses the last commits, never the order.
enum class Durability : std::uint8_t { kFlush, kNone };

// One change of one page, as bytes that redo understands: op and payload belong to the page's owner (btree/).
// The pieces are concatenated. The page is resident and exclusively latched by the caller.
struct PageChange {
  PageId page;
  std::uint8_t op = 0;
  Bytes first{}, second{}, third{};
};

// A transaction as the log sees it. Used by one fiber at a time. Stays where it is between begin() and its end.
struct TxnLog {
  TxnId id = kNoTxn;           // kNoTxn: a step of nobody's transaction (split, merge), never undone
  Lsn first_lsn, last_lsn;     // 0 while it has logged nothing
  std::uint64_t logged_bytes = 0;
  // Undo information, newest last, so that roll-back need not read the log. append() adds and removes entries.
  struct UndoEntry { Lsn lsn; std::uint32_t offset, bytes; };
  std::vector<UndoEntry> undo;
  std::vector<std::byte> undo_bytes;
  // The longest that one record waits for other open transactions to leave room for its undo entry; then kLockTimeout.
  runtime::TimeNs room_wait_ns = runtime::kNever;
  Bytes undo_of(const UndoEntry& entry) const { return Bytes(undo_bytes).subspan(entry.offset, entry.bytes); }

  TxnLog() = default;
  TxnLog(const TxnLog&) = delete;
  TxnLog& operator=(const TxnLog&) = delete;

  // The log's own (txn_table.h): a checkpoint of another core reads the undo entries under the latch.
  runtime::SpinLatch latch;
  TxnLog* table_prev = nullptr;
  TxnLog* table_next = nullptr;
  std::uint32_t table_shard = 0;
  bool in_table = false;
  std::uint64_t undo_room = 0;  // bytes that a copy of the undo entries needs
};

// Count of keys by tree, kept exact through crashes: every record may change one tree's count.
struct CountChange { TreeId tree; std::int32_t delta = 0; };

struct Update {
  std::span<const PageChange> changes{};
  Bytes undo{};         // empty: redo-only. Logical: given to RecoveryHandler::undo
  Lsn undo_next{};      // compensation: the transaction's newest undo entry, which has this LSN, is now done (0: none)
  CountChange count{};
};

struct LogOptions {
  Durability durability = Durability::kFlush;
  std::uint64_t buffer_bytes_per_core = 1 << 20;  // both halves; less where the ring is small
  std::uint32_t buffer_count = 4;                 // cores share buffers by index modulo this
};

// What one reserve() may ask for, and so the largest record.
inline constexpr std::uint64_t kMaxReserveBytes = 120 << 10;
// Counted by the caller in reserve(`bytes`) for each change beyond the sixteen that every record has free.
inline constexpr std::uint64_t kChangeOverheadBytes = 24;

struct LogStats {
  std::uint64_t appended_records, appended_bytes, batches, written_bytes, flushes, waits;
  std::uint64_t used_bytes, capacity_bytes;  // of the ring
  std::uint64_t checkpoints;
  Lsn next, durable;
};

// What the log needs of its user at recovery and checkpoint.
class RecoveryHandler {
 public:
  virtual ~RecoveryHandler() = default;
  // Applies one change to a page that is exactly as the change met it. Deterministic. kCorrupt if it cannot be.
  virtual Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) = 0;
  // True if the op overwrites the whole page, so that the old content need not be read.
  virtual bool redo_overwrites(std::uint8_t op) const = 0;
  // Undoes one entry of a transaction, logging compensation (Update::undo_next = lsn). Also used by roll-back.
  virtual Result<> undo(TxnLog& txn, Lsn lsn, Bytes undo) = 0;
  // Between redo and the first undo: pages are as the log left them.
  virtual Result<> before_undo() { return {}; }
  // After redo, for a page to which changes could not be applied because its base is gone. That is as it should be for
  // a page that was freed later (the pool drops such pages unwritten), and corruption for any other.
  virtual Result<bool> page_in_use(PageId page) { return page != kNoPage; }
};

// Told when a checkpoint starts (before its redo point is chosen, so that what was appended before lies below it) and when
// it has ended well: the new redo point is durable. In the fiber that takes the checkpoint; must not wait. Not called for
// one that failed.
class CheckpointListener {
 public:
  virtual ~CheckpointListener() = default;
  virtual void checkpoint_starts() = 0;
  virtual void checkpoint_done() = 0;
};

struct RecoveryReport {
  bool was_clean = true;
  std::uint64_t log_bytes = 0, records = 0, redone_changes = 0, committed_txns = 0, undone_txns = 0, undone_entries = 0;
  std::uint64_t duration_us = 0;
};

class Log final : public bufferpool::WriteBarrier {
 public:
  // kNoFlush: the device cannot flush and the durability asked for needs it. kTooSmall: ring below kMinRingBytes.
  // Device, superblock and pool outlive the log.
  static Result<std::unique_ptr<Log>> create(blockdev::BlockDevice& device, disk::Superblock& superblock,
                                             bufferpool::BufferPool& pool, const LogOptions& options);
  ~Log();

  // One, before the first checkpoint; it lives as long as checkpoints may be taken.
  void set_checkpoint_listener(CheckpointListener& listener);
  // Once, before anything is appended: scans, redoes, undoes, then takes a checkpoint. Idempotent; may be interrupted
  // at any I/O. kCorrupt when the log is damaged before its end (a batch does not verify but a later one does).
  // `progress` is called about once a second.
  Result<RecoveryReport> recover(RecoveryHandler& handler,
                                 const std::function<void(const RecoveryReport&)>& progress = {});

  // Starts a transaction's log and gives it an id if it has none.
  void begin(TxnLog& txn);
  // Secures room for records of `bytes` payload and undo in total with `record_count` records, before latching. Waits
  // for log space (running a checkpoint if need be). `undo`: for roll-back and commit, which may use room kept for them.
  // kTooLarge: above kMaxReserveBytes, or the transaction's undo entries would pass an eighth of the ring.
  // kConflict: the undo entries of all open transactions would pass their share of the ring: roll back and try again.
  // kFailed: the log has failed. kClosed: after the clean-shutdown checkpoint.
  class Reservation;
  Result<Reservation> reserve(TxnLog* txn, std::uint64_t bytes, std::uint32_t record_count = 1, bool undo = false);

  Lsn append(Reservation& reservation, TxnLog* txn, const Update& update);
  // The commit record. `changes` (freed overflow pages) take effect with it. The transaction is over for the log.
  Lsn append_commit(Reservation& reservation, TxnLog& txn, std::span<const PageChange> changes = {});
  // After all undo entries were undone.
  Lsn append_abort(Reservation& reservation, TxnLog& txn);

  // A transaction that could not be undone: the log fails, so that only the next recovery, which undoes it, goes on from
  // here, and forgets the transaction.
  void abandon(TxnLog& txn, const Error& why);

  // Parks until every record up to lsn is durable, leading a flush if none is under way. On a device without flush:
  // until it is written. Also under Durability::kNone.
  Result<> wait_durable(Lsn lsn) override;
  // What a commit waits for: wait_durable(), or under Durability::kNone nothing.
  Result<> wait_commit(Lsn lsn);
  Lsn durable() const;  // any thread; never counts what a flush has not confirmed
  Lsn next() const;

  // Incremental, in the background of traffic: remembers the next LSN, copies the open transactions' undo entries,
  // writes back what is dirty, then moves the superblock's redo point. Single caller at a time; the others wait and
  // share its result. clean_shutdown: kBusy while transactions are open; nothing can be reserved afterwards.
  Result<> checkpoint(bool clean_shutdown = false);
  // Runs until stop(): checkpoints when the ring is filling, and writes what nobody waits for. One fiber per log.
  void checkpoint_loop();
  // Ends checkpoint_loop(). Returns at once.
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

// Room for records. Used and destroyed on the core that made it.
class Log::Reservation {
 public:
  Reservation(Reservation&& o) noexcept;
  Reservation& operator=(Reservation&& o) noexcept;
  ~Reservation();  // gives back what was not used

 private:
  friend class Log;
  friend struct Log::Impl;
  Reservation() = default;
  Log::Impl* log_ = nullptr;
  std::uint32_t buffer_ = 0;
  std::uint64_t buffer_bytes_ = 0;  // of the core's buffer
  std::uint64_t ring_bytes_ = 0;    // of the ring, with batch overhead
  std::uint64_t undo_bytes_ = 0;    // of the share for undo entries
};

// Reads a log without changing anything, for `kelda check` and `kelda dump`.
struct LogScanReport { std::uint64_t batches = 0, records = 0, bytes = 0; Lsn first, last; bool ends_torn = false; };
Result<LogScanReport> scan_log(blockdev::BlockDevice& device, const disk::Superblock& superblock);

}  // namespace kelda::wal
