// A window on the ring that moves forward; batches in it are checked one after the other.
#include "wal/batch_reader.h"

#include <algorithm>
#include <string>

#include "common/planted_bug.h"
#include "wal/ring_space.h"

namespace kelda::wal {
namespace {

constexpr std::uint64_t kReadAheadBytes = 1 << 20;

}  // namespace

BatchReader::BatchReader(blockdev::BlockDevice& device, const disk::Layout& layout, const disk::CheckpointInfo& from)
    : device_(device), layout_(layout), capacity_(layout.log_bytes),
      unit_(std::max<std::uint64_t>(kBatchUnitBytes, device.info().block_bytes)),
      max_batch_(std::min(capacity_ / 8, kMaxBatchBytes)), start_(from.log_position), first_sequence_(from.batch_sequence),
      seed_(layout.checksum_seed()), clean_(from.clean), position_(start_), sequence_(first_sequence_) {}

Result<std::optional<BatchView>> BatchReader::next() {
  std::optional<BatchView> found = TRY(batch_at(position_));
  // A batch never wraps: one that did not fit lies at the ring's start.
  if (!found && position_ % capacity_ != 0) found = TRY(batch_at(ring_end_after(position_)));
  if (!found) {
    if (!clean_) TRY(look_for_later_batches());
    return found;
  }
  position_ = found->header.position + round_up(found->header.bytes, unit_);
  last_checksum_ = found->header.checksum;
  ++sequence_;
  return found;
}

Result<std::optional<BatchView>> BatchReader::batch_at(std::uint64_t position) {
  const std::optional<BatchView> none;
  if (position + unit_ > start_ + capacity_) return none;
  BatchHeader header;
  const std::byte* at = TRY(load(position, unit_));
  if (!plausible_header(at, max_batch_, header)) return none;
  if (header.sequence != sequence_ || header.position != position) return none;
  if (position + round_up(header.bytes, unit_) > std::min(ring_end_after(position), start_ + capacity_)) return none;
  at = TRY(load(position, round_up(header.bytes, unit_)));
  if (!verify_batch(at, header, seed_)) {
    ends_torn_ = true;
    return none;
  }
  // A leftover of a history that a crash cut off: it follows another predecessor.
  const bool first = sequence_ == first_sequence_ || planted(Bug::kBatchChainIgnored);
  if (!first && header.previous_checksum != last_checksum_) return none;
  return std::optional(BatchView{header, Bytes(at + sizeof header, header.bytes - sizeof header)});
}

Result<const std::byte*> BatchReader::load(std::uint64_t position, std::uint64_t bytes) {
  const bool inside = position >= window_position_ && position + bytes <= window_position_ + window_bytes_;
  if (!inside) {
    const std::uint64_t want = std::min(std::max(bytes, kReadAheadBytes), ring_end_after(position) - position);
    if (want > window_capacity_) {
      window_capacity_ = std::max(want, kReadAheadBytes);
      window_ = TRY(allocate_aligned(window_capacity_, unit_));
    }
    window_bytes_ = 0;
    TRY(device_.read(layout_.log_offset + position % capacity_, MutableBytes(window_.get(), want)));
    window_position_ = position;
    window_bytes_ = want;
  }
  return window_.get() + (position - window_position_);
}

Result<bool> BatchReader::durable_later_batch_at(std::uint64_t position) {
  BatchHeader header;
  const std::byte* at = TRY(load(position, unit_));
  if (!plausible_header(at, max_batch_, header)) return false;
  if (header.position != position || header.sequence <= sequence_ || header.durable_sequence < sequence_) return false;
  const std::uint64_t bytes = round_up(header.bytes, unit_);
  if (position + bytes > ring_end_after(position)) return false;
  at = TRY(load(position, bytes));
  return verify_batch(at, header, seed_);
}

// The missing batch lies at position_ or, if it did not fit there, at the ring's start; its successor begins at most the
// largest batch further on, or again at the ring's start.
Result<> BatchReader::look_for_later_batches() {
  const std::uint64_t reach = max_batch_ + unit_;
  const std::uint64_t ring_end = ring_end_after(position_);
  const std::uint64_t ranges[2][2] = {{position_ + unit_, std::min(position_ + reach, ring_end)},
                                      {ring_end, position_ + reach > ring_end ? ring_end + reach : ring_end}};
  for (const auto& [from, to] : ranges) {
    for (std::uint64_t at = from; at < std::min(to, start_ + capacity_); at += unit_) {
      if (!TRY(durable_later_batch_at(at))) continue;
      return Error(Code::kCorrupt, "the log is damaged: batch " + std::to_string(sequence_) + " at byte " +
                                       std::to_string(layout_.log_offset + position_ % capacity_) +
                                       " of the disk does not verify, but a later one does");
    }
  }
  return {};
}

}  // namespace kelda::wal
