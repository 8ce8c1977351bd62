// What a caller is told when something cannot be done, and that it costs nothing else: calls that come too late, names that
// do not exist, reads that fail at any point, and disks whose checksums fit and whose content does not.
#include <functional>

#include "btree/node_edit.h"
#include "btree/node_layout.h"
#include "common/prng.h"
#include "disk/page_check.h"
#include "engine/check.h"
#include "engine/database_impl.h"
#include "engine/salvage.h"
#include "engine/transaction.h"
#include "engine_support.h"

namespace kelda::engine {
namespace {

using blockdev::Fault;
using blockdev::MemoryDevice;
using blockdev::Op;
using blockdev::Survival;

constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};

std::string key_of(int i) { return "key" + std::to_string(100'000 + i); }

// ---- calls ----

TEST(EngineErrors, ATransactionThatIsOverTakesNothingMore) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk());
    ASSERT_OK(opened);
    Database& db = *opened->db;
    const Tree tree = *db.tree("t", true);
    for (const bool commits : {true, false}) {
      auto txn = db.begin();
      ASSERT_OK(txn->put(tree, "a", "1"));
      ASSERT_OK(commits ? txn->commit() : txn->roll_back());
      std::string value;
      EXPECT_TRUE(txn->get(tree, "a", value).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->get_for_update(tree, "a", value).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->put(tree, "a", "2").failed_with(Code::kAborted));
      EXPECT_TRUE(txn->remove(tree, "a").failed_with(Code::kAborted));
      EXPECT_TRUE(txn->scan(tree).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->clear(tree).failed_with(Code::kAborted));
      const std::string_view keys[] = {"a"};
      EXPECT_TRUE(txn->lock_keys(tree, keys).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->lock_tree(tree, true).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->savepoint().failed_with(Code::kAborted));
      EXPECT_TRUE(txn->roll_back_to(0).failed_with(Code::kAborted));
      EXPECT_TRUE(txn->commit().failed_with(Code::kAborted));
      EXPECT_TRUE(txn->commit_no_wait().failed_with(Code::kAborted));
      EXPECT_TRUE(txn->roll_back().failed_with(Code::kAborted));
    }
    EXPECT_OK(db.close());
  });
}

TEST(EngineErrors, NamesAndSavepointsThatDoNotExist) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk());
    ASSERT_OK(opened);
    Database& db = *opened->db;
    EXPECT_TRUE(db.tree("", true).failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(db.tree(std::string(256, 'n'), true).failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(db.drop_tree("none").failed_with(Code::kNotFound));
    const Tree gone = *db.tree("gone", true);
    ASSERT_OK(db.drop_tree("gone"));
    std::string value;
    EXPECT_TRUE(db.remove(gone, "a").failed_with(Code::kNotFound));
    auto txn = db.begin();
    EXPECT_TRUE(txn->get(gone, "a", value).failed_with(Code::kNotFound));
    EXPECT_TRUE(txn->put(gone, "a", "1").failed_with(Code::kNotFound));
    EXPECT_TRUE(txn->remove(gone, "a").failed_with(Code::kNotFound));
    EXPECT_TRUE(txn->scan(gone).failed_with(Code::kNotFound));
    EXPECT_TRUE(txn->clear(gone).failed_with(Code::kNotFound));
    EXPECT_TRUE(txn->roll_back_to(0).failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(db.close().failed_with(Code::kBusy)) << "a transaction is open";
    ASSERT_OK(txn->roll_back());
    EXPECT_OK(db.close());
  });
}

// Whoever holds something gives up on a tree that another one has, instead of waiting for ever.
TEST(EngineErrors, ATreeThatAnotherOneHasIsAConflict) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk());
    ASSERT_OK(opened);
    Database& db = *opened->db;
    const Tree taken = *db.tree("taken", true), other = *db.tree("other", true);
    auto holder = db.begin();
    ASSERT_OK(holder->lock_tree(taken, true));
    const std::string_view keys[] = {"a", "b"};
    // In a fiber of its own: for what its own fiber holds nobody waits at all.
    const auto ask = [&] {
      for (int call = 0; call < 3; ++call) {
        auto txn = db.begin();
        ASSERT_OK(txn->put(other, "a", "1"));
        const Result<> refused = call == 0 ? txn->lock_keys(taken, keys) : call == 1 ? txn->clear(taken) : txn->lock_tree(taken, false);
        EXPECT_TRUE(refused.failed_with(Code::kConflict)) << call;
        ASSERT_OK(txn->roll_back());
      }
    };
    runtime::Completion others;
    ASSERT_OK(runtime::spawn_counted(runtime::Core::current(), others, ask));
    others.wait();
    ASSERT_OK(holder->commit());
    EXPECT_OK(db.close());
  });
}

TEST(EngineErrors, ADatabaseForInspectionScrubsNothing) {
  on_cores(1, [](runtime::Runtime&) {
    OpenReport report;
    auto db = DatabaseImpl::open(blank_disk(), small_options(), report, DatabaseImpl::Purpose::kInspect);
    ASSERT_OK(db);
    EXPECT_TRUE((*db)->start_scrub().failed_with(Code::kUnsupported));
    EXPECT_FALSE((*db)->scrub_status().running);
    EXPECT_OK((*db)->close());
  });
}

// ---- reads that fail ----

constexpr int kKeys = 10'000, kTrees = 60;

std::string value_of(int i) { return i % 50 == 0 ? std::string(9000, 'L') : "value " + std::to_string(i) + std::string(300, '.'); }
std::string tree_name(int i) { return "tree " + std::to_string(i) + std::string(200, '.'); }

DatabaseOptions little_memory() {
  DatabaseOptions options = small_options();
  options.memory_bytes = 8_MiB;
  return options;
}

enum class End { kCut, kClean };

// Many names, one large tree; closed, or after a power cut with a transaction open and a tree whose pages are still to be
// reclaimed.
std::unique_ptr<MemoryDevice> full_disk(End end) {
  OpenReport report;
  auto owned = blank_disk();
  MemoryDevice& disk = *owned;
  auto db = DatabaseImpl::open(std::move(owned), small_options(), report, DatabaseImpl::Purpose::kInspect);
  EXPECT_OK(db);
  const Tree tree = *(*db)->tree("t", true), dropped = *(*db)->tree("dropped", true);
  for (int i = 0; i < kTrees; ++i) EXPECT_OK((*db)->tree(tree_name(i), true));
  for (int first = 0; first < kKeys; first += 200) {
    auto txn = (*db)->begin();
    for (int i = first; i < first + 200; ++i) EXPECT_OK(txn->put(tree, key_of(i), value_of(i)));
    for (int i = first; i < first + 20; ++i) EXPECT_OK(txn->put(dropped, key_of(i), value_of(i)));
    EXPECT_OK(txn->commit());
  }
  EXPECT_OK((*db)->checkpoint());
  if (end == End::kClean) {
    EXPECT_OK((*db)->close());
    return disk.crash(Survival::kAll);
  }
  auto loser = (*db)->begin();
  for (int i = 0; i < kKeys; i += 100) EXPECT_OK(loser->put(tree, key_of(i), "never"));
  for (int i = 1; i < kKeys; i += 100) EXPECT_OK(loser->remove(tree, key_of(i)));
  EXPECT_OK((*db)->drop_tree("dropped"));
  return disk.crash(Survival::kAll);
}

// Everything that a user does, up to the first error.
Result<> use(Database& db) {
  const Tree tree = TRY(db.tree("t", false));
  std::string value;
  for (int i = 1; i < kKeys; i += 501) EXPECT_TRUE(TRY(db.get(tree, key_of(i), value))) << i;
  auto txn = db.begin();
  TRY(txn->put(tree, key_of(3000), "changed"));
  const auto savepoint = TRY(txn->savepoint());
  for (int i = 10; i < kKeys; i += 300) TRY(txn->put(tree, key_of(i), value_of(50)));
  {
    auto scan = TRY(txn->scan(tree));
    bool more = TRY(scan->seek(""));
    for (int i = 0; i < 400 && more; ++i) {
      TRY(scan->value());
      more = TRY(scan->next());
    }
    more = TRY(scan->seek_back(""));
    for (int i = 0; i < 50 && more; ++i) more = TRY(scan->prev());
  }
  TRY(txn->roll_back_to(savepoint));
  TRY(txn->remove(tree, key_of(3)));
  TRY(txn->put(tree, key_of(3), value_of(3)));
  const Tree emptied = TRY(db.tree(tree_name(1), false));
  TRY(txn->clear(emptied));
  TRY(txn->put(emptied, "only", "1"));
  TRY(txn->commit());
  TRY(db.put(tree, key_of(3000), value_of(3000)));
  TRY(db.tree("fresh", true));
  if (auto dropped = db.drop_tree(tree_name(2)); !dropped && !dropped.failed_with(Code::kNotFound)) return dropped;
  TRY(db.remove(emptied, "only"));
  return db.checkpoint();
}

// Whichever read fails, once: whoever needed it is told, nobody else suffers, and nothing is lost.
void every_read_fails_once(End end) {
  on_cores(1, [&](runtime::Runtime&) {
    const auto sound = full_disk(end);
    bool passed = false;
    std::uint64_t refused = 0, failed = 0;
    Prng random(1);
    for (std::uint64_t skip = 0; !passed; skip += skip < 30 ? 1 : random.between(1, 15)) {
      auto disk = sound->crash(Survival::kAll);
      disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .skip = skip}}});
      auto opened = open_on(std::move(disk), little_memory());
      if (!opened) {
        ++refused;
        EXPECT_TRUE(opened.failed_with(Code::kIo)) << "read " << skip << ": " << opened.error().to_string();
        continue;
      }
      Database& db = *opened->db;
      const Result<> used = use(db);
      failed += !used.has_value();
      EXPECT_TRUE(used || used.failed_with(Code::kIo) || used.failed_with(Code::kFailed)) << "read " << skip << ": " << used.error().to_string();
      passed = opened->disk->faults_hit() == 0;
      opened->disk->set_plan({});
      if (db.health()) {  // the same again, now that the disk reads
        EXPECT_OK(use(db));
        EXPECT_OK(db.close());
      }
      const auto checked = check_disk(opened->disk->crash(Survival::kAll), {.memory_bytes = 24_MiB}, kNoProgress);
      ASSERT_OK(checked);
      for (const std::string& problem : checked->problems) ADD_FAILURE() << "after read " << skip << ": " << problem;
      for (const auto& tree : checked->trees) {
        EXPECT_TRUE(tree.name != "t" || tree.keys == kKeys) << "after read " << skip << ": " << tree.keys;
      }
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_GT(refused, 0u);
    EXPECT_GT(failed, 0u);
    EXPECT_GT(refused + failed, 5u);
  });
}

TEST(EngineErrors, WhicheverReadFailsAfterAPowerCutNothingIsLost) { every_read_fails_once(End::kCut); }
TEST(EngineErrors, WhicheverReadFailsOfAClosedDiskNothingIsLost) { every_read_fails_once(End::kClean); }

TEST(EngineErrors, WhicheverReadFailsACheckSaysSo) {
  on_cores(1, [](runtime::Runtime&) {
    const auto sound = full_disk(End::kCut);
    bool passed = false;
    Prng random(2);
    for (std::uint64_t skip = 0; !passed; skip += skip < 40 ? 1 : random.between(1, 60)) {
      auto owned = sound->crash(Survival::kAll);
      MemoryDevice& disk = *owned;
      disk.set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .skip = skip}}});
      // The device is gone when the check ends: whether it was hit shows in that a check without faults finds nothing.
      const auto checked = check_disk(std::move(owned), {.memory_bytes = 24_MiB}, kNoProgress);
      passed = checked && checked->sound();
      EXPECT_TRUE(checked || checked.failed_with(Code::kIo) || checked.failed_with(Code::kFailed)) << checked.error().to_string();
      ASSERT_LT(skip, 20'000u);
    }
  });
}

PageId first_page(MemoryDevice& disk, const std::function<bool(const std::byte*)>& wanted) {
  const disk::Layout layout = disk::Superblock::read(disk)->layout();
  std::vector<std::byte> bytes(kPageBytes);
  for (std::uint64_t p = 2; p < 1000; ++p) {
    disk.peek(layout.offset_of(PageId{p}), bytes);
    if (wanted(bytes.data())) return PageId{p};
  }
  ADD_FAILURE() << "no such page";
  return PageId{1};
}

// What every start needs: the space map, the catalog's root, and its leaves to the last.
TEST(EngineErrors, AStartThatCannotReadWhatItNeeds) {
  on_cores(1, [](runtime::Runtime&) {
    const auto sound = full_disk(End::kClean);
    const disk::Layout layout = disk::Superblock::read(*sound)->layout();
    const PageId later_leaf = first_page(*sound, [](const std::byte* bytes) {
      const btree::NodeView node(bytes);
      return node.is_node() && node.is_leaf() && node.tree() == kCatalogTreeId && node.upper().empty();
    });
    for (const PageId page : {PageId{0}, kCatalogRoot, later_leaf}) {
      auto disk = sound->crash(Survival::kAll);
      const std::uint64_t at = layout.offset_of(page);
      disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .from_bytes = at, .to_bytes = at + 1,
                                 .count = blockdev::FaultRule::kAlways}}});
      EXPECT_TRUE(open_on(std::move(disk)).failed_with(Code::kIo)) << "page " << page.value;
    }
    EXPECT_OK(open_on(sound->crash(Survival::kAll)));
  });
}

// A savepoint that cannot be gone back to for want of the disk: the transaction can still be rolled back later.
TEST(EngineErrors, GoingBackToASavepointFailsAndIsDoneLater) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(full_disk(End::kClean), little_memory());
    ASSERT_OK(opened);
    Database& db = *opened->db;
    const Tree tree = *db.tree("t", false);
    auto txn = db.begin();
    const auto savepoint = txn->savepoint();
    ASSERT_OK(savepoint);
    for (int i = 1; i < kKeys; i += 10) ASSERT_OK(txn->put(tree, key_of(i), "never"));
    opened->disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .count = blockdev::FaultRule::kAlways}}});
    EXPECT_TRUE(txn->roll_back_to(*savepoint).failed_with(Code::kIo));
    opened->disk->set_plan({});
    ASSERT_OK(txn->roll_back());
    std::string value;
    for (int i = 1; i < kKeys; i += 10) {
      ASSERT_TRUE(*db.get(tree, key_of(i), value));
      ASSERT_EQ(value, value_of(i)) << i;
    }
    EXPECT_OK(db.close());
  });
}

// ---- writes that fail ----

TEST(EngineErrors, AReaderOfWhatIsNotDurableIsToldThatItNeverWillBe) {
  on_cores(1, [](runtime::Runtime&) {
    OpenReport report;
    auto owned = blank_disk();
    MemoryDevice& disk = *owned;
    auto db = DatabaseImpl::open(std::move(owned), small_options(), report, DatabaseImpl::Purpose::kInspect);
    ASSERT_OK(db);
    const Tree tree = *(*db)->tree("t", true);
    auto txn = (*db)->begin();
    ASSERT_OK(txn->put(tree, "a", "1"));
    ASSERT_OK(txn->commit_no_wait());
    disk.set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .count = blockdev::FaultRule::kAlways}}});
    std::string value;
    EXPECT_TRUE((*db)->get(tree, "a", value, nullptr).failed_with(Code::kFailed));
    EXPECT_TRUE((*db)->tree("new", true).failed_with(Code::kFailed));
    EXPECT_TRUE((*db)->tree("new", false).failed_with(Code::kNotFound));
  });
}

// The log would take the commit, but a page could not be written: that ends acknowledging as well.
TEST(EngineErrors, ACommitAfterAPageCouldNotBeWritten) {
  on_cores(1, [](runtime::Runtime&) {
    OpenReport report;
    auto owned = blank_disk();
    MemoryDevice& disk = *owned;
    auto db = DatabaseImpl::open(std::move(owned), little_memory(), report, DatabaseImpl::Purpose::kInspect);
    ASSERT_OK(db);
    const Tree tree = *(*db)->tree("t", true);
    disk.set_plan({.rules = {{.fault = Fault::kError, .op = Op::kWrite, .from_bytes = (*db)->superblock().layout().double_write_offset,
                              .count = blockdev::FaultRule::kAlways}}});
    Result<> committed;
    for (int i = 0; i < 20'000 && (*db)->pool().health(); ++i) {
      auto txn = (*db)->begin();
      const auto put = txn->put(tree, key_of(i), value_of(1));
      committed = put ? txn->commit() : Result<>(put.error());
    }
    EXPECT_GT(disk.faults_hit(), 0u);
    EXPECT_TRUE(committed.failed_with(Code::kFailed));
    EXPECT_TRUE((*db)->health().failed_with(Code::kFailed));
  });
}

TEST(EngineErrors, MemoryThatIsRefusedAtTheStart) {
  on_cores(1, [](runtime::Runtime&) {
    OpenReport report;
    const auto none = [](std::uint64_t, std::uint64_t) -> Result<std::unique_ptr<bufferpool::PageMap>> { return Code::kOutOfMemory; };
    EXPECT_TRUE(DatabaseImpl::open(blank_disk(), small_options(), report, DatabaseImpl::Purpose::kServe, none).failed_with(Code::kOutOfMemory));
  });
}

// ---- checksums that fit ----

// Puts an entry into the catalog behind the database's back, and closes it.
std::unique_ptr<MemoryDevice> with_catalog_entry(const std::string& key, const std::string& value) {
  OpenReport report;
  auto owned = blank_disk();
  MemoryDevice& disk = *owned;
  auto db = DatabaseImpl::open(std::move(owned), small_options(), report, DatabaseImpl::Purpose::kInspect);
  EXPECT_OK(db);
  const Tree tree = *(*db)->tree("t", true);
  for (int i = 0; i < 300; ++i) EXPECT_OK((*db)->put(tree, key_of(i), value_of(i)));
  {
    TransactionImpl txn(**db, TransactionImpl::Kind::kInternal);
    if (value.empty()) {
      EXPECT_OK(txn.erase((*db)->catalog(), key));
    } else {
      EXPECT_OK(txn.write((*db)->catalog(), key, value, PutIf::kAlways));
    }
    EXPECT_OK(txn.commit());
  }
  EXPECT_OK((*db)->close());
  return disk.crash(Survival::kAll);
}

struct Keys final : SalvageSink {
  bool wants(const SalvagedTree&, std::string&) override { return true; }
  Result<> pair(const SalvagedTree& tree, std::string_view, std::string_view, bool) override {
    if (++pairs == fail_at) return Error(Code::kNoSpace, "the dump's file system is full");
    keys[tree.name] += 1;
    return {};
  }
  std::map<std::string, int> keys;
  std::uint64_t pairs = 0, fail_at = 0;
};

Result<SalvageReport> salvage(MemoryDevice& disk, SalvageSink& sink) {
  return salvage_disk(disk.crash(Survival::kAll), {.memory_bytes = 24_MiB}, sink, kNoProgress);
}

std::string problems_of(MemoryDevice& disk) {
  const auto checked = check_disk(disk.crash(Survival::kAll), {.memory_bytes = 24_MiB}, kNoProgress);
  std::string text = checked ? "" : checked.error().to_string();
  if (checked) {
    for (const std::string& problem : checked->problems) text += problem + "\n";
  }
  return text;
}

TEST(EngineErrors, ACatalogWithAnEntryOfAWrongShape) {
  on_cores(1, [](runtime::Runtime&) {
    for (const std::string key : {"nbad", "dbad"}) {
      const auto disk = with_catalog_entry(key, "no reference");
      EXPECT_TRUE(open_on(disk->crash(Survival::kAll)).failed_with(Code::kCorrupt));
      EXPECT_NE(problems_of(*disk).find("the catalog holds an invalid entry"), std::string::npos) << problems_of(*disk);
      Keys sink;
      const auto report = salvage(*disk, sink);
      ASSERT_OK(report);
      EXPECT_EQ(sink.keys["t"], 300) << "the others are passed on";
      ASSERT_EQ(report->skipped_count, 1u);
      EXPECT_EQ(report->skipped[0].tree, "(catalog)");
      EXPECT_NE(report->skipped[0].reason.find("invalid entry"), std::string::npos) << report->skipped[0].reason;
    }
  });
}

TEST(EngineErrors, ATreeWhoseRootIsNotThere) {
  on_cores(1, [](runtime::Runtime&) {
    const auto disk = with_catalog_entry("nbeyond", encode_ref({TreeId{77}, PageId{1 << 30}}));
    EXPECT_NE(problems_of(*disk).find("tree beyond: "), std::string::npos) << problems_of(*disk);
    Keys sink;
    const auto report = salvage(*disk, sink);
    ASSERT_OK(report);
    EXPECT_EQ(sink.keys["t"], 300);
    EXPECT_GT(report->skipped_count, 0u);
    auto opened = open_on(disk->crash(Survival::kAll));
    ASSERT_OK(opened);
    std::string value;
    EXPECT_TRUE(opened->db->get(*opened->db->tree("beyond", false), "a", value).failed_with(Code::kCorrupt));
    EXPECT_TRUE(*opened->db->get(*opened->db->tree("t", false), key_of(7), value));
  });
}

TEST(EngineErrors, ATreeThatIsReachedTwiceAndOneThatIsNotReached) {
  on_cores(1, [](runtime::Runtime&) {
    PageId root;
    TreeId id;
    {
      const auto disk = with_catalog_entry("n", "");  // nothing is removed
      EXPECT_EQ(problems_of(*disk), "");
      OpenReport report;
      auto db = DatabaseImpl::open(disk->crash(Survival::kAll), small_options(), report, DatabaseImpl::Purpose::kInspect);
      ASSERT_OK(db);
      const TreeRef ref = *(*db)->entry_of(*(*db)->tree("t", false))->ref.load();
      root = ref.root;
      id = ref.id;
    }
    const auto twice = with_catalog_entry("nsame", encode_ref({id, root}));
    EXPECT_NE(problems_of(*twice).find("which is reached before"), std::string::npos) << problems_of(*twice);
    const auto another = with_catalog_entry("nother", encode_ref({TreeId{77}, root}));
    Keys sink;
    const auto report = salvage(*another, sink);
    ASSERT_OK(report);
    EXPECT_EQ(sink.keys["t"], 300);
    EXPECT_EQ(sink.keys["other"], 0);
    ASSERT_GT(report->skipped_count, 0u);
    EXPECT_NE(report->skipped[0].reason.find("belongs to tree"), std::string::npos) << report->skipped[0].reason;
    const auto lost = with_catalog_entry("nt", "");
    EXPECT_NE(problems_of(*lost).find("but no tree reaches it"), std::string::npos) << problems_of(*lost);
  });
}

// A page changed by hand, its checksum made good.
void change_page(MemoryDevice& disk, PageId page, const std::function<void(std::byte*)>& change) {
  const disk::Layout layout = disk::Superblock::read(disk)->layout();
  std::vector<std::byte> bytes(kPageBytes);
  disk.peek(layout.offset_of(page), bytes);
  change(bytes.data());
  disk::stamp_page(page, bytes.data(), layout.checksum_seed());
  disk.poke(layout.offset_of(page), bytes);
}

bool is_leaf_of_t(const std::byte* bytes) {
  const btree::NodeView node(bytes);
  return node.is_node() && node.is_leaf() && node.count() > 3 && node.tree().value == 2;
}

TEST(EngineErrors, PagesThatVerifyAndAreNonsense) {
  on_cores(1, [](runtime::Runtime&) {
    const auto sound = with_catalog_entry("n", "");
    const PageId leaf = first_page(*sound, is_leaf_of_t);
    const auto type_of = [](const std::byte* bytes) { return static_cast<disk::PageType>(disk::header_of(bytes).type); };
    const PageId overflow = first_page(*sound, [&](const std::byte* bytes) { return type_of(bytes) == disk::PageType::kOverflowData; });

    const auto broken_node = sound->crash(Survival::kAll);
    change_page(*broken_node, leaf, [](std::byte* bytes) { std::memset(bytes + sizeof(disk::PageHeader) + 16, 0xff, 64); });
    const auto other_value = sound->crash(Survival::kAll);
    change_page(*other_value, overflow, [](std::byte* bytes) { bytes[sizeof(disk::PageHeader)] ^= std::byte{0x55}; });
    const auto free_page = sound->crash(Survival::kAll);
    change_page(*free_page, PageId{0}, [&](std::byte* bytes) {
      bytes[disk::kSpaceMapHeaderBytes + leaf.value / 8] &= ~(std::byte{1} << (leaf.value % 8));
    });

    EXPECT_NE(problems_of(*broken_node).find("page " + std::to_string(leaf.value)), std::string::npos) << problems_of(*broken_node);
    EXPECT_NE(problems_of(*other_value), "");
    EXPECT_NE(problems_of(*free_page).find("but free in the space map"), std::string::npos) << problems_of(*free_page);
    for (MemoryDevice* disk : {broken_node.get(), other_value.get(), free_page.get()}) {
      Keys sink;
      const auto report = salvage(*disk, sink);
      ASSERT_OK(report);
      EXPECT_EQ(report->skipped_count == 0, sink.keys["t"] == 300);
      EXPECT_GT(sink.keys["t"], 200);
    }
  });
}

// A leaf that says of a value of its own that it lies on overflow pages.
TEST(EngineErrors, ALeafWhoseReferenceIsNone) {
  on_cores(1, [](runtime::Runtime&) {
    const auto disk = with_catalog_entry("n", "");
    const PageId leaf = first_page(*disk, [](const std::byte* bytes) {
      if (!is_leaf_of_t(bytes)) return false;
      const btree::NodeView node(bytes);
      for (unsigned i = 0; i < node.count(); ++i) {
        if (node.value(i).is_overflow) return true;
      }
      return false;
    });
    change_page(*disk, leaf, [](std::byte* bytes) {
      const btree::NodeView node(bytes);
      for (unsigned i = 0; i < node.count(); ++i) {
        const auto value = node.value(i);
        if (value.is_overflow) std::memset(bytes + (value.bytes.data() - bytes), 0xff, value.bytes.size());
      }
    });
    Keys sink;
    const auto report = salvage(*disk, sink);
    ASSERT_OK(report);
    EXPECT_GT(report->skipped_count, 0u);
    EXPECT_EQ(report->skipped_count, report->skipped_keys);
    EXPECT_NE(report->skipped[0].reason.find("refers to no overflow value"), std::string::npos) << report->skipped[0].reason;
    EXPECT_EQ(static_cast<std::uint64_t>(sink.keys["t"]), 300 - report->skipped_keys);
  });
}

TEST(EngineErrors, AGroupWhoseSpaceMapDoesNotVerify) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk(400_MiB));
    ASSERT_OK(opened);
    ASSERT_OK(opened->db->put(*opened->db->tree("t", true), "a", "1"));
    ASSERT_OK(opened->db->close());
    EXPECT_EQ(problems_of(*opened->disk), "") << "groups that nobody used";
    auto damaged = opened->disk->crash(Survival::kAll);
    const disk::Layout layout = disk::Superblock::read(*damaged)->layout();
    damaged->poke(layout.offset_of(PageId{disk::kPagesPerSpaceMap}), std::vector<std::byte>(kPageBytes, std::byte{7}));
    const std::string page = "page " + std::to_string(disk::kPagesPerSpaceMap);
    EXPECT_NE(problems_of(*damaged).find(page), std::string::npos) << problems_of(*damaged);
    const auto refused = open_on(damaged->crash(Survival::kAll));
    ASSERT_TRUE(refused.failed_with(Code::kCorrupt));
    EXPECT_NE(refused.error().message().find(page), std::string::npos) << refused.error().message();
  });
}

TEST(EngineErrors, ADamagedLogIsNamedByACheck) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(blank_disk());
    ASSERT_OK(opened);
    const Tree tree = *opened->db->tree("t", true);
    for (int i = 0; i < 40; ++i) ASSERT_OK(opened->db->put(tree, key_of(i), "x"));
    auto disk = opened->disk->crash(Survival::kAll);
    const auto superblock = disk::Superblock::read(*disk);
    const disk::Layout layout = superblock->layout();
    const std::uint64_t at = superblock->checkpoint().log_position + 20 * kPageBytes;
    disk->flip_bit(layout.log_offset + at % layout.log_bytes + 130, 1);
    EXPECT_NE(problems_of(*disk).find("log: "), std::string::npos) << problems_of(*disk);
  });
}

// The disk said that it wrote the page and did not; what the log says of it since has no base.
TEST(EngineErrors, APageThatIsBehindTheLogIsNotPassedOn) {
  on_cores(1, [](runtime::Runtime&) {
    auto opened = open_on(with_catalog_entry("n", ""));
    ASSERT_OK(opened);
    MemoryDevice& disk = *opened->disk;
    const Tree tree = *opened->db->tree("t", false);
    const PageId leaf = first_page(disk, is_leaf_of_t);
    const disk::Layout layout = disk::Superblock::read(disk)->layout();
    std::vector<std::byte> bytes(kPageBytes);
    disk.peek(layout.offset_of(leaf), bytes);
    const std::string key = btree::full_key(btree::NodeView(bytes.data()), 1);
    ASSERT_OK(opened->db->put(tree, key, "phantom"));
    const std::uint64_t at = layout.offset_of(leaf);
    disk.set_plan({.rules = {{.fault = Fault::kPhantom, .op = Op::kWrite, .from_bytes = at, .to_bytes = at + 1}}});
    ASSERT_OK(opened->db->checkpoint());
    EXPECT_EQ(disk.faults_hit(), 1u);
    ASSERT_OK(opened->db->put(tree, key, "newest"));
    auto cut = disk.crash(Survival::kAll);
    cut->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
    EXPECT_TRUE(open_on(cut->crash(Survival::kAll)).failed_with(Code::kCorrupt));
    Keys sink;
    const auto report = salvage(*cut, sink);
    ASSERT_OK(report);
    ASSERT_EQ(report->skipped_count, 1u);
    EXPECT_EQ(report->skipped[0].page, leaf);
    EXPECT_NE(report->skipped[0].reason.find("is behind the log"), std::string::npos) << report->skipped[0].reason;
    EXPECT_LT(sink.keys["t"], 300);
  });
}

// ---- dumps that end early ----

// Wherever the taker of pairs fails, its error ends the salvage: on a sound disk, and where leaves are searched for.
TEST(EngineErrors, ASalvageEndsWithItsSinksError) {
  on_cores(1, [](runtime::Runtime&) {
    for (const bool searched : {false, true}) {
      const auto disk = full_disk(End::kCut);
      if (searched) {
        const disk::Layout layout = disk::Superblock::read(*disk)->layout();
        disk->poke(layout.double_write_offset, std::vector<std::byte>(layout.double_write_bytes));
        const PageId inner = first_page(*disk, [](const std::byte* bytes) {
          const btree::NodeView node(bytes);
          return node.is_node() && node.level() == 1 && node.tree().value == 2;
        });
        disk->flip_bit(layout.offset_of(inner) + 2000, 3);
      }
      Keys all;
      ASSERT_OK(salvage(*disk, all));
      ASSERT_GT(all.pairs, 1000u);
      for (std::uint64_t at = 1; at <= all.pairs; at += all.pairs / 20) {
        Keys sink;
        sink.fail_at = at;
        EXPECT_TRUE(salvage(*disk, sink).failed_with(Code::kNoSpace)) << at;
      }
      Keys last;
      last.fail_at = all.pairs;
      EXPECT_TRUE(salvage(*disk, last).failed_with(Code::kNoSpace));
    }
    Keys sink;
    EXPECT_TRUE(salvage_disk(full_disk(End::kCut), {.memory_bytes = 1_MiB}, sink, kNoProgress).failed_with(Code::kTooSmall));
  });
}

}  // namespace
}  // namespace kelda::engine
