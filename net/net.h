// One byte-stream interface: Linux sockets on io_uring, lwIP on virtio-net, in-memory pipes in simulation.
//
// Contract: calls park the calling fiber. A Connection belongs to the core that accepted it (or that called connect())
// and is used by one reader and one writer fiber of that core at a time. It is destroyed on that core, with no call
// pending: shut_down() it and let its fibers return first.
//
// Invariants, which hold for all three implementations
//  N1. When a call returns, the network no longer touches the caller's memory, whatever the call returned.
//  N2. A reader that stops reading stops the peer: what one connection holds is bounded, and so is all of them.
//  N3. Data whose write() succeeded is still delivered after the Connection is destroyed, as long as the peer takes it.
//
// Implementations: sockets_hosted.cc, lwip_bare.cc, pipe_sim.cc (made by hand, see pipe_sim.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/result.h"
#include "common/types.h"
#include "runtime/core.h"

namespace kelda::net {

class Connection {
 public:
  virtual ~Connection() = default;
  // At least one byte, at most out.size(); 0 at the end of the stream. kClosed after shut_down() or when the peer reset
  // the connection, kTimeout at the deadline (the connection stays good).
  virtual Result<std::size_t> read(MutableBytes out, runtime::TimeNs deadline_ns = runtime::kNever) = 0;
  // All of it, or an error: kClosed, or kTimeout, after which nobody knows how much the peer got: close it then.
  virtual Result<> write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns = runtime::kNever) = 0;
  Result<> write(Bytes data, runtime::TimeNs deadline_ns = runtime::kNever) { return write({&data, 1}, deadline_ns); }
  // No write() follows: the peer reads the end of the stream after what was written. Reading goes on.
  virtual void finish_writing() = 0;
  // Makes pending and later calls of this connection return kClosed; from any fiber of its core. Idempotent.
  virtual void shut_down() = 0;
  virtual std::string peer() const = 0;  // "127.0.0.1:4711"

  enum class Presence : std::uint8_t { kThere, kEnded, kGone };
  // What is known of the peer now, without waiting, whatever it has sent that was not read yet: kEnded: it sends no more
  // (it may still read); kGone: it reset the connection, or this side has shut it down.
  virtual Presence presence() = 0;
  // The operating system's number for the connection; -1: there is none.
  virtual int descriptor() const { return -1; }
};

class Listener {
 public:
  // Destroyed on the core that made it, after close(), with no accept() pending.
  virtual ~Listener() = default;
  // The next connection for the calling core; connections go to the core that has the fewest. kClosed after close().
  virtual Result<std::unique_ptr<Connection>> accept() = 0;
  // From any core, idempotent. Connections that nobody accepted yet are closed.
  virtual void close() = 0;
  virtual std::string local() const = 0;
};

// When a peer counts as gone, on both platforms.
struct PeerTimeouts {
  std::uint32_t keepalive_s = 300;    // of silence before it is asked for a sign of life, three times within as long again
  std::uint32_t send_timeout_s = 60;  // without taking any of what was sent; 0: it may take as long as it likes
};

struct StackOptions {
  PeerTimeouts peers = {};
  // Bare only; hosted ignores the rest, but for the limit of open files that follows from the number of connections.
  std::string address = {}; // "10.0.0.2/24"; empty: DHCP
  std::string gateway = {}; // with a static address; may be empty
  bool needs_device = true; // false: 127.0.0.1 alone, for tests and tools
  std::uint32_t connection_limit = 10'000;       // beyond it SYNs are ignored
  std::uint64_t memory_limit_bytes = 16ull << 20;  // for packets and unsent or unread data of all connections
};

// What was brought up; for the line that the program prints.
struct StackInfo {
  std::string driver;   // "sockets" or "virtio-net"
  std::string address;  // "10.0.2.15/24"; empty when hosted
  std::string gateway;
  std::string mac;
};

// Brings the platform's network up (bare: virtio-net, lwIP, DHCP; hosted: raises the limit of open files). Once,
// on core 0, before listen(). kUnsupported without a device, kTimeout when nobody leases an address.
Result<StackInfo> start(const StackOptions& options);
// Ends what start() began, on the same core; no listener or connection may be left. start() may follow again.
void stop();
// "ADDR:PORT", ADDR being dotted, "localhost", "*" or empty (any); port 0 picks a free one (see local()). kBusy when
// taken. Connections are spread over `core_count` cores: each calls accept() on the same Listener for its own.
Result<std::unique_ptr<Listener>> listen(const std::string& address, std::uint32_t core_count);
// For tests and tools. kClosed when nobody listens there, kTimeout at the deadline.
Result<std::unique_ptr<Connection>> connect(const std::string& address, runtime::TimeNs deadline_ns = runtime::kNever);

}  // namespace kelda::net
