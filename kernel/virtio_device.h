// What a virtio driver needs of its surroundings: a transport (PCI, MMIO, or the in-memory device of the tests) and
// memory that the device can reach. Drivers are written against these two alone.
//
// Life of a device (virtio 1.2, section 3.1.1):  virtio_start() -> enable_queue()* -> virtio_ready() -> notify()*
// A driver that gives up calls virtio_fail(), which resets the device: it then touches no memory any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/types.h"
#include "kernel/virtio_queue.h"

namespace kelda::kernel {

// Memory for rings and headers, and the device's view of any other memory.
class DmaMemory {
 public:
  virtual ~DmaMemory() = default;
  struct Block {
    std::byte* data = nullptr;
    PhysAddr address;
  };
  // Zeroed, physically contiguous, aligned to 4 KiB; never given back: devices live as long as the machine.
  virtual Result<Block> allocate(std::size_t size_bytes) = 0;
  // Where the frame behind `address` is; memory that has none yet gets one. kInvalidArgument for addresses that
  // belong to nobody.
  virtual Result<PhysAddr> frame_of(const std::byte* address) = 0;

  struct Limits {
    std::uint32_t segment_bytes;  // none longer than this
    std::size_t segment_count;    // `out` holds at most so many afterwards
  };
  // Appends the physical pieces of a virtual range to `out`, neighbours merged, until the range ends or `out` is full.
  // Returns the bytes covered.
  Result<std::size_t> gather(const std::byte* data, std::size_t size_bytes, const Limits& limits,
                             std::vector<DmaSegment>& out);
};

// Runs in interrupt context on the CPU it was routed to: no locks, no allocation, no vector registers.
struct InterruptSink {
  unsigned cpu = 0;
  void (*handler)(void* argument) = nullptr;
  void* argument = nullptr;
};

// Ends the sleep of a CPU (kernel/cpu.h, wake_cpu).
using WakeCpu = void (*)(std::uint32_t cpu);

class VirtioTransport {
 public:
  virtual ~VirtioTransport() = default;

  virtual std::uint32_t device_type() const = 0;  // VIRTIO_ID_*
  virtual std::string where() const = 0;          // for people: "pci 00:03.0"

  virtual std::uint8_t status() = 0;
  virtual void set_status(std::uint8_t status) = 0;
  virtual std::uint64_t device_features() = 0;
  virtual void set_driver_features(std::uint64_t features) = 0;

  // Device-specific configuration. Fields are read with their own width, as the specification demands.
  virtual std::uint32_t config_generation() = 0;
  virtual std::uint8_t config8(std::size_t offset) = 0;
  virtual std::uint16_t config16(std::size_t offset) = 0;
  virtual std::uint32_t config32(std::size_t offset) = 0;

  virtual std::uint16_t queue_size_max(std::uint16_t index) = 0;  // 0: no such queue
  // Gives the queue to the device; its interrupts go to `sink` (a null handler: none wanted).
  virtual Result<> enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) = 0;
  // Configuration changes. Must be called before the queues are enabled.
  virtual Result<> enable_config_interrupt(const InterruptSink& sink) = 0;
  virtual void notify(std::uint16_t index) = 0;

  // A 64-bit configuration field that the device may be changing right now: read until two looks agree.
  std::uint64_t config64(std::size_t offset);
};

// Resets the device and agrees on features: VERSION_1 is required, `wanted` taken where offered. Returns what holds.
Result<std::uint64_t> virtio_start(VirtioTransport& transport, std::uint64_t wanted);
void virtio_ready(VirtioTransport& transport);
void virtio_fail(VirtioTransport& transport);

constexpr std::uint64_t feature_bit(unsigned number) { return std::uint64_t{1} << number; }

// A queue with its memory, made as large as the device allows up to size_limit, and enabled.
Result<std::unique_ptr<VirtQueue>> virtio_make_queue(VirtioTransport& transport, DmaMemory& memory, std::uint16_t index,
                                                     std::uint16_t size_limit, std::uint64_t features,
                                                     const InterruptSink& sink);

}  // namespace kelda::kernel
