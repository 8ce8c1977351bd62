// lwIP as this project drives it, over a loopback that can be a bad network, with little memory.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "net/lwip_port.h"
#include "net/lwip_stack.h"
#include "runtime/core.h"

namespace kelda::net::lwip {
namespace {

using runtime::Core;
using runtime::now_ns;

constexpr runtime::TimeNs kMs = 1'000'000;
constexpr runtime::TimeNs kPatience = 20'000 * kMs;

void on_stack(const StackOptions& options, const Loopback::Faults& faults,
              std::move_only_function<void(runtime::Runtime&, Stack&)> body) {
  auto result = runtime::Runtime::run({.core_count = 2}, [&](runtime::Runtime& runtime) {
    Stack stack(nullptr, options, faults);
    body(runtime, stack);
    return 0;
  });
  ASSERT_TRUE(result) << result.error().to_string();
}

void echo(Connection& connection) {
  std::vector<std::byte> buffer(16 * 1024);
  while (true) {
    auto got = connection.read(buffer);
    if (!got || *got == 0 || !connection.write(Bytes(buffer).first(*got))) return;
  }
}

// An echo server on both cores, for as long as it lives.
class EchoServer {
 public:
  EchoServer(runtime::Runtime& runtime, Stack& stack) {
    listener_ = std::move(*stack.listen({0x7f000001, 0}, 2));
    for (std::uint32_t i = 0; i < 2; ++i) {
      served_.add();
      EXPECT_TRUE(runtime.core(i).spawn_remote([this] { serve(); }));
    }
  }
  ~EchoServer() {
    listener_->close();
    served_.wait();
  }
  Endpoint endpoint() const { return *parse_endpoint(listener_->local()); }

 private:
  void serve() {
    runtime::Completion sessions;
    while (auto connection = listener_->accept()) {
      sessions.add();
      EXPECT_TRUE(Core::current().spawn([&sessions, held = std::move(*connection)]() mutable {
        echo(*held);
        held.reset();
        sessions.done();
      }));
    }
    sessions.wait();
    served_.done();
  }

  std::unique_ptr<Listener> listener_;
  runtime::Completion served_;
};

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t x = 1;
  for (char& c : text) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return text;
}

// Sends and receives at the same time; true if everything came back.
bool echoes(Connection& connection, const std::string& sent) {
  runtime::Completion written;
  written.add();
  EXPECT_TRUE(Core::current().spawn([&] {
    EXPECT_TRUE(connection.write(as_bytes(sent), now_ns() + kPatience));
    written.done();
  }));
  std::string back;
  std::vector<std::byte> buffer(8192);
  while (back.size() < sent.size()) {
    auto got = connection.read(buffer, now_ns() + kPatience);
    if (!got || *got == 0) break;
    back += as_view(Bytes(buffer).first(*got));
  }
  written.wait();
  return back == sent;
}

TEST(Lwip, SurvivesLossDoublingAndReordering) {
  const Loopback::Faults bad{.lost_percent = 2, .doubled_percent = 2, .delay_ns = kMs / 10, .jitter_ns = kMs, .seed = 3};
  on_stack({}, bad, [](runtime::Runtime& runtime, Stack& stack) {
    EchoServer server(runtime, stack);
    for (int i = 0; i < 2; ++i) {
      auto client = stack.connect(server.endpoint(), now_ns() + kPatience);
      ASSERT_TRUE(client) << client.error().to_string();
      EXPECT_TRUE(echoes(**client, pattern(100'000)));
    }
  });
}

TEST(Lwip, ClientsThatNeverReadDoNotStarveOthers) {
  on_stack({.memory_limit_bytes = 2 << 20}, {}, [](runtime::Runtime& runtime, Stack& stack) {
    EchoServer server(runtime, stack);
    std::vector<std::unique_ptr<Connection>> greedy;
    const std::string block(64 * 1024, 'x');
    for (int i = 0; i < 30; ++i) {
      auto client = stack.connect(server.endpoint(), now_ns() + kPatience);
      ASSERT_TRUE(client) << client.error().to_string();
      greedy.push_back(std::move(*client));
    }
    runtime::Completion stopped;
    for (auto& client : greedy) {
      stopped.add();
      ASSERT_TRUE(Core::current().spawn([&] {
        while (client->write(as_bytes(block), now_ns() + 300 * kMs)) {
        }
        stopped.done();
      }));
    }
    stopped.wait();
    EXPECT_LE(memory_used_bytes(), std::uint64_t{2} << 20);
    auto client = stack.connect(server.endpoint(), now_ns() + kPatience);
    ASSERT_TRUE(client) << client.error().to_string();
    EXPECT_TRUE(echoes(**client, pattern(20'000)));
    greedy.clear();
  });
}

TEST(Lwip, MemoryComesBack) {
  std::uint64_t before = 0;
  on_stack({}, {}, [&](runtime::Runtime& runtime, Stack& stack) {
    EchoServer server(runtime, stack);
    for (int round = 0; round < 3; ++round) {
      std::vector<std::unique_ptr<Connection>> clients;
      for (int i = 0; i < 20; ++i) {
        clients.push_back(std::move(*stack.connect(server.endpoint(), now_ns() + kPatience)));
        EXPECT_TRUE(echoes(*clients.back(), pattern(5000)));
      }
      clients.clear();
      Core::current().sleep_until(now_ns() + 50 * kMs);
      // What stays are the remains of closed connections (TIME_WAIT): a pcb each.
      if (round == 0) before = memory_used_bytes();
      EXPECT_LE(memory_used_bytes(), before + 2 * 20 * 512 * static_cast<std::uint64_t>(round));
    }
  });
}

TEST(Lwip, ConnectionsBeyondTheLimitWait) {
  on_stack({.connection_limit = 5}, {}, [](runtime::Runtime& runtime, Stack& stack) {
    EchoServer server(runtime, stack);
    std::vector<std::unique_ptr<Connection>> clients;
    for (int i = 0; i < 5; ++i) clients.push_back(std::move(*stack.connect(server.endpoint(), now_ns() + kPatience)));
    EXPECT_TRUE(stack.connect(server.endpoint(), now_ns() + 50 * kMs).error().code() == Code::kTimeout);
    EXPECT_TRUE(echoes(*clients.back(), "still served"));
  });
}

TEST(Lwip, ClosedConnectionsDoNotUseUpTheLimit) {
  on_stack({.connection_limit = 5}, {}, [](runtime::Runtime&, Stack& stack) {
    auto listener = std::move(*stack.listen({0x7f000001, 0}, 1));
    const Endpoint endpoint = *parse_endpoint(listener->local());
    for (int i = 0; i < 30; ++i) {
      auto client = stack.connect(endpoint, now_ns() + kPatience);
      ASSERT_TRUE(client) << i << ": " << client.error().to_string();
      auto server = listener->accept();
      ASSERT_TRUE(server);
      server->reset();  // this side closes first, which leaves it in TIME_WAIT
      std::byte buffer[8];
      EXPECT_EQ(*(*client)->read(buffer, now_ns() + kPatience), 0u);
    }
  });
}

}  // namespace
}  // namespace kelda::net::lwip
