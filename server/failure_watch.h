// Tells everybody, once, that the engine has failed: the operator by ServerOptions::on_failure, and each client that is
// connected, whatever it does.
//
// A client whose requests are under way finds the failure in its replies or behind them; one that is silent or has sent
// half a request is sent the error now. Their connections end. Whoever connects later can still read, and INFO tells.
#pragma once

#include <string>

#include "runtime/core.h"
#include "runtime/sync.h"
#include "server/server_state.h"

namespace kelda::server {

class FailureWatch {
 public:
  // `done` is waited for before this object goes.
  FailureWatch(ServerState& server, runtime::Completion& done) : server_(server), done_(done) {}
  // Until the failure is told or the server is to stop.
  void run();

 private:
  void tell_clients_of(runtime::Core& core);

  ServerState& server_;
  runtime::Completion& done_;
  std::string line_;  // the error as it is sent
};

}  // namespace kelda::server
