// Disks of the booted machine, by the names /dev/vda, /dev/vdb, ... in the order in which they were found.
#pragma once

#include "blockdev/blockdev.h"

namespace kelda::blockdev {

// kNotFound when there is no such disk: the message lists those that are there.
Result<std::unique_ptr<BlockDevice>> open_virtio(const std::string& name, OpenOptions options);

}  // namespace kelda::blockdev
