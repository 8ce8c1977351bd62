#include "kernel/virtio_devices.h"

#include <linux/virtio_ids.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>

#include "kernel/cpu.h"
#include "kernel/memory.h"
#include "kernel/paging.h"
#include "kernel/pci.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "kernel/virtio_mmio.h"
#include "kernel/virtio_pci.h"

namespace kelda::kernel {
namespace {

class KernelDmaMemory final : public DmaMemory {
 public:
  Result<Block> allocate(std::size_t size_bytes) override {
    std::size_t page_count = round_up(size_bytes, kPageBytes) / kPageBytes;
    std::optional<PhysAddr> first = alloc_frames_contiguous(page_count);
    if (!first) return Error(Code::kOutOfMemory, "no contiguous memory left for a device's queues");
    std::memset(frame_pointer(*first), 0, page_count * kPageBytes);
    return Block{frame_pointer(*first), *first};
  }

  Result<PhysAddr> frame_of(const std::byte* address) override {
    std::optional<PhysAddr> found = translate(address);
    if (!found) {
      TRY(populate(address, 1));
      found = translate(address);
    }
    if (!found) return Error(Code::kInvalidArgument, "a device was given memory that does not exist");
    return PhysAddr(round_down(found->value, kPageBytes));
  }
};

// Takes a found device into `devices`; a device of another type is nobody's.
void start_device(std::unique_ptr<VirtioTransport> transport, VirtioDevices& devices) {
  auto keep = [&](auto&& result, auto&& taker) {
    if (result) {
      taker(*std::move(result));
    } else {
      devices.problems.push_back(result.error().to_string());
    }
  };
  DmaMemory& memory = kernel_dma_memory();
  switch (transport->device_type()) {
    case VIRTIO_ID_BLOCK:
      return keep(VirtioBlk::create(std::move(transport), memory, cpu_count(), &wake_cpu),
                  [&](auto disk) { devices.disks.push_back(std::move(disk)); });
    case VIRTIO_ID_NET:
      return keep(VirtioNet::create(std::move(transport), memory, {}),
                  [&](auto net) { devices.networks.push_back(std::move(net)); });
    case VIRTIO_ID_RNG:
      if (devices.entropy != nullptr) return;
      return keep(VirtioRng::create(std::move(transport), memory), [&](auto rng) { devices.entropy = std::move(rng); });
    default: return;
  }
}

void take(Result<std::unique_ptr<VirtioTransport>> opened, VirtioDevices& devices) {
  if (!opened) {
    devices.problems.push_back(opened.error().to_string());
  } else if (*opened != nullptr) {
    start_device(*std::move(opened), devices);
  }
}

std::mutex entropy_mutex;

Result<> reseed(VirtioRng& entropy) {
  std::array<std::byte, 32> seed;
  // One at a time; nobody parks in here.
  std::scoped_lock lock(entropy_mutex);
  TRY(entropy.fill(seed, 100'000, &monotonic_ns));
  add_entropy(seed, "virtio-rng");
  std::memset(seed.data(), 0, seed.size());
  return {};
}

VirtioDevices* probe() {
  auto* devices = new VirtioDevices;
  std::vector<PciFunction> functions = pci_scan();
  auto is_raw = [](const PciFunction& function) { return is_virtio(function) && !function.decodes_memory(); };
  if (std::any_of(functions.begin(), functions.end(), is_raw)) pci_assign_bars(functions);
  for (const PciFunction& function : functions) {
    if (is_virtio(function)) take(open_virtio_pci(function), *devices);
  }
  for (const VirtioMmioSlot& slot : virtio_mmio_slots()) take(open_virtio_mmio(slot), *devices);
  if (devices->entropy != nullptr) {
    Result<> seeded = reseed(*devices->entropy);
    if (!seeded) devices->problems.push_back(seeded.error().to_string());
  }
  return devices;
}

}  // namespace

DmaMemory& kernel_dma_memory() {
  static KernelDmaMemory memory;
  return memory;
}

VirtioDevices& virtio_devices() {
  // Never destroyed: the devices outlive everything that might use them on its way out.
  static VirtioDevices* devices = probe();
  return *devices;
}

Result<> reseed_from_host() {
  VirtioDevices& devices = virtio_devices();
  if (devices.entropy == nullptr) return Error(Code::kUnsupported, "this machine has no virtio-rng");
  return reseed(*devices.entropy);
}

}  // namespace kelda::kernel
