// Any superblock with a valid checksum: it is refused with a reason, or what it says can be believed.
#include "common/assert.h"
#include "fuzz/disk_images.h"
#include "fuzz/fuzz_target.h"
#include "disk/superblock.h"

namespace kelda::fuzz {

namespace {

void run(Bytes bytes) {
  Input input(bytes);
  auto disk = copy_disk(DiskState::kClean);
  const std::uint8_t which = input.byte() % 4;  // one copy, the other, both; or bytes that are not sealed
  if (which == 0 || which == 2) damage_superblock(*disk, input, 0);
  if (which == 1 || which == 2) damage_superblock(*disk, input, 1);
  if (which == 3) {
    const Bytes raw = input.rest();
    disk->poke(0, raw);
    disk->poke(disk::kSuperblockCopyOffsets[1], raw);
  }
  const auto superblock = disk::Superblock::read(*disk);
  if (!superblock) {
    KELDA_ASSERT(!superblock.error().message().empty());
    return;
  }
  const disk::Layout& layout = superblock->layout();
  KELDA_ASSERT(layout.plausible() && layout.device_bytes <= disk->info().size_bytes);
  KELDA_ASSERT(superblock->checkpoint().plausible());
  KELDA_ASSERT(layout.offset_of(PageId(layout.page_count)) <= disk->info().size_bytes);
}

}  // namespace

const FuzzTarget kSuperblock = {"superblock", run};

}  // namespace kelda::fuzz
