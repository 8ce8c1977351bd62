// The seven steps of checkpoint.h.
#include "wal/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "wal/log_impl.h"

namespace kelda::wal {
namespace {

// A piece of counts or copies in one record.
constexpr std::size_t kBodyBytes = 64 << 10;
static_assert(kBodyBytes <= kMaxReserveBytes);

template <class T>
void add(std::vector<std::byte>& body, T value) {
  const auto* from = reinterpret_cast<const std::byte*>(&value);
  body.insert(body.end(), from, from + sizeof value);
}

}  // namespace

Result<> Checkpointer::run(bool clean_shutdown) {
  {
    std::unique_lock guard(latch_);
    while (running_) {
      const std::uint64_t joined = generation_;
      while (generation_ == joined) waiters_.wait(latch_);
      if (!clean_shutdown) return last_result_;
    }
    running_ = true;
    at_work_.store(true, std::memory_order_relaxed);
  }
  Result<> result = log_.flush.health();
  if (result) result = clean_shutdown ? checkpoint_and_close() : checkpoint(false);
  // A page or superblock that could not be written: the redo point would never move again.
  if (result.failed_with(Code::kFailed)) {
    log_.flush.fail(result.error());  // the pool's; the log's own is the first already, and stays
  } else if (!result && !result.failed_with(Code::kBusy)) {
    // Those who waited learn the same: a host without space is a failed device, not a full disk on which deletes go on.
    result = Error(Code::kFailed, "the checkpoint failed (" + result.error().to_string() +
                                      "); nothing is acknowledged any more: see to the device and restart to recover");
    log_.flush.fail(result.error());
  }
  std::scoped_lock guard(latch_);
  running_ = false;
  at_work_.store(false, std::memory_order_relaxed);
  ++generation_;
  last_result_ = result;
  waiters_.wake_all();
  return result;
}

Result<> Checkpointer::checkpoint_and_close() {
  log_.closed.store(true);
  Result<> result = Error(Code::kBusy, "transactions are open: end them before shutting down");
  if (log_.txns.empty()) result = checkpoint(true);
  if (!result) log_.closed.store(false);
  return result;
}

Result<> Checkpointer::checkpoint(bool clean_shutdown) {
  if (log_.checkpoint_listener != nullptr) log_.checkpoint_listener->checkpoint_starts();
  Counts counts;
  const Lsn start = TRY(append_start(counts));
  TRY(append_counts(start, counts));
  if (!planted(Bug::kUndoCopiesForgotten)) TRY(append_undo_copies());
  const Lsn end = TRY(append_body(RecordKind::kCheckpointEnd, Bytes(reinterpret_cast<const std::byte*>(&start.value), 8)));
  return finish(start, end, clean_shutdown);
}

Result<Lsn> Checkpointer::append_start(Counts& counts) {
  auto reservation = TRY(log_.reserve(sizeof(std::uint64_t), 1, log_.checkpoint_purpose));
  Lsn start;
  log_.with_all_buffers_locked([&] {
    for (auto& buffer : log_.buffers) {
      for (const auto& [tree, count] : buffer->counts_locked()) counts[tree] += count;
    }
    std::erase_if(counts, [](const auto& entry) { return entry.second == 0; });
    const std::uint64_t tree_count = counts.size();
    log_.flush.mark(Lsn{log_.log_now()});
    start = log_.append_plain(reservation, {.kind = RecordKind::kCheckpoint, .undo = std::as_bytes(std::span(&tree_count, 1))}, true);
  });
  return start;
}

Result<> Checkpointer::append_counts(Lsn start, const Counts& counts) {
  std::vector<std::byte> body;
  for (auto it = counts.begin(); it != counts.end();) {
    body.clear();
    add(body, start.value);
    for (; it != counts.end() && body.size() + 16 <= kBodyBytes; ++it) {
      add(body, it->first);
      add(body, it->second);
    }
    TRY(append_body(RecordKind::kCounts, body));
  }
  return {};
}

// The entries are gathered first: appending may wait, and the table's latches are held while visiting.
Result<> Checkpointer::append_undo_copies() {
  std::vector<std::byte> all;
  std::vector<std::size_t> ends;  // of records: entries are not split
  std::size_t piece = 0;
  log_.txns.for_each([&](const TxnLog& txn) {
    for (const auto& entry : txn.undo) {
      if (all.size() - piece + kUndoCopyHeaderBytes + entry.bytes > kMaxReserveBytes || all.size() - piece > kBodyBytes) {
        ends.push_back(all.size());
        piece = all.size();
      }
      add(all, txn.id.value);
      add(all, entry.lsn.value);
      add(all, entry.bytes);
      const Bytes undo = txn.undo_of(entry);
      all.insert(all.end(), undo.begin(), undo.end());
    }
  });
  if (all.size() > piece) ends.push_back(all.size());
  std::size_t from = 0;
  for (const std::size_t to : ends) {
    TRY(append_body(RecordKind::kUndoCopy, Bytes(all).subspan(from, to - from)));
    from = to;
  }
  return {};
}

Result<Lsn> Checkpointer::append_body(RecordKind kind, Bytes body) {
  auto reservation = TRY(log_.reserve(body.size(), 1, log_.checkpoint_purpose));
  return log_.append_plain(reservation, {.kind = kind, .undo = body});
}

Result<> Checkpointer::finish(Lsn start, Lsn end, bool clean_shutdown) {
  TRY(log_.flush.wait(end));
  const GroupFlush::BatchPlace place = log_.flush.marked();
  TRY(log_.pool.write_back_all());
  TRY(log_.flush.wait_all());
  if (clean_shutdown && log_.log_now() != end.value + 1) {
    return Error(Code::kBusy, "the log was written to while it was being shut down");
  }
  TRY(log_.superblock.write_checkpoint(log_.device, {.redo_lsn = planted(Bug::kRedoPointTooFar) ? end : start,
                                                     .log_position = place.position,
                                                     .batch_sequence = place.sequence,
                                                     .clean = clean_shutdown}));
  log_.space.free_before(place.position);
  if (log_.checkpoint_listener != nullptr) log_.checkpoint_listener->checkpoint_done();
  done_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

}  // namespace kelda::wal
