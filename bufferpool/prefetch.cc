// Read-ahead: batches of reads, each in a fiber of its own. prefetch() uses frames that are free anyway, read_ahead()
// makes room.
#include <algorithm>
#include <utility>
#include <vector>

#include "bufferpool/pool_impl.h"
#include "runtime/core.h"

namespace kelda::bufferpool {
namespace {

struct Fetched {
  PageId page;
  FrameId frame;
};

}  // namespace

// Holds the exclusive latches of its absent pages. If its core ends before the fiber has run to the end, the task is
// destroyed, and the pages are given back as they were.
struct BufferPool::Prefetch {
  explicit Prefetch(Impl& pool_impl) : pool(pool_impl) {}
  Prefetch(Prefetch&& o) noexcept : pool(o.pool), fetched(std::move(o.fetched)), in_fiber(std::exchange(o.in_fiber, false)) {
    o.fetched.clear();
  }
  ~Prefetch() {
    for (const Fetched& one : fetched) give_back(one);
    if (in_fiber) pool.prefetches.done();
  }

  // `spare_only`: not of the frames that misses may need soon.
  bool claim(PageId page, bool spare_only) {
    if (page.value >= pool.page_count) return false;
    StateWord& word_of_page = pool.state(page);
    std::uint64_t word = word_of_page.load(std::memory_order_relaxed);
    if ((word & (kResident | kExclusive | kLimbo)) != 0) return false;
    if (!word_of_page.compare_exchange_strong(word, word | kExclusive, std::memory_order_acquire)) return false;
    const std::optional<FrameId> frame = spare_only && pool.frames_are_low() ? std::nullopt : pool.try_take_frame();
    if (!frame) {
      end_latch(page);
      return false;
    }
    fetched.push_back({page, *frame});
    return true;
  }

  void run() {
    std::vector<PageId> pages;
    std::vector<std::byte*> memory;
    for (const Fetched& one : fetched) {
      pages.push_back(one.page);
      memory.push_back(pool.map->frame_address(one.page, one.frame));
    }
    std::vector<Result<>> status(pages.size());
    pool.store.read_batch(pages, memory, status);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const Fetched one = fetched[i];
      // An error is found again, and reported, by whoever really wants the page.
      if (status[i] && pool.map->map(one.page, one.frame)) {
        (void)pool.map_frame(one.page, one.frame);
        pool.settle(one.page, Acquire::kPresent);
      } else {
        give_back(one);
      }
    }
    Impl::count(pool.counters.pages_read, static_cast<std::int64_t>(pages.size()));
    fetched.clear();
  }

  void give_back(const Fetched& one) {
    pool.map->release({&one.page, 1});
    Impl::count(pool.counters.in_flight, -1);
    pool.give_frames({&one.frame, 1});
    end_latch(one.page);
  }

  void end_latch(PageId page) {
    const std::uint64_t before = pool.state(page).fetch_sub(kExclusive, std::memory_order_release);
    if ((before & kWaiters) != 0) pool.wake(page);
  }

  Impl& pool;
  std::vector<Fetched> fetched;
  bool in_fiber = false;  // counted in pool.prefetches
};

// Takes up to kMaxPrefetch absent pages off the front of `pages`.
BufferPool::Prefetch BufferPool::claim_absent(std::span<const PageId>& pages, bool spare_only) {
  Prefetch prefetch(*impl_);
  while (!pages.empty() && prefetch.fetched.size() < kMaxPrefetch) {
    prefetch.claim(pages.front(), spare_only);
    pages = pages.subspan(1);
  }
  return prefetch;
}

void BufferPool::start(Prefetch prefetch) {
  if (prefetch.fetched.empty()) return;
  impl_->prefetches.add();
  prefetch.in_fiber = true;
  (void)runtime::Core::current().spawn([job = std::move(prefetch)]() mutable { job.run(); }, {.name = "prefetch"});
}

void BufferPool::prefetch(std::span<const PageId> pages) {
  // A plain thread's core runs its fibers only while the thread waits: the pages would stay latched for as long.
  if (!runtime::Core::current().in_fiber()) return;
  start(claim_absent(pages, true));
}

void BufferPool::read_ahead(std::span<const PageId> pages) {
  // Without frames, which only a failed pool cannot give, the pages are read when they are needed.
  if (pages.empty() || !reserve_frames(std::min<std::uint64_t>(pages.size(), impl_->frame_count / 4))) return;
  if (runtime::Core::current().in_fiber()) {
    while (!pages.empty()) start(claim_absent(pages, false));
    runtime::Core::current().yield();  // they start
    return;
  }
  Prefetch all(*impl_);
  for (const PageId page : pages) all.claim(page, false);
  all.run();
}

}  // namespace kelda::bufferpool
