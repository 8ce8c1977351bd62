// The machine's virtio devices, found once.
//
// Contract: virtio_devices() may be called from any CPU at any time after main() began; the first call probes. Disks come
// in the order in which they were found (PCI by address, then MMIO by address), which is their name: /dev/vda is [0].
// A device that cannot be started is left out and listed in `problems`, so that whoever misses it can say why.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernel/virtio_blk.h"
#include "kernel/virtio_net.h"
#include "kernel/virtio_rng.h"

namespace kelda::kernel {

struct VirtioDevices {
  std::vector<std::unique_ptr<VirtioBlk>> disks;
  std::vector<std::unique_ptr<VirtioNet>> networks;  // interrupts on CPU 0
  std::unique_ptr<VirtioRng> entropy;
  std::vector<std::string> problems;
};
VirtioDevices& virtio_devices();

// Mixes fresh entropy of the host into the generator (random.h). kUnsupported without a virtio-rng.
Result<> reseed_from_host();

// Memory for devices out of the kernel's frames.
DmaMemory& kernel_dma_memory();

}  // namespace kelda::kernel
