#include "kernel/virtio_net.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
// The header has a field called `class`.
#define class class_field
#include <linux/virtio_net.h>
#undef class

#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "kernel/random.h"

namespace kelda::kernel {
namespace {

constexpr std::uint16_t kRxQueue = 0, kTxQueue = 1;
// Stands before every frame in its buffer.
constexpr std::size_t kHeaderBytes = sizeof(virtio_net_hdr_v1);
static_assert(kHeaderBytes == 12);

}  // namespace

Result<std::unique_ptr<VirtioNet>> VirtioNet::create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory,
                                                     const NetOptions& options) {
  KELDA_ASSERT(transport->device_type() == VIRTIO_ID_NET);
  std::unique_ptr<VirtioNet> net(new VirtioNet(std::move(transport)));
  Result<> started = net->start(memory, options);
  if (!started) {
    virtio_fail(*net->transport_);
    return std::move(started).error();
  }
  return net;
}

VirtioNet::~VirtioNet() { virtio_fail(*transport_); }

Result<> VirtioNet::start(DmaMemory& memory, const NetOptions& options) {
  std::uint64_t wanted = feature_bit(VIRTIO_NET_F_MAC) | feature_bit(VIRTIO_NET_F_STATUS) | feature_bit(VIRTIO_NET_F_MTU) |
                         feature_bit(VIRTIO_NET_F_CSUM) | feature_bit(VIRTIO_NET_F_GUEST_CSUM);
  std::uint64_t features = TRY(virtio_start(*transport_, wanted));
  auto has = [&](unsigned bit) { return (features & feature_bit(bit)) != 0; };
  if (has(VIRTIO_NET_F_MAC)) {
    for (std::size_t i = 0; i < mac_.size(); ++i) mac_[i] = transport_->config8(offsetof(virtio_net_config, mac) + i);
  } else {
    random_fill(std::as_writable_bytes(std::span(mac_)));
    mac_[0] = (mac_[0] & 0xfe) | 0x02;  // one station, locally administered
  }
  if (has(VIRTIO_NET_F_MTU)) {
    std::uint16_t told = transport_->config16(offsetof(virtio_net_config, mtu));
    mtu_bytes_ = std::clamp<std::uint16_t>(told, 68, options.mtu_limit_bytes);
  }
  buffer_bytes_ = round_up(kHeaderBytes + max_frame_bytes(), 64);
  has_status_ = has(VIRTIO_NET_F_STATUS);
  fills_checksums_ = has(VIRTIO_NET_F_CSUM);
  checks_checksums_ = has(VIRTIO_NET_F_GUEST_CSUM);
  read_link();
  TRY(transport_->enable_config_interrupt({options.cpu, &VirtioNet::on_config_interrupt, this}));
  TRY(make_direction(rx_, kRxQueue, memory, options, features));
  TRY(make_direction(tx_, kTxQueue, memory, options, features));
  for (std::uint16_t i = tx_.ring->size(); i > 0; --i) tx_free_.push_back(i - 1);
  virtio_ready(*transport_);
  for (std::uint16_t i = 0; i < rx_.ring->size(); ++i) give_back(i);
  if (rx_.ring->kick()) transport_->notify(kRxQueue);
  return {};
}

Result<> VirtioNet::make_direction(Direction& direction, std::uint16_t index, DmaMemory& memory,
                                   const NetOptions& options, std::uint64_t features) {
  InterruptSink sink{options.cpu, &VirtioNet::on_queue_interrupt, this};
  direction.ring = TRY(virtio_make_queue(*transport_, memory, index, options.queue_size, features, sink));
  DmaMemory::Block block = TRY(memory.allocate(direction.ring->size() * buffer_bytes_));
  direction.buffers = block.data;
  direction.address = block.address;
  return {};
}

void VirtioNet::read_link() {
  if (has_status_) link_up_ = (transport_->config16(offsetof(virtio_net_config, status)) & VIRTIO_NET_S_LINK_UP) != 0;
}

std::uint16_t VirtioNet::buffer_index(const Direction& direction, const void* token) const {
  return static_cast<std::uint16_t>((static_cast<const std::byte*>(token) - direction.buffers) / buffer_bytes_);
}

VirtioNet::Received VirtioNet::take_received() {
  std::optional<VirtQueue::Completion> completion = rx_.ring->poll();
  if (!completion) return {};
  Received received;
  received.buffer = buffer_index(rx_, completion->token);
  std::size_t written = completion->written_bytes;
  if (written <= kHeaderBytes || written > buffer_bytes_) {
    ++stats_.rx_errors;
    return received;
  }
  const auto* buffer_start = static_cast<const std::byte*>(completion->token);
  virtio_net_hdr_v1 header;
  std::memcpy(&header, buffer_start, sizeof header);
  received.frame = {buffer_start + kHeaderBytes, written - kHeaderBytes};
  received.checksum_is_good = checks_checksums_ && (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
  ++stats_.rx_frames;
  stats_.rx_bytes += received.frame.size();
  return received;
}

void VirtioNet::give_back(std::uint16_t i) {
  DmaSegment segment{PhysAddr(rx_.address.value + i * buffer_bytes_), static_cast<std::uint32_t>(buffer_bytes_)};
  // As many buffers as descriptors: there is always room. A broken ring takes nothing, see broken().
  KELDA_ASSERT(rx_.ring->submit({}, {&segment, 1}, buffer(rx_, i)) || rx_.ring->broken());
}

void VirtioNet::finish_poll(std::size_t count) {
  if (count > 0 && rx_.ring->kick()) transport_->notify(kRxQueue);
  if (config_pending_.load(std::memory_order_relaxed) && config_pending_.exchange(false)) read_link();
}

void VirtioNet::reclaim_sent() {
  while (std::optional<VirtQueue::Completion> completion = tx_.ring->poll()) {
    tx_free_.push_back(buffer_index(tx_, completion->token));
  }
}

SendStatus VirtioNet::send(std::span<const Bytes> pieces, PartialChecksum checksum) {
  KELDA_ASSERT(!checksum.wanted || fills_checksums_);
  std::size_t size = 0;
  for (Bytes piece : pieces) size += piece.size();
  if (size > max_frame_bytes()) return SendStatus::kTooLong;
  if (tx_free_.size() <= tx_.ring->size() / 4u) reclaim_sent();
  if (tx_free_.empty()) {
    ++stats_.tx_full;
    tx_wanted_ = true;
    return SendStatus::kFull;
  }
  std::uint16_t i = tx_free_.back();
  virtio_net_hdr_v1 header{};
  if (checksum.wanted) {
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = checksum.start;
    header.csum_offset = checksum.offset;
  }
  std::memcpy(buffer(tx_, i), &header, sizeof header);
  std::byte* at = buffer(tx_, i) + kHeaderBytes;
  for (Bytes piece : pieces) {
    std::memcpy(at, piece.data(), piece.size());
    at += piece.size();
  }
  DmaSegment segment{PhysAddr(tx_.address.value + i * buffer_bytes_), static_cast<std::uint32_t>(kHeaderBytes + size)};
  if (!tx_.ring->submit({&segment, 1}, {}, buffer(tx_, i))) return SendStatus::kFull;
  tx_free_.pop_back();
  ++stats_.tx_frames;
  stats_.tx_bytes += size;
  return SendStatus::kQueued;
}

void VirtioNet::kick_tx() {
  if (tx_.ring->kick()) transport_->notify(kTxQueue);
}

bool VirtioNet::arm() {
  if (config_pending_.load(std::memory_order_relaxed)) return false;
  if (tx_wanted_ && !tx_.ring->arm_interrupt()) {
    tx_.ring->disarm_interrupt();
    reclaim_sent();
    tx_wanted_ = false;
    return false;
  }
  if (rx_.ring->arm_interrupt()) return true;
  disarm();
  return false;
}

void VirtioNet::disarm() {
  rx_.ring->disarm_interrupt();
  tx_.ring->disarm_interrupt();
}

}  // namespace kelda::kernel
