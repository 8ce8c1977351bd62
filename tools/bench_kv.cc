// `kelda bench kv`: the engine, driven in this process, hosted or bare.
//
// Every client is a fiber that does one operation after the other: a read of one key, or an update of one key in a
// transaction of its own that is durable before the next operation starts (unless --durability none). Its records are in a
// tree of their own, which is gone at the end, also after an error or a request to stop.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "blockdev/blockdev.h"
#include "kelda/kelda.h"
#include "runtime/machine.h"
#include "tools/bench_tree.h"
#include "tools/commands.h"
#include "tools/histogram.h"
#include "tools/json.h"
#include "tools/key_generator.h"

namespace kelda::tools {

namespace {

constexpr std::uint64_t kLoadBatch = 64;  // records a transaction while loading

struct Shared {
  Shared(const BenchKvOptions& o, Database& d, Tree t) : options(o), db(d), tree(t), chooser(o.records, o.theta) {}

  const BenchKvOptions& options;
  Database& db;
  Tree tree;
  KeyChooser chooser;
  std::atomic<std::uint64_t> loaded{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> failed{false}, interrupted{false};
  runtime::SpinLatch latch;  // guards what follows
  std::string error;
  Histogram latencies;
  std::uint64_t reads = 0, updates = 0;

  Result<> not_interrupted() const {
    return interrupted ? Result<>(Error(Code::kFailed, "stopped before its end, as asked")) : Result<>();
  }
  void fail(const Error& e) {
    std::scoped_lock guard(latch);
    if (error.empty()) error = e.to_string();
    failed = true;
    stop = true;
  }
};

Result<> load_batch(Shared& s, std::uint64_t first, std::uint64_t count, const std::string& value) {
  std::string key;
  for (;;) {
    auto txn = s.db.begin();
    Result<> done;
    for (std::uint64_t i = 0; i < count && done; ++i) {
      make_key(first + i, key);
      if (auto put = txn->put(s.tree, key, value); !put) done = std::move(put).error();
    }
    if (done) {
      TRY(txn->commit_no_wait());
      return {};
    }
    if (!done.failed_with(Code::kConflict)) return done;
  }
}

void load(Shared& s) {
  const std::string value(s.options.value_bytes, 'v');
  while (!s.stop) {
    const std::uint64_t first = s.loaded.fetch_add(kLoadBatch);
    if (first >= s.options.records) return;
    if (auto done = load_batch(s, first, std::min(kLoadBatch, s.options.records - first), value); !done) s.fail(done.error());
    runtime::Core::current().yield();
  }
}

void drive(Shared& s, std::uint64_t seed) {
  Random random(seed);
  auto latencies = std::make_unique<Histogram>();
  std::uint64_t reads = 0, updates = 0;
  std::string key, value, update(s.options.value_bytes, 'u');
  auto start_ns = runtime::now_ns();
  while (!s.stop.load(std::memory_order_relaxed)) {
    make_key(s.chooser.next(random), key);
    if (random.next() % 100 < s.options.read_percent) {
      if (auto found = s.db.get(s.tree, key, value); !found) s.fail(found.error());
      ++reads;
    } else {
      if (auto done = s.db.put(s.tree, key, update); !done) s.fail(done.error());
      ++updates;
    }
    // One look at the clock an operation: it costs a read that hits several percent.
    const auto end_ns = runtime::now_ns();
    latencies->add(end_ns - start_ns);
    start_ns = end_ns;
    // Reads that hit never wait: without this the timer's fiber would never run.
    if (((reads + updates) & 255) == 0) {
      runtime::Core::current().yield();
      start_ns = runtime::now_ns();
    }
  }
  std::scoped_lock guard(s.latch);
  s.latencies.merge(*latencies);
  s.reads += reads;
  s.updates += updates;
}

// Runs `body(index)` in `per_core` fibers on every core and waits for all.
Result<> on_all(runtime::Runtime& rt, std::uint32_t per_core, auto body) {
  runtime::Completion all;
  for (std::uint32_t c = 0; c < rt.core_count(); ++c) {
    for (std::uint32_t f = 0; f < per_core; ++f) {
      TRY(runtime::spawn_counted(rt.core(c), all, [&body, c, f, per_core] { body(c * per_core + f); }));
    }
  }
  all.wait();
  return {};
}

std::uint64_t busy_ns(runtime::Runtime& rt) {
  std::uint64_t sum = 0;
  for (std::uint32_t c = 0; c < rt.core_count(); ++c) sum += rt.core(c).stats().busy_ns;
  return sum;
}

void print_result(const Shared& s, double seconds, std::uint64_t busy, const DatabaseStats& before, const DatabaseStats& after) {
  const std::uint64_t ops = s.reads + s.updates;
  const auto per_op = [&](double value) { return ops == 0 ? 0.0 : value / static_cast<double>(ops); };
  const auto us = [&](double q) { return static_cast<double>(s.latencies.quantile_ns(q)) / 1000; };
  const double max_us = static_cast<double>(s.latencies.max_ns()) / 1000;
  const double rate = static_cast<double>(ops) / seconds;
  const double cpu_us = per_op(static_cast<double>(busy) / 1000);
  const auto device = [&](std::uint64_t DatabaseStats::*field) { return static_cast<double>(after.*field - before.*field); };
  const auto info = runtime::machine_info();
  if (s.options.json) {
    JsonWriter json;
    json.begin_object();
    json.field("platform", info.platform).field("records", s.options.records).field("value_bytes", s.options.value_bytes);
    json.field("threads", s.options.threads).field("read_percent", s.options.read_percent).field("theta", s.options.theta);
    json.field("durability", s.options.durability).field("seconds", seconds).field("operations", ops);
    json.field("operations_per_s", rate).field("p50_us", us(0.5)).field("p99_us", us(0.99)).field("p999_us", us(0.999));
    json.field("max_us", max_us).field("cpu_us_per_op", cpu_us);
    json.field("device_reads_per_op", per_op(device(&DatabaseStats::device_reads)));
    json.field("device_writes_per_op", per_op(device(&DatabaseStats::device_writes)));
    json.field("device_flushes_per_op", per_op(device(&DatabaseStats::device_flushes)));
    json.field("device_read_bytes_per_op", per_op(device(&DatabaseStats::device_read_bytes)));
    json.field("device_write_bytes_per_op", per_op(device(&DatabaseStats::device_write_bytes)));
    json.end_object();
    std::printf("%s\n", json.text().c_str());
    return;
  }
  std::printf("%llu operations in %.2f s on %s: %.0f operations/s (%llu reads, %llu updates)\n",
              static_cast<unsigned long long>(ops), seconds, info.platform.c_str(), rate,
              static_cast<unsigned long long>(s.reads), static_cast<unsigned long long>(s.updates));
  std::printf("latency        p50 %.2f us   p99 %.2f us   p99.9 %.2f us   max %.2f us\n", us(0.5), us(0.99), us(0.999), max_us);
  std::printf("CPU            %.3f us/op\n", cpu_us);
  std::printf("device per op  %.4f reads  %.4f writes  %.4f flushes  %.1f bytes read  %.1f bytes written\n",
              per_op(device(&DatabaseStats::device_reads)), per_op(device(&DatabaseStats::device_writes)),
              per_op(device(&DatabaseStats::device_flushes)), per_op(device(&DatabaseStats::device_read_bytes)),
              per_op(device(&DatabaseStats::device_write_bytes)));
}

// Ends the measuring when its time is over, in small steps: somebody else may end it before.
void stop_when_over(Shared& s, std::uint64_t start_ns) {
  constexpr std::uint64_t kStepNs = 20'000'000;
  const std::uint64_t end_ns = start_ns + static_cast<std::uint64_t>(s.options.seconds * 1e9);
  for (std::uint64_t now = start_ns; now < end_ns && !s.stop; now = runtime::now_ns()) {
    runtime::Core::current().sleep_until(std::min(end_ns, now + kStepNs));
  }
  s.stop = true;
}

Result<> measure(runtime::Runtime& rt, Shared& s) {
  const auto load_start = runtime::now_ns();
  TRY(on_all(rt, 4, [&s](std::uint32_t) { load(s); }));
  if (s.failed) return Error(Code::kFailed, "loading: " + s.error);
  TRY(s.not_interrupted());
  TRY(s.db.checkpoint());
  std::fprintf(stderr, "loaded %llu records in %.1f s\n", static_cast<unsigned long long>(s.options.records),
               static_cast<double>(runtime::now_ns() - load_start) / 1e9);
  std::uint32_t fibers = s.options.fibers_per_thread;
  if (fibers == 0) fibers = s.options.read_percent == 100 ? 1 : 32;
  const DatabaseStats before = s.db.stats();
  const std::uint64_t busy_before = busy_ns(rt);
  const auto start_ns = runtime::now_ns();
  runtime::Completion timer;
  TRY(runtime::spawn_counted(runtime::Core::current(), timer, [&s, start_ns] { stop_when_over(s, start_ns); }));
  Result<> driven = on_all(rt, fibers, [&s](std::uint32_t i) { drive(s, 0x5eed + i); });
  s.stop = true;
  timer.wait();
  TRY(std::move(driven));
  const double seconds = static_cast<double>(runtime::now_ns() - start_ns) / 1e9;
  if (s.failed) return Error(Code::kFailed, s.error);
  TRY(s.not_interrupted());
  print_result(s, seconds, busy_ns(rt) - busy_before, before, s.db.stats());
  return {};
}

// The disk to use, and whether it is ours to delete.
std::string scratch_disk(const BenchKvOptions& options, bool& temporary) {
  temporary = false;
  if (!options.disk.empty()) return options.disk;
  if (runtime::machine_info().bare) return "/dev/vda";
  temporary = true;
  const char* folder = std::getenv("TMPDIR");
  return std::string(folder != nullptr ? folder : "/tmp") + "/kelda-bench-" + std::to_string(runtime::random_u64()) + ".disk";
}

// Between opening and closing.
Result<> run_on(Database& db, runtime::Runtime& rt, const BenchKvOptions& options, runtime::Event& stop) {
  BenchTree tree = TRY(BenchTree::make(db, options.keep_data));
  Shared shared(options, db, tree.tree());
  runtime::Completion watcher;
  Result<> measured = runtime::spawn_counted(runtime::Core::current(), watcher, [&] {
    stop.wait();
    shared.interrupted = true;
    shared.stop = true;
  });
  if (measured) measured = measure(rt, shared);
  stop.set();  // ends the fiber above
  watcher.wait();
  Result<> removed = tree.remove();
  TRY(std::move(measured));
  return removed;
}

Result<> run(runtime::Runtime& rt, const BenchKvOptions& options, runtime::Event& stop) {
  bool temporary = false;
  const std::string disk = scratch_disk(options, temporary);
  DatabaseOptions db_options;
  db_options.memory_bytes = TRY(memory_to_use(options.memory_bytes, 1_GiB));
  db_options.durability = options.durability == "none" ? DurabilityMode::kNone : DurabilityMode::kFlush;
  db_options.create_if_blank = true;
  db_options.force_create = options.force;
  db_options.lock_timeout_us = kNoLockTimeout;
  auto db = TRY(Database::open(disk, options.create_bytes, db_options));
  if (temporary) std::remove(disk.c_str());  // stays until it is closed
  Result<> done = run_on(*db, rt, options, stop);
  Result<> closed = db->close();
  TRY(std::move(done));
  return closed;
}

}  // namespace

int bench_kv(const BenchKvOptions& options) {
  static runtime::Event stop;  // lives as long as the process, as set_on_stop_request() asks
  runtime::set_on_stop_request(stop);
  Result<> done;
  auto code = runtime::Runtime::run({.core_count = options.threads}, [&](runtime::Runtime& rt) {
    done = run(rt, options, stop);
    return 0;
  });
  if (!code) done = std::move(code).error();
  if (done) return 0;
  std::fprintf(stderr, "kelda bench kv: %s\n", done.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
