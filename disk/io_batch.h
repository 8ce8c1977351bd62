// Many requests to a device, started together and awaited together. Internal to disk/.
#pragma once

#include <vector>

#include "blockdev/blockdev.h"

namespace kelda::disk {

class IoBatch {
 public:
  // Plans a transfer of `data`, which stays in place until run() returns. Transfers that continue the previous one on the
  // device become one request, up to the device's maximum.
  void add(blockdev::Op op, std::uint64_t offset_bytes, std::byte* data, std::uint32_t size_bytes);
  // Starts all and waits for all. The first error, if any.
  Result<> run(blockdev::BlockDevice& device);
  // As run, where every add() is a request of its own and status i belongs to the i-th.
  void run_each(blockdev::BlockDevice& device, std::span<Result<>> status);

 private:
  struct Planned {
    blockdev::Op op;
    std::uint64_t offset_bytes;
    std::size_t first_segment, segment_count;
    std::uint64_t size_bytes;
  };
  std::vector<blockdev::Request> submit_and_wait(blockdev::BlockDevice& device, const std::vector<Planned>& planned);

  std::vector<blockdev::IoSegment> segments_;
  std::vector<Planned> planned_;  // one for each add()
};

// Makes completed writes durable. Nothing on a device without flush: who opens it has accepted that (the log refuses it
// unless durability is 'none').
Result<> flush_device(blockdev::BlockDevice& device);

}  // namespace kelda::disk
