// The interrupt handlers of the virtio drivers. Compiled for interrupt context: see kernel/interrupts.h.
//
// A completion needs no work here: that the CPU woke up is the message, and its run loop polls the queue (interrupts.h:
// after each handler the CPU counts as woken). Only CPUs that share a queue have to be woken too.
#include <linux/virtio_mmio.h>

#include "kernel/cpu.h"
#include "kernel/virtio_blk.h"
#include "kernel/virtio_mmio.h"
#include "kernel/virtio_net.h"

namespace kelda::kernel {

void VirtioBlk::on_queue_interrupt(void* self) {
  auto* disk = static_cast<VirtioBlk*>(self);
  disk->interrupt_count_.fetch_add(1, std::memory_order_relaxed);
  if (disk->sleepers_.load(std::memory_order_relaxed) == 0) return;
  for (std::uint64_t left = disk->sleepers_.exchange(0, std::memory_order_seq_cst); left != 0; left &= left - 1) {
    disk->wake_(static_cast<std::uint32_t>(__builtin_ctzll(left)));
  }
}

void VirtioBlk::on_config_interrupt(void* self) {
  // Relaxed: the poller that sees the flag reads the device, not memory of ours.
  static_cast<VirtioBlk*>(self)->config_pending_.store(true, std::memory_order_relaxed);
}

void VirtioNet::on_queue_interrupt(void*) {}

void VirtioNet::on_config_interrupt(void* self) {
  static_cast<VirtioNet*>(self)->config_pending_.store(true, std::memory_order_relaxed);
}

void MmioInterrupts::on_interrupt(void* self) {
  auto* device = static_cast<MmioInterrupts*>(self);
  std::uint32_t reasons = *reinterpret_cast<volatile std::uint32_t*>(device->registers + VIRTIO_MMIO_INTERRUPT_STATUS);
  *reinterpret_cast<volatile std::uint32_t*>(device->registers + VIRTIO_MMIO_INTERRUPT_ACK) = reasons;
  if ((reasons & 2) != 0 && device->config.handler != nullptr) device->config.handler(device->config.argument);
  if ((reasons & 1) == 0) return;
  // The register does not say which queue. To wake a CPU that is awake costs nothing.
  std::size_t count = device->queue_count.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < count; ++i) {
    device->queues[i].handler(device->queues[i].argument);
    wake_cpu(device->queues[i].cpu);
  }
}

}  // namespace kelda::kernel
