// Damage and odd ends: found where it matters, tolerated only at the end of the log.
#include <map>

#include "disk/layout.h"
#include "wal/batch.h"
#include "wal/log_buffer.h"
#include "wal/record.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;

// Device offsets of the batches of a log, by sequence, found by looking at every unit of the ring.
std::map<std::uint64_t, std::pair<std::uint64_t, BatchHeader>> batches_on(const MemoryDevice& disk, const disk::Layout& layout) {
  std::map<std::uint64_t, std::pair<std::uint64_t, BatchHeader>> found;
  std::vector<std::byte> unit(4096);
  for (std::uint64_t at = 0; at < layout.log_bytes; at += 4096) {
    disk.peek(layout.log_offset + at, unit);
    BatchHeader header;
    if (plausible_header(unit.data(), 4 << 20, header)) found[header.sequence] = {layout.log_offset + at, header};
  }
  return found;
}

// Five commits, five batches, then a power cut.
std::unique_ptr<MemoryDevice> five_commits(disk::Layout& layout) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  EXPECT_TRUE(db.has_value());
  layout = (*db)->superblock.layout();
  EXPECT_TRUE((*db)->pages->format(PageId{1}).has_value());
  EXPECT_TRUE((*db)->log->checkpoint().has_value());
  for (std::uint32_t i = 0; i < 5; ++i) {
    TxnLog txn;
    (*db)->log->begin(txn);
    EXPECT_TRUE((*db)->pages->add(txn, {PageId{1}, i}, 1, 1).has_value());
    EXPECT_TRUE((*db)->pages->commit_durably(txn).has_value());
  }
  return power_cut(*disk, Survival::kNone);
}

Result<LogScanReport> scan(MemoryDevice& disk) { return scan_log(disk, TRY(disk::Superblock::read(disk))); }

TEST(WalDamage, ScanTellsWhatTheLogHolds) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const auto report = scan(*disk);
  ASSERT_OK(report);
  EXPECT_GE(report->batches, 6U);
  EXPECT_GE(report->records, 12U);
  EXPECT_EQ(report->last.value - report->first.value + 1, report->records);
  EXPECT_FALSE(report->ends_torn);
}

TEST(WalDamage, AFlippedBitInAnyBatchButTheLastIsCorruption) {
  disk::Layout layout;
  auto sound = five_commits(layout);
  const auto batches = batches_on(*sound, layout);
  const std::uint64_t last = batches.rbegin()->first;
  for (std::uint64_t sequence = last - 4; sequence < last; ++sequence) {
    const auto& [offset, header] = batches.at(sequence);
    for (const std::uint64_t byte : {std::uint64_t{0}, std::uint64_t{9}, std::uint64_t{16}, std::uint64_t{33}, std::uint64_t{header.bytes} - 1}) {
      auto disk = power_cut(*sound, Survival::kAll);
      disk->flip_bit(offset + byte, 1);
      const auto opened = Db::open(*disk);
      ASSERT_TRUE(opened.failed_with(Code::kCorrupt)) << "batch " << sequence << " byte " << byte;
      EXPECT_NE(opened.error().message().find(std::to_string(sequence)), std::string::npos) << opened.error().message();
      EXPECT_TRUE(scan(*disk).failed_with(Code::kCorrupt));
    }
  }
}

TEST(WalDamage, ADamagedLastBatchIsTheEndOfTheLog) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const auto [offset, header] = batches_on(*disk, layout).rbegin()->second;
  disk->flip_bit(offset + header.bytes - 1, 0);
  const auto report = scan(*disk);
  ASSERT_OK(report);
  EXPECT_TRUE(report->ends_torn);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 3}), 1);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 4}), 0);
  EXPECT_EQ((*db)->log->count_of(kTree), 4);
}

TEST(WalDamage, AMissingCheckpointIsCorruptionNotAnEmptyLog) {
  auto disk = new_disk();
  disk::Layout layout;
  {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    layout = (*db)->superblock.layout();
    ASSERT_OK((*db)->pages->format(PageId{1}));
    ASSERT_OK((*db)->log->checkpoint(true));
    disk = power_cut(*disk, Survival::kNone);
  }
  const auto [offset, header] = batches_on(*disk, layout).rbegin()->second;
  disk->flip_bit(offset + header.bytes - 1, 0);
  EXPECT_TRUE(scan(*disk).failed_with(Code::kCorrupt));
  EXPECT_TRUE(Db::open(*disk).failed_with(Code::kCorrupt));
}

// Puts a batch by hand after the last one, with records that add to the count of tree 9.
void forge_batch(MemoryDevice& disk, const disk::Layout& layout, std::uint64_t cut, std::vector<std::uint64_t> lsns,
                 std::uint64_t previous_checksum_xor = 0) {
  const auto [offset, last] = batches_on(disk, layout).rbegin()->second;
  const std::uint64_t position = last.position + round_up(last.bytes, 4096);
  ASSERT_LT(position % layout.log_bytes + 4096, layout.log_bytes);
  const RecordSpec spec{.count = {TreeId{9}, 1}};
  const std::uint64_t bytes = encoded_bytes(spec);
  auto unit = allocate_aligned(4096, 4096);
  std::memset(unit->get(), 0, 4096);
  std::uint64_t at = sizeof(BatchHeader);
  for (const std::uint64_t lsn : lsns) {
    encode(spec, nullptr, bytes, unit->get() + at);
    set_lsn(unit->get() + at, Lsn{lsn});
    at += bytes;
  }
  BatchHeader header{};
  header.sequence = last.sequence + 1;
  header.position = position;
  header.bytes = static_cast<std::uint32_t>(at);
  header.record_count = static_cast<std::uint32_t>(lsns.size());
  header.first_lsn = lsns.front();
  header.last_lsn = lsns.back();
  header.cut = cut;
  header.previous_checksum = last.checksum ^ previous_checksum_xor;
  seal_batch(unit->get(), header, layout.checksum_seed());
  disk.poke(layout.log_offset + position % layout.log_bytes, Bytes(unit->get(), 4096));
}

TEST(WalDamage, RecordsAfterAGapAreDroppedForGood) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const std::uint64_t next = scan(*disk)->last.value + 1;
  // The leader's cut was `next`; of what it caught above, one record is there and the one before it is not.
  forge_batch(*disk, layout, next, {next, next + 2, next + 3});
  for (int start = 0; start < 3; ++start) {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_EQ((*db)->log->count_of(TreeId{9}), 1) << start;
    TxnLog txn;
    (*db)->log->begin(txn);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 10}, 1, 0));
    ASSERT_OK((*db)->pages->commit_durably(txn));
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 10}), start + 1);
    disk = power_cut(*disk, Survival::kNone);
  }
}

// The same with recovery cut before its checkpoint: the next one reads the dropped records and their successors together.
TEST(WalDamage, DroppedRecordsStayDroppedWhenRecoveryIsCut) {
  disk::Layout layout;
  auto crashed = five_commits(layout);
  const std::uint64_t next = scan(*crashed)->last.value + 1;
  forge_batch(*crashed, layout, next, {next, next + 2, next + 3});
  bool recovered = false;
  for (std::uint64_t ops = 0; !recovered; ++ops) {
    auto disk = power_cut(*crashed, Survival::kAll);
    disk->set_plan({.crash_after_ops = ops});
    recovered = Db::open(*disk).has_value();
    disk = power_cut(*disk, Survival::kRandom, ops + 1);
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_EQ((*db)->log->count_of(TreeId{9}), 1) << "cut at " << ops;
  }
}

TEST(WalDamage, ABatchOfAnotherHistoryIsNotTaken) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const std::uint64_t next = scan(*disk)->last.value + 1;
  forge_batch(*disk, layout, next + 1, {next}, /*previous_checksum_xor=*/1);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ((*db)->log->count_of(TreeId{9}), 0);
}

TEST(WalDamage, AMissingRecordBelowTheCutIsCorruption) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const std::uint64_t next = scan(*disk)->last.value + 1;
  forge_batch(*disk, layout, next + 3, {next, next + 2});
  const auto opened = Db::open(*disk);
  ASSERT_TRUE(opened.failed_with(Code::kCorrupt));
  EXPECT_NE(opened.error().message().find(std::to_string(next + 1)), std::string::npos);
}

TEST(WalDamage, APageThatDoesNotVerifyIsCorruptionUnlessItIsOverwrittenOrFree) {
  disk::Layout layout;
  auto disk = five_commits(layout);
  const std::vector<std::byte> zeroes(kPageBytes);
  {
    auto damaged = power_cut(*disk, Survival::kAll);
    damaged->poke(layout.offset_of(PageId{1}), zeroes);
    damaged->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
    const auto opened = Db::open(*damaged);
    ASSERT_TRUE(opened.failed_with(Code::kCorrupt));
    EXPECT_NE(opened.error().message().find("page 1"), std::string::npos) << opened.error().message();
  }
  // Formatting the page anew in the log makes the damage irrelevant.
  {
    disk = power_cut(*disk, Survival::kAll);
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    ASSERT_OK((*db)->pages->format(PageId{1}));
    TxnLog txn;
    (*db)->log->begin(txn);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 10}, 5, 0));
    ASSERT_OK((*db)->pages->commit_durably(txn));
    disk = power_cut(*disk, Survival::kNone);
  }
  disk->poke(layout.offset_of(PageId{1}), zeroes);
  disk->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 10}), 5);
}

}  // namespace
}  // namespace kelda::wal
