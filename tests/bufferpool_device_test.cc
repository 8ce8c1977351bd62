// The pool over real devices: reads go straight into frames, evicted pages come back, a crash leaves every page old or
// new. Hosted on a file; bare on the first disk of tests/drivers_vm.py (skipped without one); and on a simulated disk
// that loses and tears what was not flushed.
#include <cstdlib>
#include <unistd.h>

#include "blockdev/memory_sim.h"
#include "common/prng.h"
#include "disk/aligned_buffer.h"
#include "disk/superblock.h"
#include "runtime/core_sim.h"
#include "runtime/platform_bare.h"
#include "tests/pool_fixture.h"

namespace kelda::bufferpool {
namespace {

using testing::bump;
using testing::look;
using testing::MemoryStore;
using testing::read_counter;

Result<> make_page(BufferPool& pool, PageId page) {
  ExclusiveGuard guard = TRY(ExclusiveGuard::take_fresh(pool, page));
  MemoryStore::fill(page, guard.data(), 0);
  guard.mark_dirty(Lsn(1));
  return {};
}

class PoolOnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (runtime::is_bare()) {
      name_ = "/dev/vda";
    } else {
      char path[] = "/var/tmp/kelda-pool-test-XXXXXX";
      const int file = mkstemp(path);
      ASSERT_GE(file, 0);
      ASSERT_EQ(ftruncate(file, 64 << 20), 0);
      close(file);
      name_ = path;
    }
  }
  void TearDown() override {
    if (!runtime::is_bare()) unlink(name_.c_str());
  }
  std::string name_;
};

TEST_F(PoolOnDisk, WhatWasWrittenIsThereAfterReopening) {
  constexpr std::uint64_t kPages = 3000;
  std::vector<std::uint64_t> counters(kPages);
  bool skipped = false;
  Result<int> ran = runtime::Runtime::run({.core_count = 2}, [&](runtime::Runtime& runtime) {
    Result<std::unique_ptr<blockdev::BlockDevice>> device = blockdev::open(name_);
    skipped = device.failed_with(Code::kNotFound);
    if (skipped) return 0;
    EXPECT_TRUE(device) << device.error().to_string();
    Result<disk::Superblock> superblock = disk::Superblock::format(**device, {.force = true});
    EXPECT_TRUE(superblock) << superblock.error().to_string();
    auto store = disk::make_double_write_store(**device, superblock->layout());
    EXPECT_TRUE(store->repair());
    {
      auto pool = *BufferPool::create({.frame_count = 512, .page_count = superblock->layout().page_count}, *store);
      for (std::uint64_t page = 0; page < kPages; ++page) EXPECT_TRUE(make_page(*pool, PageId(page)));
      runtime::Completion all;
      for (std::uint32_t i = 0; i < 8; ++i) {
        all.add();
        // Each fiber has its own pages, so that it knows their counters.
        EXPECT_TRUE(runtime.core(i % 2).spawn_remote([&, i] {
          Prng prng(i);
          for (int round = 0; round < 400; ++round) {
            const std::uint64_t page = prng.below(kPages / 8) * 8 + i;
            Result<std::uint64_t> value = prng.below(2) == 0 ? bump(*pool, PageId(page)) : read_counter(*pool, PageId(page));
            EXPECT_TRUE(value) << value.error().to_string();
            EXPECT_GE(value.value_or(0), counters[page]);
            if (value) counters[page] = *value;
          }
          all.done();
        }));
      }
      all.wait();
      EXPECT_TRUE(pool->write_back_all());
      pool->check_invariants();
    }
    auto pool = *BufferPool::create({.frame_count = 512, .page_count = superblock->layout().page_count}, *store);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      Result<std::uint64_t> value = read_counter(*pool, PageId(page));
      EXPECT_TRUE(value) << value.error().to_string();
      EXPECT_EQ(value.value_or(0), counters[page]);
    }
    EXPECT_TRUE(pool->make_resident(PageId(kPages + 1)).failed_with(Code::kNotFound)) << "never written";
    return 0;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
  if (skipped) GTEST_SKIP() << "no disk";
}

// One history a seed: fibers of three cores over more pages than frames, a checkpoint loop, and the power cut somewhere.
void crash_once(std::uint64_t seed) {
  constexpr std::uint64_t kPages = 600;
  std::unique_ptr<blockdev::MemoryDevice> device;
  disk::Layout layout;
  std::vector<std::uint64_t> durable(kPages), newest(kPages);
  Result<int> ran = runtime::run_simulated({.seed = seed, .core_count = 3}, [&](runtime::Runtime& runtime) {
    device = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.size_bytes = 16_MiB});
    layout = disk::Superblock::format(*device, {})->layout();
    auto store = disk::make_double_write_store(*device, layout);
    EXPECT_TRUE(store->repair());
    auto map = SimulatedPageMap::create(layout.page_count, false);
    auto pool = *BufferPool::create({.frame_count = 256, .page_count = layout.page_count}, *store, std::move(*map));
    for (std::uint64_t page = 0; page < kPages; ++page) EXPECT_TRUE(make_page(*pool, PageId(page)));
    EXPECT_TRUE(pool->write_back_all());
    device->set_plan({.seed = seed, .delay_min_ns = 1'000, .delay_max_ns = 100'000, .rules = {},
                      .crash_after_ops = device->op_count() + 30 + seed * 23 % 400});
    bool dead = false;
    runtime::Completion all;
    for (std::uint32_t i = 0; i < 5; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % 3).spawn_remote([&] {
        while (!dead) {
          const PageId page(runtime::random_u64() % kPages);
          Result<ExclusiveGuard> guard = ExclusiveGuard::take(*pool, page);
          if (!guard) break;
          newest[page.value] = look(page, guard->data()).counter + 1;
          MemoryStore::fill(page, guard->data(), newest[page.value]);
          guard->mark_dirty(Lsn(newest[page.value]));
          guard->release();
          runtime::Core::current().yield();
        }
        all.done();
      }));
    }
    while (!dead) {
      const std::vector<std::uint64_t> before = newest;
      dead = !pool->write_back_all();
      if (!dead) durable = before;
    }
    all.wait();
    return 0;
  });
  ASSERT_TRUE(ran) << "seed " << seed << ": " << ran.error().to_string();
  auto rebooted = device->crash(blockdev::Survival::kRandom, seed);
  auto store = disk::make_double_write_store(*rebooted, layout);
  ASSERT_TRUE(store->repair());
  disk::AlignedBuffer buffer(kPageBytes);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    Result<> read = store->read(PageId(page), buffer.data());
    ASSERT_TRUE(read) << "seed " << seed << ": " << read.error().to_string();
    const testing::Sight sight = look(PageId(page), buffer.data());
    EXPECT_TRUE(sight.whole);
    EXPECT_GE(sight.counter, durable[page]) << "seed " << seed << ", page " << page << ": a checkpoint was not durable";
    EXPECT_LE(sight.counter, newest[page]);
  }
}

TEST(PoolCrash, EveryPageIsWholeAndNoOlderThanTheLastCheckpoint) {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) crash_once(seed);
}

}  // namespace
}  // namespace kelda::bufferpool
