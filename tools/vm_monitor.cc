#include "tools/vm_monitor.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace kelda::tools {

VmMonitor::~VmMonitor() {
  for (const int end : ends_) {
    if (end >= 0) close(end);
  }
}

Result<> VmMonitor::make() {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) != 0) {
    return Error(Code::kIo, std::string("cannot make the machine's monitor: ") + std::strerror(errno));
  }
  return {};
}

void VmMonitor::started() {
  close(std::exchange(ends_[1], -1));
  send("{\"execute\":\"qmp_capabilities\"}\n");  // without it QEMU tells of nothing
}

void VmMonitor::press_power_button() { send("{\"execute\":\"system_powerdown\"}\n"); }

// A monitor that takes nothing has hundreds of requests before it already; one that is gone went with its machine.
void VmMonitor::send(const std::string& request) {
  [[maybe_unused]] const ssize_t sent = ::send(ends_[0], request.data(), request.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void VmMonitor::read() {
  char piece[1024];
  ssize_t n;
  while ((n = recv(ends_[0], piece, sizeof piece, MSG_DONTWAIT)) > 0) {
    unread_.append(piece, static_cast<std::size_t>(n));
    for (std::size_t end; (end = unread_.find('\n')) != std::string::npos; unread_.erase(0, end + 1)) {
      take_line(unread_.substr(0, end));
    }
  }
}

// One JSON object a line; of the events only two matter, and neither holds text of ours.
void VmMonitor::take_line(const std::string& line) {
  if (line.find("\"POWERDOWN\"") != std::string::npos) powered_down_ = true;
  if (line.find("\"SHUTDOWN\"") == std::string::npos) return;
  const auto key = line.find("\"reason\"");
  if (key == std::string::npos) return;
  const auto begin = line.find('"', line.find(':', key)) + 1;
  end_reason_ = line.substr(begin, line.find('"', begin) - begin);
}

}  // namespace kelda::tools
