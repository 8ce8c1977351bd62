// Keys, expiry, scans, transactions and the engine's failures, as a client sees them. What Redis answers to all the
// rest is compared with a real one in server_compare_test.py.
#include <gtest/gtest.h>

#include <set>

#include "runtime/core_sim.h"
#include "server/expiry_clock.h"
#include "server/reclaimer.h"
#include "server/server_state.h"
#include "tests/support/memory_database.h"
#include "tests/support/test_client.h"

namespace kelda::server {
namespace {

using namespace kelda::testing;
using Operation = MemoryDatabase::Operation;

class Keys : public ::testing::Test {
 protected:
  MemoryDatabase database;
  ServerState state{database, {}};
  TestClient client{state}, other{state};

  void pass_ms(std::int64_t ms) {
    runtime::Core::current().sleep_until(runtime::now_ns() + static_cast<std::uint64_t>(ms) * 1'000'000);
  }
  std::size_t stored(const std::string& tree) {
    auto found = database.tree(tree, false);
    return found ? database.count(*found) : 0;
  }
};

TEST_F(Keys, OfZeroBytesAndOfNoBytesAreDistinct) {
  const std::string zero(1, '\0'), zeroes(2, '\0');
  EXPECT_EQ(client.call({"SET", "", "none"}), kOk);
  EXPECT_EQ(client.call({"SET", zero, "one"}), kOk);
  EXPECT_EQ(client.call({"SET", zeroes, "two"}), kOk);
  EXPECT_EQ(client.call({"SET", zero + "a", "za"}), kOk);
  EXPECT_EQ(client.call({"MGET", "", zero, zeroes}), bulks({"none", "one", "two"}));
  EXPECT_EQ(client("KELDA.RANGE - +"), bulks({"", "none", zero, "one", zeroes, "two", zero + "a", "za"}));
  EXPECT_EQ(client.call({"KELDA.RANGE", "(", "+", "LIMIT", "1"}), bulks({zero, "one"}));
  EXPECT_EQ(client("KEYS *"), bulks({"", zero, zeroes, zero + "a"}));
  EXPECT_EQ(client.call({"DEL", "", zeroes}), integer(2));
  EXPECT_EQ(client("DBSIZE"), integer(2));
}

TEST_F(Keys, LimitsAreToldClearly) {
  EXPECT_EQ(client.call({"SET", std::string(2048, 'k'), "v"}),
            "-ERR key is too long (2048 bytes; the limit is 1024)\r\n");
  EXPECT_EQ(client.call({"GET", std::string(2048, 'k')}), "-ERR key is too long (2048 bytes; the limit is 1024)\r\n");
  const std::string most(kMaxValueBytes, 'v');
  EXPECT_EQ(client.call({"SET", std::string(1024, 'k'), most, "EX", "100"}), kOk);
  EXPECT_EQ(client.call({"GET", std::string(1024, 'k')}), bulk(most));
  const std::string too_large = "-ERR value is too large (1048561 bytes; the limit is 1048560)\r\n";
  EXPECT_EQ(client.call({"SET", "k", most + "x"}), too_large);
  EXPECT_EQ(client.call({"APPEND", std::string(1024, 'k'), "x"}), too_large);
  EXPECT_EQ(client.call({"SETRANGE", "k", std::to_string(kMaxValueBytes), "x"}), too_large);
  EXPECT_EQ(client("EXISTS k"), integer(0));
}

TEST_F(Keys, AreInvisibleFromTheInstantTheyExpire) {
  client("SET a 1 PX 20");
  client("SET keep 1 PX 100000");
  EXPECT_EQ(client("GET a"), bulk("1"));
  pass_ms(30);
  EXPECT_EQ(client("GET a"), kNull);
  EXPECT_EQ(client("EXISTS a a"), integer(0));
  EXPECT_EQ(client("TTL a"), integer(-2));
  EXPECT_EQ(client("KEYS *"), bulks({"keep"}));
  EXPECT_EQ(client("KELDA.RANGE - +"), bulks({"keep", "1"}));
  EXPECT_EQ(client("SET a 2 XX"), kNull);
  EXPECT_EQ(client("RENAME a b"), "-ERR no such key\r\n");
  EXPECT_EQ(client("DEL a"), integer(0));
  client("SET a 1 PX 1");
  pass_ms(5);
  EXPECT_EQ(client("INCR a"), integer(1));
  EXPECT_EQ(client("TTL a"), integer(-1));
  client("SET a 1 PX 1");
  pass_ms(5);
  EXPECT_EQ(client("SETNX a 7"), integer(1));
  EXPECT_EQ(client("GET a"), bulk("7"));
}

TEST_F(Keys, ThatExpiredAreReclaimedWithStaleEntries) {
  Reclaimer reclaimer(state);
  for (int i = 0; i < 300; ++i) client("SET gone" + std::to_string(i) + " 1 PX 1");
  const std::string long_key(1020, 'x');  // too long for an index entry to hold it whole
  client.call({"SET", long_key, "1", "PX", "1"});
  client("SET later 1 PX 100000");
  client("SET stale 1 PX 2");
  client("SET stale forever");  // its entry stays behind
  client("SET moved 1 PX 2");
  client("PEXPIRE moved 100000");
  pass_ms(10);
  EXPECT_EQ(stored("kv.0"), 304u);
  KeySpace& space = *state.keyspace.find(0);
  int batches = 1;
  while (*reclaimer.reclaim_some(space, wall_clock_ms())) ++batches;
  EXPECT_GE(batches, 3);
  EXPECT_EQ(stored("kv.0"), 3u);
  EXPECT_EQ(stored("kv.0.expiry"), 2u);
  EXPECT_EQ(client("GET stale"), bulk("forever"));
  EXPECT_EQ(state.stats.total(Counter::kExpired), 301u);
  // It knows when to look again.
  EXPECT_GT(space.next_expiry_ms.load(), wall_clock_ms() + 90'000);
  EXPECT_LT(space.next_expiry_ms.load(), wall_clock_ms() + 110'000);
}

// A clock that cannot be right: what is stored outlives it, read and reclaimed under it, and expires once it is set right.
TEST(Clock, ThatCannotBeRightDeletesNothing) {
  constexpr std::int64_t kYearUs = 365LL * 86400 * 1'000'000;
  const auto ran = runtime::run_simulated({.core_count = 1}, [](runtime::Runtime&) {
    MemoryDatabase database;
    ServerState state{database, {}};
    TestClient client{state};
    Reclaimer reclaimer(state);
    const std::string soon = std::to_string(wall_clock_ms() + 200'000);
    EXPECT_EQ(client("SET a 1 EX 100"), kOk);
    for (const std::int64_t years : {-28, 72, 1000, -70}) {  // from 2027: 1999, 2099, far beyond, before 1970
      runtime::shift_wall_clock(years * kYearUs);
      EXPECT_FALSE(clock_can_be_right(wall_clock_ms())) << years;
      EXPECT_EQ(client("GET a"), bulk("1")) << years;
      EXPECT_EQ(client("EXPIREAT a " + soon.substr(0, soon.size() - 3)), integer(1));
      EXPECT_EQ(client("GETEX a PXAT " + soon), bulk("1"));
      EXPECT_EQ(client("KEYS *"), bulks({"a"}));
      EXPECT_EQ(client("SET b 1"), kOk);
      EXPECT_EQ(client("EXPIRE b 0"), integer(1));
      EXPECT_EQ(client("EXISTS b"), integer(0));
      EXPECT_FALSE(*reclaimer.reclaim_some(*state.keyspace.find(0), expiry_time_ms(wall_clock_ms())));
      EXPECT_EQ(client("GET a"), bulk("1")) << years;
      runtime::shift_wall_clock(-years * kYearUs);
    }
    EXPECT_TRUE(clock_can_be_right(wall_clock_ms()));
    EXPECT_EQ(client("GET a"), bulk("1"));
    runtime::shift_wall_clock(201'000'000);
    EXPECT_EQ(client("GET a"), kNull);
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST_F(Keys, RefreshingAnExpiryLeavesOneEntry) {
  for (int i = 1; i < 50; ++i) client("SET session x PX " + std::to_string(100'000 + i));
  EXPECT_EQ(stored("kv.0.expiry"), 1u);
  client("PERSIST session");
  EXPECT_EQ(stored("kv.0.expiry"), 0u);
  client("SETEX session 100 x");
  client("DEL session");
  EXPECT_EQ(stored("kv.0.expiry"), 0u);
}

std::vector<std::string> keys_in(const std::string& reply) {
  std::vector<std::string> found;
  for (std::size_t at = reply.find("key:"); at != std::string::npos; at = reply.find("key:", at + 1)) {
    found.push_back(reply.substr(at, reply.find('\r', at) - at));
  }
  return found;
}

std::string cursor_in(const std::string& reply) {
  const std::size_t begin = reply.find("\r\n", 4) + 2;
  return reply.substr(begin, reply.find('\r', begin) - begin);
}

TEST_F(Keys, ScanReturnsWhatStaysThroughInsertsAndDeletes) {
  for (int i = 0; i < 500; ++i) client("SET key:" + std::to_string(i) + " v");
  std::multiset<std::string> seen;
  std::string cursor = "0";
  int round = 0;
  do {
    const std::string reply = client("SCAN " + cursor + " MATCH key:* COUNT 7");
    for (const auto& key : keys_in(reply)) seen.insert(key);
    cursor = cursor_in(reply);
    // Even keys come and go while the scan goes on, among them the one it stands on.
    for (const auto& key : keys_in(reply)) {
      if ((key.back() - '0') % 2 == 0) client("DEL " + key);
    }
    client("SET key:new" + std::to_string(round++) + " v");
  } while (cursor != "0");
  for (int i = 1; i < 500; i += 2) EXPECT_EQ(seen.count("key:" + std::to_string(i)), 1u);
  EXPECT_LE(state.cursors.size(), 2u);  // an iteration holds on to two positions only
  EXPECT_EQ(client("SCAN 12345"), "-ERR the cursor is unknown or too old: start the iteration again with cursor 0\r\n");
}

TEST_F(Keys, RangeIsOrderedAndBounded) {
  client("MSET a 1 b 2 c 3 d 4");
  EXPECT_EQ(client("KELDA.RANGE a c"), bulks({"a", "1", "b", "2", "c", "3"}));
  EXPECT_EQ(client("KELDA.RANGE (a (c"), bulks({"b", "2"}));
  EXPECT_EQ(client("KELDA.RANGE [b + LIMIT 2"), bulks({"b", "2", "c", "3"}));
  EXPECT_EQ(client("KELDA.RANGE + - REV LIMIT 2"), bulks({"d", "4", "c", "3"}));
  EXPECT_EQ(client("KELDA.RANGE (c a REV"), bulks({"b", "2", "a", "1"}));
  EXPECT_EQ(client("KELDA.RANGE bb bz"), bulks({}));
  EXPECT_EQ(client("KELDA.RANGE c a"), bulks({}));
  EXPECT_EQ(client("KELDA.RANGE - + LIMIT 0"), bulks({}));
  EXPECT_EQ(client("KELDA.RANGE - + LIMIT -1"), "-ERR LIMIT is not a number from 0 up\r\n");
  EXPECT_EQ(client("KELDA.RANGE - + LIMIT"), "-ERR syntax error\r\n");
  client("HELLO 3");
  EXPECT_EQ(client("KELDA.RANGE a b"), "*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n");
}

TEST_F(Keys, RandomKeyCanBeAny) {
  for (const char* key : {"a", "bb", "user:1", "user:2", "user:3", "z"}) client("SET " + std::string(key) + " v");
  std::set<std::string> seen;
  for (int i = 0; i < 500; ++i) seen.insert(client("RANDOMKEY"));
  EXPECT_EQ(seen.size(), 6u);
}

TEST_F(Keys, WatchSeesEveryKindOfChange) {
  const char* changes[] = {"SET w 2",       "DEL w",         "INCR w",   "EXPIRE w 100",         "RENAME other w",
                           "FLUSHDB",       "APPEND w 1",    "GETDEL w", "COPY other w REPLACE", "MSET x 1 w 2",
                           "RENAME w gone", "SETRANGE w 0 9"};
  for (const char* change : changes) {
    client("MSET w 1 other 1");
    client("WATCH w");
    other(change);
    client("MULTI");
    client("SET result mine");
    EXPECT_EQ(client("EXEC"), kNullArray) << change;
  }
  const char* no_changes[] = {"GET w", "SET x 1", "SETNX w 5", "DEL nope", "EXISTS w", "SET w 9 NX", "TTL w"};
  for (const char* change : no_changes) {
    client("MSET w 1 other 1");
    client("WATCH w");
    other(change);
    client("MULTI");
    client("PING");
    EXPECT_EQ(client("EXEC"), "*1\r\n+PONG\r\n") << change;
  }
  EXPECT_FALSE(state.watches.active());
}

TEST_F(Keys, RemovingWhatHadExpiredBeforeWatchIsNoChange) {
  const auto watched_then = [&](const char* first, std::int64_t before_ms, std::int64_t after_ms, const char* change) {
    client("FLUSHALL");
    client(first);
    pass_ms(before_ms);
    client("WATCH w");
    pass_ms(after_ms);
    other(change);
    client("MULTI");
    client("PING");
    return client("EXEC");
  };
  const std::string done = "*1\r\n+PONG\r\n";
  for (const char* change : {"DEL w", "UNLINK w", "GETDEL w", "FLUSHALL", "FLUSHDB", "MSET x 1 y 1", "RENAME w x"}) {
    EXPECT_EQ(watched_then("SET w 1 PX 1", 5, 0, change), done) << change;
    // It expired after WATCH: that is a change, whoever then removes the key.
    EXPECT_EQ(watched_then("SET w 1 PX 10", 0, 20, change), kNullArray) << change;
  }
  for (const char* change : {"SET w 2", "SETNX w 2", "APPEND w 2", "MSET w 2"}) {
    EXPECT_EQ(watched_then("SET w 1 PX 1", 5, 0, change), kNullArray) << change;
  }
}

TEST_F(Keys, WatchSeesExpiry) {
  client("SET w 1 PX 10");
  client("WATCH w");
  pass_ms(20);
  client("MULTI");
  client("PING");
  EXPECT_EQ(client("EXEC"), kNullArray);
  // Expired already when it was watched: its removal is no change.
  client("SET w 1 PX 1");
  pass_ms(5);
  client("WATCH w");
  Reclaimer reclaimer(state);
  ASSERT_TRUE(reclaimer.reclaim_some(*state.keyspace.find(0), wall_clock_ms()));
  EXPECT_EQ(stored("kv.0"), 0u);
  client("MULTI");
  client("PING");
  EXPECT_EQ(client("EXEC"), "*1\r\n+PONG\r\n");
}

TEST_F(Keys, ExecUndoesOnlyTheCommandThatFails) {
  client("MULTI");
  client("SET a 1");
  client("SET t text");
  client("INCR t");
  client("MSET b 2 " + std::string(2000, 'k') + " 3");  // fails half way
  client("SET c 3");
  EXPECT_EQ(client("EXEC"),
            "*5\r\n+OK\r\n+OK\r\n-ERR value is not an integer or out of range\r\n"
            "-ERR key is too long (2000 bytes; the limit is 1024)\r\n+OK\r\n");
  EXPECT_EQ(client("MGET a b c"), "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n");
}

TEST_F(Keys, ConflictsAreRetriedWithoutTrace) {
  int left = 5;
  database.fail = [&](Operation operation, std::string_view) -> std::optional<Error> {
    if (operation == Operation::kCommit && left-- > 0) return Error(Code::kConflict);
    return std::nullopt;
  };
  EXPECT_EQ(client("INCR n"), integer(1));
  left = 5;
  client("MULTI");
  client("INCR n");
  client("SELECT 1");
  client("INCR n");
  EXPECT_EQ(client("EXEC"), "*3\r\n:2\r\n+OK\r\n:1\r\n");
  client("SELECT 0");
  EXPECT_EQ(client("GET n"), bulk("2"));
}

TEST_F(Keys, AFullDiskRefusesWritesOnly) {
  client("SET a 1");
  database.fail = [&](Operation operation, std::string_view key) -> std::optional<Error> {
    if (operation == Operation::kWrite && key == "b") return Error(Code::kNoSpace);
    return std::nullopt;
  };
  const std::string full =
      "-DISKFULL the disk is full: delete keys or give Kelda a larger disk; reads and deletes go on\r\n";
  EXPECT_EQ(client("SET b 1"), full);
  EXPECT_EQ(client("GET a"), bulk("1"));
  EXPECT_EQ(client("MSET c 1 b 1"), full);
  EXPECT_EQ(client("EXISTS c"), integer(0));
  client("MULTI");
  client("SET c 1");
  client("SET b 1");
  EXPECT_EQ(client("EXEC"), "*2\r\n+OK\r\n" + full);
  EXPECT_EQ(client("DEL a c"), integer(2));
}

TEST_F(Keys, NothingIsAcknowledgedThatIsNotDurable) {
  client("SET a 1");
  database.durable = [](Lsn) -> Result<> { return Error(Code::kFailed, "flush failed: input/output error"); };
  const std::string stopped =
      "-MISCONF the engine has stopped: flush failed: input/output error\r\n";
  EXPECT_EQ(client("SET a 2"), stopped);
  EXPECT_EQ(client("GET a"), stopped);  // it would have told of the 2
  EXPECT_EQ(client("PING"), "+PONG\r\n");
}

TEST_F(Keys, ReadsWaitOnlyForWhatTheyShow) {
  client("SET a 1");
  const auto before = database.waits.load();
  client("PING");
  EXPECT_EQ(client("GET nope"), kNull);
  client("DBSIZE");
  EXPECT_LE(database.waits.load(), before + 1);
}

TEST_F(Keys, ALongReplyBecomesAnError) {
  ServerOptions small;
  small.output_limit_bytes = 100'000;
  ServerState limited(database, small);
  TestClient c(limited);
  for (int i = 0; i < 200; ++i) c.call({"SET", "key:" + std::to_string(i), std::string(1000, 'x')});
  const std::string error = "-ERR the reply would be longer than 100000 bytes; ask for less at a time\r\n";
  EXPECT_EQ(c("KELDA.RANGE - +"), error);
  std::vector<std::string> mget{"MGET"};
  for (int i = 0; i < 200; ++i) mget.push_back("key:" + std::to_string(i));
  EXPECT_EQ(c.call(mget), error);
  EXPECT_EQ(c("KELDA.RANGE - + LIMIT 1"), bulks({"key:0", std::string(1000, 'x')}));
}

TEST_F(Keys, WhatOneClientCanMakeTheServerKeepIsBounded) {
  ServerOptions options;
  options.request_limit_bytes = 100'000;
  options.output_limit_bytes = 100'000;
  ServerState small{database, options};
  TestClient hostile{small};

  // Small commands: what a queue takes beside their bytes counts.
  hostile("MULTI");
  int queued = 0;
  while (queued < 100'000 && hostile("PING") == kQueued) ++queued;
  EXPECT_GT(queued, 100);
  EXPECT_LT(queued, 2000);
  EXPECT_LE(hostile.client().buffer_bytes(), 200'000u);
  EXPECT_TRUE(hostile("EXEC").starts_with("-EXECABORT"));

  std::vector<std::string> watch{"WATCH"};
  for (int i = 0; i < 2000; ++i) watch.push_back("key" + std::to_string(i));
  EXPECT_TRUE(hostile.call(watch).starts_with("-ERR too many watched keys"));
  EXPECT_LE(hostile.client().buffer_bytes(), 200'000u);
  EXPECT_EQ(hostile("UNWATCH"), kOk);
  EXPECT_LE(hostile.client().buffer_bytes(), 2'000u);
  EXPECT_EQ(hostile("WATCH a b a"), kOk);

  for (const char* what : {"CLIENT SETNAME ", "CLIENT SETINFO LIB-NAME ", "HELLO 2 SETNAME "}) {
    EXPECT_NE(hostile(what + std::string(257, 'n')).find("cannot be longer than 256 bytes"), std::string::npos) << what;
  }
  EXPECT_EQ(hostile("CLIENT SETNAME " + std::string(256, 'n')), kOk);

  // Replies made of many small parts.
  std::vector<std::string> info{"COMMAND", "INFO"};
  info.resize(20'000, "get");
  EXPECT_TRUE(hostile.call(info).starts_with("-ERR the reply would be longer than 100000 bytes"));
  EXPECT_LE(hostile.client().buffer_bytes(), 300'000u);
}

TEST_F(Keys, AnUnknownStoredFormatIsReportedNotServed) {
  client("SET a 1");
  const Tree tree = *database.tree("kv.0", false);
  ASSERT_TRUE(database.put(tree, "a", "\x7fnot ours"));
  EXPECT_EQ(client("GET a"), "-CORRUPT the stored value has a format that this version does not know\r\n");
  EXPECT_EQ(client("SET a 2"), kOk);
}

}  // namespace
}  // namespace kelda::server
