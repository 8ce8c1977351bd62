// The page map against what a program without one would do: anonymous memory, touched and given back by madvise().
// Both give 64 pages memory, touch them, and take it away again; an item is a page.
#include <sys/mman.h>

#include <vector>

#include "bench/suites.h"
#include "bufferpool/page_map.h"

namespace kelda::bench {
namespace {

using bufferpool::PageMap;

constexpr std::uint64_t kBatch = 64;
constexpr std::uint64_t kPages = 65536;

std::vector<PageId> chosen_pages(bool adjacent) {
  std::vector<PageId> pages(kBatch);
  for (std::uint64_t i = 0; i < kBatch; ++i) pages[i] = PageId(adjacent ? i : i * 997 % kPages);
  return pages;
}

void count_pages(benchmark::State& state) {
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(kBatch));
}

void page_map(benchmark::State& state) {
  const std::unique_ptr<PageMap> map = must(bufferpool::make_page_map(kBatch, kPages), "page map");
  const std::vector<PageId> pages = chosen_pages(state.range(0) != 0);
  for (auto _ : state) {
    for (std::uint64_t i = 0; i < kBatch; ++i) {
      map->frame_address(pages[i], FrameId(static_cast<std::uint32_t>(i)))[0] = std::byte{1};
      if (!map->map(pages[i], FrameId(static_cast<std::uint32_t>(i)))) state.SkipWithError("no table");
    }
    const PageMap::Epoch epoch = map->unmap(pages);
    while (!map->passed(epoch)) runtime::Core::current().yield();
    map->release(pages);
  }
  count_pages(state);
}

void plain_madvise(benchmark::State& state) {
  void* region = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) {
    state.SkipWithError("no memory");
    return;
  }
  madvise(region, kPages * kPageBytes, MADV_NOHUGEPAGE);  // advice: a platform without huge pages may refuse it
  auto* base = static_cast<std::byte*>(region);
  const bool adjacent = state.range(0) != 0;
  const std::vector<PageId> pages = chosen_pages(adjacent);
  for (auto _ : state) {
    for (PageId page : pages) *const_cast<volatile std::byte*>(base + page.value * kPageBytes) = std::byte{1};
    int failed = 0;
    if (adjacent) {
      failed = madvise(base, kBatch * kPageBytes, MADV_DONTNEED);
    } else {
      for (PageId page : pages) failed |= madvise(base + page.value * kPageBytes, kPageBytes, MADV_DONTNEED);
    }
    if (failed != 0) state.SkipWithError("madvise failed");
  }
  count_pages(state);
  munmap(region, kPages * kPageBytes);
}

}  // namespace

void add_map_benchmarks() {
  benchmark::RegisterBenchmark("map/page_map", page_map)->ArgName("adjacent")->Arg(0)->Arg(1);
  benchmark::RegisterBenchmark("map/plain_madvise", plain_madvise)->ArgName("adjacent")->Arg(0)->Arg(1);
}

}  // namespace kelda::bench
