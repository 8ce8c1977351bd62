// The checks of debug builds (bufferpool/latch_order.h): each rule, broken, ends the program.
#include "runtime/platform_bare.h"
#include "tests/pool_fixture.h"

namespace kelda::bufferpool {
namespace {

using disk::PageType;
using testing::MemoryStore;

class LatchOrderDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifndef KELDA_DEBUG_CHECKS
    GTEST_SKIP() << "checked in debug builds";
#else
    if (runtime::is_bare()) GTEST_SKIP() << "death tests need fork";
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    pool = *BufferPool::create({.frame_count = 256, .page_count = 1024}, store);
    for (const auto& [page, type] : {std::pair{1, PageType::kTreeNode}, {2, PageType::kTreeNode}, {3, PageType::kOverflowData},
                                     {4, PageType::kSpaceMap}, {5, PageType::kSpaceMap}}) {
      auto guard = ExclusiveGuard::take_fresh(*pool, PageId(page));
      disk::header_of(guard->data()).type = static_cast<std::uint8_t>(type);
    }
#endif
  }

  ExclusiveGuard latch(std::uint64_t page) { return *ExclusiveGuard::take(*pool, PageId(page)); }

  MemoryStore store{1024};
  std::unique_ptr<BufferPool> pool;
};

TEST_F(LatchOrderDeathTest, TheWrittenOrderIsFine) {
  const ExclusiveGuard parent = latch(1), child = latch(2), value = latch(3), map = latch(4), next_map = latch(5);
  const ExclusiveGuard fresh = *ExclusiveGuard::take_fresh(*pool, PageId(6));
}

TEST_F(LatchOrderDeathTest, ANodeAfterASpaceMap) {
  const ExclusiveGuard map = latch(4);
  EXPECT_DEATH(latch(1), "latches_are_in_order");
}

TEST_F(LatchOrderDeathTest, ANodeAfterAnOverflowPage) {
  const ExclusiveGuard value = latch(3);
  EXPECT_DEATH((void)SharedGuard::take(*pool, PageId(1)), "latches_are_in_order");
}

TEST_F(LatchOrderDeathTest, SpaceMapsDescending) {
  const ExclusiveGuard map = latch(5);
  EXPECT_DEATH(latch(4), "latches_are_in_order");
}

TEST_F(LatchOrderDeathTest, WaitingWithALatch) {
  const ExclusiveGuard node = latch(1);
  EXPECT_DEATH(runtime::Core::current().yield(), "may_wait");
  EXPECT_DEATH(runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000), "may_wait");
}

TEST_F(LatchOrderDeathTest, WaitingForOneself) {
  const ExclusiveGuard node = latch(1);
  EXPECT_DEATH((void)SharedGuard::take(*pool, PageId(1)), "waits_for_itself");
}

TEST_F(LatchOrderDeathTest, FramesAfterALatch) {
  const ExclusiveGuard node = latch(1);
  EXPECT_DEATH((void)pool->reserve_frames(1), "none");
}

}  // namespace
}  // namespace kelda::bufferpool
