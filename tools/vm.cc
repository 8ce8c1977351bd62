// `kelda vm`: boots this program in QEMU, with a process for its network, and ends both cleanly.
//
// First Ctrl-C (or SIGTERM): the power button is pressed, the guest closes its database and powers off. The second one ends
// the machine as a power cut would.
#include "tools/vm.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "blockdev/disk_claim_hosted.h"
#include "runtime/machine.h"
#include "runtime/core.h"
#include "tools/child.h"

namespace kelda::tools {

namespace {

Error system_error(const std::string& what) { return Error(Code::kIo, what + ": " + std::strerror(errno)); }

// The guest's disk, there already or made now, and nobody else's until the end. Null without one.
Result<std::unique_ptr<blockdev::DiskClaim>> take_disk(const VmOptions& options) {
  if (options.disk.empty()) {
    if (options.guest_command.empty()) return Error(Code::kInvalidArgument, "name the disk: --disk FILE [--create 4G]");
    return std::unique_ptr<blockdev::DiskClaim>();
  }
  const auto use = options.print_command ? blockdev::DiskUse::kLook : blockdev::DiskUse::kMachine;
  auto disk = TRY(blockdev::DiskClaim::take(options.disk, use, options.create_bytes));
  if (options.print_command) disk->keep_created();  // the printed command uses it
  return disk;
}

// The network's own message for a port in use would come in the middle of the start.
Result<> check_port_free(const std::string& resp) {
  const auto colon = resp.rfind(':');  // passt_command() has seen that there is one, and a port behind it
  const std::string host = resp.substr(0, colon);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(resp.c_str() + colon + 1, nullptr, 10)));
  if (inet_pton(AF_INET, host.empty() ? "0.0.0.0" : host.c_str(), &address.sin_addr) != 1) {
    return Error(Code::kInvalidArgument, "'" + host + "' is not an IPv4 address like 127.0.0.1 (--resp ADDR:PORT)");
  }
  // A killed network's port is free again a moment after it (net/acceptor_hosted.cc).
  int error = 0;
  for (int tries = 0; tries < 25; ++tries, usleep(20'000)) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    error = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
    close(fd);
    if (error != EADDRINUSE) break;
  }
  if (error == 0) return {};
  return Error(Code::kBusy, resp + " cannot be used (" + std::strerror(error) + "): choose another with --resp ADDR:PORT");
}

// The machine's monitor: a pair of sockets, of which QEMU gets one end. Nothing of it lies in the file system.
class Monitor {
 public:
  ~Monitor() {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  Result<> make() {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) != 0) return system_error("socketpair");
    return {};
  }
  int guest_end() const { return ends_[1]; }
  void started() { close(std::exchange(ends_[1], -1)); }
  bool press_power_button();

 private:
  int ends_[2] = {-1, -1};
};

// QMP: the answers are read to the power-down event, for closing earlier could drop the request.
bool Monitor::press_power_button() {
  const int fd = ends_[0];
  const timeval patience{5, 0};  // a monitor that hangs must not keep us from the second request
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const std::string request = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"system_powerdown\"}\n";
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) <= 0) return false;
  std::string answers;
  char piece[512];
  ssize_t n;
  while ((n = recv(fd, piece, sizeof piece, 0)) > 0) {
    answers.append(piece, static_cast<std::size_t>(n));
    if (answers.find("POWERDOWN") != std::string::npos) return true;
  }
  return false;
}

int exit_code_of(int status) {
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  const int code = WEXITSTATUS(status);
  // The guest's own code comes as (code + 1) << 1 | 1 (kernel/kernel.h). 1 is QEMU's failure, 0 a plain power-off.
  return code >= 3 && (code & 1) != 0 ? (code >> 1) - 1 : code;
}

// The guest's network in user space: our own, or passt.
class Network {
 public:
  // Returns the end for QEMU.
  Result<int> start(const VmOptions& options, const VmHost& host) {
    const bool passt = options.net == "passt";
    const auto command = passt ? TRY(passt_command(options, host)) : user_network_command(options, host);
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return system_error("socketpair");
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

  // Seen once.
  bool ended() {
    int status;
    return child_.pid() > 0 && child_.ended(status);
  }
  // It ends by itself after the machine; killed, it would hold its port for a moment longer.
  void wait_for_end() {
    for (int i = 0; i < 100 && child_.pid() > 0 && !ended(); ++i) usleep(10'000);
  }

 private:
  Child child_;
};

// Until QEMU ends. Signals are blocked in this process and taken here.
int wait_for_end(Child& qemu, Network& network, const sigset_t& signals, Monitor& monitor) {
  // `timeout`, shells and supervisors may signal the process and its group: that is one request.
  constexpr std::int64_t kSameRequestNs = 500'000'000;
  std::int64_t asked_ns = 0;
  for (;;) {
    int status = 0;
    if (qemu.ended(status)) {
      network.wait_for_end();
      return exit_code_of(status);
    }
    if (network.ended()) {
      // It ends when the machine does, and may be seen first.
      for (int i = 0; i < 100; ++i, usleep(10'000)) {
        if (qemu.ended(status)) return exit_code_of(status);
      }
      std::fprintf(stderr, "kelda vm: the network has ended; the machine goes on without it\n");
    }
    int signal = 0;
    sigwait(&signals, &signal);
    if (signal == SIGCHLD) continue;
    if (asked_ns != 0) {
      if (static_cast<std::int64_t>(runtime::now_ns()) - asked_ns < kSameRequestNs) continue;
      std::fprintf(stderr, "kelda vm: ending the machine at once\n");
      qemu.kill_now();
    } else {
      std::fprintf(stderr, "kelda vm: asking the machine to stop (again: at once)\n");
      if (!monitor.press_power_button()) std::fprintf(stderr, "kelda vm: the machine's monitor does not answer\n");
    }
    asked_ns = runtime::now_ns();
  }
}

Result<int> run(const VmOptions& options) {
  if (!in_path("qemu-system-x86_64")) {
    return Error(Code::kNotFound, "qemu-system-x86_64 is not installed: `apt-get install qemu-system-x86`");
  }
  if (options.net == "passt" && !in_path("passt")) {
    return Error(Code::kNotFound, "passt is not installed: `apt-get install passt`, or --net user, which needs nothing");
  }
  // What is wrong with the command line is said before a disk is made.
  TRY(memory_to_use(options.memory_bytes, options.memory_bytes));
  TRY(qemu_command(options, {}));
  if (in_user_space(options)) TRY(passt_command(options, {}));
  if (in_user_space(options) && !options.print_command) TRY(check_port_free(options.resp));
  const auto disk = TRY(take_disk(options));
  VmHost host = probe_host(disk.get());
  if (disk != nullptr && host.direct_io && !host.io_uring) {
    std::fprintf(stderr, "kelda vm: io_uring is not available here (%s): QEMU uses threads for the disk, which is slower\n", host.no_io_uring.c_str());
  }
  if (options.print_command) {
    host.passt_socket = "/tmp/kelda-passt-" + options.resp.substr(options.resp.rfind(':') + 1) + ".socket";
    if (in_user_space(options)) std::printf("%s\n", shell_quoted(TRY(passt_command(options, host))).c_str());
    std::printf("%s\n", shell_quoted(TRY(qemu_command(options, host))).c_str());
    return 0;
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);

  Monitor monitor;
  TRY(monitor.make());
  host.monitor = true;
  Network network;
  std::vector<Child::Descriptor> descriptors{{monitor.guest_end(), 5}};
  int guest_end = -1;
  if (in_user_space(options)) {
    guest_end = TRY(network.start(options, host));
    descriptors.push_back({guest_end, 3});
  }
  Child qemu = TRY(Child::start(TRY(qemu_command(options, host)), descriptors));
  monitor.started();
  if (guest_end >= 0) close(guest_end);
  return wait_for_end(qemu, network, signals, monitor);
}

}  // namespace

int vm(const VmOptions& options) {
  if (runtime::machine_info().bare) {
    std::fprintf(stderr, "kelda vm: this is a virtual machine already\n");
    return kExitFailed;
  }
  Result<int> code = run(options);
  if (code) return *code;
  std::fprintf(stderr, "kelda vm: %s\n", code.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
