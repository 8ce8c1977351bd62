// virtio-rng (virtio 1.2, section 5.4): entropy from the host.
#pragma once

#include <memory>

#include "common/result.h"
#include "kernel/virtio_device.h"

namespace kelda::kernel {

// Contract: one caller at a time; waits busily for the host, at most `timeout_us` of the given clock.
class VirtioRng {
 public:
  static Result<std::unique_ptr<VirtioRng>> create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory);

  // Fills `out` completely. kTimeout when the host delivers too slowly (it may be short of entropy itself).
  Result<> fill(MutableBytes out, std::uint64_t timeout_us, std::uint64_t (*now_ns)());

 private:
  VirtioRng(std::unique_ptr<VirtioTransport> transport, DmaMemory::Block buffer)
      : transport_(std::move(transport)), buffer_(buffer) {}
  std::unique_ptr<VirtioTransport> transport_;
  DmaMemory::Block buffer_;
  std::unique_ptr<VirtQueue> queue_;
};

}  // namespace kelda::kernel
