// The whole server over pipes in memory: pipelines, clients that misbehave, and its end.
#include <gtest/gtest.h>

#include <functional>

#include "net/pipe_sim.h"
#include "server/server.h"
#include "server/server_state.h"
#include "tests/support/memory_database.h"
#include "tests/support/test_client.h"

namespace kelda::server {
namespace {

using namespace kelda::testing;

// One end of a pipe to the server.
class Peer {
 public:
  explicit Peer(net::PipeListener& listener) : connection_(std::move(*listener.dial())) {}

  bool send(std::string_view bytes) { return connection_->write(as_bytes(bytes)).has_value(); }
  // Reads until that much is there, or the end.
  std::string read(std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) {
      std::byte buffer[4096];
      const std::size_t wanted = std::min(sizeof buffer, bytes - text.size());
      const auto count = connection_->read({buffer, wanted}, runtime::now_ns() + 10'000'000'000);
      if (!count || *count == 0) break;
      text.append(as_view({buffer, *count}));
    }
    return text;
  }
  std::string ask(std::string_view request, std::string_view expected) {
    send(request);
    return read(expected.size());
  }
  bool at_end() {
    std::byte byte;
    const auto count = connection_->read({&byte, 1}, runtime::now_ns() + 10'000'000'000);
    return count.failed_with(Code::kClosed) || (count && *count == 0);
  }
  void close() { connection_->shut_down(); }

 private:
  std::unique_ptr<net::PipeConnection> connection_;
};

// Runs `body` beside a server on `cores` cores and then stops the server, unless body did.
void with_server(std::uint32_t cores, const ServerOptions& options,
                 std::function<void(Server&, net::PipeListener&, MemoryDatabase&)> body, std::function<void()> at_end = {}) {
  const auto status =
      runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
        MemoryDatabase database;
        net::PipeListener listener("test:6379", runtime.core_count());
        Server server(database, options);
        runtime::Event served;
        Result<> result = Code::kAborted;
        EXPECT_TRUE(runtime::Core::current().spawn([&] {
          result = server.serve(runtime, listener);
          served.set();
        }));
        body(server, listener, database);
        server.request_stop();
        served.wait();
        EXPECT_TRUE(result);
        if (at_end) at_end();
        return 0;
      });
  EXPECT_TRUE(status);
}

TEST(ServerLoop, APipelineWaitsForTheLogOnce) {
  with_server(1, {}, [](Server&, net::PipeListener& listener, MemoryDatabase& database) {
    Peer peer(listener);
    std::string requests, replies;
    for (int i = 0; i < 100; ++i) {
      requests += "SET k" + std::to_string(i) + " v\r\n";
      replies += kOk;
    }
    EXPECT_EQ(peer.ask(requests, replies), replies);
    EXPECT_LE(database.waits.load(), 3u);
  });
}

TEST(ServerLoop, ManyClientsOnTwoCores) {
  with_server(2, {}, [](Server& server, net::PipeListener& listener, MemoryDatabase&) {
    constexpr int kClients = 50, kRounds = 10;
    {
      std::vector<std::unique_ptr<Peer>> peers;
      for (int i = 0; i < kClients; ++i) peers.push_back(std::make_unique<Peer>(listener));
      for (int round = 0; round < kRounds; ++round) {
        for (auto& peer : peers) EXPECT_TRUE(peer->send("INCR n\r\n"));
        for (auto& peer : peers) EXPECT_EQ(peer->read(1), ":");
        // The rest of each line.
        for (auto& peer : peers) {
          std::string line;
          while (!line.ends_with("\r\n")) line += peer->read(1);
        }
      }
      EXPECT_EQ(peers[0]->ask("GET n\r\n", bulk("500")), bulk("500"));
      EXPECT_EQ(server.state().clients.count(), static_cast<std::uint32_t>(kClients));
    }
  });
}

TEST(ServerLoop, TooManyClientsAreTold) {
  ServerOptions options;
  options.max_clients = 2;
  with_server(1, options, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer first(listener), second(listener);
    EXPECT_EQ(first.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    EXPECT_EQ(second.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    Peer third(listener);
    const std::string full = "-ERR max number of clients reached\r\n";
    EXPECT_EQ(third.read(full.size()), full);
    EXPECT_TRUE(third.at_end());
    EXPECT_EQ(first.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
  });
}

TEST(ServerLoop, GarbageEndsItsOwnConnectionOnly) {
  with_server(1, {}, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer good(listener), bad(listener);
    const std::string error = "-ERR Protocol error: invalid bulk length\r\n";
    EXPECT_EQ(bad.ask("*2\r\n$3\r\nGET\r\n$10737418240\r\n", error), error);
    EXPECT_TRUE(bad.at_end());
    EXPECT_EQ(good.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
  });
}

TEST(ServerLoop, AValueOverTheLimitIsRefusedAndTheConnectionLives) {
  with_server(1, {}, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer peer(listener);
    const std::string big(2_MiB, 'v');
    const std::string error = "-ERR value is too large (2097152 bytes; the limit is 1048560)\r\n";
    EXPECT_EQ(peer.ask("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2097152\r\n" + big + "\r\n", error), error);
    EXPECT_EQ(peer.ask("EXISTS k\r\n", ":0\r\n"), ":0\r\n");
  });
}

TEST(ServerLoop, AClientThatNeverReadsIsClosedAndHarmsNobody) {
  ServerOptions options;
  options.write_timeout_s = 1;
  with_server(1, options, [](Server& server, net::PipeListener& listener, MemoryDatabase&) {
    Peer good(listener), lazy(listener);
    EXPECT_EQ(good.ask("SET k " + std::string(60'000, 'x') + "\r\n", kOk), kOk);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(lazy.send("GET k\r\n"));
    const runtime::TimeNs deadline = runtime::now_ns() + 20'000'000'000;
    while (server.state().clients.count() > 1 && runtime::now_ns() < deadline) {
      EXPECT_EQ(good.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
      runtime::Core::current().sleep_until(runtime::now_ns() + 20'000'000);
    }
    EXPECT_EQ(server.state().clients.count(), 1u);
    EXPECT_EQ(server.state().stats.total(Counter::kOutputTimeouts), 1u);
  });
}

// Sends everything before it reads anything, far more than the pipe holds either way.
TEST(ServerLoop, AClientMaySendALongPipelineBeforeItReads) {
  with_server(1, {}, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer peer(listener);
    const std::string payload(1000, 'x'), request = "ECHO " + payload + "\r\n", reply = bulk(payload);
    std::string requests, replies;
    for (int i = 0; i < 500; ++i) {
      requests += request;
      replies += reply;
    }
    EXPECT_EQ(peer.ask(requests, replies), replies);
  });
}

// What a client asks for at once may be long: others are answered between its pieces, however many do the same.
void expect_answers_amid(const std::string& requests, const std::string& replies, Counter progress, std::uint64_t pieces) {
  with_server(1, {}, [&](Server& server, net::PipeListener& listener, MemoryDatabase&) {
    constexpr int kBusy = 4, kPings = 20;
    constexpr std::uint64_t kTurn = 64;
    const auto done = [&] { return server.state().stats.total(progress); };
    Peer bystander(listener);
    EXPECT_EQ(bystander.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    std::vector<std::unique_ptr<Peer>> busy;
    for (int i = 0; i < kBusy; ++i) {
      busy.push_back(std::make_unique<Peer>(listener));
      EXPECT_TRUE(busy.back()->send(requests));
    }
    const std::uint64_t begin = done();
    while (done() < begin + kTurn) runtime::Core::current().yield();
    for (int i = 0; i < kPings; ++i) {
      const std::uint64_t before = done();
      EXPECT_EQ(bystander.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
      EXPECT_LE(done() - before, 2 * kTurn + 1);
    }
    EXPECT_LT(done(), kBusy * pieces) << "all was over too soon to show anything";
    for (auto& peer : busy) EXPECT_EQ(peer->read(replies.size()), replies);
  });
}

std::string times(int count, const std::string& text) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

TEST(ServerLoop, OthersAreAnsweredAmidLongPipelines) {
  expect_answers_amid(times(5000, "PING\r\n"), times(5000, "+PONG\r\n"), Counter::kCommands, 5000);
}

TEST(ServerLoop, OthersAreAnsweredAmidRequestsForManyKeys) {
  expect_answers_amid("*5001\r\n$4\r\nMGET\r\n" + times(5000, "$1\r\nk\r\n"), "*5000\r\n" + times(5000, kNull), Counter::kMisses, 5000);
}

TEST(ServerLoop, OthersAreAnsweredAmidLongTransactions) {
  expect_answers_amid("MULTI\r\n" + times(3000, "GET k\r\n") + "EXEC\r\n",
                      kOk + times(3000, kQueued) + "*3000\r\n" + times(3000, kNull), Counter::kMisses, 3000);
}

// Many clients that each make the server hold much: together they stay near the limit, and the others are served.
TEST(ServerLoop, ClientsTogetherStayWithinTheirMemory) {
  ServerOptions options;
  options.buffer_limit_bytes = 8_MiB;
  with_server(1, options, [](Server& server, net::PipeListener& listener, MemoryDatabase&) {
    Peer good(listener);
    std::vector<std::unique_ptr<Peer>> greedy;
    std::uint64_t most = 0;
    for (int i = 0; i < 60; ++i) {
      greedy.push_back(std::make_unique<Peer>(listener));
      // Announces a megabyte and sends half of it.
      EXPECT_TRUE(greedy.back()->send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + std::string(500'000, 'x')));
      most = std::max(most, server.state().buffers.used_bytes());
    }
    EXPECT_GT(most, 2_MiB);
    EXPECT_LT(most, 12_MiB);
    EXPECT_EQ(good.ask("SET a 1\r\nGET a\r\n", kOk + bulk("1")), kOk + bulk("1"));
    // Whoever was refused has been told, and goes on.
    int refused = 0;
    for (auto& peer : greedy) {
      EXPECT_TRUE(peer->send(std::string(500'000, 'x') + "\r\n"));
      refused += peer->read(1) == "-" ? 1 : 0;
    }
    EXPECT_GT(refused, 10);
    EXPECT_LT(refused, 60);
    greedy.clear();
    while (server.state().clients.count() > 1) runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
    EXPECT_LT(server.state().buffers.used_bytes(), 64_KiB);
  });
}

// A save in the background uses what all clients share: it ends before serve() does.
TEST(ServerLoop, TheEndWaitsForASaveInTheBackground) {
  runtime::Event begun;
  std::atomic<bool> ended{false};
  with_server(1, {}, [&](Server& server, net::PipeListener& listener, MemoryDatabase& database) {
    database.on_checkpoint = [&] {
      begun.set();
      runtime::Core::current().sleep_until(runtime::now_ns() + 200'000'000);
      ended = true;
    };
    Peer peer(listener);
    EXPECT_TRUE(peer.send("BGSAVE\r\n"));
    begun.wait();
    EXPECT_EQ(peer.ask("SHUTDOWN\r\n", "+Background saving started\r\n"), "+Background saving started\r\n");
    EXPECT_TRUE(peer.at_end());
    server.request_stop();
  }, [&] { EXPECT_TRUE(ended); });
}

// Silent, in MULTI, in the midst of a request, on either core: all are told, and their connections end. Later ones may read.
TEST(ServerLoop, EveryClientIsToldThatTheEngineHasFailed) {
  static std::atomic<int> reports;
  reports = 0;
  ServerOptions options;
  options.on_failure = [](const Error& cause) { reports += cause.code() == Code::kFailed ? 1 : 0; };
  with_server(2, options, [](Server& server, net::PipeListener& listener, MemoryDatabase& database) {
    Peer writer(listener), silent(listener), in_multi(listener), half_way(listener), new_one(listener);
    EXPECT_EQ(writer.ask("SET k v\r\n", kOk), kOk);
    EXPECT_EQ(silent.ask("GET k\r\n", bulk("v")), bulk("v"));
    EXPECT_EQ(in_multi.ask("MULTI\r\nSET k w\r\n", kOk + "+QUEUED\r\n"), kOk + "+QUEUED\r\n");
    EXPECT_TRUE(half_way.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nxxx"));
    runtime::Core::current().sleep_until(runtime::now_ns() + 20'000'000);  // until they are read from
    database.failed = true;
    const std::string error = "-MISCONF the engine has stopped: flush failed: input/output error\r\n";
    for (Peer* peer : {&silent, &in_multi, &half_way, &writer, &new_one}) {
      EXPECT_EQ(peer->read(error.size()), error);
      EXPECT_TRUE(peer->at_end());
    }
    EXPECT_EQ(reports.load(), 1);
    while (server.state().clients.count() > 0) runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
    Peer later(listener);
    EXPECT_EQ(later.ask("GET k\r\n", bulk("v")), bulk("v"));
    runtime::Core::current().sleep_until(runtime::now_ns() + 300'000'000);
    EXPECT_EQ(later.ask("GET k\r\n", bulk("v")), bulk("v")) << "told at most once";
  });
}

// It gets its answers, the failure behind them, and the end, though it goes on sending.
TEST(ServerLoop, AClientThatIsBusyIsToldThatTheEngineHasFailed) {
  with_server(1, {}, [](Server&, net::PipeListener& listener, MemoryDatabase& database) {
    Peer busy(listener);
    EXPECT_EQ(busy.ask("SET k v\r\n", kOk), kOk);
    database.failed = true;
    std::string replies;
    while (busy.send("GET k\r\n")) {
      const std::string reply = busy.read(bulk("v").size());
      if (reply != bulk("v")) {
        replies = reply;
        break;
      }
    }
    const std::string error = "-MISCONF the engine has stopped: flush failed: input/output error\r\n";
    EXPECT_EQ(replies + busy.read(error.size() - replies.size()), error);
    EXPECT_TRUE(busy.at_end());
  });
}

TEST(ServerLoop, ShutdownAnswersWhatIsUnderWay) {
  with_server(2, {}, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer idle(listener), busy(listener);
    EXPECT_EQ(idle.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    const std::string replies = kOk + integer(2);
    EXPECT_EQ(busy.ask("SET n 1\r\nINCR n\r\nSHUTDOWN\r\n", replies), replies);
    EXPECT_TRUE(busy.at_end());
    EXPECT_TRUE(idle.at_end());
  });
}

TEST(ServerLoop, IdleClientsLeaveWhenToldSo) {
  ServerOptions options;
  options.idle_timeout_s = 1;
  with_server(1, options, [](Server&, net::PipeListener& listener, MemoryDatabase&) {
    Peer peer(listener);
    EXPECT_EQ(peer.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    EXPECT_TRUE(peer.at_end());
  });
}

TEST(ServerLoop, ClientKillReachesOtherCores) {
  with_server(2, {}, [](Server& server, net::PipeListener& listener, MemoryDatabase&) {
    Peer first(listener), second(listener);
    // The cores number their clients in any order.
    const std::string id = first.ask("CLIENT ID\r\n", ":1\r\n").substr(1, 1);
    EXPECT_EQ(second.ask("CLIENT KILL ID " + id + "\r\n", ":1\r\n"), ":1\r\n");
    EXPECT_TRUE(first.at_end());
    EXPECT_EQ(second.ask("PING\r\n", "+PONG\r\n"), "+PONG\r\n");
    EXPECT_LE(server.state().clients.count(), 2u);
  });
}

}  // namespace
}  // namespace kelda::server
