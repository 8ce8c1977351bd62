// The public interface (include/kelda/kelda.h) on a simulated disk that answers at once. All pages stay resident.
#include "bench/suites.h"
#include "blockdev/memory_sim.h"
#include "kelda/kelda.h"
#include "tools/key_generator.h"

namespace kelda::bench {
namespace {

constexpr std::uint64_t kRecords = 20'000;
constexpr std::uint64_t kPutsPerTransaction = 64;
constexpr std::size_t kValueBytes = 120;

struct EngineSetup {
  std::unique_ptr<Database> db;
  Tree tree;
  std::string key, value = std::string(kValueBytes, 'v'), found;
  tools::Random random{1};

  explicit EngineSetup(DurabilityMode durability) {
    auto device = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.size_bytes = 128_MiB, .name = "bench"});
    DatabaseOptions options;
    options.memory_bytes = 48_MiB;
    options.durability = durability;
    options.create_if_blank = true;
    db = must(Database::open(std::move(device), options), "open");
    tree = must(db->tree("bench", true), "tree");
    for (std::uint64_t record = 0; record < kRecords;) {
      auto txn = db->begin();
      for (std::uint64_t i = 0; i < kPutsPerTransaction && record < kRecords; ++i) {
        tools::make_key(record++, key);
        must(txn->put(tree, key, value), "put");
      }
      must(txn->commit(), "commit");
    }
  }
  ~EngineSetup() { must(db->close(), "close"); }
  void choose_key() { tools::make_key(random.next() % kRecords, key); }
};

void get(benchmark::State& state, EngineSetup& s) {
  for (auto _ : state) {
    s.choose_key();
    const Result<bool> found = s.db->get(s.tree, s.key, s.found);
    if (!found || !*found) state.SkipWithError("a key is missing");
  }
}

void get_in_transaction(benchmark::State& state, EngineSetup& s) {
  for (auto _ : state) {
    s.choose_key();
    auto txn = s.db->begin();
    const Result<bool> found = txn->get(s.tree, s.key, s.found);
    if (!found || !*found || !txn->commit()) state.SkipWithError("the transaction failed");
  }
}

void put(benchmark::State& state, EngineSetup& s) {
  for (auto _ : state) {
    s.choose_key();
    if (!s.db->put(s.tree, s.key, s.value)) state.SkipWithError("the put failed");
  }
}

// A hundred keys from a random one on, in a transaction of its own.
void scan_100(benchmark::State& state, EngineSetup& s) {
  std::int64_t items = 0;
  for (auto _ : state) {
    s.choose_key();
    auto txn = s.db->begin();
    auto scan = must(txn->scan(s.tree), "scan");
    bool more = must(scan->seek(s.key), "seek");
    for (int i = 0; i < 100 && more; ++i, ++items) {
      benchmark::DoNotOptimize(must(scan->value(), "value").data());
      more = must(scan->next(), "next");
    }
    scan.reset();
    must(txn->commit(), "commit");
  }
  state.SetItemsProcessed(items);
}

}  // namespace

void add_engine_benchmarks() {
  const Shared<EngineSetup> flush([] { return std::make_unique<EngineSetup>(DurabilityMode::kFlush); });
  const Shared<EngineSetup> none([] { return std::make_unique<EngineSetup>(DurabilityMode::kNone); });
  const auto add = [](const char* name, const Shared<EngineSetup>& setup, void (*body)(benchmark::State&, EngineSetup&)) {
    return benchmark::RegisterBenchmark(name, [setup, body](benchmark::State& s) { body(s, setup.get()); })->UseRealTime();
  };
  add("engine/get", flush, get);
  add("engine/get_in_transaction", flush, get_in_transaction);
  add("engine/scan_100", flush, scan_100);
  add("engine/put/durability:flush", flush, put);
  add("engine/put/durability:none", none, put);
}

}  // namespace kelda::bench
