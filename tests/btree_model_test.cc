// One tree against a std::map: random changes, roll-backs, reopening; reads by key and by cursor.
#include "btree_harness.h"

namespace kelda::btree {
namespace {

using Model = std::map<std::string, std::string>;

void expect_equal(Db& db, const Model& model) {
  BTree tree = db.tree();
  Cursor cursor(tree);
  auto more = cursor.seek({});
  for (const auto& [key, value] : model) {
    ASSERT_OK(more);
    ASSERT_TRUE(*more) << "ends before " << key;
    ASSERT_EQ(as_view(cursor.key()), key);
    auto stored = cursor.value();
    ASSERT_OK(stored);
    ASSERT_TRUE(as_view(*stored) == value) << key;
    more = cursor.next();
  }
  ASSERT_OK(more);
  ASSERT_FALSE(*more);
  more = cursor.seek_back({});
  for (auto it = model.rbegin(); it != model.rend(); ++it) {
    ASSERT_OK(more);
    ASSERT_TRUE(*more) << "backwards ends before " << it->first;
    ASSERT_EQ(as_view(cursor.key()), it->first);
    more = cursor.prev();
  }
  ASSERT_OK(more);
  ASSERT_FALSE(*more);
  std::string value;
  for (const auto& [key, expected] : model) {
    auto found = tree.lookup(as_bytes(key), value);
    ASSERT_OK(found);
    ASSERT_TRUE(*found && value == expected) << key;
    ASSERT_EQ((*tree.value_length(as_bytes(key))).value(), expected.size());
  }
  const auto report = db.check();
  ASSERT_OK(report);
  ASSERT_EQ(report->keys, model.size());
}

// One random change of tree and model.
void change(Db& db, Txn& txn, Model& model, std::mt19937_64& random, std::size_t max_value_bytes, unsigned remove_percent) {
  BTree tree = db.tree();
  std::string key = random_key(random);
  if (random() % 3 == 0 && !model.empty()) key = std::prev(model.upper_bound(std::max(key, model.begin()->first)))->first;
  const bool exists = model.contains(key);
  if (random() % 100 < remove_percent) {
    const auto removed = tree.remove(txn.txn, as_bytes(key));
    ASSERT_OK(removed);
    ASSERT_EQ(*removed, exists);
    model.erase(key);
    return;
  }
  const std::string value = random_value(random, max_value_bytes);
  const auto mode = static_cast<PutMode>(random() % 8 < 6 ? 0 : random() % 3);
  const auto put = tree.put(txn.txn, as_bytes(key), as_bytes(value), mode);
  ASSERT_OK(put);
  const bool refused = (mode == PutMode::kInsertOnly && exists) || (mode == PutMode::kUpdateOnly && !exists);
  ASSERT_EQ(*put, refused ? PutOutcome::kRefused : exists ? PutOutcome::kUpdated : PutOutcome::kInserted);
  if (!refused) model[key] = value;
}

void run_model(std::uint64_t seed, std::size_t max_value_bytes, int transactions, int changes) {
  auto disk = new_disk(96_MiB);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  std::mt19937_64 random(seed);
  Model model;
  for (int t = 0; t < transactions; ++t) {
    Txn txn(**db);
    const Model before = model;
    const unsigned remove_percent = t % 16 < 8 ? 20 : 70;
    std::size_t savepoint = 0;
    Model at_savepoint = before;
    for (int i = 0; i < changes; ++i) {
      if (i == changes / 2) {
        savepoint = txn.txn.log.undo.size();
        at_savepoint = model;
      }
      change(**db, txn, model, random, max_value_bytes, remove_percent);
      if (testing::Test::HasFatalFailure()) return;
    }
    if (t % 5 == 3) {
      ASSERT_OK(roll_back_to((*db)->env(), txn.txn, *(*db)->recovery, savepoint));
      model = at_savepoint;
    }
    if (t % 3 == 1) {
      ASSERT_OK(txn.roll_back());
      model = before;
    } else {
      ASSERT_OK(txn.commit());
    }
    if (t % 16 == 7) {
      expect_equal(**db, model);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  ASSERT_OK((*db)->log->checkpoint(true));
  db->reset();
  db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_TRUE((*db)->report.was_clean);
  expect_equal(**db, model);
}

TEST(BtreeModel, SmallValues) { run_model(1, 1024, 60, 60); }
TEST(BtreeModel, OverflowValues) { run_model(2, 40'000, 60, 30); }
TEST(BtreeModel, LargestValues) { run_model(3, kMaxValueBytes, 12, 8); }

// The worst keys: of full length, in pairs that differ in the last byte alone, so that separators are long; values as long
// as may stand beside them, or just too long.
TEST(BtreeModel, LongKeysInPairs) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  std::mt19937_64 random(4);
  Model model;
  for (int t = 0; t < 24; ++t) {
    Txn txn(**db);
    for (int i = 0; i < 50; ++i) {
      std::string key = std::to_string(random() % 150);
      key.resize(kMaxKeyBytes - 1, 'x');
      key += random() % 2 == 0 ? 'a' : 'b';
      if (random() % 100 < (t < 14 ? 10u : 60u)) {
        ASSERT_EQ(*tree.remove(txn.txn, as_bytes(key)), model.erase(key) == 1);
      } else {
        const std::string value(random() % 3 == 0 ? random() % 40 : 840 + random() % 190, static_cast<char>('a' + i % 26));
        ASSERT_OK(tree.put(txn.txn, as_bytes(key), as_bytes(value)));
        model[key] = value;
      }
    }
    ASSERT_OK(txn.commit());
    expect_equal(**db, model);
    if (HasFatalFailure()) return;
  }
}

// A transaction that outgrows the log is refused, and can still be rolled back.
TEST(BtreeModel, TooLargeATransactionRollsBack) {
  auto disk = new_disk(64_MiB, 2_MiB);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  Model model;
  {
    Txn txn(**db);
    for (int i = 0; i < 200; ++i) {
      model["k" + std::to_string(i)] = std::string(300, 'o');
      ASSERT_OK(tree.put(txn.txn, as_bytes("k" + std::to_string(i)), as_bytes(std::string(300, 'o'))));
    }
    ASSERT_OK(txn.commit());
  }
  for (const std::size_t bytes : {400, 100'000}) {
    Txn txn(**db);
    Result<PutOutcome> put;
    int count = 0;
    for (; put && count < 100'000; ++count) {
      put = tree.put(txn.txn, as_bytes("k" + std::to_string(count)), as_bytes(std::string(bytes, 'n')));
    }
    EXPECT_TRUE(put.failed_with(bytes == 400 ? Code::kTooLarge : Code::kNoSpace)) << count;
    EXPECT_GT(count, 200);
    ASSERT_OK(txn.roll_back());
    expect_equal(**db, model);
    if (HasFatalFailure()) return;
  }
}

// A page that rotted on the disk is named by the read that meets it; the rest stays readable.
TEST(BtreeModel, DamagedPageIsNamed) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  {
    Txn txn(**db);
    for (int i = 0; i < 1000; ++i) ASSERT_OK((*db)->tree().put(txn.txn, as_bytes("k" + std::to_string(i)), as_bytes(std::string(100, 'v'))));
    ASSERT_OK(txn.commit());
  }
  std::vector<PageId> pages;
  ASSERT_OK((*db)->tree().check([&](PageId page) { pages.push_back(page); }));
  ASSERT_OK((*db)->log->checkpoint(true));
  const PageId damaged = pages[pages.size() / 2];
  db->reset();
  db = Db::open(*disk);
  ASSERT_OK(db);
  // Now: opening would have repaired it from the double-write area.
  disk->flip_bit((*db)->superblock.layout().offset_of(damaged) + 2000, 3);
  int read = 0, refused = 0;
  std::string value;
  for (int i = 0; i < 1000; ++i) {
    const auto found = (*db)->tree().lookup(as_bytes("k" + std::to_string(i)), value);
    read += found && *found;
    if (!found) {
      ++refused;
      EXPECT_TRUE(found.failed_with(Code::kCorrupt));
      EXPECT_NE(found.error().to_string().find(std::to_string(damaged.value)), std::string::npos) << found.error().to_string();
    }
  }
  EXPECT_GT(read, 900);
  EXPECT_GT(refused, 5);
  EXPECT_TRUE((*db)->check().failed_with(Code::kCorrupt));
}

TEST(BtreeModel, LimitsAreNamed) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  Txn txn(**db);
  const std::string long_key(kMaxKeyBytes + 1, 'k'), large(kMaxValueBytes + 1, 'v');
  EXPECT_TRUE(tree.put(txn.txn, {}, as_bytes("v")).failed_with(Code::kInvalidArgument));
  EXPECT_TRUE(tree.put(txn.txn, as_bytes(long_key), as_bytes("v")).failed_with(Code::kTooLarge));
  EXPECT_TRUE(tree.put(txn.txn, as_bytes("k"), as_bytes(large)).failed_with(Code::kTooLarge));
  EXPECT_TRUE(tree.put(txn.txn, as_bytes(long_key).first(kMaxKeyBytes), as_bytes(large).first(kMaxValueBytes)).has_value());
  EXPECT_TRUE(tree.put(txn.txn, as_bytes("empty"), {}).has_value());
  ASSERT_OK(txn.commit());
  std::string value;
  EXPECT_TRUE(*tree.lookup(as_bytes(long_key).first(kMaxKeyBytes), value) && value.size() == kMaxValueBytes);
  EXPECT_TRUE(*tree.lookup(as_bytes("empty"), value) && value.empty());
  EXPECT_FALSE(*tree.lookup(as_bytes(long_key), value));
  ASSERT_OK((*db)->check());
}

// A cursor has a copy of its leaf, but every step sees what others did meanwhile.
TEST(BtreeModel, ACursorSeesWhatChangedSinceItsLastStep) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  Txn txn(**db);
  for (const char* key : {"a", "b", "c", "e"}) ASSERT_OK(tree.put(txn.txn, as_bytes(key), as_bytes("old")));
  Cursor cursor(tree);
  ASSERT_TRUE(*cursor.seek(as_bytes("a")));
  ASSERT_TRUE(*tree.remove(txn.txn, as_bytes("b")));
  ASSERT_TRUE(*cursor.next());
  EXPECT_EQ(as_view(cursor.key()), "c");
  ASSERT_OK(tree.put(txn.txn, as_bytes("c"), as_bytes("new")));
  EXPECT_EQ(as_view(*cursor.value()), "new");
  ASSERT_OK(tree.put(txn.txn, as_bytes("d"), as_bytes("new")));
  ASSERT_TRUE(*cursor.next());
  EXPECT_EQ(as_view(cursor.key()), "d");
  // The leaf is split below it, once before and once behind its key.
  for (int i = 0; i < 60; ++i) {
    for (const char* prefix : {"b", "dd"}) {
      const std::string key = prefix + std::to_string(100 + i);
      ASSERT_OK(tree.put(txn.txn, as_bytes(key), as_bytes(std::string(300, 'v'))));
    }
  }
  std::size_t between = 0;
  while (*cursor.next() && as_view(cursor.key()) != "e") ++between;
  EXPECT_EQ(between, 60u);
  ASSERT_TRUE(cursor.valid());
  std::size_t before = 0;
  while (*cursor.prev()) ++before;
  EXPECT_EQ(before, 60u + 1 + 1 + 60u + 1);  // dd..., d, c, b..., a
  ASSERT_OK(txn.commit());
}

// A tree that was filled and emptied is one empty page again, and the space is free.
TEST(BtreeModel, EmptiedTreeIsItsRoot) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  const auto used_before = (*db)->space->stats().used_pages;
  for (const int order : {0, 1, 2}) {
    std::vector<std::string> keys;
    for (int i = 0; i < 4000; ++i) keys.push_back(std::to_string(i * 7919 % 100'000));
    std::mt19937_64 random(static_cast<unsigned>(order));
    for (const auto phase : {0, 1}) {
      if (order == 1) std::reverse(keys.begin(), keys.end());
      if (order == 2) std::shuffle(keys.begin(), keys.end(), random);
      for (std::size_t i = 0; i < keys.size(); i += 500) {
        Txn txn(**db);
        for (std::size_t k = i; k < i + 500; ++k) {
          if (phase == 0) ASSERT_OK(tree.put(txn.txn, as_bytes(keys[k]), as_bytes(std::string(100, 'v'))));
          else ASSERT_TRUE(*tree.remove(txn.txn, as_bytes(keys[k])));
        }
        ASSERT_OK(txn.commit());
      }
      const auto report = (*db)->check();
      ASSERT_OK(report);
      EXPECT_EQ(report->height, phase == 0 ? 2u : 1u);
      if (phase == 1) { EXPECT_EQ(report->pages, 1u); }
    }
    EXPECT_EQ((*db)->space->stats().used_pages, used_before);
  }
}

void insert_in_order(bool ascending) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  BTree tree = (*db)->tree();
  char key[17];
  for (int i = 0; i < 20'000; i += 500) {
    Txn txn(**db);
    for (int k = i; k < i + 500; ++k) {
      std::snprintf(key, sizeof key, "%016d", ascending ? k : 20'000 - k);
      ASSERT_OK(tree.put(txn.txn, as_bytes(key), as_bytes(std::string(120, 'v'))));
    }
    ASSERT_OK(txn.commit());
  }
  const auto report = (*db)->check();
  ASSERT_OK(report);
  EXPECT_GE(report->keys / report->leaves, 25u);  // of 27 that fit
}

TEST(BtreeModel, AscendingInsertsFillTheirLeaves) { insert_in_order(true); }
TEST(BtreeModel, DescendingInsertsFillTheirLeaves) { insert_in_order(false); }

TEST(BtreeModel, TreesAreMadeAndDropped) {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  std::mt19937_64 random(9);
  const auto used_before = (*db)->space->stats().used_pages;
  {
    Txn undone(**db);
    const auto root = BTree::create((*db)->env(), undone.txn, TreeId(77));
    ASSERT_OK(root);
    BTree tree((*db)->env(), TreeId(77), *root);
    for (int i = 0; i < 300; ++i) ASSERT_OK(tree.put(undone.txn, as_bytes(random_key(random)), as_bytes(random_value(random, 30'000))));
    ASSERT_OK(undone.roll_back());
    EXPECT_EQ((*db)->space->stats().used_pages, used_before);
    EXPECT_EQ((*db)->log->count_of(TreeId(77)), 0);
  }
  Txn txn(**db);
  const auto root = BTree::create((*db)->env(), txn.txn, TreeId(78));
  ASSERT_OK(root);
  BTree tree((*db)->env(), TreeId(78), *root);
  for (int i = 0; i < 1000; ++i) ASSERT_OK(tree.put(txn.txn, as_bytes(random_key(random)), as_bytes(random_value(random, 30'000))));
  ASSERT_OK(txn.commit());
  ASSERT_OK((*db)->check({tree}));
  int steps = 0;
  for (;; ++steps) {
    const auto done = tree.drop_some(3);
    ASSERT_OK(done);
    if (*done) break;
    if (steps % 16 == 0) ASSERT_OK((*db)->check({tree}));
  }
  EXPECT_GT(steps, 5);
  EXPECT_EQ((*db)->log->count_of(TreeId(78)), 0);
  Txn forget(**db);
  tree.free_root(forget.txn);
  ASSERT_OK(forget.commit());
  EXPECT_EQ((*db)->space->stats().used_pages, used_before);
  ASSERT_OK((*db)->check());
}

}  // namespace
}  // namespace kelda::btree
