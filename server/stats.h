// Counters of the server, one set a core so that counting never shares a cache line.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "runtime/core.h"

namespace kelda::server {

enum class Counter : std::uint8_t {
  kConnections,
  kRejectedConnections,
  kCommands,
  kErrorReplies,
  kHits,
  kMisses,
  kExpired,
  kInputBytes,
  kOutputBytes,
  kTransactionRetries,
  kOutputTimeouts,
  kCount,
};

class Stats {
 public:
  void add(Counter counter, std::uint64_t amount = 1) {
    auto& cell = cores_[runtime::Core::current().index()].cells[static_cast<std::size_t>(counter)];
    // Only this core writes the cell: a load and a store are enough.
    cell.store(cell.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }

  // Since start or reset().
  std::uint64_t total(Counter counter) const {
    return sum(counter) - base_[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
  }

  void reset() {
    for (std::size_t i = 0; i < base_.size(); ++i) {
      base_[i].store(sum(static_cast<Counter>(i)), std::memory_order_relaxed);
    }
  }

 private:
  static constexpr std::size_t kCounters = static_cast<std::size_t>(Counter::kCount);
  struct alignas(64) PerCore {
    std::array<std::atomic<std::uint64_t>, kCounters> cells{};
  };

  std::uint64_t sum(Counter counter) const {
    std::uint64_t result = 0;
    for (const PerCore& core : cores_)
      result += core.cells[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
    return result;
  }

  std::array<PerCore, runtime::Core::kMaxCores> cores_{};
  std::array<std::atomic<std::uint64_t>, kCounters> base_{};
};

}  // namespace kelda::server
