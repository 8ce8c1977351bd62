// Records on their way to the ring: a buffer that some cores share, in two halves.
//
// Contract: append() goes to the active half under the latch and takes the LSN there, so the LSNs of a half ascend. The
// leader of a flush swaps the halves (capture) and copies the full one at leisure: the latch is never held for a copy of
// more than one record. Room is promised first (reserve), so append() cannot fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "common/function_ref.h"
#include "common/result.h"
#include "runtime/sync.h"
#include "wal/record.h"

namespace kelda::wal {

struct FreeBytes {
  void operator()(std::byte* p) const;
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeBytes>;
Result<AlignedBytes> allocate_aligned(std::uint64_t bytes, std::uint64_t alignment);

// What a half holds, handed to the leader. The bytes stay valid until the next capture of the same buffer.
struct Captured {
  Bytes records;
  std::uint64_t record_count = 0;
  Lsn first, last;
};

class LogBuffer {
 public:
  static Result<std::unique_ptr<LogBuffer>> create(std::uint64_t half_bytes);

  std::uint64_t half_bytes() const { return half_bytes_; }

  // Promises room. False if there is none now, or others have waited longer; `filled` tells whether a flush would make some.
  bool try_reserve(std::uint64_t bytes, bool& filled);
  // Parks until room was promised (true), first come first served: newcomers do not overtake, or a busy buffer would keep
  // some waiting for long. False: try again, after `give_up` (asked under the latch) or wake_all().
  bool wait_for_room(std::uint64_t bytes, FunctionRef<bool()> give_up);
  void wake_all();
  // True if somebody still waits, so that another flush is wanted.
  bool give_back(std::uint64_t bytes);

  // Copies the record in and returns its LSN, taken from `next`.
  Lsn append(const RecordSpec& spec, const bufferpool::BufferPool& pool, std::uint64_t bytes, std::atomic<std::uint64_t>& next);
  Captured capture();

  // Half full: worth a flush that nobody waits for.
  bool filling() const { return filled_.load(std::memory_order_relaxed) > half_bytes_ / 2; }

  // The checkpoint's view: with the latches of all buffers held, LSNs and counts stand still.
  void lock() { latch_.lock(); }
  void unlock() { latch_.unlock(); }
  Lsn append_locked(const RecordSpec& spec, const bufferpool::BufferPool& pool, std::uint64_t bytes, std::atomic<std::uint64_t>& next);
  std::unordered_map<std::uint64_t, std::int64_t>& counts_locked() { return counts_; }

  std::int64_t count_of(TreeId tree);
  std::uint64_t appended_records() const { return appended_records_.load(std::memory_order_relaxed); }
  std::uint64_t appended_bytes() const { return appended_bytes_.load(std::memory_order_relaxed); }

 private:
  struct RoomWaiter;
  LogBuffer() = default;
  void promise_to_waiters();
  bool fits(std::uint64_t bytes) const { return filled_.load(std::memory_order_relaxed) + reserved_ + bytes <= half_bytes_; }

  runtime::SpinLatch latch_;
  std::uint64_t half_bytes_ = 0;
  AlignedBytes halves_[2];
  std::uint32_t active_ = 0;
  // Written under the latch; the loads outside it are hints.
  std::atomic<std::uint64_t> filled_{0};
  std::uint64_t reserved_ = 0;
  std::uint64_t record_count_ = 0;
  Lsn first_, last_;
  std::atomic<std::uint64_t> appended_records_{0}, appended_bytes_{0};
  // Keys by tree that this buffer's records added or removed: the tree's count is the sum over all buffers.
  std::unordered_map<std::uint64_t, std::int64_t> counts_;
  RoomWaiter* waiters_head_ = nullptr;
  RoomWaiter* waiters_tail_ = nullptr;
};

}  // namespace kelda::wal
