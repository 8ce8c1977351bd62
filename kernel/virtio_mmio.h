// virtio over memory-mapped registers, version 2 (virtio 1.2, section 4.2): QEMU's microvm, Firecracker.
//
// One wired interrupt serves the whole device. It is taken on CPU 0, whose handler wakes the CPUs that own queues.
#pragma once

#include <array>
#include <atomic>

#include "kernel/acpi.h"
#include "kernel/virtio_device.h"

namespace kelda::kernel {

// Null for an empty slot. kUnsupported for a legacy device (QEMU: -global virtio-mmio.force-legacy=false).
Result<std::unique_ptr<VirtioTransport>> open_virtio_mmio(const VirtioMmioSlot& slot);

// What the interrupt handler of a device works on. Lives for ever, like every handler's context.
struct MmioInterrupts {
  static constexpr std::size_t kMaxSinks = 65;  // a queue per CPU, and some
  volatile std::byte* registers = nullptr;
  InterruptSink config;
  std::array<InterruptSink, kMaxSinks> queues;
  // Release when a sink is added, acquire in the handler: it sees whole sinks.
  std::atomic<std::size_t> queue_count{0};

  static void on_interrupt(void* self);  // virtio_interrupts.cc
};

}  // namespace kelda::kernel
