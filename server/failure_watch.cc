#include "server/failure_watch.h"

#include "server/client.h"

namespace kelda::server {

namespace {

constexpr runtime::TimeNs kTickNs = 100'000'000;
// A silent client has room for one line.
constexpr runtime::TimeNs kWriteNs = 100'000'000;

}  // namespace

void FailureWatch::run() {
  while (!server_.stop.wait_until(runtime::now_ns() + kTickNs)) {
    const auto health = server_.database.health();
    if (health) continue;
    if (server_.options.on_failure != nullptr) server_.options.on_failure(health.error());
    line_ = "-" + error_text(health.error()) + "\r\n";
    for (runtime::Core* core : server_.cores) {
      // Without memory for it they learn from their next write.
      (void)runtime::spawn_counted(
          *core, done_, [this, core] { tell_clients_of(*core); }, {.name = "failure-watch", .stack_bytes = 32 * 1024});
    }
    return;
  }
}

void FailureWatch::tell_clients_of(runtime::Core& core) {
  for (const auto& info : server_.clients.snapshot()) {
    if (info->core != &core || info->connection == nullptr) continue;
    info->engine_failed = true;
    if (!info->reading) continue;  // its own fiber tells it
    info->being_told = true;
    (void)info->connection->write(as_bytes(line_), runtime::now_ns() + kWriteNs);  // a client that is gone needs no telling
    info->connection->shut_down();
    info->told.set();
  }
}

}  // namespace kelda::server
