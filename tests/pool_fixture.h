// What the pool's tests share: a page store in memory with counters and faults, and pages whose content proves itself.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "bufferpool/buffer_pool.h"
#include "bufferpool/page_map_sim.h"
#include "bufferpool/racy_read.h"
#include "disk/page_check.h"
#include "runtime/core.h"
#include "runtime/held_latches.h"
#include "runtime/sync.h"

namespace kelda::bufferpool::testing {

// Every page exists: one that was never written reads as its id and counter 0. Thread-safe; parks where a device would.
class MemoryStore final : public disk::PageStore {
 public:
  explicit MemoryStore(std::uint64_t page_count) { layout_.page_count = page_count; }

  Result<> read(PageId page, std::byte* into) override {
    latch_.lock();
    ++reads;
    const bool fails = failing_reads.contains(page.value);
    if (auto found = content_.find(page.value); found != content_.end()) {
      std::memcpy(into, found->second.data(), kPageBytes);
    } else {
      fill(page, into, 0);
    }
    latch_.unlock();
    pause(read_delay_ns);
    if (fails) return Error(Code::kCorrupt, "page " + std::to_string(page.value) + " is bad");
    return {};
  }
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) override {
    for (std::size_t i = 0; i < pages.size(); ++i) status[i] = read(pages[i], into[i]);
  }
  Result<> write(std::span<const disk::PageWrite> batch) override {
    pause(write_delay_ns);
    latch_.lock();
    const bool fails = fail_writes;
    for (const disk::PageWrite& write : batch) {
      if (fails) break;
      EXPECT_TRUE(in_flight_.insert({write.page.value, true}).second) << "a page is in two writes at once";
      content_[write.page.value].assign(write.copy, write.copy + kPageBytes);
      max_lsn_written = std::max(max_lsn_written, disk::header_of(write.copy).lsn);
      ++writes;
    }
    latch_.unlock();
    pause(write_delay_ns);
    latch_.lock();
    for (const disk::PageWrite& write : batch) in_flight_.erase(write.page.value);
    latch_.unlock();
    if (fails) return Error(Code::kIo, "the device is gone");
    return {};
  }
  Result<> sync() override {
    latch_.lock();
    ++syncs;
    synced_ = content_;
    latch_.unlock();
    return {};
  }
  void forget(std::span<const PageId>) override {}
  const disk::Layout& layout() const override { return layout_; }
  Result<RepairReport> repair() override { return RepairReport{}; }

  // Every word of a page: its id above, a counter below. The header stays the pool's.
  static void fill(PageId page, std::byte* memory, std::uint64_t counter) {
    auto* words = reinterpret_cast<std::uint64_t*>(memory);
    for (std::size_t i = kFirstWord; i < kPageBytes / 8; ++i) words[i] = page.value << 32 | counter;
  }
  static constexpr std::size_t kFirstWord = sizeof(disk::PageHeader) / 8;

  std::uint64_t stored_counter(PageId page) { return counter_in(content_, page); }
  std::uint64_t synced_counter(PageId page) { return counter_in(synced_, page); }

  std::uint64_t reads = 0, writes = 0, syncs = 0, max_lsn_written = 0;
  std::map<std::uint64_t, bool> failing_reads;
  bool fail_writes = false;
  runtime::TimeNs read_delay_ns = 0, write_delay_ns = 0;

 private:
  using Content = std::map<std::uint64_t, std::vector<std::byte>>;
  std::uint64_t counter_in(const Content& content, PageId page) {
    latch_.lock();
    auto found = content.find(page.value);
    std::uint64_t word = 0;
    if (found != content.end()) std::memcpy(&word, found->second.data() + kFirstWord * 8, 8);
    latch_.unlock();
    return word & 0xffff'ffff;
  }
  static void pause(runtime::TimeNs delay_ns) {
    if (delay_ns > 0) runtime::Core::current().sleep_until(runtime::now_ns() + delay_ns);
  }

  disk::Layout layout_;
  runtime::SpinLatch latch_;
  Content content_, synced_;
  std::map<std::uint64_t, bool> in_flight_;
};

// The counter of a page that is latched, or was validated afterwards; `whole` is false when its words disagree.
struct Sight {
  std::uint64_t counter = 0;
  bool whole = true;
};
KELDA_RACY_READ inline Sight look(PageId page, const std::byte* memory) {
  const auto* words = reinterpret_cast<const volatile std::uint64_t*>(memory);
  const std::uint64_t first = words[MemoryStore::kFirstWord];
  Sight sight{first & 0xffff'ffff, first >> 32 == page.value};
  for (std::size_t i = MemoryStore::kFirstWord; i < kPageBytes / 8; i += 61) sight.whole &= words[i] == first;
  return sight;
}

// One optimistic read, tried until it stands.
inline Result<std::uint64_t> read_counter(BufferPool& pool, PageId page) {
  for (;;) {
    std::uint64_t version;
    if (!pool.optimistic_begin(page, version)) {
      TRY(pool.make_resident(page));
      continue;
    }
    const Sight sight = look(page, pool.data(page));
    if (!pool.optimistic_validate(page, version)) continue;
    EXPECT_TRUE(sight.whole) << "page " << page.value << " was read torn or stale, and validated";
    return sight.counter;
  }
}

// Raises the counter under the exclusive latch; returns the new one.
inline Result<std::uint64_t> bump(BufferPool& pool, PageId page, Lsn lsn = Lsn(1)) {
  ExclusiveGuard guard = TRY(ExclusiveGuard::take(pool, page));
  const Sight sight = look(page, guard.data());
  EXPECT_TRUE(sight.whole) << "page " << page.value << " is torn or stale under its latch";
  MemoryStore::fill(page, guard.data(), sight.counter + 1);
  guard.mark_dirty(lsn);
  return sight.counter + 1;
}

}  // namespace kelda::bufferpool::testing
