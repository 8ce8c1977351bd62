// Records into the buffers, and a transaction's undo entries in step with them.

#include <mutex>
#include <utility>

#include "common/assert.h"
#include "wal/log_impl.h"

namespace kelda::wal {

Lsn Log::append(Reservation& reservation, TxnLog* txn, const Update& update) {
  const bool owned = txn != nullptr && txn->id != kNoTxn;
  KELDA_ASSERT(owned || (update.undo.empty() && update.undo_next == kNoLsn));
  return impl_->append(reservation, owned ? txn : nullptr,
                       {.kind = RecordKind::kUpdate,
                        .txn = owned ? txn->id : kNoTxn,
                        .changes = update.changes,
                        .undo = update.undo,
                        .count = update.count,
                        .undo_next = update.undo_next});
}

Lsn Log::append_commit(Reservation& reservation, TxnLog& txn, std::span<const PageChange> changes) {
  return impl_->end_txn(reservation, txn, {.kind = RecordKind::kCommit, .txn = txn.id, .changes = changes});
}

Lsn Log::append_abort(Reservation& reservation, TxnLog& txn) {
  KELDA_ASSERT(txn.undo.empty());
  return impl_->end_txn(reservation, txn, {.kind = RecordKind::kAbort, .txn = txn.id});
}

Lsn Log::Impl::append_plain(Reservation& reservation, const RecordSpec& spec, bool locked) {
  const std::uint64_t bytes = encoded_bytes(spec);
  KELDA_ASSERT(reservation.log_ == this && bytes <= reservation.buffer_bytes_);
  // The promise of the ring stays with the record until its batch is written; the overhead goes back with the rest.
  KELDA_ASSERT(bytes <= reservation.ring_bytes_);
  reservation.buffer_bytes_ -= bytes;
  reservation.ring_bytes_ -= bytes;
  LogBuffer& buffer = *buffers[reservation.buffer_];
  return locked ? buffer.append_locked(spec, pool, bytes, next) : buffer.append(spec, pool, bytes, next);
}

Lsn Log::Impl::append(Reservation& reservation, TxnLog* txn, const RecordSpec& spec) {
  if (txn == nullptr) return append_plain(reservation, spec);
  txns.enter(*txn);
  std::scoped_lock guard(txn->latch);
  return append_latched(reservation, *txn, spec);
}

// The transaction's latch is held from before the LSN is taken until the entry has it (txn_table.h).
Lsn Log::Impl::append_latched(Reservation& reservation, TxnLog& txn, const RecordSpec& spec) {
  if (spec.undo_next != kNoLsn) {
    KELDA_ASSERT(!txn.undo.empty() && txn.undo.back().lsn == spec.undo_next && spec.undo.empty());
    const std::uint64_t freed = kUndoCopyHeaderBytes + txn.undo.back().bytes;
    txn.undo_bytes.resize(txn.undo.back().offset);
    txn.undo.pop_back();
    txn.undo_room -= freed;
    space.drop_undo(freed);
  }
  const std::uint64_t before = reservation.buffer_bytes_;
  const Lsn lsn = append_plain(reservation, spec);
  if (!spec.undo.empty()) {
    const std::uint64_t kept = kUndoCopyHeaderBytes + spec.undo.size();
    KELDA_ASSERT(reservation.undo_bytes_ >= kept);
    txn.undo.push_back({lsn, static_cast<std::uint32_t>(txn.undo_bytes.size()), static_cast<std::uint32_t>(spec.undo.size())});
    txn.undo_bytes.insert(txn.undo_bytes.end(), spec.undo.begin(), spec.undo.end());
    txn.undo_room += kept;
    space.keep_undo(kept);
    reservation.undo_bytes_ -= kept;
    space.take_back_undo_promise(kept);
  }
  if (txn.first_lsn == kNoLsn) txn.first_lsn = lsn;
  txn.last_lsn = lsn;
  txn.logged_bytes += before - reservation.buffer_bytes_;
  return lsn;
}

// The entries go under the same hold of the latch as the LSN is taken: a checkpoint that meets them knows that the
// transaction's last record is above its copy.
Lsn Log::Impl::end_txn(Reservation& reservation, TxnLog& txn, const RecordSpec& spec) {
  KELDA_ASSERT(txn.id != kNoTxn);
  txn.latch.lock();
  const Lsn lsn = append_latched(reservation, txn, spec);
  space.drop_undo(std::exchange(txn.undo_room, 0));
  txn.undo.clear();
  txn.undo_bytes.clear();
  txn.latch.unlock();
  txns.leave(txn);
  return lsn;
}

void Log::Impl::with_all_buffers_locked(FunctionRef<void()> then) {
  for (auto& buffer : buffers) buffer->lock();
  then();
  for (auto it = buffers.rbegin(); it != buffers.rend(); ++it) (*it)->unlock();
}

}  // namespace kelda::wal
