// Serves the Redis protocol over a database in memory, or with disk=FILE over the engine, for comparisons with
// redis-server and for client tests:  memory_server [ADDR:PORT] [KEY=VALUE ...]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "net/net.h"
#include "runtime/core.h"
#include "server/server.h"
#include "tests/support/memory_database.h"

int main(int argc, char** argv) {
  using namespace kelda;
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:0";
  server::ServerOptions options;
  std::uint32_t cores = 2;
  std::string disk;
  for (int i = 2; i < argc; ++i) {
    const char* value = std::strchr(argv[i], '=');
    if (value == nullptr) return 2;
    const std::string key(argv[i], static_cast<std::size_t>(value++ - argv[i]));
    if (key == "write_timeout_s") options.write_timeout_s = static_cast<std::uint32_t>(std::atoi(value));
    if (key == "max_clients") options.max_clients = static_cast<std::uint32_t>(std::atoi(value));
    if (key == "password") options.password = value;
    if (key == "disk") disk = value;
    if (key == "cores") cores = static_cast<std::uint32_t>(std::atoi(value));
  }
  const auto status = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
    const auto started = net::start({});
    auto listener = net::listen(address, runtime.core_count());
    if (!started || !listener) {
      std::fprintf(stderr, "memory_server: %s\n", listener ? "no network" : listener.error().to_string().c_str());
      return 1;
    }
    std::unique_ptr<Database> database = std::make_unique<testing::MemoryDatabase>();
    if (!disk.empty()) {
      auto opened = Database::open(disk, 4_GiB, {.create_if_blank = true});
      if (!opened) {
        std::fprintf(stderr, "memory_server: %s\n", opened.error().to_string().c_str());
        return 1;
      }
      database = *std::move(opened);
    }
    server::Server server(*database, options);
    std::printf("%s\n", (*listener)->local().c_str());
    std::fflush(stdout);
    const auto served = server.serve(runtime, **listener);
    if (!served) std::fprintf(stderr, "memory_server: %s\n", served.error().to_string().c_str());
    const auto closed = database->close();
    if (!closed) std::fprintf(stderr, "memory_server: %s\n", closed.error().to_string().c_str());
    return served && closed ? 0 : 1;
  });
  return status ? *status : 1;
}
