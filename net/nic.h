// An Ethernet device as the TCP/IP stack sees it. Used on the stack's core only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/types.h"

namespace kelda::net {

using MacAddress = std::array<std::uint8_t, 6>;

class Nic {
 public:
  virtual ~Nic() = default;

  struct Info {
    std::string driver;
    MacAddress mac{};
    bool fills_checksums = false;    // finishes a TCP or UDP checksum whose field holds the pseudo header's sum
    bool checks_checksums = false;   // frames say whether the device, or the host's memory, vouches for their checksum
  };
  virtual Info info() const = 0;

  class Sink {
   public:
    virtual ~Sink() = default;
    // The bytes are valid during the call only.
    virtual void frame(Bytes bytes, bool checksum_is_good) = 0;
  };
  // Hands over up to `limit` frames that have come in; returns how many.
  virtual std::size_t receive(Sink& sink, std::size_t limit) = 0;

  // Where the device should put a checksum: over the bytes from `start` to the end, at `start + offset`.
  struct PartialChecksum {
    std::uint16_t start = 0, offset = 0;
    bool wanted = false;
  };
  // Queues a frame; its bytes are copied. False when the queue is full: the frame is dropped, which TCP survives.
  virtual bool send(std::span<const Bytes> pieces, PartialChecksum checksum) = 0;
  // Tells the device about everything queued since the last flush.
  virtual void flush() = 0;

  // Before the core sleeps: false when frames are there already.
  virtual bool arm_interrupt() = 0;
  virtual void disarm_interrupt() = 0;
};

}  // namespace kelda::net
