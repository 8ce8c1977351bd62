// Many fibers on several cores change one tree at once, under scans and reads: simulated with many orders, and on real
// cores. Writers own disjoint keys, as the engine's locks would have it.
#include <atomic>

#include "btree_harness.h"
#include "runtime/backend.h"
#include "runtime/sync.h"

namespace kelda::btree {
namespace {

using Model = std::map<std::string, std::string>;

struct Plan {
  unsigned writers = 4, scanners = 2;
  int transactions = 12, changes = 20;
  unsigned keys_per_writer = 120;
  std::size_t max_value_bytes = 12'000;
  std::uint64_t frames = 256;
};

// A value names its key and is one letter throughout, so that mixed or misplaced bytes show.
std::string value_of(const std::string& key, std::mt19937_64& random, std::size_t max_bytes) {
  std::string value = key + "=";
  value.append(random_value(random, max_bytes).size(), static_cast<char>('a' + random() % 26));
  return value;
}

bool is_whole(std::string_view key, std::string_view value) {
  if (!value.starts_with(key) || value.size() <= key.size() || value[key.size()] != '=') return false;
  const std::string_view body = value.substr(key.size() + 1);
  return body.find_first_not_of(body.empty() ? 'a' : body[0]) == std::string_view::npos;
}

std::string key_of(unsigned writer, unsigned number) {
  // Owners interleave, so that they meet in every leaf.
  std::string key = std::to_string(number % 10) + "/" + std::to_string(number) + "/" + std::to_string(writer);
  if (number % 17 == 0) key += std::string(300, 'x');
  return key;
}

struct Shared {
  Shared(const Plan& p, std::unique_ptr<blockdev::MemoryDevice> d) : plan(p), disk(std::move(d)) {}
  Plan plan;
  std::unique_ptr<blockdev::MemoryDevice> disk;
  std::unique_ptr<Db> db;
  std::vector<Model> models;
  std::atomic<unsigned> writing{0};
  runtime::Completion done;
};

void write(Shared& shared, unsigned writer, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Model& model = shared.models[writer];
  BTree tree = shared.db->tree();
  for (int t = 0; t < shared.plan.transactions; ++t) {
    Txn txn(*shared.db);
    Model next = model;
    const bool removing = t % 6 >= 3;
    for (int i = 0; i < shared.plan.changes; ++i) {
      const std::string key = key_of(writer, static_cast<unsigned>(random() % shared.plan.keys_per_writer));
      if (random() % 100 < (removing ? 85 : 15)) {
        const auto removed = tree.remove(txn.txn, as_bytes(key));
        ASSERT_OK(removed);
        ASSERT_EQ(*removed, next.erase(key) == 1);
      } else {
        const std::string value = value_of(key, random, shared.plan.max_value_bytes);
        const auto put = tree.put(txn.txn, as_bytes(key), as_bytes(value));
        ASSERT_OK(put);
        ASSERT_EQ(*put == PutOutcome::kUpdated, next.contains(key));
        next[key] = value;
      }
      if (random() % 4 == 0) runtime::Core::current().yield();
      const std::string probe = key_of(writer, static_cast<unsigned>(random() % shared.plan.keys_per_writer));
      std::string value;
      const auto found = tree.lookup(as_bytes(probe), value);
      ASSERT_OK(found);
      ASSERT_EQ(*found, next.contains(probe));
      if (*found) { ASSERT_TRUE(value == next[probe]); }
    }
    if (random() % 3 == 0) {
      ASSERT_OK(txn.roll_back());
    } else {
      ASSERT_OK(txn.commit());
      model = std::move(next);
    }
  }
}

void scan(Shared& shared, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  BTree tree = shared.db->tree();
  for (bool forward = true; shared.writing.load() > 0; forward = !forward) {
    Cursor cursor(tree);
    std::string last;
    auto more = forward ? cursor.seek({}) : cursor.seek_back({});
    ASSERT_OK(more);
    while (*more) {
      const std::string key(as_view(cursor.key()));
      if (!last.empty()) { ASSERT_TRUE(forward ? last < key : key < last) << last << " then " << key; }
      last = key;
      const auto value = cursor.value();
      if (value) {
        ASSERT_TRUE(is_whole(key, as_view(*value))) << key;
      } else {
        ASSERT_TRUE(value.failed_with(Code::kNotFound)) << value.error().to_string();
      }
      if (random() % 8 == 0) runtime::Core::current().yield();
      more = forward ? cursor.next() : cursor.prev();
      ASSERT_OK(more);
    }
    runtime::Core::current().yield();
  }
}

void verify(Shared& shared) {
  Model all;
  for (const Model& model : shared.models) all.insert(model.begin(), model.end());
  const auto contents = shared.db->contents();
  ASSERT_OK(contents);
  ASSERT_TRUE(*contents == all) << contents->size() << " keys instead of " << all.size();
  ASSERT_OK(shared.db->check());
}

int run(runtime::Runtime& runtime, Shared& shared, std::uint64_t seed) {
  auto db = Db::open(*shared.disk, {.frames = shared.plan.frames});
  EXPECT_TRUE(db.has_value());
  if (!db) return 1;
  shared.db = std::move(*db);
  shared.models.resize(shared.plan.writers);
  shared.writing = shared.plan.writers;
  const unsigned fibers = shared.plan.writers + shared.plan.scanners;
  shared.done.add(fibers);
  for (unsigned i = 0; i < fibers; ++i) {
    const auto spawned = runtime.core(i % runtime.core_count()).spawn_remote([&shared, i, seed] {
      if (i < shared.plan.writers) {
        write(shared, i, seed * 100 + i);
        --shared.writing;
      } else {
        scan(shared, seed * 100 + i);
      }
      shared.done.done();
    }, {.stack_bytes = 256 * 1024});
    EXPECT_TRUE(spawned.has_value());
  }
  shared.done.wait();
  if (!testing::Test::HasFatalFailure()) verify(shared);
  shared.db.reset();
  return 0;
}

TEST(BtreeConcurrency, SimulatedOrders) {
  for (std::uint64_t seed = 1; seed <= 12 && !testing::Test::HasFatalFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Shared shared({}, new_disk(64_MiB, 4_MiB));
    shared.disk->set_plan({.seed = seed, .delay_min_ns = 100, .delay_max_ns = 20'000});
    const auto ran = runtime::run_simulated({.seed = seed, .core_count = 3, .stray_unparks = true, .max_steps = 50'000'000},
                                            [&](runtime::Runtime& runtime) { return run(runtime, shared, seed); });
    ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
    ASSERT_EQ(*ran, 0);
  }
}

// Far more writers of large values than frames for all of them: everybody gets through.
TEST(BtreeConcurrency, LargeValuesOnFewFrames) {
  constexpr unsigned kFibers = 60;
  auto disk = new_disk(128_MiB, 8_MiB);
  disk->set_plan({.delay_min_ns = 1'000, .delay_max_ns = 50'000});
  const auto ran = runtime::run_simulated({.seed = 3, .core_count = 4, .max_steps = 50'000'000}, [&](runtime::Runtime& runtime) {
    auto db = Db::open(*disk, {.frames = 256});
    if (!db) return 1;
    runtime::Completion done;
    done.add(kFibers);
    for (unsigned f = 0; f < kFibers; ++f) {
      EXPECT_TRUE(runtime.core(f % 4).spawn_remote([&, f] {
        for (unsigned i = 0; i < 4; ++i) {
          Txn txn(**db);
          const std::string key = key_of(f, i % 2), value(100'000 + f, static_cast<char>('a' + i));
          ASSERT_OK((*db)->tree().put(txn.txn, as_bytes(key), as_bytes(value)));
          ASSERT_OK(txn.commit());
        }
        done.done();
      }, {.stack_bytes = 256 * 1024}).has_value());
    }
    done.wait();
    const auto report = (*db)->check();
    EXPECT_TRUE(report.has_value() && report->keys == 2 * kFibers && report->overflow_pages == 2 * kFibers * 26);
    db->reset();
    return 0;
  });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
  ASSERT_EQ(*ran, 0);
}

void on_real_cores(const Plan& plan, std::uint64_t seed) {
  Shared shared(plan, new_disk(128_MiB, 8_MiB));
  const auto cores = std::min(4u, std::max(2u, runtime::process_platform().cpu_count()));
  const auto ran = runtime::Runtime::run({.core_count = std::min(cores, runtime::process_platform().max_threads())},
                                         [&](runtime::Runtime& runtime) { return run(runtime, shared, seed); });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
  ASSERT_EQ(*ran, 0);
}

// One core rewrites values of one leaf as fast as it can, the others read them: each value is of one letter.
TEST(BtreeConcurrency, AReaderOnAnotherCoreNeverSeesHalfAChange) {
  auto disk = new_disk();
  const auto cores = std::min(2u, runtime::process_platform().max_threads());
  const auto ran = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& runtime) {
    auto db = Db::open(*disk);
    if (!db) return 1;
    const auto write = [&](char letter) {
      Txn txn(**db);
      for (const char* key : {"a", "b", "c"}) {
        ASSERT_OK((*db)->tree().put(txn.txn, as_bytes(key), as_bytes(std::string(700, letter))));
      }
      ASSERT_OK(txn.commit());
    };
    write('z');
    std::atomic<bool> stop{false};
    std::atomic<unsigned> reads{0}, torn{0};
    runtime::Completion readers;
    readers.add(1);
    EXPECT_TRUE(runtime.core(cores - 1).spawn_remote([&] {
      std::string value;
      while (!stop.load()) {
        for (const char* key : {"a", "b", "c"}) {
          const auto found = (*db)->tree().lookup(as_bytes(key), value);
          torn += !found || !*found || value != std::string(700, value.empty() ? '?' : value[0]);
          ++reads;
        }
        runtime::Core::current().yield();
      }
      readers.done();
    }, {.stack_bytes = 256 * 1024}).has_value());
    for (int round = 0; round < 20'000 || reads.load() < 1000; ++round) {
      write(static_cast<char>('a' + round % 26));
      if (round % 16 == 0) runtime::Core::current().yield();
    }
    stop = true;
    readers.wait();
    EXPECT_EQ(torn.load(), 0u) << "of " << reads.load();
    db->reset();
    return 0;
  });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
  ASSERT_EQ(*ran, 0);
}

TEST(BtreeConcurrency, RealCoresFewFrames) { on_real_cores({.transactions = 40}, 5); }
TEST(BtreeConcurrency, RealCoresHotLeaves) {
  on_real_cores({.transactions = 150, .keys_per_writer = 20, .max_value_bytes = 300, .frames = 2048}, 6);
}
TEST(BtreeConcurrency, RealCoresManySplits) {
  on_real_cores({.transactions = 40, .changes = 60, .keys_per_writer = 1500, .max_value_bytes = 1000, .frames = 4096}, 7);
}

}  // namespace
}  // namespace kelda::btree
