// A split virtqueue, driver's side (virtio 1.2, section 2.7). Knows rings and nothing else: no transport, no
// interrupts, no address translation, no locks. That makes it the same text against a hypervisor and against the
// in-memory device of the tests.
//
// A queue is three arrays in memory that driver and device share. The descriptor table holds pieces of memory (address,
// length, device reads or writes), chained to requests by `next`. In the available ring the driver writes the heads of chains that
// it hands over, and advances its index; in the used ring the device writes the heads of those that it has done, and
// advances its own. Indices only grow, modulo 2^16, so that each side knows what is new without a lock. With the event
// index each side also writes at which index it wants to be woken: `used_event` silences the device's interrupts,
// `avail_event` the driver's notifications, each of which is an exit from the machine. QEMU makes such a device by
//   -drive file=d,if=none,id=disk0,format=raw -device virtio-blk-pci,drive=disk0,num-queues=2
//
// Promises:
//  (Q1) A descriptor belongs to the device from the kick() after its submit() until poll() hands its token back.
//  (Q2) Nothing the device writes is used as an index unchecked. A used entry that names no chain in flight marks the
//       queue broken(); from then on it accepts and returns nothing, and the owner must fail what is in flight.
//  (Q3) kick() says "notify" whenever the device may have gone to sleep without seeing what was published.
//  (Q4) After arm_interrupt() returned true, the next completion raises an interrupt; when it returns false there
//       are completions to poll() already.
// Not thread-safe: one core at a time.
//
// Memory block given at construction, size n (a power of two), as the device sees it:
//    0          descriptor table   16 n bytes
//   16 n        available ring      6 + 2 n: flags, idx, ring[n], used_event
//   aligned 64  used ring           6 + 8 n: flags, idx, ring[n], avail_event
//   aligned 64  indirect tables    n tables of kIndirectSegments descriptors (only with `indirect`)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "common/types.h"

struct vring_desc;
struct vring_avail;
struct vring_used;

namespace kelda::kernel {

// One physically contiguous piece of memory handed to a device.
struct DmaSegment {
  PhysAddr address;
  std::uint32_t size_bytes = 0;
};

class VirtQueue {
 public:
  // Longest chain that goes through an indirect table; longer ones take descriptors of the ring itself. 16 covers a
  // header, a status and 14 scattered pages, and keeps the tables of a 256-entry queue at 64 KiB.
  static constexpr std::size_t kIndirectSegments = 16;

  struct Options {
    std::uint16_t size = 0;       // entries, a power of two
    bool event_index = false;     // VIRTIO_F_RING_EVENT_IDX negotiated
    bool indirect = false;        // VIRTIO_F_RING_INDIRECT_DESC negotiated
    void (*fence)() = nullptr;    // where the processor's barriers may not hold against the device (emulation.h)
  };

  struct Addresses {
    PhysAddr descriptors, available, used;
  };

  struct Completion {
    void* token;                 // as given to submit()
    std::uint32_t written_bytes; // what the device claims to have written into the chain
  };

  // Bytes of zeroed, physically contiguous, 4 KiB aligned memory that the constructor needs.
  static std::size_t memory_bytes(const Options& options);

  // `memory` must be zeroed, aligned to 16 and outlive the queue; `base` is its address as the device sees it.
  VirtQueue(const Options& options, std::byte* memory, PhysAddr base);
  VirtQueue(const VirtQueue&) = delete;
  VirtQueue& operator=(const VirtQueue&) = delete;

  Addresses addresses() const;
  std::uint16_t size() const { return size_; }
  std::uint16_t free_descriptors() const { return free_count_; }
  std::uint16_t in_flight() const { return in_flight_; }
  bool broken() const { return broken_; }

  // May a chain of this many segments be submitted now?
  bool can_submit(std::size_t segments) const;

  // Queues one chain: first what the device reads, then what it writes. The device learns of it at the next kick().
  // At least one segment; false when can_submit() would say no. `token` must not be null.
  bool submit(std::span<const DmaSegment> device_reads, std::span<const DmaSegment> device_writes, void* token);

  // Publishes everything submitted since the last kick(). True: the caller must notify the device.
  [[nodiscard]] bool kick();

  // The next completed chain, if any. Its descriptors are free again.
  std::optional<Completion> poll();
  // Is there something for poll()? Cheap: one load of the used index.
  bool has_completions() const;

  // Asks for an interrupt at the next completion; false when completions are there already (Q4): it stays armed then, for
  // whoever else relies on it.
  [[nodiscard]] bool arm_interrupt();
  // No interrupts wanted while the owner polls. With the event index one stray interrupt in 65,536 completions remains.
  void disarm_interrupt();

  // Takes back a chain in flight after the device was reset; any order, until none is left.
  void* abandon_one();

 private:
  struct Chain {
    void* token = nullptr;       // null: not the head of a chain in flight
    std::uint16_t count = 0;     // descriptors of the ring that it holds
  };

  bool use_indirect(std::size_t segments) const;
  std::uint16_t take_descriptor();
  void release_chain(std::uint16_t head);
  std::uint16_t submit_direct(std::span<const DmaSegment> reads, std::span<const DmaSegment> writes);
  std::uint16_t submit_indirect(std::span<const DmaSegment> reads, std::span<const DmaSegment> writes);
  std::uint16_t device_used_index() const;

  const std::uint16_t size_;
  const bool event_index_;
  const bool indirect_;
  void (*const fence_)();
  bool broken_ = false;
  PhysAddr base_;
  vring_desc* descriptors_;
  vring_avail* available_;
  vring_used* used_;
  vring_desc* indirect_tables_ = nullptr;

  // The free list and the chains are kept out of the device's sight (Q2).
  std::unique_ptr<std::uint16_t[]> next_free_;
  std::unique_ptr<Chain[]> chains_;
  std::uint16_t free_head_ = 0;
  std::uint16_t free_count_;
  std::uint16_t in_flight_ = 0;
  std::uint16_t available_index_ = 0;    // of the next entry to write
  std::uint16_t published_index_ = 0;    // what the device was told
  std::uint16_t used_index_ = 0;         // of the next entry to read
};

}  // namespace kelda::kernel
