// Counts of I/O for DeviceStats, one line a core so that cores do not fight over them. For implementations.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "blockdev/blockdev.h"
#include "runtime/core.h"

namespace kelda::blockdev {

class Counters {
 public:
  // On the core that submitted; `request.status` is set.
  void count(const Request& request, std::uint64_t bytes);
  DeviceStats total() const;

 private:
  enum Kind { kReads, kWrites, kFlushes, kDiscards, kReadBytes, kWriteBytes, kErrors, kKinds };
  // Relaxed and without an atomic add: only its core writes a line, and readers may be a little behind.
  struct alignas(64) Line {
    std::array<std::atomic<std::uint64_t>, kKinds> n{};
    void add(Kind kind, std::uint64_t by) {
      n[kind].store(n[kind].load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
    }
  };
  std::array<Line, runtime::Core::kMaxCores> lines_{};
};

// Sum of the segments.
std::uint64_t transfer_bytes(const Request& request);
// Asserts what the contract asks of callers; for implementations, at submit.
void check_request(const Request& request, const DeviceInfo& info);

}  // namespace kelda::blockdev
