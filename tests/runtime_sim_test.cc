// The simulated runtime: one seed is one history, time is virtual, a deadlock is named, and waiting survives late wakes.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "blockdev/memory_sim.h"
#include "runtime/core_sim.h"
#include "runtime/sync.h"

namespace kelda::runtime {
namespace {

// Fibers of all cores write down who ran; timers and a mutex take part.
std::string history(std::uint64_t seed, SimReport* report = nullptr) {
  std::string order;
  Result<int> ran = run_simulated({.seed = seed, .core_count = 3}, [&](Runtime& runtime) {
    Mutex mutex;
    Completion all;
    for (int i = 0; i < 6; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(static_cast<std::uint32_t>(i) % 3).spawn_remote([&, i] {
        for (int n = 0; n < 4; ++n) {
          mutex.lock();
          order += static_cast<char>('a' + i);
          Core::current().yield();
          mutex.unlock();
          Core::current().sleep_until(now_ns() + random_u64() % 10'000);
        }
        all.done();
      }));
    }
    all.wait();
    return 0;
  }, report);
  EXPECT_TRUE(ran);
  return order;
}

TEST(Simulation, TheSameSeedIsTheSameHistory) {
  SimReport first, second;
  EXPECT_EQ(history(5, &first), history(5, &second));
  EXPECT_EQ(first.trace_hash, second.trace_hash);
  EXPECT_EQ(first.steps, second.steps);
  EXPECT_EQ(first.virtual_ns, second.virtual_ns);
}

TEST(Simulation, SeedsExploreDifferentHistories) {
  std::set<std::string> different;
  for (std::uint64_t seed = 0; seed < 20; ++seed) different.insert(history(seed));
  EXPECT_EQ(different.size(), 20u);
}

TEST(Simulation, TimeIsVirtual) {
  SimReport report;
  Result<int> ran = run_simulated({}, [](Runtime&) {
    const TimeNs start = now_ns();
    const std::int64_t wall = wall_clock_us();
    Core::current().sleep_until(start + 3600'000'000'000);  // an hour
    EXPECT_GE(now_ns() - start, 3600'000'000'000u);
    EXPECT_GE(wall_clock_us() - wall, 3600'000'000);
    return 7;
  }, &report);
  EXPECT_EQ(ran.value_or(0), 7);
  EXPECT_LT(report.steps, 10u);
}

TEST(Simulation, ADeadlockNamesWhoWaits) {
  Result<int> ran = run_simulated({}, [](Runtime& runtime) {
    Mutex mutex;
    mutex.lock();
    EXPECT_TRUE(runtime.core(1).spawn_remote([&] { mutex.lock(); }, {.name = "second-locker"}));
    Core::current().park();
    return 0;
  });
  ASSERT_TRUE(ran.failed_with(Code::kTimeout));
  EXPECT_NE(ran.error().message().find("core 1: second-locker"), std::string::npos) << ran.error().message();
  EXPECT_NE(ran.error().message().find("core 0: main"), std::string::npos);
}

TEST(Simulation, WaitingSurvivesStrayUnparks) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Result<int> ran = run_simulated({.seed = seed, .core_count = 3, .stray_unparks = true}, [](Runtime& runtime) {
      Mutex mutex;
      SharedMutex shared;
      Event event;
      int inside = 0, writers = 0, timeouts = 0;
      Completion all;
      for (std::uint32_t i = 0; i < 9; ++i) {
        all.add();
        EXPECT_TRUE(runtime.core(i % 3).spawn_remote([&, i] {
          for (int n = 0; n < 5; ++n) {
            mutex.lock();
            EXPECT_EQ(++inside, 1);
            Core::current().yield();
            --inside;
            mutex.unlock();
            const bool writes = i % 3 == 0;
            writes ? shared.lock() : shared.lock_shared();
            writers += writes;
            EXPECT_EQ(writers, writes);
            Core::current().yield();
            EXPECT_EQ(writers, writes);
            writers -= writes;
            writes ? shared.unlock() : shared.unlock_shared();
            if (i == 8) event.set();
            if (!event.wait_until(now_ns() + 5'000)) ++timeouts;
            if (i == 8 && n < 4) event.reset();
          }
          all.done();
        }));
      }
      all.wait();
      return 0;
    });
    ASSERT_TRUE(ran) << "seed " << seed << ": " << ran.error().to_string();
  }
}

TEST(Simulation, DiskDelaysAreVirtualToo) {
  SimReport report;
  Result<int> ran = run_simulated({}, [](Runtime&) {
    blockdev::MemoryDevice disk({}, {.delay_min_ns = 1'000'000'000, .delay_max_ns = 2'000'000'000});
    alignas(4096) std::byte page[4096] = {};
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(disk.write(0, page));
    return 0;
  }, &report);
  ASSERT_TRUE(ran);
  EXPECT_GE(report.virtual_ns, 10'000'000'000u);
}

TEST(Simulation, EndsWithAnswerWhenFibersAreStillParked) {
  auto owned = std::make_shared<int>(1);
  Result<int> ran = run_simulated({}, [&](Runtime& runtime) {
    EXPECT_TRUE(runtime.core(1).spawn_remote([owned] { Core::current().park(); }));
    Core::current().sleep_until(now_ns() + 100'000);
    return 0;
  });
  EXPECT_TRUE(ran);
  EXPECT_EQ(owned.use_count(), 1);
}

}  // namespace
}  // namespace kelda::runtime
