// A device that was enlarged: its new space is used from the next start on, whatever lies there. Power cuts on the way:
// crash_every_io_test.cc, the scripts "growth".
#include "disk/superblock.h"
#include "engine/check.h"
#include "engine_support.h"
#include "runtime/machine.h"

namespace kelda::engine {
namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;

constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};
constexpr std::size_t kValueBytes = 20'000;

std::string key_of(int i) { return "key" + std::to_string(100'000 + i); }
std::string value_of(int i) { return std::to_string(i) + std::string(kValueBytes, static_cast<char>('a' + i % 26)); }

// Writes until the disk is full or `most` are there; how many there are then.
int fill(Database& db, int from, int most) {
  const Tree tree = *db.tree("t", true);
  for (int i = from; i < most; ++i) {
    if (const auto done = db.put(tree, key_of(i), value_of(i)); !done) {
      EXPECT_TRUE(done.failed_with(Code::kNoSpace)) << done.error().to_string();
      return i;
    }
  }
  return most;
}

void expect_all(Database& db, int count) {
  const Tree tree = *db.tree("t", false);
  EXPECT_EQ(db.count(tree), static_cast<std::uint64_t>(count));
  std::string value;
  for (int i = 0; i < count; ++i) ASSERT_TRUE(*db.get(tree, key_of(i), value) && value == value_of(i)) << i;
}

void expect_sound(std::unique_ptr<MemoryDevice> disk, std::uint64_t size_bytes) {
  auto checked = check_disk(std::move(disk), {.memory_bytes = 24_MiB}, kNoProgress);
  ASSERT_OK(checked);
  EXPECT_TRUE(checked->sound()) << checked->problems.front();
  EXPECT_EQ(checked->layout.device_bytes, size_bytes);
}

// Bytes of something else where the new pages, space maps among them, will be.
void litter(MemoryDevice& disk, std::uint64_t from) {
  std::string garbage(64 << 10, '\xa5');
  const disk::Layout layout = disk::Superblock::read(disk)->layout().grown_to(disk.info().size_bytes);
  for (std::uint64_t page = 0; page < layout.page_count; page += disk::kPagesPerSpaceMap) {
    const std::uint64_t at = layout.offset_of(PageId(page));
    if (at >= from) disk.poke(at, as_bytes(garbage).first(std::min<std::uint64_t>(garbage.size(), disk.info().size_bytes - at)));
  }
  disk.poke(from, as_bytes(garbage));
}

struct Growth {
  std::uint64_t from_bytes, to_bytes;
  bool clean, littered;
};

class EngineGrow : public testing::TestWithParam<Growth> {};

TEST_P(EngineGrow, TheNewSpaceIsUsed) {
  const Growth growth = GetParam();
  if (runtime::machine_info().bare && growth.to_bytes > 64_MiB) GTEST_SKIP() << "a disk in memory needs more of it than the machine has";
  on_cores(1, [&](runtime::Runtime&) {
    auto first = open_on(blank_disk(growth.from_bytes));
    ASSERT_OK(first);
    const int before = fill(*first->db, 0, 100'000);
    ASSERT_GT(before, 100);
    if (growth.clean) {
      ASSERT_OK(first->db->close());
    }
    auto larger = first->disk->crash(Survival::kNone);
    larger->grow(growth.to_bytes);
    if (growth.littered) litter(*larger, growth.from_bytes);
    expect_sound(larger->snapshot(Survival::kAll), growth.from_bytes);  // nobody has taken it into use yet

    auto second = open_on(std::move(larger));
    ASSERT_OK(second);
    EXPECT_EQ(second->report.was_clean, growth.clean);
    EXPECT_EQ(second->report.grown_from_bytes, growth.from_bytes);
    expect_all(*second->db, before);
    const auto added = (growth.to_bytes - growth.from_bytes) / (kValueBytes + 2 * kPageBytes);
    const int after = fill(*second->db, before, before + static_cast<int>(added * 9 / 10));
    EXPECT_EQ(static_cast<std::uint64_t>(after - before), added * 9 / 10) << "full again too early";
    // In the middle of it: what recovery finds in the new groups.
    auto third = open_on(second->disk->crash(Survival::kNone));
    ASSERT_OK(third);
    EXPECT_EQ(third->report.grown_from_bytes, 0u) << "it has grown already";
    expect_all(*third->db, after);
    ASSERT_OK(third->db->close());
    expect_sound(third->disk->crash(Survival::kNone), round_down(growth.to_bytes, kPageBytes));
  });
}

std::string name_of(const testing::TestParamInfo<Growth>& info) {
  const Growth& g = info.param;
  return "From" + std::to_string(g.from_bytes >> 20) + "To" + std::to_string(g.to_bytes >> 20) + (g.clean ? "Clean" : "Cut") +
         (g.littered ? "Littered" : "");
}

// A space map is there each 126 MiB: within the first group, into the second, over the second into the third.
INSTANTIATE_TEST_SUITE_P(Sizes, EngineGrow,
                         testing::Values(Growth{24_MiB, 40_MiB, true, false}, Growth{20_MiB, 100_MiB, false, true},
                                         Growth{24_MiB, 160_MiB, true, true}, Growth{120_MiB, 290_MiB + 512, false, true}),
                         name_of);

TEST(EngineGrowth, MayHappenAgainAndAgainAndByLittle) {
  on_cores(1, [](runtime::Runtime&) {
    auto disk = blank_disk(16_MiB);
    int count = 0;
    for (std::uint64_t size_bytes = 16_MiB; size_bytes < 22_MiB; size_bytes += 700 << 10) {
      disk->grow(size_bytes);
      auto open = open_on(std::move(disk));
      ASSERT_OK(open);
      const int before = count;
      count = fill(*open->db, count, 100'000);
      EXPECT_GT(count, before);
      ASSERT_OK(open->db->close());
      disk = open->disk->crash(Survival::kNone);
      expect_sound(disk->snapshot(Survival::kAll), size_bytes);
    }
    // Less than a page more is no more.
    disk->grow(disk->info().size_bytes + 512);
    auto open = open_on(std::move(disk));
    ASSERT_OK(open);
    EXPECT_EQ(open->report.grown_from_bytes, 0u);
    expect_all(*open->db, count);
  });
}

TEST(EngineGrowth, ADeviceThatBecameSmallerThanItsDiskGrewToIsRefused) {
  on_cores(1, [](runtime::Runtime&) {
    auto first = open_on(blank_disk(24_MiB));
    ASSERT_OK(first);
    ASSERT_OK(first->db->close());
    auto larger = first->disk->crash(Survival::kNone);
    larger->grow(40_MiB);
    auto second = open_on(std::move(larger));
    ASSERT_OK(second);
    ASSERT_OK(second->db->close());
    auto cut = blank_disk(24_MiB);
    std::string bytes(24_MiB, '\0');
    second->disk->peek(0, std::as_writable_bytes(std::span(bytes)));
    cut->poke(0, as_bytes(bytes));
    const auto refused = open_on(std::move(cut));
    ASSERT_TRUE(refused.failed_with(Code::kTooSmall));
    EXPECT_NE(refused.error().message().find("cut short; enlarge it to its old size"), std::string::npos) << refused.error().message();
  });
}

// The new end of the device cannot be written: told, and the disk is what it was.
TEST(EngineGrowth, ThatFailsIsToldAndLeavesTheOldDisk) {
  for (const blockdev::Op broken : {blockdev::Op::kWrite, blockdev::Op::kFlush}) {
    on_cores(1, [broken](runtime::Runtime&) {
      auto first = open_on(blank_disk(24_MiB));
      ASSERT_OK(first);
      const int count = fill(*first->db, 0, 20);
      ASSERT_OK(first->db->close());
      auto larger = first->disk->crash(Survival::kNone);
      larger->grow(200_MiB);
      litter(*larger, 24_MiB);
      auto later = larger->snapshot(Survival::kAll);
      larger->set_plan({.rules = {{.fault = blockdev::Fault::kError, .op = broken}}});
      const auto refused = open_on(std::move(larger));
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().to_string().find("taking the new space of an enlarged disk into use"), std::string::npos)
          << refused.error().to_string();
      auto second = open_on(std::move(later));
      ASSERT_OK(second);
      expect_all(*second->db, count);
    });
  }
}

}  // namespace
}  // namespace kelda::engine
