// The lock table and the tree lock under simulated cores: nothing is granted twice, no wake-up is lost, nobody starves
// and no two wait for each other, whatever the interleaving.
#include <map>

#include "common/prng.h"
#include "engine/lock_table.h"
#include "engine/tree_lock.h"
#include "engine_support.h"
#include "runtime/core_sim.h"

namespace kelda::engine {
namespace {

using runtime::Core;
using runtime::now_ns;

constexpr runtime::TimeNs kMs = 1'000'000;

// Runs the body on three simulated cores. Two that wait for each other for ever fail the test, by their fibers' names.
void simulate(std::uint64_t seed, const std::function<void(runtime::Runtime&)>& body) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  auto ran = runtime::run_simulated({.seed = seed, .core_count = 3, .stray_unparks = true, .max_steps = 3'000'000},
                                    [&](runtime::Runtime& rt) {
                                      body(rt);
                                      return 0;
                                    });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
}

void nap(std::uint64_t ns) {
  Core::current().sleep_until(now_ns() + ns);
}

// What the table granted, kept beside it.
struct Granted {
  std::uint32_t readers = 0, writers = 0;
};

class LockUser {
 public:
  LockUser(LockTable& table, std::map<std::uint32_t, Granted>& granted, std::uint64_t seed)
      : table_(table), granted_(granted), random_(seed) {}

  void run(int rounds) {
    // Two of the buckets share a shard.
    constexpr std::uint32_t kBuckets[] = {3, 259, 4};
    for (int i = 0; i < rounds; ++i) {
      const std::uint32_t bucket = kBuckets[random_.below(3)];
      const LockMode mode = random_.one_in(2) ? LockMode::kShared : LockMode::kExclusive;
      const auto turn = static_cast<Turn>(random_.below(3));
      // Holding nothing, it may wait without end.
      const runtime::TimeNs deadline_ns = random_.one_in(2) ? runtime::kNever : now_ns() + random_.below(20'000);
      if (!table_.lock_until(bucket, mode, deadline_ns, turn)) {
        EXPECT_NE(deadline_ns, runtime::kNever);
        continue;
      }
      hold(bucket, mode);
    }
  }

 private:
  void hold(std::uint32_t bucket, LockMode mode) {
    Granted& granted = granted_[bucket];
    (mode == LockMode::kShared ? granted.readers : granted.writers) += 1;
    check(granted);
    random_.one_in(2) ? Core::current().yield() : nap(random_.below(10'000));
    check(granted);
    if (mode == LockMode::kShared && random_.one_in(3) &&
        table_.upgrade_until(bucket, now_ns() + random_.below(20'000))) {
      --granted.readers;
      ++granted.writers;
      mode = LockMode::kExclusive;
      check(granted);
      Core::current().yield();
      check(granted);
    }
    EXPECT_EQ(table_.readable(bucket), mode == LockMode::kShared);
    (mode == LockMode::kShared ? granted.readers : granted.writers) -= 1;
    table_.unlock(bucket, mode);
  }
  static void check(const Granted& granted) {
    EXPECT_LE(granted.writers, 1u) << "granted twice";
    EXPECT_TRUE(granted.writers == 0 || granted.readers == 0) << "granted to readers and a writer";
  }

  LockTable& table_;
  std::map<std::uint32_t, Granted>& granted_;
  Prng random_;
};

TEST(LocksSimulated, NothingIsGrantedTwiceAndNoWakeUpIsLost) {
  for (std::uint64_t seed = 1; seed <= 300 && !::testing::Test::HasFailure(); ++seed) {
    simulate(seed, [&](runtime::Runtime& rt) {
      LockTable table(9);
      std::map<std::uint32_t, Granted> granted;
      in_parallel(rt, 3, [&](std::uint32_t worker) { LockUser(table, granted, seed * 100 + worker).run(30); });
      for (const auto& [bucket, ignored] : granted)
        EXPECT_TRUE(table.try_lock(bucket, LockMode::kExclusive)) << "left locked";
    });
  }
}

// Readers take turns so that there is always one. Calls `act` after a while; it must come through all the same.
void among_readers(std::uint64_t seed, const std::function<void(LockTable&)>& act) {
  simulate(seed, [&](runtime::Runtime& rt) {
    LockTable table(4);
    bool done = false;
    std::uint64_t reads = 0;
    in_parallel(rt, 3, [&](std::uint32_t worker) {
      if (worker == 0) {
        nap(200'000);
        act(table);
        done = true;
        return;
      }
      while (!done && reads < 20'000) {
        ASSERT_TRUE(table.lock_until(1, LockMode::kShared, runtime::kNever));
        ++reads;
        nap(50'000);
        table.unlock(1, LockMode::kShared);
      }
    });
    EXPECT_LT(reads, 20'000u) << "starved";
  });
}

TEST(LocksSimulated, ReadersDoNotStarveAWriter) {
  for (const Turn turn : {Turn::kWoken, Turn::kHandedOver, Turn::kFirst}) {
    for (std::uint64_t seed = 1; seed <= 10 && !::testing::Test::HasFailure(); ++seed) {
      among_readers(seed, [&](LockTable& table) {
        const auto start = now_ns();
        ASSERT_TRUE(table.lock_until(1, LockMode::kExclusive, runtime::kNever, turn));
        EXPECT_LT(now_ns() - start, 5 * kMs);
        table.unlock(1, LockMode::kExclusive);
      });
    }
  }
}

TEST(LocksSimulated, NewReadersDoNotKeepAReaderFromUpgrading) {
  for (std::uint64_t seed = 1; seed <= 10 && !::testing::Test::HasFailure(); ++seed) {
    among_readers(seed, [&](LockTable& table) {
      ASSERT_TRUE(table.lock_until(1, LockMode::kShared, runtime::kNever));
      ASSERT_TRUE(table.upgrade_until(1, now_ns() + 20 * kMs, Turn::kFirst));
      table.unlock(1, LockMode::kExclusive);
    });
  }
}

TEST(LocksSimulated, WritersDoNotStarveAReader) {
  for (std::uint64_t seed = 1; seed <= 10 && !::testing::Test::HasFailure(); ++seed) {
    simulate(seed, [&](runtime::Runtime& rt) {
      LockTable table(4);
      bool done = false;
      std::uint64_t writes = 0;
      in_parallel(rt, 3, [&](std::uint32_t worker) {
        if (worker == 0) {
          nap(200'000);
          ASSERT_TRUE(table.lock_until(1, LockMode::kShared, runtime::kNever));
          table.unlock(1, LockMode::kShared);
          done = true;
          return;
        }
        while (!done && writes < 20'000) {
          ASSERT_TRUE(table.lock_until(1, LockMode::kExclusive, runtime::kNever));
          ++writes;
          nap(10'000);
          table.unlock(1, LockMode::kExclusive);
        }
      });
      EXPECT_LT(writes, 20'000u) << "starved";
    });
  }
}

// A writer that cannot come in yet holds readers back; when it gives up they need not wait for anybody.
TEST(LocksSimulated, AWriterThatGivesUpLetsThoseBehindItGo) {
  simulate(1, [](runtime::Runtime& rt) {
    LockTable table(4);
    ASSERT_TRUE(table.try_lock(1, LockMode::kShared));
    runtime::Completion both;
    both.add(2);
    ASSERT_OK(rt.core(1).spawn_remote([&] {
      EXPECT_FALSE(table.lock_until(1, LockMode::kExclusive, now_ns() + kMs));
      both.done();
    }));
    ASSERT_OK(rt.core(2).spawn_remote([&] {
      nap(kMs / 2);
      EXPECT_TRUE(table.lock_until(1, LockMode::kShared, now_ns() + 10 * kMs));
      both.done();
    }));
    both.wait();
  });
}

// Of those who wait, one that already reads comes before one that only wants to write: that one cannot come in before
// it.
TEST(LocksSimulated, AnUpgradeDoesNotWaitBehindAWriter) {
  simulate(1, [](runtime::Runtime& rt) {
    LockTable table(4);
    ASSERT_TRUE(table.try_lock(1, LockMode::kShared));  // of the one that upgrades
    ASSERT_TRUE(table.try_lock(1, LockMode::kShared));  // of another
    runtime::Completion both;
    both.add(2);
    ASSERT_OK(rt.core(1).spawn_remote([&] {
      EXPECT_TRUE(table.lock_until(1, LockMode::kExclusive, runtime::kNever, Turn::kHandedOver));
      table.unlock(1, LockMode::kExclusive);
      both.done();
    }));
    ASSERT_OK(rt.core(2).spawn_remote([&] {
      nap(kMs);
      const bool upgraded = table.upgrade_until(1, now_ns() + 10 * kMs);
      EXPECT_TRUE(upgraded);
      table.unlock(1, upgraded ? LockMode::kExclusive : LockMode::kShared);
      both.done();
    }));
    nap(2 * kMs);
    table.unlock(1, LockMode::kShared);
    both.wait();
  });
}

// ---- trees ----

void with_database(std::uint64_t seed, const std::function<void(runtime::Runtime&, Database&, Tree)>& body) {
  simulate(seed, [&](runtime::Runtime& rt) {
    auto opened = open_on(blank_disk());
    ASSERT_OK(opened);
    const Tree tree = *opened->db->tree("t", true);
    body(rt, *opened->db, tree);
    EXPECT_OK(opened->db->close());
  });
}

// Everybody scans first and then writes: no two of them can both have their way.
TEST(TreeLocksSimulated, ScansThatThenWriteEndInConflictNotInDeadlock) {
  for (std::uint64_t seed = 1; seed <= 30 && !::testing::Test::HasFailure(); ++seed) {
    with_database(seed, [&](runtime::Runtime& rt, Database& db, Tree tree) {
      int committed = 0, conflicts = 0;
      in_parallel(rt, 1, [&](std::uint32_t worker) {
        for (int round = 0; round < 5 && conflicts < 1000;) {
          auto txn = db.begin();
          auto scan = txn->scan(tree);
          Result<bool> put = false;
          if (scan) {
            Core::current().yield();
            put = txn->put(tree, "k" + std::to_string(worker), "v");
          }
          if (scan.failed_with(Code::kConflict) || put.failed_with(Code::kConflict)) {
            ++conflicts;
            continue;
          }
          ASSERT_OK(put);
          ASSERT_OK(txn->commit());
          ++round;
          ++committed;
        }
      });
      EXPECT_EQ(committed, 15) << conflicts << " conflicts";
    });
  }
}

TEST(TreeLocksSimulated, ScansDoNotStarveAWriter) {
  for (std::uint64_t seed = 1; seed <= 5 && !::testing::Test::HasFailure(); ++seed) {
    with_database(seed, [&](runtime::Runtime& rt, Database& db, Tree tree) {
      bool done = false;
      std::uint64_t scans = 0;
      in_parallel(rt, 3, [&](std::uint32_t worker) {
        if (worker == 0) {
          nap(200'000);
          ASSERT_OK(db.put(tree, "k", "v"));
          done = true;
          return;
        }
        while (!done && scans < 5'000) {
          auto txn = db.begin();
          ASSERT_OK(txn->scan(tree));
          ++scans;
          nap(50'000);
          ASSERT_OK(txn->commit());
        }
      });
      EXPECT_LT(scans, 5'000u) << "starved";
    });
  }
}

TEST(TreeLocksSimulated, WritersDoNotStarveAScan) {
  for (std::uint64_t seed = 1; seed <= 5 && !::testing::Test::HasFailure(); ++seed) {
    with_database(seed, [&](runtime::Runtime& rt, Database& db, Tree tree) {
      bool done = false;
      std::uint64_t writes = 0;
      in_parallel(rt, 2, [&](std::uint32_t worker) {
        if (worker == 0) {
          nap(200'000);
          auto txn = db.begin();
          ASSERT_OK(txn->scan(tree));
          ASSERT_OK(txn->commit());
          done = true;
          return;
        }
        while (!done && writes < 5'000) {
          ASSERT_OK(db.put(tree, "k" + std::to_string(worker), "v"));
          ++writes;
        }
      });
      EXPECT_LT(writes, 5'000u) << "starved";
    });
  }
}

}  // namespace
}  // namespace kelda::engine
