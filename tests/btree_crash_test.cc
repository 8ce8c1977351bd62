// Power cuts at sampled operations of the disk: what was acknowledged is there, what was not is gone whole, the tree is
// sound, and exactly its pages are in use.
#include "btree_harness.h"
#include "runtime/sync.h"

namespace kelda::btree {
namespace {

using Model = std::map<std::string, std::string>;

// What may be found after a crash: the last acknowledged state, or that of the transaction whose commit was under way.
struct History {
  Model acknowledged, maybe;
};

// Runs transactions until the disk dies or they are done. True: they were done.
bool work(blockdev::BlockDevice& device, std::uint64_t seed, int transactions, History& history) {
  auto db = Db::open(device, {.frames = 256});
  if (!db) return false;
  std::mt19937_64 random(seed);
  BTree tree = (*db)->tree();
  for (int t = 0; t < transactions; ++t) {
    Txn txn(**db);
    Model next = history.acknowledged;
    const unsigned remove_percent = t % 6 < 3 ? 10 : 60;
    const int changes = 1 + static_cast<int>(random() % 40);
    for (int i = 0; i < changes; ++i) {
      const std::string key = random_key(random, 150);
      if (random() % 100 < remove_percent) {
        if (!tree.remove(txn.txn, as_bytes(key))) return false;
        next.erase(key);
      } else {
        const std::string value = random_value(random, 20'000);
        if (!tree.put(txn.txn, as_bytes(key), as_bytes(value))) return false;
        next[key] = value;
      }
    }
    if (t % 7 == 6 && !(*db)->log->checkpoint()) return false;
    if (t % 4 == 1) {
      if (!txn.roll_back()) return false;
      continue;
    }
    history.maybe = next;
    if (!txn.commit_durably()) return false;
    history.acknowledged = next;
  }
  return (*db)->log->checkpoint(true).has_value();
}

void crash_at(std::uint64_t op, std::uint64_t seed, blockdev::Survival survival, bool crash_in_recovery, bool& done) {
  SCOPED_TRACE("operation " + std::to_string(op) + ", seed " + std::to_string(seed));
  auto disk = new_disk(48_MiB, 2_MiB);
  disk->set_plan({.crash_after_ops = disk->op_count() + op});
  History history;
  done = work(*disk, seed, 24, history);
  auto rebooted = disk->crash(survival, seed);
  if (crash_in_recovery) {
    rebooted->set_plan({.crash_after_ops = rebooted->op_count() + op % 37});
    (void)Db::open(*rebooted, {.frames = 256});
    rebooted = rebooted->crash(survival, seed + 1);
  }
  const auto db = Db::open(*rebooted, {.frames = 256});
  ASSERT_OK(db);
  const auto report = (*db)->check();
  ASSERT_OK(report);
  const auto contents = (*db)->contents();
  ASSERT_OK(contents);
  ASSERT_TRUE(*contents == history.acknowledged || *contents == history.maybe)
      << contents->size() << " keys, acknowledged " << history.acknowledged.size();
  // And it goes on.
  BTree tree = (*db)->tree();
  Txn txn(**db);
  ASSERT_OK(tree.put(txn.txn, as_bytes("after"), as_bytes("crash")));
  ASSERT_OK(txn.commit_durably());
  ASSERT_OK((*db)->check());
}

// Every few operations of two histories.
void crash_everywhere(std::uint64_t seed, blockdev::Survival survival, bool crash_in_recovery) {
  constexpr std::uint64_t kStride = 3;
  std::uint64_t runs = 0;
  for (const std::uint64_t history : {seed, seed + 100}) {
    bool done = false;
    for (std::uint64_t op = seed % kStride; !done && !testing::Test::HasFatalFailure(); op += kStride, ++runs) {
      crash_at(op, history, survival, crash_in_recovery, done);
    }
  }
  EXPECT_GT(runs, 40u);
}

TEST(BtreeCrash, UnflushedWritesLost) { crash_everywhere(11, blockdev::Survival::kNone, false); }
TEST(BtreeCrash, UnflushedWritesTorn) { crash_everywhere(12, blockdev::Survival::kRandom, false); }
TEST(BtreeCrash, AllWritesSurvive) { crash_everywhere(13, blockdev::Survival::kAll, false); }
TEST(BtreeCrash, RecoveryIsCutToo) { crash_everywhere(14, blockdev::Survival::kRandom, true); }

// Several writers of disjoint keys on simulated cores, checkpoints beside them, and the power goes.
struct Writers {
  std::unique_ptr<blockdev::MemoryDevice> disk;
  std::unique_ptr<Db> db;
  std::vector<History> histories;
  runtime::Completion done;
  bool stop = false;
};

std::string key_of_writer(std::size_t writer, std::mt19937_64& random) {
  return std::to_string(random() % 90) + "/" + std::to_string(writer);
}

void write_until_dead(Writers& all, std::size_t writer, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  History& history = all.histories[writer];
  BTree tree = all.db->tree();
  for (int t = 0; t < 60; ++t) {
    Txn txn(*all.db);
    Model next = history.acknowledged;
    for (int i = 0; i < 12; ++i) {
      const std::string key = key_of_writer(writer, random);
      if (random() % 100 < (t % 8 < 4 ? 20u : 75u)) {
        if (!tree.remove(txn.txn, as_bytes(key))) return;
        next.erase(key);
      } else {
        const std::string value = random_value(random, 15'000);
        if (!tree.put(txn.txn, as_bytes(key), as_bytes(value))) return;
        next[key] = value;
      }
      if (random() % 6 == 0) runtime::Core::current().yield();
    }
    if (random() % 4 == 0) {
      if (!txn.roll_back()) return;
      continue;
    }
    history.maybe = next;
    if (!txn.commit_durably()) return;
    history.acknowledged = next;
  }
}

int run_writers(runtime::Runtime& runtime, Writers& all, std::uint64_t seed) {
  auto db = Db::open(*all.disk, {.frames = 256});
  if (!db) return 0;
  all.db = std::move(*db);
  all.done.add(static_cast<std::uint32_t>(all.histories.size()));
  std::size_t working = all.histories.size();
  for (std::size_t w = 0; w < all.histories.size(); ++w) {
    const auto core = static_cast<std::uint32_t>(w % runtime.core_count());
    EXPECT_TRUE(runtime.core(core).spawn_remote([&all, &working, w, seed] {
      write_until_dead(all, w, seed * 10 + w);
      --working;
      all.done.done();
    }, {.stack_bytes = 256 * 1024}).has_value());
  }
  while (working > 0 && all.db->log->checkpoint()) runtime::Core::current().yield();
  all.done.wait();
  all.db.reset();
  return 0;
}

// Each writer's keys are as it left them, or as its last commit would have.
void expect_each_writer_whole(Db& db, const std::vector<History>& histories) {
  const auto contents = db.contents();
  ASSERT_OK(contents);
  for (std::size_t w = 0; w < histories.size(); ++w) {
    const std::string suffix = "/" + std::to_string(w);
    Model mine;
    for (const auto& [key, value] : *contents) {
      if (key.ends_with(suffix)) mine.emplace(key, value);
    }
    ASSERT_TRUE(mine == histories[w].acknowledged || mine == histories[w].maybe) << "writer " << w;
  }
  ASSERT_OK(db.check());
}

TEST(BtreeCrash, ConcurrentWriters) {
  std::uint64_t committed = 0;
  for (std::uint64_t seed = 1; seed <= 40 && !testing::Test::HasFatalFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Writers all;
    all.disk = new_disk(48_MiB, 2_MiB);
    all.histories.resize(4);
    all.disk->set_plan({.seed = seed, .delay_min_ns = 100, .delay_max_ns = 30'000, .crash_after_ops = all.disk->op_count() + seed * 9});
    const auto ran = runtime::run_simulated({.seed = seed, .core_count = 2, .max_steps = 20'000'000},
                                            [&](runtime::Runtime& runtime) { return run_writers(runtime, all, seed); });
    ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
    auto rebooted = all.disk->crash(blockdev::Survival::kRandom, seed);
    auto db = Db::open(*rebooted, {.frames = 256});
    ASSERT_OK(db);
    expect_each_writer_whole(**db, all.histories);
    for (const History& history : all.histories) committed += history.acknowledged.size();
  }
  EXPECT_GT(committed, 100u);
}

// A tree that is being dropped when the power goes: dropping goes on afterwards, and no page is lost.
TEST(BtreeCrash, DroppingGoesOn) {
  for (std::uint64_t op = 0; op < 200; op += 9) {
    auto disk = new_disk(48_MiB, 2_MiB);
    PageId root;
    {
      auto db = Db::open(*disk, {.frames = 256});
      ASSERT_OK(db);
      std::mt19937_64 random(op);
      Txn txn(**db);
      root = *BTree::create((*db)->env(), txn.txn, TreeId(9));
      BTree tree((*db)->env(), TreeId(9), root);
      for (int i = 0; i < 300; ++i) ASSERT_OK(tree.put(txn.txn, as_bytes(random_key(random)), as_bytes(random_value(random, 9'000))));
      ASSERT_OK(txn.commit_durably());
      disk->set_plan({.crash_after_ops = disk->op_count() + op});
      while (true) {
        const auto done = tree.drop_some(2);
        if (!done || *done) break;
        if (!(*db)->log->wait_durable(Lsn((*db)->log->next().value - 1))) break;
      }
    }
    auto rebooted = disk->crash(blockdev::Survival::kRandom, op);
    auto db = Db::open(*rebooted, {.frames = 256});
    ASSERT_OK(db);
    BTree tree((*db)->env(), TreeId(9), root);
    ASSERT_OK((*db)->check({tree}));
    for (auto done = tree.drop_some(100); ; done = tree.drop_some(100)) {
      ASSERT_OK(done);
      if (*done) break;
    }
    Txn txn(**db);
    tree.free_root(txn.txn);
    ASSERT_OK(txn.commit_durably());
    ASSERT_OK((*db)->check());
  }
}

}  // namespace
}  // namespace kelda::btree
