// Deals accepted connections out to cores: the one with the fewest live connections gets the next.
//
// Contract: one Dealer a Listener, made with the number of serving cores. deal() is called on the core that accepts,
// take() on every serving core, close() anywhere. Thread-safe.
// A kernel's own spreading over one socket a core hashes addresses, which is uneven for few connections; this is even.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "net/net.h"
#include "runtime/sync.h"

namespace kelda::net {

class Dealer {
  struct Share {
    runtime::SpinLatch latch;
    std::deque<std::unique_ptr<Connection>> waiting;  // guarded by latch
    bool closed = false;                              // guarded by latch
    runtime::WaitQueue takers;
    std::atomic<std::uint32_t> live{0};
  };

 public:
  // A connection's seat: counts on its core until it is destroyed. Outlives the Dealer if need be.
  class Seat {
   public:
    Seat() = default;
    Seat(Seat&&) = default;
    Seat& operator=(Seat&&) = default;
    ~Seat() {
      // A plain count: readers only compare loads, so no order with other memory is needed.
      if (share_) share_->live.fetch_sub(1, std::memory_order_relaxed);
    }
    std::uint32_t core() const { return core_; }

   private:
    friend class Dealer;
    std::shared_ptr<Share> share_;
    std::uint32_t core_ = 0;
  };

  explicit Dealer(std::uint32_t core_count);

  // On the least loaded core, ties in turn.
  Seat seat();
  // Puts a connection into the queue of its seat's core. False (and the connection destroyed) after close().
  bool deal(std::uint32_t core, std::unique_ptr<Connection> connection);
  // Waits for the calling core's next connection. kClosed after close().
  Result<std::unique_ptr<Connection>> take();
  void close();

 private:
  std::vector<std::shared_ptr<Share>> shares_;
  std::uint32_t turn_ = 0;
};

}  // namespace kelda::net
