// One asynchronous block interface, shaped like the hardware: submit, reap, flush, discard.
//
// Contract
//  - A request is submitted on the calling core's queue and completes on that core: its `completion` is counted down
//    from the core's run loop after `status` was set. The request and its buffers stay untouched until then.
//  - Requests of one device are not ordered among each other, except that a flush covers every write of any core that
//    completed before the flush was submitted. A write is durable only after such a flush (or with `fua` where
//    info().has_fua says so).
//  - Discarded bytes read as anything until written again; bytes of write-zeroes read as zero.
//  - Offsets and lengths are multiples of info().block_bytes; buffers are aligned to block_bytes in memory,
//    all within info().size_bytes (asserted: a caller's mistake, not a device error). A request that the device does
//    not have (discard without has_discard, ...) completes with kUnsupported.
//  - A failed request is reported once, as it came from the device, and never retried here.
//  - The blocking helpers park the calling fiber; they may be called on any attached thread.
//
// Implementations: uring_hosted.cc, virtio_bare.cc, memory_sim.cc. One is chosen by open() at start.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/result.h"
#include "common/types.h"
#include "runtime/sync.h"

namespace kelda::blockdev {

struct DeviceInfo {
  std::string name;                  // path or /dev/vda
  std::string driver;                // "io_uring", "pread", "virtio-blk", "simulated"; ", buffered" without O_DIRECT
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 512;   // logical block: the unit and alignment of I/O
  std::uint32_t atomic_bytes = 512;  // a power cut tears a write only at multiples of this
  std::uint32_t max_transfer_bytes = 1 << 20;
  bool has_flush = false;            // flush() makes completed writes durable
  bool has_fua = false;
  bool has_discard = false;
  bool has_write_zeroes = false;
  bool read_only = false;
};

enum class Op : std::uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

// Laid out as the system's iovec, so that hosted passes a list of them on without a copy.
struct IoSegment {
  std::byte* data;
  std::size_t bytes;
};

struct Request {
  Op op = Op::kRead;
  bool fua = false;  // write: durable on completion; only where has_fua
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;  // discard and write-zeroes; otherwise the sum of the segments
  std::span<const IoSegment> segments = {};
  runtime::Completion* completion = nullptr;
  // Set before completion: ok, or kNoSpace, or kIo with the device's words.
  Result<> status = {};
  // For the implementation's use while in flight.
  void* driver_private[8] = {};
  Request* next = nullptr;
};

struct DeviceStats {
  std::uint64_t reads, writes, flushes, discards, read_bytes, write_bytes, errors;
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  virtual const DeviceInfo& info() const = 0;

  // Queues the requests on the calling core and starts them; never waits for the device (waits for queue space at most).
  virtual void submit(std::span<Request* const> requests) = 0;
  virtual DeviceStats stats() const = 0;  // approximate while cores are at work
  // Optional and only about speed: requests of the calling core whose single segment lies within `memory` then skip the
  // pinning of pages. The memory must stay mapped to the same frames (no madvise) as long as the core lives. Once a
  // core; kUnsupported where there is nothing to gain.
  virtual Result<> register_buffers(MutableBytes memory);

  // Blocking forms, built on submit(). Transfers longer than max_transfer_bytes are split; the first error is returned
  // after all parts have ended. write_zeroes() writes zeroes itself where the device cannot.
  Result<> read(std::uint64_t offset_bytes, MutableBytes out);
  Result<> write(std::uint64_t offset_bytes, Bytes data);
  // One write that is durable when it returns (fua): only where has_fua, at most max_transfer_bytes.
  Result<> write_durable(std::uint64_t offset_bytes, Bytes data);
  Result<> flush();
  Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  Result<> write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes);

 private:
  Result<> transfer(Op op, std::uint64_t offset_bytes, std::byte* data, std::uint64_t bytes);
  Result<> one(Request request);
};

struct OpenOptions {
  bool read_only = false;
  // Hosted, for a file that does not exist or is empty: its size, sparse. 0: it must be there. A file that was created so and
  // to which nothing was written goes with the device.
  std::uint64_t create_bytes = 0;
};

// Opens `name`: hosted a path of a file or block device (locked against a second process: kBusy), bare /dev/vdX.
// Errors: kNotFound, kInvalidArgument (a directory, no permission), kTooSmall (empty), kBusy, kNoSpace, kIo; each says what to do.
Result<std::unique_ptr<BlockDevice>> open(const std::string& name, OpenOptions options = {});

}  // namespace kelda::blockdev
