// Inside of VirtioBlk: one queue and what belongs to it. Included by virtio_blk*.cc only.
#pragma once

#include <linux/virtio_blk.h>

#include <memory>
#include <mutex>
#include <vector>

#include "kernel/virtio_blk.h"

namespace kelda::kernel {

// What the device reads and writes besides the data, one per device request, in device-reachable memory. A cache line,
// so that the device's status byte of one request shares no line with another.
struct alignas(64) VirtioBlk::Slot {
  virtio_blk_outhdr header;               //  0
  virtio_blk_discard_write_zeroes range;  // 16
  std::uint8_t status;                    // 32
};

// Requests waiting or done, first in first out.
struct BlkRequestList {
  BlkRequest* head = nullptr;
  BlkRequest* tail = nullptr;
  bool empty() const { return head == nullptr; }
  void push(BlkRequest& request) {
    request.next = nullptr;
    (head == nullptr ? head : tail->next) = &request;
    tail = &request;
  }
  BlkRequest* pop() {
    BlkRequest* request = head;
    if (request != nullptr) head = request->next;
    return request;
  }
};

struct VirtioBlk::Queue {
  std::uint16_t index = 0;
  bool is_shared = false;  // by several CPUs: guard it
  std::atomic<bool> latch{false};
  std::unique_ptr<VirtQueue> ring;

  Slot* slots = nullptr;  // ring->size() of them
  PhysAddr slots_address;
  std::vector<BlkRequest*> slot_request;  // by slot; whose part it carries
  std::vector<std::uint16_t> free_slots;

  BlkRequestList waiting;  // the head may be issued in part
  BlkRequestList done;     // callbacks due
  std::size_t in_flight = 0;

  // Of the part being built.
  std::vector<DmaSegment> reads, writes;

  PhysAddr slot_address(std::uint16_t slot) const { return PhysAddr(slots_address.value + slot * sizeof(Slot)); }
  std::uint16_t slot_of(const void* token) const {
    return static_cast<std::uint16_t>(static_cast<const Slot*>(token) - slots);
  }
};

// Holds the latch of a shared queue. Interrupt handlers never take it, so a CPU cannot meet itself here.
class VirtioBlk::Locked {
 public:
  explicit Locked(Queue& queue) : queue_(queue) {
    if (!queue_.is_shared) return;
    // Acquire pairs with the release below: the queue's fields are as the previous holder left them.
    while (queue_.latch.exchange(true, std::memory_order_acquire)) {
      while (queue_.latch.load(std::memory_order_relaxed)) __builtin_ia32_pause();
    }
  }
  ~Locked() {
    if (queue_.is_shared) queue_.latch.store(false, std::memory_order_release);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  Queue& queue_;
};

}  // namespace kelda::kernel
