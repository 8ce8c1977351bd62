// Identifies a disk, fixes its layout and remembers the last checkpoint.
//
// Contract: two copies, written in turn, each with a sequence number and a checksum; the valid one with the higher
// number rules. A write is durable (flushed) when write_checkpoint() returns. A crash at any moment leaves one valid.
#pragma once

#include <cstdint>

#include "blockdev/blockdev.h"
#include "disk/layout.h"

namespace kelda::disk {

// What recovery needs to start. Changes at every checkpoint.
struct CheckpointInfo {
  Lsn redo_lsn{1};                     // every change below this is in the page area, durably
  std::uint64_t log_position = 0;      // monotone byte position (modulo log_bytes = offset in the ring) of the first batch to read
  std::uint64_t batch_sequence = 1;    // sequence number expected there
  bool clean = false;                  // shut down cleanly: nothing to redo or undo

  // What a superblock must say to be believed. The numbers are counted up from 0 or 1: none comes near 2^62.
  bool plausible() const {
    constexpr std::uint64_t kTooHigh = std::uint64_t{1} << 62;
    return redo_lsn > kNoLsn && redo_lsn.value < kTooHigh && batch_sequence > 0 && batch_sequence < kTooHigh &&
           log_position % kPageBytes == 0 && log_position < kTooHigh;
  }
};

struct FormatOptions {
  std::uint64_t log_bytes = 0;  // 0: chosen from the device's size
  bool force = false;           // overwrite what is there
};

class Superblock {
 public:
  // Reads and judges a device: kBlankDisk (first and last MiB read as zero), kForeignDisk, kNewerFormat, kCorrupt (both
  // copies bad), kTooSmall (smaller than the superblock says, or than kMinDeviceBytes). Each message names what to do, for
  // those who only read: see advise_to_format.
  static Result<Superblock> read(blockdev::BlockDevice& device);
  // Formats a blank device and flushes: kExists (Kelda's, of whatever version or state) or kForeignDisk if it is not
  // blank and !force; kTooSmall below kMinDeviceBytes. Afterwards the space-map page of every group reads as zero; other
  // pages may hold old bytes, which do not verify under the new uuid. Writes little: a sparse file stays sparse.
  static Result<Superblock> format(blockdev::BlockDevice& device, const FormatOptions& options);

  const Layout& layout() const { return layout_; }
  const CheckpointInfo& checkpoint() const { return checkpoint_; }
  std::int64_t formatted_at_us() const { return formatted_at_us_; }
  // Copies that verified when read: 1 means that the other is damaged (or was never written), for `kelda check`.
  unsigned valid_copies() const { return valid_copies_; }
  // Takes a layout of more pages into use (layout().grown_to()), with the checkpoint as it is: clears the space maps of the
  // groups that are new, whatever lies there, and flushes; then writes both copies, one after the other, each flushed. A
  // crash or an error on the way leaves the disk at its old size or at the new one. Single caller, before anything writes checkpoints.
  Result<> grow(blockdev::BlockDevice& device, const Layout& larger);
  // Single caller at a time. Writes the older copy and flushes.
  Result<> write_checkpoint(blockdev::BlockDevice& device, const CheckpointInfo& checkpoint);

  static constexpr std::uint64_t kMinDeviceBytes = 16 << 20;

 private:
  friend struct SuperblockCodec;
  Layout layout_;
  CheckpointInfo checkpoint_;
  std::uint64_t sequence_ = 0;
  std::uint64_t compatible_ = 0;  // carried through when unknown
  std::int64_t formatted_at_us_ = 0;
  unsigned valid_copies_ = 0;
};

// The error of Superblock::read with how to format a blank or foreign disk added to its message; for callers that can.
Error advise_to_format(Error error);

}  // namespace kelda::disk
