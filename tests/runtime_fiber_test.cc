// Fibers of one core: order, parking, timers, sleeping, exceptions, many at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "runtime/core.h"
#include "runtime/platform_bare.h"
#include "runtime/sync.h"
#include "tests/runtime_testing.h"

namespace kelda::runtime {
namespace {

TEST(Fiber, MainReturnsItsValue) {
  EXPECT_EQ(run(1, [](Runtime&) { return 42; }), 42);
}

TEST(Fiber, YieldAlternates) {
  std::vector<int> order;
  run(1, [&](Runtime& runtime) {
    Completion both;
    both.add(2);
    for (int id : {1, 2}) {
      EXPECT_TRUE(runtime.core(0).spawn([&, id] {
        for (int i = 0; i < 3; ++i) {
          order.push_back(id);
          Core::current().yield();
        }
        both.done();
      }));
    }
    both.wait();
    return 0;
  });
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2, 1, 2}));
}

// However many always have work, somebody who waits is behind one of them only; and they take turns.
TEST(Fiber, OfThoseThatGiveWayOneRunsAtATime) {
  constexpr int kBusy = 5, kRounds = 50;
  run(1, [&](Runtime& runtime) {
    bool stop = false;
    std::vector<int> slices(kBusy);
    int all_slices = 0;
    Completion ended;
    for (int& mine : slices) {
      ended.add();
      EXPECT_TRUE(runtime.core(0).spawn([&] {
        while (!stop) {
          ++mine;
          ++all_slices;
          Core::current().give_way();
        }
        ended.done();
      }));
    }
    Core::current().yield();  // they are under way
    for (int round = 0; round < kRounds; ++round) {
      const int before = all_slices;
      Core::current().yield();
      EXPECT_LE(all_slices - before, 1);
    }
    EXPECT_GT(all_slices, kRounds / 2);
    const auto [least, most] = std::ranges::minmax(slices);
    EXPECT_LE(most - least, 1);
    stop = true;
    ended.wait();
    return 0;
  });
}

TEST(Fiber, TimersAndMessagesComeThroughToWhoeverGivesWay) {
  run(2, [](Runtime& runtime) {
    std::atomic<bool> told{false};
    bool woken = false;
    Core& here = Core::current();
    EXPECT_TRUE(here.spawn([&] {
      Core::current().sleep_until(now_ns() + 2'000'000);
      woken = true;
    }));
    EXPECT_TRUE(runtime.core(runtime.core_count() - 1).spawn_remote([&] {
      EXPECT_TRUE(here.spawn_remote([&] { told = true; }));
    }));
    while (!woken || !told) Core::current().give_way();
    return 0;
  });
}

TEST(Fiber, UnparkBeforeParkIsNotLost) {
  run(1, [](Runtime&) {
    Core& core = Core::current();
    Core::unpark(core.current_fiber());
    core.park();
    return 0;
  });
}

TEST(Fiber, ParkUntilTimesOut) {
  run(1, [](Runtime&) {
    Core& core = Core::current();
    const TimeNs start = now_ns();
    EXPECT_FALSE(core.park_until(start + 3'000'000));
    EXPECT_GE(now_ns() - start, 3'000'000u);
    Core::unpark(core.current_fiber());
    EXPECT_TRUE(core.park_until(now_ns() + 1'000'000'000));
    return 0;
  });
}

TEST(Fiber, SleepKeepsAPermit) {
  run(1, [](Runtime&) {
    Core& core = Core::current();
    Core::unpark(core.current_fiber());
    core.sleep_until(now_ns() + 1'000'000);
    core.park();  // would hang if sleep had eaten the permit
    return 0;
  });
}

TEST(Fiber, TimersFireInOrder) {
  std::vector<int> order;
  run(1, [&](Runtime& runtime) {
    Completion all;
    const TimeNs start = now_ns();
    for (int i : {5, 1, 4, 2, 3, 0}) {
      all.add();
      EXPECT_TRUE(runtime.core(0).spawn([&, i] {
        Core::current().sleep_until(start + 20'000'000 + static_cast<TimeNs>(i) * 500'000);
        order.push_back(i);
        all.done();
      }));
    }
    all.wait();
    return 0;
  });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(Fiber, ThousandFibersParkAndWake) {
  int woken = 0;
  run(1, [&](Runtime& runtime) {
    std::vector<Fiber*> fibers;
    Completion all;
    for (int i = 0; i < 1000; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(0).spawn([&] {
        fibers.push_back(&Core::current().current_fiber());
        Core::current().park();
        ++woken;
        all.done();
      }));
    }
    while (fibers.size() < 1000) Core::current().yield();
    EXPECT_EQ(runtime.core(0).stats().fibers_alive, 1001u);
    for (Fiber* fiber : fibers) Core::unpark(*fiber);
    all.wait();
    return 0;
  });
  EXPECT_EQ(woken, 1000);
}

TEST(Fiber, ExceptionsBelongToTheirFiber) {
  std::vector<int> caught;
  run(1, [&](Runtime& runtime) {
    Completion both;
    both.add(2);
    for (int id : {1, 2}) {
      EXPECT_TRUE(runtime.core(0).spawn([&, id] {
        try {
          throw id;
        } catch (int) {
          Core::current().yield();  // the other one throws meanwhile
          try {
            throw;
          } catch (int again) {
            caught.push_back(again);
          }
        }
        both.done();
      }));
    }
    both.wait();
    return 0;
  });
  EXPECT_EQ(caught, (std::vector<int>{1, 2}));
}

TEST(Fiber, ParkedFibersAreDroppedAtTheEnd) {
  auto owned = std::make_shared<int>(1);
  run(1, [&](Runtime& runtime) {
    EXPECT_TRUE(runtime.core(0).spawn([owned] { Core::current().park(); }));
    Core::current().yield();
    return 0;
  });
  EXPECT_EQ(owned.use_count(), 1);
}

struct CountingPoller : Poller {
  std::size_t polls = 0, prepared = 0, woke = 0;
  std::size_t poll() override { return ++polls, 0; }
  bool prepare_sleep() override { return ++prepared, true; }
  void after_sleep() override { ++woke; }
};

TEST(Fiber, PollersRunEachTurnAndAreToldOfSleep) {
  CountingPoller poller;
  run(1, [&](Runtime& runtime) {
    runtime.core(0).add_poller(poller);
    for (int i = 0; i < 10; ++i) Core::current().yield();
    EXPECT_GE(poller.polls, 10u);
    Core::current().sleep_until(now_ns() + 2'000'000);
    EXPECT_GE(poller.prepared, 1u);
    EXPECT_EQ(poller.prepared, poller.woke);
    runtime.core(0).remove_poller(poller);
    return 0;
  });
}

TEST(FiberDeathTest, StackOverflowHitsTheGuard) {
  if (is_bare()) GTEST_SKIP() << "death tests need fork; the panic of an overflow is shown by the kernel's tests";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  struct Deep {
    static int dig(int n) {
      volatile char room[1024];
      room[0] = static_cast<char>(n);
      return n == 0 ? 0 : dig(n - 1) + room[0];
    }
  };
  EXPECT_DEATH(run(1, [](Runtime& runtime) {
    Completion done;
    done.add();
    EXPECT_TRUE(runtime.core(0).spawn([&] {
      Deep::dig(1000);
      done.done();
    }, {.stack_bytes = 16 * 1024}));
    done.wait();
    return 0;
  }), "");
}

}  // namespace
}  // namespace kelda::runtime
