// Group flush: many waiters, few flushes, LSN order across cores, and the end of all acknowledging after a failure.
#include <array>
#include <atomic>
#include <thread>

#include "runtime/core_sim.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::Fault;
using blockdev::Op;
using blockdev::Survival;

constexpr std::uint32_t kFibers = 50;
constexpr std::uint32_t kCommits = 20;

// Each fiber commits its own counter `kCommits` times.
void commit_from_fibers(Db& db, std::uint32_t first, std::uint32_t count, std::atomic<std::uint32_t>& failures) {
  auto& core = runtime::Core::current();
  runtime::Completion all;
  for (std::uint32_t i = first; i < first + count; ++i) {
    all.add();
    auto started = core.spawn([&db, &all, &failures, i] {
      for (std::uint32_t n = 0; n < kCommits; ++n) {
        TxnLog txn;
        db.log->begin(txn);
        const bool done = db.pages->add(txn, {PageId{1 + i % 3}, i}, 1, 1) && db.pages->commit_durably(txn);
        if (!done) ++failures;
      }
      all.done();
    });
    ASSERT_TRUE(started.has_value());
  }
  all.wait();
}

TEST(WalFlush, ManyFibersOnTwoCoresShareFlushes) {
  auto disk = new_disk({.size_bytes = 32_MiB, .has_fua = false}, kWideRing);
  {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    for (std::uint64_t p = 1; p <= 3; ++p) ASSERT_OK((*db)->pages->format(PageId{p}));
    disk->set_plan({.delay_min_ns = 100'000, .delay_max_ns = 200'000});
    const auto before = (*db)->log->stats();
    std::atomic<std::uint32_t> failures{0};
    std::thread other([&] { commit_from_fibers(**db, kFibers, kFibers, failures); });
    commit_from_fibers(**db, 0, kFibers, failures);
    other.join();
    const auto after = (*db)->log->stats();
    EXPECT_EQ(failures.load(), 0U);
    const std::uint64_t commits = 2 * kFibers * kCommits;
    EXPECT_LT(after.flushes - before.flushes, commits / 10);
    EXPECT_EQ((*db)->log->count_of(kTree), static_cast<std::int64_t>(commits));
    disk = power_cut(*disk, Survival::kNone);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  for (std::uint32_t i = 0; i < 2 * kFibers; ++i) EXPECT_EQ(*(*db)->pages->get({PageId{1 + i % 3}, i}), kCommits) << i;
  EXPECT_EQ((*db)->log->count_of(kTree), std::int64_t{2} * kFibers * kCommits);
}

TEST(WalFlush, FibersThatAreReadyTogetherShareOneFlush) {
  auto disk = new_disk({.size_bytes = 32_MiB, .has_fua = false});
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  ASSERT_OK((*db)->pages->format(PageId{1}));
  const auto before = (*db)->log->stats();
  runtime::Completion all;
  for (std::uint32_t i = 0; i < 8; ++i) {
    all.add();
    ASSERT_TRUE(runtime::Core::current().spawn([&, i] {
      TxnLog txn;
      (*db)->log->begin(txn);
      EXPECT_TRUE((*db)->pages->add(txn, {PageId{1}, i}, 1).has_value());
      EXPECT_TRUE((*db)->pages->commit_durably(txn).has_value());
      all.done();
    }).has_value());
  }
  all.wait();
  EXPECT_EQ((*db)->log->stats().flushes - before.flushes, 1U);
}

TEST(WalFlush, AFailedFlushEndsAcknowledgingForGood) {
  for (const Op op : {Op::kWrite, Op::kFlush}) {
    auto disk = new_disk({.size_bytes = 32_MiB, .has_fua = false});
    {
      auto db = Db::open(*disk);
      ASSERT_OK(db);
      ASSERT_OK((*db)->pages->format(PageId{1}));
      TxnLog good, bad, later;
      (*db)->log->begin(good);
      ASSERT_OK((*db)->pages->add(good, {PageId{1}, 0}, 1));
      ASSERT_OK((*db)->pages->commit_durably(good));
      disk->set_plan({.rules = {{.fault = Fault::kError, .op = op}}});
      (*db)->log->begin(bad);
      ASSERT_OK((*db)->pages->add(bad, {PageId{1}, 1}, 1));
      const auto failed = (*db)->pages->commit_durably(bad);
      ASSERT_TRUE(failed.failed_with(Code::kFailed));
      EXPECT_NE(failed.error().message().find("restart"), std::string::npos) << failed.error().message();
      EXPECT_EQ(disk->faults_hit(), 1U);
      // The device works again; the log does not pretend that nothing happened.
      (*db)->log->begin(later);
      EXPECT_TRUE((*db)->pages->add(later, {PageId{1}, 2}, 1).failed_with(Code::kFailed));
      EXPECT_TRUE((*db)->log->wait_durable((*db)->log->durable()).failed_with(Code::kFailed));
      EXPECT_TRUE((*db)->log->checkpoint().failed_with(Code::kFailed));
      EXPECT_TRUE((*db)->log->health().failed_with(Code::kFailed));
      disk = power_cut(*disk, Survival::kNone);
    }
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 0}), 1);
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 1}), 0);
  }
}

// A record that comes while a batch is being written is not in it: whoever waits for it waits for the next one.
TEST(WalFlush, ARecordAfterTheCutIsToldOfOnlyWithItsOwnBatch) {
  auto disk = new_disk();
  std::unique_ptr<blockdev::MemoryDevice> rebooted;
  const auto ran = runtime::run_simulated({.core_count = 1}, [&](runtime::Runtime&) {
    auto db = Db::open(*disk);
    EXPECT_TRUE(db.has_value());
    EXPECT_TRUE((*db)->pages->format(PageId{1}));
    EXPECT_TRUE((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    disk->set_plan({.delay_min_ns = 1'000'000, .delay_max_ns = 1'000'000});
    TxnLog txn;
    (*db)->log->begin(txn);
    EXPECT_TRUE((*db)->pages->add(txn, {PageId{1}, 1}, 5));
    runtime::Core& core = runtime::Core::current();
    runtime::Completion first;
    first.add();
    EXPECT_TRUE(core.spawn([&] {
      const auto one = (*db)->pages->noise(PageId{1}, 100);
      EXPECT_TRUE(one && (*db)->log->wait_durable(*one));
      first.done();
    }));
    core.sleep_until(runtime::now_ns() + 500'000);  // the batch is on its way, and its cut is the next LSN
    const auto commit = (*db)->pages->commit(txn);
    EXPECT_TRUE(commit && (*db)->log->wait_commit(*commit));
    rebooted = power_cut(*disk, Survival::kNone);
    first.wait();
    return 0;
  });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
  auto db = Db::open(*rebooted);
  ASSERT_OK(db);
  EXPECT_EQ(*(*db)->pages->get({PageId{1}, 1}), 5);
}

TEST(WalFlush, AFailureWakesEveryWaiter) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  for (std::uint64_t p = 1; p <= 3; ++p) ASSERT_OK((*db)->pages->format(PageId{p}));
  disk->set_plan({.delay_min_ns = 1'000'000,
                  .delay_max_ns = 1'000'000,
                  .rules = {{.fault = Fault::kError, .op = Op::kWrite, .count = blockdev::FaultRule::kAlways}}});
  std::atomic<std::uint32_t> failures{0};
  commit_from_fibers(**db, 0, kFibers, failures);
  EXPECT_EQ(failures.load(), kFibers * kCommits);
}

TEST(WalFlush, AFailedPageWriteOfACheckpointFailsTheLog) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  ASSERT_OK((*db)->pages->format(PageId{1}));
  const auto& layout = (*db)->superblock.layout();
  disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .from_bytes = layout.double_write_offset, .to_bytes = layout.device_bytes}}});
  EXPECT_FALSE((*db)->log->checkpoint().has_value());
  EXPECT_TRUE((*db)->log->health().failed_with(Code::kFailed));
  EXPECT_TRUE((*db)->log->reserve(nullptr, 10).failed_with(Code::kFailed));
}

// A checkpoint with more counts and undo copies than a buffer holds writes the log many times before it writes a page:
// whichever write fails, everybody is told, and what was acknowledged before is there after a restart.
TEST(WalFlush, WhicheverWriteOfACheckpointFailsTheLogFails) {
  bool passed = false;
  for (std::uint64_t writes = 0; !passed; ++writes) {
    auto disk = new_disk();
    {
      auto db = Db::open_with_page(*disk);
      ASSERT_OK(db);
      for (std::uint64_t tree = 100; tree < 100 + 30'000; ++tree) (*db)->log->set_count(TreeId{tree}, 1);
      OpenTxn open(**db);
      for (std::uint32_t i = 0; i < 2000; ++i) ASSERT_OK((*db)->pages->add(open, {PageId{1}, i % 400}, 1));
      OpenTxn committed(**db);
      ASSERT_OK((*db)->pages->add(committed, {PageId{1}, 450}, 9));
      ASSERT_OK((*db)->pages->commit_durably(committed));
      disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .skip = writes}}});
      const auto done = (*db)->log->checkpoint();
      passed = disk->faults_hit() == 0;
      EXPECT_EQ(done.has_value(), passed) << "write " << writes;
      EXPECT_EQ((*db)->log->health().failed_with(Code::kFailed), !passed);
      disk->set_plan({});
      disk = power_cut(*disk, Survival::kNone);
    }
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 450}), 9) << "after write " << writes << " failed";
    EXPECT_EQ(*(*db)->pages->get({PageId{1}, 0}), 0);
    ASSERT_LT(writes, 200U);
  }
}

// The buffer is full when the checkpoint wants to append one of its records, and the write that would make room fails.
TEST(WalFlush, ACheckpointThatFindsNoRoomInTheBufferAndAFailedDiskFailsTheLog) {
  const auto fill = [](Db& db, int big, int small) {
    const std::uint64_t batches = db.log->stats().batches;
    int appended = 0;
    for (; appended < big + small && db.log->stats().batches == batches; ++appended) {
      EXPECT_TRUE(db.pages->noise(PageId{1}, appended < big ? 1000 : 8));
    }
    return db.log->stats().batches == batches ? appended : appended - 1;  // without the one that flushed
  };
  const auto filled = [&](blockdev::MemoryDevice& disk, int big, int small) {
    auto db = Db::open_with_page(disk);
    EXPECT_TRUE(db);
    return std::pair(std::move(*db), fill(**db, big, small));
  };
  constexpr int kPlenty = 10'000;
  auto measured = new_disk(), again = new_disk();
  const int big = filled(*measured, kPlenty, 0).second;
  const int small = filled(*again, big, kPlenty).second - big;
  for (int short_of_full = 0; short_of_full < 6; ++short_of_full) {
    auto disk = new_disk();
    auto db = Db::open_with_page(*disk);
    ASSERT_OK(db);
    fill(**db, big, small - short_of_full);
    OpenTxn open(**db);
    if (short_of_full > 2) ASSERT_OK((*db)->pages->add(open, {PageId{1}, 0}, 1, 1));
    const std::uint64_t batches = (*db)->log->stats().batches;
    disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .count = blockdev::FaultRule::kAlways}}});
    EXPECT_TRUE((*db)->log->checkpoint().failed_with(Code::kFailed));
    EXPECT_LE((*db)->log->stats().batches, batches + 1);
    EXPECT_TRUE((*db)->log->health().failed_with(Code::kFailed));
  }
}

// Without a writer in the background, who finds the buffer full writes it out: the failure is theirs.
TEST(WalFlush, AFailedWriteReachesWhoWaitsForRoom) {
  auto disk = new_disk();
  auto db = Db::open_with_page(*disk);
  ASSERT_OK(db);
  disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .count = blockdev::FaultRule::kAlways}}});
  Result<Lsn> appended = Lsn{1};
  for (int i = 0; i < 100'000 && appended; ++i) appended = (*db)->pages->noise(PageId{1}, 8);
  EXPECT_TRUE(appended.failed_with(Code::kFailed));
}

// A reservation made before the log was shut down is used while the last checkpoint waits for the disk.
TEST(WalFlush, AShutdownThatIsWrittenIntoIsRefused) {
  const auto ran = runtime::run_simulated({.core_count = 1}, [](runtime::Runtime&) {
    auto disk = new_disk();
    auto db = Db::open_with_page(*disk);
    EXPECT_TRUE(db);
    auto room = (*db)->log->reserve(nullptr, 0);
    EXPECT_TRUE(room);
    disk->set_plan({.delay_min_ns = 1'000'000, .delay_max_ns = 1'000'000});
    runtime::Completion late;
    late.add();
    EXPECT_TRUE(runtime::Core::current().spawn([&] {
      runtime::Core::current().sleep_until(runtime::now_ns() + 500'000);
      (*db)->log->append(*room, nullptr, {.count = {kTree, 1}});
      late.done();
    }));
    EXPECT_TRUE((*db)->log->checkpoint(true).failed_with(Code::kBusy));
    late.wait();
    EXPECT_TRUE((*db)->log->health()) << "nothing is wrong, it was only too early";
    EXPECT_TRUE((*db)->log->checkpoint(true));
    return 0;
  });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
}

// Two cores add to the same counters under page latches and commit without waiting; whatever prefix a power cut keeps is
// a consistent one.
TEST(WalFlush, TwoCoresAppendInterleavedAndAnyCutKeepsAPrefix) {
  constexpr std::int64_t kRounds = 3000;
  auto disk = new_disk({.size_bytes = 32_MiB}, kWideRing);
  {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    ASSERT_OK((*db)->pages->format(PageId{1}));
    ASSERT_OK((*db)->pages->format(PageId{2}));
    ASSERT_OK((*db)->log->checkpoint());
    std::atomic<bool> failed{false};
    const auto hammer = [&](std::uint32_t index) {
      Lsn last;
      for (std::int64_t i = 0; i < kRounds && !failed; ++i) {
        TxnLog txn;
        (*db)->log->begin(txn);
        if (!(*db)->pages->add(txn, {PageId{1}, index}, 1, 1) || !(*db)->pages->add(txn, {PageId{2}, index}, 1)) failed = true;
        const auto lsn = (*db)->pages->commit(txn);
        if (!lsn || *lsn <= last) failed = true;
        if (lsn) last = *lsn;
        if (i % 500 == 499 && !(*db)->log->wait_durable(last)) failed = true;
      }
    };
    std::thread other([&] { hammer(1); });
    hammer(0);
    other.join();
    ASSERT_FALSE(failed);
    disk = power_cut(*disk, Survival::kAll);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  for (std::uint32_t index : {0U, 1U}) {
    const std::int64_t a = *(*db)->pages->get({PageId{1}, index}), b = *(*db)->pages->get({PageId{2}, index});
    EXPECT_EQ(a, b);
    EXPECT_EQ(a, kRounds);
  }
  EXPECT_EQ((*db)->log->count_of(kTree), 2 * kRounds);
}

// Real parallelism, a power cut in the middle: whatever was told is there. One core's big records make the leader's copy
// long, so that commits of the other's fibers fall between its visits of the buffers.
class CutUnderTraffic {
 public:
  static constexpr std::uint32_t kWorkers = 8;

  explicit CutUnderTraffic(Db& db) : db_(db) {}

  // The many fibers keep the lead (the next leader is of the same core where possible); the leader visits their buffer
  // after that of the single worker.
  void run() {
    std::thread many([this] { fibers(); });
    work(0, 0);
    many.join();
  }

  std::int64_t told(std::uint32_t worker) const { return told_[worker]; }

 private:
  void fibers() {
    auto& core = runtime::Core::current();
    runtime::Completion all;
    for (std::uint32_t i = 1; i < kWorkers; ++i) {
      all.add();
      EXPECT_TRUE(core.spawn([this, &all, i] {
        work(i, i % 3 == 1 ? 100 << 10 : 0);
        all.done();
      }));
    }
    all.wait();
  }

  // Until the device is dead.
  void work(std::uint32_t me, std::uint64_t noise_bytes) {
    while (true) {
      TxnLog txn;
      db_.log->begin(txn);
      if (noise_bytes > 0 && !db_.pages->noise(PageId{1 + me}, noise_bytes)) return;
      if (!db_.pages->add(txn, {PageId{1 + me}, 0}, 1, 1) || !db_.pages->commit_durably(txn)) return;
      ++told_[me];
    }
  }

  Db& db_;
  std::array<std::int64_t, kWorkers> told_{};
};

TEST(WalFlush, WhatTwoCoresWereToldSurvivesACut) {
  for (std::uint64_t cut = 50; cut < 450; cut += 13) {
    auto disk = new_disk({.size_bytes = 32_MiB}, kWideRing);
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    for (std::uint32_t i = 0; i < CutUnderTraffic::kWorkers; ++i) ASSERT_OK((*db)->pages->format(PageId{1 + i}));
    disk->set_plan({.crash_after_ops = disk->op_count() + cut});
    CutUnderTraffic traffic(**db);
    traffic.run();
    auto rebooted = power_cut(*disk, cut % 2 == 0 ? Survival::kNone : Survival::kRandom, cut);
    auto after = Db::open(*rebooted);
    ASSERT_OK(after);
    std::int64_t keys = 0;
    for (std::uint32_t i = 0; i < CutUnderTraffic::kWorkers; ++i) {
      const std::int64_t there = *(*after)->pages->get({PageId{1 + i}, 0});
      EXPECT_GE(there, traffic.told(i)) << "cut at " << cut;
      EXPECT_LE(there, traffic.told(i) + 1);
      keys += there;
    }
    EXPECT_EQ((*after)->log->count_of(kTree), keys);
  }
}

}  // namespace
}  // namespace kelda::wal
