// The log's parts in one place, for the files that implement Log. Not for other layers.
#pragma once

#include "wal/checkpoint.h"
#include "wal/group_flush.h"
#include "wal/log.h"
#include "wal/log_buffer.h"
#include "wal/ring_space.h"
#include "wal/txn_table.h"

namespace kelda::wal {

struct Log::Impl {
  Impl(blockdev::BlockDevice& device_in, disk::Superblock& superblock_in, bufferpool::BufferPool& pool_in,
       const LogOptions& options_in, std::uint64_t unit_bytes, std::uint64_t buffered_bytes);

  LogBuffer& buffer_of_this_core(std::uint32_t& index);

  // reserve() for any purpose; the undo share is the caller's business.
  Result<Reservation> reserve(std::uint64_t bytes, std::uint32_t record_count, Purpose purpose);
  Result<> promise_undo(const TxnLog& txn, std::uint64_t bytes);
  void slow_down();
  Result<> wait_for_ring(std::uint64_t bytes, Purpose purpose);
  Result<> reserve_in(LogBuffer& buffer, std::uint64_t bytes);
  void release(Reservation& reservation);

  // Appends; keeps the transaction's undo entries and LSNs in step.
  Lsn append(Reservation& reservation, TxnLog* txn, const RecordSpec& spec);
  Lsn append_latched(Reservation& reservation, TxnLog& txn, const RecordSpec& spec);
  // A record of the checkpoint or of recovery. `locked`: the latch of the reservation's buffer is held.
  Lsn append_plain(Reservation& reservation, const RecordSpec& spec, bool locked = false);
  Lsn end_txn(Reservation& reservation, TxnLog& txn, const RecordSpec& spec);

  std::uint64_t log_now() const { return next.load(std::memory_order_relaxed); }
  // With all latches held: `then` sees LSNs and counts stand still.
  void with_all_buffers_locked(FunctionRef<void()> then);

  blockdev::BlockDevice& device;
  disk::Superblock& superblock;
  bufferpool::BufferPool& pool;
  const LogOptions options;
  const disk::Layout layout;

  runtime::Event checkpoint_wanted, write_wanted;
  std::atomic<std::uint64_t> next{1};  // LSN
  std::atomic<std::uint64_t> next_txn{1};
  RingSpace space;
  std::vector<std::unique_ptr<LogBuffer>> buffers;
  GroupFlush flush;
  TxnTable txns;
  Checkpointer checkpointer;
  CheckpointListener* checkpoint_listener = nullptr;

  bool recovered = false;             // before: nothing can be reserved but by recovery itself
  Purpose checkpoint_purpose = Purpose::kCheckpoint;
  std::atomic<bool> closed{false};    // after the clean shutdown's checkpoint
  std::atomic<bool> stopping{false};
  std::atomic<bool> writer_running{false};  // somebody writes what nobody waits for
};

}  // namespace kelda::wal
