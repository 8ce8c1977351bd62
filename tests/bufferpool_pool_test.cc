// The pool's promises, one by one, on one core over the platform's own page map.
#include <algorithm>
#include <cstdio>
#include <ranges>

#include "runtime/platform_bare.h"
#include "tests/pool_fixture.h"

namespace kelda::bufferpool {
namespace {

using testing::bump;
using testing::MemoryStore;
using testing::read_counter;

constexpr std::uint64_t kFrames = 256;
constexpr std::uint64_t kPages = 4096;

struct Pool : ::testing::Test {
  Pool() : store(kPages) {
    auto made = BufferPool::create({.frame_count = kFrames, .page_count = kPages}, store);
    EXPECT_TRUE(made) << made.error().to_string();
    pool = std::move(*made);
  }
  ~Pool() override { pool->check_invariants(); }

  MemoryStore store;
  std::unique_ptr<BufferPool> pool;
};

TEST_F(Pool, TooFewFramesAreRefused) {
  EXPECT_TRUE(BufferPool::create({.frame_count = 255, .page_count = 10}, store).failed_with(Code::kInvalidArgument));
}

// More address space than any machine has: of pages, of their states, of frames.
TEST_F(Pool, MoreThanTheAddressSpaceHoldsIsRefused) {
  constexpr std::uint64_t kTooMany = std::uint64_t{1} << 50;
  EXPECT_FALSE(BufferPool::create({.frame_count = kFrames, .page_count = kTooMany}, store));
  EXPECT_TRUE(SimulatedPageMap::create(kTooMany, false).failed_with(Code::kOutOfMemory));
  for (const PoolOptions& options : {PoolOptions{.frame_count = kFrames, .page_count = kTooMany},
                                     PoolOptions{.frame_count = kTooMany, .page_count = kPages}}) {
    auto map = SimulatedPageMap::create(kPages, false);
    ASSERT_TRUE(map);
    EXPECT_TRUE(BufferPool::create(options, store, std::move(*map)).failed_with(Code::kOutOfMemory));
  }
}

TEST_F(Pool, AMissReadsOnceThenItIsAHit) {
  std::uint64_t version;
  EXPECT_FALSE(pool->optimistic_begin(PageId(7), version));
  ASSERT_TRUE(pool->make_resident(PageId(7)));
  ASSERT_TRUE(pool->optimistic_begin(PageId(7), version));
  EXPECT_TRUE(pool->optimistic_validate(PageId(7), version));
  EXPECT_EQ(*read_counter(*pool, PageId(7)), 0u);
  EXPECT_EQ(store.reads, 1u);
}

TEST_F(Pool, PagesThatDoNotExistAreRefused) {
  std::uint64_t version;
  EXPECT_FALSE(pool->optimistic_begin(PageId(kPages), version));
  EXPECT_TRUE(pool->make_resident(PageId(kPages)).failed_with(Code::kCorrupt));
  EXPECT_TRUE(pool->latch_shared(PageId(~0ull)).failed_with(Code::kCorrupt));
  EXPECT_TRUE(pool->latch_exclusive(PageId(kPages)).failed_with(Code::kCorrupt));
  EXPECT_TRUE(ExclusiveGuard::take_fresh(*pool, PageId(kPages)).failed_with(Code::kCorrupt));
}

TEST_F(Pool, AChangeInvalidatesOptimisticReaders) {
  std::uint64_t version;
  ASSERT_TRUE(pool->make_resident(PageId(7)));
  ASSERT_TRUE(pool->optimistic_begin(PageId(7), version));
  {
    auto guard = ExclusiveGuard::take(*pool, PageId(7));
    ASSERT_TRUE(guard);
    EXPECT_FALSE(pool->optimistic_validate(PageId(7), version)) << "while it is latched";
    std::uint64_t other;
    EXPECT_FALSE(pool->optimistic_begin(PageId(7), other));
  }
  EXPECT_FALSE(pool->optimistic_validate(PageId(7), version)) << "afterwards";
}

TEST_F(Pool, SharedLatchesLeaveOptimisticReadersAlone) {
  std::uint64_t version;
  ASSERT_TRUE(pool->make_resident(PageId(7)));
  ASSERT_TRUE(pool->optimistic_begin(PageId(7), version));
  auto one = SharedGuard::take(*pool, PageId(7)), two = SharedGuard::take(*pool, PageId(7));
  ASSERT_TRUE(one && two);
  EXPECT_TRUE(pool->optimistic_validate(PageId(7), version));
}

TEST_F(Pool, AnUpgradeSucceedsOnlyIfNothingChanged) {
  std::uint64_t version;
  ASSERT_TRUE(pool->make_resident(PageId(7)));
  ASSERT_TRUE(pool->optimistic_begin(PageId(7), version));
  ASSERT_TRUE(pool->try_upgrade(PageId(7), version));
  ExclusiveGuard::adopt(*pool, PageId(7)).release();
  EXPECT_FALSE(pool->try_upgrade(PageId(7), version));
}

TEST_F(Pool, ChangesSurviveEvictionAndTheMemoryBoundHolds) {
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(bump(*pool, PageId(page)));
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(bump(*pool, PageId(page)));
  for (std::uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(*read_counter(*pool, PageId(page)), 2u);
  const PoolStats stats = pool->stats();
  EXPECT_LE(stats.resident + stats.limbo, kFrames);
  EXPECT_GT(stats.evictions, kPages * 2);
  EXPECT_EQ(stats.pages_written, store.writes);
}

TEST_F(Pool, APageThatIsHitStaysWhileOthersPass) {
  ASSERT_TRUE(pool->make_resident(PageId(0)));
  for (std::uint64_t page = 1; page < kPages; ++page) {
    ASSERT_TRUE(pool->make_resident(PageId(page)));
    ASSERT_TRUE(read_counter(*pool, PageId(0)));
  }
  EXPECT_EQ(store.reads, kPages);
}

TEST_F(Pool, AFreshPageIsZeroAndNotRead) {
  ASSERT_TRUE(bump(*pool, PageId(9)));
  for (std::uint64_t page : {8, 9}) {
    auto guard = ExclusiveGuard::take_fresh(*pool, PageId(page));
    ASSERT_TRUE(guard);
    EXPECT_TRUE(disk::all_zero({guard->data(), kPageBytes}));
    MemoryStore::fill(PageId(page), guard->data(), 5);
    guard->mark_dirty(Lsn(3));
  }
  EXPECT_EQ(store.reads, 1u);
  ASSERT_TRUE(pool->write_back_all());
  EXPECT_EQ(store.synced_counter(PageId(8)), 5u);
}

TEST_F(Pool, AFailedReadGoesToTheReaderAndCostsNothing) {
  store.failing_reads[7] = true;
  for (int i = 0; i < 1000; ++i) {
    Result<> read = pool->make_resident(PageId(7));
    ASSERT_TRUE(read.failed_with(Code::kCorrupt));
    EXPECT_NE(read.error().message().find("page 7"), std::string::npos);
  }
  EXPECT_TRUE(pool->latch_exclusive(PageId(7)).failed_with(Code::kCorrupt));
  EXPECT_EQ(pool->stats().free, kFrames);
  store.failing_reads.clear();
  EXPECT_EQ(*read_counter(*pool, PageId(7)), 0u);
}

TEST_F(Pool, AFailedWriteFailsThePoolButHitsGoOn) {
  ASSERT_TRUE(bump(*pool, PageId(7)));
  store.fail_writes = true;
  EXPECT_TRUE(pool->write_back_all().failed_with(Code::kFailed));
  store.fail_writes = false;
  EXPECT_TRUE(pool->write_back_all().failed_with(Code::kFailed)) << "never retried into silence";
  EXPECT_TRUE(pool->make_resident(PageId(8)).failed_with(Code::kFailed)) << "a miss needs a frame";
  EXPECT_EQ(*read_counter(*pool, PageId(7)), 1u);
  EXPECT_EQ(store.stored_counter(PageId(7)), 0u);
  EXPECT_EQ(pool->stats().dirty, 1u) << "what could not be written is still dirty";
}

TEST_F(Pool, AFailedWriteEndsASweepOfManyBatches) {
  constexpr std::uint64_t kDirty = 200;
  for (std::uint64_t page = 0; page < kDirty; ++page) ASSERT_TRUE(bump(*pool, PageId(page)));
  store.fail_writes = true;
  const Result<> swept = pool->write_back_all();
  ASSERT_TRUE(swept.failed_with(Code::kFailed));
  EXPECT_NE(swept.error().message().find("restart"), std::string::npos) << swept.error().message();
  EXPECT_EQ(pool->stats().dirty, kDirty);
  EXPECT_EQ(store.syncs, 0u);
}

// Its workers share the frames; the one that finds nothing to write ends as well when another one fails.
TEST_F(Pool, AFailedWriteOfOneWorkerEndsTheSweepOfAll) {
  constexpr std::uint64_t kManyFrames = 2048, kAtOnce = 64;
  for (std::uint64_t first = 0; first < kManyFrames; first += 256) {
    MemoryStore slow(kPages);
    auto made = BufferPool::create({.frame_count = kManyFrames, .page_count = kPages}, slow);
    ASSERT_TRUE(made);
    BufferPool& large = **made;
    for (std::uint64_t page = 0; page < kManyFrames - 512; ++page) ASSERT_TRUE(large.make_resident(PageId(page)));
    for (std::uint64_t page = first; page < first + kAtOnce; ++page) ASSERT_TRUE(bump(large, PageId(page)));
    slow.fail_writes = true;
    EXPECT_TRUE(large.write_back_all().failed_with(Code::kFailed)) << first;
    EXPECT_EQ(large.stats().dirty, kAtOnce);
  }
}

TEST_F(Pool, AFailedWriteInEvictionReachesTheMiss) {
  store.fail_writes = true;
  Result<> result;
  for (std::uint64_t page = 0; page < kPages && result; ++page) {
    if (auto bumped = bump(*pool, PageId(page)); !bumped) result = bumped.error();
  }
  EXPECT_TRUE(result.failed_with(Code::kFailed));
}

TEST_F(Pool, WriteBackWritesWhatIsDirtyAndSyncs) {
  for (std::uint64_t page = 0; page < 100; ++page) ASSERT_TRUE(bump(*pool, PageId(page), Lsn(page + 1)));
  ASSERT_TRUE(pool->make_resident(PageId(200)));
  ASSERT_TRUE(pool->write_back_all());
  EXPECT_EQ(store.writes, 100u);
  EXPECT_EQ(store.syncs, 1u);
  for (std::uint64_t page = 0; page < 100; ++page) EXPECT_EQ(store.synced_counter(PageId(page)), 1u);
  EXPECT_EQ(pool->stats().dirty, 0u);
  ASSERT_TRUE(pool->write_back_all());
  EXPECT_EQ(store.writes, 100u) << "clean pages are not written";
}

struct CountingBarrier final : WriteBarrier {
  Result<> wait_durable(Lsn lsn) override {
    durable = std::max(durable, lsn.value);
    return result;
  }
  std::uint64_t durable = 0;
  Result<> result;
};

TEST_F(Pool, ThePagesLogIsDurableBeforeThePage) {
  CountingBarrier barrier;
  pool->set_write_barrier(barrier);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    ASSERT_TRUE(bump(*pool, PageId(page), Lsn(page + 1)));
    ASSERT_LE(store.max_lsn_written, barrier.durable);
  }
  EXPECT_GT(store.writes, 0u);
  barrier.result = Error(Code::kFailed, "the log is gone");
  const std::uint64_t before = store.writes;
  EXPECT_TRUE(pool->write_back_all().failed_with(Code::kFailed));
  EXPECT_EQ(store.writes, before) << "no page goes out without its log";
}

TEST_F(Pool, DroppedPagesAreNotWritten) {
  for (std::uint64_t page = 0; page < 50; ++page) ASSERT_TRUE(bump(*pool, PageId(page)));
  std::vector<PageId> pages;
  for (std::uint64_t page = 0; page < 60; ++page) pages.push_back(PageId(page));
  pool->drop(pages);
  ASSERT_TRUE(pool->write_back_all());
  EXPECT_EQ(store.writes, 0u);
  EXPECT_EQ(pool->stats().dirty, 0u);
}

TEST_F(Pool, ReservedFramesAreThereWithoutWaiting) {
  for (std::uint64_t page = 0; page < kFrames; ++page) ASSERT_TRUE(bump(*pool, PageId(page)));
  ASSERT_TRUE(pool->reserve_frames(100));
  const std::uint64_t stalls = pool->stats().evict_stalls;
  EXPECT_GE(pool->stats().free, 100u);
  for (std::uint64_t page = 1000; page < 1100; ++page) ASSERT_TRUE(pool->make_resident(PageId(page)));
  EXPECT_EQ(pool->stats().evict_stalls, stalls);
  EXPECT_TRUE(pool->reserve_frames(kFrames).failed_with(Code::kOutOfMemory));
}

// Pages of memory that this process has; 0 where the system does not say.
std::uint64_t resident_pages() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  unsigned long total = 0, resident = 0;
  if (file != nullptr) {
    if (std::fscanf(file, "%lu %lu", &total, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return resident;
}

TEST(PoolMemory, TheProcessStaysWithinTheBound) {
  if (resident_pages() == 0) GTEST_SKIP() << "no /proc/self/statm";
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow is memory of the process too, and the thread sanitizer has none for 16 TiB";
#endif
  constexpr std::uint64_t kManyPages = 40'000, kFew = 1024;
  MemoryStore store(kManyPages);
  auto pool = *BufferPool::create({.frame_count = kFew, .page_count = 1ull << 32}, store);  // 16 TiB of addresses
  const std::uint64_t before = resident_pages();
  for (std::uint64_t page = 0; page < kManyPages; ++page) ASSERT_TRUE(pool->make_resident(PageId(page)));
  // Beyond the frames: state words, page tables, the clock's table.
  constexpr std::uint64_t kSlack = 512;
  EXPECT_LE(resident_pages(), before + kFew + kSlack);
  EXPECT_GE(resident_pages(), before + kFew / 2);
  pool->check_invariants();
}

// More ranges than one call of the system takes, in no order, with neighbours that stay.
TEST(PageMapHosted, ManyScatteredPagesAreReleasedAtOnce) {
  if (runtime::is_bare()) GTEST_SKIP() << "a Linux process only";
  constexpr std::uint64_t kCount = 5000;
  auto map = *make_hosted_page_map(2 * kCount);
  std::vector<PageId> odd;
  for (std::uint64_t page = 0; page < 2 * kCount; ++page) {
    std::memset(map->base() + page * kPageBytes, 1, kPageBytes);
    if (page % 2 == 1 || page < 20) odd.push_back(PageId(page * 7919 % (2 * kCount) | 1));  // 7919 is coprime to the count
  }
  std::ranges::sort(odd);
  odd.erase(std::ranges::unique(odd).begin(), odd.end());
  std::ranges::reverse(odd);
  ASSERT_GT(odd.size(), 2 * 1024u);
  map->release(odd);
  for (const PageId page : odd) ASSERT_EQ(map->base()[page.value * kPageBytes + 99], std::byte{0}) << page.value;
  for (std::uint64_t page = 0; page < 2 * kCount; page += 2) ASSERT_EQ(map->base()[page * kPageBytes + 99], std::byte{1}) << page;
  map->release({});
  map->release({odd.data(), 1});
}

}  // namespace
}  // namespace kelda::bufferpool
