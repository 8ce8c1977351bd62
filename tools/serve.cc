// `kelda serve`: opens the disk, brings the network up, serves Redis clients until somebody asks to stop.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <utility>

#include "blockdev/blockdev.h"
#include "kelda/kelda.h"
#include "net/net.h"
#include "runtime/machine.h"
#include "server/server.h"
#include "tools/commands.h"

namespace kelda::tools {

namespace {

const char* yes_no(bool value) { return value ? "yes" : "no"; }

void print_machine(std::uint32_t cores, std::uint64_t memory_bytes) {
  const auto machine = runtime::machine_info();
  std::printf("kelda %s, %s, %u of %u CPUs, %s of %s memory\n", KELDA_VERSION, machine.platform.c_str(), cores,
              machine.cpu_count, format_size(memory_bytes).c_str(), format_size(machine.memory_bytes).c_str());
}

std::string describe(const blockdev::DeviceInfo& info) {
  return info.name + ": " + format_size(info.size_bytes) + ", " + info.driver + ", flush " + yes_no(info.has_flush) +
         ", FUA " + yes_no(info.has_fua) + ", discard " + yes_no(info.has_discard) + ", " +
         std::to_string(info.block_bytes) + " B blocks";
}

void print_database(const Database& db, const OpenReport& opened, bool flush) {
  std::printf("disk %s\n", describe(db.device().info()).c_str());
  if (opened.grown_from_bytes != 0) {
    std::printf("the disk was enlarged from %s; the new space is in use\n", format_size(opened.grown_from_bytes).c_str());
  }
  std::printf("durability: %s\n", flush ? "flush: what is acknowledged is on the disk and flushed"
                                        : "NONE: what is acknowledged may be lost");
  if (opened.created) {
    std::printf("recovery: none, the disk was formatted (%" PRIu64 " ms)\n", opened.duration_us / 1000);
  } else if (opened.was_clean) {
    std::printf("recovery: none needed, it was closed cleanly (%" PRIu64 " ms)\n", opened.duration_us / 1000);
  } else {
    std::printf("recovery: %s of log, %" PRIu64 " records, %" PRIu64 " transactions undone, %" PRIu64
                " torn pages repaired, %" PRIu64 " ms\n",
                format_size(opened.log_bytes).c_str(), opened.records, opened.undone_transactions, opened.pages_repaired,
                opened.duration_us / 1000);
  }
}

void show_recovery(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  std::printf("recovering: %s of %s of log\n", format_size(done_bytes).c_str(), format_size(total_bytes).c_str());
  std::fflush(stdout);
}

void say_failure(const Error& cause) {
  std::fprintf(stderr, "kelda serve: the engine has stopped: %s\n", cause.to_string().c_str());
}

void show_damage(const std::string& what) {
  std::printf("SCRUB: %s\n", what.c_str());
  std::fflush(stdout);
}

// Below this the engine's share is too small for its log buffers and its least pool.
constexpr std::uint64_t kLeastMemoryBytes = 16_MiB;

// One memory bound for everything: the engine gets what connections, requests and replies leave.
struct MemoryShares {
  std::uint64_t engine_bytes, network_bytes, request_bytes;
};
Result<MemoryShares> share_out(std::uint64_t memory_bytes, std::uint64_t asked_request_bytes) {
  if (memory_bytes < kLeastMemoryBytes) {
    return Error(Code::kTooSmall, "serving needs at least " + format_size(kLeastMemoryBytes) + " of memory, --memory gives " +
                                      format_size(memory_bytes) + ": give it more");
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

Result<std::uint16_t> port_of(const std::string& address) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) return Error(Code::kInvalidArgument, "'" + address + "' is not ADDR:PORT");
  return static_cast<std::uint16_t>(std::strtoul(address.c_str() + colon + 1, nullptr, 10));
}

Result<> run(runtime::Runtime& rt, const ServeOptions& options, runtime::Event& stop) {
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
  TRY(port_of(options.resp));
  network.listener = TRY(net::listen(options.resp, rt.core_count()));

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

  server::ServerOptions server_options;
  server_options.password = options.password;
  server_options.max_clients = limits.max_clients;
  server_options.idle_timeout_s = limits.idle_timeout_s;
  server_options.write_timeout_s = limits.write_timeout_s;
  server_options.tcp_keepalive_s = limits.tcp_keepalive_s;
  server_options.buffer_limit_bytes = shares.request_bytes;
  // One client may take half of it.
  const std::uint64_t half_bytes = std::min(shares.request_bytes / 2, server_options.request_limit_bytes);
  server_options.request_limit_bytes = limits.request_bytes != 0 ? limits.request_bytes : half_bytes;
  server_options.output_limit_bytes = limits.reply_bytes != 0 ? limits.reply_bytes : half_bytes;
  server_options.memory_bytes = memory_bytes;
  server_options.durability = db_options.durability;
  server_options.device_text = describe(db->device().info());
  server_options.platform = runtime::machine_info().platform;
  server_options.open_report = opened;
  server_options.on_failure = &say_failure;
  server::Server server(*db, server_options);
  TRY(runtime::Core::current().spawn([&] {
    stop.wait();
    server.request_stop();
  }));
  if (!stack.address.empty()) {
    std::printf("network: %s, %s, gateway %s, MAC %s\n", stack.address.c_str(), stack.driver.c_str(),
                stack.gateway.empty() ? "none" : stack.gateway.c_str(), stack.mac.c_str());
  }
  std::printf("%.0f ms from start\n", static_cast<double>(runtime::machine_info().since_start_us) / 1000);
  std::printf("ready: redis://%s\n", options.announce.empty() ? network.listener->local().c_str() : options.announce.c_str());
  std::fflush(stdout);

  Result<> served = server.serve(rt, *network.listener);
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
  static runtime::Event stop;  // lives as long as the process, as set_on_stop_request() asks
  runtime::set_on_stop_request(stop);
  Result<> done;
  auto code = runtime::Runtime::run({.core_count = core_count(options)}, [&](runtime::Runtime& rt) {
    done = run(rt, options, stop);
    return 0;
  });
  if (!code) done = std::move(code).error();
  if (done) return 0;
  std::fprintf(stderr, "kelda serve: %s\n", done.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
