// A power cut at every single operation of a script, and at operations of the recovery after it.
#include "common/prng.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::Survival;

constexpr std::int64_t kTxns = 30;
constexpr PageId kFirstPage{1};
constexpr std::uint64_t kPages = 6;

// Two slots a transaction, on different pages.
Slot slot_a(std::int64_t t) { return {PageId{kFirstPage.value + static_cast<std::uint64_t>(t) % kPages}, static_cast<std::uint32_t>(t)}; }
Slot slot_b(std::int64_t t) { return {PageId{kFirstPage.value + static_cast<std::uint64_t>(t + 1) % kPages}, static_cast<std::uint32_t>(100 + t)}; }
bool rolls_back(std::int64_t t) { return t % 5 == 4; }

// Formats pages once, then commits, rolls back, steals, checkpoints and fills the ring more than once round, with one
// transaction open all the time. Returns with the first error (the power cut).
Result<> run_script(Db& db, std::vector<std::int64_t>& acknowledged) {
  for (std::uint64_t p = 0; p < kPages; ++p) TRY(db.pages->format(PageId{kFirstPage.value + p}));
  TxnLog forgotten;
  db.log->begin(forgotten);
  for (std::int64_t t = 1; t <= kTxns; ++t) {
    TRY(db.pages->add(forgotten, {kFirstPage, static_cast<std::uint32_t>(200 + t)}, 1, 1));
    TxnLog txn;
    db.log->begin(txn);
    TRY(db.pages->add(txn, slot_a(t), t, 1));
    if (t % 4 == 0) TRY(db.pool->write_back_all());
    TRY(db.pages->add(txn, slot_b(t), t));
    if (rolls_back(t)) {
      TRY(db.pages->roll_back(txn));
    } else {
      TRY(db.pages->commit_durably(txn));
      acknowledged.push_back(t);
    }
    TRY(db.pages->noise(PageId{kFirstPage.value + static_cast<std::uint64_t>(t) % kPages}, 110 << 10));
    if (t % 7 == 0) TRY(db.log->checkpoint());
  }
  return {};
}

void check(Db& db, const std::vector<std::int64_t>& acknowledged, const std::string& where) {
  SCOPED_TRACE(where);
  std::int64_t keys = 0;
  const auto read = [&](Slot slot) -> std::int64_t {
    auto value = db.pages->get(slot);
    if (!value && value.failed_with(Code::kNotFound)) return 0;  // cut before the page was ever written
    EXPECT_TRUE(value.has_value()) << value.error().to_string();
    return value ? *value : -1;
  };
  for (std::int64_t t = 1; t <= kTxns; ++t) {
    const std::int64_t a = read(slot_a(t)), b = read(slot_b(t));
    EXPECT_EQ(a, b) << "half of transaction " << t;
    EXPECT_TRUE(a == 0 || (a == t && !rolls_back(t))) << "transaction " << t << " has " << a;
    keys += a != 0;
    EXPECT_EQ(read({kFirstPage, static_cast<std::uint32_t>(200 + t)}), 0) << "the open transaction";
  }
  for (const std::int64_t t : acknowledged) EXPECT_EQ(read(slot_a(t)), t) << "acknowledged transaction is gone";
  EXPECT_EQ(db.log->count_of(kTree), keys);
}

std::unique_ptr<blockdev::MemoryDevice> script_until(std::uint64_t cut, Survival survival, std::vector<std::int64_t>& acknowledged,
                                                     bool& finished) {
  static const auto blank = new_disk();
  auto disk = power_cut(*blank, Survival::kAll);
  disk->set_plan({.crash_after_ops = cut});
  if (auto db = Db::open(*disk)) {
    const auto ran = run_script(**db, acknowledged);
    finished = ran.has_value();
  } else {
    finished = false;
  }
  return power_cut(*disk, survival, cut + 1);
}

TEST(WalCrash, AtEveryOperationOfTheScript) {
  bool finished = false;
  std::uint64_t cuts = 0;
  for (std::uint64_t cut = 0; !finished; ++cut, ++cuts) {
    for (const Survival survival : {Survival::kNone, Survival::kRandom}) {
      std::vector<std::int64_t> acknowledged;
      auto disk = script_until(cut, survival, acknowledged, finished);
      auto db = Db::open(*disk);
      ASSERT_TRUE(db.has_value()) << "cut at " << cut << ": " << db.error().to_string();
      check(**db, acknowledged, "cut at operation " + std::to_string(cut));
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(cuts, 100U);
}

// Recovery is cut at each of its operations in turn, then cut again on the next start, and so on until one gets through.
TEST(WalCrash, AtEveryOperationOfRecovery) {
  for (const std::uint64_t cut : {40, 70, 100}) {
    for (const Survival survival : {Survival::kNone, Survival::kAll, Survival::kRandom}) {
      std::vector<std::int64_t> acknowledged;
      bool finished = false;
      auto crashed = script_until(cut, survival, acknowledged, finished);
      ASSERT_FALSE(finished);
      bool recovered = false;
      for (std::uint64_t second = 0; !recovered; ++second) {
        auto disk = power_cut(*crashed, Survival::kAll);
        disk->set_plan({.crash_after_ops = second});
        recovered = Db::open(*disk).has_value();
        disk = power_cut(*disk, survival, second + 1);
        auto db = Db::open(*disk);
        ASSERT_TRUE(db.has_value()) << "cuts at " << cut << " and " << second << ": " << db.error().to_string();
        check(**db, acknowledged, "cuts at " + std::to_string(cut) + " and " + std::to_string(second));
        if (HasFailure()) return;
      }
    }
  }
}

TEST(WalCrash, RecoveryThatIsCutAgainAndAgainGetsThrough) {
  std::vector<std::int64_t> acknowledged;
  bool finished = false;
  auto disk = script_until(90, Survival::kRandom, acknowledged, finished);
  for (std::uint64_t ops = 0;; ++ops) {
    disk->set_plan({.crash_after_ops = disk->op_count() + ops});
    const bool recovered = Db::open(*disk).has_value();
    disk = power_cut(*disk, Survival::kRandom, ops + 1);
    if (recovered) break;
    ASSERT_LT(ops, 1000U);
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  check(**db, acknowledged, "after many cuts");
}

// A page that was freed is dropped, its last changes never written: redo must neither trip over its missing base nor
// apply changes to an older life of the page.
TEST(WalCrash, PagesDroppedUnwrittenNeedNoBase) {
  constexpr PageId kMap{1}, kShort{2}, kReused{3};
  const DbOptions options{.free_map = kMap};
  auto disk = new_disk();
  {
    auto db = Db::open(*disk, options);
    ASSERT_OK(db);
    for (PageId page : {kMap, kReused}) ASSERT_OK((*db)->pages->format(page));
    TxnLog before;
    (*db)->log->begin(before);
    ASSERT_OK((*db)->pages->add(before, {kReused, 1}, 5));
    ASSERT_OK((*db)->pages->commit_durably(before));
    ASSERT_OK((*db)->log->checkpoint());
    // Both pages live, change, and die between this checkpoint and the next, which is cut off.
    for (PageId page : {kShort, kReused}) {
      ASSERT_OK((*db)->pages->format(page));
      TxnLog txn;
      (*db)->log->begin(txn);
      ASSERT_OK((*db)->pages->add(txn, {page, 1}, 7));
      ASSERT_OK((*db)->pages->commit_durably(txn));
    }
    ASSERT_OK((*db)->pages->noise(kShort, 100));
    ASSERT_OK((*db)->log->checkpoint());
    for (PageId page : {kShort, kReused}) {
      ASSERT_OK((*db)->pages->noise(page, 100));
      ASSERT_OK((*db)->pages->free(kMap, page));
    }
    ASSERT_OK((*db)->log->wait_durable(Lsn{(*db)->log->next().value - 1}));
    disk = power_cut(*disk, Survival::kNone);
  }
  // What a checkpoint that skipped the dropped pages would have left.
  const auto layout = disk::Superblock::read(*disk)->layout();
  const std::vector<std::byte> zeroes(kPageBytes);
  auto gone = power_cut(*disk, Survival::kAll);
  for (PageId page : {kShort, kReused}) gone->poke(layout.offset_of(page), zeroes);
  gone->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
  auto db = Db::open(*gone, options);
  ASSERT_OK(db);
  EXPECT_EQ(*(*db)->pages->get({kMap, static_cast<std::uint32_t>(kShort.value)}), 1);
}

}  // namespace
}  // namespace kelda::wal
