// Room before records: reserve() and what a Reservation gives back.

#include <algorithm>
#include <utility>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "wal/log_impl.h"

namespace kelda::wal {
namespace {

constexpr runtime::TimeNs kConflictPollNs = 1'000'000;
// The most that one reservation is slowed while a checkpoint is behind, and what is not worth a sleep.
constexpr runtime::TimeNs kMaxDelayNs = 10'000'000, kMinDelayNs = 50'000;

}  // namespace

Result<Log::Reservation> Log::reserve(TxnLog* txn, std::uint64_t bytes, std::uint32_t record_count, bool undo) {
  KELDA_ASSERT(impl_->recovered || undo);
  if (bytes > kMaxReserveBytes) {
    return Error(Code::kTooLarge, "a log record of " + std::to_string(bytes) + " bytes is over the limit of " +
                                      std::to_string(kMaxReserveBytes));
  }
  const bool takes_undo_share = txn != nullptr && txn->id != kNoTxn && !undo;
  const std::uint64_t undo_bytes = takes_undo_share ? bytes + record_count * kUndoCopyHeaderBytes : 0;
  if (takes_undo_share && !planted(Bug::kUndoPromiseNotTaken)) TRY(impl_->promise_undo(*txn, undo_bytes));
  auto reservation = impl_->reserve(bytes, record_count, undo ? Purpose::kRollBack : Purpose::kOrdinary);
  if (reservation) {
    reservation->undo_bytes_ = undo_bytes;
  } else if (takes_undo_share) {
    impl_->space.take_back_undo_promise(undo_bytes);
  }
  return reservation;
}

Result<> Log::Impl::promise_undo(const TxnLog& txn, std::uint64_t bytes) {
  runtime::TimeNs deadline_ns = runtime::kNever;
  for (bool waited = false;; waited = true) {
    TRY(flush.health());
    if (waited && txn.room_wait_ns != runtime::kNever) {
      const runtime::TimeNs now_ns = runtime::now_ns();
      if (deadline_ns == runtime::kNever) deadline_ns = now_ns + txn.room_wait_ns;
      if (now_ns >= deadline_ns) {
        return Error(Code::kLockTimeout, "the open transactions together leave no room in the log for another change: end "
                                         "some of them, or format a disk with a larger log");
      }
    }
    switch (space.promise_undo(txn.undo_room, bytes)) {
      case RingSpace::UndoAnswer::kGranted:
        return {};
      case RingSpace::UndoAnswer::kTransactionTooLarge:
        return Error(Code::kTooLarge, "the transaction is too large for the log: roll it back and make several of it, or "
                                      "format a disk with a larger log");
      case RingSpace::UndoAnswer::kCrowded:
        runtime::Core::current().yield();
        break;
      case RingSpace::UndoAnswer::kAllTooLarge:
        // Whoever holds undo entries must not wait for others who do the same.
        if (txn.undo_room > 0) {
          return Error(Code::kConflict, "the open transactions together are too large for the log: roll back and try again");
        }
        runtime::Core::current().sleep_until(runtime::now_ns() + kConflictPollNs);
        break;
    }
  }
}

LogBuffer& Log::Impl::buffer_of_this_core(std::uint32_t& index) {
  index = runtime::Core::current().index() % static_cast<std::uint32_t>(buffers.size());
  return *buffers[index];
}

Result<Log::Reservation> Log::Impl::reserve(std::uint64_t bytes, std::uint32_t record_count, Purpose purpose) {
  KELDA_ASSERT(record_count > 0);
  bufferpool::require_no_latch();
  const bool foreground = purpose == Purpose::kOrdinary || purpose == Purpose::kRollBack;
  if (foreground && closed.load(std::memory_order_relaxed)) return Error(Code::kClosed, "the log was shut down");
  const std::uint64_t buffer_bytes = bytes + record_count * kRecordOverheadBytes;
  const std::uint64_t ring_bytes = buffer_bytes + record_count * space.batch_overhead();
  Reservation out;
  LogBuffer& buffer = buffer_of_this_core(out.buffer_);
  if (buffer_bytes > buffer.half_bytes()) return Error(Code::kTooLarge, "too many log records in one reservation");
  TRY(flush.health());
  if (purpose == Purpose::kOrdinary && checkpointer.running()) slow_down();
  while (!space.promise(ring_bytes, purpose)) TRY(wait_for_ring(ring_bytes, purpose));
  if (auto room = reserve_in(buffer, buffer_bytes); !room) {
    space.take_back(ring_bytes);
    return std::move(room).error();
  }
  if (buffer.filling() && !write_wanted.is_set()) write_wanted.set();
  out.log_ = this;
  out.buffer_bytes_ = buffer_bytes;
  out.ring_bytes_ = ring_bytes;
  return out;
}

// Writers that outrun a checkpoint would all stop at the limit until it ends. The delay grows with the square of the way
// to the limit: their rate sinks to what the checkpoint sustains, at milliseconds each instead of seconds at once.
void Log::Impl::slow_down() {
  const double pressure = std::min(space.pressure(), 1.0);
  const auto delay = static_cast<runtime::TimeNs>(pressure * pressure * static_cast<double>(kMaxDelayNs));
  if (delay >= kMinDelayNs) runtime::Core::current().sleep_until(runtime::now_ns() + delay);
}

Result<> Log::Impl::wait_for_ring(std::uint64_t bytes, Purpose purpose) {
  TRY(flush.health());
  if (purpose == Purpose::kCheckpoint || purpose == Purpose::kRecovery) {
    return Error(Code::kNoSpace, "the log ring has no room for a checkpoint");
  }
  if (!space.within_limit(bytes, purpose)) return checkpointer.run(false);
  // Promises are in the way: those of records become batches, those of reservations end by themselves.
  TRY(flush.wait_all());
  runtime::Core::current().yield();
  return {};
}

// With a writer in the background a full buffer waits only for its capture: the caller goes on while the batch is on its
// way to the device.
Result<> Log::Impl::reserve_in(LogBuffer& buffer, std::uint64_t bytes) {
  bool filled = false;
  while (!buffer.try_reserve(bytes, filled)) {
    TRY(flush.health());
    const auto nobody_flushes = [&] { return flush.failed() || (filled && !writer_running.load(std::memory_order_acquire)); };
    if (filled && nobody_flushes()) {
      TRY(flush.wait_all());
      continue;
    }
    if (filled) write_wanted.set();
    if (buffer.wait_for_room(bytes, nobody_flushes)) break;
  }
  return {};
}

void Log::Impl::release(Reservation& reservation) {
  if (buffers[reservation.buffer_]->give_back(reservation.buffer_bytes_)) write_wanted.set();
  if (!planted(Bug::kReserveNotGivenBack)) space.take_back(reservation.ring_bytes_);
  if (reservation.undo_bytes_ > 0) space.take_back_undo_promise(reservation.undo_bytes_);
  reservation.log_ = nullptr;
}

Log::Reservation::Reservation(Reservation&& o) noexcept
    : log_(std::exchange(o.log_, nullptr)), buffer_(o.buffer_), buffer_bytes_(o.buffer_bytes_), ring_bytes_(o.ring_bytes_),
      undo_bytes_(o.undo_bytes_) {}

Log::Reservation& Log::Reservation::operator=(Reservation&& o) noexcept {
  if (this == &o) return *this;
  if (log_ != nullptr) log_->release(*this);
  log_ = std::exchange(o.log_, nullptr);
  buffer_ = o.buffer_;
  buffer_bytes_ = o.buffer_bytes_;
  ring_bytes_ = o.ring_bytes_;
  undo_bytes_ = o.undo_bytes_;
  return *this;
}

Log::Reservation::~Reservation() {
  if (log_ != nullptr) log_->release(*this);
}

}  // namespace kelda::wal
