#include "server/server.h"

#include <vector>

#include "runtime/turn.h"
#include "server/connection.h"
#include "server/failure_watch.h"
#include "server/reclaimer.h"
#include "server/server_state.h"

namespace kelda::server {

namespace {

constexpr runtime::TimeNs kMillisecondNs = 1'000'000;

// What runs on each core for one serve().
struct CoreServer {
  ServerState& server;
  net::Listener& listener;
  runtime::Core& core;
  runtime::Completion& done;  // of everything that uses this
  StallWatch stalls = {};
};

void serve_client(CoreServer& here, std::unique_ptr<net::Connection> connection, std::shared_ptr<ClientInfo> info) {
  ServerState& server = here.server;
  {
    ConnectionLoop loop(server, here.stalls, std::move(connection), info);
    loop.run();
  }
  server.clients.remove(*info);
}

void reject(net::Connection& connection) {
  constexpr std::string_view kFull = "-ERR max number of clients reached\r\n";
  // A courtesy: the connection ends whether the client reads the text or not, so nothing follows from the result. The
  // text fits any send buffer; the deadline is for a client that is gone.
  (void)connection.write(as_bytes(kFull), runtime::now_ns() + 100 * kMillisecondNs);
}

void accept_client(CoreServer& here, std::unique_ptr<net::Connection> connection) {
  ServerState& server = here.server;
  auto info = std::make_shared<ClientInfo>();
  info->peer = connection->peer();
  info->local = server.listen_address;
  info->descriptor = connection->descriptor();
  info->core = &here.core;
  info->connected_ms = wall_clock_ms();
  info->active_ms.store(info->connected_ms, std::memory_order_relaxed);
  if (!server.clients.add(info, server.config.max_clients.load(std::memory_order_relaxed))) {
    server.stats.add(Counter::kRejectedConnections);
    return reject(*connection);
  }
  server.stats.add(Counter::kConnections);
  const auto started = runtime::spawn_counted(
      here.core, here.done,
      [&here, info, connection = std::move(connection)]() mutable { serve_client(here, std::move(connection), info); },
      {.name = "client", .stack_bytes = server.options.stack_bytes});
  if (!started) {  // no memory for its stack
    server.stats.add(Counter::kRejectedConnections);
    server.clients.remove(*info);
  }
}

void accept_clients(CoreServer& here) {
  runtime::Turn turn;
  while (true) {
    auto connection = here.listener.accept();
    if (connection) {
      accept_client(here, *std::move(connection));
      turn.step();
    } else if (connection.failed_with(Code::kClosed)) {
      return;
    } else {
      // Out of memory or of file descriptors: those who are connected go on, and some of them will leave.
      here.core.sleep_until(runtime::now_ns() + 50 * kMillisecondNs);
    }
  }
}

Result<> start_core(CoreServer& here) {
  TRY(runtime::spawn_counted(here.core, here.done, [&here] { here.stalls.run(); }, {.name = "stall-watch"}));
  return runtime::spawn_counted(here.core, here.done, [&here] { accept_clients(here); }, {.name = "acceptor"});
}

// Ends all connections: those between requests at once, the others when they have answered or the grace is over.
void drain(ServerState& server) {
  const runtime::TimeNs hard_ns = runtime::now_ns() + server.options.stop_grace_ms * kMillisecondNs;
  while (server.clients.count() > 0) {
    const bool only_idle = runtime::now_ns() < hard_ns;
    for (const auto& info : server.clients.snapshot()) ClientRegistry::disconnect(info, only_idle);
    for (int i = 0; i < 50 && server.clients.count() > 0; ++i) {
      runtime::Core::current().sleep_until(runtime::now_ns() + 2 * kMillisecondNs);
    }
  }
}

}  // namespace

Server::Server(Database& database, const ServerOptions& options)
    : state_(std::make_unique<ServerState>(database, options)) {}

Server::~Server() = default;

void Server::request_stop() {
  state_->request_stop();
}

Result<> Server::serve(runtime::Runtime& runtime, net::Listener& listener) {
  ServerState& server = *state_;
  TRY(server.keyspace.open());
  server.listen_address = listener.local();
  for (std::uint32_t i = 0; i < runtime.core_count(); ++i) server.cores.push_back(&runtime.core(i));

  runtime::Completion done;
  std::vector<std::unique_ptr<CoreServer>> cores;
  Result<> started;
  for (std::uint32_t i = 0; i < runtime.core_count() && started; ++i) {
    cores.push_back(std::make_unique<CoreServer>(server, listener, runtime.core(i), done));
    started = start_core(*cores.back());
  }
  Reclaimer reclaimer(server);
  FailureWatch failure_watch(server, done);
  if (started) {
    started = runtime::spawn_counted(runtime.core(0), done, [&] { reclaimer.run(); }, {.name = "reclaimer"});
  }
  if (started) {
    started = runtime::spawn_counted(runtime.core(0), done, [&] { failure_watch.run(); }, {.name = "failure-watch"});
  }
  if (!started) server.request_stop();

  server.stop.wait();
  listener.close();
  drain(server);
  for (const auto& core : cores) core->stalls.stop();
  done.wait();
  server.background.wait();  // no client is left that could start more
  return started;
}

}  // namespace kelda::server
