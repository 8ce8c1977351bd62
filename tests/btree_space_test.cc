// Space: full disks, what is kept back, large commits, lazy maps, damage that check() names.
#include "btree/free_list.h"
#include "btree/node_edit.h"
#include "btree/overflow.h"
#include "btree_harness.h"

namespace kelda::btree {
namespace {

std::string numbered(const char* prefix, int i) {
  char key[32];
  std::snprintf(key, sizeof key, "%s%08d", prefix, i);
  return key;
}

// Puts until the disk is full. How many.
int fill(Db& db, const char* prefix, std::size_t value_bytes) {
  BTree tree = db.tree();
  const std::string value(value_bytes, 'f');
  for (int i = 0;; ++i) {
    Txn txn(db);
    const auto put = tree.put(txn.txn, as_bytes(numbered(prefix, i)), as_bytes(value));
    if (!put) {
      EXPECT_TRUE(put.failed_with(Code::kNoSpace)) << put.error().to_string();
      EXPECT_TRUE(txn.roll_back().has_value());
      return i;
    }
    EXPECT_TRUE(txn.commit().has_value());
  }
}

TEST(BtreeSpace, FullDiskRefusesWritesAndGoesOnAfterRemoves) {
  auto disk = new_disk(16_MiB, 2_MiB);
  auto db = Db::open(*disk, {.frames = 512});
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const int count = fill(**db, "k", 700);
  EXPECT_GT(count, 5000);
  ASSERT_OK((*db)->check());
  // Overwriting and reading go on.
  Txn over(**db);
  ASSERT_OK(tree.put(over.txn, as_bytes(numbered("k", 3)), as_bytes(std::string(700, 'o'))));
  ASSERT_OK(over.commit());
  std::string value;
  ASSERT_TRUE(*tree.lookup(as_bytes(numbered("k", 3)), value) && value[0] == 'o');
  // Removing needs no space, and gives it back.
  for (int i = 0; i < count; i += 100) {
    Txn txn(**db);
    for (int k = i; k < std::min(count, i + 100); ++k) ASSERT_TRUE(*tree.remove(txn.txn, as_bytes(numbered("k", k))));
    ASSERT_OK(txn.commit());
  }
  ASSERT_OK((*db)->check());
  EXPECT_GE(fill(**db, "again", 700), count - 20);
  EXPECT_EQ(fill(**db, "value", 100'000), 0);
  ASSERT_OK((*db)->check());
}

TEST(BtreeSpace, OverflowValuesFillTheDiskToo) {
  auto disk = new_disk(16_MiB, 2_MiB);
  auto db = Db::open(*disk, {.frames = 512});
  ASSERT_OK(db);
  const auto before = (*db)->space->stats();
  const int count = fill(**db, "v", 100'000);
  EXPECT_GT(count, 50);
  const auto full = (*db)->space->stats();
  EXPECT_LE(full.page_count - full.used_pages, full.reserve_pages + 32);
  for (int i = 0; i < count; ++i) {
    Txn txn(**db);
    ASSERT_TRUE(*(*db)->tree().remove(txn.txn, as_bytes(numbered("v", i))));
    ASSERT_OK(txn.commit());
  }
  EXPECT_EQ((*db)->space->stats().used_pages, before.used_pages);
  ASSERT_OK((*db)->check());
}

// What an open transaction removed cannot be taken by others: its roll-back finds the space.
TEST(BtreeSpace, RollBackFindsItsSpaceOnAFullDisk) {
  auto disk = new_disk(24_MiB, 8_MiB);
  auto db = Db::open(*disk, {.frames = 1024});
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const int count = fill(**db, "k", 300);
  const auto before = (*db)->contents();
  ASSERT_OK(before);
  Txn txn(**db);
  int removed = 0;
  for (; removed < count; ++removed) {
    const auto gone = tree.remove(txn.txn, as_bytes(numbered("k", removed)));
    if (gone.failed_with(Code::kNoSpace)) break;
    ASSERT_OK(gone);
  }
  EXPECT_GT(removed, 300);
  EXPECT_LT(removed, count);
  const int taken = fill(**db, "other", 300);
  EXPECT_LT(taken, 200);
  ASSERT_OK(txn.roll_back());
  ASSERT_OK((*db)->check());
  for (int i = 0; i < taken; ++i) {
    Txn undo(**db);
    ASSERT_TRUE(*tree.remove(undo.txn, as_bytes(numbered("other", i))));
    ASSERT_OK(undo.commit());
  }
  const auto after = (*db)->contents();
  ASSERT_OK(after);
  EXPECT_TRUE(*before == *after);
}

// More pages to free than a commit record carries: all of them are free afterwards, or after a crash in between.
void replace_many(std::uint64_t crash_after_ops, bool& committed_and_cut) {
  auto disk = new_disk(160_MiB, 64_MiB);
  auto db = Db::open(*disk, {.frames = 4096});
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  constexpr int kCount = 5000;
  const std::string large(1500, 'l');
  for (int i = 0; i < kCount; i += 50) {
    Txn txn(**db);
    for (int k = i; k < i + 50; ++k) {  // of two kinds in turn, so that the pages of one are not adjacent
      ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("a", k)), as_bytes(large)));
      ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("b", k)), as_bytes(large)));
    }
    ASSERT_OK(txn.commit());
  }
  const auto used_before = (*db)->space->stats().used_pages;
  Txn txn(**db);
  for (int k = 0; k < kCount; ++k) ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("a", k)), as_bytes("short")));
  if (crash_after_ops > 0) {
    ASSERT_OK((*db)->log->checkpoint());
    disk->set_plan({.crash_after_ops = disk->op_count() + crash_after_ops});
  }
  const auto committed = txn.commit();
  if (crash_after_ops == 0) {
    ASSERT_OK(committed);
    EXPECT_EQ((*db)->space->stats().used_pages, used_before - kCount);
    ASSERT_OK((*db)->check());
    return;
  }
  if (committed) (void)(*db)->log->wait_commit(*committed);
  db->reset();
  auto rebooted = disk->crash(blockdev::Survival::kAll);
  db = Db::open(*rebooted, {.frames = 4096});
  ASSERT_OK(db);
  ASSERT_OK((*db)->check());
  const auto length = (*db)->tree().value_length(as_bytes(numbered("a", 7)));
  ASSERT_OK(length);
  const bool happened = **length == 5;
  committed_and_cut = happened && disk->dead();
  EXPECT_EQ((*db)->space->stats().used_pages, happened ? used_before - kCount : used_before);
  for (int k = 0; k < kCount; k += 37) EXPECT_EQ(**(*db)->tree().value_length(as_bytes(numbered("a", k))), happened ? 5u : 1500u);
}

TEST(BtreeSpace, LargeCommitFreesEverything) {
  bool cut = false;
  replace_many(0, cut);
}
// From cuts before the commit record to one that finds it durable, and the freeing that follows cut off.
TEST(BtreeSpace, LargeCommitIsFinishedAfterACrash) {
  bool committed_and_cut = false;
  for (std::uint64_t op = 1; op < 12 && !committed_and_cut && !testing::Test::HasFatalFailure(); ++op) {
    replace_many(op, committed_and_cut);
  }
  EXPECT_TRUE(committed_and_cut);
}

// The commit as far as it is atomic: what it frees is listed, and the power goes before any of it is worked off.
TEST(BtreeSpace, FreesThatACommitListedAreFinishedAtTheNextStart) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const std::string large(9000, 'l');
  Txn first(**db);
  for (int k = 0; k < 20; ++k) ASSERT_OK(tree.put(first.txn, as_bytes(numbered("k", k)), as_bytes(large)));
  ASSERT_OK(first.commit());
  const auto used_before = (*db)->space->stats().used_pages;
  Txn txn(**db);
  for (int k = 0; k < 20; k += 2) ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("k", k)), as_bytes("short")));
  std::vector<PageId> pages;
  for (const PendingFree& pending : txn.txn.free_at_commit) {
    const auto of_value = overflow_pages((*db)->env(), {pending.value_bytes, pending.page, pending.stamp});
    ASSERT_OK(of_value);
    pages.insert(pages.end(), of_value->begin(), of_value->end());
  }
  std::sort(pages.begin(), pages.end());
  ASSERT_OK(list_frees((*db)->env(), txn.txn, pages));
  {
    auto reservation = (*db)->log->reserve(&txn.txn.log, 64, 1, true);
    ASSERT_OK(reservation);
    ASSERT_OK((*db)->log->wait_durable((*db)->log->append_commit(*reservation, txn.txn.log)));
  }
  auto rebooted = disk->crash(blockdev::Survival::kNone);
  db->reset();
  db = Db::open(*rebooted);
  ASSERT_OK(db);
  EXPECT_EQ((*db)->space->stats().used_pages, used_before - pages.size());
  ASSERT_OK((*db)->check());
}

TEST(BtreeSpace, SavepointForgetsWhatItWouldHaveFreed) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const auto used_before = (*db)->space->stats().used_pages;
  const std::string first(5000, '1'), second(9000, '2'), third(70'000, '3');
  Txn txn(**db);
  ASSERT_OK(tree.put(txn.txn, as_bytes("k"), as_bytes(first)));
  const std::size_t savepoint = txn.txn.log.undo.size();
  ASSERT_OK(tree.put(txn.txn, as_bytes("k"), as_bytes(second)));
  ASSERT_OK(tree.put(txn.txn, as_bytes("k"), as_bytes(third)));
  ASSERT_OK(roll_back_to((*db)->env(), txn.txn, *(*db)->recovery, savepoint));
  ASSERT_OK(txn.commit());
  std::string value;
  ASSERT_TRUE(*tree.lookup(as_bytes("k"), value) && value == first);
  EXPECT_EQ((*db)->space->stats().used_pages, used_before + 3);
  ASSERT_OK((*db)->check());
}

// A disk of a tebibyte is made and opened without touching its thousands of maps.
TEST(BtreeSpace, LargeDiskIsOpenedLazily) {
  auto disk = new_disk(1024_GiB, 64_MiB);
  auto db = Db::open(*disk, {.frames = 1024});
  ASSERT_OK(db);
  const auto reads = disk->stats().reads, writes = disk->stats().writes;
  Txn txn(**db);
  ASSERT_OK((*db)->tree().put(txn.txn, as_bytes("k"), as_bytes("v")));
  ASSERT_OK(txn.commit_durably());
  EXPECT_LT(disk->stats().reads - reads, 8u);
  EXPECT_LT(disk->stats().writes - writes, 8u);
  EXPECT_GT((*db)->space->stats().page_count, 260'000'000u);
  EXPECT_LT((*db)->space->stats().used_pages, 10'000u);
}

// ---- what the device may forget ----

TEST(BtreeSpace, DiscardWaitsForTheCheckpointAndFreedPagesAreNotWritten) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const std::string value(100'000, 'v');
  const auto change = [&](int from, int to, bool removes) {
    for (int i = from; i < to; ++i) {
      Txn txn(**db);
      if (removes) {
        ASSERT_TRUE(*tree.remove(txn.txn, as_bytes(numbered("k", i))));
      } else {
        ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("k", i)), as_bytes(value)));
      }
      ASSERT_OK(txn.commit());
    }
  };
  change(0, 20, false);
  ASSERT_OK((*db)->log->checkpoint());
  change(0, 10, true);
  EXPECT_GE((*db)->space->waiting_for_discard(), 250u);
  EXPECT_FALSE((*db)->space->discard_some()) << "a redo may still need them";
  change(20, 40, false);  // dirty, and of no use
  change(20, 40, true);
  const std::uint64_t written = (*db)->pool->stats().pages_written;
  ASSERT_OK((*db)->log->checkpoint());
  EXPECT_LT((*db)->pool->stats().pages_written - written, 50u) << "500 pages were filled and freed again";
  EXPECT_EQ(disk->stats().discards, 0u);
  int runs = 0;
  while ((*db)->space->discard_some()) ++runs;
  EXPECT_GT(runs, 0);
  EXPECT_GT(disk->stats().discards, 0u);
  EXPECT_EQ((*db)->space->waiting_for_discard(), 0u);
  ASSERT_OK((*db)->check());
  for (int i = 10; i < 20; ++i) {
    std::string read;
    ASSERT_TRUE(*tree.lookup(as_bytes(numbered("k", i)), read) && read == value) << i;
  }
}

// Values come and go, their pages are used again and again; the power fails at any time, and nothing that counts is gone.
TEST(BtreeSpace, DiscardTakesNothingThatIsInUse) {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    std::mt19937_64 random(seed);
    auto disk = new_disk(24_MiB, 4_MiB);
    std::map<std::string, std::string> model;
    std::uint64_t discards = 0;
    for (int life = 0; life < 3; ++life) {
      auto db = Db::open(*disk, {.frames = 512});
      ASSERT_OK(db);
      BTree tree = (*db)->tree();
      for (int i = 0; i < 150; ++i) {
        const std::string key = numbered("k", static_cast<int>(random() % 30));
        Txn txn(**db);
        if (random() % 3 == 0) {
          ASSERT_OK(tree.remove(txn.txn, as_bytes(key)));
          ASSERT_OK(txn.commit_durably());
          model.erase(key);
        } else {
          const std::string value(1 + random() % 200'000, static_cast<char>('a' + random() % 26));
          ASSERT_OK(tree.put(txn.txn, as_bytes(key), as_bytes(value)));
          if (random() % 8 == 0) {
            ASSERT_OK(txn.roll_back());
          } else {
            ASSERT_OK(txn.commit_durably());
            model[key] = value;
          }
        }
        if (random() % 20 == 0) ASSERT_OK((*db)->log->checkpoint());
        if (random() % 4 == 0) (void)(*db)->space->discard_some();
      }
      ASSERT_OK((*db)->check());
      ASSERT_TRUE(*(*db)->contents() == model) << "seed " << seed << ", life " << life;
      discards += disk->stats().discards;
      auto next = disk->crash(blockdev::Survival::kNone);
      db->reset();
      disk = std::move(next);
    }
    EXPECT_GT(discards, 20u);
  }
}

TEST(BtreeSpace, CheckNamesWhatIsWrong) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  Txn txn(**db);
  for (int i = 0; i < 500; ++i) ASSERT_OK(tree.put(txn.txn, as_bytes(numbered("k", i)), as_bytes(std::string(50, 'v'))));
  ASSERT_OK(tree.put(txn.txn, as_bytes("large"), as_bytes(std::string(20'000, 'v'))));
  ASSERT_OK(txn.commit());
  std::vector<PageId> pages;
  ASSERT_OK(tree.check([&](PageId page) { pages.push_back(page); }));
  int named = 0;
  for (const PageId page : pages) {
    auto guard = bufferpool::ExclusiveGuard::take(*(*db)->pool, page);
    ASSERT_OK(guard);
    std::byte saved[kPageBytes];
    std::memcpy(saved, guard->data(), kPageBytes);
    for (const std::size_t offset : {24, 40, 48, 50, 52, 62, 131, 4090}) {
      guard->data()[offset] ^= std::byte{0x11};
      guard->release();
      const auto report = tree.check([](PageId) {});
      if (report.failed_with(Code::kCorrupt)) {
        named += report.error().message().find("page ") != std::string::npos;
      }
      guard = bufferpool::ExclusiveGuard::take(*(*db)->pool, page);
      std::memcpy(guard->data(), saved, kPageBytes);
    }
  }
  // Bytes of values and of free space are the checksum's business; everything else is noticed.
  EXPECT_GT(named, static_cast<int>(pages.size()) * 5);
  ASSERT_OK((*db)->check());
  EXPECT_TRUE(check_space((*db)->env(), [](PageId) { return false; }).failed_with(Code::kCorrupt));
}

}  // namespace
}  // namespace kelda::btree
