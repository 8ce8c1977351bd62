// Every wait for another transaction has a bound, and nobody waits for a transaction of its own thread.
#include "engine_support.h"
#include "runtime/sync.h"

namespace kelda::engine {
namespace {

constexpr std::uint64_t kShortUs = 50'000;
// Nothing that answers at once takes so long here, not even emulated; the default time-out does.
constexpr runtime::TimeNs kAtOnceNs = 2'000'000'000;

std::unique_ptr<Database> open_with(std::uint64_t lock_timeout_us, std::uint64_t disk_bytes = 64_MiB) {
  DatabaseOptions options = small_options();
  options.lock_timeout_us = lock_timeout_us;
  auto opened = open_on(blank_disk(disk_bytes), options);
  EXPECT_OK(opened);
  return std::move(opened->db);
}

template <class Call>
Code code_at_once(Call call) {
  const auto start_ns = runtime::now_ns();
  const auto result = call();
  EXPECT_LT(runtime::now_ns() - start_ns, kAtOnceNs);
  EXPECT_FALSE(result.has_value());
  if (result) return Code::kClosed;
  EXPECT_NE(result.error().message().find("transaction"), std::string::npos) << result.error().to_string();
  return result.error().code();
}

// As a fiber, and as a plain thread of an embedding program.
void in_both_worlds(const std::function<void()>& body) {
  body();
  on_cores(1, [&](runtime::Runtime&) { body(); });
}

TEST(LockWaits, WhatTheOwnThreadsOtherTransactionWroteIsNotWaitedFor) {
  in_both_worlds([] {
    auto db = open_with(5'000'000);
    const Tree tree = *db->tree("t", true);
    auto one = db->begin(), two = db->begin();
    ASSERT_OK(one->put(tree, "a", "1"));
    std::string value;
    EXPECT_EQ(code_at_once([&] { return db->get(tree, "a", value); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return db->put(tree, "a", "2"); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return db->remove(tree, "a"); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return two->get(tree, "a", value); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return two->put(tree, "a", "2"); }), Code::kSelfDeadlock);
    const std::string_view keys[] = {"a"};
    EXPECT_EQ(code_at_once([&] { return two->lock_keys(tree, keys); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return two->scan(tree); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return two->clear(tree); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return two->lock_tree(tree, false); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return db->drop_tree("t"); }), Code::kSelfDeadlock);
    // Each is as it was: both go on.
    ASSERT_OK(two->put(tree, "b", "2"));
    ASSERT_OK(one->commit());
    ASSERT_OK(two->put(tree, "a", "3"));
    ASSERT_OK(two->commit());
    EXPECT_TRUE(*db->get(tree, "a", value));
    EXPECT_EQ(value, "3");
    EXPECT_OK(db->close());
  });
}

TEST(LockWaits, TwoReadersOfOneThreadNeitherOfWhichCanWrite) {
  in_both_worlds([] {
    auto db = open_with(5'000'000);
    const Tree tree = *db->tree("t", true);
    ASSERT_OK(db->put(tree, "a", "1"));
    auto one = db->begin(), two = db->begin();
    std::string value;
    ASSERT_OK(one->get(tree, "a", value));
    ASSERT_OK(two->get(tree, "a", value));
    EXPECT_EQ(code_at_once([&] { return one->put(tree, "a", "2"); }), Code::kSelfDeadlock);
    EXPECT_EQ(code_at_once([&] { return db->put(tree, "a", "2"); }), Code::kSelfDeadlock);
    ASSERT_OK(two->commit());
    ASSERT_OK(one->put(tree, "a", "2"));
    ASSERT_OK(one->commit());
    EXPECT_OK(db->close());
  });
}

TEST(LockWaits, AWriteDuringTheThreadsOwnScan) {
  in_both_worlds([] {
    auto db = open_with(5'000'000);
    const Tree tree = *db->tree("t", true);
    for (const char* key : {"a", "b", "c"}) ASSERT_OK(db->put(tree, key, "1"));
    auto txn = db->begin();
    auto scan = txn->scan(tree);
    ASSERT_OK(scan);
    int seen = 0;
    for (auto more = (*scan)->seek(""); more && *more; more = (*scan)->next()) {
      EXPECT_EQ(code_at_once([&] { return db->put(tree, (*scan)->key(), "2"); }), Code::kSelfDeadlock);
      ASSERT_OK(txn->put(tree, std::string((*scan)->key()), "2"));  // the scan's own transaction may
      ++seen;
    }
    EXPECT_EQ(seen, 3);
    auto emptied = db->begin();
    EXPECT_EQ(code_at_once([&] { return emptied->clear(tree); }), Code::kSelfDeadlock);
    ASSERT_OK(txn->commit());
    ASSERT_OK(emptied->clear(tree));
    ASSERT_OK(emptied->commit());
    EXPECT_OK(db->close());
  });
}

// Their keys differ, but there are fewer locks than keys: each call comes back, and those that were not refused commit.
TEST(LockWaits, HundredsOfOpenTransactionsOfOneThread) {
  in_both_worlds([] {
    auto db = open_with(5'000'000);
    const Tree tree = *db->tree("t", true);
    std::vector<std::unique_ptr<Transaction>> open;
    std::vector<std::string> written;
    int refused = 0;
    const auto start_ns = runtime::now_ns();
    for (int i = 0; i < 1500; ++i) {
      auto txn = db->begin();
      const std::string key = "key" + std::to_string(i);
      const auto put = txn->put(tree, key, "v");
      if (put) {
        open.push_back(std::move(txn));
        written.push_back(key);
      } else {
        ASSERT_EQ(put.error().code(), Code::kSelfDeadlock) << put.error().to_string();
        ++refused;
      }
    }
    EXPECT_OK(db->checkpoint());
    EXPECT_TRUE(db->close().failed_with(Code::kBusy));
    for (auto& txn : open) ASSERT_OK(txn->commit_no_wait());
    EXPECT_LT(runtime::now_ns() - start_ns, 20 * kAtOnceNs);
    EXPECT_GT(refused, 0);
    EXPECT_LT(refused, 300);
    std::string value;
    for (const auto& key : written) ASSERT_TRUE(*db->get(tree, key, value)) << key;
    EXPECT_OK(db->close());
  });
}

// ---- another fiber's transaction ----

void sleep_ms(std::uint64_t ms) { runtime::Core::current().sleep_until(runtime::now_ns() + ms * 1'000'000); }

// Runs `body` in a fiber while a transaction of another is open, which has done `first`.
void while_another_holds(std::uint64_t lock_timeout_us, const std::function<void(Transaction&, Tree)>& first,
                         const std::function<void(Database&, Tree)>& body) {
  on_cores(1, [&](runtime::Runtime&) {
    auto db = open_with(lock_timeout_us);
    const Tree tree = *db->tree("t", true);
    runtime::Event holds, end;
    runtime::Completion holder;
    const auto spawned = runtime::spawn_counted(runtime::Core::current(), holder, [&] {
      auto txn = db->begin();
      first(*txn, tree);
      holds.set();
      end.wait();
      EXPECT_OK(txn->commit());
    });
    ASSERT_OK(spawned);
    holds.wait();
    body(*db, tree);
    end.set();
    holder.wait();
    EXPECT_OK(db->close());
  });
}

template <class Call>
void expect_timeout(std::uint64_t timeout_us, Call call) {
  const auto start_ns = runtime::now_ns();
  const auto result = call();
  const auto took_ns = runtime::now_ns() - start_ns;
  EXPECT_TRUE(result.failed_with(Code::kLockTimeout)) << (result ? "no error" : result.error().to_string());
  EXPECT_GE(took_ns, timeout_us * 1000);
  EXPECT_LT(took_ns, timeout_us * 1000 + kAtOnceNs);
  if (!result) {
    EXPECT_NE(result.error().message().find("lock_timeout_us"), std::string::npos);
  }
}

TEST(LockWaits, EveryCallThatWaitsForAnothersKeyHasABound) {
  const auto writes = [](Transaction& txn, Tree tree) { ASSERT_OK(txn.put(tree, "a", "1")); };
  while_another_holds(kShortUs, writes, [](Database& db, Tree tree) {
    std::string value;
    const std::string_view keys[] = {"a"};
    expect_timeout(kShortUs, [&] { return db.get(tree, "a", value); });
    expect_timeout(kShortUs, [&] { return db.put(tree, "a", "2"); });
    expect_timeout(kShortUs, [&] { return db.remove(tree, "a"); });
    expect_timeout(kShortUs, [&] { return db.drop_tree("t"); });
    auto txn = db.begin();
    expect_timeout(kShortUs, [&] { return txn->get(tree, "a", value); });
    expect_timeout(kShortUs, [&] { return txn->get_for_update(tree, "a", value); });
    expect_timeout(kShortUs, [&] { return txn->put(tree, "a", "2"); });
    expect_timeout(kShortUs, [&] { return txn->remove(tree, "a"); });
    expect_timeout(kShortUs, [&] { return txn->lock_keys(tree, keys); });
    ASSERT_OK(txn->put(tree, "b", "2"));  // the transaction is as before
    ASSERT_OK(txn->commit());
    EXPECT_TRUE(*db.get(tree, "b", value));
    auto whole = db.begin();
    expect_timeout(kShortUs, [&] { return whole->scan(tree); });
    expect_timeout(kShortUs, [&] { return whole->clear(tree); });
    expect_timeout(kShortUs, [&] { return whole->lock_tree(tree, true); });
    // A bound of its own.
    whole->set_lock_timeout_us(3 * kShortUs);
    expect_timeout(3 * kShortUs, [&] { return whole->scan(tree); });
    whole->set_lock_timeout_us(0);
    expect_timeout(0, [&] { return whole->scan(tree); });
    expect_timeout(0, [&] { return whole->get(tree, "a", value); });
  });
}

TEST(LockWaits, EveryCallThatWaitsForAnothersScanHasABound) {
  const auto scans = [](Transaction& txn, Tree tree) { ASSERT_OK(txn.scan(tree)); };
  while_another_holds(kShortUs, scans, [](Database& db, Tree tree) {
    expect_timeout(kShortUs, [&] { return db.put(tree, "a", "2"); });
    expect_timeout(kShortUs, [&] { return db.drop_tree("t"); });
    auto txn = db.begin();
    expect_timeout(kShortUs, [&] { return txn->put(tree, "a", "2"); });
    expect_timeout(kShortUs, [&] { return txn->clear(tree); });
    std::string value;
    EXPECT_FALSE(*txn->get(tree, "a", value)) << "readers pass";
  });
}

// With locks in hand, in their order and against it: kConflict or kLockTimeout, in bounded time, whatever the buckets.
TEST(LockWaits, WhoHoldsLocksComesBackAsWell) {
  const auto writes = [](Transaction& txn, Tree tree) { ASSERT_OK(txn.put(tree, "a", "1")); };
  while_another_holds(kShortUs, writes, [](Database& db, Tree tree) {
    int conflicts = 0, timeouts = 0;
    for (int i = 0; i < 12; ++i) {
      auto txn = db.begin();
      ASSERT_OK(txn->put(tree, "mine" + std::to_string(i), "1"));
      const auto put = txn->put(tree, "a", "2");
      conflicts += put.failed_with(Code::kConflict);
      timeouts += put.failed_with(Code::kLockTimeout);
    }
    EXPECT_EQ(conflicts + timeouts, 12);
    EXPECT_GT(timeouts, 0);
  });
}

TEST(LockWaits, WhoGetsTheLockInTimeGoesOn) {
  on_cores(1, [](runtime::Runtime&) {
    auto db = open_with(60'000'000);
    const Tree tree = *db->tree("t", true);
    runtime::Event holds;
    runtime::Completion holder;
    const auto spawned = runtime::spawn_counted(runtime::Core::current(), holder, [&] {
      auto txn = db->begin();
      EXPECT_OK(txn->put(tree, "a", "1"));
      holds.set();
      sleep_ms(100);
      EXPECT_OK(txn->commit());
    });
    ASSERT_OK(spawned);
    holds.wait();
    EXPECT_OK(db->put(tree, "a", "2"));
    holder.wait();
    std::string value;
    EXPECT_TRUE(*db->get(tree, "a", value));
    EXPECT_EQ(value, "2");
    EXPECT_OK(db->close());
  });
}

// Once another fiber has called it, it is that fiber's: the first may wait for it.
TEST(LockWaits, ATransactionThatWasHandedOnIsWaitedFor) {
  on_cores(2, [](runtime::Runtime& rt) {
    auto db = open_with(60'000'000);
    const Tree tree = *db->tree("t", true);
    for (std::uint32_t core = 0; core < 2; ++core) {
      auto txn = db->begin();
      ASSERT_OK(txn->put(tree, "a", "1"));
      runtime::Event taken;
      runtime::Completion other;
      const auto spawned = runtime::spawn_counted(rt.core(core), other, [&] {
        EXPECT_OK(txn->put(tree, "b", "1"));
        taken.set();
        sleep_ms(50);
        EXPECT_OK(txn->commit());
      });
      ASSERT_OK(spawned);
      taken.wait();
      EXPECT_OK(db->put(tree, "a", "2"));
      other.wait();
    }
    EXPECT_OK(db->close());
  });
}

// What the open transactions may hold of a small log is full: one that has nothing yet is not left waiting.
TEST(LockWaits, RoomInTheLogIsWaitedForWithABound) {
  auto db = open_with(kShortUs, 24_MiB);
  const Tree tree = *db->tree("t", true);
  const std::string value(1000, 'v');
  std::vector<std::unique_ptr<Transaction>> open;
  Code last = Code::kClosed;
  for (int t = 0, key = 0; t < 400 && last == Code::kClosed; ++t) {
    open.push_back(db->begin());
    for (int i = 0; i < 400; ++i, ++key) {
      const auto name = "key" + std::to_string(key);
      auto put = open.back()->put(tree, name, value);
      if (put) put = open.back()->remove(tree, name);  // its undo entry holds the value
      if (put || put.failed_with(Code::kSelfDeadlock)) continue;
      // This one has something already: it is told at once.
      if (!put.failed_with(Code::kConflict) && !put.failed_with(Code::kTooLarge)) last = put.error().code();
      break;
    }
  }
  EXPECT_EQ(last, Code::kLockTimeout);
  open.clear();
  EXPECT_OK(db->put(tree, "after", "1"));
  EXPECT_OK(db->close());
}

}  // namespace
}  // namespace kelda::engine
