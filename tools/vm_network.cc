#include "tools/vm_network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "net/address.h"

namespace kelda::tools {

namespace {

// The error number, and the port that it got.
int bind_once(int fd, const net::Endpoint& endpoint, std::uint16_t& port) {
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  address.sin_addr.s_addr = htonl(endpoint.address);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return errno;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return errno;
  port = ntohs(address.sin_port);
  return 0;
}

}  // namespace

VmPort::~VmPort() {
  if (reserved_ >= 0) close(reserved_);
}

Result<> VmPort::take(std::string& resp, bool must_be_free) {
  auto parsed = net::parse_endpoint(resp);
  if (!parsed) return Error(Code::kInvalidArgument, "--resp is ADDR:PORT, as 127.0.0.1:6379: " + parsed.error().message());
  net::Endpoint endpoint = *parsed;
  if (!must_be_free && endpoint.port != 0) {
    resp = endpoint.to_string();
    return {};
  }
  // A killed network's port is free again a moment after it (net/acceptor_hosted.cc).
  int error = EADDRINUSE;
  int fd = -1;
  for (int tries = 0; error == EADDRINUSE && tries < 25; ++tries) {
    if (tries > 0) usleep(20'000);
    if (fd >= 0) close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    error = fd < 0 ? errno : bind_once(fd, *parsed, endpoint.port);
  }
  if (error == 0 && parsed->port == 0) {
    reserved_ = std::exchange(fd, -1);
  }
  if (fd >= 0) close(fd);
  if (error != 0) {
    return Error(Code::kBusy, resp + " cannot be used (" + std::strerror(error) + "): choose another with --resp ADDR:PORT");
  }
  resp = endpoint.to_string();
  return {};
}

Result<int> VmNetwork::start(const VmOptions& options, const VmHost& host) {
  const bool passt = options.net == "passt";
  const auto command = passt ? TRY(passt_command(options, host)) : user_network_command(options, host);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Error(Code::kIo, std::string("cannot make the machine's network: ") + std::strerror(errno));
  }
  // passt drops frames that the socket has no room for, and does not repeat a SYN: room for many small frames.
  const int room_bytes = 4 << 20;
  if (passt) setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room_bytes, sizeof room_bytes);
  auto child = Child::start(command, {{ends[1], 4}});
  close(ends[1]);
  if (!child) {
    close(ends[0]);
    return std::move(child).error();
  }
  child_ = std::move(*child);
  return ends[0];
}

bool VmNetwork::ended() {
  int status;
  return child_.pid() > 0 && child_.ended(status);
}

void VmNetwork::wait_for_end() {
  for (int i = 0; i < 100 && child_.pid() > 0 && !ended(); ++i) usleep(10'000);
}

}  // namespace kelda::tools
