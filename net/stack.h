// The seam behind net.h's functions: what a platform's network must do. platform_stack() chooses one.
#pragma once

#include "net/address.h"
#include "net/net.h"

namespace kelda::net {

class Stack {
 public:
  virtual ~Stack() = default;
  virtual Result<StackInfo> start(const StackOptions& options) = 0;
  virtual void stop() = 0;
  virtual Result<std::unique_ptr<Listener>> listen(Endpoint endpoint, std::uint32_t core_count) = 0;
  virtual Result<std::unique_ptr<Connection>> connect(Endpoint endpoint, runtime::TimeNs deadline_ns) = 0;
};

bool is_bare();
Stack& hosted_stack();
Stack& bare_stack();
Stack& platform_stack();

}  // namespace kelda::net
