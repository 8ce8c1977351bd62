// Waiters, the leader's round, and the hand-over to the next leader.
#include "wal/group_flush.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::wal {

namespace {

Error failed_write(const Error& cause) {
  return Error(Code::kFailed, "writing the log failed (" + cause.to_string() +
                                  "); nothing is acknowledged any more: see to the device and restart to recover");
}

}  // namespace

// Lies on the stack of the waiting fiber.
struct GroupFlush::Waiter {
  enum class Answer : std::uint8_t { kNone, kLook, kLead };  // kLook: hardened or failed
  runtime::Core* core;
  runtime::Fiber* fiber;
  Lsn lsn;
  Waiter* next = nullptr;
  std::atomic<Answer> answer{Answer::kNone};

  // The waiter may be gone as soon as the answer is stored.
  void give(Answer a) {
    runtime::Fiber& woken = *fiber;
    answer.store(a, std::memory_order_release);
    runtime::Core::unpark(woken);
  }
};

struct GroupFlush::Batch {
  Lsn cut;
  BatchHeader header{};
  std::uint64_t records_bytes = 0;
};

GroupFlush::GroupFlush(blockdev::BlockDevice& device, const disk::Layout& layout, RingSpace& space,
                       std::vector<std::unique_ptr<LogBuffer>>& buffers, std::atomic<std::uint64_t>& next,
                       runtime::Event& checkpoint_wanted, runtime::Event& write_wanted)
    : device_(device), layout_(layout), space_(space), buffers_(buffers), next_(next), checkpoint_wanted_(checkpoint_wanted),
      write_wanted_(write_wanted), confirms_(device.info().has_flush || device.info().has_fua), warmer_(device, layout) {}

Result<> GroupFlush::allocate() {
  staging_ = TRY(allocate_aligned(space_.max_batch_bytes(), space_.unit()));
  return {};
}

void GroupFlush::resume(const Resume& at, Lsn hardened_lsn) {
  sequence_ = at.sequence;
  previous_checksum_ = at.previous_checksum;
  restart_lsn_ = at.restart_lsn;
  durable_at_start_ = hardened_lsn.value;
  warmer_.start_at(space_.head());
  set_hardened(hardened_lsn);
}

Result<> GroupFlush::health() const {
  if (!failed()) return {};
  std::scoped_lock guard(latch_);
  return *failure_;
}

Result<> GroupFlush::wait_all() {
  const Lsn last{next_.load(std::memory_order_relaxed) - 1};
  return wait(last);
}

Result<> GroupFlush::wait(Lsn lsn) {
  if (hardened() >= lsn) return health();
  KELDA_ASSERT(lsn.value < next_.load(std::memory_order_relaxed));
  Waiter self{&runtime::Core::current(), nullptr, lsn, nullptr, {}};
  self.fiber = &self.core->current_fiber();
  {
    std::unique_lock guard(latch_);
    ++stats_.waits;
    if (failure_) return *failure_;
    if (hardened() >= lsn) return {};
    if (leading_) {
      (waiters_tail_ ? waiters_tail_->next : waiters_head_) = &self;
      waiters_tail_ = &self;
    } else {
      leading_ = true;
      self.answer.store(Waiter::Answer::kLead, std::memory_order_relaxed);
    }
  }
  while (self.answer.load(std::memory_order_acquire) == Waiter::Answer::kNone) self.core->park();
  if (self.answer.load(std::memory_order_acquire) == Waiter::Answer::kLead) lead();
  TRY(health());
  KELDA_ASSERT(hardened() >= lsn);
  return {};
}

void GroupFlush::lead() {
  // Fibers of this core that are ready come along, instead of waiting for the batch after this one.
  runtime::Core::current().yield();
  const Batch batch = collect();
  Result<> outcome;
  if (batch.header.record_count > 0) outcome = write(batch);
  publish(batch.cut, std::move(outcome));
}

// Copies every buffer's records behind the room for the header.
GroupFlush::Batch GroupFlush::collect() {
  Batch batch;
  batch.cut = Lsn{next_.load(std::memory_order_relaxed)};
  std::uint64_t at = sizeof(BatchHeader);
  std::uint64_t first = ~std::uint64_t{0}, last = 0, count = 0;
  for (auto& buffer : buffers_) {
    const Captured captured = buffer->capture();
    if (captured.record_count == 0) continue;
    KELDA_ASSERT(at + captured.records.size() <= space_.max_batch_bytes());
    std::memcpy(staging_.get() + at, captured.records.data(), captured.records.size());
    at += captured.records.size();
    count += captured.record_count;
    first = std::min(first, captured.first.value);
    last = std::max(last, captured.last.value);
  }
  batch.records_bytes = at - sizeof(BatchHeader);
  batch.header.bytes = static_cast<std::uint32_t>(at);
  batch.header.record_count = static_cast<std::uint32_t>(count);
  batch.header.first_lsn = first;
  batch.header.last_lsn = last;
  batch.header.cut = batch.cut.value;
  return batch;
}

Result<> GroupFlush::write(const Batch& batch) {
  const std::uint64_t bytes = round_up(batch.header.bytes, space_.unit());
  const std::uint64_t position = space_.place(bytes);
  BatchHeader header = batch.header;
  header.sequence = sequence_;
  header.position = position;
  header.previous_checksum = previous_checksum_;
  header.durable_sequence = confirms_ ? sequence_ - 1 : 0;
  header.restart_lsn = restart_lsn_;
  std::memset(staging_.get() + header.bytes, 0, bytes - header.bytes);
  seal_batch(staging_.get(), header, layout_.checksum_seed());
  const auto done = put_on_device(position, bytes);
  if (!done && !planted(Bug::kLogWriteFailureIgnored)) return failed_write(done.error());
  const std::uint64_t wanted = mark_lsn_.load(std::memory_order_relaxed);
  if (wanted != 0 && header.last_lsn >= wanted) {
    marked_ = {position, sequence_};
    mark_lsn_.store(0, std::memory_order_relaxed);
  }
  std::memcpy(&previous_checksum_, staging_.get(), sizeof previous_checksum_);
  restart_lsn_ = 0;
  ++sequence_;
  space_.written(position, bytes, batch.records_bytes);
  if (space_.wants_checkpoint() && !checkpoint_wanted_.is_set()) checkpoint_wanted_.set();
  if (wants_warmth() && !write_wanted_.is_set()) write_wanted_.set();
  return {};
}

Result<> GroupFlush::warm() {
  auto done = warmer_.extend_a_piece();
  if (!done) fail(failed_write(done.error()));
  return done;
}

Result<> GroupFlush::put_on_device(std::uint64_t position, std::uint64_t bytes) {
  const std::uint64_t offset = layout_.log_offset + position % space_.capacity();
  const auto& info = device_.info();
  if (!warmer_.warm_for(position + bytes)) TRY(warmer_.extend(position + bytes));
  {
    std::scoped_lock guard(latch_);
    ++stats_.batches;
    stats_.written_bytes += bytes;
    ++stats_.flushes;
  }
  const Bytes batch(staging_.get(), bytes);
  if (info.has_fua && bytes <= info.max_transfer_bytes && !planted(Bug::kAckBeforeFlush)) {
    return device_.write_durable(offset, batch);
  }
  TRY(device_.write(offset, batch));
  if (planted(Bug::kAckBeforeFlush) || (planted(Bug::kLogFlushRetried) && device_.flush())) return {};
  if (info.has_flush) TRY(device_.flush());
  return {};
}

void GroupFlush::publish(Lsn cut, Result<> outcome) {
  Waiter* next_leader = nullptr;
  Waiter* answered;
  {
    std::scoped_lock guard(latch_);
    if (!outcome && !failure_) {
      failure_ = std::make_unique<Error>(std::move(outcome.error()));
      failed_.store(true, std::memory_order_release);
    }
    const std::uint64_t through = planted(Bug::kHardenedOneTooHigh) ? cut.value : cut.value - 1;
    if (!failure_) hardened_.store(std::max(hardened().value, through), std::memory_order_release);
    answered = take_answered(next_leader);
    leading_ = next_leader != nullptr;
  }
  // The next leader first: the device is free.
  if (next_leader != nullptr && !planted(Bug::kNextLeaderNotWoken)) next_leader->give(Waiter::Answer::kLead);
  answer(answered);
}

// Unlinks the waiters that have their answer, and one of the others to lead: one of this core if there is one, because
// waking another core takes longer. Latch held.
GroupFlush::Waiter* GroupFlush::take_answered(Waiter*& next_leader) {
  Waiter* answered = nullptr;
  Waiter** answered_end = &answered;
  Waiter* left = nullptr;
  Waiter** left_end = &left;
  Waiter** leader_link = nullptr;
  const runtime::Core* here = runtime::Core::current_or_null();
  for (Waiter* w = waiters_head_; w != nullptr; w = w->next) {
    if (failure_ || w->lsn <= hardened()) {
      *answered_end = w;
      answered_end = &w->next;
    } else {
      *left_end = w;
      if (leader_link == nullptr || (w->core == here && (*leader_link)->core != here)) leader_link = left_end;
      left_end = &w->next;
    }
  }
  *answered_end = nullptr;
  *left_end = nullptr;
  if (leader_link != nullptr) {
    next_leader = *leader_link;
    *leader_link = next_leader->next;
  }
  waiters_head_ = left;
  waiters_tail_ = nullptr;
  for (Waiter* w = left; w != nullptr; w = w->next) waiters_tail_ = w;
  return answered;
}

void GroupFlush::fail(Error error) {
  Waiter* answered;
  {
    std::scoped_lock guard(latch_);
    if (!failure_) failure_ = std::make_unique<Error>(std::move(error));
    failed_.store(true, std::memory_order_release);
    Waiter* nobody = nullptr;
    answered = take_answered(nobody);
  }
  answer(answered);
}

void GroupFlush::answer(Waiter* answered) {
  while (answered != nullptr) {
    Waiter* const following = answered->next;
    answered->give(Waiter::Answer::kLook);
    answered = following;
  }
  // Nothing will be captured any more: who waits for room must not wait for that.
  if (failed()) {
    for (auto& buffer : buffers_) buffer->wake_all();
  }
}

GroupFlush::Stats GroupFlush::stats() const {
  std::scoped_lock guard(latch_);
  return stats_;
}

}  // namespace kelda::wal
