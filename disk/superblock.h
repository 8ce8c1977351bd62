// Identifies a disk, fixes its layout and remembers the last checkpoint.
//
// Contract: two copies, written in turn, each with a sequence number and a checksum; the valid one with the higher
// number rules. A write is durable (flushed) when write_checkpoint() returns. A crash at any moment leaves one valid.
#pragma once

#include <optional>

#include "blockdev/blockdev.h"
#include "disk/layout.h"

namespace kelda::disk {

// What recovery needs to start. Changes at every checkpoint.
struct CheckpointInfo {
  Lsn redo_lsn{1};                     // every change below this is in the page area, durably
  std::uint64_t log_position = 0;      // monotone byte position (modulo log_bytes = offset in the ring) of the first batch to read
  std::uint64_t batch_sequence = 1;    // sequence number expected there
  bool clean = false;                  // shut down cleanly: nothing to redo or undo
};

struct FormatOptions {
  std::uint64_t log_bytes = 0;  // 0: chosen from the device's size
  bool force = false;           // overwrite what is there
};

class Superblock {
 public:
  // Reads and judges a device: kBlankDisk (all zero), kForeignDisk, kNewerFormat, kCorrupt (both copies bad),
  // kTooSmall (smaller than when formatted). Each message names what to do.
  static Result<Superblock> read(blockdev::BlockDevice& device);
  // Formats an empty device (kForeignDisk/kExists if it is not blank and !force; kTooSmall below kMinDeviceBytes) and flushes.
  static Result<Superblock> format(blockdev::BlockDevice& device, const FormatOptions& options);

  const Layout& layout() const { return layout_; }
  const CheckpointInfo& checkpoint() const { return checkpoint_; }
  // Single caller at a time. Writes the older copy and flushes.
  Result<> write_checkpoint(blockdev::BlockDevice& device, const CheckpointInfo& checkpoint);

  static constexpr std::uint64_t kMinDeviceBytes = 16 << 20;

 private:
  Layout layout_;
  CheckpointInfo checkpoint_;
  std::uint64_t sequence_ = 0;
};

}  // namespace kelda::disk
