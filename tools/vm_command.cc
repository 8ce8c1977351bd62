// The QEMU and passt command lines of `kelda vm`.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <optional>
#include <sstream>

#include "net/address.h"
#include "runtime/ring_hosted.h"
#include "tools/password.h"
#include "tools/vm.h"

namespace kelda::tools {

namespace {

// The network that the guest is given; nothing outside sees it.
constexpr const char* kGuestAddress = "10.0.2.15";
constexpr const char* kGuestGateway = "10.0.2.2";
// File descriptors that `kelda vm` leaves open for its children: the two ends of the guest's network, and the monitor.
constexpr const char* kQemuNetFd = "3";
constexpr const char* kPassthroughFd = "4";
constexpr const char* kQemuMonitorFd = "5";

// KVM without vmx or svm is an emulation that is slower than TCG and lacks XSAVE.
bool kvm_is_real() {
  if (access("/dev/kvm", R_OK | W_OK) != 0) return false;
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line);
    std::string word;
    while (words >> word) {
      if (word == "vmx" || word == "svm") return true;
    }
    return false;
  }
  return false;
}

// QEMU's comma-separated options double a comma that is meant.
std::string option_value(const std::string& text) {
  std::string out;
  for (const char c : text) out.append(c == ',' ? 2 : 1, c);
  return out;
}

bool is_microvm(const VmOptions& options) { return options.machine == "microvm"; }

std::string device(const VmOptions& options, const std::string& kind, const std::string& rest) {
  return kind + (is_microvm(options) ? "-device" : "-pci") + rest;
}

void add_machine(std::vector<std::string>& argv, const VmOptions& options, const VmHost& host) {
  const bool kvm = options.accel == "kvm" || (options.accel == "auto" && host.kvm);
  const auto add = [&](std::initializer_list<std::string> words) { argv.insert(argv.end(), words); };
  add({"-machine", is_microvm(options) ? "microvm,rtc=on" : options.machine});
  // Under emulation the string instructions that erms advertises are slower than vector moves.
  add({"-accel", kvm ? "kvm" : "tcg,thread=multi", "-cpu", kvm ? "host" : "max,-erms"});
  // TCG leaves out the barriers of a machine that can never have a second CPU (kernel/emulation.h).
  const std::string cpus = std::to_string(options.cpus) + (options.cpus == 1 && !kvm ? ",maxcpus=2" : "");
  add({"-smp", cpus, "-m", std::to_string(options.memory_bytes >> 20) + "M"});
  add({"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"});
  if (is_microvm(options)) add({"-global", "virtio-mmio.force-legacy=false"});
  add({"-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"});
  add({"-device", device(options, "virtio-rng", "")});
}

void add_disk(std::vector<std::string>& argv, const VmOptions& options, const VmHost& host) {
  if (options.disk.empty()) return;
  // cache=none: a guest's flush is a flush of the file, and nothing else sits between.
  // Errors go to the guest, which knows what they mean; by default QEMU stops the machine when its host's disk is full.
  const std::string errors = "werror=report,rerror=report,";
  const std::string cache = !host.direct_io ? "cache=writeback" : host.io_uring ? "cache=none,aio=io_uring" : "cache=none,aio=threads";
  // With the driver's name before it the rest is a path, whatever is in it; without, `a:b` would be the protocol a.
  const std::string driver = host.block_device ? "host_device:" : "file:";
  argv.insert(argv.end(), {"-drive", "file=" + option_value(driver + options.disk) + ",if=none,id=disk0,format=raw,discard=unmap," + errors + cache,
                           "-device", device(options, "virtio-blk", ",drive=disk0,num-queues=" + std::to_string(options.cpus))});
}

Result<> add_network(std::vector<std::string>& argv, const VmOptions& options, const VmHost& host) {
  if (options.net == "none") return {};
  std::string backend;
  if (in_user_space(options)) {
    backend = "stream,id=net0,server=off,";
    backend += host.passt_socket.empty() ? std::string("addr.type=fd,addr.str=") + kQemuNetFd
                                         : "addr.type=unix,addr.path=" + option_value(host.passt_socket);
  } else if (options.net.starts_with("tap=") && options.net.size() > 4) {
    backend = "tap,id=net0,script=no,downscript=no,ifname=" + option_value(options.net.substr(4));
  } else {
    return Error(Code::kInvalidArgument, "--net is user, passt, tap=INTERFACE or none, not '" + options.net + "'");
  }
  argv.insert(argv.end(), {"-netdev", backend, "-device", device(options, "virtio-net", ",netdev=net0")});
  return {};
}

// The guest's command line, which is its argv: words with blanks are quoted.
// Those that differ from what they are without a word.
void add_limits(std::vector<std::string>& words, const ClientLimits& limits) {
  const auto add = [&](const char* name, std::uint64_t value, std::uint64_t without) {
    if (value != without) words.insert(words.end(), {name, std::to_string(value)});
  };
  const ClientLimits without;
  add("--max-clients", limits.max_clients, without.max_clients);
  add("--idle-timeout", limits.idle_timeout_s, without.idle_timeout_s);
  add("--write-timeout", limits.write_timeout_s, without.write_timeout_s);
  add("--tcp-keepalive", limits.tcp_keepalive_s, without.tcp_keepalive_s);
  add("--client-memory", limits.all_bytes, without.all_bytes);
  add("--request-limit", limits.request_bytes, without.request_bytes);
  add("--reply-limit", limits.reply_bytes, without.reply_bytes);
}

// What follows `--name` (or `--name=`), if it is there.
std::optional<std::string> option_in(const std::vector<std::string>& words, const std::string& name) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == name && i + 1 < words.size()) return words[i + 1];
    if (words[i].starts_with(name + "=")) return words[i].substr(name.size() + 1);
  }
  return std::nullopt;
}

// The guest's port that the host's leads to: what it is told to listen on, if it is.
std::string guest_port(const VmOptions& options) {
  const auto resp = guest_serves(options) ? option_in(options.guest_command, "--resp") : std::nullopt;
  net::Endpoint endpoint;
  if (resp) {
    if (auto parsed = net::parse_endpoint(*resp)) endpoint = *parsed;
  }
  return std::to_string(endpoint.port != 0 ? endpoint.port : kGuestRespPort);
}

std::vector<std::string> serve_words(const VmOptions& options) {
  std::vector<std::string> words{"serve", "--disk", "/dev/vda", "--resp", "0.0.0.0:" + std::to_string(kGuestRespPort),
                                 "--durability", options.durability};
  const VmOptions defaults;
  if (options.scrub_interval_s != defaults.scrub_interval_s) words.insert(words.end(), {"--scrub-interval", std::to_string(options.scrub_interval_s)});
  if (options.scrub_bytes_per_s != defaults.scrub_bytes_per_s) words.insert(words.end(), {"--scrub-rate", std::to_string(options.scrub_bytes_per_s)});
  if (options.create_bytes != 0) words.insert(words.end(), {"--create", std::to_string(options.create_bytes)});
  if (options.force) words.push_back("--force");
  add_limits(words, options.limits);
  return words;
}

std::string guest_command_line(const VmOptions& options) {
  std::vector<std::string> words = options.guest_command.empty() ? serve_words(options) : options.guest_command;
  // Where clients connect is known only here; with a network of its own the machine tells its own address.
  if (guest_serves(options) && in_user_space(options) && !option_in(words, "--announce")) {
    words.insert(words.end(), {"--announce", options.resp});
  }
  std::string line = "kelda";
  for (const std::string& word : words) {
    const bool quote = word.empty() || word.find(' ') != std::string::npos;
    line += quote ? " \"" + word + "\"" : " " + word;
  }
  return line;
}

}  // namespace

VmHost probe_host(const blockdev::DiskClaim* disk) {
  VmHost host;
  host.kvm = kvm_is_real();
  if (disk != nullptr) {
    host.direct_io = disk->is_direct();
    host.block_device = disk->is_block_device();
    const auto ring = runtime::Ring::create();
    host.io_uring = ring.has_value();
    if (!ring) host.no_io_uring = ring.error().message();
  }
  std::array<char, 4096> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length > 0) host.self.assign(path.data(), static_cast<std::size_t>(length));
  return host;
}

Result<std::vector<std::string>> qemu_command(const VmOptions& options, const VmHost& host) {
  std::vector<std::string> argv{"qemu-system-x86_64"};
  add_machine(argv, options, host);
  add_disk(argv, options, host);
  TRY(add_network(argv, options, host));
  if (host.monitor) {
    argv.insert(argv.end(), {"-chardev", std::string("socket,id=monitor0,fd=") + kQemuMonitorFd, "-mon", "monitor0,mode=control"});
  }
  // Not on a command line, where every user of the host could read it.
  if (!host.password_path.empty()) {
    argv.insert(argv.end(), {"-fw_cfg", std::string("name=") + kPasswordHostFile + ",file=" + option_value(host.password_path)});
  }
  if (options.gdb_port != 0) {
    argv.insert(argv.end(), {"-S", "-gdb", "tcp:127.0.0.1:" + std::to_string(options.gdb_port)});
  }
  argv.insert(argv.end(), options.qemu_flags.begin(), options.qemu_flags.end());
  argv.insert(argv.end(), {"-kernel", options.elf.empty() ? host.self : options.elf, "-append", guest_command_line(options)});
  return argv;
}

Result<std::vector<std::string>> passt_command(const VmOptions& options, const VmHost& host) {
  const net::Endpoint endpoint = TRY(net::parse_endpoint(options.resp));
  // The port that passt opens on the host is handed to the guest's own.
  const std::string address = endpoint.address == 0 ? "" : net::ipv4_to_string(endpoint.address) + "/";
  const std::string forward = address + std::to_string(endpoint.port) + ":" + guest_port(options);
  std::vector<std::string> argv{"passt", "-q", "-4", "-a", kGuestAddress, "-n", "24", "-g", kGuestGateway,
                                "-t", forward, "-u", "none"};
  if (host.passt_socket.empty()) {
    argv.insert(argv.end(), {"-f", "-F", kPassthroughFd});
  } else {
    // In the background as soon as QEMU can connect, until it disconnects.
    argv.insert(argv.end(), {"-1", "-s", host.passt_socket});
  }
  return argv;
}

bool guest_serves(const VmOptions& options) { return options.guest_command.empty() || options.guest_command[0] == "serve"; }

bool in_user_space(const VmOptions& options) { return options.net == "user" || options.net == "passt"; }

std::vector<std::string> user_network_command(const VmOptions& options, const VmHost& host) {
  return {host.self, "user-network", "--frames", kPassthroughFd, "--listen", options.resp,
          "--port", guest_port(options)};
}

std::string shell_quoted(const std::vector<std::string>& command) {
  std::string out;
  for (const std::string& word : command) {
    if (!out.empty()) out += ' ';
    const bool plain = !word.empty() && word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                                               "0123456789-_=,./:+@%") == std::string::npos;
    if (plain) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    out += '\'';
  }
  return out;
}

}  // namespace kelda::tools
