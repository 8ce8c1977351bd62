// Small disks with everything on them, and changes of their structures behind valid checksums.
#pragma once

#include <memory>
#include <vector>

#include "blockdev/memory_sim.h"
#include "fuzz/input.h"

namespace kelda::fuzz {

enum class DiskState { kClean, kCrashed };  // crashed: with a log to redo and transactions to undo

// A fresh copy. The content comes from one fixed script, run once a process.
std::unique_ptr<blockdev::MemoryDevice> copy_disk(DiskState state);

// Patches superblock copies, pages, log batches and headers of the double-write area, and seals each again, as the input
// says: {kind u8, number u16, count u8, patches} until `count` or the input is used up.
void damage_disk(blockdev::MemoryDevice& disk, Input& input, unsigned count);
void damage_superblock(blockdev::MemoryDevice& disk, Input& input, unsigned copy);

}  // namespace kelda::fuzz
