// 127.0.0.1 inside the stack: packets that come back after a turn of the loop. For the tests it can also be a bad
// network: packets are lost, doubled, and late, so that they overtake each other.
#pragma once

#include <cstdint>
#include <deque>

#include "common/prng.h"
#include "lwip/netif.h"
#include "runtime/core.h"

namespace kelda::net::lwip {

class Loopback {
 public:
  struct Faults {
    std::uint32_t lost_percent = 0;
    std::uint32_t doubled_percent = 0;
    runtime::TimeNs delay_ns = 0;
    runtime::TimeNs jitter_ns = 0;  // up to so much more
    std::uint64_t seed = 1;
  };

  void attach(const Faults& faults);
  void detach();

  // At most `limit` packets that are due. Bounded, because two connections with closed windows acknowledge each other's
  // acknowledgements until one of them is read.
  std::size_t deliver(std::size_t limit);
  runtime::TimeNs next_arrival_ns() const { return queue_.empty() ? runtime::kNever : queue_.front().arrives_ns; }

 private:
  struct Packet {
    pbuf* data;
    runtime::TimeNs arrives_ns;
  };
  static std::int8_t init(netif* device);
  static std::int8_t send(netif* device, pbuf* packet, const ip4_addr* destination);
  bool enqueue(const pbuf& packet);

  netif device_{};
  Faults faults_;
  Prng dice_{1};
  std::deque<Packet> queue_;  // by arrival
};

}  // namespace kelda::net::lwip
