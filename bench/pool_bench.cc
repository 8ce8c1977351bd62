// What the buffer pool costs by itself: hits, latches, and a miss that evicts. The device is left out: the store answers
// at once.
#include "bench/suites.h"
#include "bufferpool/buffer_pool.h"
#include "common/prng.h"

namespace kelda::bench {
namespace {

using bufferpool::BufferPool;
using bufferpool::ExclusiveGuard;
using bufferpool::SharedGuard;

class InstantStore final : public disk::PageStore {
 public:
  Result<> read(PageId, std::byte* into) override {
    into[100] = std::byte{1};  // touches the frame, as a device would
    return {};
  }
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) override {
    for (std::size_t i = 0; i < pages.size(); ++i) status[i] = read(pages[i], into[i]);
  }
  Result<> write(std::span<const disk::PageWrite>) override { return {}; }
  Result<> sync() override { return {}; }
  void forget(std::span<const PageId>) override {}
  const disk::Layout& layout() const override { return layout_; }
  Result<RepairReport> repair() override { return RepairReport{}; }

 private:
  disk::Layout layout_;
};

constexpr std::uint64_t kFrames = 8192;
constexpr std::uint64_t kPages = 65536;

struct Setup {
  InstantStore store;
  std::unique_ptr<BufferPool> pool = must(BufferPool::create({.frame_count = kFrames, .page_count = kPages}, store), "pool");
  Prng prng{1};
};

void optimistic_hit(benchmark::State& state) {
  Setup setup;
  const auto pages = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t page = 0; page < pages; ++page) must(setup.pool->make_resident(PageId(page)), "read");
  for (auto _ : state) {
    const PageId page(setup.prng.below(pages));
    std::uint64_t version;
    bool good = setup.pool->optimistic_begin(page, version);
    benchmark::DoNotOptimize(setup.pool->data(page)[100]);
    good = good && setup.pool->optimistic_validate(page, version);
    if (!good) state.SkipWithError("a hit missed");
  }
}

void latch_shared(benchmark::State& state) {
  Setup setup;
  for (auto _ : state) {
    if (!SharedGuard::take(*setup.pool, PageId(7))) state.SkipWithError("no latch");
  }
}

void latch_exclusive(benchmark::State& state) {
  Setup setup;
  for (auto _ : state) {
    if (!ExclusiveGuard::take(*setup.pool, PageId(7))) state.SkipWithError("no latch");
  }
}

void miss_and_evict(benchmark::State& state) {
  Setup setup;
  const bool dirty = state.range(0) != 0;
  const bool sequential = state.range(1) != 0;
  std::uint64_t next = 0;
  // From the first iteration on, each miss finds the pool full.
  for (; next < kFrames; ++next) must(setup.pool->make_resident(PageId(next)), "read");
  const std::uint64_t misses_before = setup.pool->stats().misses;
  for (auto _ : state) {
    const PageId page(sequential ? next++ % kPages : setup.prng.below(kPages));
    Result<ExclusiveGuard> guard = ExclusiveGuard::take(*setup.pool, page);
    if (!guard) {
      state.SkipWithError("no latch");
      break;
    }
    if (dirty) guard->mark_dirty(Lsn(1));
  }
  const auto misses = static_cast<double>(setup.pool->stats().misses - misses_before);
  state.counters["miss_ratio"] = misses / static_cast<double>(state.iterations());
}

}  // namespace

void add_pool_benchmarks() {
  benchmark::RegisterBenchmark("pool/optimistic_hit", optimistic_hit)->ArgName("pages")->Arg(1)->Arg(256)->Arg(7000);
  benchmark::RegisterBenchmark("pool/latch_shared", latch_shared);
  benchmark::RegisterBenchmark("pool/latch_exclusive", latch_exclusive);
  benchmark::RegisterBenchmark("pool/miss_and_evict", miss_and_evict)
      ->ArgNames({"dirty", "sequential"})->Args({0, 0})->Args({0, 1})->Args({1, 0})->Args({1, 1});
}

}  // namespace kelda::bench
