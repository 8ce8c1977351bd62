// Waiting: order of wake-ups, fairness, time-outs, and the heap of timers; in the simulation, so that every run is one
// of many histories and none depends on how fast the machine is.
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <vector>

#include "common/prng.h"
#include "runtime/core_sim.h"
#include "runtime/sync.h"
#include "runtime/timer_heap.h"
#include "tests/runtime_testing.h"

namespace kelda::runtime {
namespace {

// Runs the body under many seeds.
void explore(std::uint32_t cores, const std::function<void(Runtime&)>& body) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Result<int> ran = run_simulated({.seed = seed, .core_count = cores, .max_steps = 1'000'000}, [&](Runtime& runtime) {
      body(runtime);
      return 0;
    });
    ASSERT_TRUE(ran) << "seed " << seed << ": " << ran.error().to_string();
  }
}

void start(Runtime& runtime, std::uint32_t core, Completion& all, Task task) {
  all.add();
  EXPECT_TRUE(runtime.core(core).spawn_remote([&all, t = std::move(task)]() mutable {
    t();
    all.done();
  }));
}

TEST(TimerHeap, AgreesWithASortedList) {
  Prng prng(7);
  TimerHeap heap;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> inside;
  for (int i = 0; i < 200; ++i) fibers.push_back(std::make_unique<Fiber>());
  for (int step = 0; step < 20'000; ++step) {
    Fiber& fiber = *fibers[prng.below(fibers.size())];
    if (fiber.timer_slot == Fiber::kNoTimer) {
      fiber.deadline_ns = prng.below(1000);
      heap.insert(fiber);
      inside.push_back(&fiber);
    } else if (prng.one_in(2)) {
      heap.remove(fiber);
      std::erase(inside, &fiber);
    } else {
      const TimeNs now = prng.below(1000);
      const auto first = std::ranges::min_element(inside, {}, &Fiber::deadline_ns);
      Fiber* expired = heap.pop_expired(now);
      ASSERT_EQ(expired != nullptr, (*first)->deadline_ns <= now);
      if (expired == nullptr) continue;
      ASSERT_EQ(expired->deadline_ns, (*first)->deadline_ns);
      ASSERT_EQ(expired->timer_slot, Fiber::kNoTimer);
      std::erase(inside, expired);
    }
    const auto first = std::ranges::min_element(inside, {}, &Fiber::deadline_ns);
    ASSERT_EQ(heap.earliest_ns(), inside.empty() ? kNever : (*first)->deadline_ns);
  }
}

TEST(Sync, WaitQueueWakesInOrderAndForgetsThoseThatTimedOut) {
  explore(2, [](Runtime& runtime) {
    SpinLatch latch;
    WaitQueue queue;
    std::vector<int> woken;
    int waiting = 0;
    Completion all;
    for (int i = 0; i < 6; ++i) {
      const int before = waiting;
      start(runtime, static_cast<std::uint32_t>(i) % 2, all, [&, i] {
        std::scoped_lock guard(latch);
        ++waiting;
        const bool impatient = i % 2 == 1;
        const bool in_time = impatient ? queue.wait_until(latch, now_ns() + 1'000'000) : (queue.wait(latch), true);
        EXPECT_EQ(in_time, !impatient);
        if (in_time) woken.push_back(i);
      });
      while (waiting == before) Core::current().yield();
    }
    Core::current().sleep_until(now_ns() + 2'000'000);
    while (!queue.empty()) {
      const std::size_t before = woken.size();
      {
        std::scoped_lock guard(latch);
        queue.wake_one();
      }
      while (woken.size() == before) Core::current().yield();
    }
    all.wait();
    EXPECT_EQ(woken, (std::vector<int>{0, 2, 4}));
  });
}

TEST(Sync, AGreedyFiberDoesNotKeepTheMutexFromAWaiter) {
  explore(2, [](Runtime& runtime) {
    Mutex mutex;
    bool wants = false, has_had = false;
    int passed = 0;
    Completion all;
    start(runtime, 0, all, [&] {
      for (int n = 0; n < 1000 && !has_had; ++n) {
        mutex.lock();
        if (wants) ++passed;
        Core::current().yield();
        mutex.unlock();
      }
    });
    start(runtime, 1, all, [&] {
      Core::current().sleep_until(now_ns() + 20'000);
      wants = true;
      mutex.lock();
      has_had = true;
      mutex.unlock();
    });
    all.wait();
    // While the waiter's wake-up was on its way, and once more before the hand-over; not until the greedy one tires.
    EXPECT_LE(passed, 20);
  });
}

TEST(Sync, NeitherReadersNorWritersStarve) {
  explore(3, [](Runtime& runtime) {
    SharedMutex mutex;
    bool stop = false;
    int reads = 0, writes = 0;
    Completion all;
    for (std::uint32_t i = 0; i < 6; ++i) {
      start(runtime, i % 3, all, [&, i] {
        while (!stop) {
          const bool writer = i % 2 == 0;
          writer ? mutex.lock() : mutex.lock_shared();
          ++(writer ? writes : reads);
          Core::current().yield();
          writer ? mutex.unlock() : mutex.unlock_shared();
          // No pause: both kinds ask again at once.
        }
      });
    }
    Core::current().sleep_until(now_ns() + 1'000'000);
    stop = true;
    all.wait();
    EXPECT_GT(reads, 50);
    EXPECT_GT(writes, 50);
  });
}

TEST(Sync, TryLockNeverWaits) {
  explore(1, [](Runtime&) {
    Mutex mutex;
    EXPECT_TRUE(mutex.try_lock());
    EXPECT_FALSE(mutex.try_lock());
    mutex.unlock();
    SharedMutex shared;
    EXPECT_TRUE(shared.try_lock_shared());
    EXPECT_TRUE(shared.try_lock_shared());
    EXPECT_FALSE(shared.try_lock());
    shared.unlock_shared();
    shared.unlock_shared();
    EXPECT_TRUE(shared.try_lock());
    EXPECT_FALSE(shared.try_lock_shared());
    shared.unlock();
  });
}

TEST(Sync, EventsWakeAllAndTimeOut) {
  explore(3, [](Runtime& runtime) {
    Event event;
    int woken = 0;
    Completion all;
    EXPECT_FALSE(event.wait_until(now_ns() + 10'000));
    for (std::uint32_t i = 0; i < 6; ++i) {
      start(runtime, i % 3, all, [&] {
        event.wait();
        ++woken;
      });
    }
    Core::current().sleep_until(now_ns() + 50'000);
    EXPECT_EQ(woken, 0);
    event.set();
    all.wait();
    EXPECT_EQ(woken, 6);
    EXPECT_TRUE(event.wait_until(0));
    event.reset();
    EXPECT_FALSE(event.wait_until(0));
  });
}

TEST(Sync, ACompletionMayBeUsedAgainAndDestroyedAtOnce) {
  explore(3, [](Runtime& runtime) {
    for (int round = 0; round < 5; ++round) {
      auto completion = std::make_unique<Completion>();
      for (int use = 0; use < 2; ++use) {
        completion->add(6);
        for (std::uint32_t i = 0; i < 6; ++i) {
          EXPECT_TRUE(runtime.core(i % 3).spawn_remote([c = completion.get()] { c->done(); }));
        }
        completion->wait();
        EXPECT_FALSE(completion->pending());
      }
    }
  });
}

TEST(Sync, MessagesOfOneSenderArriveInOrder) {
  struct Numbered : Message {
    int number = 0;
    std::vector<int>* seen = nullptr;
  };
  explore(2, [](Runtime& runtime) {
    std::vector<int> seen;
    std::vector<Numbered> messages(20);
    for (int i = 0; i < 20; ++i) {
      Numbered& message = messages[static_cast<std::size_t>(i)];
      message.number = i;
      message.seen = &seen;
      message.run = [](Message& self, Core&) {
        auto& numbered = static_cast<Numbered&>(self);
        numbered.seen->push_back(numbered.number);
      };
      runtime.core(1).post(message);
      if (i % 3 == 0) Core::current().yield();
    }
    while (seen.size() < 20) Core::current().yield();
    EXPECT_TRUE(std::ranges::is_sorted(seen));
  });
}

}  // namespace
}  // namespace kelda::runtime
