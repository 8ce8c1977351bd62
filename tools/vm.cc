// `kelda vm`: boots this program in QEMU, with a process for its network, and ends both cleanly.
//
// First Ctrl-C (or SIGTERM, SIGHUP, SIGQUIT): the power button is pressed, the guest closes its database and powers off. The
// second one ends the machine as a power cut would.
#include "tools/vm.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "blockdev/disk_claim_hosted.h"
#include "runtime/machine.h"
#include "runtime/core.h"
#include "tools/child.h"
#include "tools/log_line.h"
#include "tools/password.h"
#include "tools/vm_monitor.h"
#include "tools/vm_network.h"

namespace kelda::tools {

namespace {

void say(const std::string& text) { log_line(stderr, "kelda vm: " + text); }

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

// A file without a name, for a child to read.
Result<int> memory_file(const std::string& text) {
  const int fd = memfd_create("kelda", MFD_CLOEXEC);
  if (fd < 0) return system_error("cannot hand the password to the machine");
  if (write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size())) return fd;
  close(fd);
  return system_error("cannot hand the password to the machine");
}

// The machine while it runs.
class Machine {
 public:
  Machine(const VmOptions& options, const sigset_t& signals) : options_(options), signals_(signals) {}

  Result<> start(VmHost host, const std::string& password);
  // Until QEMU ends: the exit code.
  int wait_for_end();

 private:
  void on_network_end();
  void on_signal(int signal);
  void keep_asking();
  int exit_code(int status);
  int code_without_the_guest(int code);
  bool asked() const { return asked_ns_ != 0; }

  const VmOptions& options_;
  const sigset_t& signals_;
  VmMonitor monitor_;
  VmNetwork network_;
  Child qemu_;
  runtime::TimeNs asked_ns_ = 0;
  int asked_by_ = 0;             // the signal
  bool network_lost_ = false;
  bool killed_ = false;          // by us
  bool told_of_silence_ = false;
};

Result<> Machine::start(VmHost host, const std::string& password) {
  TRY(monitor_.make());
  host.monitor = true;
  std::vector<Child::Descriptor> descriptors{{monitor_.guest_end(), 5}};
  int guest_end = -1, password_fd = -1;
  if (!password.empty()) {
    password_fd = TRY(memory_file(password));
    descriptors.push_back({password_fd, 6});
    host.password_path = "/proc/self/fd/6";
  }
  if (in_user_space(options_)) {
    guest_end = TRY(network_.start(options_, host));
    descriptors.push_back({guest_end, 3});
  }
  qemu_ = TRY(Child::start(TRY(qemu_command(options_, host)), descriptors));
  monitor_.started();
  if (guest_end >= 0) close(guest_end);
  if (password_fd >= 0) close(password_fd);
  return {};
}

int Machine::wait_for_end() {
  for (;;) {
    int status = 0;
    if (qemu_.ended(status)) {
      network_.wait_for_end();
      monitor_.read();
      return exit_code(status);
    }
    if (network_.ended()) on_network_end();
    int signal = 0;
    if (asked()) {
      keep_asking();
      constexpr timespec kPause{0, 200'000'000};
      signal = sigtimedwait(&signals_, nullptr, &kPause);
    } else {
      sigwait(&signals_, &signal);
    }
    if (signal > 0 && signal != SIGCHLD) on_signal(signal);
  }
}

void Machine::on_network_end() {
  // It ends when the machine does, and may be seen first.
  siginfo_t info{};
  for (int i = 0; i < 100; ++i, usleep(10'000)) {
    if (waitid(P_PID, static_cast<id_t>(qemu_.pid()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) return;
  }
  if (!guest_serves(options_)) return say("the machine's network has ended; its command goes on without it");
  say("the machine's network has ended and nobody reaches the machine any more: asking it to stop; start it again");
  network_lost_ = true;
  if (!asked()) asked_ns_ = runtime::now_ns();
}

// The first request asks the guest, the second one ends the machine.
void Machine::on_signal(int signal) {
  // `timeout`, shells and supervisors may signal the process and its group: that is one request.
  constexpr runtime::TimeNs kSameRequestNs = 500'000'000;
  if (asked_by_ == 0) {
    asked_by_ = signal;
    asked_ns_ = runtime::now_ns();
    return say("asking the machine to stop (again: at once)");
  }
  if (runtime::now_ns() - asked_ns_ < kSameRequestNs) return;
  say("ending the machine at once");
  killed_ = true;
  qemu_.kill_now();
}

// A press before the guest has its button is lost, so the button is pressed until the machine has ended.
void Machine::keep_asking() {
  constexpr runtime::TimeNs kPatienceNs = 5'000'000'000;
  monitor_.read();
  monitor_.press_power_button();
  if (monitor_.answers() || told_of_silence_ || runtime::now_ns() - asked_ns_ < kPatienceNs) return;
  told_of_silence_ = true;
  say("the machine's monitor does not answer");
}

int Machine::exit_code(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    if (!killed_) {
      say("QEMU was ended by signal " + std::to_string(signal) + " (" + strsignal(signal) +
          "), and the machine as by a power cut: the next start recovers its disk");
    }
    return 128 + signal;
  }
  int code = WEXITSTATUS(status);
  // The guest's own code comes as (code + 1) << 1 | 1 (kernel/kernel.h). 1 is QEMU's failure, 0 a plain power-off.
  const bool from_guest = code >= 3 && (code & 1) != 0;
  if (from_guest) code = (code >> 1) - 1;
  else code = code_without_the_guest(code);
  if (code != 0) return code;
  if (network_lost_) return kExitFailed;
  // A command that was asked to stop has not done what it was started for.
  return asked() && !guest_serves(options_) ? 128 + asked_by_ : 0;
}

// QEMU ended by itself; 0 would say that the guest did.
int Machine::code_without_the_guest(int code) {
  if (code == 0 && monitor_.end_reason() == "host-signal") {
    say("QEMU was asked to end by a signal from outside, and ended the machine as by a power cut: the next start recovers its disk");
    return 128 + SIGTERM;
  }
  if (code == 127) say("QEMU cannot be started");
  return code;
}

// Blocked from here on: none is lost while the machine is being started.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGQUIT, SIGCHLD}) sigaddset(&signals, signal);
  // nohup: who started us wants it ignored. A blocked signal would come nevertheless.
  struct sigaction hang_up {};
  if (sigaction(SIGHUP, nullptr, &hang_up) == 0 && hang_up.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

bool stop_was_asked(const sigset_t& signals) {
  constexpr timespec kNow{0, 0};
  sigset_t stops = signals;
  sigdelset(&stops, SIGCHLD);
  return sigtimedwait(&stops, nullptr, &kNow) > 0;
}

Result<int> print_command(const VmOptions& options, VmHost host, const std::string& password) {
  std::error_code no_matter;  // QEMU says it then
  if (options.password.file) {
    host.password_path = std::filesystem::absolute(*options.password.file, no_matter).string();
  } else if (!password.empty()) {
    return Error(Code::kInvalidArgument, "a printed command must not hold the password: give it as --password-file F");
  }
  // Nobody else can know the name, and put something there.
  char name[64];
  std::snprintf(name, sizeof name, "/kelda-passt-%016llx.socket", static_cast<unsigned long long>(runtime::random_u64()));
  const char* folder = std::getenv("XDG_RUNTIME_DIR");
  host.passt_socket = (folder != nullptr && *folder != 0 ? folder : "/tmp") + std::string(name);
  if (in_user_space(options)) std::printf("%s\n", shell_quoted(TRY(passt_command(options, host))).c_str());
  std::printf("%s\n", shell_quoted(TRY(qemu_command(options, host))).c_str());
  return 0;
}

Result<int> run(VmOptions options) {
  if (!in_path("qemu-system-x86_64")) {
    return Error(Code::kNotFound, "qemu-system-x86_64 is not installed: `apt-get install qemu-system-x86`");
  }
  if (options.net == "passt" && !in_path("passt")) {
    return Error(Code::kNotFound, "passt is not installed: `apt-get install passt`, or --net user, which needs nothing");
  }
  const std::string password = TRY(find_password(options.password));
  const sigset_t signals = block_signals();
  // What is wrong with the command line is said before a disk is made.
  TRY(memory_to_use(options.memory_bytes, options.memory_bytes));
  TRY(qemu_command(options, {}));
  VmPort port;
  if (in_user_space(options)) TRY(port.take(options.resp, !options.print_command));
  const auto disk = TRY(take_disk(options));
  VmHost host = probe_host(disk.get());
  if (disk != nullptr && host.direct_io && !host.io_uring) {
    say("io_uring is not available here (" + host.no_io_uring + "): QEMU uses threads for the disk, which is slower");
  }
  if (options.print_command) {
    return print_command(options, std::move(host), password);
  }
  if (stop_was_asked(signals)) {
    say("asked to stop before the machine was started");
    return guest_serves(options) ? 0 : kExitFailed;
  }
  Machine machine(options, signals);
  TRY(machine.start(std::move(host), password));
  return machine.wait_for_end();
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
