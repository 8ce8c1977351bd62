// Connections in memory, with delay, loss, short reads and cuts: for tests of whatever speaks a protocol, on any
// runtime (also inside the VM) and, in simulated time, reproducible from a seed.
//
// What is kept of TCP: order, a bounded window (N2), one end of stream for each direction, reset. Loss cannot be seen
// by a stream's reader as missing bytes: it shows as a pause, the time until the retransmission.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "net/dealer.h"
#include "net/net.h"

namespace kelda::net {

struct PipeOptions {
  runtime::TimeNs delay_ns = 0;              // from write to readable, each way
  double loss = 0;                           // probability that a piece of at most 1460 bytes has to be sent again
  runtime::TimeNs retransmit_ns = 200'000'000;
  bool short_reads = false;                  // read() returns a random part of what is there
  std::size_t window_bytes = 64 * 1024;      // written and not read yet, each way
  std::uint64_t seed = 1;
};

class PipeConnection : public Connection {
 public:
  // The cable is cut: both ends get kClosed at once and data under way is lost. From any core.
  virtual void cut() = 0;
  // The peer stays silent from now on: nothing written here arrives any more (a machine that lost its power).
  virtual void vanish() = 0;
};

using PipeEnds = std::pair<std::unique_ptr<PipeConnection>, std::unique_ptr<PipeConnection>>;
PipeEnds make_pipe(const PipeOptions& options = {});

// A Listener whose clients call dial(), from any core.
class PipeListener : public Listener {
 public:
  PipeListener(std::string name, std::uint32_t core_count, const PipeOptions& options = {});

  Result<std::unique_ptr<Connection>> accept() override { return dealer_.take(); }
  void close() override { dealer_.close(); }
  std::string local() const override { return name_; }

  // The client's end of a new connection; kClosed after close().
  Result<std::unique_ptr<PipeConnection>> dial();

 private:
  const std::string name_;
  PipeOptions options_;
  runtime::SpinLatch latch_;
  Dealer dealer_;             // seats are guarded by latch_
  std::uint64_t dialed_ = 0;  // guarded by latch_
};

}  // namespace kelda::net
