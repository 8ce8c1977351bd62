// `kelda serve`: opens the disk, brings the network up, serves Redis clients until somebody asks to stop.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <utility>

#include "blockdev/blockdev.h"
#include "kelda/kelda.h"
#include "net/address.h"
#include "net/net.h"
#include "runtime/machine.h"
#include "server/expiry_clock.h"
#include "server/server.h"
#include "tools/commands.h"
#include "tools/log_line.h"
#include "tools/password.h"

namespace kelda::tools {

namespace {

const char* yes_no(bool value) { return value ? "yes" : "no"; }

void print_machine(std::uint32_t cores, std::uint64_t memory_bytes) {
  const auto machine = runtime::machine_info();
  log_format(stdout, "kelda %s, %s, %u of %u CPUs, %s of %s memory", KELDA_VERSION, machine.platform.c_str(), cores,
              machine.cpu_count, format_size(memory_bytes).c_str(), format_size(machine.memory_bytes).c_str());
}

std::string describe(const blockdev::DeviceInfo& info) {
  return info.name + ": " + format_size(info.size_bytes) + ", " + info.driver + ", flush " + yes_no(info.has_flush) +
         ", FUA " + yes_no(info.has_fua) + ", discard " + yes_no(info.has_discard) + ", " +
         std::to_string(info.block_bytes) + " B blocks";
}

void print_database(const Database& db, const OpenReport& opened, bool flush) {
  log_line(stdout, "disk " + describe(db.device().info()));
  if (opened.grown_from_bytes != 0) {
    log_line(stdout, "the disk was enlarged from " + format_size(opened.grown_from_bytes) + "; the new space is in use");
  }
  log_format(stdout, "durability: %s", flush ? "flush: what is acknowledged is on the disk and flushed"
                                             : "NONE: what is acknowledged may be lost");
  if (opened.created) {
    log_format(stdout, "recovery: none, the disk was formatted (%" PRIu64 " ms)", opened.duration_us / 1000);
  } else if (opened.was_clean) {
    log_format(stdout, "recovery: none needed, it was closed cleanly (%" PRIu64 " ms)", opened.duration_us / 1000);
  } else {
    log_format(stdout, "recovery: %s of log, %" PRIu64 " records, %" PRIu64 " transactions undone, %" PRIu64
               " torn pages repaired, %" PRIu64 " ms",
               format_size(opened.log_bytes).c_str(), opened.records, opened.undone_transactions, opened.pages_repaired,
               opened.duration_us / 1000);
  }
}

void show_recovery(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  log_line(stdout, "recovering: " + format_size(done_bytes) + " of " + format_size(total_bytes) + " of log");
}

void say_failure(const Error& cause) {
  log_line(stderr, "kelda serve: the engine has stopped: " + cause.to_string());
}

void show_damage(const std::string& what) { log_line(stdout, "SCRUB: " + what); }

// Below this the engine's share is too small for its log buffers and its least pool.
constexpr std::uint64_t kLeastMemoryBytes = 16_MiB;

// One memory bound for everything: the engine gets what connections, requests and replies leave.
struct MemoryShares {
  std::uint64_t engine_bytes, network_bytes, request_bytes;
};
Result<MemoryShares> share_out(std::uint64_t memory_bytes, std::uint64_t asked_request_bytes) {
  if (memory_bytes < kLeastMemoryBytes) {
    const runtime::MachineInfo machine = runtime::machine_info();
    const std::string needs = "serving needs at least " + format_size(kLeastMemoryBytes) + " of memory, ";
    if (!machine.bare) return Error(Code::kTooSmall, needs + "--memory gives " + format_size(memory_bytes) + ": give it more");
    return Error(Code::kTooSmall, needs + "and of this machine's " + format_size(machine.memory_bytes) + " the kernel, the program and its stacks leave " +
                                      format_size(memory_bytes) + ": give the machine more (kelda vm --memory 64M)");
  }
  MemoryShares shares;
  shares.network_bytes = std::clamp<std::uint64_t>(memory_bytes / 16, 4_MiB, 64_MiB);
  shares.request_bytes = asked_request_bytes != 0 ? asked_request_bytes : std::clamp<std::uint64_t>(memory_bytes / 8, 4_MiB, 512_MiB);
  const std::uint64_t taken = shares.network_bytes + shares.request_bytes;
  shares.engine_bytes = memory_bytes > taken ? memory_bytes - taken : 0;
  return shares;
}

// Ends the network and what listens on it, also when the start fails half-way.
struct Network {
  std::unique_ptr<net::Listener> listener;
  void end() {
    if (std::exchange(ended, true)) return;
    if (listener != nullptr) listener->close();
    listener.reset();
    net::stop();
  }
  ~Network() { end(); }
  bool ended = false;
};

// Where to listen. A virtual machine has no programs beside this one: nobody would reach its loopback.
Result<std::string> listen_address(const ServeOptions& options) {
  const bool bare = runtime::machine_info().bare;
  if (options.resp.empty()) return std::string(bare ? "0.0.0.0:6379" : "127.0.0.1:6379");
  const net::Endpoint endpoint = TRY(net::parse_endpoint(options.resp));
  if (!bare || endpoint.address >> 24 != 127) return options.resp;
  return Error(Code::kInvalidArgument, "--resp " + options.resp + " is the machine's own loopback, which nobody outside of the machine " +
                                           "can reach: leave --resp away, or give 0.0.0.0:" + std::to_string(endpoint.port));
}

// What clients connect to: `local` is what the listener is bound to, `machine` the machine's own address, bare.
Result<std::string> reachable_address(const std::string& local, const std::string& machine) {
  net::Endpoint endpoint = TRY(net::parse_endpoint(local));
  if (endpoint.address == 0 && !machine.empty()) endpoint.address = TRY(net::parse_ipv4(machine.substr(0, machine.find('/'))));
  return endpoint.to_string();
}

server::ServerOptions server_options_of(const ServeOptions& options, const MemoryShares& shares) {
  const ClientLimits& limits = options.limits;
  server::ServerOptions server_options;
  server_options.max_clients = limits.max_clients;
  server_options.idle_timeout_s = limits.idle_timeout_s;
  server_options.write_timeout_s = limits.write_timeout_s;
  server_options.tcp_keepalive_s = limits.tcp_keepalive_s;
  server_options.buffer_limit_bytes = shares.request_bytes;
  // One client may take half of it.
  const std::uint64_t half_bytes = std::min(shares.request_bytes / 2, server_options.request_limit_bytes);
  server_options.request_limit_bytes = limits.request_bytes != 0 ? limits.request_bytes : half_bytes;
  server_options.output_limit_bytes = limits.reply_bytes != 0 ? limits.reply_bytes : half_bytes;
  server_options.platform = runtime::machine_info().platform;
  server_options.on_failure = &say_failure;
  return server_options;
}

void print_ready(const net::StackInfo& stack, const std::string& address) {
  if (!stack.address.empty()) {
    log_format(stdout, "network: %s, %s, gateway %s, MAC %s", stack.address.c_str(), stack.driver.c_str(),
               stack.gateway.empty() ? "none" : stack.gateway.c_str(), stack.mac.c_str());
  }
  log_format(stdout, "%.0f ms from start", static_cast<double>(runtime::machine_info().since_start_us) / 1000);
  std::printf("ready: redis://%s\n", address.c_str());
  std::fflush(stdout);
}

Result<> run(runtime::Runtime& rt, const ServeOptions& options, const std::string& password, runtime::Event& stop) {
  const std::uint64_t memory_bytes = TRY(memory_to_use(options.memory_bytes, 256_MiB));
  const MemoryShares shares = TRY(share_out(memory_bytes, options.limits.all_bytes));
  const bool flush = options.durability != "none";
  print_machine(rt.core_count(), memory_bytes);
  // The port first: two servers on one port is the commoner mistake, and nothing was touched yet.
  const ClientLimits& limits = options.limits;
  const auto stack = TRY(net::start({.peers = {.keepalive_s = limits.tcp_keepalive_s, .send_timeout_s = limits.write_timeout_s},
                                     .address = options.address,
                                     .gateway = options.gateway,
                                     .connection_limit = limits.max_clients + 64,
                                     .memory_limit_bytes = shares.network_bytes}));
  Network network;
  network.listener = TRY(net::listen(TRY(listen_address(options)), rt.core_count()));
  const std::string clients_use = options.announce.empty() ? TRY(reachable_address(network.listener->local(), stack.address)) : options.announce;

  DatabaseOptions db_options;
  db_options.memory_bytes = shares.engine_bytes;
  db_options.durability = flush ? DurabilityMode::kFlush : DurabilityMode::kNone;
  db_options.create_if_blank = options.create_bytes != 0;
  db_options.force_create = options.force;
  db_options.progress = &show_recovery;
  db_options.lock_timeout_us = kNoLockTimeout;  // a client's transaction never stays open while its client thinks
  db_options.scrub = {.interval_s = options.scrub_interval_s, .bytes_per_s = options.scrub_bytes_per_s, .report = &show_damage};
  OpenReport opened;
  auto db = TRY(Database::open(options.disk, options.create_bytes, db_options, &opened));
  print_database(*db, opened, flush);

  server::ServerOptions server_options = server_options_of(options, shares);
  server_options.password = password;
  server_options.memory_bytes = memory_bytes;
  server_options.durability = db_options.durability;
  server_options.device_text = describe(db->device().info());
  server_options.open_report = opened;
  server::Server server(*db, server_options);
  TRY(runtime::Core::current().spawn([&] {
    stop.wait();
    server.request_stop();
  }));
  if (const std::int64_t now_ms = runtime::wall_clock_us() / 1000; !server::clock_can_be_right(now_ms)) {
    log_line(stdout, "CLOCK: " + server::wrong_clock_text(now_ms));
  }
  print_ready(stack, clients_use);

  Result<> served = server.serve(rt, *network.listener);
  log_line(stdout, "stopping");
  stop.set();  // ends the fiber above when a client asked for the shutdown
  runtime::Core::current().yield();
  network.end();
  if (served) served = db->close();
  if (served) std::printf("closed cleanly\n");
  std::fflush(stdout);
  return served;
}

std::uint32_t core_count(const ServeOptions& options) {
  const auto machine = runtime::machine_info();
  if (options.cores != 0) return options.cores;
  return machine.bare ? machine.cpu_count : std::min<std::uint32_t>(2, machine.cpu_count);
}

}  // namespace

int serve(const ServeOptions& options) {
  auto password = find_password(options.password);  // first: a pipe that nobody writes to can still be interrupted
  static runtime::Event stop;  // lives as long as the process, as set_on_stop_request() asks
  runtime::set_on_stop_request(stop);
  Result<> done;
  auto code = runtime::Runtime::run({.core_count = core_count(options)}, [&](runtime::Runtime& rt) {
    done = password ? run(rt, options, *password, stop) : Result<>(std::move(password).error());
    return 0;
  });
  if (!code) done = std::move(code).error();
  if (done) return 0;
  std::fprintf(stderr, "kelda serve: %s\n", done.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
