#include "btree/space.h"

#include <mutex>

#include "btree/freed_pages.h"
#include "btree/ops.h"
#include "btree/space_group.h"
#include "common/assert.h"
#include "common/planted_bug.h"
#include "runtime/sync.h"

namespace kelda::btree {

namespace {

constexpr std::uint64_t kGroupPages = disk::kPagesPerSpaceMap;
constexpr unsigned kDiscardPages = 4096;         // at once: 16 MiB
constexpr std::uint64_t kLoadAhead = bufferpool::BufferPool::kMaxPrefetch;

// Re-inserting what was removed may leave new pages half empty.
constexpr std::uint64_t promised_pages(std::int64_t bytes) {
  return bytes <= 0 ? 0 : static_cast<std::uint64_t>(bytes) * 5 / 2 / kPageBytes;
}

}  // namespace

struct Space::Impl final : wal::CheckpointListener {
  Impl(bufferpool::BufferPool& p, wal::Log& l, std::uint64_t pages)
      : pool(p), log(l), page_count(pages), discards(p.can_discard()), freed_pages(pages) {
    const std::uint64_t group_count = (pages + kGroupPages - 1) / kGroupPages;
    groups.resize(group_count);
    reserve_pages = std::max<std::uint64_t>(64, pages / 100);
    const std::uint64_t kept = group_count - 1 + kFirstFreePage;  // one map a group; the first group keeps more
    free_pages = pages > kept ? pages - kept : 0;
  }

  unsigned pages_of(std::uint64_t group) const {
    return static_cast<unsigned>(std::min(kGroupPages, page_count - group * kGroupPages));
  }
  std::unique_ptr<SpaceGroup> group_from(std::uint64_t group, const std::byte* map) const {
    return std::make_unique<SpaceGroup>(map, pages_of(group), group == 0 ? kFirstFreePage : 1);
  }
  // Pages of a group that can be handed out while nothing in it is used.
  std::uint64_t usable(std::uint64_t group) const {
    const unsigned kept = group == 0 ? kFirstFreePage : 1;
    return pages_of(group) > kept ? pages_of(group) - kept : 0;
  }

  Result<> ensure_loaded();
  Result<bool> load_group(std::uint64_t group);
  Result<> format_next(std::uint64_t formatted_seen);
  bool may_take(std::uint64_t count, Use use) const;
  std::optional<PageId> take_one(PageId near);
  std::optional<PageId> take_run(std::uint32_t count);
  // Returns how many pages wait for a checkpoint.
  std::uint64_t give_back(std::span<const PageId> pages, bool freed);
  bool discard_some();
  void checkpoint_starts() override;
  void checkpoint_done() override;
  Error full() const;

  bufferpool::BufferPool& pool;
  wal::Log& log;
  const std::uint64_t page_count;
  const bool discards;  // the device can
  std::uint64_t reserve_pages;

  runtime::Mutex growing;  // held while maps are read or formatted
  std::atomic<bool> loaded{false};
  std::atomic<std::int64_t> promised_bytes{0};
  runtime::Mutex discarding;  // held while pages are claimed for it
  runtime::Event discard_wanted;

  mutable runtime::SpinLatch latch;  // guards what follows
  std::vector<std::unique_ptr<SpaceGroup>> groups;
  std::uint64_t formatted = 0;  // groups [0, formatted) exist on disk and in memory
  std::atomic<std::uint64_t> free_pages;  // read without the latch by check_promise()
  FreedPages freed_pages;
  bool discard_in_flight = false;
  std::uint64_t run_group = 0;  // where the last run was found
  PageId hints[runtime::Core::kMaxCores] = {};  // where each core took its last page
};

Result<std::unique_ptr<Space>> Space::create(bufferpool::BufferPool& pool, wal::Log& log, const disk::Layout& layout) {
  if (layout.page_count <= kFirstFreePage) return Error(Code::kTooSmall, "the disk has no room for pages");
  std::unique_ptr<Space> space(new Space);
  space->page_count_ = layout.page_count;
  space->impl_ = std::make_unique<Impl>(pool, log, layout.page_count);
  if (space->impl_->discards) log.set_checkpoint_listener(*space->impl_);
  return space;
}

Space::~Space() = default;

// ---- maps ----

// False: the group was never used.
Result<bool> Space::Impl::load_group(std::uint64_t group) {
  auto guard = bufferpool::SharedGuard::take(pool, PageId(group * kGroupPages));
  if (guard.failed_with(Code::kNotFound)) return false;
  if (!guard) return std::move(guard).error();
  if (!is_space_map(guard->data())) {
    return Error(Code::kCorrupt, "page " + std::to_string(group * kGroupPages) + ": not a space map");
  }
  auto loaded_group = group_from(group, guard->data());
  std::scoped_lock hold(latch);
  free_pages -= usable(group) - loaded_group->free();
  groups[group] = std::move(loaded_group);
  formatted = group + 1;
  return true;
}

Result<> Space::Impl::ensure_loaded() {
  // Acquire pairs with the release below: whoever sees `loaded` sees the groups.
  if (loaded.load(std::memory_order_acquire)) return {};
  std::scoped_lock hold(growing);
  if (loaded.load(std::memory_order_relaxed)) return {};
  for (std::uint64_t group = formatted; group < groups.size(); ++group) {
    if (group % kLoadAhead == 1) {
      std::vector<PageId> ahead;
      for (std::uint64_t g = group; g < std::min(groups.size(), group + kLoadAhead); ++g) {
        ahead.push_back(PageId(g * kGroupPages));
      }
      pool.prefetch(ahead);
    }
    if (!TRY(load_group(group))) break;
  }
  loaded.store(true, std::memory_order_release);
  return {};
}

// Makes the next group's map, unless another core did meanwhile. kNoSpace: there is no next one.
Result<> Space::Impl::format_next(std::uint64_t formatted_seen) {
  std::scoped_lock hold(growing);
  if (formatted != formatted_seen) return {};
  if (formatted == groups.size()) return full();
  const PageId map(formatted * kGroupPages);
  auto reservation = TRY(log.reserve(nullptr, 64, 1, true));
  TRY(pool.reserve_frames(1));
  auto guard = TRY(bufferpool::ExclusiveGuard::take_fresh(pool, map));
  format_space_map(guard.data());
  const wal::PageChange change{map, static_cast<std::uint8_t>(PageOp::kFormatMap), {}, {}, {}};
  const Lsn lsn = log.append(reservation, nullptr, {.changes = {&change, 1}, .undo = {}, .undo_next = {}, .count = {}});
  guard.mark_dirty(lsn);
  auto group = group_from(formatted, guard.data());
  guard.release();
  std::scoped_lock publish(latch);
  groups[formatted] = std::move(group);
  ++formatted;
  return {};
}

Result<> Space::load() { return impl_->ensure_loaded(); }

// ---- claims ----

Error Space::Impl::full() const {
  return Error(Code::kNoSpace, "the disk is full: remove keys or use a larger disk");
}

bool Space::Impl::may_take(std::uint64_t count, Use use) const {
  if (use == Use::kReserve) return free_pages >= count;
  return free_pages >= count + reserve_pages + promised_pages(promised_bytes.load(std::memory_order_relaxed));
}

std::optional<PageId> Space::Impl::take_one(PageId near) {
  const auto take_in = [&](std::uint64_t group, unsigned from) -> std::optional<PageId> {
    const auto bit = groups[group]->take(from);
    if (!bit) return std::nullopt;
    return PageId(group * kGroupPages + *bit);
  };
  const std::uint64_t first = near.value / kGroupPages;
  if (first < formatted) {
    if (const auto page = take_in(first, bit_of(near))) return page;
  }
  for (std::uint64_t i = 0; i < formatted; ++i) {
    if (const auto page = take_in((first + i) % formatted, 0)) return page;
  }
  return std::nullopt;
}

std::optional<PageId> Space::Impl::take_run(std::uint32_t count) {
  for (std::uint64_t i = 0; i < formatted; ++i) {
    const std::uint64_t group = (run_group + i) % formatted;
    const auto bit = groups[group]->take_run(count);
    if (!bit) continue;
    run_group = group;
    return PageId(group * kGroupPages + *bit);
  }
  return std::nullopt;
}

Result<PageId> Space::allocate(Use use, PageId near) {
  bufferpool::require_no_latch();
  TRY(impl_->ensure_loaded());
  PageId& hint = impl_->hints[runtime::Core::current().index() % runtime::Core::kMaxCores];
  for (;;) {
    std::uint64_t formatted;
    bool discard_in_flight;
    {
      std::scoped_lock hold(impl_->latch);
      if (!impl_->may_take(1, use)) return impl_->full();
      if (const auto page = impl_->take_one(near == kNoPage ? hint : near)) {
        --impl_->free_pages;
        if (!planted(Bug::kReusedPageDiscarded)) impl_->freed_pages.remove(*page);
        hint = *page;
        return *page;
      }
      formatted = impl_->formatted;
      discard_in_flight = impl_->discard_in_flight;
    }
    // What is being discarded is free, and can be had in a moment.
    if (discard_in_flight) {
      std::scoped_lock ended(impl_->discarding);
      continue;
    }
    TRY(impl_->format_next(formatted));
  }
}

Result<std::vector<PageId>> Space::allocate_run(std::uint32_t count, Use use) {
  KELDA_ASSERT(count > 0 && count < kGroupPages);
  bufferpool::require_no_latch();
  if (count == 1) return std::vector{TRY(allocate(use))};
  TRY(impl_->ensure_loaded());
  std::vector<PageId> pages;
  pages.reserve(count);
  for (;;) {
    std::uint64_t formatted;
    {
      std::scoped_lock hold(impl_->latch);
      if (!impl_->may_take(count, use)) return impl_->full();
      if (const auto first = impl_->take_run(count)) {
        impl_->free_pages -= count;
        for (std::uint64_t i = 0; i < count; ++i) {
          pages.push_back(PageId(first->value + i));
          if (!planted(Bug::kReusedPageDiscarded)) impl_->freed_pages.remove(pages.back());
        }
        return pages;
      }
      formatted = impl_->formatted;
      if (formatted == impl_->groups.size()) break;
    }
    TRY(impl_->format_next(formatted));
  }
  // No such run left: page by page.
  PageId near = kNoPage;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto page = allocate(use, near);
    if (!page) {
      cancel(pages);
      return std::move(page).error();
    }
    near = *page;
    pages.push_back(near);
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

Result<bool> Space::claim_fixed(PageId page) {
  KELDA_ASSERT(page.value > 0 && page.value < kFirstFreePage);
  TRY(impl_->ensure_loaded());
  while (impl_->formatted == 0) TRY(impl_->format_next(0));
  // Fixed pages always count as taken in memory: the page itself says whether it is in use.
  auto map = TRY(bufferpool::SharedGuard::take(impl_->pool, PageId(0)));
  return !test_bit(map.data(), bit_of(page));
}

std::uint64_t Space::Impl::give_back(std::span<const PageId> pages, bool freed) {
  std::scoped_lock hold(latch);
  for (const PageId page : pages) {
    if (page.value < kFirstFreePage) continue;
    SpaceGroup& group = *groups[page.value / kGroupPages];
    KELDA_ASSERT(group.test(bit_of(page)));
    group.clear(bit_of(page));
    ++free_pages;
    if (freed && discards) freed_pages.add(page);
  }
  return freed_pages.waiting();
}

void Space::cancel(std::span<const PageId> pages) { (void)impl_->give_back(pages, false); }

void Space::freed(std::span<const PageId> pages) {
  impl_->pool.drop(pages);
  // Before the maps were read there is nothing to correct: they will be read with the bits cleared.
  if (!impl_->loaded.load(std::memory_order_acquire)) return;
  if (impl_->give_back(pages, true) >= kWorthACheckpoint) impl_->discard_wanted.set();
}

// ---- what the device may forget ----

void Space::Impl::checkpoint_starts() {
  std::scoped_lock hold(latch);
  freed_pages.checkpoint_starts();
}

void Space::Impl::checkpoint_done() {
  {
    std::scoped_lock hold(latch);
    freed_pages.checkpoint_done();
  }
  discard_wanted.set();
}

bool Space::Impl::discard_some() {
  std::scoped_lock one_at_a_time(discarding);
  std::vector<PageId> pages;
  {
    std::scoped_lock hold(latch);
    const auto run = freed_pages.take_run(kDiscardPages);
    if (!run) return false;
    for (unsigned i = 0; i < run->page_count; ++i) {
      pages.push_back(PageId(run->first.value + i));
      groups[pages.back().value / kGroupPages]->claim(bit_of(pages.back()));
    }
    discard_in_flight = true;
  }
  pool.discard(pages);
  std::scoped_lock hold(latch);
  for (const PageId page : pages) groups[page.value / kGroupPages]->clear(bit_of(page));
  discard_in_flight = false;
  return true;
}

bool Space::discard_some() {
  bufferpool::require_no_latch();
  return impl_->discard_some();
}

std::uint64_t Space::waiting_for_discard() const {
  std::scoped_lock hold(impl_->latch);
  return impl_->freed_pages.waiting();
}

runtime::Event& Space::discard_wanted() { return impl_->discard_wanted; }

void Space::promise(std::int64_t bytes) { impl_->promised_bytes.fetch_add(bytes, std::memory_order_relaxed); }

Result<> Space::check_promise(std::size_t bytes) const {
  const std::int64_t promised = impl_->promised_bytes.load(std::memory_order_relaxed);
  if (promised <= 0) return {};
  if (promised_pages(promised + static_cast<std::int64_t>(bytes)) <= impl_->free_pages.load(std::memory_order_relaxed)) return {};
  return Error(Code::kNoSpace, "the disk is full: remove less in one transaction");
}

bool Space::in_use(PageId page) const {
  std::scoped_lock hold(impl_->latch);
  const std::uint64_t group = page.value / kGroupPages;
  return group < impl_->formatted && impl_->groups[group]->test(bit_of(page));
}

Space::Stats Space::stats() const {
  std::scoped_lock hold(impl_->latch);
  return {page_count_, page_count_ - impl_->free_pages, impl_->reserve_pages};
}

}  // namespace kelda::btree
