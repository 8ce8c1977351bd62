// One bound for the memory of all clients' requests and replies together.
//
// Contract: each client reports what its buffers take (Share); before a buffer grows for one request or reply, its
// owner asks fair_room(). So the sum stays near the limit whatever the clients do: the more the others take, the less
// one request or reply may take, down to a floor with which ordinary commands still work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "common/types.h"

namespace kelda::server {

class BufferBudget {
 public:
  static constexpr std::uint64_t kFloorBytes = 64_KiB;

  explicit BufferBudget(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  std::uint64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t limit_bytes() const { return limit_bytes_; }

  // One client's part.
  class Share {
   public:
    explicit Share(BufferBudget& budget) : budget_(budget) {}
    Share(const Share&) = delete;
    ~Share() { report(0); }
    // How large one request or reply of this client may be now: half of what the others leave, at least the floor.
    std::uint64_t fair_room() const {
      const std::uint64_t others = budget_.used_bytes() - bytes_;
      return std::max(others >= budget_.limit_bytes() ? 0 : (budget_.limit_bytes() - others) / 2, kFloorBytes);
    }
    void report(std::uint64_t bytes) {
      if (bytes == bytes_) return;
      // Unsigned and modular: a smaller report subtracts.
      budget_.used_bytes_.fetch_add(bytes - bytes_, std::memory_order_relaxed);
      bytes_ = bytes;
    }

   private:
    BufferBudget& budget_;
    std::uint64_t bytes_ = 0;
  };

 private:
  const std::uint64_t limit_bytes_;
  std::atomic<std::uint64_t> used_bytes_{0};  // relaxed: a number to steer by
};

}  // namespace kelda::server
