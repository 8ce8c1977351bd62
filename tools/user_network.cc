// `kelda user-network`: the network of a virtual machine, which `kelda vm` starts beside it.
#include <cstdio>

#include "net/net.h"
#include "net/user_network_hosted.h"
#include "runtime/core.h"
#include "tools/commands.h"

namespace kelda::tools {

int user_network(const UserNetworkCommand& options) {
  auto result = runtime::Runtime::run({.core_count = 1}, [&](runtime::Runtime&) {
    Result<> served;
    if (auto started = net::start({}); !started) served = std::move(started).error();
    if (served) served = net::serve_user_network({options.frames, options.listen, options.port});
    if (!served) std::fprintf(stderr, "kelda user-network: %s\n", served.error().to_string().c_str());
    return served ? 0 : kExitFailed;
  });
  return result ? *result : kExitFailed;
}

}  // namespace kelda::tools
