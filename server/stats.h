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
  kReads,
  kWrites,
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

// What is done a second just now: the mean of the last samples, of which one is taken each tenth of a second.
class Rates {
 public:
  void sample(const Stats& stats, runtime::TimeNs now_ns) {
    if (now_ns - last_ns_ < kEveryNs) return;
    for (std::size_t i = 0; i < kWhat.size(); ++i) {
      const std::uint64_t total = stats.total(kWhat[i]);
      // Counting from zero again gives no rate.
      const std::uint64_t gained = total >= totals_[i] ? total - totals_[i] : 0;
      if (last_ns_ != 0) samples_[i][next_] = gained * 1'000'000'000 / (now_ns - last_ns_);
      totals_[i] = total;
      std::uint64_t sum = 0;
      for (const std::uint64_t sample : samples_[i]) sum += sample;
      means_[i].store(sum / kSamples, std::memory_order_relaxed);
    }
    next_ = (next_ + 1) % kSamples;
    last_ns_ = now_ns;
  }
  std::uint64_t commands() const { return means_[0].load(std::memory_order_relaxed); }
  std::uint64_t input_bytes() const { return means_[1].load(std::memory_order_relaxed); }
  std::uint64_t output_bytes() const { return means_[2].load(std::memory_order_relaxed); }

 private:
  static constexpr std::array kWhat = {Counter::kCommands, Counter::kInputBytes, Counter::kOutputBytes};
  static constexpr std::size_t kSamples = 16;
  static constexpr runtime::TimeNs kEveryNs = 90'000'000;

  std::array<std::array<std::uint64_t, kSamples>, kWhat.size()> samples_{};
  std::array<std::uint64_t, kWhat.size()> totals_{};
  std::array<std::atomic<std::uint64_t>, kWhat.size()> means_{};
  std::size_t next_ = 0;
  runtime::TimeNs last_ns_ = 0;
};

}  // namespace kelda::server
