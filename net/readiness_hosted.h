// Waiting for sockets where io_uring is forbidden (containers often do): one thread with an epoll set for the process.
//
// Contract: wait() parks the calling fiber until the socket is ready or the deadline passes; at most one waiter for each
// socket and direction. The socket must stay open meanwhile.
#pragma once

#include <memory>

#include "common/result.h"
#include "runtime/core.h"

namespace kelda::net {

enum class Direction { kRead, kWrite };

class Readiness {
 public:
  static Readiness& instance();
  // False at the deadline. Ready may also mean: closed, or in error.
  bool wait(int socket, Direction direction, runtime::TimeNs deadline_ns);

 private:
  Readiness();
  struct State;
  State& state_;  // lives as long as the process, like the thread that uses it
};

}  // namespace kelda::net
