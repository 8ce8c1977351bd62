// What survives: clean shutdowns, a failed flush, a full disk, damage; and the disks that are refused. Power cuts:
// crash_every_io_test.cc.
#include <algorithm>
#include <array>

#include "engine/check.h"
#include "engine_support.h"

namespace kelda::engine {
namespace {

constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};

Result<DiskCheck> check(blockdev::MemoryDevice& disk) {
  return check_disk(disk.crash(blockdev::Survival::kAll), {.memory_bytes = 24_MiB}, kNoProgress);
}

std::string text_of(const DiskCheck& checked) {
  std::string text;
  for (const auto& problem : checked.problems) text += problem + "\n";
  return text;
}

// Counts reads, and the calls that start them.
class CountingDevice final : public blockdev::BlockDevice {
 public:
  struct Counts { std::uint64_t reads = 0, calls = 0; };
  CountingDevice(std::unique_ptr<blockdev::MemoryDevice> disk, Counts& counts) : disk_(std::move(disk)), counts_(counts) {}
  const blockdev::DeviceInfo& info() const override { return disk_->info(); }
  void submit(std::span<blockdev::Request* const> requests) override {
    const auto reads = std::ranges::count_if(requests, [](const blockdev::Request* r) { return r->op == blockdev::Op::kRead; });
    counts_.reads += static_cast<std::uint64_t>(reads);
    counts_.calls += reads > 0 ? 1 : 0;
    disk_->submit(requests);
  }
  blockdev::DeviceStats stats() const override { return disk_->stats(); }

 private:
  std::unique_ptr<blockdev::MemoryDevice> disk_;
  Counts& counts_;
};

// A disk with changes of some thousand leaves in the log, each in a commit, so a batch, of its own.
std::unique_ptr<blockdev::MemoryDevice> disk_with_much_to_redo() {
  constexpr int kKeys = 40'000, kStep = 7;
  const auto key = [](int i) { return "key" + std::to_string(100'000 + i); };
  auto filled = open_on(blank_disk(512_MiB));  // its log has room for all of it
  const Tree tree = *filled->db->tree("t", true);
  for (int i = 0; i < kKeys; i += 1000) {
    auto txn = filled->db->begin();
    for (int k = i; k < i + 1000; ++k) EXPECT_OK(txn->put(tree, key(k), std::string(300, 'a')));
    EXPECT_OK(txn->commit());
  }
  EXPECT_OK(filled->db->checkpoint());
  for (int i = 0; i < 2000; ++i) EXPECT_OK(filled->db->put(tree, key(i * 7919 * kStep % kKeys), std::string(300, 'b')));
  return filled->disk->crash(blockdev::Survival::kNone);
}

void recovers_with_many_reads_at_once() {
  CountingDevice::Counts counts;
  OpenReport report;
  auto db = Database::open(std::make_unique<CountingDevice>(disk_with_much_to_redo(), counts), small_options(), &report);
  ASSERT_OK(db);
  EXPECT_FALSE(report.was_clean);
  EXPECT_GT(counts.reads, 1000u);
  EXPECT_GT(counts.reads, 8 * counts.calls) << counts.reads << " reads";
  std::string value;
  EXPECT_TRUE(*(*db)->get(*(*db)->tree("t", false), "key" + std::to_string(100'000), value));
  EXPECT_EQ(value, std::string(300, 'b'));
}

TEST(EngineCrash, RecoveryReadsManyPagesAtOnce) {
  on_cores(1, [](runtime::Runtime&) { recovers_with_many_reads_at_once(); });
}

TEST(EngineCrash, RecoveryOfAPlainThreadReadsManyPagesAtOnce) { recovers_with_many_reads_at_once(); }

TEST(EngineCrash, CleanShutdownNeedsNoRecovery) {
  on_cores(1, [](runtime::Runtime&) {
    auto first = open_on(blank_disk());
    ASSERT_OK(first);
    EXPECT_TRUE(first->report.created);
    ASSERT_OK(first->db->put(*first->db->tree("t", true), "a", "1"));
    ASSERT_OK(first->db->close());
    auto second = open_on(first->disk->crash(blockdev::Survival::kNone));
    ASSERT_OK(second);
    EXPECT_TRUE(second->report.was_clean);
    EXPECT_FALSE(second->report.created);
    std::string value;
    EXPECT_TRUE(*second->db->get(*second->db->tree("t", false), "a", value));
    EXPECT_EQ(value, "1");
    EXPECT_EQ(second->db->count(*second->db->tree("t", false)), 1u);
  });
}

TEST(EngineCrash, FailedFlushStopsAcknowledgingAndReopenRecovers) {
  on_cores(1, [](runtime::Runtime&) {
    auto first = open_on(std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.has_fua = false}));
    ASSERT_OK(first);
    const Tree tree = *first->db->tree("t", true);
    ASSERT_OK(first->db->put(tree, "a", "1"));
    first->disk->set_plan({.rules = {{.fault = blockdev::Fault::kError, .op = blockdev::Op::kFlush}}});
    EXPECT_TRUE(first->db->put(tree, "b", "2").failed_with(Code::kFailed));
    // The device would take it now, but nothing is retried into silence.
    EXPECT_TRUE(first->db->put(tree, "c", "3").failed_with(Code::kFailed));
    EXPECT_TRUE(first->db->health().failed_with(Code::kFailed));
    EXPECT_GT(first->disk->faults_hit(), 0u);
    auto second = open_on(first->disk->crash(blockdev::Survival::kNone));
    ASSERT_OK(second);
    std::string value;
    EXPECT_TRUE(*second->db->get(*second->db->tree("t", false), "a", value));
    EXPECT_FALSE(*second->db->get(*second->db->tree("t", false), "c", value));
  });
}

// A transaction changes more leaves than memory holds, and then pages cannot be read or written: it cannot be undone.
void roll_back_without_a_disk(blockdev::Op broken) {
  on_cores(1, [&](runtime::Runtime&) {
    DatabaseOptions options = small_options();
    options.memory_bytes = 8_MiB;
    auto first = open_on(blank_disk(), options);
    ASSERT_OK(first);
    Database& db = *first->db;
    const Tree tree = *db.tree("t", true);
    constexpr int kKeys = 30'000, kKeysInALeaf = 30;
    const auto key = [](int i) { return std::to_string(1'000'000 + i); };
    for (int i = 0; i < kKeys;) {
      auto txn = db.begin();
      for (int end = i + 500; i < end; ++i) ASSERT_OK(txn->put(tree, key(i), std::string(100, 'c')));
      ASSERT_OK(txn->commit());
    }
    {
      auto txn = db.begin();
      for (int i = 0; i < kKeys; i += kKeysInALeaf) ASSERT_OK(txn->put(tree, key(i), "never"));
      first->disk->set_plan({.rules = {{.fault = blockdev::Fault::kError, .op = broken, .count = blockdev::FaultRule::kAlways}}});
      ASSERT_FALSE(txn->roll_back().has_value());
      EXPECT_GT(first->disk->faults_hit(), 0u);
    }
    // What could not be undone is not shown, and what was going on ends.
    first->disk->set_plan({});
    std::string value;
    EXPECT_TRUE(db.get(tree, key(0), value).failed_with(Code::kFailed)) << value;
    auto reader = db.begin();
    EXPECT_TRUE(reader->get(tree, key(0), value).failed_with(Code::kFailed)) << value;
    EXPECT_TRUE(reader->scan(tree).failed_with(Code::kFailed));
    reader.reset();
    EXPECT_TRUE(db.checkpoint().failed_with(Code::kFailed));
    EXPECT_TRUE(db.health().failed_with(Code::kFailed));
    EXPECT_FALSE(db.close().has_value());
    auto second = open_on(first->disk->crash(blockdev::Survival::kAll), options);
    ASSERT_OK(second);
    const Tree again = *second->db->tree("t", false);
    for (int i = 0; i < kKeys; i += kKeysInALeaf) {
      ASSERT_TRUE(*second->db->get(again, key(i), value));
      ASSERT_EQ(value, std::string(100, 'c')) << key(i);
    }
    EXPECT_EQ(second->db->count(again), static_cast<std::uint64_t>(kKeys));
    ASSERT_OK(second->db->close());
    auto checked = check(*second->disk);
    ASSERT_OK(checked);
    EXPECT_TRUE(checked->sound()) << text_of(*checked);
  });
}

TEST(EngineCrash, ATransactionThatCannotBeUndoneForReadErrorsIsNotSeen) { roll_back_without_a_disk(blockdev::Op::kRead); }
TEST(EngineCrash, ATransactionThatCannotBeUndoneForWriteErrorsIsNotSeen) { roll_back_without_a_disk(blockdev::Op::kWrite); }

TEST(EngineCrash, FullDiskRefusesWritesAndGoesOnReadingAndDeleting) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk(20_MiB));
    ASSERT_OK(opened);
    Database& db = *opened->db;
    const Tree tree = *db.tree("t", true);
    const std::string value(30'000, 'v');
    int stored = 0;
    Result<> put;
    for (; stored < 2000; ++stored) {
      put = db.put(tree, "k" + std::to_string(stored), value);
      if (!put) break;
    }
    ASSERT_TRUE(put.failed_with(Code::kNoSpace)) << (put ? "never full" : put.error().to_string());
    ASSERT_GT(stored, 10);
    std::string read;
    for (int i = 0; i < stored; ++i) ASSERT_TRUE(*db.get(tree, "k" + std::to_string(i), read));
    for (int i = 0; i < stored; ++i) ASSERT_OK(db.remove(tree, "k" + std::to_string(i)));
    EXPECT_EQ(db.count(tree), 0u);
    ASSERT_OK(db.put(tree, "again", value));
    ASSERT_OK(db.close());
    auto checked = check(*opened->disk);
    ASSERT_OK(checked);
    EXPECT_TRUE(checked->sound()) << text_of(*checked);
  });
}

TEST(EngineCheck, FindsAFlippedBitInEveryUsedPage) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk(20_MiB));
    ASSERT_OK(opened);
    const Tree tree = *opened->db->tree("t", true);
    for (int i = 0; i < 300; ++i) ASSERT_OK(opened->db->put(tree, "key" + std::to_string(i), std::string(100, 'a')));
    ASSERT_OK(opened->db->close());
    auto sound = check(*opened->disk);
    ASSERT_OK(sound);
    ASSERT_TRUE(sound->sound()) << text_of(*sound);
    EXPECT_EQ(sound->verified_pages, sound->used_pages);
    auto damaged = opened->disk->crash(blockdev::Survival::kAll);
    std::array<std::byte, kPageBytes> space_map;
    damaged->peek(sound->layout.pages_offset, space_map);
    std::uint64_t used = 0;
    for (std::uint64_t page = 0; page < 64; ++page) {
      if ((std::to_integer<unsigned>(space_map[disk::kSpaceMapHeaderBytes + page / 8]) >> (page % 8) & 1) == 0) continue;
      ++used;
      auto copy = damaged->crash(blockdev::Survival::kAll);
      copy->flip_bit(sound->layout.pages_offset + page * kPageBytes + 700, 3);
      auto checked = check_disk(std::move(copy), {.memory_bytes = 24_MiB}, kNoProgress);
      ASSERT_OK(checked);
      EXPECT_FALSE(checked->sound()) << "page " << page;
      EXPECT_NE(text_of(*checked).find("page " + std::to_string(page)), std::string::npos) << text_of(*checked);
    }
    EXPECT_EQ(used, sound->used_pages);
    auto copy = damaged->crash(blockdev::Survival::kAll);
    copy->flip_bit(40, 1);
    auto checked = check_disk(std::move(copy), {.memory_bytes = 24_MiB}, kNoProgress);
    ASSERT_OK(checked);
    EXPECT_NE(text_of(*checked).find("superblock"), std::string::npos) << text_of(*checked);
  });
}

TEST(EngineOpen, RefusesWhatItMustNotTouch) {
  on_cores(1, [](runtime::Runtime&) {
    DatabaseOptions no_create = small_options();
    no_create.create_if_blank = false;
    EXPECT_TRUE(open_on(blank_disk(), no_create).failed_with(Code::kBlankDisk));

    auto foreign = blank_disk();
    const std::string text = "this is somebody's text, not a database\n";
    foreign->poke(0, as_bytes(text + std::string(512 - text.size(), ' ')));
    auto refused = open_on(std::move(foreign));
    ASSERT_TRUE(refused.failed_with(Code::kForeignDisk));
    EXPECT_NE(refused.error().message().find("--force"), std::string::npos) << refused.error().message();

    EXPECT_TRUE(open_on(blank_disk(1_MiB)).failed_with(Code::kTooSmall));

    DatabaseOptions tiny = small_options();
    tiny.memory_bytes = 1_MiB;
    EXPECT_TRUE(open_on(blank_disk(), tiny).failed_with(Code::kTooSmall));

    auto no_flush = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.has_flush = false, .has_fua = false});
    auto no_flush_again = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.has_flush = false, .has_fua = false});
    auto error = open_on(std::move(no_flush));
    ASSERT_TRUE(error.failed_with(Code::kNoFlush));
    EXPECT_NE(error.error().message().find("--durability=none"), std::string::npos);
    DatabaseOptions none = small_options();
    none.durability = DurabilityMode::kNone;
    auto accepted = open_on(std::move(no_flush_again), none);
    ASSERT_OK(accepted);
    ASSERT_OK(accepted->db->put(*accepted->db->tree("t", true), "a", "1"));
    ASSERT_OK(accepted->db->close());
  });
}

}  // namespace
}  // namespace kelda::engine
