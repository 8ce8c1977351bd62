// One byte-stream interface: Linux sockets on io_uring, lwIP on virtio-net, in-memory pipes in simulation.
//
// Contract: calls park the calling fiber. A Connection belongs to the core that accepted it (or to which it was given
// by Listener::accept on that core) and is used by one reader and one writer fiber of that core at a time.
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
  // At least one byte, at most out.size(); 0 at the end of the stream. kClosed after shut_down(), kTimeout at deadline.
  virtual Result<std::size_t> read(MutableBytes out, runtime::TimeNs deadline_ns = runtime::kNever) = 0;
  // All of it, or an error. Data may be in flight in the network when it returns, but no longer in `data`.
  virtual Result<> write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns = runtime::kNever) = 0;
  // Makes pending and later calls of this connection return kClosed; from any fiber of its core.
  virtual void shut_down() = 0;
  virtual std::string peer() const = 0;  // "127.0.0.1:4711"
};

class Listener {
 public:
  virtual ~Listener() = default;
  // The next connection for the calling core. kClosed after close().
  virtual Result<std::unique_ptr<Connection>> accept() = 0;
  virtual void close() = 0;  // from any core
  virtual std::string local() const = 0;
};

struct StackOptions {                // bare only; hosted ignores it
  std::string address;               // "10.0.0.2/24"; empty: DHCP
  std::string gateway;
};

// Brings the platform's network up (bare: virtio-net, lwIP, DHCP). Once per process, on core 0, before listen().
Result<> start(const StackOptions& options);
// "ADDR:PORT"; port 0 picks a free one (see local()). kBusy when taken. Connections are spread over `core_count` cores:
// each core calls accept() on the same Listener for its own.
Result<std::unique_ptr<Listener>> listen(const std::string& address, std::uint32_t core_count);
// For tests and tools.
Result<std::unique_ptr<Connection>> connect(const std::string& address, runtime::TimeNs deadline_ns);

}  // namespace kelda::net
