// Appending into the active half, swapping halves.
#include "wal/log_buffer.h"

#include <cstdlib>
#include <mutex>

#include "common/assert.h"

namespace kelda::wal {

void FreeBytes::operator()(std::byte* p) const { std::free(p); }

Result<AlignedBytes> allocate_aligned(std::uint64_t bytes, std::uint64_t alignment) {
  void* p = std::aligned_alloc(alignment, round_up(bytes, alignment));
  if (p == nullptr) return Error(Code::kOutOfMemory, "no memory for log buffers: give more memory or fewer buffers");
  return AlignedBytes(static_cast<std::byte*>(p));
}

Result<std::unique_ptr<LogBuffer>> LogBuffer::create(std::uint64_t half_bytes) {
  std::unique_ptr<LogBuffer> buffer(new LogBuffer);
  buffer->half_bytes_ = half_bytes;
  for (AlignedBytes& half : buffer->halves_) half = TRY(allocate_aligned(half_bytes, kPageBytes));
  return buffer;
}

// Lies on the stack of the waiting fiber, which may be gone as soon as the answer is stored.
struct LogBuffer::RoomWaiter {
  enum class Answer : std::uint8_t { kNone, kPromised, kTryAgain };
  runtime::Fiber* fiber;
  std::uint64_t bytes;
  RoomWaiter* next = nullptr;
  std::atomic<Answer> answer{Answer::kNone};

  void give(Answer a) {
    runtime::Fiber& woken = *fiber;
    answer.store(a, std::memory_order_release);
    runtime::Core::unpark(woken);
  }
};

bool LogBuffer::try_reserve(std::uint64_t bytes, bool& filled) {
  std::scoped_lock guard(latch_);
  filled = filled_.load(std::memory_order_relaxed) > 0;
  if (waiters_head_ != nullptr || !fits(bytes)) return false;
  reserved_ += bytes;
  return true;
}

bool LogBuffer::wait_for_room(std::uint64_t bytes, FunctionRef<bool()> give_up) {
  runtime::Core& core = runtime::Core::current();
  RoomWaiter self{&core.current_fiber(), bytes, nullptr, {}};
  {
    std::scoped_lock guard(latch_);
    if (waiters_head_ == nullptr && fits(bytes)) {
      reserved_ += bytes;
      return true;
    }
    if (give_up()) return false;
    (waiters_tail_ != nullptr ? waiters_tail_->next : waiters_head_) = &self;
    waiters_tail_ = &self;
  }
  while (self.answer.load(std::memory_order_acquire) == RoomWaiter::Answer::kNone) core.park();
  return self.answer.load(std::memory_order_relaxed) == RoomWaiter::Answer::kPromised;
}

// Latch held.
void LogBuffer::promise_to_waiters() {
  while (waiters_head_ != nullptr && fits(waiters_head_->bytes)) {
    RoomWaiter* const first = waiters_head_;
    waiters_head_ = first->next;
    if (waiters_head_ == nullptr) waiters_tail_ = nullptr;
    reserved_ += first->bytes;
    first->give(RoomWaiter::Answer::kPromised);
  }
}

void LogBuffer::wake_all() {
  std::scoped_lock guard(latch_);
  while (waiters_head_ != nullptr) {
    RoomWaiter* const first = waiters_head_;
    waiters_head_ = first->next;
    first->give(RoomWaiter::Answer::kTryAgain);
  }
  waiters_tail_ = nullptr;
}

bool LogBuffer::give_back(std::uint64_t bytes) {
  std::scoped_lock guard(latch_);
  KELDA_ASSERT(reserved_ >= bytes);
  reserved_ -= bytes;
  promise_to_waiters();
  return waiters_head_ != nullptr;
}

Lsn LogBuffer::append(const RecordSpec& spec, const bufferpool::BufferPool& pool, std::uint64_t bytes,
                      std::atomic<std::uint64_t>& next) {
  std::scoped_lock guard(latch_);
  return append_locked(spec, pool, bytes, next);
}

Lsn LogBuffer::append_locked(const RecordSpec& spec, const bufferpool::BufferPool& pool, std::uint64_t bytes,
                             std::atomic<std::uint64_t>& next) {
  const std::uint64_t at = filled_.load(std::memory_order_relaxed);
  KELDA_ASSERT(bytes <= reserved_ && at + bytes <= half_bytes_);
  std::byte* const out = halves_[active_].get() + at;
  encode(spec, &pool, bytes, out);
  // Relaxed is enough: the latch orders this against the leader's cut (group_flush.h, the proof).
  const Lsn lsn{next.fetch_add(1, std::memory_order_relaxed)};
  set_lsn(out, lsn);
  reserved_ -= bytes;
  filled_.store(at + bytes, std::memory_order_relaxed);
  if (record_count_++ == 0) first_ = lsn;
  last_ = lsn;
  if (spec.count.delta != 0) counts_[spec.count.tree.value] += spec.count.delta;
  appended_records_.store(appended_records() + 1, std::memory_order_relaxed);
  appended_bytes_.store(appended_bytes() + bytes, std::memory_order_relaxed);
  return lsn;
}

Captured LogBuffer::capture() {
  std::scoped_lock guard(latch_);
  Captured out;
  out.records = Bytes(halves_[active_].get(), filled_.load(std::memory_order_relaxed));
  out.record_count = record_count_;
  out.first = first_;
  out.last = last_;
  if (record_count_ == 0) return out;
  active_ ^= 1;
  filled_.store(0, std::memory_order_relaxed);
  record_count_ = 0;
  promise_to_waiters();
  return out;
}

std::int64_t LogBuffer::count_of(TreeId tree) {
  std::scoped_lock guard(latch_);
  const auto found = counts_.find(tree.value);
  return found == counts_.end() ? 0 : found->second;
}

}  // namespace kelda::wal
