// The protocol over the real engine on a simulated disk: contention on two cores, a disk that fills up, a flush that
// fails, and power cuts.
#include <map>
#include <set>

#include "common/prng.h"
#include "engine_support.h"
#include "server/reclaimer.h"
#include "server/server_state.h"
#include "tests/support/test_client.h"

namespace kelda::server {
namespace {

using namespace kelda::testing;
using engine::blank_disk;
using engine::in_parallel;
using engine::on_cores;
using engine::open_on;
using engine::OpenDatabase;

struct Served {
  explicit Served(std::unique_ptr<blockdev::MemoryDevice> disk)
      : opened(*open_on(std::move(disk))), state(*opened.db, {}) {
    EXPECT_TRUE(state.keyspace.open());
  }
  OpenDatabase opened;
  ServerState state;
};

TEST(ServerEngine, CountersLoseNothing) {
  on_cores(2, [](runtime::Runtime& runtime) {
    Served served(blank_disk());
    constexpr int kRounds = 60;
    in_parallel(runtime, 6, [&](std::uint32_t i) {
      TestClient client(served.state);
      for (int round = 0; round < kRounds; ++round) {
        client("INCR n");
        // By hand, under WATCH.
        while (true) {
          client("WATCH w");
          const std::string seen = client("GET w");
          const int value = seen == kNull ? 0 : std::atoi(seen.c_str() + seen.find('\n') + 1);
          client("MULTI");
          client("SET w " + std::to_string(value + 1));
          client("SET last:" + std::to_string(i) + " " + std::to_string(value + 1));
          if (client("EXEC") != kNullArray) break;
        }
      }
    });
    TestClient client(served.state);
    EXPECT_EQ(client("GET n"), bulk(std::to_string(12 * kRounds)));
    EXPECT_EQ(client("GET w"), bulk(std::to_string(12 * kRounds)));
    EXPECT_FALSE(served.state.watches.active());
    EXPECT_OK(served.opened.db->close());
  });
}

TEST(ServerEngine, CountsAfterAFlushInsideATransaction) {
  on_cores(1, [](runtime::Runtime&) {
    Served served(blank_disk());
    TestClient client(served.state);
    const auto exec = [&](const std::vector<std::string>& lines) {
      client("MULTI");
      for (const std::string& line : lines) client(line);
      return client("EXEC");
    };
    const auto replies = [](const std::vector<std::string>& texts) {
      std::string out = "*" + std::to_string(texts.size()) + "\r\n";
      for (const auto& text : texts) out += text;
      return out;
    };
    client("SET before 1");
    EXPECT_EQ(exec({"SET a 1", "DBSIZE", "FLUSHALL", "DBSIZE", "SET b 2", "DBSIZE", "DEL b", "DBSIZE", "SET c 3"}),
              replies({kOk, integer(2), kOk, integer(0), kOk, integer(1), integer(1), integer(0), kOk}));
    EXPECT_EQ(client("DBSIZE"), integer(1));
    EXPECT_EQ(exec({"FLUSHDB", "SET x 1 EX 100", "SET y 1", "INFO keyspace"}),
              replies({kOk, kOk, kOk, bulk("# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=0\r\n")}));
    // An expiry that came after the flush is found by DEL, in the other database and in this one.
    EXPECT_EQ(exec({"SELECT 3", "SET k 1", "FLUSHALL", "SET k 1 EX 100", "DEL k", "DBSIZE", "SELECT 0", "DBSIZE"}),
              replies({kOk, kOk, kOk, kOk, integer(1), integer(0), kOk, integer(0)}));
    EXPECT_EQ(served.state.keyspace.expiry_count(3), 0u);
    // A command that fails is undone alone; the flush before it stays.
    client("SET n text");
    EXPECT_EQ(exec({"FLUSHALL", "SET n text", "INCR n", "DBSIZE"}),
              replies({kOk, kOk, "-ERR value is not an integer or out of range\r\n", integer(1)}));
    client("SET m 1");
    EXPECT_EQ(client("DBSIZE"), integer(2));
    EXPECT_OK(served.opened.db->close());
  });
}

// Long keys with a common start leave room for few in a page: the tree has a dozen levels, and what splits or merges one
// must not need a stack for all of them at once.
TEST(ServerEngine, DeepTreesFitAClientsStack) {
  on_cores(1, [](runtime::Runtime&) {
    Served served(blank_disk());
    runtime::Event done;
    EXPECT_TRUE(runtime::Core::current().spawn(
        [&] {
          TestClient client(served.state);
          constexpr int kKeys = 4000, kAtOnce = 100;
          for (int begin = 0; begin < kKeys; begin += kAtOnce) {
            std::vector<std::string> request{"MSET"};
            for (int i = begin; i < begin + kAtOnce; ++i) {
              request.push_back(std::string(1000, 'a') + std::to_string(10'000 + i));
              request.push_back("v");
            }
            ASSERT_EQ(client.call(request), kOk);
          }
          EXPECT_EQ(client("DBSIZE"), integer(kKeys));
          for (int i = 0; i < kKeys; ++i) {
            ASSERT_EQ(client("DEL " + std::string(1000, 'a') + std::to_string(10'000 + i)), integer(1));
          }
          done.set();
        },
        {.name = "client", .stack_bytes = ServerOptions().stack_bytes}));
    done.wait();
    EXPECT_OK(served.opened.db->close());
  });
}

int sum_of(const std::string& mget) {
  int sum = 0;
  for (std::size_t at = mget.find('$'); at != std::string::npos; at = mget.find('$', at + 1)) {
    sum += std::atoi(mget.c_str() + mget.find('\n', at) + 1);
  }
  return sum;
}

TEST(ServerEngine, ReadersSeeWholeTransactions) {
  on_cores(2, [](runtime::Runtime& runtime) {
    Served served(blank_disk());
    constexpr int kAccounts = 6, kSum = kAccounts * 100;
    {
      TestClient client(served.state);
      for (int i = 0; i < kAccounts; ++i) client("SET account:" + std::to_string(i) + " 100");
    }
    std::atomic<int> wrong{0};
    in_parallel(runtime, 4, [&](std::uint32_t i) {
      TestClient client(served.state);
      Prng prng(i + 1);
      for (int round = 0; round < 80; ++round) {
        const auto from = std::to_string(prng.next() % kAccounts), to = std::to_string(prng.next() % kAccounts);
        client("MULTI");
        client("DECRBY account:" + from + " 7");
        client("INCRBY account:" + to + " 7");
        client("EXEC");
        std::string mget = "MGET";
        for (int k = 0; k < kAccounts; ++k) mget += " account:" + std::to_string(k);
        if (sum_of(client(mget)) != kSum) ++wrong;
        if (round % 8 == 0) {
          // Keys are "account:N", so the lengths of keys and values are told apart by their texts.
          const std::string range = client("KELDA.RANGE account: account:~");
          int sum = 0;
          for (std::size_t at = range.find("account:"); at != std::string::npos; at = range.find("account:", at + 1)) {
            sum += std::atoi(range.c_str() + range.find('\n', range.find('$', at)) + 1);
          }
          if (sum != kSum) ++wrong;
        }
      }
    });
    EXPECT_EQ(wrong.load(), 0);
    EXPECT_OK(served.opened.db->close());
  });
}

// Some write, some walk, some do both, some empty everything: nobody waits in a circle.
TEST(ServerEngine, TransactionsOnWholeDatabasesGetThrough) {
  on_cores(2, [](runtime::Runtime& runtime) {
    Served served(blank_disk());
    std::atomic<int> refused{0};
    in_parallel(runtime, 5, [&](std::uint32_t i) {
      TestClient client(served.state);
      for (int round = 0; round < 40; ++round) {
        client("MULTI");
        client("SET k" + std::to_string(i) + ":" + std::to_string(round % 10) + " v");
        if (round % 3 == 0) client("KELDA.RANGE - + LIMIT 5");
        if (round % 3 == 1) client("KEYS k1:*");
        if (round % 20 == 7) client("FLUSHDB");
        if (round % 20 == 9) client("FLUSHALL");
        client("INCR shared");
        if (client("EXEC")[0] != '*') ++refused;
        if (client("KELDA.RANGE - + LIMIT 3")[0] != '*') ++refused;
      }
    });
    EXPECT_EQ(refused.load(), 0);
    EXPECT_LT(served.state.stats.total(Counter::kTransactionRetries), 100u);
    EXPECT_OK(served.opened.db->close());
  });
}

// A key that is written again just as it expires must never be taken by the reclaimer.
TEST(ServerEngine, TheReclaimerTakesOnlyWhatHasExpired) {
  on_cores(2, [](runtime::Runtime& runtime) {
    Served served(blank_disk());
    std::atomic<bool> done{false};
    runtime::Event reclaimed;
    ASSERT_TRUE(runtime.core(1).spawn_remote([&] {
      Reclaimer reclaimer(served.state);
      while (!done.load()) {
        if (KeySpace* space = served.state.keyspace.find(0)) (void)reclaimer.reclaim_some(*space, wall_clock_ms());
        runtime::Core::current().yield();
      }
      reclaimed.set();
    }));
    std::atomic<int> lost{0};
    in_parallel(runtime, 2, [&](std::uint32_t i) {
      TestClient client(served.state);
      const std::string key = "k" + std::to_string(i);
      for (int round = 0; round < 60; ++round) {
        client("SET " + key + " short PX 1");
        if (round % 3 == 0) runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
        const char* lasting[] = {" lasting", " lasting PX 100000"};
        client("SET " + key + lasting[round % 2]);
        runtime::Core::current().sleep_until(runtime::now_ns() + 500'000);
        if (client("GET " + key) != bulk("lasting")) ++lost;
      }
    });
    done.store(true);
    reclaimed.wait();
    EXPECT_EQ(lost.load(), 0);
    EXPECT_OK(served.opened.db->close());
  });
}

TEST(ServerEngine, AFullDiskTakesReadsAndDeletesAndThenWritesAgain) {
  on_cores(1, [](runtime::Runtime&) {
    Served served(blank_disk(32_MiB));
    TestClient client(served.state);
    const std::string value(10'000, 'v');
    int stored = 0;
    std::string reply;
    for (; stored < 10'000; ++stored) {
      reply = client.call({"SET", "key:" + std::to_string(stored), value});
      if (reply != kOk) break;
    }
    ASSERT_TRUE(reply.starts_with("-DISKFULL ")) << reply.substr(0, 100);
    ASSERT_GT(stored, 100);
    EXPECT_EQ(client("DBSIZE"), integer(stored));
    EXPECT_EQ(client("GET key:0"), bulk(value));
    EXPECT_EQ(client("GET key:" + std::to_string(stored - 1)), bulk(value));
    EXPECT_EQ(client("GET key:" + std::to_string(stored)), kNull);
    // Nothing of a transaction that does not fit is there.
    client("MULTI");
    client.call({"SET", "a", "1"});
    for (int i = 0; i < 50; ++i) client.call({"SET", "more:" + std::to_string(i), value});
    client("EXEC");
    for (int i = 0; i < stored; i += 2) ASSERT_EQ(client("DEL key:" + std::to_string(i)), integer(1)) << i;
    // The space comes back in the background.
    for (int tries = 0; tries < 200; ++tries) {
      reply = client.call({"SET", "again", value});
      if (reply == kOk) break;
      runtime::Core::current().sleep_until(runtime::now_ns() + 10'000'000);
    }
    EXPECT_EQ(reply, kOk);
    EXPECT_EQ(client("GET key:1"), bulk(value));
    EXPECT_OK(served.opened.db->close());
  });
}

TEST(ServerEngine, AFailedFlushEndsAcknowledging) {
  on_cores(1, [](runtime::Runtime&) {
    Served served(blank_disk());
    TestClient client(served.state);
    EXPECT_EQ(client("SET a 1"), kOk);
    served.opened.disk->set_plan(
        {.rules = {{.fault = blockdev::Fault::kError, .op = blockdev::Op::kWrite, .count = 1},
                   {.fault = blockdev::Fault::kError, .op = blockdev::Op::kFlush, .count = 1}}});
    const std::string first = client("SET a 2");
    EXPECT_TRUE(first.starts_with("-MISCONF ")) << first;
    EXPECT_TRUE(client("SET b 1").starts_with("-MISCONF "));
    EXPECT_EQ(client("PING"), "+PONG\r\n");
    EXPECT_TRUE(client("INFO kelda").find("health:ok") == std::string::npos);
    Served again(served.opened.disk->crash(blockdev::Survival::kAll));
    TestClient after(again.state);
    const std::string value = after("GET a");
    EXPECT_TRUE(value == bulk("1") || value == bulk("2")) << value;
    EXPECT_OK(again.opened.db->close());
  });
}

// Writers set pairs in MULTI, counters, and keys with expiries; the power fails at some operation; what was
// acknowledged is there afterwards, and no half of a pair. Adds to `acknowledged_in_all` what was acknowledged before
// the cut.
void cut_power_at(std::uint64_t operation, blockdev::Survival survival, int& acknowledged_in_all) {
  SCOPED_TRACE("power cut at operation " + std::to_string(operation));
  on_cores(1, [&](runtime::Runtime& runtime) {
    std::map<std::string, int> acknowledged;
    std::unique_ptr<blockdev::MemoryDevice> rebooted;
    {
      Served served(blank_disk(32_MiB));
      served.opened.disk->set_plan({.crash_after_ops = served.opened.disk->op_count() + operation});
      in_parallel(runtime, 3, [&](std::uint32_t writer) {
        TestClient client(served.state);
        const std::string name = std::to_string(writer);
        for (int i = 1; i <= 40; ++i) {
          const std::string n = std::to_string(i);
          client("MULTI");
          client("SET left:" + name + " " + n);
          client("SET right:" + name + " " + n + " EX 1000");
          if (!client("EXEC").starts_with("*2\r\n+OK\r\n+OK")) return;
          acknowledged["left:" + name] = i;
          if (client("INCR count:" + name) != integer(i)) return;
          acknowledged["count:" + name] = i;
        }
      });
      rebooted = served.opened.disk->crash(survival, operation);
    }
    for (const auto& [key, count] : acknowledged) acknowledged_in_all += count;
    Served served(std::move(rebooted));
    TestClient client(served.state);
    const auto number = [&](const std::string& key) {
      const std::string reply = client("GET " + key);
      return reply == kNull ? 0 : std::atoi(reply.c_str() + reply.find('\n') + 1);
    };
    for (int writer = 0; writer < 3; ++writer) {
      const std::string name = std::to_string(writer);
      EXPECT_EQ(number("left:" + name), number("right:" + name)) << "half of a MULTI";
      EXPECT_GE(number("left:" + name), acknowledged["left:" + name]);
      EXPECT_GE(number("count:" + name), acknowledged["count:" + name]);
      const int ttl = number("right:" + name) == 0 ? 0 : std::atoi(client("TTL right:" + name).c_str() + 1);
      EXPECT_TRUE(ttl == 0 || ttl > 900) << ttl;
    }
    EXPECT_OK(served.opened.db->close());
  });
}

// Values so large that EXEC's records fill the log's buffers and go out in several batches.
TEST(ServerEngine, AMultiThatIsCutOffHasNotHappened) {
  bool done = false;
  for (std::uint64_t operation = 0; !done; ++operation) {
    SCOPED_TRACE("power cut at operation " + std::to_string(operation));
    on_cores(1, [&](runtime::Runtime&) {
      Served served(blank_disk(96_MiB));
      TestClient client(served.state);
      EXPECT_EQ(client("SET first 0"), kOk);
      served.opened.disk->set_plan({.crash_after_ops = served.opened.disk->op_count() + operation});
      client("MULTI");
      for (int i = 0; i < 4; ++i) client.call({"SET", "key" + std::to_string(i), std::string(600'000, 'v')});
      const std::string reply = client("EXEC");
      const bool acknowledged = reply.starts_with("*4\r\n+OK");
      done = !served.opened.disk->dead();
      EXPECT_TRUE(acknowledged || !done);
      Served again(served.opened.disk->crash(blockdev::Survival::kAll));
      TestClient after(again.state);
      const std::string found = after("EXISTS key0 key1 key2 key3");
      EXPECT_TRUE(found == integer(4) || (found == integer(0) && !acknowledged)) << found << " of 4";
      EXPECT_OK(again.opened.db->close());
    });
    ASSERT_FALSE(HasFailure());
  }
}

TEST(ServerEngine, AcknowledgedWritesOutliveAPowerCut) {
  int acknowledged = 0, cuts = 0;
  for (std::uint64_t at = 0; at < 100; at += 7, ++cuts) cut_power_at(at, blockdev::Survival::kRandom, acknowledged);
  for (std::uint64_t at = 2; at < 100; at += 13, ++cuts) cut_power_at(at, blockdev::Survival::kNone, acknowledged);
  // The cuts came in the midst of the work: some was acknowledged, not all.
  EXPECT_GT(acknowledged, cuts);
  EXPECT_LT(acknowledged, cuts * 3 * 80);
}

}  // namespace
}  // namespace kelda::server
