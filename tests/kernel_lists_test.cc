// The kernel's own data structures against plain models of them. Pure: the same hosted and bare.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "common/types.h"
#include "kernel/area_list.h"
#include "kernel/frame_map.h"

namespace kelda::kernel {
namespace {

constexpr std::uint64_t kFrames = 64 * 64 * 3 + 17;  // more than one word at every level, and a ragged end

struct Frames {
  std::vector<std::uint64_t> storage = std::vector<std::uint64_t>(FrameMap::storage_bytes(kFrames) / 8);
  FrameMap map;
  Frames() { map.init(storage.data(), kFrames); }
};

TEST(FrameMap, LowestFollowsASet) {
  Frames frames;
  std::set<std::uint64_t> model;
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    std::uint64_t frame = random() % kFrames;
    if (model.insert(frame).second) {
      frames.map.insert(frame);
    } else {
      model.erase(frame);
      frames.map.erase(frame);
    }
    ASSERT_EQ(frames.map.lowest(), model.empty() ? kNoFrame : *model.begin());
  }
}

TEST(FrameMap, RunsAreFoundAlignedAndWhole) {
  Frames frames;
  frames.map.insert_run(3, 9);
  frames.map.insert_run(100, 300);
  frames.map.insert_run(kFrames - 5, kFrames);
  EXPECT_EQ(frames.map.find_run(6, 1), 3u);
  EXPECT_EQ(frames.map.find_run(7, 1), 100u);
  EXPECT_EQ(frames.map.find_run(4, 4), 4u);
  EXPECT_EQ(frames.map.find_run(64, 64), 128u);
  EXPECT_EQ(frames.map.find_run(200, 1), 100u);
  EXPECT_EQ(frames.map.find_run(201, 1), kNoFrame);
  EXPECT_EQ(frames.map.find_run(5, 1024), kNoFrame);
}

// An area list beside one protection a page; the pages of the model that are missing are gaps.
class AreaListModel : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 64;
  static constexpr std::uint64_t kBase = 0x100000;

  AreaListModel() {
    list_.init(storage_.data(), [](std::size_t count) { return count <= 256; });
  }

  void check() const {
    std::size_t areas = 0;
    int previous = -1;
    for (std::uint64_t page = 0; page < kPages; ++page) {
      auto it = model_.find(page);
      const Area* area = list_.find(kBase + page * kPageBytes);
      ASSERT_EQ(area != nullptr, it != model_.end()) << page;
      int now = area ? static_cast<int>(area->protection) : -1;
      if (area) {
        ASSERT_EQ(area->protection, it->second) << page;
      }
      if (now != -1 && now != previous) ++areas;
      previous = now;
    }
    ASSERT_EQ(list_.count(), areas) << "neighbours of one protection must be one area";
  }

  std::vector<Area> storage_ = std::vector<Area>(260);
  AreaList list_;
  std::map<std::uint64_t, Protection> model_;
};

TEST_F(AreaListModel, SetAndClearFollowTheModel) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 20'000; ++i) {
    std::uint64_t begin = random() % kPages, end = begin + 1 + random() % (kPages - begin);
    std::uint64_t from = kBase + begin * kPageBytes, to = kBase + end * kPageBytes;
    bool covered = true, gap = true;
    for (std::uint64_t page = begin; page < end; ++page) (model_.contains(page) ? gap : covered) = false;
    ASSERT_EQ(list_.covers(from, to), covered);
    ASSERT_EQ(list_.is_gap(from, to), gap);
    if (random() % 3 == 0) {
      ASSERT_TRUE(list_.clear(from, to));
      for (std::uint64_t page = begin; page < end; ++page) model_.erase(page);
    } else {
      auto protection = static_cast<Protection>(random() % 4);
      ASSERT_TRUE(list_.set(from, to, protection));
      for (std::uint64_t page = begin; page < end; ++page) model_[page] = protection;
    }
    ASSERT_NO_FATAL_FAILURE(check());
  }
}

TEST_F(AreaListModel, FindsTheLowestGapThatFits) {
  ASSERT_TRUE(list_.set(kBase, kBase + 2 * kPageBytes, Protection::kRead));
  ASSERT_TRUE(list_.set(kBase + 3 * kPageBytes, kBase + 5 * kPageBytes, Protection::kRead));
  std::uint64_t limit = kBase + 10 * kPageBytes;
  EXPECT_EQ(list_.find_gap(kPageBytes, kBase, limit), kBase + 2 * kPageBytes);
  EXPECT_EQ(list_.find_gap(2 * kPageBytes, kBase, limit), kBase + 5 * kPageBytes);
  EXPECT_EQ(list_.find_gap(5 * kPageBytes, kBase, limit), kBase + 5 * kPageBytes);
  EXPECT_EQ(list_.find_gap(6 * kPageBytes, kBase, limit), std::nullopt);
}

TEST_F(AreaListModel, SaysNoWhenItIsFull) {
  bool full = false;
  for (std::uint64_t i = 0; i < 300 && !full; ++i) {
    full = !list_.set(kBase + 2 * i * kPageBytes, kBase + (2 * i + 1) * kPageBytes, Protection::kRead);
  }
  EXPECT_TRUE(full);
  EXPECT_NE(list_.find(kBase), nullptr) << "what is there stays";
}

}  // namespace
}  // namespace kelda::kernel
