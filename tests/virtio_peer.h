// The device's side of virtio for hosted tests, in memory: addresses are pointers. Written from the specification and
// independently of kernel/virtio_queue, whose layouts it does not include.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "kernel/virtio_device.h"

namespace kelda::tests {

using kernel::DmaMemory;
using kernel::DmaSegment;
using kernel::InterruptSink;
using kernel::VirtQueue;

// Frames of the test are ordinary memory. A page can be marked as nobody's, and every second page as physically distant
// from its neighbour is the default of `scattered`.
class PeerMemory final : public DmaMemory {
 public:
  bool scattered = false;
  const std::byte* nobodys_page = nullptr;

  Result<Block> allocate(std::size_t size_bytes) override {
    std::size_t size = round_up(size_bytes, kPageBytes);
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, size));
    std::memset(data, 0, size);
    blocks_.emplace_back(data);
    return Block{data, to_device(data)};
  }
  Result<PhysAddr> frame_of(const std::byte* address) override {
    const std::byte* page = address - reinterpret_cast<std::uintptr_t>(address) % kPageBytes;
    if (page == nobodys_page) return Error(Code::kInvalidArgument);
    PhysAddr frame = to_device(page);
    // Distance is made by a bit that no address has; the device drops it again.
    if (scattered && reinterpret_cast<std::uintptr_t>(page) / kPageBytes % 2 != 0) frame.value |= kFar;
    return frame;
  }
  static std::byte* from_device(std::uint64_t address) { return reinterpret_cast<std::byte*>(address & ~kFar); }

 private:
  static constexpr std::uint64_t kFar = std::uint64_t{1} << 60;
  static PhysAddr to_device(const std::byte* p) { return PhysAddr(reinterpret_cast<std::uintptr_t>(p)); }
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
};

// A chain as the device sees it.
struct PeerChain {
  std::uint16_t head = 0;
  bool indirect = false;
  std::vector<DmaSegment> reads, writes;
};

class PeerQueue {
 public:
  PeerQueue(VirtQueue::Addresses at, std::uint16_t size, bool event_index)
      : descriptors_(PeerMemory::from_device(at.descriptors.value)), available_(PeerMemory::from_device(at.available.value)),
        used_(PeerMemory::from_device(at.used.value)), size_(size), event_index_(event_index) {}

  // The next chain, if the driver published one. `malformed` counts chains that break the rules.
  std::optional<PeerChain> take();
  // Completes a chain; true: an interrupt is due.
  bool complete(std::uint16_t head, std::uint32_t written_bytes);
  // Any used entry, also a wrong one.
  bool complete_raw(std::uint32_t id, std::uint32_t written_bytes);
  // Asks for a notification at the next published chain; false when one is there already.
  bool want_notification();
  void refuse_notifications();
  int malformed = 0;

 private:
  struct Descriptor {
    std::uint64_t address;
    std::uint32_t size;
    std::uint16_t flags, next;
  };
  std::uint16_t& word(std::byte* base, std::size_t offset) { return *reinterpret_cast<std::uint16_t*>(base + offset); }
  void walk(std::byte* table, std::size_t count, std::uint16_t first, PeerChain& chain);

  std::byte *descriptors_, *available_, *used_;
  std::uint16_t size_;
  bool event_index_;
  std::uint16_t next_available_ = 0, next_used_ = 0;
};

// A transport to an in-memory device; the test supplies the features, the configuration bytes and the behaviour.
class PeerDevice {
 public:
  std::uint32_t type = 0;
  std::uint64_t features = 0;
  std::uint64_t accepted = 0;
  std::vector<std::byte> config = std::vector<std::byte>(256);
  std::uint8_t status = 0;
  std::uint16_t queue_size = 128;
  std::uint16_t queue_count = 1;
  bool refuse_features = false;
  // Called at each notification.
  std::function<void(std::uint16_t queue)> on_notify = [](std::uint16_t) {};
  std::vector<std::unique_ptr<PeerQueue>> queues;
  std::vector<InterruptSink> sinks;
  InterruptSink config_sink;
  int notifications = 0;

  template <class T>
  void set_config(std::size_t offset, T value) { std::memcpy(config.data() + offset, &value, sizeof value); }
  std::unique_ptr<kernel::VirtioTransport> transport();
};

}  // namespace kelda::tests
