// Limbo, second chance and waiting, over a page map whose epochs pass when the test says so.
#include "runtime/core_sim.h"
#include "tests/pool_fixture.h"

namespace kelda::bufferpool {
namespace {

using testing::bump;
using testing::MemoryStore;
using testing::read_counter;

constexpr std::uint64_t kFrames = 256;
constexpr std::uint64_t kPages = 2048;

struct SimPool {
  explicit SimPool(bool reference_bits = false) : store(kPages) {
    auto made = SimulatedPageMap::create(kPages, reference_bits);
    EXPECT_TRUE(made);
    map = made->get();
    pool = *BufferPool::create({.frame_count = kFrames, .page_count = kPages}, store, std::move(*made));
  }
  // Touches new pages until something is in limbo.
  std::uint64_t fill_until_limbo() {
    std::uint64_t page = 0;
    while (pool->stats().limbo == 0) {
      EXPECT_TRUE(pool->make_resident(PageId(page)));
      ++page;
    }
    return page;
  }

  MemoryStore store;
  SimulatedPageMap* map;
  std::unique_ptr<BufferPool> pool;
};

TEST(PoolLimbo, AMissOnAPageInLimboTakesItsFrameBackWithoutIo) {
  SimPool sim;
  ASSERT_TRUE(bump(*sim.pool, PageId(0)));
  ASSERT_TRUE(sim.pool->write_back_all());
  sim.map->let_epochs_pass(false);
  const std::uint64_t touched = sim.fill_until_limbo();
  const PoolStats before = sim.pool->stats();
  const std::uint64_t reads = sim.store.reads;
  // Asking for every page once more brings all of limbo back, and reads nothing.
  for (std::uint64_t page = 0; page < touched; ++page) ASSERT_TRUE(sim.pool->make_resident(PageId(page)));
  const PoolStats after = sim.pool->stats();
  EXPECT_EQ(after.limbo, 0u);
  EXPECT_EQ(after.limbo_hits - before.limbo_hits, before.limbo);
  EXPECT_EQ(sim.store.reads, reads);
  EXPECT_EQ(*read_counter(*sim.pool, PageId(0)), 1u);
  // Their entries in the queue are stale now: passing the epoch must not take the frames away.
  sim.map->let_epochs_pass(true);
  for (std::uint64_t page = 0; page < 3 * kFrames; ++page) ASSERT_TRUE(sim.pool->make_resident(PageId(page % kPages)));
  for (std::uint64_t page = 0; page < touched; ++page) ASSERT_EQ(*read_counter(*sim.pool, PageId(page)), page == 0 ? 1u : 0u);
  sim.pool->check_invariants();
}

TEST(PoolLimbo, FramesAreNotReusedBeforeTheEpochHasPassed) {
  Result<int> ran = runtime::run_simulated({.seed = 3, .core_count = 1}, [](runtime::Runtime& runtime) {
    SimPool sim;
    sim.map->let_epochs_pass(false);
    bool done = false;
    runtime::Completion finished;
    finished.add();
    EXPECT_TRUE(runtime.core(0).spawn([&] {
      for (std::uint64_t page = 0; page < 2 * kFrames; ++page) EXPECT_TRUE(sim.pool->make_resident(PageId(page)));
      done = true;
      finished.done();
    }));
    runtime::Core::current().sleep_until(runtime::now_ns() + 50'000'000);
    EXPECT_FALSE(done) << "more pages than frames were mapped while no core passed";
    const PoolStats stuck = sim.pool->stats();
    EXPECT_GT(stuck.limbo, 0u);
    EXPECT_LE(sim.map->mapped_count() + stuck.limbo, kFrames);
    sim.map->let_epochs_pass(true);
    finished.wait();
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolLimbo, AnOptimisticReaderOfAnEvictedPageFailsToValidate) {
  SimPool sim;
  std::uint64_t version;
  ASSERT_TRUE(sim.pool->make_resident(PageId(0)));
  ASSERT_TRUE(sim.pool->optimistic_begin(PageId(0), version));
  for (std::uint64_t page = 1; page < kPages; ++page) ASSERT_TRUE(sim.pool->make_resident(PageId(page)));
  // The load completes, with whatever bytes; they are thrown away.
  EXPECT_EQ(sim.pool->data(PageId(0))[100], SimulatedPageMap::kPoison);
  EXPECT_FALSE(sim.pool->optimistic_validate(PageId(0), version));
  EXPECT_FALSE(sim.pool->try_upgrade(PageId(0), version));
  // Also when the page is back: the version never returns.
  ASSERT_TRUE(sim.pool->make_resident(PageId(0)));
  EXPECT_FALSE(sim.pool->optimistic_validate(PageId(0), version));
}

TEST(PoolLimbo, HardwareReferenceBitsKeepWhatIsRead) {
  SimPool sim(true);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    ASSERT_TRUE(sim.pool->make_resident(PageId(page)));
    sim.map->set_reference(PageId(0));
    std::uint64_t version;
    ASSERT_TRUE(sim.pool->optimistic_begin(PageId(0), version)) << "no mark in software gets in the way of a hit";
  }
  EXPECT_EQ(sim.store.reads, kPages);
  sim.pool->check_invariants();
}

TEST(PoolLimbo, LatchedPagesAreSkippedAndMissesGoOn) {
  runtime::UncheckedLatches misses_with_latches_held;
  SimPool sim;
  std::vector<ExclusiveGuard> held;
  for (std::uint64_t page = 0; page < kFrames - 32; ++page) {
    auto guard = ExclusiveGuard::take(*sim.pool, PageId(page));
    ASSERT_TRUE(guard);
    guard->mark_dirty(Lsn(1));
    held.push_back(std::move(*guard));
  }
  // 32 frames serve everybody else, also for writes.
  for (std::uint64_t page = kFrames; page < kPages; ++page) ASSERT_TRUE(bump(*sim.pool, PageId(page)));
  held.clear();
  sim.pool->check_invariants();
}

TEST(PoolLimbo, AMissWithAllFramesLatchedEndsInAnError) {
  Result<int> ran = runtime::run_simulated({.core_count = 1}, [](runtime::Runtime&) {
    runtime::UncheckedLatches a_miss_with_latches_held;
    SimPool sim;
    std::vector<ExclusiveGuard> held;
    for (std::uint64_t page = 0; page < kFrames; ++page) {
      auto guard = ExclusiveGuard::take(*sim.pool, PageId(page));
      EXPECT_TRUE(guard);
      held.push_back(std::move(*guard));
    }
    EXPECT_TRUE(sim.pool->make_resident(PageId(kFrames)).failed_with(Code::kOutOfMemory));
    held.clear();
    EXPECT_TRUE(sim.pool->make_resident(PageId(kFrames)));
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolWait, EverybodyWhoWantsAPageWaitsForItsOneRead) {
  Result<int> ran = runtime::run_simulated({.seed = 5, .core_count = 3}, [](runtime::Runtime& runtime) {
    SimPool sim;
    sim.store.read_delay_ns = 1'000'000;
    runtime::Completion all;
    for (std::uint32_t i = 0; i < 30; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % 3).spawn_remote([&, i] {
        if (i % 3 == 0) {
          EXPECT_TRUE(bump(*sim.pool, PageId(7)));
        }
        if (i % 3 == 1) {
          EXPECT_TRUE(SharedGuard::take(*sim.pool, PageId(7)));
        }
        if (i % 3 == 2) {
          EXPECT_TRUE(read_counter(*sim.pool, PageId(7)));
        }
        all.done();
      }));
    }
    all.wait();
    EXPECT_EQ(sim.store.reads, 1u);
    EXPECT_EQ(*read_counter(*sim.pool, PageId(7)), 10u);
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolWait, TheLastReaderWakesTheWriterThatWaits) {
  Result<int> ran = runtime::run_simulated({.seed = 3, .core_count = 2}, [](runtime::Runtime& runtime) {
    runtime::UncheckedLatches a_latch_is_held_across_a_wait;
    SimPool sim;
    auto first = SharedGuard::take(*sim.pool, PageId(7)), last = SharedGuard::take(*sim.pool, PageId(7));
    EXPECT_TRUE(first && last);
    runtime::Completion written;
    written.add();
    EXPECT_TRUE(runtime.core(1).spawn_remote([&] {
      EXPECT_TRUE(bump(*sim.pool, PageId(7)));
      written.done();
    }));
    for (auto* guard : {&first, &last}) {
      runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
      EXPECT_TRUE(written.pending());
      guard->value().release();
    }
    written.wait();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolWait, AFailedReadWakesItsWaitersWhoGetTheirOwnError) {
  Result<int> ran = runtime::run_simulated({.seed = 6, .core_count = 2}, [](runtime::Runtime& runtime) {
    SimPool sim;
    sim.store.read_delay_ns = 1'000'000;
    sim.store.failing_reads[7] = true;
    runtime::Completion all;
    for (std::uint32_t i = 0; i < 6; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % 2).spawn_remote([&] {
        EXPECT_TRUE(sim.pool->make_resident(PageId(7)).failed_with(Code::kCorrupt));
        all.done();
      }));
    }
    all.wait();
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolWait, PrefetchReadsAheadWithoutWaiting) {
  Result<int> ran = runtime::run_simulated({.seed = 7, .core_count = 1}, [](runtime::Runtime&) {
    SimPool sim;
    sim.store.read_delay_ns = 1'000'000;
    sim.store.failing_reads[12] = true;
    const runtime::TimeNs start = runtime::now_ns();
    const PageId pages[] = {PageId(10), PageId(11), PageId(12), PageId(kPages + 5), PageId(11)};
    sim.pool->prefetch(pages);
    EXPECT_LT(runtime::now_ns() - start, 1'000'000u);
    EXPECT_EQ(*read_counter(*sim.pool, PageId(11)), 0u);  // waits for the read that is under way
    EXPECT_TRUE(sim.pool->make_resident(PageId(12)).failed_with(Code::kCorrupt)) << "the reader's own error";
    EXPECT_EQ(*read_counter(*sim.pool, PageId(10)), 0u);
    EXPECT_EQ(sim.store.reads, 4u);
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

// Of recovery: more pages than one prefetch takes, and a pool without a free frame.
TEST(PoolWait, ReadAheadHasManyReadsInFlightAlsoInAFullPool) {
  Result<int> ran = runtime::run_simulated({.seed = 7, .core_count = 1}, [](runtime::Runtime&) {
    SimPool sim;
    for (std::uint64_t page = 0; page < kPages; ++page) EXPECT_TRUE(sim.pool->make_resident(PageId(page)));
    constexpr std::uint64_t kAhead = 50;
    std::vector<PageId> pages;
    for (std::uint64_t page = 0; page < kAhead; ++page) pages.push_back(PageId(page));
    sim.store.read_delay_ns = 1'000'000;
    const runtime::TimeNs start = runtime::now_ns();
    sim.pool->read_ahead(pages);
    EXPECT_LT(runtime::now_ns() - start, 1'000'000u) << "a fiber does not wait for the reads";
    for (const PageId page : pages) EXPECT_EQ(*read_counter(*sim.pool, page), 0u);
    // The test's store reads the pages of one batch one after the other: two batches side by side.
    EXPECT_LT(runtime::now_ns() - start, 35'000'000u);
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

TEST(PoolWait, TheProviderKeepsFramesFreeSoThatMissesDoNotStall) {
  Result<int> ran = runtime::run_simulated({.seed = 8, .core_count = 2}, [](runtime::Runtime& runtime) {
    SimPool sim;
    sim.store.write_delay_ns = 200'000;
    runtime::Completion service;
    service.add();
    EXPECT_TRUE(runtime.core(1).spawn_remote([&] { sim.pool->provide_frames(); service.done(); }));
    for (std::uint64_t page = 0; page < kPages; ++page) {
      EXPECT_TRUE(bump(*sim.pool, PageId(page)));
      runtime::Core::current().sleep_until(runtime::now_ns() + 100'000);
    }
    EXPECT_EQ(sim.pool->stats().evict_stalls, 0u);
    sim.pool->stop();
    service.wait();
    sim.pool->check_invariants();
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

// The rule that checkpoints live by: what was changed, or only latched and logged, before the call is synced after it.
TEST(PoolWriteBack, EverythingBeforeTheCallIsDurableAfterIt) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Result<int> ran = runtime::run_simulated({.seed = seed, .core_count = 3}, [](runtime::Runtime& runtime) {
      SimPool sim;
      sim.store.read_delay_ns = 20'000;
      sim.store.write_delay_ns = 50'000;
      std::atomic<std::uint64_t> next_lsn{1};
      std::atomic<bool> stop{false};
      // By page: the highest counter whose change was logged (its LSN taken), latch still held or not.
      std::vector<std::uint64_t> logged(kPages);
      runtime::Completion writers;
      for (std::uint32_t i = 0; i < 6; ++i) {
        writers.add();
        EXPECT_TRUE(runtime.core(i % 3).spawn_remote([&] {
          runtime::UncheckedLatches waits_with_a_latch_held;
          while (!stop.load()) {
            const PageId page(runtime::random_u64() % 600);
            auto guard = ExclusiveGuard::take(*sim.pool, page);
            EXPECT_TRUE(guard);
            const std::uint64_t counter = testing::look(page, guard->data()).counter + 1;
            const Lsn lsn(next_lsn.fetch_add(1));
            logged[page.value] = counter;
            runtime::Core::current().yield();  // logged but not yet marked, for a while
            MemoryStore::fill(page, guard->data(), counter);
            guard->mark_dirty(lsn);
          }
          writers.done();
        }));
      }
      for (int checkpoint = 0; checkpoint < 4; ++checkpoint) {
        runtime::Core::current().sleep_until(runtime::now_ns() + 300'000);
        const std::vector<std::uint64_t> before = logged;
        EXPECT_TRUE(sim.pool->write_back_all());
        for (std::uint64_t page = 0; page < 600; ++page) EXPECT_GE(sim.store.synced_counter(PageId(page)), before[page]);
      }
      stop = true;
      writers.wait();
      sim.pool->check_invariants();
      return 0;
    });
    ASSERT_TRUE(ran) << ran.error().to_string();
  }
}

// The sweep comes to pages that are latched and puts them off; the store fails when it comes back to them: with a few copies
// in hand while the next is latched still, and with a full batch of them. Or before, with what else is dirty.
TEST(PoolWriteBack, AStoreThatFailsAtPagesThatWerePutOffFailsThePool) {
  enum class When { kBefore, kOneByOne, kAllAtOnce };
  for (const When when : {When::kBefore, When::kOneByOne, When::kAllAtOnce}) {
    Result<int> ran = runtime::run_simulated({.core_count = 1}, [&](runtime::Runtime&) {
      SimPool sim;
      constexpr std::uint64_t kOthers = 10;
      const std::uint64_t others = when == When::kBefore ? kOthers : 0;
      for (std::uint64_t i = 0; i < others; ++i) EXPECT_TRUE(bump(*sim.pool, PageId(1000 + i)));
      sim.store.fail_writes = when == When::kBefore;
      runtime::Completion holder;
      holder.add();
      constexpr std::uint64_t kHeld = 100;
      EXPECT_TRUE(runtime::Core::current().spawn([&] {
        runtime::UncheckedLatches waits_with_latches_held;
        std::vector<ExclusiveGuard> held;
        for (std::uint64_t page = 0; page < kHeld; ++page) {
          auto guard = ExclusiveGuard::take(*sim.pool, PageId(page));
          EXPECT_TRUE(guard);
          guard->mark_dirty(Lsn(1));
          held.push_back(std::move(*guard));
        }
        runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
        sim.store.fail_writes = true;
        if (when == When::kOneByOne) {
          held.erase(held.begin(), held.begin() + 10);
          runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000);
        }
        held.clear();
        holder.done();
      }));
      runtime::Core::current().sleep_until(runtime::now_ns() + 500'000);
      EXPECT_TRUE(sim.pool->write_back_all().failed_with(Code::kFailed));
      holder.wait();
      EXPECT_EQ(sim.pool->stats().dirty, kHeld + others);
      EXPECT_EQ(sim.store.writes, 0u);
      sim.pool->check_invariants();
      return 0;
    });
    ASSERT_TRUE(ran) << ran.error().to_string();
  }
}

TEST(PoolWriteBack, IsPaced) {
  Result<int> ran = runtime::run_simulated({.seed = 9, .core_count = 1}, [](runtime::Runtime&) {
    SimPool sim;
    for (std::uint64_t page = 0; page < 200; ++page) EXPECT_TRUE(bump(*sim.pool, PageId(page)));
    const runtime::TimeNs start = runtime::now_ns();
    EXPECT_TRUE(sim.pool->write_back_all(1000));
    EXPECT_GE(runtime::now_ns() - start, 190'000'000u);
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
}

}  // namespace
}  // namespace kelda::bufferpool
