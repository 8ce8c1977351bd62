// Reads batches off the ring, in sequence, and judges where the log ends.
//
// Contract: next() yields batches whose checksum, sequence, position and link to their predecessor are right. The first
// place where that fails is the end of the log (a torn or never written batch), unless a later batch is there that was
// written when the missing one was durable: then the log is damaged in the middle, kCorrupt. Later batches are looked for
// as far as one batch reaches. Never writes.
#pragma once

#include <cstdint>
#include <optional>

#include "blockdev/blockdev.h"
#include "common/result.h"
#include "disk/superblock.h"
#include "wal/batch.h"
#include "wal/log_buffer.h"

namespace kelda::wal {

struct BatchView {
  BatchHeader header;
  Bytes records;  // valid until the next call of the reader
};

class BatchReader {
 public:
  BatchReader(blockdev::BlockDevice& device, const disk::Layout& layout, const disk::CheckpointInfo& from);

  Result<std::optional<BatchView>> next();

  // After next() returned nothing, or at any time before: where the following batch goes.
  std::uint64_t end_position() const { return position_; }
  std::uint64_t next_sequence() const { return sequence_; }
  std::uint64_t last_checksum() const { return last_checksum_; }
  std::uint64_t bytes_read() const { return position_ - start_; }
  std::uint64_t batches_read() const { return sequence_ - first_sequence_; }
  // Something that began like the next batch was there but does not verify.
  bool ends_torn() const { return ends_torn_; }

 private:
  Result<const std::byte*> load(std::uint64_t position, std::uint64_t bytes);
  Result<std::optional<BatchView>> batch_at(std::uint64_t position);
  Result<bool> durable_later_batch_at(std::uint64_t position);
  Result<> look_for_later_batches();
  std::uint64_t ring_end_after(std::uint64_t position) const { return round_down(position, capacity_) + capacity_; }

  blockdev::BlockDevice& device_;
  const disk::Layout layout_;
  const std::uint64_t capacity_, unit_, max_batch_, start_, first_sequence_, seed_;
  const bool clean_;
  std::uint64_t position_, sequence_, last_checksum_ = 0;
  bool ends_torn_ = false;
  AlignedBytes window_;
  std::uint64_t window_capacity_ = 0, window_position_ = 0, window_bytes_ = 0;
};

}  // namespace kelda::wal
