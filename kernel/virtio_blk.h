// virtio-blk (virtio 1.2, section 5.2): a queue per CPU where the device has that many, else CPUs share a queue under
// a spin lock.
//
// Promises:
//  (B1) Every submitted request completes exactly once, from poll(), with the device's own verdict for it. Nothing is
//       retried.
//  (B2) submit() never waits: what does not fit into the ring waits in a list, first come first served.
//  (B3) A request larger than the device's limits is split; it completes when all parts have, with the first failure.
//  (B4) A device that breaks the protocol or asks for a reset is reset; all that was in flight fails, as does
//       everything later.
// A CPU calls submit/kick/poll/arm/disarm with its own number. Requests come back on the CPU that polls: with a shared
// queue that may be another one than the submitter's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "kernel/virtio_device.h"

namespace kelda::kernel {

struct BlkLimits {
  std::uint32_t block_bytes = 512;           // logical block: unit of offsets and lengths
  std::uint32_t physical_block_bytes = 512;  // what the disk writes at once, as far as the device tells
  std::uint32_t optimal_io_bytes = 0;        // 0: not told
  std::uint32_t segment_bytes = 0;           // longest data segment
  std::uint32_t segment_count = 1;           // most data segments of one device request
  std::uint64_t discard_bytes = 0;           // largest discard of one device request; 0: no discard
  std::uint32_t discard_align_bytes = 0;     // a discard is only useful in this unit
  std::uint64_t write_zeroes_bytes = 0;      // 0: no write-zeroes
  bool has_flush = false;                    // false: nothing this driver can do makes a write durable
  bool read_only = false;
  std::uint16_t queue_count = 1;
  std::string serial;                        // the device's id string, may be empty
};

enum class BlkOp : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

enum class BlkStatus : std::uint8_t {
  kOk,
  kIoError,      // VIRTIO_BLK_S_IOERR
  kUnsupported,  // VIRTIO_BLK_S_UNSUPP, or an operation that was not offered
  kBadRequest,   // misaligned, beyond the end, or memory that is nobody's
  kDeviceLost,   // (B4)
};
const char* blk_status_text(BlkStatus status);

struct BlkSegment {
  std::byte* data = nullptr;  // any virtual address, aligned to the disk's block
  std::size_t size_bytes = 0;
};

struct BlkRequest {
  BlkOp op = BlkOp::kRead;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;  // discard, write-zeroes; set by submit() for reads and writes
  std::span<const BlkSegment> segments;
  // Called from poll() once `status` holds the verdict; may submit again and may free the request.
  void (*complete)(BlkRequest& request) = nullptr;
  void* owner = nullptr;
  BlkStatus status = BlkStatus::kOk;

  // The driver's, while in flight.
  BlkRequest* next = nullptr;
  std::uint64_t issued_bytes = 0;
  std::size_t segment_index = 0;     // where issuing goes on
  std::size_t segment_offset = 0;
  std::uint32_t parts_in_flight = 0;
  bool issued = false;               // no further part will follow
};

class VirtioBlk {
 public:
  // Starts the device. `cpu_count` CPUs will use it; `wake` ends the sleep of one of them.
  static Result<std::unique_ptr<VirtioBlk>> create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory,
                                                   unsigned cpu_count, WakeCpu wake);
  ~VirtioBlk();

  const BlkLimits& limits() const { return limits_; }
  std::string where() const { return transport_->where(); }
  // Follows a disk that is resized while in use (checked at every poll()).
  std::uint64_t capacity_bytes() const { return capacity_bytes_.load(std::memory_order_relaxed); }
  std::uint32_t config_changes() const { return config_changes_.load(std::memory_order_relaxed); }
  std::uint64_t interrupts() const { return interrupt_count_.load(std::memory_order_relaxed); }
  bool lost() const { return lost_.load(std::memory_order_acquire); }

  // Hands the request over; the device sees it at the CPU's next kick().
  void submit(unsigned cpu, BlkRequest& request);
  void kick(unsigned cpu);
  // Tells the device of what it was told already: it may have missed it (emulation.h). Harmless when it has not.
  void kick_again(unsigned cpu) { transport_->notify(static_cast<std::uint16_t>(cpu % queues_.size())); }
  // Completes what the device has finished, and issues what waited for room. Returns how many requests completed.
  std::size_t poll(unsigned cpu);
  // Asks for an interrupt at the next completion of this CPU's queue; false: poll() first, there is something. The
  // interrupt of a shared queue wakes every CPU that armed it.
  [[nodiscard]] bool arm(unsigned cpu);
  void disarm(unsigned cpu);
  // Requests submitted to this CPU's queue and not completed.
  std::size_t in_flight(unsigned cpu) const;

 private:
  struct Slot;
  struct Queue;
  class Locked;
  VirtioBlk(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory, unsigned cpu_count, WakeCpu wake);

  Result<> start();
  void read_limits(std::uint64_t features);
  Result<> make_queue(std::uint16_t index, std::uint64_t features);
  Result<> read_serial();
  Queue& queue_of(unsigned cpu) const { return *queues_[cpu % queues_.size()]; }
  BlkStatus check(BlkRequest& request) const;
  void issue_waiting(Queue& queue);
  bool issue(Queue& queue, BlkRequest& request);
  bool issue_part(Queue& queue, BlkRequest& request);
  bool build_part(Queue& queue, BlkRequest& request, std::uint64_t& part_bytes);
  bool gather_data(Queue& queue, BlkRequest& request, std::uint64_t& part_bytes);
  void finish_part(Queue& queue, BlkRequest& request, BlkStatus status);
  void reap(Queue& queue);
  void notice_changes();
  void lose();
  void abandon(Queue& queue);
  static void on_queue_interrupt(void* self);
  static void on_config_interrupt(void* self);

  std::unique_ptr<VirtioTransport> transport_;
  DmaMemory& memory_;
  const unsigned cpu_count_;
  const WakeCpu wake_;
  BlkLimits limits_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::atomic<std::uint64_t> capacity_bytes_{0};
  std::atomic<std::uint32_t> config_changes_{0};
  std::atomic<std::uint64_t> interrupt_count_{0};
  std::atomic<bool> config_pending_{false};
  // CPUs asleep on a shared queue, a bit each.
  std::atomic<std::uint64_t> sleepers_{0};
  std::atomic<bool> lost_{false};
};

}  // namespace kelda::kernel
