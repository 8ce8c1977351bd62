#include "net/net.h"

#include "net/stack.h"

namespace kelda::net {

Result<StackInfo> start(const StackOptions& options) { return platform_stack().start(options); }

void stop() { platform_stack().stop(); }

Result<std::unique_ptr<Listener>> listen(const std::string& address, std::uint32_t core_count) {
  return platform_stack().listen(TRY(parse_endpoint(address)), core_count);
}

Result<std::unique_ptr<Connection>> connect(const std::string& address, runtime::TimeNs deadline_ns) {
  return platform_stack().connect(TRY(parse_endpoint(address)), deadline_ns);
}

}  // namespace kelda::net
