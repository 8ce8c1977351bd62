// The loop of one client's connection: read, carry out everything complete, wait for the log once, write.
//
// Contract: runs on the connection's core, in the client's fiber; run() returns when the connection is over.
//
// While the client does not take its replies, write() parks the fiber. A client that sends a long pipeline before it
// reads would then wait for the server and the server for it; so, when a write takes longer than a moment, StallWatch
// lets a second fiber read on into the input buffer, up to the request limit.
#pragma once

#include <cstddef>
#include <memory>

#include "net/net.h"
#include "runtime/core.h"
#include "runtime/sync.h"
#include "server/client.h"
#include "server/input_buffer.h"
#include "server/request_parser.h"

namespace kelda::server {

class StallWatch;

class ConnectionLoop {
 public:
  ConnectionLoop(ServerState& server, StallWatch& stalls, std::unique_ptr<net::Connection> connection,
                 std::shared_ptr<ClientInfo> info);
  ~ConnectionLoop();

  void run();

 private:
  friend class StallWatch;

  bool read_more();    // false: the connection is over
  void execute_all();  // everything complete in the input
  bool send();         // false: the connection is over
  bool write(Bytes data);
  void note_peak();
  void say_that_the_engine_failed();
  void linger();
  void report_buffers();
  void read_while_stalled();

  ServerState& server_;
  StallWatch& stalls_;
  const std::unique_ptr<net::Connection> connection_;
  Client client_;
  InputBuffer input_;
  RequestParser parser_;
  std::int64_t reply_peak_ms_ = 0;  // when it was reached
  bool broken_ = false;
  bool ends_with_an_error_ = false;  // which the client is to get whatever it is sending

  runtime::TimeNs writing_since_ns_ = runtime::kNever;  // kNever: not writing
  bool reading_aside_ = false;                          // by the second fiber
  bool read_aside_ = false;                             // it has read something that is not carried out yet
  runtime::Event aside_done_;
};

// Looks after the connections of one core whose clients do not read. Used on that core only.
class StallWatch {
 public:
  // Runs until stop(); a fiber of the core.
  void run();
  void stop() { stop_.set(); }

 private:
  friend class ConnectionLoop;
  std::vector<ConnectionLoop*> writing_;
  runtime::Event stop_;
};

}  // namespace kelda::server
