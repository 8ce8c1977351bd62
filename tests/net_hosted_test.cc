// What only sockets of an operating system can run into: too few descriptors, thousands of clients, no io_uring.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "net/net.h"
#include "runtime/core.h"
#include "runtime/machine.h"

namespace kelda::net {
namespace {

using runtime::Core;
using runtime::now_ns;

constexpr runtime::TimeNs kMs = 1'000'000;

class Hosted : public ::testing::Test {
 protected:
  void SetUp() override {
    if (runtime::machine_info().bare) GTEST_SKIP() << "needs an operating system";
  }

  static void run(std::uint32_t cores, std::move_only_function<void(runtime::Runtime&)> body) {
    auto result = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
      EXPECT_TRUE(start({}));
      body(runtime);
      stop();
      return 0;
    });
    ASSERT_TRUE(result) << result.error().to_string();
  }

  static void echo(Connection& connection) {
    std::byte buffer[256];
    while (true) {
      auto got = connection.read(buffer);
      if (!got || *got == 0 || !connection.write(Bytes(buffer).first(*got))) return;
    }
  }

  // Serves until the listener closes and all clients have gone.
  static void serve(Listener& listener) {
    runtime::Completion sessions;
    while (auto connection = listener.accept()) {
      sessions.add();
      EXPECT_TRUE(Core::current().spawn([&sessions, held = std::move(*connection)]() mutable {
        echo(*held);
        held.reset();
        sessions.done();
      }, {.stack_bytes = 16 * 1024}));
    }
    sessions.wait();
  }
};

// A client made of plain system calls, for a thread of its own.
class PlainClient {
 public:
  PlainClient() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {}
  PlainClient(PlainClient&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}
  ~PlainClient() {
    if (socket_ >= 0) ::close(socket_);
  }
  bool connect(const std::string& address) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    return ::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  bool round_trip() {
    char buffer[8] = {};
    return ::send(socket_, "ping", 4, MSG_NOSIGNAL) == 4 && ::recv(socket_, buffer, 4, MSG_WAITALL) == 4 &&
           std::string(buffer) == "ping";
  }

 private:
  int socket_;
};

// Runs `body` on a thread of its own while the calling core goes on.
void beside(std::move_only_function<void()> body) {
  runtime::Completion done;
  done.add();
  std::thread thread([&] {
    body();
    done.done();
  });
  done.wait();
  thread.join();
}

// No descriptor can be had while it lives.
class NoMoreFiles {
 public:
  NoMoreFiles() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest = ::dup(0);
    ::close(lowest);
    const rlimit tight{static_cast<rlim_t>(lowest), before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  }
  ~NoMoreFiles() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(Hosted, ThreeThousandClientsAtOnce) {
  run(2, [](runtime::Runtime& runtime) {
    rlimit limit{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const std::size_t count = std::min<std::size_t>(3000, (limit.rlim_cur - 100) / 2);  // both ends are ours
    auto listener = listen("127.0.0.1:0", 2);
    ASSERT_TRUE(listener) << listener.error().to_string();
    runtime::Completion served;
    for (std::uint32_t i = 0; i < 2; ++i) {
      served.add();
      ASSERT_TRUE(runtime.core(i).spawn_remote([&] {
        serve(**listener);
        served.done();
      }));
    }
    beside([&] {
      std::vector<PlainClient> clients(count);
      std::size_t connected = 0, answered = 0;
      for (PlainClient& client : clients) connected += client.connect((*listener)->local());
      for (PlainClient& client : clients) answered += client.round_trip();
      EXPECT_EQ(connected, count);
      EXPECT_EQ(answered, count);
    });
    (*listener)->close();
    served.wait();
  });
}

TEST_F(Hosted, OutOfDescriptorsWaitsForOthersToEnd) {
  run(1, [](auto&) {
    const auto serve_one = [](bool starved) {
      auto listener = listen("127.0.0.1:0", 1);
      ASSERT_TRUE(listener);
      runtime::Completion served;
      served.add();
      ASSERT_TRUE(Core::current().spawn([&] {
        serve(**listener);
        served.done();
      }));
      PlainClient client;
      if (starved) {
        NoMoreFiles limit;
        Core::current().yield();  // the listener starts to accept
        beside([&] { EXPECT_TRUE(client.connect((*listener)->local())) << "it waits in the backlog"; });
        Core::current().sleep_until(now_ns() + 30 * kMs);
      }
      beside([&] {
        PlainClient mine(std::move(client));
        EXPECT_TRUE(starved || mine.connect((*listener)->local()));
        EXPECT_TRUE(mine.round_trip());
      });
      (*listener)->close();
      served.wait();
    };
    serve_one(false);  // whatever is opened once has been opened now
    testing::internal::CaptureStderr();
    serve_one(true);
    const std::string warning = testing::internal::GetCapturedStderr();
    EXPECT_NE(warning.find("new connections wait"), std::string::npos) << warning;
  });
}

}  // namespace
}  // namespace kelda::net
