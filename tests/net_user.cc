// The user-space network as a program: net_user FRAME_FD HOST_ADDRESS:PORT MACHINE_PORT
#include <cstdio>
#include <cstdlib>

#include "net/net.h"
#include "net/user_network_hosted.h"
#include "runtime/core.h"

using namespace kelda;

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  auto result = runtime::Runtime::run({.core_count = 1}, [&](runtime::Runtime&) {
    net::UserNetworkOptions options;
    options.frame_socket = std::atoi(argv[1]);
    options.listen = argv[2];
    options.port = static_cast<std::uint16_t>(std::atoi(argv[3]));
    if (!net::start({})) return 1;
    auto served = net::serve_user_network(options);
    if (!served) std::fprintf(stderr, "net_user: %s\n", served.error().to_string().c_str());
    return served ? 0 : 1;
  });
  return result ? *result : 1;
}
