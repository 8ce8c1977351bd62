// One mark that moves forward, a piece at a time.
#include "wal/ring_warmer.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "wal/ring_space.h"

namespace kelda::wal {
namespace {

constexpr std::uint64_t kPieceBytes = 1 << 20;
constexpr std::uint64_t kAllWarm = ~std::uint64_t{0};

}  // namespace

// A small ring is warmed in small steps.
RingWarmer::RingWarmer(blockdev::BlockDevice& device, const disk::Layout& layout)
    : device_(device), layout_(layout), piece_(std::min(round_down(layout.log_bytes / 32, kBatchUnitBytes), kPieceBytes)),
      ahead_(8 * piece_) {}

void RingWarmer::start_at(std::uint64_t head) {
  warm_to_.store(head >= layout_.log_bytes ? kAllWarm : head, std::memory_order_release);
}

bool RingWarmer::wants_more(std::uint64_t head) const {
  const std::uint64_t mark = warm_to_.load(std::memory_order_acquire);
  return mark != kAllWarm && head + ahead_ / 2 > mark;
}

Result<> RingWarmer::extend(std::uint64_t end) {
  if (end > layout_.log_bytes) return end_of_first_round();
  while (!warm_for(end)) TRY(extend_a_piece());
  return {};
}

// What was skipped at the ring's end stays cold. The mutex: no zeroes are in flight any more when the second way begins,
// and none start.
Result<> RingWarmer::end_of_first_round() {
  std::scoped_lock guard(mutex_);
  zeroes_.reset();
  warm_to_.store(kAllWarm, std::memory_order_release);
  return {};
}

Result<> RingWarmer::extend_a_piece() {
  std::scoped_lock guard(mutex_);
  const std::uint64_t mark = warm_to_.load(std::memory_order_relaxed);
  if (mark == kAllWarm) return {};
  if (!zeroes_) {
    zeroes_ = TRY(allocate_aligned(piece_, kPageBytes));
    std::memset(zeroes_.get(), 0, piece_);
  }
  const std::uint64_t bytes = std::min(piece_, layout_.log_bytes - mark);
  TRY(device_.write(layout_.log_offset + mark, Bytes(zeroes_.get(), bytes)));
  const bool all = mark + bytes == layout_.log_bytes;
  if (all) zeroes_.reset();
  warm_to_.store(all ? kAllWarm : mark + bytes, std::memory_order_release);
  return {};
}

}  // namespace kelda::wal
