// What a transaction promises while the database is open.
#include <map>

#include "engine/lock_table.h"
#include "engine_support.h"

namespace kelda::engine {
namespace {

class Engine : public ::testing::Test {
 protected:
  void run(std::uint32_t cores, std::function<void(runtime::Runtime&, Database&)> body) {
    on_cores(cores, [&](runtime::Runtime& rt) {
      auto opened = open_on(blank_disk());
      ASSERT_OK(opened);
      body(rt, *opened->db);
      EXPECT_OK(opened->db->close());
    });
  }
};

std::string must_get(Database& db, Tree tree, std::string_view key) {
  std::string value;
  auto found = db.get(tree, key, value);
  EXPECT_TRUE(found.has_value()) << found.error().to_string();
  return found && *found ? value : "(absent)";
}

TEST_F(Engine, PutGetRemove) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    ASSERT_OK(db.put(tree, "a", "1"));
    ASSERT_OK(db.put(tree, "b", std::string(100'000, 'x')));
    EXPECT_EQ(must_get(db, tree, "a"), "1");
    EXPECT_EQ(must_get(db, tree, "b").size(), 100'000u);
    EXPECT_EQ(db.count(tree), 2u);
    EXPECT_TRUE(*db.remove(tree, "a"));
    EXPECT_FALSE(*db.remove(tree, "a"));
    EXPECT_EQ(must_get(db, tree, "a"), "(absent)");
    EXPECT_EQ(db.count(tree), 1u);
  });
}

TEST_F(Engine, CountsWhatAnOpenTransactionHasEmptied) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    const Tree other = *db.tree("other", true);
    for (const char* key : {"a", "b", "c"}) ASSERT_OK(db.put(tree, key, "1"));
    ASSERT_OK(db.put(other, "x", "1"));
    const auto counts = [&] { return std::pair(db.count(tree), db.count(other)); };
    auto txn = db.begin();
    ASSERT_OK(txn->put(tree, "d", "1"));
    EXPECT_EQ(db.count(tree), 4u);
    const auto before = *txn->savepoint();
    ASSERT_OK(txn->clear(tree));
    EXPECT_EQ(counts(), std::pair(std::uint64_t{0}, std::uint64_t{1}));
    ASSERT_OK(txn->put(tree, "e", "1"));
    ASSERT_OK(txn->put(tree, "f", "1"));
    EXPECT_TRUE(*txn->remove(tree, "e"));
    EXPECT_EQ(db.count(tree), 1u);
    const auto after_first = *txn->savepoint();
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->clear(other));
    EXPECT_EQ(counts(), std::pair(std::uint64_t{0}, std::uint64_t{0}));
    ASSERT_OK(txn->roll_back_to(after_first));
    EXPECT_EQ(counts(), std::pair(std::uint64_t{1}, std::uint64_t{1}));
    ASSERT_OK(txn->roll_back_to(before));
    EXPECT_EQ(counts(), std::pair(std::uint64_t{4}, std::uint64_t{1}));
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->put(tree, "g", "1"));
    ASSERT_OK(txn->roll_back());
    EXPECT_EQ(counts(), std::pair(std::uint64_t{3}, std::uint64_t{1}));
    txn = db.begin();
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->put(tree, "h", "1"));
    ASSERT_OK(txn->commit());
    EXPECT_EQ(counts(), std::pair(std::uint64_t{1}, std::uint64_t{1}));
    txn = db.begin();
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->commit());
    EXPECT_EQ(db.count(tree), 0u);
  });
}

TEST_F(Engine, ReadsItsOwnWritesAndRollBackTakesThemBack) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    ASSERT_OK(db.put(tree, "kept", "old"));
    {
      auto txn = db.begin();
      ASSERT_OK(txn->put(tree, "kept", "new"));
      ASSERT_OK(txn->put(tree, "added", std::string(50'000, 'y')));
      std::string value;
      EXPECT_TRUE(*txn->get(tree, "kept", value));
      EXPECT_EQ(value, "new");
      EXPECT_TRUE(*txn->get(tree, "added", value));
      ASSERT_OK(txn->roll_back());
      EXPECT_TRUE(txn->put(tree, "kept", "late").failed_with(Code::kAborted));
    }
    EXPECT_EQ(must_get(db, tree, "kept"), "old");
    EXPECT_EQ(must_get(db, tree, "added"), "(absent)");
    EXPECT_EQ(db.count(tree), 1u);
  });
}

TEST_F(Engine, SavepointUndoesOnlyWhatCameAfter) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    auto txn = db.begin();
    ASSERT_OK(txn->put(tree, "a", "1"));
    const auto savepoint = txn->savepoint();
    ASSERT_OK(savepoint);
    ASSERT_OK(txn->put(tree, "a", "2"));
    ASSERT_OK(txn->put(tree, "b", "2"));
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->put(tree, "c", "3"));
    ASSERT_OK(txn->roll_back_to(*savepoint));
    ASSERT_OK(txn->commit());
    EXPECT_EQ(must_get(db, tree, "a"), "1");
    EXPECT_EQ(must_get(db, tree, "b"), "(absent)");
    EXPECT_EQ(must_get(db, tree, "c"), "(absent)");
  });
}

TEST_F(Engine, ConditionsOfPut) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    auto txn = db.begin();
    EXPECT_FALSE(*txn->put(tree, "a", "1", PutIf::kPresent));
    EXPECT_TRUE(*txn->put(tree, "a", "1", PutIf::kAbsent));
    EXPECT_FALSE(*txn->put(tree, "a", "2", PutIf::kAbsent));
    EXPECT_TRUE(*txn->put(tree, "a", "3", PutIf::kPresent));
    ASSERT_OK(txn->commit());
    EXPECT_EQ(must_get(db, tree, "a"), "3");
  });
}

TEST_F(Engine, ScanSeesCommittedAndOwnKeysInOrderBothWays) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    std::map<std::string, std::string> expected;
    for (int i = 0; i < 2000; ++i) {
      const std::string key = "k" + std::to_string(i * 7919 % 100'000);
      expected[key] = std::to_string(i);
    }
    auto load = db.begin();
    for (const auto& [key, value] : expected) ASSERT_OK(load->put(tree, key, value));
    ASSERT_OK(load->commit());
    auto txn = db.begin();
    ASSERT_OK(txn->put(tree, "zz own", "mine"));
    expected["zz own"] = "mine";
    auto scan = txn->scan(tree);
    ASSERT_OK(scan);
    auto more = (*scan)->seek("");
    for (const auto& [key, value] : expected) {
      ASSERT_TRUE(more && *more) << key;
      EXPECT_EQ((*scan)->key(), key);
      EXPECT_EQ(*(*scan)->value(), value);
      more = (*scan)->next();
    }
    EXPECT_FALSE(*more);
    more = (*scan)->seek_back("");
    for (auto it = expected.rbegin(); it != expected.rend(); ++it) {
      ASSERT_TRUE(more && *more);
      EXPECT_EQ((*scan)->key(), it->first);
      more = (*scan)->prev();
    }
    EXPECT_FALSE(*more);
  });
}

// Money moves between accounts on several cores; whoever looks at all of them sees the same sum.
TEST_F(Engine, TransfersKeepTheSumForEveryReader) {
  constexpr int kAccounts = 20, kStart = 1000;
  run(2, [](runtime::Runtime& rt, Database& db) {
    const Tree tree = *db.tree("accounts", true);
    const auto name = [](std::uint64_t i) { return "account" + std::to_string(i); };
    for (int i = 0; i < kAccounts; ++i) ASSERT_OK(db.put(tree, name(i), std::to_string(kStart)));
    std::atomic<int> transfers{0}, sums{0};
    in_parallel(rt, 4, [&](std::uint32_t worker) {
      std::uint64_t seed = worker * 7919 + 1;
      const auto next = [&] { return (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 33; };
      for (int round = 0; round < 60;) {
        auto txn = db.begin();
        Result<> done = [&]() -> Result<> {
          std::string value;
          if (worker % 4 == 3) {
            int sum = 0;
            auto scan = TRY(txn->scan(tree));
            bool more = TRY(scan->seek(""));
            while (more) {
              sum += std::stoi(std::string(TRY(scan->value())));
              more = TRY(scan->next());
            }
            EXPECT_EQ(sum, kAccounts * kStart);
            ++sums;
            return txn->commit();
          }
          const std::string from = name(next() % kAccounts), to = name(next() % kAccounts);
          if (from == to) return txn->roll_back();
          TRY(txn->get_for_update(tree, from, value));
          const int have = std::stoi(value);
          runtime::Core::current().yield();
          TRY(txn->put(tree, from, std::to_string(have - 1)));
          TRY(txn->get_for_update(tree, to, value));
          TRY(txn->put(tree, to, std::to_string(std::stoi(value) + 1)));
          ++transfers;
          return next() % 5 == 0 ? txn->roll_back() : txn->commit();
        }();
        if (done.failed_with(Code::kConflict)) {
          txn.reset();
          runtime::Core::current().yield();
          continue;
        }
        ASSERT_OK(done);
        ++round;
      }
    });
    EXPECT_GT(transfers, 100);
    EXPECT_GT(sums, 50);
    int sum = 0;
    for (int i = 0; i < kAccounts; ++i) sum += std::stoi(must_get(db, tree, name(i)));
    EXPECT_EQ(sum, kAccounts * kStart);
  });
}

// Two transactions that take two keys in opposite order: one gets kConflict, nobody hangs.
TEST_F(Engine, OppositeOrderEndsInConflictNotInDeadlock) {
  run(2, [](runtime::Runtime& rt, Database& db) {
    const Tree tree = *db.tree("t", true);
    std::atomic<int> committed{0}, conflicts{0};
    in_parallel(rt, 1, [&](std::uint32_t worker) {
      for (int round = 0; round < 30;) {
        auto txn = db.begin();
        const char* first = worker == 0 ? "x" : "y";
        const char* second = worker == 0 ? "y" : "x";
        Result<bool> put = txn->put(tree, first, "1");
        if (put) {
          runtime::Core::current().yield();
          put = txn->put(tree, second, "1");
        }
        if (put.failed_with(Code::kConflict)) {
          ++conflicts;
          ASSERT_OK(txn->roll_back());
          continue;
        }
        ASSERT_OK(put);
        ASSERT_OK(txn->commit());
        ++committed;
        ++round;
      }
    });
    EXPECT_EQ(committed, 60);
  });
}

// The same with programs that start again at once, on one core: neither lets the other run before it has its first key
// again, and both time out together. One of them must come through all the same.
TEST_F(Engine, TransactionsThatStartAgainAtOnceDoNotCollideForEver) {
  run(1, [](runtime::Runtime& rt, Database& db) {
    const Tree tree = *db.tree("t", true);
    constexpr int kRounds = 20, kMostConflicts = 300 * kRounds;
    std::atomic<int> conflicts{0};
    in_parallel(rt, 4, [&](std::uint32_t worker) {
      for (int round = 0; round < kRounds && conflicts < kMostConflicts;) {
        auto txn = db.begin();
        Result<bool> put = true;
        // Whatever the order of the buckets, for some pair of workers it is against the order for both.
        for (std::uint32_t i = 0; i < 8 && put; ++i) {
          const std::uint32_t key = worker % 2 == 0 ? i : 7 - i;
          put = txn->put(tree, "key" + std::to_string((key + worker / 2 * 3) % 8), "1");
          if (put && i == 3) runtime::Core::current().yield();
        }
        if (put.failed_with(Code::kConflict)) {
          ++conflicts;
          continue;
        }
        ASSERT_OK(put);
        ASSERT_OK(txn->commit_no_wait());
        ++round;
      }
    });
    EXPECT_LT(conflicts, kMostConflicts) << db.stats().commits << " committed";
  });
}

// A read outside a transaction never shows a value that is rolled back later.
TEST_F(Engine, NobodySeesUncommittedValues) {
  run(2, [](runtime::Runtime& rt, Database& db) {
    const Tree tree = *db.tree("t", true);
    ASSERT_OK(db.put(tree, "k", "good"));
    std::atomic<bool> stop{false};
    std::atomic<int> reads{0};
    in_parallel(rt, 1, [&](std::uint32_t worker) {
      if (worker == 0) {
        for (int i = 0; i < 200 || (reads < 20 && i < 100'000); ++i) {
          auto txn = db.begin();
          ASSERT_OK(txn->put(tree, "k", "bad"));
          runtime::Core::current().yield();
          ASSERT_OK(txn->roll_back());
          runtime::Core::current().yield();
        }
        stop = true;
        return;
      }
      std::string value;
      while (!stop) {
        auto found = db.get(tree, "k", value);
        ASSERT_TRUE(found && *found);
        ASSERT_EQ(value, "good");
        ++reads;
        runtime::Core::current().yield();
      }
    });
    EXPECT_GE(reads, 20) << "the reader starved";
  });
}

// Locks go before the commit is durable: who reads then must be told what to wait for.
TEST_F(Engine, WhatIsNotDurableYetIsReadWithTheLsnToWaitFor) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    ASSERT_OK(db.put(tree, "old", "1"));
    std::string value;
    Lsn lsn;
    EXPECT_TRUE(*db.get(tree, "old", value, &lsn));
    EXPECT_EQ(lsn, kNoLsn);

    auto put = db.begin();
    ASSERT_OK(put->put(tree, "new", "2"));
    const Lsn put_lsn = *put->commit_no_wait();
    ASSERT_NE(put_lsn, kNoLsn);
    EXPECT_TRUE(*db.get(tree, "new", value, &lsn));
    EXPECT_EQ(lsn, put_lsn);
    ASSERT_OK(db.wait_durable(put_lsn));
    EXPECT_TRUE(*db.get(tree, "new", value, &lsn));
    EXPECT_EQ(lsn, kNoLsn);

    auto remove = db.begin();
    ASSERT_OK(remove->remove(tree, "new"));
    const Lsn remove_lsn = *remove->commit_no_wait();
    EXPECT_FALSE(*db.get(tree, "new", value, &lsn));
    EXPECT_EQ(lsn, remove_lsn);

    auto clear = db.begin();
    ASSERT_OK(clear->clear(tree));
    const Lsn clear_lsn = *clear->commit_no_wait();
    EXPECT_FALSE(*db.get(tree, "old", value, &lsn));
    EXPECT_GE(lsn, clear_lsn);
    auto reader = db.begin();
    EXPECT_FALSE(*reader->get(tree, "old", value));
    EXPECT_GE(*reader->commit_no_wait(), clear_lsn);
  });
}

TEST_F(Engine, LockKeysNeverConflictsWithItself) {
  run(2, [](runtime::Runtime& rt, Database& db) {
    const Tree tree = *db.tree("t", true);
    in_parallel(rt, 3, [&](std::uint32_t worker) {
      for (int round = 0; round < 20; ++round) {
        std::vector<std::string> names;
        for (int i = 0; i < 5; ++i) names.push_back("k" + std::to_string((worker * 31 + round * 17 + i * 5) % 9));
        std::vector<std::string_view> keys(names.begin(), names.end());
        auto txn = db.begin();
        ASSERT_OK(txn->lock_keys(tree, keys));
        for (const auto key : keys) ASSERT_OK(txn->put(tree, key, "v"));
        ASSERT_OK(txn->commit());
      }
    });
    EXPECT_EQ(db.stats().conflicts, 0u);
  });
}

TEST_F(Engine, ClearEmptiesATreeAndGivesItsPagesBack) {
  run(1, [](runtime::Runtime&, Database& db) {
    const Tree tree = *db.tree("t", true);
    const auto used_before = db.stats().used_pages;
    auto load = db.begin();
    for (int i = 0; i < 500; ++i) ASSERT_OK(load->put(tree, "key" + std::to_string(i), std::string(3000, 'v')));
    ASSERT_OK(load->commit());
    EXPECT_GT(db.stats().used_pages, used_before + 300);
    auto txn = db.begin();
    ASSERT_OK(txn->clear(tree));
    ASSERT_OK(txn->put(tree, "only", "this"));
    ASSERT_OK(txn->commit());
    EXPECT_EQ(db.count(tree), 1u);
    EXPECT_EQ(must_get(db, tree, "key1"), "(absent)");
    EXPECT_EQ(must_get(db, tree, "only"), "this");
    for (int i = 0; i < 1000 && db.stats().used_pages > used_before + 8; ++i) {
      runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
    }
    EXPECT_LE(db.stats().used_pages, used_before + 8);
  });
}

TEST_F(Engine, TreesAreNamedCreatedOnceAndDropped) {
  run(2, [](runtime::Runtime& rt, Database& db) {
    std::atomic<int> created{0};
    in_parallel(rt, 2, [&](std::uint32_t) {
      ASSERT_OK(db.tree("same", true));
      ++created;
    });
    EXPECT_EQ(created, 4);
    EXPECT_EQ(db.tree_names()->size(), 1u);
    EXPECT_TRUE(db.tree("other", false).failed_with(Code::kNotFound));
    const Tree tree = *db.tree("same", false);
    ASSERT_OK(db.put(tree, "a", "1"));
    ASSERT_OK(db.drop_tree("same"));
    std::string value;
    EXPECT_TRUE(db.get(tree, "a", value).failed_with(Code::kNotFound));
    EXPECT_TRUE(db.put(tree, "a", "2").failed_with(Code::kNotFound));
    EXPECT_TRUE(db.tree_names()->empty());
    EXPECT_EQ(must_get(db, *db.tree("same", true), "a"), "(absent)");
  });
}

TEST(EngineEmbedded, APlainThreadMayCallEverything) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  const Tree tree = *opened->db->tree("t", true);
  for (int i = 0; i < 200; ++i) ASSERT_OK(opened->db->put(tree, "k" + std::to_string(i), "v"));
  std::string value;
  EXPECT_TRUE(*opened->db->get(tree, "k7", value));
  EXPECT_OK(opened->db->close());
}

TEST(Locks, UpgradeWaitsForTheOtherReader) {
  on_cores(1, [](runtime::Runtime&) {
    LockTable locks(4);
    ASSERT_TRUE(locks.try_lock(3, LockMode::kShared));
    ASSERT_TRUE(locks.try_lock(3, LockMode::kShared));
    EXPECT_FALSE(locks.upgrade_until(3, runtime::now_ns() + 1'000'000));
    locks.unlock(3, LockMode::kShared);
    EXPECT_TRUE(locks.upgrade_until(3, runtime::now_ns() + 1'000'000));
    EXPECT_FALSE(locks.readable(3));
    EXPECT_FALSE(locks.try_lock(3, LockMode::kShared));
    locks.unlock(3, LockMode::kExclusive);
    EXPECT_TRUE(locks.readable(3));
    EXPECT_TRUE(locks.try_lock(3, LockMode::kExclusive));
  });
}

}  // namespace
}  // namespace kelda::engine
