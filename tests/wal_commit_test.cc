// What a user of the log relies on: commits survive, what did not commit is undone, counts are exact.
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::Survival;

TEST(WalCommit, CommittedSurvivesAPowerCutThatKeepsNothingUnflushed) {
  auto disk = new_disk();
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    OpenTxn txn(**db);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 5}, 42, 1));
    ASSERT_OK((*db)->pages->commit_durably(txn));
    disk = power_cut(*disk, Survival::kNone);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 5}), 42);
  EXPECT_EQ((*db)->log->count_of(kTree), 1);
  EXPECT_FALSE((*db)->report.was_clean);
  EXPECT_EQ((*db)->report.committed_txns, 1U);
}

TEST(WalCommit, UncommittedIsUndoneAlsoWhenItsPagesWereWritten) {
  auto disk = new_disk();
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    OpenTxn winner(**db), loser(**db);
    ASSERT_OK((*db)->pages->add(winner, {PageId{1}, 0}, 1, 1));
    ASSERT_OK((*db)->pages->add(loser, {PageId{1}, 0}, 10, 1));
    ASSERT_OK((*db)->pages->add(loser, {PageId{1}, 1}, 10, 1));
    ASSERT_OK((*db)->pages->commit_durably(winner));
    ASSERT_OK((*db)->pool->write_back_all());
    disk = power_cut(*disk, Survival::kNone);
  }
  for (int start = 0; start < 3; ++start) {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 0}), 1);
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 1}), 0);
    EXPECT_EQ((*db)->log->count_of(kTree), 1);
    EXPECT_EQ((*db)->report.undone_txns, start == 0 ? 1U : 0U);
    disk = power_cut(*disk, Survival::kNone);
  }
}

TEST(WalCommit, RollBackRestoresAndIsNotRepeatedByRecovery) {
  auto disk = new_disk();
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    OpenTxn txn(**db);
    for (std::uint32_t i = 0; i < 20; ++i) ASSERT_OK((*db)->pages->add(txn, {PageId{1}, i}, 7, 1));
    ASSERT_OK((*db)->pages->roll_back(txn));
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 3}), 0);
    EXPECT_EQ((*db)->log->count_of(kTree), 0);
    ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    disk = power_cut(*disk, Survival::kNone);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_EQ((*db)->report.undone_entries, 0U);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 3}), 0);
  EXPECT_EQ((*db)->log->count_of(kTree), 0);
}

TEST(WalCommit, CleanShutdownNeedsNoRecoveryAndTheNextCrashIsNotTakenForClean) {
  auto disk = new_disk();
  {
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    OpenTxn txn(**db);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 5}, 1, 3));
    EXPECT_TRUE((*db)->log->checkpoint(true).failed_with(Code::kBusy));
    ASSERT_OK((*db)->pages->commit_durably(txn));
    ASSERT_OK((*db)->log->checkpoint(true));
    EXPECT_TRUE((*db)->log->reserve(nullptr, 1).failed_with(Code::kClosed));
    disk = power_cut(*disk, Survival::kNone);
  }
  {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_TRUE((*db)->report.was_clean);
    EXPECT_EQ((*db)->report.redone_changes, 0U);
    EXPECT_EQ((*db)->log->count_of(kTree), 3);
    OpenTxn txn(**db);
    ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 5}, 1, 1));
    ASSERT_OK((*db)->pages->commit_durably(txn));
    disk = power_cut(*disk, Survival::kNone);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_FALSE((*db)->report.was_clean);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 5}), 2);
  EXPECT_EQ((*db)->log->count_of(kTree), 4);
}

TEST(WalCommit, DurabilityNoneAnswersAtOnceButNeverClaimsWhatIsNotFlushed) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk, {.log = {.durability = Durability::kNone}});
  ASSERT_OK(db);
  OpenTxn txn(**db);
  ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 5}, 42, 1));
  const auto commit = (*db)->pages->commit(txn);
  ASSERT_OK(commit);
  const auto batches = (*db)->log->stats().batches;
  ASSERT_OK((*db)->log->wait_commit(*commit));
  EXPECT_EQ((*db)->log->stats().batches, batches);
  EXPECT_LT((*db)->log->durable(), *commit);
  // The background writer brings it to the disk within about a second.
  auto& core = runtime::Core::current();
  runtime::Completion ended;
  ended.add();
  ASSERT_OK(core.spawn([&] {
    (*db)->log->checkpoint_loop();
    ended.done();
  }));
  const auto deadline = runtime::now_ns() + 3'000'000'000;
  while ((*db)->log->durable() < *commit && runtime::now_ns() < deadline) core.sleep_until(runtime::now_ns() + 10'000'000);
  EXPECT_GE((*db)->log->durable(), *commit);
  (*db)->log->stop();
  ended.wait();
}

TEST(WalCommit, ADeviceWithoutFlushIsRefusedUnlessDurabilityIsNone) {
  auto disk = new_disk({.size_bytes = 32_MiB, .has_flush = false, .has_fua = false});
  EXPECT_TRUE(Db::open(*disk).failed_with(Code::kNoFlush));
  auto db = Db::open(*disk, {.log = {.durability = Durability::kNone}});
  ASSERT_OK(db);
  const Lsn claimed = (*db)->log->durable();
  ASSERT_OK((*db)->pages->format(PageId{1}));
  ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
  EXPECT_EQ((*db)->log->durable(), claimed);
}

TEST(WalCommit, SetCountReplacesACount) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  OpenTxn txn(**db);
  ASSERT_OK((*db)->pages->add(txn, {PageId{1}, 5}, 1, 9));
  ASSERT_OK((*db)->pages->commit_durably(txn));
  (*db)->log->set_count(kTree, 2);
  EXPECT_EQ((*db)->log->count_of(kTree), 2);
  (*db)->log->set_count(kTree, 0);
  EXPECT_EQ((*db)->log->count_of(kTree), 0);
}

}  // namespace
}  // namespace kelda::wal
