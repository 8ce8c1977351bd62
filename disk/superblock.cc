#include "disk/superblock.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "common/checksum.h"
#include "common/planted_bug.h"
#include "disk/aligned_buffer.h"
#include "disk/foreign.h"
#include "disk/io_batch.h"
#include "disk/page_check.h"
#include "disk/superblock_codec.h"
#include "disk/superblock_format.h"

namespace kelda::disk {

namespace {

std::uint64_t checksum_of(SuperblockBytes bytes, unsigned copy) {
  bytes.checksum = 0;
  return checksum64({reinterpret_cast<const std::byte*>(&bytes), sizeof bytes}, copy);
}

}  // namespace

void seal_superblock(SuperblockBytes& bytes, unsigned copy) { bytes.checksum = checksum_of(bytes, copy); }

bool superblock_verifies(const SuperblockBytes& bytes, unsigned copy) {
  return bytes.magic == kSuperblockMagic && bytes.checksum == checksum_of(bytes, copy);
}

Superblock SuperblockCodec::decode(const SuperblockBytes& bytes) {
  Superblock superblock;
  Layout& layout = superblock.layout_;
  layout.device_bytes = bytes.device_bytes;
  layout.log_offset = bytes.log_offset;
  layout.log_bytes = bytes.log_bytes;
  layout.double_write_offset = bytes.double_write_offset;
  layout.double_write_bytes = bytes.double_write_bytes;
  layout.pages_offset = bytes.pages_offset;
  layout.page_count = bytes.page_count;
  std::ranges::copy(bytes.uuid, layout.uuid.begin());
  superblock.checkpoint_ = {Lsn(bytes.redo_lsn), bytes.log_position, bytes.batch_sequence,
                            (bytes.flags & kSuperblockCleanFlag) != 0};
  superblock.sequence_ = bytes.sequence;
  superblock.compatible_ = bytes.compatible;
  superblock.formatted_at_us_ = bytes.formatted_at_us;
  return superblock;
}

void SuperblockCodec::encode(const Superblock& superblock, SuperblockBytes& bytes) {
  std::memset(&bytes, 0, sizeof bytes);
  const Layout& layout = superblock.layout_;
  bytes.magic = kSuperblockMagic;
  bytes.format_version = kFormatVersion;
  bytes.header_bytes = sizeof bytes;
  bytes.compatible = superblock.compatible_;
  std::ranges::copy(layout.uuid, bytes.uuid);
  bytes.device_bytes = layout.device_bytes;
  bytes.log_offset = layout.log_offset;
  bytes.log_bytes = layout.log_bytes;
  bytes.double_write_offset = layout.double_write_offset;
  bytes.double_write_bytes = layout.double_write_bytes;
  bytes.pages_offset = layout.pages_offset;
  bytes.page_count = layout.page_count;
  bytes.sequence = superblock.sequence_;
  bytes.redo_lsn = superblock.checkpoint_.redo_lsn.value;
  bytes.log_position = superblock.checkpoint_.log_position;
  bytes.batch_sequence = superblock.checkpoint_.batch_sequence;
  bytes.flags = superblock.checkpoint_.clean ? kSuperblockCleanFlag : 0;
  bytes.formatted_at_us = superblock.formatted_at_us_;
}

Result<> SuperblockCodec::write(const Superblock& superblock, blockdev::BlockDevice& device) {
  const unsigned copy = planted(Bug::kSuperblockSameCopy) ? 0 : superblock.sequence_ % 2;
  AlignedBuffer page(kPageBytes);
  auto& bytes = *reinterpret_cast<SuperblockBytes*>(page.data());
  encode(superblock, bytes);
  seal_superblock(bytes, copy);
  TRY(device.write(kSuperblockCopyOffsets[copy], page.span()));
  return flush_device(device);
}

namespace {

// What a verified copy says is judged before it is believed.
Result<Superblock> accept(const SuperblockBytes& bytes, const blockdev::DeviceInfo& info) {
  if (bytes.format_version > kFormatVersion || (bytes.incompatible & ~kKnownIncompatible) != 0) {
    return Error(Code::kNewerFormat,
                 fmt::format("{} was written by a newer Kelda (format version {}, features {:#x}; this program knows version "
                             "{}): use that version or a newer one",
                             info.name, bytes.format_version, bytes.incompatible, kFormatVersion));
  }
  Superblock superblock = SuperblockCodec::decode(bytes);
  if (!superblock.layout().plausible()) {
    return Error(Code::kCorrupt, fmt::format("{}: the superblock's layout makes no sense: restore from a backup", info.name));
  }
  if (!superblock.checkpoint().plausible()) {
    return Error(Code::kCorrupt, fmt::format("{}: the superblock's checkpoint makes no sense: restore from a backup", info.name));
  }
  if (superblock.layout().device_bytes > info.size_bytes) {
    return Error(Code::kTooSmall,
                 fmt::format("{} has {} bytes but the disk on it needs {}: it was cut short; enlarge it to its old size",
                             info.name, info.size_bytes, superblock.layout().device_bytes));
  }
  return superblock;
}

Result<bool> last_mib_is_zero(blockdev::BlockDevice& device) {
  const std::uint64_t size = round_down(device.info().size_bytes, kPageBytes);
  const std::uint64_t tail = std::min<std::uint64_t>(size, 1_MiB);
  AlignedBuffer buffer(tail);
  TRY(device.read(size - tail, buffer.span()));
  return all_zero(buffer.span());
}

// No copy verifies: what is it then?
Error judge_unrecognised(blockdev::BlockDevice& device) {
  const blockdev::DeviceInfo& info = device.info();
  const std::uint64_t head = std::min<std::uint64_t>(1_MiB, round_down(info.size_bytes, info.block_bytes));
  if (head == 0) return SuperblockCodec::too_small(info);
  AlignedBuffer buffer(head);
  if (Result<> read = device.read(0, buffer.span().first(head)); !read) return std::move(read).error();
  const Bytes start = buffer.span().first(head);
  for (std::uint64_t offset : kSuperblockCopyOffsets) {
    std::uint64_t magic = 0;
    if (offset + sizeof magic <= start.size()) std::memcpy(&magic, start.data() + offset, sizeof magic);
    if (magic == kSuperblockMagic) {
      return Error(Code::kCorrupt,
                   fmt::format("{}: both copies of the superblock are damaged: restore from a backup", info.name));
    }
  }
  if (!all_zero(start)) {
    return Error(Code::kForeignDisk,
                 fmt::format("{} holds {}, not a Kelda disk: name another disk", info.name, describe_foreign(start)));
  }
  Result<bool> tail_zero = last_mib_is_zero(device);
  if (!tail_zero) return std::move(tail_zero).error();
  if (!*tail_zero) {
    return Error(Code::kForeignDisk,
                 fmt::format("{} begins with zeroes but its end holds data (a RAID member or a backup partition table?): "
                             "name another disk",
                             info.name));
  }
  if (info.size_bytes < Superblock::kMinDeviceBytes) return SuperblockCodec::too_small(info);
  return Error(Code::kBlankDisk, fmt::format("{} is blank: there is no database on it", info.name));
}

}  // namespace

Error advise_to_format(Error error) {
  switch (error.code()) {
    case Code::kBlankDisk: return Error(error.code(), error.message() + "; format it with --create");
    case Code::kForeignDisk:
      return Error(error.code(), error.message() + ", or format it with --force, which destroys what it holds");
    default: return error;
  }
}

Error SuperblockCodec::too_small(const blockdev::DeviceInfo& info) {
  return Error(Code::kTooSmall, fmt::format("{} has {} bytes: Kelda needs at least {} (16 MiB)", info.name, info.size_bytes,
                                            Superblock::kMinDeviceBytes));
}

Result<Superblock> Superblock::read(blockdev::BlockDevice& device) {
  const blockdev::DeviceInfo& info = device.info();
  if (info.block_bytes == 0 || kPageBytes % info.block_bytes != 0) {
    return Error(Code::kUnsupported, fmt::format("{} has blocks of {} bytes: Kelda works with blocks up to 4096 bytes",
                                                 info.name, info.block_bytes));
  }
  // Each copy by itself: one that cannot be read must not take the other with it.
  AlignedBuffer copies[2] = {AlignedBuffer(kPageBytes), AlignedBuffer(kPageBytes)};
  const SuperblockBytes* best = nullptr;
  unsigned valid = 0;
  Result<> read_result;
  for (unsigned copy = 0; copy < 2; ++copy) {
    if (kSuperblockCopyOffsets[copy] + kPageBytes > info.size_bytes) break;
    if (Result<> read = device.read(kSuperblockCopyOffsets[copy], copies[copy].span()); !read) {
      read_result = std::move(read);
      continue;
    }
    const auto* bytes = reinterpret_cast<const SuperblockBytes*>(copies[copy].data());
    if (!superblock_verifies(*bytes, copy)) continue;
    ++valid;
    if (best == nullptr || bytes->sequence > best->sequence) best = bytes;
  }
  if (best == nullptr) {
    TRY(std::move(read_result));
    return judge_unrecognised(device);
  }
  Superblock superblock = TRY(accept(*best, info));
  superblock.valid_copies_ = valid;
  return superblock;
}

Result<> Superblock::write_checkpoint(blockdev::BlockDevice& device, const CheckpointInfo& checkpoint) {
  Superblock next = *this;
  next.checkpoint_ = checkpoint;
  ++next.sequence_;
  TRY(SuperblockCodec::write(next, device));
  *this = next;
  return {};
}

}  // namespace kelda::disk
