// Several cores and attached plain threads: wake-ups are never lost, messages arrive, threads come and go.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/core.h"
#include "runtime/sync.h"
#include "tests/runtime_testing.h"

namespace kelda::runtime {
namespace {

class CrossCore : public testing::Test {
 protected:
  void SetUp() override {
    if (at_most_threads(2) < 2) GTEST_SKIP() << "this machine has one CPU";
  }
};

TEST_F(CrossCore, PingPongLosesNoWakeUp) {
  run(2, [](Runtime& runtime) {
    std::atomic<Fiber*> peer{nullptr};
    std::atomic<int> turn{0};
    constexpr int kRounds = 5000;
    Completion done;
    done.add();
    Fiber& self = Core::current().current_fiber();
    EXPECT_TRUE(runtime.core(1).spawn_remote([&] {
      peer = &Core::current().current_fiber();
      Core::unpark(self);
      for (int i = 0; i < kRounds; ++i) {
        while (turn.load() != 2 * i + 1) Core::current().park();
        turn = 2 * i + 2;
        Core::unpark(self);
      }
      done.done();
    }));
    while (peer.load() == nullptr) Core::current().park();
    for (int i = 0; i < kRounds; ++i) {
      turn = 2 * i + 1;
      Core::unpark(*peer.load());
      while (turn.load() != 2 * i + 2) Core::current().park();
    }
    done.wait();
    return 0;
  });
}

TEST_F(CrossCore, TimeoutsAndWakesRace) {
  run(2, [](Runtime& runtime) {
    Event stop;
    Mutex mutex;
    std::atomic<Fiber*> sleeper{nullptr};
    std::atomic<bool> ended{false};
    Completion done;
    done.add();
    EXPECT_TRUE(runtime.core(1).spawn_remote([&] {
      sleeper = &Core::current().current_fiber();
      int woken = 0, late = 0;
      while (woken + late < 2000) (Core::current().park_until(now_ns() + 20'000) ? woken : late)++;
      ended = true;
      done.done();
    }));
    while (!ended) {
      if (Fiber* fiber = sleeper.load()) Core::unpark(*fiber);
      Core::current().sleep_until(now_ns() + 15'000);
    }
    done.wait();
    return 0;
  });
}

TEST_F(CrossCore, SpawnRemoteRunsOnThatCore) {
  run(3, [](Runtime& runtime) {
    Completion all;
    std::atomic<int> right{0};
    for (std::uint32_t i = 0; i < runtime.core_count(); ++i) {
      for (int n = 0; n < 50; ++n) {
        all.add();
        EXPECT_TRUE(runtime.core(i).spawn_remote([&, i] {
          right += &Core::current() == &runtime.core(i);
          all.done();
        }));
      }
    }
    all.wait();
    EXPECT_EQ(right.load(), 50 * static_cast<int>(runtime.core_count()));
    return 0;
  });
}

TEST_F(CrossCore, MutexExcludesAndEverybodyProgresses) {
  run(3, [](Runtime& runtime) {
    Mutex mutex;
    int counter = 0;
    Completion all;
    for (std::uint32_t i = 0; i < 12; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % runtime.core_count()).spawn_remote([&] {
        for (int n = 0; n < 500; ++n) {
          mutex.lock();
          const int seen = counter;
          if (n % 16 == 0) Core::current().yield();
          counter = seen + 1;
          mutex.unlock();
        }
        all.done();
      }));
    }
    all.wait();
    EXPECT_EQ(counter, 12 * 500);
    return 0;
  });
}

TEST_F(CrossCore, SharedMutexAdmitsReadersTogetherAndWritersAlone) {
  run(2, [](Runtime& runtime) {
    SharedMutex mutex;
    std::atomic<int> readers{0}, writers{0}, most_readers{0};
    Completion all;
    for (std::uint32_t i = 0; i < 12; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % runtime.core_count()).spawn_remote([&, i] {
        for (int n = 0; n < 200; ++n) {
          if (i % 4 == 0) {
            mutex.lock();
            EXPECT_EQ(++writers, 1);
            EXPECT_EQ(readers.load(), 0);
            Core::current().yield();
            --writers;
            mutex.unlock();
          } else {
            mutex.lock_shared();
            const int now = ++readers;
            if (now > most_readers) most_readers = now;
            EXPECT_EQ(writers.load(), 0);
            Core::current().yield();
            --readers;
            mutex.unlock_shared();
          }
        }
        all.done();
      }));
    }
    all.wait();
    EXPECT_GT(most_readers.load(), 1);
    return 0;
  });
}

TEST_F(CrossCore, PlainThreadsWaitAndWake) {
  Event go;
  Mutex mutex;
  int counter = 0;
  std::vector<std::thread> threads;
  const std::uint32_t count = at_most_threads(5) - 1;
  for (std::uint32_t i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      go.wait();
      for (int n = 0; n < 300; ++n) {
        mutex.lock();
        ++counter;
        mutex.unlock();
      }
    });
  }
  go.set();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter, static_cast<int>(count) * 300);
}

TEST_F(CrossCore, IndicesOfEndedThreadsAreReused) {
  std::uint32_t highest = 0;
  for (int i = 0; i < 300; ++i) {
    std::thread([&] { highest = std::max(highest, Core::current().index()); }).join();
  }
  EXPECT_LT(highest, 8u);
}

TEST_F(CrossCore, APlainThreadsOwnFibersRunWhileItWaits) {
  int ran = 0;
  std::thread([&] {
    Completion done;
    done.add();
    EXPECT_TRUE(Core::current().spawn([&] {
      ++ran;
      done.done();
    }));
    EXPECT_EQ(ran, 0);
    done.wait();
    EXPECT_EQ(ran, 1);
  }).join();
}

TEST_F(CrossCore, CompletionCountsOverCores) {
  run(2, [](Runtime& runtime) {
    for (int round = 0; round < 300; ++round) {
      auto completion = std::make_unique<Completion>();
      completion->add(8);
      for (std::uint32_t i = 0; i < 8; ++i) {
        EXPECT_TRUE(runtime.core(i % runtime.core_count()).spawn_remote([c = completion.get()] { c->done(); }));
      }
      completion->wait();
    }
    return 0;
  });
}

TEST_F(CrossCore, RefusesZeroAndTooManyCores) {
  EXPECT_TRUE(Runtime::run({.core_count = 0}, [](Runtime&) { return 0; }).failed_with(Code::kInvalidArgument));
  EXPECT_TRUE(Runtime::run({.core_count = Core::kMaxCores + 1}, [](Runtime&) { return 0; }).failed_with(Code::kInvalidArgument));
}

}  // namespace
}  // namespace kelda::runtime
