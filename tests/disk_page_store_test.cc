// The page store: every page old or new after any crash, damage named and never papered over.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "blockdev/memory_sim.h"
#include "common/prng.h"
#include "disk/aligned_buffer.h"
#include "disk/double_write_slot.h"
#include "disk/page_check.h"
#include "disk/page_store.h"
#include "disk/superblock.h"
#include "runtime/core_sim.h"
#include "runtime/sync.h"

namespace kelda::disk {
namespace {

using blockdev::Fault;
using blockdev::MemoryDevice;
using blockdev::Survival;

constexpr std::uint64_t kSize = 16_MiB;

struct Disk {
  explicit Disk(std::unique_ptr<MemoryDevice> given) : device(std::move(given)) {}
  static Disk fresh() {
    Disk disk(std::make_unique<MemoryDevice>(blockdev::MemoryOptions{.size_bytes = kSize}));
    Result<Superblock> formatted = Superblock::format(*disk.device, {});
    EXPECT_TRUE(formatted);
    disk.layout = formatted->layout();
    disk.store = make_double_write_store(*disk.device, disk.layout);
    return disk;
  }
  // What the next boot finds, not yet repaired.
  Disk after_crash(Survival survival, std::uint64_t seed) {
    Disk next(device->crash(survival, seed));
    next.layout = layout;
    next.store = make_double_write_store(*next.device, layout);
    return next;
  }

  std::unique_ptr<MemoryDevice> device;
  Layout layout;
  std::unique_ptr<PageStore> store;
};

// Pages with a recognisable content: id and version everywhere.
class Pages {
 public:
  explicit Pages(std::size_t count) : memory_(count * kPageBytes) {}
  void add(std::uint64_t page, std::uint64_t version) {
    std::byte* copy = memory_.data() + writes_.size() * kPageBytes;
    auto* words = reinterpret_cast<std::uint64_t*>(copy);
    for (std::size_t i = 4; i < kPageBytes / 8; ++i) words[i] = version * 1000 + page;
    header_of(copy).lsn = version;
    writes_.push_back({PageId(page), copy});
  }
  std::span<const PageWrite> writes() const { return writes_; }

 private:
  AlignedBuffer memory_;
  std::vector<PageWrite> writes_;
};

Result<> write(PageStore& store, std::uint64_t version, std::initializer_list<std::uint64_t> ids) {
  Pages pages(ids.size());
  for (std::uint64_t id : ids) pages.add(id, version);
  return store.write(pages.writes());
}

// 0: never written. Fails the test if the content is not of one piece.
Result<std::uint64_t> version_of(PageStore& store, std::uint64_t page) {
  AlignedBuffer buffer(kPageBytes);
  Result<> read = store.read(PageId(page), buffer.data());
  if (read.failed_with(Code::kNotFound)) return std::uint64_t{0};
  if (!read) return read.error();
  const auto* words = reinterpret_cast<const std::uint64_t*>(buffer.data());
  for (std::size_t i = 4; i < kPageBytes / 8; ++i) EXPECT_EQ(words[i], words[4]);
  EXPECT_EQ(words[4] % 1000, page);
  EXPECT_EQ(header_of(buffer.data()).lsn, words[4] / 1000);
  return words[4] / 1000;
}

TEST(PageStore, WhatWasWrittenIsReadBack) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {7, 8, 9, 500}));
  ASSERT_TRUE(disk.store->sync());
  for (std::uint64_t page : {7, 8, 9, 500}) EXPECT_EQ(*version_of(*disk.store, page), 1u);
  EXPECT_EQ(*version_of(*disk.store, 10), 0u);
}

TEST(PageStore, ReadsManyAtOnceWithAStatusEach) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {3, 4, 5}));
  disk.device->flip_bit(disk.layout.offset_of(PageId(4)) + 100, 0);
  AlignedBuffer buffer(4 * kPageBytes);
  const PageId ids[] = {PageId(3), PageId(4), PageId(5), PageId(6)};
  std::byte* into[4];
  for (int i = 0; i < 4; ++i) into[i] = buffer.data() + i * kPageBytes;
  Result<> status[4];
  disk.store->read_batch(ids, into, status);
  EXPECT_TRUE(status[0]);
  EXPECT_TRUE(status[1].failed_with(Code::kCorrupt));
  EXPECT_TRUE(status[2]);
  EXPECT_TRUE(status[3].failed_with(Code::kNotFound));
  EXPECT_EQ(header_of(into[2]).page_id, 5u);
}

TEST(PageStore, AnyFlippedBitIsFoundAndNamed) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {42}));
  for (std::uint64_t byte : {0ul, 8ul, 16ul, 24ul, 31ul, 32ul, 2000ul, 4095ul}) {
    disk.device->flip_bit(disk.layout.offset_of(PageId(42)) + byte, 5);
    Result<std::uint64_t> version = version_of(*disk.store, 42);
    ASSERT_TRUE(version.failed_with(Code::kCorrupt)) << byte;
    EXPECT_NE(version.error().message().find("page 42"), std::string::npos);
    disk.device->flip_bit(disk.layout.offset_of(PageId(42)) + byte, 5);
  }
  EXPECT_EQ(*version_of(*disk.store, 42), 1u);
}

TEST(PageStore, AMisdirectedWriteIsFoundWhereItLanded) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {42, 43}));
  AlignedBuffer page(kPageBytes);
  disk.device->peek(disk.layout.offset_of(PageId(42)), page.span());
  disk.device->poke(disk.layout.offset_of(PageId(43)), page.span());
  Result<std::uint64_t> version = version_of(*disk.store, 43);
  ASSERT_TRUE(version.failed_with(Code::kCorrupt));
  EXPECT_NE(version.error().message().find("intact page 42"), std::string::npos);
}

TEST(PageStore, APageOfAnotherDiskDoesNotVerify) {
  Disk disk = Disk::fresh(), other = Disk::fresh();
  ASSERT_TRUE(write(*other.store, 1, {42}));
  AlignedBuffer page(kPageBytes);
  other.device->peek(other.layout.offset_of(PageId(42)), page.span());
  disk.device->poke(disk.layout.offset_of(PageId(42)), page.span());
  EXPECT_TRUE(version_of(*disk.store, 42).failed_with(Code::kCorrupt));
}

TEST(PageStore, PagesBeyondTheDiskAreRefused) {
  Disk disk = Disk::fresh();
  AlignedBuffer page(kPageBytes);
  EXPECT_TRUE(disk.store->read(PageId(disk.layout.page_count), page.data()).failed_with(Code::kCorrupt));
  EXPECT_TRUE(write(*disk.store, 1, {disk.layout.page_count}).failed_with(Code::kCorrupt));
}

TEST(PageStore, AFailedWriteOrFlushIsFinal) {
  for (blockdev::Op op : {blockdev::Op::kWrite, blockdev::Op::kFlush}) {
    Disk disk = Disk::fresh();
    ASSERT_TRUE(write(*disk.store, 1, {1}));
    disk.device->set_plan({.rules = {{.fault = Fault::kError, .op = op, .count = 1}}});
    EXPECT_TRUE(write(*disk.store, 2, {1}).failed_with(Code::kIo));
    EXPECT_TRUE(write(*disk.store, 3, {2}).failed_with(Code::kIo)) << "not retried into silence";
    EXPECT_TRUE(disk.store->sync().failed_with(Code::kIo));
    EXPECT_EQ(*version_of(*disk.store, 1), 1u) << "reads go on";
  }
}

TEST(PageStore, AFailedWriteInPlaceIsFinalToo) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {1}));
  // The copies in the double-write area get through.
  const blockdev::FaultRule in_place{.op = blockdev::Op::kWrite, .from_bytes = disk.layout.pages_offset};
  disk.device->set_plan({.rules = {in_place}});
  EXPECT_TRUE(write(*disk.store, 2, {1, 7}).failed_with(Code::kIo));
  EXPECT_EQ(disk.device->faults_hit(), 1u);
  EXPECT_TRUE(write(*disk.store, 3, {2}).failed_with(Code::kIo));
  EXPECT_TRUE(disk.store->sync().failed_with(Code::kIo));
}

// A sequence of batches with syncs between, on more batches than slots, over pages that repeat.
struct Expected {
  std::map<std::uint64_t, std::uint64_t> synced, begun;  // page -> version
};

void run_sequence(PageStore& store, Expected& expected) {
  std::uint64_t version = 0;
  std::map<std::uint64_t, std::uint64_t> written;
  const std::initializer_list<std::uint64_t> batches[] = {{1, 2, 3}, {3, 4, 5}, {9}, {1, 9, 2, 30}, {3}, {5, 3, 1}};
  for (const auto& batch : batches) {
    ++version;
    for (std::uint64_t page : batch) expected.begun[page] = version;
    if (!write(store, version, batch)) return;
    for (std::uint64_t page : batch) written[page] = version;
    if (version % 2 == 0) {
      if (!store.sync()) return;
      for (auto [page, v] : written) expected.synced[page] = v;
    }
  }
}

void check_after_crash(PageStore& store, const Expected& expected) {
  for (auto [page, newest] : expected.begun) {
    Result<std::uint64_t> version = version_of(store, page);
    ASSERT_TRUE(version) << version.error().to_string();
    auto synced = expected.synced.find(page);
    EXPECT_GE(*version, synced == expected.synced.end() ? 0 : synced->second) << "page " << page;
    EXPECT_LE(*version, newest) << "page " << page;
  }
}

void crash_everywhere(Survival survival, std::uint64_t seed, std::uint64_t* repaired) {
  for (std::uint64_t crash_at = 0;; ++crash_at) {
    Disk disk = Disk::fresh();
    ASSERT_TRUE(disk.store->repair());
    disk.device->set_plan({.seed = seed, .rules = {}, .crash_after_ops = disk.device->op_count() + crash_at});
    Expected expected;
    run_sequence(*disk.store, expected);
    const bool survived = !disk.device->dead();
    Disk next = disk.after_crash(survival, seed * 1000 + crash_at);
    Result<PageStore::RepairReport> report = next.store->repair();
    ASSERT_TRUE(report);
    *repaired += report->pages_repaired;
    check_after_crash(*next.store, expected);
    // The repaired disk goes on, with the ring where it was.
    ASSERT_TRUE(write(*next.store, 900, {1, 2, 3}));
    ASSERT_TRUE(write(*next.store, 901, {3}));
    ASSERT_TRUE(next.store->sync());
    Disk last = next.after_crash(Survival::kNone, 1);
    ASSERT_TRUE(last.store->repair());
    EXPECT_EQ(*version_of(*last.store, 2), 900u);
    EXPECT_EQ(*version_of(*last.store, 3), 901u);
    if (survived) break;
  }
}

TEST(PageStoreCrash, EveryPageIsOldOrNewAfterACrashAtEveryOperation) {
  std::uint64_t repaired = 0;
  crash_everywhere(Survival::kNone, 1, &repaired);
  crash_everywhere(Survival::kAll, 1, &repaired);
  for (std::uint64_t seed = 1; seed <= 12; ++seed) crash_everywhere(Survival::kRandom, seed, &repaired);
  EXPECT_GT(repaired, 0u) << "no crash tore a page: the repair was never tried";
}

TEST(PageStoreCrash, ACrashAnywhereInTheRepairIsRepairedTheNextTime) {
  std::uint64_t reached = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    for (std::uint64_t crash_at = 0;; ++crash_at) {
      Disk disk = Disk::fresh();
      // Into the middle of the writes in place of the third batch.
      disk.device->set_plan({.seed = seed, .rules = {}, .crash_after_ops = disk.device->op_count() + 8 + seed % 6});
      Expected expected;
      run_sequence(*disk.store, expected);
      Disk torn = disk.after_crash(Survival::kRandom, seed);
      torn.device->set_plan({.seed = seed, .rules = {}, .crash_after_ops = torn.device->op_count() + crash_at});
      const Result<PageStore::RepairReport> interrupted = torn.store->repair();
      Disk again = torn.after_crash(Survival::kRandom, seed + 77);
      Result<PageStore::RepairReport> report = again.store->repair();
      ASSERT_TRUE(report);
      reached += !interrupted && report->pages_repaired > 0 ? 1 : 0;
      check_after_crash(*again.store, expected);
      if (interrupted) break;
    }
  }
  EXPECT_GT(reached, 0u);
}

// Rot strikes a page that was written long ago, while other batches are in flight: it must be reported, not "repaired"
// with a copy that is older than what was there.
TEST(PageStoreCrash, RotOutsideOfFlightIsReportedNeverReplacedByAnOldCopy) {
  std::uint64_t reported = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    for (std::uint64_t crash_at = 0;; ++crash_at) {
      Disk disk = Disk::fresh();
      disk.device->set_plan({.seed = seed, .rules = {}, .crash_after_ops = disk.device->op_count() + crash_at});
      Expected expected;
      run_sequence(*disk.store, expected);
      const bool survived = !disk.device->dead();
      Disk next = disk.after_crash(Survival::kRandom, seed * 100 + crash_at);
      for (auto [page, version] : expected.begun) {
        next.device->flip_bit(next.layout.offset_of(PageId(page)) + 64 + seed * 8, 1);
      }
      ASSERT_TRUE(next.store->repair());
      for (auto [page, newest] : expected.begun) {
        Result<std::uint64_t> version = version_of(*next.store, page);
        auto synced = expected.synced.find(page);
        if (version) {
          EXPECT_GE(*version, synced == expected.synced.end() ? 0 : synced->second);
        } else {
          EXPECT_EQ(version.error().code(), Code::kCorrupt);
          ++reported;
        }
      }
      if (survived) break;
    }
  }
  EXPECT_GT(reported, 0u);
}

TEST(PageStoreCrash, APageInFlightThatCannotBeReadIsWrittenAnew) {
  Disk disk = Disk::fresh();
  ASSERT_TRUE(write(*disk.store, 1, {7, 8}));
  Disk next = disk.after_crash(Survival::kAll, 1);
  const std::uint64_t offset = next.layout.offset_of(PageId(7));
  next.device->set_plan({.rules = {{.op = blockdev::Op::kRead, .from_bytes = offset, .to_bytes = offset + kPageBytes}}});
  Result<PageStore::RepairReport> report = next.store->repair();
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->pages_repaired, 1u);
  EXPECT_EQ(*version_of(*next.store, 7), 1u);
}

// Many fibers of several virtual cores write at once, over few pages each of its own, with delays that reorder.
TEST(PageStoreCrash, ManyWritersAtOnceInSimulatedTime) {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    std::unique_ptr<MemoryDevice> device;
    Layout layout;
    std::map<std::uint64_t, std::uint64_t> synced, begun;
    Result<int> ran = runtime::run_simulated({.seed = seed, .core_count = 3}, [&](runtime::Runtime& runtime) {
      device = std::make_unique<MemoryDevice>(blockdev::MemoryOptions{.size_bytes = kSize});
      Result<Superblock> formatted = Superblock::format(*device, {});
      EXPECT_TRUE(formatted);
      layout = formatted->layout();
      auto store = make_double_write_store(*device, layout);
      EXPECT_TRUE(store->repair());
      device->set_plan({.seed = seed, .delay_min_ns = 1'000, .delay_max_ns = 200'000, .rules = {},
                        .crash_after_ops = device->op_count() + 20 + seed * 9});
      runtime::Completion all;
      for (std::uint64_t writer = 0; writer < 6; ++writer) {
        all.add();
        EXPECT_TRUE(runtime.core(static_cast<std::uint32_t>(writer) % 3).spawn_remote([&, writer] {
          for (std::uint64_t version = 1; version < 12; ++version) {
            const std::uint64_t page = 100 + writer * 3;
            for (std::uint64_t i = 0; i < 3; ++i) begun[page + i] = version;
            if (!write(*store, version, {page, page + 1, page + 2})) break;
            if (version % 3 != 0) continue;
            if (!store->sync()) break;
            for (std::uint64_t i = 0; i < 3; ++i) synced[page + i] = version;
          }
          all.done();
        }));
      }
      all.wait();
      return 0;
    });
    ASSERT_TRUE(ran);
    auto rebooted = device->crash(Survival::kRandom, seed);
    auto store = make_double_write_store(*rebooted, layout);
    ASSERT_TRUE(store->repair());
    for (auto [page, newest] : begun) {
      Result<std::uint64_t> version = version_of(*store, page);
      ASSERT_TRUE(version) << "seed " << seed << ": " << version.error().to_string();
      EXPECT_GE(*version, synced.contains(page) ? synced[page] : 0) << "seed " << seed;
      EXPECT_LE(*version, newest);
    }
  }
}

}  // namespace
}  // namespace kelda::disk
