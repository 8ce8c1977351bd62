// Between a Superblock and its bytes; internal to disk/.
#pragma once

#include "disk/superblock.h"
#include "disk/superblock_format.h"

namespace kelda::disk {

struct SuperblockCodec {
  static Superblock decode(const SuperblockBytes& bytes);
  static void encode(const Superblock& superblock, SuperblockBytes& bytes);
  // Writes the copy that the sequence number names, and flushes.
  static Result<> write(const Superblock& superblock, blockdev::BlockDevice& device);
  static Superblock fresh(const Layout& layout);
  static Error too_small(const blockdev::DeviceInfo& info);
};

}  // namespace kelda::disk
