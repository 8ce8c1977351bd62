// Starting a disk, its limits, and what it tells while in use. The request path is in virtio_blk_queue.cc.
#include "kernel/virtio_blk.h"

#include <fmt/format.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "kernel/virtio_blk_queue.h"

namespace kelda::kernel {
namespace {

constexpr std::uint64_t kSectorBytes = 512;  // the unit of the protocol, whatever the disk's own block
constexpr std::uint16_t kQueueSizeLimit = 256;
// Bounds the descriptors of one device request, so that a few large ones cannot fill a ring.
constexpr std::uint32_t kSegmentLimit = 126;
constexpr std::uint32_t kSegmentBytesLimit = 1u << 20;

constexpr std::uint64_t kWanted =
    feature_bit(VIRTIO_BLK_F_SIZE_MAX) | feature_bit(VIRTIO_BLK_F_SEG_MAX) | feature_bit(VIRTIO_BLK_F_RO) |
    feature_bit(VIRTIO_BLK_F_BLK_SIZE) | feature_bit(VIRTIO_BLK_F_FLUSH) | feature_bit(VIRTIO_BLK_F_TOPOLOGY) |
    feature_bit(VIRTIO_BLK_F_MQ) | feature_bit(VIRTIO_BLK_F_DISCARD) | feature_bit(VIRTIO_BLK_F_WRITE_ZEROES);

// Discard and write-zeroes carry a 32-bit sector count, and 0 is said by devices that mean "no limit".
std::uint64_t range_limit(std::uint32_t max_sectors) {
  return (max_sectors == 0 ? 0xffff'ffffull : max_sectors) * kSectorBytes;
}

}  // namespace

const char* blk_status_text(BlkStatus status) {
  switch (status) {
    case BlkStatus::kOk: return "ok";
    case BlkStatus::kIoError: return "the device reports an I/O error";
    case BlkStatus::kUnsupported: return "the device does not support this operation";
    case BlkStatus::kBadRequest: return "misaligned, beyond the end of the disk, read-only, or in memory that is nobody's";
    case BlkStatus::kDeviceLost: return "the device broke the protocol or asked for a reset, and was stopped";
  }
  return "unknown status";
}

VirtioBlk::VirtioBlk(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory, unsigned cpu_count, WakeCpu wake)
    : transport_(std::move(transport)), memory_(memory), cpu_count_(cpu_count), wake_(wake) {}

Result<std::unique_ptr<VirtioBlk>> VirtioBlk::create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory,
                                                     unsigned cpu_count, WakeCpu wake) {
  KELDA_ASSERT(transport->device_type() == VIRTIO_ID_BLOCK && cpu_count > 0 && cpu_count <= 64);
  std::unique_ptr<VirtioBlk> disk(new VirtioBlk(std::move(transport), memory, cpu_count, wake));
  Result<> started = disk->start();
  if (!started) {
    virtio_fail(*disk->transport_);
    return std::move(started).error();
  }
  return disk;
}

// The rings are never given back, but a device that goes on writing into them would be a surprise: stop it.
VirtioBlk::~VirtioBlk() { virtio_fail(*transport_); }

Result<> VirtioBlk::start() {
  std::uint64_t features = TRY(virtio_start(*transport_, kWanted));
  read_limits(features);
  if (limits_.segment_bytes < kSectorBytes) {
    return Error(Code::kUnsupported, where() + ": segments are limited to less than a sector");
  }
  TRY(transport_->enable_config_interrupt({0, &VirtioBlk::on_config_interrupt, this}));
  for (std::uint16_t i = 0; i < limits_.queue_count; ++i) TRY(make_queue(i, features));
  virtio_ready(*transport_);
  return read_serial();
}

void VirtioBlk::read_limits(std::uint64_t features) {
  auto has = [&](unsigned bit) { return (features & feature_bit(bit)) != 0; };
  VirtioTransport& device = *transport_;
  capacity_bytes_ = device.config64(offsetof(virtio_blk_config, capacity)) * kSectorBytes;
  limits_.read_only = has(VIRTIO_BLK_F_RO);
  limits_.has_flush = has(VIRTIO_BLK_F_FLUSH);
  if (has(VIRTIO_BLK_F_BLK_SIZE)) limits_.block_bytes = device.config32(offsetof(virtio_blk_config, blk_size));
  limits_.physical_block_bytes = limits_.block_bytes;
  if (has(VIRTIO_BLK_F_TOPOLOGY)) {
    unsigned exponent = device.config8(offsetof(virtio_blk_config, physical_block_exp));
    limits_.physical_block_bytes = limits_.block_bytes << std::min(exponent, 16u);
    limits_.optimal_io_bytes = device.config32(offsetof(virtio_blk_config, opt_io_size)) * limits_.block_bytes;
  }
  std::uint32_t size_max = kSegmentBytesLimit;
  if (has(VIRTIO_BLK_F_SIZE_MAX)) size_max = std::min(size_max, device.config32(offsetof(virtio_blk_config, size_max)));
  limits_.segment_bytes = static_cast<std::uint32_t>(round_down(size_max, std::max<std::uint64_t>(limits_.block_bytes, 512)));
  // A device that tells no maximum promises a single segment.
  std::uint32_t seg_max = has(VIRTIO_BLK_F_SEG_MAX) ? device.config32(offsetof(virtio_blk_config, seg_max)) : 1;
  limits_.segment_count = std::clamp(seg_max, 1u, kSegmentLimit);
  if (has(VIRTIO_BLK_F_DISCARD)) {
    limits_.discard_bytes = range_limit(device.config32(offsetof(virtio_blk_config, max_discard_sectors)));
    limits_.discard_align_bytes = device.config32(offsetof(virtio_blk_config, discard_sector_alignment)) * 512;
  }
  if (has(VIRTIO_BLK_F_WRITE_ZEROES)) {
    limits_.write_zeroes_bytes = range_limit(device.config32(offsetof(virtio_blk_config, max_write_zeroes_sectors)));
  }
  unsigned queues = has(VIRTIO_BLK_F_MQ) ? device.config16(offsetof(virtio_blk_config, num_queues)) : 1;
  limits_.queue_count = static_cast<std::uint16_t>(std::clamp(queues, 1u, cpu_count_));
}

Result<> VirtioBlk::make_queue(std::uint16_t index, std::uint64_t features) {
  auto queue = std::make_unique<Queue>();
  queue->index = index;
  queue->is_shared = limits_.queue_count < cpu_count_;
  // Queue i belongs to CPU i, and to i + n, i + 2n ... where there are only n queues.
  InterruptSink sink{index, &VirtioBlk::on_queue_interrupt, this};
  queue->ring = TRY(virtio_make_queue(*transport_, memory_, index, kQueueSizeLimit, features, sink));
  std::uint16_t size = queue->ring->size();
  DmaMemory::Block block = TRY(memory_.allocate(size * sizeof(Slot)));
  queue->slots = reinterpret_cast<Slot*>(block.data);
  queue->slots_address = block.address;
  queue->slot_request.resize(size);
  for (std::uint16_t i = size; i > 0; --i) queue->free_slots.push_back(i - 1);
  // The header and the status take two descriptors of every chain.
  if (size < 3) return Error(Code::kUnsupported, where() + ": the queue is too small");
  limits_.segment_count = std::min<std::uint32_t>(limits_.segment_count, size - 2);
  queue->reads.reserve(limits_.segment_count + 1);
  queue->writes.reserve(limits_.segment_count + 1);
  queues_.push_back(std::move(queue));
  return {};
}

// The one request that waits: at start there is nothing else to do on this device.
Result<> VirtioBlk::read_serial() {
  Queue& queue = *queues_[0];
  DmaMemory::Block block = TRY(memory_.allocate(VIRTIO_BLK_ID_BYTES));
  Slot& slot = queue.slots[0];
  slot.header = {VIRTIO_BLK_T_GET_ID, 0, 0};
  slot.status = 0xff;
  DmaSegment header{queue.slot_address(0), sizeof(slot.header)};
  DmaSegment answer[2] = {{block.address, VIRTIO_BLK_ID_BYTES},
                          {PhysAddr(queue.slot_address(0).value + offsetof(Slot, status)), 1}};
  KELDA_ASSERT(queue.ring->submit({&header, 1}, answer, &slot));
  if (queue.ring->kick()) transport_->notify(queue.index);
  for (std::uint64_t looks = 0; !queue.ring->poll(); ++looks) {
    // Tens of seconds: a device that does not answer its first request will answer none.
    if (queue.ring->broken() || looks > 2'000'000'000) {
      return Error(Code::kIo, where() + ": the disk does not answer its first request");
    }
    __builtin_ia32_pause();
  }
  // A disk without an id string answers "unsupported": then it has none.
  if (slot.status == VIRTIO_BLK_S_OK) {
    const char* text = reinterpret_cast<const char*>(block.data);
    limits_.serial.assign(text, strnlen(text, VIRTIO_BLK_ID_BYTES));
  }
  return {};
}

void VirtioBlk::notice_changes() {
  if (!config_pending_.load(std::memory_order_relaxed)) [[likely]] return;
  if (!config_pending_.exchange(false, std::memory_order_relaxed)) return;
  if ((transport_->status() & VIRTIO_CONFIG_S_NEEDS_RESET) != 0) return lose();
  capacity_bytes_.store(transport_->config64(offsetof(virtio_blk_config, capacity)) * kSectorBytes, std::memory_order_relaxed);
  config_changes_.fetch_add(1, std::memory_order_relaxed);
}

void VirtioBlk::lose() {
  if (lost_.load(std::memory_order_acquire)) return;
  // First the reset, then the flag: who sees the flag may take back the buffers, the device no longer touches them.
  virtio_fail(*transport_);
  lost_.store(true, std::memory_order_release);
  // A CPU asleep for a completion gets none any more.
  for (unsigned cpu = 0; cpu < cpu_count_; ++cpu) wake_(cpu);
}

}  // namespace kelda::kernel
