// In-memory connections: what every Connection promises, and the faults that they add.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "net/pipe_sim.h"
#include "runtime/core.h"

namespace kelda::net {
namespace {

using runtime::Core;
using runtime::now_ns;

constexpr runtime::TimeNs kMs = 1'000'000;

// Runs as the main fiber of a runtime.
void on_runtime(std::uint32_t cores, std::move_only_function<void(runtime::Runtime&)> body) {
  auto result = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
    body(runtime);
    return 0;
  });
  ASSERT_TRUE(result) << result.error().to_string();
}

std::string read_all(Connection& connection) {
  std::string text;
  std::byte buffer[1000];
  while (true) {
    auto got = connection.read(buffer);
    if (!got || *got == 0) return text;
    text += as_view(Bytes(buffer).first(*got));
  }
}

TEST(Pipe, DeliversInOrderAndEnds) {
  on_runtime(1, [](auto&) {
    auto [a, b] = make_pipe();
    const Bytes pieces[] = {as_bytes("GET "), as_bytes(""), as_bytes("key\r\n")};
    ASSERT_TRUE(a->write(pieces));
    a.reset();
    EXPECT_EQ(read_all(*b), "GET key\r\n");
    EXPECT_TRUE(b->write(as_bytes("x")).failed_with(Code::kClosed)) << "the peer has gone";
  });
}

TEST(Pipe, DelayHoldsDataBack) {
  on_runtime(1, [](auto&) {
    auto [a, b] = make_pipe({.delay_ns = 20 * kMs});
    std::byte buffer[8];
    const auto start = now_ns();
    ASSERT_TRUE(a->write(as_bytes("x")));
    EXPECT_TRUE(b->read(buffer, start + 5 * kMs).failed_with(Code::kTimeout));
    EXPECT_EQ(*b->read(buffer), 1u);
    EXPECT_GE(now_ns() - start, 20 * kMs);
  });
}

TEST(Pipe, LossAndShortReadsKeepEveryByteInOrder) {
  on_runtime(1, [](auto&) {
    auto ends = make_pipe({.loss = 0.1, .retransmit_ns = kMs, .short_reads = true, .window_bytes = 4096, .seed = 7});
    std::string sent;
    for (int i = 0; i < 20'000; ++i) sent += static_cast<char>('a' + i % 26);
    ASSERT_TRUE(Core::current().spawn([&] {
      EXPECT_TRUE(ends.first->write(as_bytes(sent)));
      ends.first.reset();
    }));
    EXPECT_EQ(read_all(*ends.second), sent);
  });
}

TEST(Pipe, WriterWaitsForASlowReader) {
  on_runtime(1, [](auto&) {
    auto [a, b] = make_pipe({.window_bytes = 1000});
    std::vector<std::byte> data(1500);
    EXPECT_TRUE(a->write(Bytes(data), now_ns() + 5 * kMs).failed_with(Code::kTimeout));
    std::byte buffer[2000];
    EXPECT_EQ(*b->read(buffer), 1000u);
    EXPECT_TRUE(a->write(Bytes(data).first(500)));
  });
}

TEST(Pipe, CutEndsBothSidesAtOnce) {
  on_runtime(1, [](auto&) {
    auto ends = make_pipe({.delay_ns = 1000 * kMs});
    ASSERT_TRUE(ends.first->write(as_bytes("lost")));
    ASSERT_TRUE(Core::current().spawn([&] { ends.first->cut(); }));
    std::byte buffer[8];
    EXPECT_TRUE(ends.second->read(buffer).failed_with(Code::kClosed));
    EXPECT_TRUE(ends.first->write(as_bytes("x")).failed_with(Code::kClosed));
  });
}

TEST(Pipe, VanishedPeerIsSilent) {
  on_runtime(1, [](auto&) {
    auto [a, b] = make_pipe();
    a->vanish();
    EXPECT_TRUE(a->write(as_bytes("into the void")));
    a.reset();
    std::byte buffer[8];
    EXPECT_TRUE(b->read(buffer, now_ns() + 5 * kMs).failed_with(Code::kTimeout));
  });
}

TEST(Pipe, ShutDownWakesTheReader) {
  on_runtime(1, [](auto&) {
    auto ends = make_pipe();
    ASSERT_TRUE(Core::current().spawn([&] { ends.first->shut_down(); }));
    std::byte buffer[8];
    EXPECT_TRUE(ends.first->read(buffer).failed_with(Code::kClosed));
    EXPECT_EQ(*ends.second->read(buffer), 0u) << "the other side sees an orderly end";
  });
}

TEST(Pipe, ListenerDealsToTheCoreWithFewest) {
  on_runtime(2, [](runtime::Runtime& runtime) {
    PipeListener listener("pipe", 2);
    std::vector<std::unique_ptr<PipeConnection>> clients;
    for (int i = 0; i < 10; ++i) clients.push_back(std::move(*listener.dial()));
    std::atomic<int> served[2] = {};
    runtime::Completion done;
    done.add(2);
    for (std::uint32_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(runtime.core(i).spawn_remote([&, i] {
        while (auto connection = listener.accept()) {
          ++served[i];
          EXPECT_TRUE((*connection)->write(as_bytes("hello")));
        }
        done.done();
      }));
    }
    for (auto& client : clients) EXPECT_EQ(read_all(*client), "hello");
    listener.close();
    done.wait();
    EXPECT_EQ(served[0], 5);
    EXPECT_EQ(served[1], 5);
    EXPECT_TRUE(listener.dial().error().code() == Code::kClosed);
  });
}

}  // namespace
}  // namespace kelda::net
