// The ring: it goes round, old transactions do not hold it, and too much is refused before anything is latched.
#include "wal/batch.h"
#include "wal/ring_space.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::Survival;

TEST(WalRing, GoesRoundManyTimesWithAnOldTransactionOpen) {
  auto disk = new_disk();
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    OpenTxn old(**db);
    for (std::uint32_t i = 0; i < 100; ++i) ASSERT_OK((*db)->pages->add(old, {PageId{1}, i}, 1, 1));
    // Fifteen times the ring, with nobody but the writers to make room.
    for (int i = 0; i < 300; ++i) ASSERT_OK((*db)->pages->noise(PageId{1}, 100 << 10));
    const auto stats = (*db)->log->stats();
    EXPECT_GT(stats.written_bytes, 10 * stats.capacity_bytes);
    EXPECT_LE(stats.used_bytes, stats.capacity_bytes);
    EXPECT_GT(stats.checkpoints, 10U);
    ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    disk = power_cut(*disk, Survival::kNone);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ((*db)->report.undone_entries, 100U);
  for (std::uint32_t i = 0; i < 100; ++i) EXPECT_EQ(*(*db)->pages->get({PageId{1}, i}), 0);
  EXPECT_EQ((*db)->log->count_of(kTree), 0);
}

// A commit on the first way round finds its place written before, and nothing is zeroed on the second.
TEST(WalRing, FirstWayRoundIsWrittenAhead) {
  auto disk = new_disk();
  const disk::Layout layout = disk::Superblock::read(*disk)->layout();
  const std::uint64_t near = layout.log_offset + 32_KiB, far = layout.log_offset + layout.log_bytes - 4096;
  std::vector<std::byte> unit(4096, std::byte{0xee});
  for (const std::uint64_t at : {near, far}) disk->poke(at, unit);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  disk->peek(near, unit);
  EXPECT_EQ(unit, std::vector<std::byte>(4096));
  disk->peek(far, unit);
  EXPECT_EQ(unit, std::vector<std::byte>(4096, std::byte{0xee}));
  ASSERT_OK((*db)->pages->format(PageId{1}));
  const auto before = disk->stats().write_bytes;
  const auto batches_before = (*db)->log->stats().written_bytes;
  for (int i = 0; i < 40; ++i) ASSERT_OK((*db)->pages->noise(PageId{1}, 100 << 10));
  ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
  const auto ring_bytes = (*db)->log->stats().written_bytes - batches_before;
  const auto zeroes_and_pages = disk->stats().write_bytes - before - ring_bytes;
  EXPECT_LT(zeroes_and_pages, layout.log_bytes + 1_MiB) << "the second way round is zeroed, too";
}

TEST(WalRing, AnOldTransactionRollsBackAfterTheRingWentRound) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  OpenTxn old(**db);
  ASSERT_OK((*db)->pages->add(old, {PageId{1}, 3}, 1, 1));
  for (int i = 0; i < 60; ++i) ASSERT_OK((*db)->pages->noise(PageId{1}, 100 << 10));
  ASSERT_OK((*db)->pages->roll_back(old));
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 3}), 0);
}

TEST(WalRing, ATransactionOverItsShareIsRefusedAndCanRollBack) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  OpenTxn txn(**db);
  Result<> added;
  std::uint64_t count = 0;
  for (; added && count < 100'000; ++count) added = (*db)->pages->add(txn, {PageId{1}, static_cast<std::uint32_t>(count % 400)}, 1, 1);
  ASSERT_TRUE(added.failed_with(Code::kTooLarge));
  EXPECT_GT(count, 1000U);
  ASSERT_OK((*db)->pages->roll_back(txn));
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 3}), 0);
  EXPECT_EQ((*db)->log->count_of(kTree), 0);
}

TEST(WalRing, OpenTransactionsTogetherOverTheirShareConflictInsteadOfBlockingEachOther) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  OpenTxn one(**db), two(**db);
  Result<> added;
  for (std::uint32_t i = 0; added && i < 100'000; ++i) added = (*db)->pages->add(i % 2 ? one : two, {PageId{1}, i % 400}, 1, 1);
  ASSERT_TRUE(added.failed_with(Code::kConflict)) << added.error().to_string();
  ASSERT_OK((*db)->pages->roll_back(one));
  ASSERT_OK((*db)->pages->add(two, {PageId{1}, 0}, 1, 1));
  ASSERT_OK((*db)->pages->commit_durably(two));
}

TEST(WalRing, ARecordOverTheLimitIsRefused) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_TRUE((*db)->log->reserve(nullptr, kMaxReserveBytes + 1).failed_with(Code::kTooLarge));
  EXPECT_TRUE((*db)->log->reserve(nullptr, kMaxReserveBytes, 1000).failed_with(Code::kTooLarge));
  EXPECT_TRUE((*db)->log->reserve(nullptr, kMaxReserveBytes).has_value());
}

TEST(WalRing, ReservationsGiveBackWhatTheyDidNotUse) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  OpenTxn txn(**db);
  for (int i = 0; i < 1000; ++i) ASSERT_OK((*db)->log->reserve(&txn, kMaxReserveBytes));
  const auto batches = (*db)->log->stats().batches;
  ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 0}, 1));
  EXPECT_EQ((*db)->log->stats().batches, batches);
  ASSERT_OK((*db)->pages->commit_durably(txn));
}

TEST(WalRing, NoBatchPassesTheEndOfTheRing) {
  constexpr std::uint64_t kUnit = 4096;
  for (std::uint64_t to_end = 0; to_end <= 8; ++to_end) {
    for (std::uint64_t units = 1; units <= 8; ++units) {
      RingSpace space(2_MiB, kUnit, 128 << 10);
      const std::uint64_t head = 2_MiB - to_end * kUnit;
      space.restart(head, head);
      const std::uint64_t position = space.place(units * kUnit);
      EXPECT_EQ(position, units <= to_end || to_end == 0 ? head : 2_MiB) << units << " units, " << to_end << " to the end";
    }
  }
}

TEST(WalRing, SpaceLimitsAreOrderedAndNeverPassTheCapacity) {
  RingSpace space(2_MiB, 4096, 128 << 10);
  std::uint64_t ordinary = 0, roll_back = 0, checkpoint = 0, recovery = 0;
  // Batches stand for what is used; promises end with each.
  std::uint64_t at = 0;
  while (space.promise(8192, Purpose::kRecovery)) {
    ordinary += space.within_limit(0, Purpose::kOrdinary);
    roll_back += space.within_limit(0, Purpose::kRollBack);
    checkpoint += space.within_limit(0, Purpose::kCheckpoint);
    ++recovery;
    at = space.place(8192);
    space.written(at, 8192, 8192);
  }
  EXPECT_LT(ordinary, roll_back);
  EXPECT_LT(roll_back, checkpoint);
  EXPECT_LT(checkpoint, recovery);
  EXPECT_LE(space.used() + space.max_batch_bytes(), space.capacity());
  EXPECT_FALSE(space.promise(1, Purpose::kOrdinary));
  space.free_before(at);
  EXPECT_TRUE(space.promise(1, Purpose::kOrdinary));
}

}  // namespace
}  // namespace kelda::wal
