// The platform's own network over 127.0.0.1: sockets as a process, lwIP's loopback inside a VM. And lwIP as a process,
// so that sanitizers see it too. One text for all: a Connection is a Connection.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "net/lwip_stack.h"
#include "net/net.h"
#include "runtime/core.h"

namespace kelda::net {
namespace {

using runtime::Core;
using runtime::now_ns;

constexpr runtime::TimeNs kMs = 1'000'000;
constexpr runtime::TimeNs kPatience = 10'000 * kMs;

// What a test needs of a network.
struct Network {
  std::function<Result<std::unique_ptr<Listener>>(const std::string&, std::uint32_t)> listen;
  std::function<Result<std::unique_ptr<Connection>>(const std::string&, runtime::TimeNs)> connect;
};

enum class Kind { kPlatform, kLwip };

class Stream : public testing::TestWithParam<Kind> {
 protected:
  void run(std::uint32_t cores, std::move_only_function<void(runtime::Runtime&, Network&)> body) {
    auto result = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
      if (GetParam() == Kind::kPlatform) on_platform(runtime, body);
      else on_lwip(runtime, body);
      return 0;
    });
    ASSERT_TRUE(result) << result.error().to_string();
  }

 private:
  using Body = std::move_only_function<void(runtime::Runtime&, Network&)>;

  static void on_platform(runtime::Runtime& runtime, Body& body) {
    auto started = start({.needs_device = false});
    ASSERT_TRUE(started) << started.error().to_string();
    Network network{net::listen, net::connect};
    body(runtime, network);
    stop();
  }

  static void on_lwip(runtime::Runtime& runtime, Body& body) {
    lwip::Stack stack(nullptr, {});
    Network network{
        [&](const std::string& address, std::uint32_t cores) -> Result<std::unique_ptr<Listener>> {
          return stack.listen(TRY(parse_endpoint(address)), cores);
        },
        [&](const std::string& address, runtime::TimeNs deadline) -> Result<std::unique_ptr<Connection>> {
          return stack.connect(TRY(parse_endpoint(address)), deadline);
        }};
    body(runtime, network);
  }
};

// Reads until `size` bytes have come or the stream ends.
std::string read_up_to(Connection& connection, std::size_t size) {
  std::string text;
  std::vector<std::byte> buffer(8192);
  while (text.size() < size) {
    auto got = connection.read(MutableBytes(buffer).first(std::min(buffer.size(), size - text.size())), now_ns() + kPatience);
    if (!got || *got == 0) break;
    text += as_view(Bytes(buffer).first(*got));
  }
  return text;
}

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  std::uint32_t x = 1;
  for (char& c : text) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return text;
}

void echo(Connection& connection) {
  std::vector<std::byte> buffer(16 * 1024);
  while (true) {
    auto got = connection.read(buffer);
    if (!got || *got == 0 || !connection.write(Bytes(buffer).first(*got))) return;
  }
}

// Accepts on core `index` and echoes until the listener closes.
void serve_echo(runtime::Runtime& runtime, std::uint32_t index, Listener& listener, runtime::Completion& done) {
  done.add();
  ASSERT_TRUE(runtime.core(index).spawn_remote([&] {
    runtime::Completion sessions;
    while (auto connection = listener.accept()) {
      sessions.add();
      ASSERT_TRUE(Core::current().spawn([&sessions, held = std::move(*connection)]() mutable {
        echo(*held);
        held.reset();
        sessions.done();
      }));
    }
    sessions.wait();
    done.done();
  }));
}

// A connected pair on the calling core.
struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
};
Pair connect_pair(Network& network) {
  Pair pair;
  pair.listener = std::move(*network.listen("127.0.0.1:0", 1));
  pair.client = std::move(*network.connect(pair.listener->local(), now_ns() + kPatience));
  pair.server = std::move(*pair.listener->accept());
  return pair;
}

TEST_P(Stream, EchoesOnEveryCoreAndSpreadsConnections) {
  run(2, [](runtime::Runtime& runtime, Network& network) {
    auto listener = network.listen("127.0.0.1:0", 2);
    ASSERT_TRUE(listener) << listener.error().to_string();
    runtime::Completion served;
    for (std::uint32_t i = 0; i < 2; ++i) serve_echo(runtime, i, **listener, served);
    std::vector<std::unique_ptr<Connection>> clients;
    for (int i = 0; i < 20; ++i) {
      auto client = network.connect((*listener)->local(), now_ns() + kPatience);
      ASSERT_TRUE(client) << client.error().to_string();
      clients.push_back(std::move(*client));
    }
    for (int round = 0; round < 5; ++round) {
      for (auto& client : clients) ASSERT_TRUE(client->write(as_bytes("*1\r\n$4\r\nPING\r\n")));
      for (auto& client : clients) EXPECT_EQ(read_up_to(*client, 14), "*1\r\n$4\r\nPING\r\n");
    }
    clients.clear();
    (*listener)->close();
    served.wait();
  });
}

TEST_P(Stream, LargeTransfersArriveWhole) {
  run(2, [](runtime::Runtime& runtime, Network& network) {
    auto listener = network.listen("127.0.0.1:0", 2);
    ASSERT_TRUE(listener);
    runtime::Completion served;
    for (std::uint32_t i = 0; i < 2; ++i) serve_echo(runtime, i, **listener, served);
    const std::string sent = pattern(600'000);
    for (int i = 0; i < 2; ++i) {  // one connection for each core
      auto client = network.connect((*listener)->local(), now_ns() + kPatience);
      ASSERT_TRUE(client);
      runtime::Completion written;
      written.add();
      ASSERT_TRUE(Core::current().spawn([&] {
        EXPECT_TRUE((*client)->write(as_bytes(sent), now_ns() + kPatience));
        written.done();
      }));
      EXPECT_EQ(read_up_to(**client, sent.size()), sent);
      written.wait();
    }
    (*listener)->close();
    served.wait();
  });
}

TEST_P(Stream, GatheredPiecesArriveInOrder) {
  run(1, [](auto&, Network& network) {
    Pair pair = connect_pair(network);
    std::vector<std::string> words;
    std::vector<Bytes> pieces;
    std::string all;
    for (int i = 0; i < 40; ++i) words.push_back(i % 7 == 0 ? "" : pattern(i * 10));
    for (auto& word : words) {
      pieces.push_back(as_bytes(word));
      all += word;
    }
    ASSERT_TRUE(pair.server->write(pieces));
    EXPECT_EQ(read_up_to(*pair.client, all.size()), all);
  });
}

TEST_P(Stream, DataWrittenBeforeTheEndIsDelivered) {
  run(1, [](auto&, Network& network) {
    Pair pair = connect_pair(network);
    ASSERT_TRUE(pair.client->write(as_bytes("a request that the server never reads")));
    ASSERT_TRUE(pair.server->write(as_bytes("-ERR good bye\r\n")));
    // Sockets, like lwIP, would reset on unread input; the server reads what it got, as servers do.
    EXPECT_EQ(read_up_to(*pair.server, 37).size(), 37u);
    pair.server.reset();
    EXPECT_EQ(read_up_to(*pair.client, 1000), "-ERR good bye\r\n");
    std::byte buffer[8];
    EXPECT_EQ(*pair.client->read(buffer, now_ns() + kPatience), 0u);
  });
}

TEST_P(Stream, OneDirectionMayEndBeforeTheOther) {
  run(2, [](runtime::Runtime& runtime, Network& network) {
    auto listener = std::move(*network.listen("127.0.0.1:0", 2));
    for (std::uint32_t core = 0; core < 2; ++core) {
      runtime::Completion served;
      served.add();
      auto client = std::move(*network.connect(listener->local(), now_ns() + kPatience));
      ASSERT_TRUE(runtime.core(core).spawn_remote([&] {
        auto connection = std::move(*listener->accept());
        EXPECT_EQ(read_up_to(*connection, 1000), "all of the question");
        EXPECT_TRUE(connection->write(as_bytes("all of the answer")));
        connection.reset();
        served.done();
      }));
      ASSERT_TRUE(client->write(as_bytes("all of the question")));
      client->finish_writing();
      EXPECT_EQ(read_up_to(*client, 1000), "all of the answer");
      served.wait();
    }
    listener->close();
  });
}

TEST_P(Stream, ReadTimesOutAndGoesOn) {
  run(1, [](auto&, Network& network) {
    Pair pair = connect_pair(network);
    std::byte buffer[8];
    const auto start = now_ns();
    EXPECT_TRUE(pair.client->read(buffer, start + 10 * kMs).failed_with(Code::kTimeout));
    EXPECT_GE(now_ns(), start + 10 * kMs);
    ASSERT_TRUE(pair.server->write(as_bytes("late")));
    EXPECT_EQ(read_up_to(*pair.client, 4), "late");
  });
}

TEST_P(Stream, PeerThatNeverReadsStopsTheWriter) {
  run(1, [](auto&, Network& network) {
    Pair pair = connect_pair(network);
    const std::string chunk(64 * 1024, 'x');
    Result<> written;
    int chunks = 0;
    while (written && chunks < 1000) {
      written = pair.server->write(as_bytes(chunk), now_ns() + 200 * kMs);
      ++chunks;
    }
    EXPECT_TRUE(written.failed_with(Code::kTimeout));
    EXPECT_LT(chunks, 1000) << "64 MB went somewhere";
  });
}

TEST_P(Stream, ShutDownEndsPendingReadAndWrite) {
  run(1, [](auto&, Network& network) {
    Pair pair = connect_pair(network);
    runtime::Completion done;
    done.add(2);
    ASSERT_TRUE(Core::current().spawn([&] {
      std::byte buffer[8];
      EXPECT_TRUE(pair.server->read(buffer).failed_with(Code::kClosed));
      done.done();
    }));
    ASSERT_TRUE(Core::current().spawn([&] {
      const std::string chunk(1 << 20, 'x');
      Result<> written;
      while (written) written = pair.server->write(as_bytes(chunk));
      EXPECT_TRUE(written.failed_with(Code::kClosed));
      done.done();
    }));
    Core::current().sleep_until(now_ns() + 20 * kMs);
    pair.server->shut_down();
    done.wait();
    std::byte buffer[8];
    EXPECT_TRUE(pair.server->read(buffer).failed_with(Code::kClosed));
    EXPECT_TRUE(pair.server->write(as_bytes("x")).failed_with(Code::kClosed));
  });
}

TEST_P(Stream, PortInUseIsBusyAndFreeAfterClose) {
  run(1, [](auto&, Network& network) {
    auto first = network.listen("127.0.0.1:0", 1);
    ASSERT_TRUE(first);
    const std::string address = (*first)->local();
    auto second = network.listen(address, 1);
    ASSERT_TRUE(second.error().code() == Code::kBusy);
    EXPECT_NE(second.error().message().find(address), std::string::npos) << second.error().message();
    (*first)->close();
    EXPECT_TRUE((*first)->accept().error().code() == Code::kClosed);
    EXPECT_TRUE(network.listen(address, 1));
  });
}

TEST_P(Stream, NobodyListens) {
  run(1, [](auto&, Network& network) {
    auto listener = network.listen("127.0.0.1:0", 1);
    ASSERT_TRUE(listener);
    const std::string address = (*listener)->local();
    (*listener)->close();
    EXPECT_TRUE(network.connect(address, now_ns() + kPatience).error().code() == Code::kClosed);
  });
}

TEST_P(Stream, CloseEndsAcceptOnAnotherCore) {
  run(2, [](runtime::Runtime& runtime, Network& network) {
    auto listener = network.listen("127.0.0.1:0", 2);
    ASSERT_TRUE(listener);
    runtime::Completion done;
    done.add();
    ASSERT_TRUE(runtime.core(1).spawn_remote([&] {
      EXPECT_TRUE((*listener)->accept().error().code() == Code::kClosed);
      done.done();
    }));
    Core::current().sleep_until(now_ns() + 5 * kMs);
    (*listener)->close();
    done.wait();
  });
}

TEST_P(Stream, ManyConnectionsComeAndGo) {
  run(2, [](runtime::Runtime& runtime, Network& network) {
    auto listener = network.listen("127.0.0.1:0", 2);
    ASSERT_TRUE(listener);
    runtime::Completion served;
    for (std::uint32_t i = 0; i < 2; ++i) serve_echo(runtime, i, **listener, served);
    std::vector<std::unique_ptr<Connection>> held;
    for (int i = 0; i < 300; ++i) {
      auto client = network.connect((*listener)->local(), now_ns() + kPatience);
      ASSERT_TRUE(client) << i << ": " << client.error().to_string();
      ASSERT_TRUE((*client)->write(as_bytes("hello")));
      ASSERT_EQ(read_up_to(**client, 5), "hello");
      if (i % 3 == 0) held.push_back(std::move(*client));
    }
    held.clear();
    (*listener)->close();
    served.wait();
  });
}

INSTANTIATE_TEST_SUITE_P(Net, Stream, testing::Values(Kind::kPlatform, Kind::kLwip), [](const auto& parameter) {
  return parameter.param == Kind::kPlatform ? "Platform" : "Lwip";
});

TEST(Address, SpelledOutAndBack) {
  EXPECT_EQ(parse_endpoint("localhost:6379")->to_string(), "127.0.0.1:6379");
  EXPECT_EQ(parse_endpoint("*:1")->to_string(), "0.0.0.0:1");
  EXPECT_EQ(parse_endpoint(":65535")->port, 65535);
  for (const char* bad : {"", "6379", "1.2.3:1", "1.2.3.4.5:1", "1.2.3.256:1", "1.2.3.4:", "1.2.3.4:65536", "host:1", "1..2.3:1"})
    EXPECT_TRUE(parse_endpoint(bad).error().code() == Code::kInvalidArgument) << bad;
  EXPECT_EQ(parse_subnet("10.0.0.2/24")->mask(), 0xffffff00u);
  EXPECT_EQ(parse_subnet("10.0.0.2/0")->mask(), 0u);
  EXPECT_FALSE(parse_subnet("10.0.0.2"));
  EXPECT_FALSE(parse_subnet("10.0.0.2/33"));
}

}  // namespace
}  // namespace kelda::net
