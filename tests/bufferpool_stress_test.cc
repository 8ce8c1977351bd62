// Many cores, more pages than frames: contents never go stale, hosted and in a machine of several CPUs. On bare metal
// this is what would find a frame that was reused while another CPU still had its translation.
#include <thread>

#include "common/prng.h"
#include "runtime/backend.h"
#include "tests/pool_fixture.h"

namespace kelda::bufferpool {
namespace {

using testing::bump;
using testing::MemoryStore;
using testing::read_counter;

struct Plan {
  std::uint64_t frames = 256, pages = 1024;
  std::uint64_t rounds = 3000;
  unsigned fibers = 4;
  bool provider = false;
  bool checkpoints = false;
  runtime::TimeNs io_ns = 0;
};

// Every page's counter as its writers know it: a reader must see at least what was there when it began.
struct Shared {
  explicit Shared(const Plan& given) : plan(given), store(given.pages), counters(given.pages) {
    store.read_delay_ns = store.write_delay_ns = given.io_ns;
  }
  const Plan plan;
  MemoryStore store;
  std::unique_ptr<BufferPool> pool;
  std::vector<std::atomic<std::uint64_t>> counters;
  std::atomic<std::uint64_t> bumps{0};
  std::atomic<unsigned> at_work{0};
};

void one_round(Shared& shared, Prng& prng) {
  BufferPool& pool = *shared.pool;
  const PageId page(prng.below(shared.plan.pages));
  std::atomic<std::uint64_t>& counter = shared.counters[page.value];
  switch (prng.below(8)) {
    case 0:
    case 1: {
      Result<std::uint64_t> value = bump(pool, page, Lsn(1 + shared.bumps.fetch_add(1)));
      ASSERT_TRUE(value) << value.error().to_string();
      // Bumps of one page are serial, but their reports may overtake each other.
      std::uint64_t known = counter.load();
      while (known < *value && !counter.compare_exchange_weak(known, *value)) {
      }
      break;
    }
    case 2: {
      const std::uint64_t before = counter.load();
      Result<SharedGuard> guard = SharedGuard::take(pool, page);
      ASSERT_TRUE(guard);
      const testing::Sight sight = testing::look(page, guard->data());
      EXPECT_TRUE(sight.whole);
      EXPECT_GE(sight.counter, before);
      break;
    }
    case 3: {
      std::uint64_t version;
      if (!pool.optimistic_begin(page, version) || !pool.try_upgrade(page, version)) break;
      ExclusiveGuard guard = ExclusiveGuard::adopt(pool, page);
      EXPECT_TRUE(testing::look(page, guard.data()).whole);
      break;
    }
    case 4: {
      // Latches in ascending order, the second one perhaps a miss while the first is held.
      runtime::UncheckedLatches misses_with_a_latch_held;
      const PageId second(page.value + 1 + prng.below(shared.plan.pages - page.value));
      if (second.value >= shared.plan.pages) break;
      Result<ExclusiveGuard> first = ExclusiveGuard::take(pool, page);
      ASSERT_TRUE(first);
      Result<ExclusiveGuard> next = ExclusiveGuard::take(pool, second);
      ASSERT_TRUE(next);
      EXPECT_TRUE(testing::look(page, first->data()).whole);
      break;
    }
    case 5: {
      PageId wanted[4];
      for (PageId& one : wanted) one = PageId(prng.below(shared.plan.pages));
      pool.prefetch(wanted);
      break;
    }
    default: {
      const std::uint64_t before = counter.load();
      Result<std::uint64_t> value = read_counter(pool, page);
      ASSERT_TRUE(value);
      EXPECT_GE(*value, before) << "page " << page.value << " is stale";
    }
  }
}

void work(Shared& shared, std::uint64_t seed) {
  Prng prng(seed);
  for (std::uint64_t i = 0; i < shared.plan.rounds && !::testing::Test::HasFatalFailure(); ++i) {
    one_round(shared, prng);
    if (prng.one_in(16)) runtime::Core::current().yield();
  }
}

void verify(Shared& shared) {
  ASSERT_TRUE(shared.pool->write_back_all());
  shared.pool->check_invariants();
  for (std::uint64_t page = 0; page < shared.plan.pages; ++page) {
    EXPECT_EQ(shared.store.synced_counter(PageId(page)), shared.counters[page].load()) << page;
  }
  EXPECT_LE(shared.pool->stats().resident, shared.plan.frames);
  EXPECT_GT(shared.pool->stats().evictions, 0u);
}

void run_on_cores(const Plan& plan) {
  Shared shared(plan);
  const std::uint32_t cores = std::min(4u, std::max(2u, runtime::process_platform().cpu_count()));
  Result<int> ran = runtime::Runtime::run({.core_count = std::min(cores, runtime::process_platform().max_threads())},
                                          [&](runtime::Runtime& runtime) {
    shared.pool = *BufferPool::create({.frame_count = plan.frames, .page_count = plan.pages}, shared.store);
    runtime::Completion workers, services;
    if (plan.provider) {
      services.add();
      EXPECT_TRUE(runtime.core(0).spawn([&] { shared.pool->provide_frames(); services.done(); }));
    }
    for (std::uint32_t core = 0; core < runtime.core_count(); ++core) {
      for (unsigned fiber = 0; fiber < plan.fibers; ++fiber) {
        workers.add();
        shared.at_work.fetch_add(1);
        EXPECT_TRUE(runtime.core(core).spawn_remote([&, seed = 1 + core * 100 + fiber] {
          work(shared, seed);
          shared.at_work.fetch_sub(1);
          workers.done();
        }));
      }
    }
    while (plan.checkpoints && shared.at_work.load() > 0) EXPECT_TRUE(shared.pool->write_back_all(plan.pages * 20));
    workers.wait();
    shared.pool->stop();
    services.wait();
    verify(shared);
    shared.pool.reset();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolStress, CoresOverFewFrames) { run_on_cores({}); }
TEST(PoolStress, CoresWithAProvider) { run_on_cores({.provider = true}); }
TEST(PoolStress, CoresWithCheckpoints) { run_on_cores({.rounds = 2000, .checkpoints = true}); }
TEST(PoolStress, CoresWithSlowIo) {
  run_on_cores({.rounds = 400, .fibers = 16, .provider = true, .checkpoints = true, .io_ns = 50'000});
}

TEST(PoolStress, PlainThreads) {
  const std::uint32_t threads = std::min(3u, runtime::process_platform().max_threads() - 1);
  if (threads == 0) GTEST_SKIP() << "one CPU, one thread";
  Shared shared({.frames = 256, .pages = 1024, .rounds = 3000});
  shared.pool = *BufferPool::create({.frame_count = 256, .page_count = 1024}, shared.store);
  std::vector<std::thread> running;
  for (std::uint32_t i = 0; i < threads; ++i) running.emplace_back([&shared, i] { work(shared, 77 + i); });
  work(shared, 7);
  for (std::thread& thread : running) thread.join();
  verify(shared);
}

}  // namespace
}  // namespace kelda::bufferpool
