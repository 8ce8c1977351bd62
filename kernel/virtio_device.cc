#include "kernel/virtio_device.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <bit>

#include "kernel/emulation.h"

namespace kelda::kernel {
namespace {
constexpr unsigned kIndirectBit = 28;    // VIRTIO_RING_F_INDIRECT_DESC
constexpr unsigned kEventIndexBit = 29;  // VIRTIO_RING_F_EVENT_IDX
// A reset is instant on every known hypervisor; the bound turns a dead device into an error instead of a hang.
constexpr int kResetLooks = 1'000'000;

Result<> reset(VirtioTransport& transport) {
  transport.set_status(0);
  for (int i = 0; i < kResetLooks; ++i) {
    if (transport.status() == 0) return {};
    __builtin_ia32_pause();
  }
  return Error(Code::kIo, transport.where() + ": the device does not come out of reset");
}
}  // namespace

Result<std::size_t> DmaMemory::gather(const std::byte* data, std::size_t size_bytes, const Limits& limits,
                                      std::vector<DmaSegment>& out) {
  std::size_t done = 0;
  while (done < size_bytes) {
    std::size_t offset_in_page = reinterpret_cast<std::uintptr_t>(data + done) % kPageBytes;
    std::size_t piece = std::min({size_bytes - done, kPageBytes - offset_in_page, std::size_t{limits.segment_bytes}});
    PhysAddr address(TRY(frame_of(data + done)).value + offset_in_page);
    DmaSegment* last = out.empty() ? nullptr : &out.back();
    if (last != nullptr && last->address.value + last->size_bytes == address.value &&
        last->size_bytes + piece <= limits.segment_bytes) {
      last->size_bytes += static_cast<std::uint32_t>(piece);
    } else if (out.size() < limits.segment_count) {
      out.push_back({address, static_cast<std::uint32_t>(piece)});
    } else {
      break;
    }
    done += piece;
  }
  return done;
}

std::uint64_t VirtioTransport::config64(std::size_t offset) {
  for (;;) {
    std::uint32_t before = config_generation();
    std::uint64_t low = config32(offset);
    std::uint64_t high = config32(offset + 4);
    if (config_generation() == before) return high << 32 | low;
  }
}

Result<std::uint64_t> virtio_start(VirtioTransport& transport, std::uint64_t wanted) {
  TRY(reset(transport));
  std::uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;
  transport.set_status(status);
  status |= VIRTIO_CONFIG_S_DRIVER;
  transport.set_status(status);
  std::uint64_t offered = transport.device_features();
  if ((offered & feature_bit(VIRTIO_F_VERSION_1)) == 0) {
    virtio_fail(transport);
    return Error(Code::kUnsupported, transport.where() + ": a legacy virtio device; give it disable-legacy=on, "
                                                         "or for MMIO force-legacy=false");
  }
  std::uint64_t always = feature_bit(VIRTIO_F_VERSION_1) | feature_bit(kIndirectBit) | feature_bit(kEventIndexBit);
  // Guest-physical addresses are what the device gets anyway, so a device that insists on the platform's view
  // (without an IOMMU in between) is served too.
  always |= feature_bit(VIRTIO_F_ACCESS_PLATFORM);
  std::uint64_t taken = offered & (wanted | always);
  transport.set_driver_features(taken);
  status |= VIRTIO_CONFIG_S_FEATURES_OK;
  transport.set_status(status);
  if ((transport.status() & VIRTIO_CONFIG_S_FEATURES_OK) == 0) {
    virtio_fail(transport);
    return Error(Code::kUnsupported,
                 fmt::format("{}: the device refuses the features {:#x} of its own {:#x}", transport.where(), taken, offered));
  }
  return taken;
}

void virtio_ready(VirtioTransport& transport) {
  transport.set_status(transport.status() | VIRTIO_CONFIG_S_DRIVER_OK);
}

void virtio_fail(VirtioTransport& transport) {
  transport.set_status(0);
  transport.set_status(VIRTIO_CONFIG_S_FAILED);
}

Result<std::unique_ptr<VirtQueue>> virtio_make_queue(VirtioTransport& transport, DmaMemory& memory, std::uint16_t index,
                                                     std::uint16_t size_limit, std::uint64_t features,
                                                     const InterruptSink& sink) {
  std::uint16_t offered = transport.queue_size_max(index);
  if (offered == 0) return Error(Code::kUnsupported, fmt::format("{}: no queue {}", transport.where(), index));
  VirtQueue::Options options;
  options.size = std::bit_floor(std::min(offered, size_limit));
  options.event_index = (features & feature_bit(kEventIndexBit)) != 0;
  options.indirect = (features & feature_bit(kIndirectBit)) != 0;
  options.fence = device_fence();
  DmaMemory::Block block = TRY(memory.allocate(VirtQueue::memory_bytes(options)));
  auto queue = std::make_unique<VirtQueue>(options, block.data, block.address);
  TRY(transport.enable_queue(index, *queue, sink));
  return queue;
}

}  // namespace kelda::kernel
