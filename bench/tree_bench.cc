// A tree over the real log, pool and page store on a simulated disk that answers at once: what the code costs, without a
// device. All pages stay resident. 16-byte keys, 120-byte values.
#include <optional>

#include "bench/suites.h"
#include "blockdev/memory_sim.h"
#include "btree/btree.h"
#include "btree/space.h"
#include "disk/superblock.h"
#include "tools/key_generator.h"

namespace kelda::bench {
namespace {

constexpr TreeId kTree{5};
constexpr PageId kRoot{1};
constexpr std::uint64_t kFrames = 12288;              // above what kMaxRecords need
constexpr std::uint64_t kMaxRecords = 100'000;
constexpr std::uint64_t kPutsPerTransaction = 64;
constexpr std::size_t kValueBytes = 120;

// Ordered keys are the record number in 16 hexadecimal digits; the others are scattered over the key space.
void make_key(bool ordered, std::uint64_t record, std::string& key) {
  if (!ordered) return tools::make_key(record, key);
  key.resize(16);
  for (std::size_t i = 16; i-- > 0; record >>= 4) key[i] = "0123456789abcdef"[record & 15];
}

// Members in the order in which they need each other.
struct TreeSetup {
  blockdev::MemoryDevice device{{.size_bytes = 256_MiB, .name = "bench"}};
  disk::Superblock superblock = must(disk::Superblock::format(device, {.log_bytes = 64_MiB}), "format");
  std::unique_ptr<disk::PageStore> store = disk::make_double_write_store(device, superblock.layout());
  std::unique_ptr<bufferpool::BufferPool> pool;
  std::unique_ptr<wal::Log> log;
  std::unique_ptr<btree::Space> space;
  std::unique_ptr<btree::TreeRecovery> recovery;
  std::optional<btree::BTree> tree;
  std::uint64_t records = 0;
  std::string key, value = std::string(kValueBytes, 'v');

  TreeSetup() {
    must(store->repair(), "repair");
    const disk::Layout& layout = superblock.layout();
    pool = must(bufferpool::BufferPool::create({.frame_count = kFrames, .page_count = layout.page_count}, *store), "pool");
    log = must(wal::Log::create(device, superblock, *pool, {}), "log");
    pool->set_write_barrier(*log);
    space = must(btree::Space::create(*pool, *log, layout), "space");
    recovery = std::make_unique<btree::TreeRecovery>(env());
    must(log->recover(*recovery), "recovery");
    must(space->load(), "space");
    must(btree::BTree::ensure_at(env(), kTree, kRoot), "tree");
    tree.emplace(env(), kTree, kRoot);
  }

  btree::TreeEnv env() { return {*pool, *log, *space}; }

  static std::unique_ptr<TreeSetup> with(std::uint64_t count) {
    auto setup = std::make_unique<TreeSetup>();
    Writer writer(*setup, false);
    while (setup->records < count) writer.insert_next();
    return setup;
  }

  // Puts in transactions of kPutsPerTransaction; commits do not wait.
  class Writer {
   public:
    Writer(TreeSetup& setup, bool ordered) : s_(setup), ordered_(ordered) {}
    ~Writer() { commit(); }
    void insert_next() {
      make_key(ordered_, s_.records++, s_.key);
      put();
    }
    void put() {
      if (!txn_) {
        txn_ = std::make_unique<btree::TreeTxn>();
        s_.log->begin(txn_->log);
      }
      must(s_.tree->put(*txn_, as_bytes(s_.key), as_bytes(s_.value)), "put");
      if (++puts_ % kPutsPerTransaction == 0) commit();
    }

   private:
    void commit() {
      if (txn_) must(btree::commit(s_.env(), *txn_), "commit");
      txn_.reset();
    }
    TreeSetup& s_;
    bool ordered_;
    std::unique_ptr<btree::TreeTxn> txn_;
    std::uint64_t puts_ = 0;
  };
};

void lookup(benchmark::State& state, TreeSetup& s) {
  tools::Random random(1);
  std::string value;
  for (auto _ : state) {
    make_key(false, random.next() % s.records, s.key);
    const Result<bool> found = s.tree->lookup(as_bytes(s.key), value);
    if (!found || !*found) state.SkipWithError("a key is missing");
  }
}

void update(benchmark::State& state, TreeSetup& s) {
  tools::Random random(2);
  TreeSetup::Writer writer(s, false);
  for (auto _ : state) {
    make_key(false, random.next() % s.records, s.key);
    writer.put();
  }
}

// An empty tree grows; it starts anew, outside the measured time, before it leaves memory.
void insert(benchmark::State& state, bool ordered) {
  auto setup = std::make_unique<TreeSetup>();
  auto writer = std::make_unique<TreeSetup::Writer>(*setup, ordered);
  for (auto _ : state) {
    if (setup->records == kMaxRecords) {
      state.PauseTiming();
      writer.reset();
      setup = std::make_unique<TreeSetup>();
      writer = std::make_unique<TreeSetup::Writer>(*setup, ordered);
      state.ResumeTiming();
    }
    writer->insert_next();
  }
  writer.reset();
}

// An item is a key and its value.
void scan(benchmark::State& state, TreeSetup& s, bool forward) {
  btree::Cursor cursor(*s.tree);
  for (auto _ : state) {
    Result<bool> more = !cursor.valid() ? (forward ? cursor.seek({}) : cursor.seek_back({})) : (forward ? cursor.next() : cursor.prev());
    if (!more) state.SkipWithError("the scan failed");
    if (!cursor.valid()) continue;
    benchmark::DoNotOptimize(cursor.value());
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void seek(benchmark::State& state, TreeSetup& s) {
  tools::Random random(3);
  btree::Cursor cursor(*s.tree);
  for (auto _ : state) {
    make_key(false, random.next() % s.records, s.key);
    const Result<bool> found = cursor.seek(as_bytes(s.key));
    if (!found || !*found) state.SkipWithError("a key is missing");
  }
}

}  // namespace

void add_tree_benchmarks() {
  for (const std::uint64_t records : {std::uint64_t{1'000}, kMaxRecords}) {
    const Shared<TreeSetup> full([records] { return TreeSetup::with(records); });
    const std::string suffix = "/records:" + std::to_string(records);
    benchmark::RegisterBenchmark(("tree/lookup" + suffix).c_str(), [full](benchmark::State& s) { lookup(s, full.get()); });
    benchmark::RegisterBenchmark(("tree/seek" + suffix).c_str(), [full](benchmark::State& s) { seek(s, full.get()); });
    benchmark::RegisterBenchmark(("tree/scan_forward" + suffix).c_str(), [full](benchmark::State& s) { scan(s, full.get(), true); });
    benchmark::RegisterBenchmark(("tree/scan_backward" + suffix).c_str(), [full](benchmark::State& s) { scan(s, full.get(), false); });
    benchmark::RegisterBenchmark(("tree/update" + suffix).c_str(), [full](benchmark::State& s) { update(s, full.get()); });
  }
  benchmark::RegisterBenchmark("tree/insert_ordered", [](benchmark::State& s) { insert(s, true); });
  benchmark::RegisterBenchmark("tree/insert_random", [](benchmark::State& s) { insert(s, false); });
}

}  // namespace kelda::bench
