// Formatting: a new superblock over a blank device, or by force over anything. And growing, which is formatting the rest.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "disk/aligned_buffer.h"
#include "disk/io_batch.h"
#include "disk/page_check.h"
#include "disk/superblock.h"
#include "disk/superblock_codec.h"
#include "runtime/core.h"

namespace kelda::disk {
namespace {

// Anything but "blank" forbids formatting without force.
Result<> may_format(blockdev::BlockDevice& device) {
  Result<Superblock> found = Superblock::read(device);
  if (found.failed_with(Code::kBlankDisk)) return {};
  const std::string& name = device.info().name;
  if (!found) {
    const Code code = found.error().code();
    if (code != Code::kNewerFormat && code != Code::kCorrupt) return advise_to_format(std::move(found).error());
    return Error(Code::kExists, found.error().message() + " (not formatted: that needs --force)");
  }
  return Error(Code::kExists, fmt::format("{} is a Kelda disk already: open it without --create, or format it with --force, "
                                          "which destroys what it holds",
                                          name));
}

std::uint64_t group_count(const Layout& layout) { return (layout.page_count + kPagesPerSpaceMap - 1) / kPagesPerSpaceMap; }

// The space map of every group from this one on must read as "nothing in use". On a blank device this only reads, so that a sparse file
// stays sparse; one page each 127 MiB, many at a time.
Result<> clear_space_maps(blockdev::BlockDevice& device, const Layout& layout, std::uint64_t first_group) {
  constexpr std::uint64_t kAtOnce = 64;
  AlignedBuffer buffer(kAtOnce * kPageBytes);
  AlignedBuffer zeroes(kPageBytes);
  const std::uint64_t groups = group_count(layout);
  for (std::uint64_t first = first_group; first < groups; first += kAtOnce) {
    const std::uint64_t count = std::min(kAtOnce, groups - first);
    std::vector<blockdev::IoSegment> segments(count);
    std::vector<blockdev::Request> requests(count);
    std::vector<blockdev::Request*> pointers(count);
    runtime::Completion completion;
    for (std::uint64_t i = 0; i < count; ++i) {
      segments[i] = {buffer.data() + i * kPageBytes, kPageBytes};
      requests[i].offset_bytes = layout.offset_of(PageId((first + i) * kPagesPerSpaceMap));
      requests[i].segments = {&segments[i], 1};
      requests[i].completion = &completion;
      pointers[i] = &requests[i];
    }
    completion.add(static_cast<std::uint32_t>(count));
    device.submit(pointers);
    completion.wait();
    for (std::uint64_t i = 0; i < count; ++i) {
      TRY(std::move(requests[i].status));
      if (all_zero({segments[i].data, kPageBytes})) continue;
      TRY(device.write(requests[i].offset_bytes, zeroes.span()));
    }
  }
  return {};
}

}  // namespace

Superblock SuperblockCodec::fresh(const Layout& layout) {
  Superblock superblock;
  superblock.layout_ = layout;
  superblock.formatted_at_us_ = runtime::wall_clock_us();
  superblock.valid_copies_ = 2;
  return superblock;
}

Result<Superblock> Superblock::format(blockdev::BlockDevice& device, const FormatOptions& options) {
  const blockdev::DeviceInfo& info = device.info();
  if (info.read_only) return Error(Code::kInvalidArgument, fmt::format("{} is read-only: it cannot be formatted", info.name));
  if (!options.force) TRY(may_format(device));
  if (info.size_bytes < kMinDeviceBytes) return SuperblockCodec::too_small(info);

  Layout layout = TRY(choose_layout(info.size_bytes, options.log_bytes));
  runtime::random_bytes(std::as_writable_bytes(std::span(layout.uuid)));
  // Copies of an earlier formatting go first: were the crash to leave one of them beside the new one, its higher
  // sequence number could win.
  AlignedBuffer zeroes(kPageBytes);
  for (std::uint64_t offset : kSuperblockCopyOffsets) {
    if (!planted(Bug::kFormatKeepsOldCopies)) TRY(device.write(offset, zeroes.span()));
  }
  // Before anything else of the old disk goes: its superblock must not outlive its pages.
  TRY(flush_device(device));
  TRY(clear_space_maps(device, layout, 0));
  TRY(flush_device(device));

  Superblock superblock = SuperblockCodec::fresh(layout);
  for (int copy = 0; copy < 2; ++copy) {
    ++superblock.sequence_;
    TRY(SuperblockCodec::write(superblock, device));
  }
  return superblock;
}

// The last group of the old size may have become longer: its map has had all bits from the start, those beyond the end clear.
Result<> Superblock::grow(blockdev::BlockDevice& device, const Layout& larger) {
  KELDA_ASSERT(larger.page_count >= layout_.page_count && larger.pages_offset == layout_.pages_offset &&
               larger.uuid == layout_.uuid && larger.device_bytes <= device.info().size_bytes);
  TRY(clear_space_maps(device, larger, group_count(layout_)));
  // Before the superblock names these groups: a crash between must not leave maps that were never cleared.
  TRY(flush_device(device));
  // Both copies, as when formatting: one of the old size that is left alone could rule again when the other is damaged, and
  // growing anew would clear maps that are in use by then.
  for (int copy = 0; copy < 2; ++copy) {
    Superblock next = *this;
    next.layout_ = larger;
    ++next.sequence_;
    TRY(SuperblockCodec::write(next, device));
    *this = next;
  }
  return {};
}

}  // namespace kelda::disk
