// An echo server over net/, hosted or bare: the network's own test and benchmark program.
//   net_echo [ADDR:PORT] [--cores N] [--address A/P] [--gateway G] [--delay-us N]
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "net/net.h"
#include "runtime/core.h"

using namespace kelda;

namespace {

struct Arguments {
  std::string listen = "*:7777";
  std::uint32_t cores = 1;
  net::StackOptions stack;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--cores") arguments.cores = static_cast<std::uint32_t>(std::atoi(value));
    else if (word == "--address") arguments.stack.address = value;
    else if (word == "--gateway") arguments.stack.gateway = value;
    else {
      arguments.listen = word;
      continue;
    }
    ++i;
  }
  return arguments;
}

void echo(net::Connection& connection) {
  std::vector<std::byte> buffer(16 * 1024);
  while (true) {
    auto got = connection.read(buffer);
    if (!got || *got == 0) return;
    if (!connection.write(Bytes(buffer).first(*got))) return;
  }
}

void serve(net::Listener& listener) {
  while (true) {
    auto connection = listener.accept();
    if (!connection) return;
    auto started = runtime::Core::current().spawn(
        [held = std::move(*connection)]() mutable { echo(*held); }, {.name = "echo", .stack_bytes = 32 * 1024});
    if (!started) std::printf("net_echo: no memory for another connection\n");
  }
}

int run(runtime::Runtime& runtime, const Arguments& arguments) {
  auto info = net::start(arguments.stack);
  if (!info) {
    std::printf("net_echo: %s\n", info.error().to_string().c_str());
    return 1;
  }
  auto listener = net::listen(arguments.listen, arguments.cores);
  if (!listener) {
    std::printf("net_echo: %s\n", listener.error().to_string().c_str());
    return 1;
  }
  std::printf("net_echo: %s %s gateway %s mac %s; ready: %s\n", info->driver.c_str(), info->address.c_str(),
              info->gateway.c_str(), info->mac.c_str(), (*listener)->local().c_str());
  std::fflush(stdout);
  for (std::uint32_t i = 1; i < arguments.cores; ++i) {
    if (!runtime.core(i).spawn_remote([&] { serve(**listener); })) return 1;
  }
  serve(**listener);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  auto result = runtime::Runtime::run({.core_count = arguments.cores},
                                      [&](runtime::Runtime& runtime) { return run(runtime, arguments); });
  if (!result) {
    std::printf("net_echo: %s\n", result.error().to_string().c_str());
    return 1;
  }
  return *result;
}
