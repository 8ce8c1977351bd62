// The guest's network in user space: a process beside QEMU, our own or passt, and the host's port that leads into it.
#pragma once

#include <string>

#include "common/result.h"
#include "tools/child.h"
#include "tools/vm.h"

namespace kelda::tools {

// The port that clients connect to, looked at before anything is started: the network's own message would come in the
// middle of the start.
class VmPort {
 public:
  VmPort() = default;
  ~VmPort();
  VmPort(const VmPort&) = delete;
  VmPort& operator=(const VmPort&) = delete;

  // `resp` becomes "ADDRESS:PORT" with a dotted address and, for port 0, a port that was free: it stays reserved as long
  // as this object lives, for all but those that set SO_REUSEADDR, as both networks do. kInvalidArgument, or kBusy.
  // Without `must_be_free` a port that is given is not looked at.
  Result<> take(std::string& resp, bool must_be_free);

 private:
  int reserved_ = -1;
};

class VmNetwork {
 public:
  // Returns the end for QEMU.
  Result<int> start(const VmOptions& options, const VmHost& host);
  // True once, when the process has ended.
  bool ended();
  // It ends by itself after the machine; killed, it would hold its port for a moment longer.
  void wait_for_end();

 private:
  Child child_;
};

}  // namespace kelda::tools
