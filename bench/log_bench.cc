// The log on a simulated disk that answers at once: appending a record, and what a commit and its wait cost in code.
// Flushes and checkpoints that the appends bring about are part of the time.
#include <vector>

#include "bench/suites.h"
#include "blockdev/memory_sim.h"
#include "disk/superblock.h"
#include "runtime/sync.h"
#include "wal/log.h"

namespace kelda::bench {
namespace {

using bufferpool::BufferPool;
using bufferpool::ExclusiveGuard;

// Nothing is ever recovered here: the disk is new.
class NoRecovery final : public wal::RecoveryHandler {
 public:
  Result<> redo(std::uint8_t, PageId, std::byte*, Bytes) override { return Error(Code::kCorrupt, "the log was to be empty"); }
  bool redo_overwrites(std::uint8_t) const override { return false; }
  Result<> undo(wal::TxnLog&, Lsn, Bytes) override { return Error(Code::kCorrupt, "the log was to be empty"); }
};

struct LogSetup {
  blockdev::MemoryDevice device{{.size_bytes = 64_MiB, .name = "bench"}};
  disk::Superblock superblock = must(disk::Superblock::format(device, {.log_bytes = 16_MiB}), "format");
  std::unique_ptr<disk::PageStore> store = disk::make_double_write_store(device, superblock.layout());
  std::unique_ptr<BufferPool> pool;
  std::unique_ptr<wal::Log> log;
  NoRecovery recovery;

  LogSetup() {
    pool = must(BufferPool::create({.frame_count = 512, .page_count = superblock.layout().page_count}, *store), "pool");
    log = must(wal::Log::create(device, superblock, *pool, {}), "log");
    pool->set_write_barrier(*log);
    must(log->recover(recovery), "recovery");
    for (std::uint64_t page = 1; page <= kPages; ++page) must(ExclusiveGuard::take_fresh(*pool, PageId(page)), "page");
  }
  static constexpr std::uint64_t kPages = 16;

  // One change of one page, as the owner of a page logs it.
  void change(wal::TxnLog* txn, PageId page, Bytes payload) {
    auto room = must(log->reserve(txn, payload.size(), 1), "reserve");
    auto guard = must(ExclusiveGuard::take(*pool, page), "latch");
    const wal::PageChange change{page, 1, payload};
    guard.mark_dirty(log->append(room, txn, {.changes = {&change, 1}}));
  }
  Result<> commit_durably(PageId page, Bytes payload) {
    wal::TxnLog txn;
    log->begin(txn);
    change(&txn, page, payload);
    auto room = TRY(log->reserve(&txn, 0, 1, true));
    return log->wait_commit(log->append_commit(room, txn));
  }
};

void append(benchmark::State& state) {
  LogSetup setup;
  const std::vector<std::byte> payload(static_cast<std::size_t>(state.range(0)), std::byte{0x5a});
  for (auto _ : state) setup.change(nullptr, PageId(1), payload);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}

// Fibers that commit one small transaction after the other and wait for each; an item is a commit, an iteration one of
// the measuring fiber's. `commits_per_flush` says how many share a group flush.
void commit_and_wait(benchmark::State& state) {
  LogSetup setup;
  const std::vector<std::byte> payload(64, std::byte{0x5a});
  bool stop = false;
  std::int64_t commits = 0;
  runtime::Completion ended;
  for (std::int64_t i = 1; i < state.range(0); ++i) {
    ended.add();
    must(runtime::Core::current().spawn([&, i] {
      const PageId page(static_cast<std::uint64_t>(i) % LogSetup::kPages + 1);
      for (; !stop; ++commits) must(setup.commit_durably(page, payload), "commit");
      ended.done();
    }), "spawn");
  }
  const std::uint64_t flushes_before = setup.log->stats().flushes;
  for (auto _ : state) {
    must(setup.commit_durably(PageId(1), payload), "commit");
    ++commits;
  }
  const auto flushes = static_cast<double>(setup.log->stats().flushes - flushes_before);
  state.SetItemsProcessed(commits);
  state.counters["commits_per_flush"] = flushes == 0 ? 0 : static_cast<double>(commits) / flushes;
  stop = true;
  ended.wait();
}

}  // namespace

void add_log_benchmarks() {
  benchmark::RegisterBenchmark("log/append", append)->ArgName("bytes")->Arg(64)->Arg(1024);
  benchmark::RegisterBenchmark("log/commit_and_wait", commit_and_wait)->ArgName("fibers")->Arg(1)->Arg(16)->UseRealTime();
}

}  // namespace kelda::bench
