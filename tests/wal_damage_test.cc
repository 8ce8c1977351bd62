// Damage and odd ends: found where it matters, tolerated only at the end of the log.
#include <map>

#include "disk/layout.h"
#include "wal/batch.h"
#include "wal/log_buffer.h"
#include "wal/record.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::Fault;
using blockdev::MemoryDevice;
using blockdev::Op;
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

// The record with this LSN, for a batch by hand. A change's `prev_lsn` is taken from what `pool` has, if there is one.
std::vector<std::byte> record_of(const RecordSpec& spec, std::uint64_t lsn, const bufferpool::BufferPool* pool = nullptr) {
  std::vector<std::byte> out(encoded_bytes(spec));
  encode(spec, pool, out.size(), out.data());
  set_lsn(out.data(), Lsn{lsn});
  return out;
}

// Puts a batch by hand after the last one.
void forge_batch(MemoryDevice& disk, const disk::Layout& layout, std::uint64_t cut, const std::vector<std::vector<std::byte>>& records,
                 std::uint64_t first_lsn, std::uint64_t last_lsn, std::uint64_t previous_checksum_xor = 0) {
  const auto [offset, last] = batches_on(disk, layout).rbegin()->second;
  const std::uint64_t position = last.position + round_up(last.bytes, 4096);
  ASSERT_LT(position % layout.log_bytes + 4096, layout.log_bytes);
  auto unit = allocate_aligned(4096, 4096);
  std::memset(unit->get(), 0, 4096);
  std::uint64_t at = sizeof(BatchHeader);
  for (const std::vector<std::byte>& record : records) {
    std::memcpy(unit->get() + at, record.data(), record.size());
    at += record.size();
  }
  BatchHeader header{};
  header.sequence = last.sequence + 1;
  header.position = position;
  header.bytes = static_cast<std::uint32_t>(at);
  header.record_count = static_cast<std::uint32_t>(records.size());
  header.first_lsn = first_lsn;
  header.last_lsn = last_lsn;
  header.cut = cut;
  header.previous_checksum = last.checksum ^ previous_checksum_xor;
  seal_batch(unit->get(), header, layout.checksum_seed());
  disk.poke(layout.log_offset + position % layout.log_bytes, Bytes(unit->get(), 4096));
}

// Of records that add to the count of tree 9.
void forge_batch(MemoryDevice& disk, const disk::Layout& layout, std::uint64_t cut, std::vector<std::uint64_t> lsns,
                 std::uint64_t previous_checksum_xor = 0) {
  std::vector<std::vector<std::byte>> records;
  for (const std::uint64_t lsn : lsns) records.push_back(record_of({.count = {TreeId{9}, 1}}, lsn));
  forge_batch(disk, layout, cut, records, lsns.front(), lsns.back(), previous_checksum_xor);
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

// Checksums that fit, and what they cover is nonsense: a batch of another program, or of memory that failed.
TEST(WalDamage, RecordsOfAWrongShapeAreCorruption) {
  disk::Layout layout;
  auto sound = five_commits(layout);
  const std::uint64_t next = scan(*sound)->last.value + 1;
  const std::vector<std::byte> seven(7), sixteen(16), twenty(kUndoCopyHeaderBytes, std::byte{1});
  auto cut_off = record_of({.count = {TreeId{9}, 1}}, next);
  cut_off.resize(cut_off.size() - 8);
  const PageChange short_payload{PageId{1}, CounterPages::kSet, seven}, nowhere{PageId{1}, CounterPages::kSet, sixteen};
  auto copy = power_cut(*sound, Survival::kAll);
  auto db = Db::open(*copy);  // for the LSN that page 1 has
  ASSERT_OK(db);
  ASSERT_OK((*db)->pages->get({PageId{1}, 0}));
  auto beyond = record_of({.changes = {&nowhere, 1}}, next, (*db)->pool.get());
  const std::uint64_t page_and_op = (std::uint64_t{1} << 40) | std::uint64_t{CounterPages::kFormat} << 56;
  std::memcpy(beyond.data() + sizeof(RecordHeader), &page_and_op, sizeof page_and_op);
  const struct {
    const char* what;
    std::vector<std::byte> record;
  } cases[] = {
      {"a record is cut off", cut_off},
      {"a copy of an undo entry without its head", record_of({.kind = RecordKind::kUndoCopy, .undo = seven}, next)},
      {"a copy of an undo entry without its end", record_of({.kind = RecordKind::kUndoCopy, .undo = twenty}, next)},
      {"counts of no size", record_of({.kind = RecordKind::kCounts, .undo = seven}, next)},
      {"a change that its handler refuses", record_of({.changes = {&short_payload, 1}}, next, (*db)->pool.get())},
      {"a page beyond the disk", beyond},
  };
  for (const auto& [what, record] : cases) {
    auto disk = power_cut(*sound, Survival::kAll);
    forge_batch(*disk, layout, next + 1, {record}, next, next);
    const auto opened = Db::open(*disk);
    EXPECT_TRUE(opened.failed_with(Code::kCorrupt)) << what;
  }
  // Behind the cut, too: it is looked at when the log ends.
  auto disk = power_cut(*sound, Survival::kAll);
  forge_batch(*disk, layout, next, {record_of({.changes = {&short_payload, 1}}, next, (*db)->pool.get())}, next, next);
  EXPECT_TRUE(Db::open(*disk).failed_with(Code::kCorrupt));
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

// The log is longer than what its reader reads at once, so that batches cross the end of a piece; with one of its batches
// damaged, the reader looks for later ones, too.
TEST(WalDamage, AReadThatFailsInRecoveryIsAnErrorAndCostsNothing) {
  auto sound = new_disk({.size_bytes = 32_MiB}, kWideRing);
  disk::Layout layout;
  {
    auto db = Db::open_with_page(*sound);
    ASSERT_OK(db);
    layout = (*db)->superblock.layout();
    OpenTxn txn(**db);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 0}, 1, 1));
    ASSERT_OK((*db)->log->checkpoint());
    ASSERT_OK((*db)->pages->commit_durably(txn));
    for (int i = 0; i < 11; ++i) {
      const auto lsn = (*db)->pages->noise(PageId{1}, 110 << 10);
      ASSERT_OK(lsn);
      ASSERT_OK((*db)->log->wait_durable(*lsn));
    }
    OpenTxn loser(**db);
    ASSERT_OK((*db)->pages->add(loser, {PageId{1}, 0}, 7));
    ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    sound = power_cut(*sound, Survival::kNone);
  }
  const auto batches = batches_on(*sound, layout);
  for (std::uint64_t damaged = 0; damaged < 6; ++damaged) {  // 0: none; else how far from the end
    auto disk = power_cut(*sound, Survival::kAll);
    if (damaged > 0) disk->flip_bit(std::next(batches.rbegin(), static_cast<int>(damaged))->second.first + 100, 1);
    bool passed = false;
    std::uint64_t reads = 0;
    for (; !passed; ++reads) {
      auto copy = power_cut(*disk, Survival::kAll);
      copy->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .skip = reads}}});
      const auto opened = Db::open(*copy);
      passed = copy->faults_hit() == 0;
      copy->set_plan({});
      const auto again = Db::open(*copy);
      if (damaged > 0) {
        EXPECT_FALSE(opened.has_value());
        EXPECT_TRUE(again.failed_with(Code::kCorrupt));
      } else {
        EXPECT_TRUE(opened.has_value() || opened.failed_with(Code::kIo)) << "read " << reads << ": " << opened.error().to_string();
        ASSERT_OK(again);
        EXPECT_EQ(*(*again)->pages->get({PageId{1}, 0}), 1) << "after read " << reads << " failed";
      }
    }
    EXPECT_GT(reads, 4U);
  }
}

// The page that a loser changed does not verify, and nothing in the log touches it: only its undo needs it.
TEST(WalDamage, AnUndoThatMeetsADamagedPageSaysWhichRecord) {
  auto disk = new_disk();
  disk::Layout layout;
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    layout = (*db)->superblock.layout();
    OpenTxn loser(**db);
    ASSERT_OK((*db)->pages->add(loser, {PageId{1}, 0}, 1, 1));
    ASSERT_OK((*db)->log->checkpoint());
    disk = power_cut(*disk, Survival::kNone);
  }
  disk->poke(layout.offset_of(PageId{1}), std::vector<std::byte>(kPageBytes));
  disk->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
  const auto opened = Db::open(*disk);
  ASSERT_FALSE(opened.has_value());
  EXPECT_NE(opened.error().message().find("undo of log record"), std::string::npos) << opened.error().to_string();
}

// More losers than a log buffer has room for what their undo logs: recovery writes the log before its checkpoint does.
TEST(WalDamage, AWriteThatFailsInRecoveryIsAnErrorAndCostsNothing) {
  auto sound = new_disk();
  {
    auto db = Db::open_with_page(*sound);
    ASSERT_OK(db);
    std::vector<std::unique_ptr<OpenTxn>> losers;
    for (std::uint32_t i = 0; i < 1500; ++i) {
      losers.push_back(std::make_unique<OpenTxn>(**db));
      ASSERT_OK((*db)->pages->add(*losers.back(), {PageId{1}, i % 400}, 1, 1));
    }
    ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    sound = power_cut(*sound, Survival::kNone);
  }
  bool passed = false;
  std::uint64_t writes = 0;
  for (; !passed; ++writes) {
    auto disk = power_cut(*sound, Survival::kAll);
    disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .skip = writes}}});
    const auto opened = Db::open(*disk);
    passed = disk->faults_hit() == 0;
    EXPECT_EQ(opened.has_value(), passed) << "write " << writes;
    auto rebooted = power_cut(*disk, Survival::kRandom, writes + 1);
    auto db = Db::open(*rebooted);
    ASSERT_OK(db);
    EXPECT_EQ((*db)->log->count_of(kTree), 0);
    for (std::uint32_t i = 0; i < 400; ++i) ASSERT_EQ(*(*db)->pages->get({PageId{1}, i}), 0) << "after write " << writes << " failed";
  }
  EXPECT_GT(writes, 4U);
}

// Whether a page without its base is in use cannot be asked either.
TEST(WalDamage, APageWithoutItsBaseAndAMapThatDoesNotVerify) {
  constexpr PageId kMap{1}, kPage{2};
  const DbOptions options{.free_map = kMap};
  auto disk = new_disk();
  disk::Layout layout;
  {
    auto db = Db::open(*disk, options);
    ASSERT_OK(db);
    layout = (*db)->superblock.layout();
    for (PageId page : {kMap, kPage}) ASSERT_OK((*db)->pages->format(page));
    ASSERT_OK((*db)->log->checkpoint());
    const auto lsn = (*db)->pages->noise(kPage, 100);
    ASSERT_OK(lsn);
    ASSERT_OK((*db)->log->wait_durable(*lsn));
    disk = power_cut(*disk, Survival::kNone);
  }
  for (PageId page : {kMap, kPage}) disk->poke(layout.offset_of(page), std::vector<std::byte>(kPageBytes));
  disk->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
  EXPECT_FALSE(Db::open(*disk, options).has_value());
}

}  // namespace
}  // namespace kelda::wal
